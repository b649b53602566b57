"""Compare a process with its plan: differences, each with its likely cause and remedy. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.errors import ParseError
from ompbind.messages import counted, label, one_line
from ompbind.plans import PRELOAD_VARIABLE, split_preload
from ompbind.verify.memory import judge_memory, unreadable
from ompbind.verify.observation import name_threads, observe, thread_ids
from ompbind.verify.report import Difference, ProcessReport
from ompbind.verify.threads import identify_openmp, judge_threads
from ompbind.worker.libraries import name_allocator, select_allocators
from ompbind.worker.runtimes import select_runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ompbind.machine.processes import Process
    from ompbind.verify.expected import Expected
    from ompbind.verify.observation import Observation


def judge(
    process: Process,
    expected: Expected | None,
    online: CpuSet,
    parent: ProcessReport | None = None,
) -> ProcessReport:
    """Return the report on one process. `parent`: the report on the rank's own process, for a
    process that the rank started."""
    unknown = (None,) * len(process.threads)
    report = ProcessReport(
        process,
        expected,
        parent.process.pid if parent else 0,
        places=unknown,
        openmp=unknown,
        runtimes=select_runtimes(process.libraries),
        allocators=select_allocators(process.libraries),
    )
    if process.ended:
        return report.replace(differences=() if parent else (exited(process),))
    if expected is None:
        problem = unreadable(process, "environment", "its plan is unknown")
        return report.replace(differences=(problem,))
    lost = tuple(find_lost_cpus(process, expected, online))
    observation = observe(process, expected, online, lost)
    results = (
        *judge_environment(observation),
        *lost,
        *judge_threads(observation, parent),
        *judge_memory(observation),
        *find_oddities(observation),
        *judge_worker(observation),
        *judge_allocators(process, report.allocators),
        *find_unknowns(observation, parent),
    )
    differences = tuple(r for r in results if isinstance(r, Difference))
    return report.replace(
        places=number_places(observation, online),
        openmp=identify_openmp(observation, differences),
        differences=differences,
        notes=tuple(r for r in results if isinstance(r, str)),
    )


def number_places(observation: Observation, online: CpuSet) -> tuple[int | None, ...]:
    """Return for each thread the number of the planned place that equals its mask, or None."""
    if observation.places:
        return observation.bound
    places = [place & online for place in observation.expected.places]
    return tuple(places.index(m) if m in places else None for m in observation.masks)


def exited(process: Process) -> Difference:
    return Difference(
        "ended",
        f"{process.name or 'the process'} has exited",
        "it finished, or was killed, before it was verified",
        "check its exit status and its output",
    )


def find_lost_cpus(process: Process, expected: Expected, online: CpuSet) -> Iterator[Difference]:
    """Yield the differences for cpus of the plan that the process can no longer have."""
    if offline := expected.cpus - online:
        stranded = tuple(t for t in process.threads if t.cpus and not t.cpus & online)
        yield Difference(
            "offline",
            f"{label('cpu', offline)} of the plan {'is' if len(offline) == 1 else 'are'} offline"
            + (f", and {counted(len(stranded), 'thread')} bound to no other" if stranded else ""),
            "switched off since the start; the kernel lets a thread that has no other cpu run "
            "anywhere as soon as it wakes up",
            f"bring them back online and restart it, or plan without them: --exclude {offline}",
            thread_ids(stranded),
        )
    present = expected.cpus & online
    missing = CpuSet() if process.cpuset is None else present - process.cpuset
    if missing:
        yield Difference(
            "cgroup",
            f"the process's cgroup no longer allows {label('cpu', missing)} of the plan: its "
            f"cpuset is {process.cpuset}",
            "since the start, the cpuset was reduced or the process was moved to another cgroup "
            "(a container's or a job's limits, systemd's AllowedCPUs, the kubelet)",
            "return these cpus to the cgroup and restart it, or plan within "
            f"{(present & (process.cpuset or online)) or process.cpuset}",
        )


def judge_environment(observation: Observation) -> Iterator[Difference]:
    """Yield variables that are not as planned."""
    if observation.process.environ is None or observation.process.overwritten:
        return
    environ = dict(observation.process.environ)
    for name, value in observation.expected.env:
        if environ.get(name) != value:
            state = f"is {environ[name]}" if name in environ else "is not set"
            yield Difference(
                "environment",
                f"{name} {state} in its environment; the plan says {value}",
                "it was started from another plan or without ompbind, or something in between "
                "changed it (a script, env, sudo)",
                "give the plan it was started from, or start it with ompbind run --plan",
            )


def judge_worker(observation: Observation) -> Iterator[Difference]:
    """Yield the difference of a worker that its server has told where to run, in vain: GNU's
    runtime prefers OMP_PLACES to GOMP_CPU_AFFINITY. ompbind lets no rank have the latter."""
    if observation.expected.rebound:
        return
    text = dict(observation.process.environ or ()).get("GOMP_CPU_AFFINITY", "")
    try:
        asked = CpuSet.parse_kernel(",".join(text.split()))
    except ParseError:
        return
    is_gnu = any(name.startswith("libgomp") for name in observation.runtimes)
    mask = observation.masks[0]
    if asked and is_gnu and not mask <= asked:
        thread = observation.process.threads[0]
        yield Difference(
            "environment",
            f"GOMP_CPU_AFFINITY={one_line(text)} in its environment has no effect: it may run on "
            f"{label('cpu', mask)}",
            "what started it binds its workers by that variable, and OMP_PLACES, which it has "
            "inherited, overrides it",
            "--omp off leaves OpenMP's variables to the program",
            (thread.tid,),
        )


def find_oddities(observation: Observation) -> Iterator[str]:
    """Yield notes on what is worth knowing but no difference."""
    process, cpus = observation.process, observation.cpus
    count, running = len(process.threads), sum(t.state == "R" for t in process.threads)
    if count > len(cpus):
        yield f"{count} threads for {counted(len(cpus), 'cpu')}, {running} of them running now"
    elsewhere = observation.threads(
        bool(mask) and mask <= cpus and t.last is not None and t.last not in cpus
        for t, mask in zip(process.threads, observation.masks, strict=True)
    )
    if elsewhere:
        who = name_threads(observation, elsewhere)
        yield f"{who} last ran elsewhere, before the mask was set"
    if len(observation.runtimes) > 1:
        runtimes = ", ".join(observation.runtimes)
        yield f"{len(observation.runtimes)} OpenMP runtimes are loaded: {runtimes}"


def judge_allocators(process: Process, loaded: Sequence[str]) -> Iterator[str]:
    """Yield notes on an allocator that LD_PRELOAD names and that is not loaded, and on several."""
    names = {name_allocator(file) for file in loaded}
    preload = dict(process.environ or ()).get(PRELOAD_VARIABLE, "")
    for path in split_preload(preload):
        name = name_allocator(path.rpartition("/")[2])
        if name and name not in names:
            yield (f"{name} is not loaded, although LD_PRELOAD names {one_line(path)}: that would "
                   "not load, or the program is statically linked")  # fmt: skip
    if len(names) > 1:
        yield f"{len(names)} allocators are loaded: {', '.join(loaded)}"


def find_unknowns(observation: Observation, parent: ProcessReport | None) -> Iterator[str]:
    """Yield a note on a process that no longer shows its environment."""
    if observation.process.overwritten:
        by = f"started by pid {parent.process.pid}" if parent else "known by its launch"
        yield (f"it has written over its environment, as setproctitle does: {by}; OpenMP's "
               "variables in it are unknown")  # fmt: skip
