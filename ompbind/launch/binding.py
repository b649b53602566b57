"""Binding this process, and trying a plan's bindings before anything is started."""

from __future__ import annotations

import errno
import os

from ompbind.cpuset import CpuSet, union
from ompbind.errors import DeniedError
from ompbind.launch import syscalls
from ompbind.launch.refusals import Refusal
from ompbind.plans import Binding
from ompbind.worker.program import require_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.launch.syscalls import Library
    from ompbind.plans import Plan


def probe(plan: Plan, environ: Mapping[str, str]) -> list[Refusal]:
    """What is refused of the plan's bindings, found out by trying each in processes that are
    gone afterwards."""
    if plan.binder == "none":
        return []
    if plan.binder == "native":
        return probe_system_calls(plan)
    said = probe_numactl(plan, environ)
    if said is None and len(plan.ranks) == 1:
        return []  # numactl was tried with this very binding
    refusals = probe_system_calls(plan)
    if said is not None and not refusals:
        refusals = [Refusal(plan.ranks[0].rank, "numactl", said)]
    return refusals


def probe_system_calls(plan: Plan) -> list[Refusal]:
    """Tries every distinct binding in a child, each part for itself."""
    bindings: dict[Binding, int] = {}
    for r in plan.ranks:
        bindings.setdefault(r.binding, r.rank)
    from ompbind.launch.pipes import read_all

    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            lines = []
            for binding, rank in bindings.items():
                lines += [f"{rank}\t{part}\t{why}\n" for part, why in try_binding(binding)]
            os.write(theirs, "".join(lines[:64]).encode())  # as many as a pipe surely holds
            os._exit(0)
        finally:
            os._exit(1)
    os.close(theirs)
    text = read_all(ours).decode("utf-8", "replace")
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise DeniedError("the child that tries the binding ended early", part="cpus", rank=0)
    refusals = []
    for line in text.splitlines():
        rank_text, part, reason = line.split("\t", 2)
        refusals.append(Refusal(int(rank_text), part, reason))
    return refusals


def widen(cpus: CpuSet) -> None:
    """Resets what was narrowed before: this process' mask to `cpus`, its memory policy to none.
    Raises DeniedError."""
    hint = "--inherited intersect plans inside what was inherited"
    try:
        syscalls.set_affinity(cpus)
    except OSError as e:
        problem = f"--inherited ignore: the affinity mask cannot be widened to {cpus}"
        raise DeniedError(f"{problem}: {e.strerror}", hint=hint, part="cpus", rank=0) from None
    try:
        if syscalls.read_memory()[0]:
            syscalls.Library().memory(0, 0)
    except OSError as e:
        if e.errno == errno.ENOSYS:
            return  # without NUMA there is no policy
        problem = "--inherited ignore: the memory policy cannot be reset"
        raise DeniedError(f"{problem}: {e.strerror}", hint=hint, part="memory", rank=0) from None


def try_binding(binding: Binding, library: Library | None = None) -> list[tuple[str, str]]:
    """Bind this process; return the parts that were refused, each with the reason."""
    refused = []
    if binding.cpus:
        try:
            syscalls.set_affinity(binding.cpus)
        except OSError as e:
            refused.append(("cpus", e.strerror or str(e)))
    if binding.mem != "none":
        try:
            syscalls.set_memory(binding.mem, binding.mems, library)
        except OSError as e:
            refused.append(("memory", e.strerror or str(e)))
    return refused


def probe_numactl(plan: Plan, environ: Mapping[str, str]) -> str | None:
    """Runs numactl once on all cpus and nodes of the plan, with itself as the worker that reports;
    what it says against it, or None. An old numactl may not know a node that the kernel has."""
    path = require_program("numactl", environ)
    for mem in dict.fromkeys(r.mem for r in plan.ranks):
        ranks = [r for r in plan.ranks if r.mem == mem]
        cpus, mems = union(r.cpus for r in ranks), union(r.mems for r in ranks)
        if mem == "preferred":  # takes one node; the rest is tried by system call
            mems = CpuSet([mems.first])
        words = Binding(cpus, mem, mems).numactl()
        if not words:
            continue
        status, text = capture(path, (*words, path, "--show"), environ)
        lines = text.strip().splitlines()
        if status != 0:
            return lines[-1] if lines else f"exit status {status}"
        told = dict(line.partition(":")[::2] for line in lines)
        for what, wanted in (("physcpubind", cpus), ("membind", mems if mem == "bind" else None)):
            got = told.get(what, "").split()
            if wanted and got and CpuSet(map(int, got)) != wanted:
                return f"asked for {what} {wanted}, it bound to {' '.join(got)}"
    return None


def capture(path: str, argv: tuple[str, ...], environ: Mapping[str, str]) -> tuple[int, str]:
    """Runs a program to its end: exit status, and what it wrote on both streams."""
    from ompbind.launch.pipes import read_all

    ours, theirs = os.pipe()
    env = {**environ, "LC_ALL": "C"}
    to_pipe = [(os.POSIX_SPAWN_DUP2, theirs, 1), (os.POSIX_SPAWN_DUP2, theirs, 2)]
    pid = os.posix_spawn(path, argv, env, file_actions=to_pipe)
    os.close(theirs)
    text = read_all(ours).decode("utf-8", "replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text
