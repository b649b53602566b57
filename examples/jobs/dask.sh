#!/usr/bin/env bash
# Dask workers of one host, each on its part of the machine:
#
#     examples/jobs/dask.sh tcp://scheduler:8786 4
#
# --no-nanny: with a nanny in between, ompbind would bind the nanny, and all workers would be alike;
# and a nanny sets OMP_NUM_THREADS=1. ompbind restarts nobody: a worker that fails ends the others,
# and whoever started this script may start it again. Each worker runs one task at a time, which may
# use all of the worker's cores by OpenMP.
set -euo pipefail

if (($# < 2)); then
    echo "usage: ${0##*/} SCHEDULER WORKERS [OPTION OF dask worker]..." >&2
    exit 125
fi
scheduler=$1
workers=$2
shift 2
exec ompbind run -n "$workers" --template -- \
    dask worker "$scheduler" --no-nanny --nthreads 1 --name "$(hostname -s)-{rank}" "$@"
