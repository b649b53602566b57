"""Starting workers: the only place that forks, executes, signals or binds."""

from __future__ import annotations

import os
import sys

from ompbind import numactl, syscalls
from ompbind.cpuset import CpuSet, union
from ompbind.errors import CommandError, DeniedError, UsageError
from ompbind.program import require_program
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from ompbind.plans import Plan, RankPlan
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up

GRACE = 10.0  # seconds from TERM to KILL for ranks that outlive a failed one

# What a part of a binding is called in messages.
PARTS = {"cpus": "sched_setaffinity", "memory": "set_mempolicy"}


class Refusal(Record):
    """The kernel, or numactl, refuses a part of a rank's binding: "cpus", "memory", "numactl"."""

    rank: int
    part: str
    reason: str


class Start(Record):
    """All that starting one rank needs, worked out before any is started."""

    rank: RankPlan
    path: str
    env: dict[bytes, bytes]


def run(
    plan: Plan,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    *,
    on_denied: str = "error",
    may_switch: bool = False,
) -> int:
    """Starts every rank as planned and returns the exit status.

    A plan of one rank replaces this process and does not return. Raises CommandError for a command
    that cannot be executed and DeniedError for a binding that is refused, with nothing started.
    `say` gets a warning for each part that `on_denied` "degrade" leaves out. With `may_switch`, a
    numactl that does not work here is no refusal: the same system calls are made without it.
    """
    for rank in plan.ranks:
        if not worker_of(rank, plan.binder):
            raise UsageError("no command to run", hint="put it after --: ompbind run -- COMMAND")
    programs = {
        name: require_program(name, environ)
        for name in dict.fromkeys(worker_of(r, plan.binder)[0] for r in plan.ranks)
    }
    if hasattr(signal, "SIGCHLD"):  # ignored, it would lose every child's exit status
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    alone = len(plan.ranks) == 1
    if not (alone and plan.binder == "native"):
        refusals = probe(plan, environ)
        switch = may_switch and {r.part for r in refusals} == {"numactl"}
        plan = settle(plan, refusals, "degrade" if switch else on_denied, say)
    starts = [make_start(plan, rank, environ, programs) for rank in plan.ranks]
    if not hasattr(os, "fork"):
        return run_portably(starts)
    if len(starts) > 1:
        return run_children(plan, starts)
    if plan.binder == "native":
        bind_or_say(plan.ranks[0], on_denied, say)
    return execute(starts[0])


def worker_of(rank: RankPlan, binder: str) -> tuple[str, ...]:
    """The worker's own command, without numactl's part."""
    binding = numactl.make_binding(binder, rank.cpus, rank.mem, rank.mems)
    worker = rank.argv[len(binding) :]
    return worker[1:] if binding and worker[:1] == ("--",) else worker


def make_start(
    plan: Plan, rank: RankPlan, environ: Mapping[str, str], programs: Mapping[str, str]
) -> Start:
    worker = worker_of(rank, plan.binder)
    path = programs[worker[0]]
    if rank.argv != worker:
        path = require_program(rank.argv[0], environ)
    env = {k: v for k, v in environ.items() if k not in rank.unset} | dict(rank.env)
    return Start(rank, path, {os.fsencode(k): os.fsencode(v) for k, v in env.items()})


# --- trying a binding ----------------------------------------------------------------------------


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
        refusals = [Refusal(0, "numactl", said)]
    return refusals


def probe_system_calls(plan: Plan) -> list[Refusal]:
    """Tries every distinct binding in a child, each part for itself."""
    bindings: dict[tuple[CpuSet, str, CpuSet], int] = {}
    for r in plan.ranks:
        bindings.setdefault((r.cpus, r.mem, r.mems), r.rank)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            lines = []
            for (cpus, mem, mems), rank in bindings.items():
                lines += [f"{rank}\t{part}\t{why}\n" for part, why in try_binding(cpus, mem, mems)]
            os.write(theirs, "".join(lines[:64]).encode())  # as many as a pipe surely holds
            os._exit(0)
        finally:
            os._exit(1)
    os.close(theirs)
    text = read_all(ours)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise DeniedError("the child that tries the binding ended early", part="cpus", rank=0)
    refusals = []
    for line in text.splitlines():
        rank_text, part, reason = line.split("\t", 2)
        refusals.append(Refusal(int(rank_text), part, reason))
    return refusals


def try_binding(cpus: CpuSet, mem: str, mems: CpuSet) -> list[tuple[str, str]]:
    """Binds this process; the parts that were refused, and why."""
    refused = []
    if cpus:
        try:
            syscalls.set_affinity(cpus)
        except OSError as e:
            refused.append(("cpus", e.strerror or str(e)))
    if mem != "none":
        try:
            syscalls.set_memory(mem, mems)
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
        binding = numactl.make_arguments(cpus, mem, mems)
        if not binding:
            continue
        status, text = capture(path, (*binding, path, "--show"), environ)
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
    ours, theirs = os.pipe()
    env = {**environ, "LC_ALL": "C"}
    to_pipe = [(os.POSIX_SPAWN_DUP2, theirs, 1), (os.POSIX_SPAWN_DUP2, theirs, 2)]
    pid = os.posix_spawn(path, argv, env, file_actions=to_pipe)
    os.close(theirs)
    text = read_all(ours)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def read_all(fd: int) -> str:
    """Reads to the end and closes."""
    data = b""
    while more := os.read(fd, 65536):
        data += more
    os.close(fd)
    return data.decode("utf-8", "replace")


# --- what to do about a refusal ------------------------------------------------------------------


def settle(
    plan: Plan, refusals: Sequence[Refusal], on_denied: str, say: Callable[[str], None]
) -> Plan:
    """The plan to execute: itself, or under "degrade" without what was refused.

    Raises DeniedError.
    """
    if not refusals:
        return plan
    if on_denied != "degrade":
        raise denied(plan.ranks[refusals[0].rank], refusals[0])
    parts = {r.part for r in refusals}
    for part in sorted(parts):
        worst = next(r for r in refusals if r.part == part)
        say(f"{denied(plan.ranks[worst.rank], worst).message}; {left_out(part)}")
    return without(plan, parts)


def left_out(part: str) -> str:
    """What --on-denied degrade does about a refused part."""
    return {
        "cpus": "going on with cpus unbound",
        "memory": "going on with memory unbound",
        "numactl": "going on with the same system calls without numactl",
    }[part]


def without(plan: Plan, parts: set[str]) -> Plan:
    """The same plan without the refused parts."""
    binder = "native" if "numactl" in parts else plan.binder
    ranks = []
    for rank in plan.ranks:
        cpus = CpuSet() if "cpus" in parts else rank.cpus
        mem, mems = ("none", CpuSet()) if "memory" in parts else (rank.mem, rank.mems)
        binding = numactl.make_binding(binder, cpus, mem, mems)
        argv = numactl.make_command(binding, worker_of(rank, plan.binder))
        ranks.append(rank.replace(cpus=cpus, mem=mem, mems=mems, argv=argv))
    return plan.replace(ranks=tuple(ranks), binder=binder)


def denied(rank: RankPlan, refusal: Refusal) -> DeniedError:
    if refusal.part == "numactl":
        message = f"numactl cannot bind as planned: {refusal.reason}"
        hint = "--binder native uses the same system calls without numactl"
    else:
        what = f"cpus {rank.cpus}" if refusal.part == "cpus" else f"memory: {rank.mem} {rank.mems}"
        call = PARTS[refusal.part]
        message = f"rank {rank.rank}: the kernel refuses to bind {what.strip()} ({call}: "
        message += f"{refusal.reason})"
        hint = "--on-denied degrade goes on without"
        if refusal.part == "memory":
            hint += ", --mem none does not ask; in a container allow set_mempolicy (CAP_SYS_NICE)"
    return DeniedError(message, hint=hint, rank=rank.rank, part=refusal.part)


def bind_or_say(rank: RankPlan, on_denied: str, say: Callable[[str], None]) -> None:
    """Binds this process, which is about to become the only rank. Raises DeniedError."""
    for part, reason in try_binding(rank.cpus, rank.mem, rank.mems):
        error = denied(rank, Refusal(rank.rank, part, reason))
        if on_denied != "degrade":
            raise error
        say(f"{error.message}; {left_out(part)}")


# --- executing -----------------------------------------------------------------------------------


def execute(start: Start) -> NoReturn:
    """Becomes the worker. Raises CommandError."""
    flush()
    restore_signals()
    try:
        os.execve(start.path, start.rank.argv, start.env)
    except OSError as e:
        raise cannot_execute(start, e.strerror or str(e)) from None


def flush() -> None:
    """What was written so far comes before the workers' output."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: closed by whoever started us
            stream.flush()


def restore_signals() -> None:
    """Python ignores these two, and a worker would inherit that."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def cannot_execute(start: Start, reason: str) -> CommandError:
    name = start.rank.argv[0]
    return CommandError(
        f"rank {start.rank.rank}: {name!r} cannot be executed: {reason}", found=True
    )


# --- several ranks -------------------------------------------------------------------------------


def run_children(plan: Plan, starts: Sequence[Start]) -> int:
    """Starts every rank as a child, waits for all, and returns the first failure's status, or 0.

    Signals are only ever waited for, so nothing interrupts and nothing wakes up for nothing.
    """
    names = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2")
    passed_on = {getattr(signal, f"SIG{n}") for n in names}
    waited = passed_on | {signal.SIGCHLD, signal.SIGALRM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    # Never called: with the default action, BSD and macOS drop it even while it is blocked.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}  # pid: rank
    try:
        start_all(plan, starts, children, before)
        return wait_for_all(children, waited, passed_on)
    except BaseException:
        end(children)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_all(
    plan: Plan, starts: Sequence[Start], children: dict[int, int], sigmask: set[int]
) -> None:
    """Forks and executes every rank; `children` gets their pids. Raises what kept one from
    starting; the caller then ends the others."""
    flush()
    ours, theirs = os.pipe()  # closed by exec: when it ends with no word, all are on their way
    for start in starts:
        try:
            pid = os.fork()
        except OSError as e:
            os.close(theirs)
            os.close(ours)
            reason = e.strerror or str(e)
            raise CommandError(
                f"rank {start.rank.rank}: no process can be made for it: {reason}", found=True
            ) from None
        if pid == 0:
            become(plan, start, sigmask, theirs)
        children[pid] = start.rank.rank
    os.close(theirs)
    if lines := read_all(ours).splitlines():
        rank_text, part, reason = lines[0].split("\t", 2)
        start = starts[int(rank_text)]
        if part == "exec":
            raise cannot_execute(start, reason)
        raise denied(start.rank, Refusal(start.rank.rank, part, reason))


def become(plan: Plan, start: Start, sigmask: set[int], report: int) -> NoReturn:
    """In the child: binds and becomes the worker, or reports in a line why not."""
    part, reason = "exec", ""
    try:
        rank = start.rank
        refused = []
        if plan.binder == "native":
            refused = try_binding(rank.cpus, rank.mem, rank.mems)
        if refused:
            part, reason = refused[0]
        else:
            restore_signals()
            signal.pthread_sigmask(signal.SIG_SETMASK, sigmask)
            os.execve(start.path, rank.argv, start.env)
    except OSError as e:
        reason = e.strerror or str(e)
    except BaseException as e:
        reason = repr(e)
    finally:
        os.write(report, f"{start.rank.rank}\t{part}\t{reason}\n".encode("utf-8", "replace"))
        os._exit(125)


def wait_for_all(children: dict[int, int], waited: set[int], passed_on: set[int]) -> int:
    """Waits for every child, passing signals on; a failure ends the others."""
    first_failure = 0
    while children:
        number, from_terminal = wait_signal(waited)
        if number == signal.SIGALRM:
            send(children, signal.SIGKILL)
        elif number != signal.SIGCHLD:
            if not from_terminal:  # the terminal has sent it to the whole foreground group
                send(children, number)
        else:
            for status in reap(children):
                if status and not first_failure:
                    first_failure = status
                    send(children, signal.SIGTERM)
                    signal.setitimer(signal.ITIMER_REAL, GRACE)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return first_failure


def wait_signal(waited: set[int]) -> tuple[int, bool]:
    """The next signal, and whether the terminal sent it."""
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(waited)
        return info.si_signo, info.si_code > 0 and info.si_signo != signal.SIGCHLD
    number = signal.sigwait(waited)
    return number, number in (signal.SIGINT, signal.SIGQUIT) and os.isatty(0)


def reap(children: dict[int, int]) -> list[int]:
    """Takes away those that have ended: their statuses, 128+N for a signal N."""
    statuses = []
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            del children[pid]
            code = os.waitstatus_to_exitcode(status)
            statuses.append(code if code >= 0 else 128 - code)
    return statuses


def send(children: dict[int, int], number: int) -> None:
    for pid in children:
        os.kill(pid, number)  # not reaped yet, so the number is still this child's


def end(children: dict[int, int]) -> None:
    """After a start that failed: nothing stays behind."""
    send(children, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    children.clear()


# --- systems without fork --------------------------------------------------------------------


def run_portably(starts: Sequence[Start]) -> int:
    """The same with subprocess alone, where a process can neither fork nor become another."""
    import queue
    import subprocess
    import threading

    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    workers: list[subprocess.Popen[bytes]] = []
    first_failure = 0
    try:
        for start in starts:
            env = {os.fsdecode(k): os.fsdecode(v) for k, v in start.env.items()}
            try:
                worker = subprocess.Popen(start.rank.argv, executable=start.path, env=env)
            except OSError as e:
                raise cannot_execute(start, e.strerror or str(e)) from None
            workers.append(worker)
            threading.Thread(target=lambda w=worker: ended.put(w.wait()), daemon=True).start()
        for _ in workers:
            status = ended.get()
            if status and not first_failure:
                first_failure = status if status > 0 else 128 - status
                terminate(workers)
    except BaseException:
        terminate(workers)
        raise
    return first_failure


def terminate(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
