"""The files that --warm reads into memory before the ranks start: which, and onto which nodes."""

from __future__ import annotations

import os
import stat

from ompbind.cpuset import CpuSet, union
from ompbind.errors import ParseError, UsageError
from ompbind.messages import quote
from ompbind.plans import WarmFile
from ompbind.worker.template import fill, make_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.plans import Plan, RankPlan


def add_files(plan: Plan, paths: Sequence[str]) -> Plan:
    """Return the plan with these files, each for the nodes of all ranks, or where its name has
    {rank} and the like for those of its rank. Raises UsageError."""
    if plan.task.local_ranks not in (None, 1) and not all("{" in path for path in paths):
        path = next(path for path in paths if "{" not in path)
        raise UsageError(
            f"--warm {quote(path)}: {plan.task.label} has started {plan.task.local_ranks} ranks "
            "here, and each would take the file to its own node",
            hint="name each rank's own file, as in shard-{local_rank}.bin; or one ompbind on each "
            "node, which starts the ranks",
        )
    nodes_of: dict[str, CpuSet] = {}
    for path in paths:
        for name, nodes in find_readers(plan, path):
            whole = os.path.abspath(name)
            nodes_of[whole] = nodes_of.get(whole, CpuSet()) | nodes
    files = [make_file(path, nodes, plan) for path, nodes in nodes_of.items()]
    return plan.replace(warm=join_files([*plan.warm, *files]))


def check_files(plan: Plan) -> Plan:
    """Return a saved plan with its files as they are now. Raises UsageError."""
    return plan.replace(warm=tuple(make_file(f.path, f.mems, plan) for f in plan.warm))


def find_readers(plan: Plan, path: str) -> list[tuple[str, CpuSet]]:
    """Return the files that a name stands for, each with the nodes of those who read it. Raises
    UsageError."""
    if "{" not in path and "}" not in path:
        return [(path, find_nodes(plan, plan.ranks))]
    readers = []
    for rank in plan.ranks:
        try:
            names = make_names(plan.numbers_of(rank), rank.cpus, rank.nodes, rank.group)
            readers.append((fill(path, names), find_nodes(plan, [rank])))
        except ParseError as e:
            raise UsageError(f"--warm {quote(path)}: {e.message}", hint=e.hint) from None
    return readers


def find_nodes(plan: Plan, ranks: Iterable[RankPlan]) -> CpuSet:
    """Return the nodes of ranks' memory, where that is bound, else of their cpus; of a server,
    those of its workers."""
    holders = plan.server.workers if plan.server else ranks
    return union(holder.mems or holder.nodes for holder in holders)


def make_file(path: str, nodes: CpuSet, plan: Plan) -> WarmFile:
    """Raises UsageError for what is no file, or cannot be read."""
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            os.close(os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        reason = getattr(e, "strerror", None) or str(e)
        raise UsageError(
            f"--warm {quote(path, 400)}: {reason}", hint="--warm takes files that can be read"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise UsageError(
            f"--warm {quote(path, 400)} is {kind}", hint="name its files, as in DIR/*.safetensors"
        )
    nodes = nodes if len(plan.host.nodes) > 1 else CpuSet()
    return WarmFile(path, status.st_size, choose_policy(nodes), nodes)


def choose_policy(nodes: CpuSet) -> str:
    """Return the memory policy under which a file is read onto these nodes."""
    return "none" if not nodes else "interleave" if len(nodes) > 1 else "preferred"


def join_files(files: Iterable[WarmFile]) -> tuple[WarmFile, ...]:
    """Return each file once, for the nodes of all that read it."""
    joined: dict[str, WarmFile] = {}
    for file in files:
        other = joined.get(file.path)
        if other is not None:
            mems = file.mems | other.mems
            file = file.replace(mem=choose_policy(mems), mems=mems)  # noqa: PLW2901
        joined[file.path] = file
    return tuple(joined.values())
