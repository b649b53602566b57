"""A plan as a script for a POSIX shell that needs no ompbind, and as taskset's commands."""

from __future__ import annotations

import shlex

from ompbind.exports.export import (
    Export,
    describe,
    env_words,
    introduce,
    lost_memory,
    require_command,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.plans import Plan, RankPlan

# Ranks in the background ignore INT, as POSIX has it, so they get TERM. `wait` returns early on a
# signal that is trapped: as long as the rank lives it is called again.
START = """\
status=0
pids=
trap 'kill $pids 2>/dev/null' HUP INT TERM
exec 3<&0
"""
END = """
exec 3<&-
for pid in $pids; do
    wait "$pid"
    code=$?
    while [ "$code" -gt 128 ] && kill -0 "$pid" 2>/dev/null; do
        wait "$pid"
        code=$?
    done
    [ "$status" -ne 0 ] || status=$code
done
exit "$status"
"""


def make_script(plan: Plan, ranks: Sequence[RankPlan], find: Callable[[str], str]) -> Export:
    """Return a script that starts all ranks, waits for them and exits as the first of them, in
    their order, that failed. Standard input is the first rank's. Raises UsageError."""
    require_command("sh", ranks)
    text = f"#!/bin/sh\n{introduce(plan, ranks, '; this needs no ompbind')}"
    head = len(text)
    if len(ranks) == 1:
        return Export(f"{text}\n# {describe(ranks[0])}\n{make_lines(ranks[0])}", head=head)
    text += START
    for number, rank in enumerate(ranks):
        stdin = "3<&-" if number else "<&3 3<&-"
        text += f'\n# {describe(rank)}\n(\n{make_lines(rank)}) {stdin} &\npids="$pids $!"\n'
    return Export(text + END, head=head)


def make_lines(rank: RankPlan) -> str:
    """Return the commands by which a shell becomes a rank."""
    text = f"unset {' '.join(rank.unset)}\n" if rank.unset else ""
    text += "".join(f"export {name}={shlex.quote(value)}\n" for name, value in rank.env)
    return f"{text}exec {shlex.join(bind(rank))}\n"


def bind(rank: RankPlan) -> list[str]:
    """Return a rank's command, bound by numactl where it has a memory policy, else by taskset."""
    if rank.mem != "none":
        return list(rank.binding.replace(binder="numactl").make_argv(rank.command))
    return with_taskset(rank)


def with_taskset(rank: RankPlan) -> list[str]:
    if not rank.cpus:
        return list(rank.command)
    fence = ["--"] if rank.command[0].startswith("-") else []
    return ["taskset", "-c", str(rank.cpus), *fence, *rank.command]


def make_taskset(plan: Plan, ranks: Sequence[RankPlan], find: Callable[[str], str]) -> Export:
    """Return a line for each rank, which a shell takes. Raises UsageError."""
    require_command("taskset", ranks)
    lines = [shlex.join([*env_words(rank), *with_taskset(rank)]) for rank in ranks]
    return Export("".join(f"{line}\n" for line in lines), tuple(lost_memory(ranks)), comment=False)
