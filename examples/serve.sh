#!/usr/bin/env bash
# Goes in front of a server's command line and binds the server to memory nodes:
#
#     NODES=0 examples/serve.sh vllm serve MODEL --port 8000
#     NODES="0 1" examples/serve.sh vllm serve MODEL --port '{8001+rank}'
#
#   NODES     a node for each server to start, "0 1" or "0,1"; {rank} in the server's arguments
#             becomes its number. Without it: one server, on the first node.
#   RESERVE   cores to keep free for other work, of all the servers' cores (vLLM and SGLang keep
#             some of theirs themselves)
#   OMPBIND   the launcher, when it is not found in PATH
#
# A single server of another kind than those takes this script's place: same pid, so a supervisor's
# signals reach it. vLLM and SGLang are supervised by ompbind, which passes signals on, as they would
# leave workers behind when killed. examples/balance.py puts one port in front of several servers.
set -euo pipefail

if (($# == 0)); then
    echo "usage: NODES='0 1' ${0##*/} SERVER [ARG]..." >&2
    exit 125
fi

options=(--template)
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
