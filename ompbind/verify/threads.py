"""A process's threads against its plan: their masks, and the OpenMP places they are bound to. Pure.

OpenMP's threads are told from others by their masks: each is bound to one of the plan's places.
"""

from __future__ import annotations

from ompbind.messages import counted, label, one_line, plural
from ompbind.openmp import REMOVED
from ompbind.openmp.thread_pools import find_binding_pool
from ompbind.plans import is_called
from ompbind.verify.observation import group_by_mask, name_threads, thread_ids
from ompbind.verify.report import Difference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ompbind.machine.processes import Thread
    from ompbind.verify.observation import Observation
    from ompbind.verify.report import ProcessReport

# No taskset: it knows neither places nor the cpus of roles.
REPAIR = "restart it, or ompbind verify --repair"
WIDE_REMEDY = "--places one leaves the main thread all of the rank's cpus"


def judge_threads(
    observation: Observation, parent: ProcessReport | None = None
) -> Iterator[Difference | str]:
    """Yield differences and notes (str) about masks and places. `parent`: the report on the rank's
    own process, for a process that the rank started."""
    yield from judge_outside(observation)
    yield from note_fixed(observation)
    yield from judge_named(observation)
    if parent is not None and is_confined_with(observation, parent):
        yield confined_child(observation, parent)
    elif observation.places and not observation.process.overwritten:
        yield from judge_places(observation)
    else:
        yield from judge_narrow(observation, parent)


def judge_outside(observation: Observation) -> Iterator[Difference]:
    """Yield threads that may run on cpus that are neither the rank's nor one of its roles'."""
    process = observation.process
    allowed = (observation.cpus, *observation.expected.roles)
    pairs = zip(observation.bindable, observation.masks, strict=True)
    stray = [yes and not any(mask <= cpus for cpus in allowed) for yes, mask in pairs]
    bindable = observation.threads(observation.bindable)
    overrides = [f"{n}={v}" for n, v in process.environ or () if n in REMOVED]
    for mask, threads in group_by_mask(observation, stray):
        every = threads == bindable
        remedy = REPAIR
        who = "every thread" if every else name_threads(observation, threads)
        if observation.lost:
            cause = f"the kernel had to widen the mask: {observation.loss}"
        elif overrides:
            cause = f"{overrides[0]} in its environment, which a runtime obeys instead"
        elif not every and (pool := find_binding_pool(process.libraries)):
            cause = f"{pool.name}, which binds its threads to the machine's cores by default"
            remedy = f"set {pool.otherwise} in the program to the rank's number of threads"
        else:
            cause = (
                "the mask was changed after the start: by taskset or sched_setaffinity from "
                "outside, by the program itself, or by a change of its cpuset"
            )
        yield Difference(
            "changed" if every else "outside",
            f"{who} may run on {label('cpu', mask)}; the plan says {observation.cpus}",
            cause,
            remedy,
            thread_ids(threads),
        )


def note_fixed(observation: Observation) -> Iterator[str]:
    """Yield a note about threads outside the rank's cpus that the kernel has made and lets nobody
    bind, such as io_uring's: neither the program nor ompbind can do anything about them."""
    pairs = zip(observation.bindable, observation.masks, strict=True)
    outside = [not yes and not mask <= observation.cpus for yes, mask in pairs]
    for mask, threads in group_by_mask(observation, outside):
        yield (
            f"{name_threads(observation, threads)} may run on {label('cpu', mask)}: the kernel has "
            f"made {'them' if threads[1:] else 'it'}, and lets nobody bind "
            f"{'them' if threads[1:] else 'it'}"
        )


def judge_named(observation: Observation) -> Iterator[Difference]:
    """Yield threads that are not on the cpus of the role to which they belong by their names."""
    process = observation.process
    for named in observation.expected.named:
        pairs = zip(process.threads, observation.masks, strict=True)
        away = [
            is_called(t.name, named.patterns) and not t.fixed and not mask <= named.cpus
            for t, mask in pairs
        ]
        for mask, threads in group_by_mask(observation, away):
            names = ", ".join(dict.fromkeys(one_line(t.name) for t in threads))
            yield Difference(
                "role",
                f"{name_threads(observation, threads)} ({names}) may run on {label('cpu', mask)}; "
                f"by name the role {named.role} has {label('cpu', named.cpus)} for "
                f"{'them' if threads[1:] else 'it'}",
                "it has started, or got its name, since the supervisor last looked, or was bound "
                "otherwise after that; or the supervisor is gone",
                "look again in a few seconds, or ompbind verify --repair",
                thread_ids(threads),
            )


def judge_narrow(
    observation: Observation, parent: ProcessReport | None
) -> Iterator[Difference | str]:
    """Yield threads with fewer cpus than the rank has, where no thread has a place of its own. What
    a rank has started may well be bound by the rank: servers do that with their workers."""
    cpus, available = observation.cpus, observation.available
    pairs = zip(observation.bindable, observation.masks, strict=True)
    narrow = [yes and bool(m) and m <= cpus and not available <= m for yes, m in pairs]
    for mask, threads in group_by_mask(observation, narrow):
        who = name_threads(observation, threads)
        text = f"{who} may run only on {label('cpu', mask)} of {available}"
        if parent is not None or threads[0].tid != observation.pid:
            yield f"{text}: restricted by the program itself, or later"
            continue
        yield Difference(
            "changed",
            text,
            "the mask was changed after the start: by taskset or sched_setaffinity from outside, "
            "or by the program itself; whatever it starts from now on inherits it",
            REPAIR,
            thread_ids(threads),
        )


# --- places -------------------------------------------------------------------------------------


def judge_places(observation: Observation) -> Iterator[Difference | str]:
    """Yield what differs where OpenMP binds each of its threads to a place."""
    occupancy = Occupancy(observation)
    for place, count in enumerate(occupancy.counts):
        if count > occupancy.limit:
            yield crowded(observation, place, count, occupancy.limit)
    loose = observation.threads(occupancy.loose)
    suspects = find_suspects(observation, occupancy)
    if suspects:
        yield wandered(observation, suspects, occupancy.counts)
    elif occupancy.in_place == 0 and loose and observation.team > 1:
        yield unbound(observation)
    elif occupancy.vacant and not occupancy.stray and not observation.lost:
        yield missing_threads(observation, occupancy.in_place)
    others = len(loose) - len(suspects)
    if others and occupancy.in_place:
        yield f"{counted(others, 'thread')} without a place, inside the rank's cpus: not OpenMP's"


class Occupancy:
    """How the threads of a process fill its places."""

    def __init__(self, observation: Observation) -> None:
        expected, team, places = observation.expected, observation.team, observation.places
        is_packed = expected.proc_bind in ("primary", "master")
        # The most threads that OpenMP puts into one place.
        self.limit = team if is_packed else -(-team // len(places))
        self.counts = [observation.bound.count(n) for n in range(len(places))]
        self.in_place = sum(min(count, self.limit) for count in self.counts)
        # For each thread whether it stays inside the rank's cpus without being bound to a place.
        self.loose = [
            yes and bool(mask) and mask <= observation.cpus and place is None
            for yes, mask, place in zip(
                observation.bindable, observation.masks, observation.bound, strict=True
            )
        ]
        # Those of roles are not OpenMP's.
        self.stray = sum(
            not mask or not any(mask <= cpus for cpus in (observation.cpus, *expected.roles))
            for yes, mask in zip(observation.bindable, observation.masks, strict=True)
            if yes
        )
        self.vacant = max(0, team - self.in_place - self.stray)


def find_suspects(observation: Observation, occupancy: Occupancy) -> tuple[Thread, ...]:
    """Return the loose threads that most likely belong to the vacant places; () if unclear.

    At least half of the team must be in place, and the number of candidates must equal the number
    of vacant places. If all loose threads are too many, only those count whose ids lie among the
    team's, and if these are too many as well, only those with a mask narrower than the rank's.
    """
    vacant, loose = occupancy.vacant, observation.threads(occupancy.loose)
    if not vacant or 2 * vacant > observation.team:
        return ()
    narrow = observation.threads(
        yes and not observation.available <= mask
        for yes, mask in zip(occupancy.loose, observation.masks, strict=True)
    )
    team = [t.tid for t in observation.threads(n is not None for n in observation.bound)]
    first, last = min(team, default=0), max(team, default=0)
    among = tuple(t for t in loose if first <= t.tid <= last or t.tid == observation.pid)
    candidates = (loose, among, narrow)
    return next((threads for threads in candidates if len(threads) == vacant), ())


def wandered(
    observation: Observation, threads: tuple[Thread, ...], counts: Sequence[int]
) -> Difference:
    """Return the difference for threads that have left their places, which are empty."""
    empty = [f"{{{p}}}" for p, n in zip(observation.places, counts, strict=True) if n == 0]
    masks = [str(m) for m in dict.fromkeys(t.cpus & observation.cpus for t in threads)]
    is_main = threads[0].tid == observation.pid
    if observation.lost:
        cause = f"the kernel had to change the mask: {observation.loss}"
    elif is_main:
        cause = (
            "the main thread's mask was reset after OpenMP had bound it: by the program, often so "
            "that what it starts does not inherit a single cpu, or from outside"
        )
    else:
        cause = (
            "its mask was changed after OpenMP had bound it: by taskset or sched_setaffinity, or "
            "by a change of its cpuset"
        )
    return Difference(
        "wandered",
        f"{name_threads(observation, threads)} may run on cpus {abbreviate(masks)}, while "
        f"{plural('place', len(empty))} {abbreviate(empty)} "
        f"{'are' if len(empty) > 1 else 'is'} empty",
        cause,
        "restart it with --places one if the main thread needs all cpus" if is_main else REPAIR,
        thread_ids(threads),
    )  # fmt: skip


def crowded(observation: Observation, place: int, count: int, limit: int) -> Difference:
    """Return the difference for more threads bound to one place than OpenMP would put there."""
    threads = observation.threads(n == place for n in observation.bound)
    where = f"place {{{observation.places[place]}}}"
    if threads[0].tid == observation.pid and not observation.lost:
        later = all(n in (None, place) for n in observation.bound)
        return Difference(
            "caught",
            f"the main thread is confined to {where}, and {name_threads(observation, threads[1:])} "
            f"with it, although the rank has cpus {observation.cpus}",
            "OpenMP binds the main thread to its first place as soon as its library is loaded, and "
            "every thread that it starts afterwards inherits that"
            + (", or all masks were set to it later (taskset -a)" if later else ""),
            WIDE_REMEDY,
            thread_ids(threads),
        )
    remedy = "let one runtime and one team do the work, or use --places one"
    if observation.lost:
        cause = f"the kernel had to change masks: {observation.loss}"
        remedy = "restart it within the remaining cpus"
    elif len(observation.runtimes) > 1:
        runtimes = ", ".join(observation.runtimes)
        cause = f"two OpenMP runtimes, each with a team of its own ({runtimes}), or masks that "
        cause += "were changed later"
    else:
        cause = "a second team of OpenMP threads (nested regions, or regions entered by several "
        cause += "threads), or masks that were changed later"
    return Difference(
        "crowded",
        f"{counted(count, 'thread')} are bound to {where}; the plan puts {limit} there: "
        f"{name_threads(observation, threads)}",
        cause,
        remedy,
        thread_ids(threads),
    )


def is_confined_with(observation: Observation, parent: ProcessReport) -> bool:
    """Whether all threads of a process that a rank started sit in the place of the rank's own main
    thread, one of several."""
    if not parent.process.threads or len(observation.places) < 2:
        return False
    mask = observation.masks[0]
    return (
        observation.bound[0] is not None
        and all(
            m == mask for yes, m in zip(observation.bindable, observation.masks, strict=True) if yes
        )
        and parent.process.threads[0].cpus == observation.process.threads[0].cpus
    )


def confined_child(observation: Observation, parent: ProcessReport) -> Difference:
    process = observation.process
    return Difference(
        "caught",
        f"{process.name} is confined to {label('cpu', observation.masks[0])} with the main thread "
        f"of pid {parent.process.pid}, although the rank has cpus {observation.cpus}",
        "OpenMP binds the main thread to its first place as soon as its library is loaded, and "
        "every process that it starts afterwards inherits that",
        WIDE_REMEDY,
        thread_ids(process.threads),
    )


def unbound(observation: Observation) -> Difference | str:
    """Return the difference or the note for a process without a thread in any place: OpenMP's
    threads have been unbound, or do not exist yet."""
    process, runtimes = observation.process, observation.runtimes
    # GNU's runtime binds the main thread when it is loaded, the others when they first need it.
    is_gnu = any(name.startswith("libgomp") for name in runtimes)
    if not is_gnu and not (runtimes and len(process.threads) >= observation.team):
        reason = "" if runtimes else ", and no OpenMP runtime is loaded"
        return f"OpenMP's threads cannot be identified: none is bound to a place{reason}"
    return Difference(
        "wandered",
        f"no thread is bound to a place, although {', '.join(runtimes)} is loaded",
        "masks were changed after OpenMP had bound its threads, or its variables were changed "
        "before it was loaded",
        "find what sets affinity in the program (os.sched_setaffinity, KMP_AFFINITY, psutil, "
        "torch's options), or plan with --proc-bind false",
        thread_ids(process.threads),
    )


def missing_threads(observation: Observation, in_place: int) -> str:
    """Return the note on a team that is smaller than planned."""
    verb = "exists" if in_place == 1 else "exist"
    text = f"{in_place} of {observation.team} OpenMP threads {verb}"
    if in_place == 1 and observation.bound[0] is not None:
        text += f": the main thread, on {label('cpu', observation.masks[0])}; "
        text += "whatever it starts inherits that"
    return text


def abbreviate(words: Sequence[str], most: int = 4) -> str:
    """Return the words; of more than `most` the first few, the last and the count."""
    shown = words if len(words) <= most else [*words[: most - 1], f"… {words[-1]} ({len(words)})"]
    return " ".join(shown)


def identify_openmp(
    observation: Observation, differences: Iterable[Difference]
) -> tuple[bool | None, ...]:
    """Return for each thread whether it is OpenMP's, by its place; None where that is unclear."""
    doubtful = {t for d in differences if d.kind in ("caught", "crowded") for t in d.threads}
    bound = observation.bound
    in_place = sum(place is not None for place in bound)
    complete = bool(observation.places) and in_place >= observation.team
    return tuple(
        None if t.tid in doubtful or (place is None and not complete) else place is not None
        for t, place in zip(observation.process.threads, bound, strict=True)
    )
