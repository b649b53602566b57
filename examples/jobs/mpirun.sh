#!/usr/bin/env bash
# An MPI launcher of any kind in front of ompbind, which divides each host among its ranks:
#
#     examples/jobs/mpirun.sh 8 ./solver input
#     MPIRUN=mpiexec.mpich HOSTFILE=hosts examples/jobs/mpirun.sh 16 ./solver input
#
#   MPIRUN     the launcher: Open MPI 4 or 5, MPICH or Intel MPI (default: mpirun)
#   HOSTFILE   the hosts, as the launcher wants them (default: this one)
#
# The launcher is told not to bind: from three ranks on Open MPI 4 would give several ranks one
# package, and hydra does not bind at all.
set -euo pipefail

if (($# < 2)); then
    echo "usage: ${0##*/} RANKS PROGRAM [ARG]..." >&2
    exit 125
fi
ranks=$1
shift
mpirun=${MPIRUN:-mpirun}
options=(-n "$ranks")
case $("$mpirun" --version 2>&1) in
    *"Open MPI"* | *"Open RTE"* | *PRRTE*)
        options+=(--bind-to none)
        [[ -z ${HOSTFILE:-} ]] || options+=(--hostfile "$HOSTFILE")
        ;;
    *Intel*)
        options+=(-genv I_MPI_PIN 0)
        [[ -z ${HOSTFILE:-} ]] || options+=(-f "$HOSTFILE")
        ;;
    *) # MPICH's hydra binds where -bind-to asks for it only
        [[ -z ${HOSTFILE:-} ]] || options+=(-f "$HOSTFILE")
        ;;
esac
exec "$mpirun" "${options[@]}" ompbind run -- "$@"
