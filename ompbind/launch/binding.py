"""Binding this process, trying a plan's bindings before anything is started, and --on-denied."""

from __future__ import annotations

import errno
import os

from ompbind.cpuset import CpuSet, parse_whole, union
from ompbind.errors import DeniedError, PlanError
from ompbind.launch import syscalls
from ompbind.plans import Binding, describe_policy
from ompbind.record import Record
from ompbind.worker import require_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ompbind.launch.syscalls import Library
    from ompbind.plans import Plan, RankPlan

# The system call that binds each part, as messages name it.
CALLS = {"cpus": "sched_setaffinity", "memory": "set_mempolicy"}


class Need(Record):
    """The first Linux that has a memory policy, and what to ask of an older one."""

    version: str
    instead: str


class Refusal(Record):
    """A part of a rank's binding that the kernel or numactl denies: "cpus", "memory" or "numactl";
    `reason`: in the system's words."""

    rank: int
    part: str
    reason: str


# --- binding this process ------------------------------------------------------------------------


def try_binding(rank: int, binding: Binding, library: Library | None = None) -> list[Refusal]:
    """Bind this process by system calls, and return the parts that were denied."""
    refusals = []
    if binding.cpus:
        try:
            syscalls.set_affinity(binding.cpus)
        except OSError as e:
            refusals.append(Refusal(rank, "cpus", e.strerror or str(e)))
    if binding.mem != "none":
        try:
            syscalls.set_memory(binding.mem, binding.mems, library, balancing=binding.balancing)
        except OSError as e:
            refusals.append(Refusal(rank, "memory", e.strerror or str(e)))
    return refusals


def reset_inherited(cpus: CpuSet) -> None:
    """Reset inherited restrictions: this process's mask to `cpus`, its memory policy to none.

    Raises DeniedError.
    """
    hint = "--inherited intersect and --within task plan inside what was inherited"
    try:
        syscalls.set_affinity(cpus)
    except OSError as e:
        problem = f"the affinity mask cannot be widened to {cpus}"
        raise DeniedError(f"{problem}: {e.strerror}", hint=hint, part="cpus", rank=0) from None
    try:
        if syscalls.read_memory()[0]:
            syscalls.Library().memory(0, 0)
    except OSError as e:
        if e.errno == errno.ENOSYS:
            return  # without NUMA there is no policy
        problem = "the memory policy cannot be reset"
        raise DeniedError(f"{problem}: {e.strerror}", hint=hint, part="memory", rank=0) from None


# --- trying a plan's bindings --------------------------------------------------------------------


def check_binder(ranks: Sequence[RankPlan], *, can_bind: bool) -> None:
    """Refuse ranks that are to be bound by nothing where that is possible: they would run unbound.
    Raises PlanError."""
    if can_bind and any(rank.cpus or rank.mems for rank in ranks):
        raise PlanError(
            "the plan has cpus or memory nodes, but nothing to bind them with: its binder is none",
            hint="it was made for a system that cannot bind; make a plan on this machine",
        )


def probe(plan: Plan, environ: Mapping[str, str], numactl: str | None = None) -> list[Refusal]:
    """Try every binding of the plan in short-lived processes, and return what is denied. `numactl`:
    its file, where that is known."""
    if plan.binder == "none":
        return []
    if plan.binder == "native":
        return probe_system_calls(plan)
    recent = any(r.binding.is_recent for r in plan.ranks)
    if recent and (refusals := probe_system_calls(plan)):  # libnuma would make do with less
        return refusals
    reason = probe_numactl(plan, environ, numactl)
    if reason is None and len(plan.ranks) == 1:
        return []  # numactl was tried with this very binding
    refusals = probe_system_calls(plan)
    if reason is not None and not refusals:
        refusals = [Refusal(plan.ranks[0].rank, "numactl", reason)]
    return refusals


def probe_system_calls(plan: Plan) -> list[Refusal]:
    """Try each distinct binding in one child, and return every part that is denied.

    Raises DeniedError if the child dies.
    """
    from ompbind.launch.pipes import receive, send

    bindings: dict[Binding, int] = {}
    for r in plan.ranks:
        bindings.setdefault(r.binding, r.rank)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            for binding, rank in bindings.items():
                for refusal in try_binding(rank, binding):
                    send(theirs, str(refusal.rank), refusal.part, refusal.reason)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(theirs)
    messages = receive(ours)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise DeniedError("the process that tries the binding was killed", part="cpus", rank=0)
    return [Refusal(int(rank), part, reason) for rank, part, reason in messages]


def probe_numactl(plan: Plan, environ: Mapping[str, str], numactl: str | None = None) -> str | None:
    """Run numactl on all cpus and nodes of the plan, with `numactl --show` as the worker, and
    return why it cannot bind so, or None. An old numactl may not know a node that the kernel has.
    """
    path = numactl or require_program("numactl", environ)
    for mem, balancing in dict.fromkeys((r.mem, r.binding.balancing) for r in plan.ranks):
        ranks = [r for r in plan.ranks if (r.mem, r.binding.balancing) == (mem, balancing)]
        cpus, mems = union(r.cpus for r in ranks), union(r.mems for r in ranks)
        if mem == "preferred" and all(len(r.mems) == 1 for r in ranks):
            mems = CpuSet([mems.first])  # the others are tried by system call
        words = Binding(cpus, mem, mems, balancing=balancing).numactl()
        if not words:
            continue
        status, text = capture(path, (*words, path, "--show"), environ)
        lines = text.strip().splitlines()
        if status != 0:
            return lines[-1] if lines else f"exit status {status}"
        shown = dict(line.partition(":")[::2] for line in lines)
        for name, wanted in (("physcpubind", cpus), ("membind", mems if mem == "bind" else None)):
            got = shown.get(name, "").split()
            if wanted and got and CpuSet(map(int, got)) != wanted:
                return f"asked for {name} {wanted}, it bound to {' '.join(got)}"
    return None


def capture(path: str, argv: tuple[str, ...], environ: Mapping[str, str]) -> tuple[int, str]:
    """Run a program to its end, and return its exit status and what it wrote on both streams."""
    from ompbind.launch.pipes import read_all

    ours, theirs = os.pipe()
    env = {**environ, "LC_ALL": "C"}
    to_pipe = [(os.POSIX_SPAWN_DUP2, theirs, 1), (os.POSIX_SPAWN_DUP2, theirs, 2)]
    pid = os.posix_spawn(path, argv, env, file_actions=to_pipe)
    os.close(theirs)
    text = read_all(ours).decode("utf-8", "replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def needs_kernel(binding: Binding) -> Need | None:
    """Return what a memory policy needs of the kernel; None for those that any Linux has. Source:
    the kernel's log of mm/mempolicy.c."""
    if binding.mem == "weighted-interleave":
        return Need("6.9", "--mem interleave takes as much of each node")
    if binding.balancing:
        return Need("5.12", "leave --mem-balancing out")
    if binding.mem == "preferred" and len(binding.mems) > 1:
        return Need("5.15", "--mem preferred of a single node (--mem-nodes N), or --mem local")
    return None


def is_older(need: Need) -> bool:
    """Whether the running kernel is older, by its name: some have what came later."""
    numbers = [parse_whole(word) for word in os.uname().release.split("-")[0].split(".")[:2]]
    wanted = [int(word) for word in need.version.split(".")]
    return None not in numbers and numbers < wanted  # type: ignore[operator]  # no None by now


def memory_words(rank: RankPlan) -> str:
    """Return a rank's memory policy for a message."""
    return describe_policy(rank.mem, rank.mems, balancing=rank.binding.balancing)


# --- --on-denied ---------------------------------------------------------------------------------


def apply_on_denied(
    plan: Plan, refusals: Sequence[Refusal], on_denied: str, say: Callable[[str], None]
) -> Plan:
    """Return the plan to execute: itself, or under "degrade" without the denied parts, each of
    which is reported to `say`. Raises DeniedError."""
    if not refusals:
        return plan
    ranks = {r.rank: r for r in plan.ranks}
    if on_denied != "degrade":
        raise make_denied(ranks[refusals[0].rank], refusals[0])
    parts = {r.part for r in refusals}
    for part in sorted(parts):
        first = next(r for r in refusals if r.part == part)
        say(make_degraded(ranks[first.rank], first))
    return drop_parts(plan, parts)


def drop_parts(plan: Plan, parts: set[str]) -> Plan:
    """Return the plan without these parts of its bindings."""
    return plan.replace(ranks=tuple(r.rebind(r.binding.without(parts)) for r in plan.ranks))


def make_degraded(rank: RankPlan, refusal: Refusal) -> str:
    """Return the warning that a denied part is left out."""
    instead = {
        "cpus": "continuing with cpus unbound",
        "memory": "continuing with memory unbound",
        "numactl": "continuing with the same system calls without numactl",
    }
    return f"{make_denied(rank, refusal).message}; {instead[refusal.part]}"


def make_denied(rank: RankPlan, refusal: Refusal) -> DeniedError:
    """Return the error for a denied part of a rank's binding."""
    if refusal.part == "numactl":
        message = f"numactl cannot bind as planned: {refusal.reason}"
        hint = "--binder native makes the same system calls without numactl"
    else:
        memory = f"memory: {memory_words(rank)}"
        wanted = f"cpus {rank.cpus}" if refusal.part == "cpus" else memory
        call = CALLS[refusal.part]
        message = f"rank {rank.name}: the kernel refuses to bind {wanted} ({call}: "
        message += f"{refusal.reason})"
        hint = "--on-denied degrade continues without"
        if refusal.part == "memory" and (need := needs_kernel(rank.binding)) and is_older(need):
            message = f"rank {rank.name}: this kernel is too old for memory: {memory_words(rank)}: "
            message += f"Linux {need.version} has it, this is {os.uname().release}"
            hint = f"{need.instead}; {hint}"
        elif refusal.part == "memory":
            hint += ", --mem none does not ask; in a container allow set_mempolicy (CAP_SYS_NICE)"
    return DeniedError(message, hint=hint, rank=rank.rank, part=refusal.part)
