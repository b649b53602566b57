"""Real engines that start ranks: Slurm's daemons, MPI launchers, torchrun, Ray and Dask, and what
their ranks are, read from /proc. Those of Debian's packages are tested with everything else; the
others have environments of their own, see `make test-engines`."""
