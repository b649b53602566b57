#!/usr/bin/env bash
# Goes in front of a server's command line and binds the server to memory nodes:
#
#     NODES=0 examples/serve.sh vllm serve MODEL --port 8000
#     NODES="0 1" RESERVE=2 examples/serve.sh vllm serve MODEL --port '800{rank}'
#
#   NODES     a node for each server to start, "0 1" or "0,1"; {rank} in the server's arguments
#             becomes its number. Without it: one server, on the first node.
#   RESERVE   cores to keep free for other work, of all the servers' cores
#   OMPBIND   the launcher, when it is not found in PATH
#
# A single server takes this script's place: same pid, so a supervisor's signals reach the server.
# One OpenMP place for each: with several, an OpenMP library that is only loaded would bind the main
# thread, and what Python starts from there, to a single cpu.
set -euo pipefail

if (($# == 0)); then
    echo "usage: NODES='0 1' ${0##*/} SERVER [ARG]..." >&2
    exit 125
fi

options=(--places one --template)
if [[ -n ${NODES:-} ]]; then
    read -ra nodes <<<"$NODES"
    options+=(--numa-bind-nodes "${nodes[@]}")
else
    options+=(--numa-bind)
fi
if [[ -n ${RESERVE:-} ]]; then
    options+=(--reserve "$RESERVE")
fi
exec "${OMPBIND:-ompbind}" run "${options[@]}" -- "$@"
