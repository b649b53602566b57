"""A plan against what was observed: differences in words, with their likely cause and remedy. Pure.

The kernel's lists of allowed cpus name cpus that could be there one day: everything is compared
among the cpus that are online.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.messages import counted, format_size, label, plural
from ompbind.openmp import REMOVED
from ompbind.record import Record
from ompbind.verify.report import Checked, Difference
from ompbind.worker.runtimes import select_runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.machine.processes import Memory, Process, Thread
    from ompbind.verify.expected import Expected

# How the kernel may write a policy of ours.
POLICY_WORDS = {
    "bind": ("bind",),
    "preferred": ("prefer", "prefer (many)"),
    "interleave": ("interleave",),
    "local": ("local", "prefer"),
}
# Pages that lie elsewhere than planned matter from these on: a share, and bytes.
SOME_SHARE, SOME_BYTES = 0.01, 256 << 10


class View(Record):
    """What the rules look at: masks and places cut down to the cpus that are online; `whole`: all
    of the rank's cpus that it can have; `places` is empty where threads cannot be told by them;
    `bound`: for each thread the number of its place or None."""

    seen: Process
    expected: Expected
    cpus: CpuSet
    whole: CpuSet
    places: tuple[CpuSet, ...]
    masks: tuple[CpuSet, ...]
    bound: tuple[int | None, ...]
    lost: str
    runtimes: tuple[str, ...]

    def threads(self, where: Iterable[bool]) -> tuple[Thread, ...]:
        return tuple(t for t, so in zip(self.seen.threads, where, strict=True) if so)


def judge(
    seen: Process,
    expected: Expected | None,
    online: CpuSet,
    parent: Checked | None = None,
) -> Checked:
    """One process against its plan; `parent`: the rank's own process, for one that it started."""
    checked = Checked(
        seen,
        expected,
        parent.seen.pid if parent else 0,
        (None,) * len(seen.threads),
        (None,) * len(seen.threads),
        runtimes=select_runtimes(seen.libraries),
    )
    if seen.ended:
        return checked.replace(differences=() if parent else (ended(seen),))
    if expected is None:
        return checked.replace(differences=(unseen(seen, "environment", "its plan"),))
    lost = [*lost_cpus(seen, expected, online)]
    view = make_view(seen, expected, online, " ".join(d.text for d in lost))
    differences: list[Difference] = [*environment(view), *lost, *outside(view)]
    notes: list[str] = []
    if view.places:
        judge_places(view, differences, notes, parent)
    else:
        judge_masks(view, differences, notes)
    judge_memory(view, differences, notes)
    notes += remarks(view)
    places = (
        view.bound
        if view.places
        else tuple(
            next((n for n, place in enumerate(expected.places) if mask == place & online), None)
            for mask in view.masks
        )
    )
    openmp = who_is_openmp(view, differences)
    return checked.replace(
        places=places, openmp=openmp, differences=tuple(differences), notes=tuple(notes)
    )


def make_view(seen: Process, expected: Expected, online: CpuSet, lost: str) -> View:
    cpus = expected.cpus & online
    within = cpus if seen.cpuset is None else cpus & seen.cpuset
    places = tuple(place & online for place in expected.places)
    if all(place == cpus for place in places):  # every thread may use all: none can be told
        places = ()
    masks = tuple(t.cpus & online for t in seen.threads)
    numbers = {place: n for n, place in reversed([*enumerate(places)]) if place}
    # A place with all of the rank's cpus among smaller ones (--places wide) is the main thread's.
    bound = tuple(
        None if mask == cpus and t.tid != seen.pid else numbers.get(mask)
        for t, mask in zip(seen.threads, masks, strict=True)
    )
    return View(
        seen,
        expected,
        cpus,
        within or cpus,
        places,
        masks,
        bound,
        lost,
        select_runtimes(seen.libraries),
    )


def who_is_openmp(view: View, differences: Sequence[Difference]) -> tuple[bool | None, ...]:
    """For each thread whether it is OpenMP's, by its place; None where that cannot be told."""
    doubtful = {t for d in differences if d.kind in ("caught", "crowded") for t in d.threads}
    team = view.expected.threads or len(view.places)
    complete = bool(view.places) and sum(n is not None for n in view.bound) >= team
    return tuple(
        None if thread.tid in doubtful or (n is None and not complete) else n is not None
        for thread, n in zip(view.seen.threads, view.bound, strict=True)
    )


# --- what has become of the process and of its cpus ---------------------------------------------


def ended(seen: Process) -> Difference:
    return Difference(
        "ended",
        f"{seen.name or 'the process'} has ended",
        "it came to its end, or was ended, before it was looked at",
        "look at its exit status and at what it wrote",
    )


def unseen(seen: Process, what: str, so: str) -> Difference:
    why = dict(seen.unseen).get(what, "it has ended")
    whose = "" if seen.user is None else f"; the process is user {seen.user}'s"
    return Difference(
        "unseen",
        f"its {what} may not be read ({why}), so {so} cannot be told",
        f"the kernel shows it to the process' own user and to root only{whose}",
        "run ompbind verify as that user, or as root",
    )


def lost_cpus(seen: Process, expected: Expected, online: CpuSet) -> Iterable[Difference]:
    """Cpus of the plan that are not to be had any more."""
    if offline := expected.cpus - online:
        alone = tuple(t.tid for t in seen.threads if t.cpus and not t.cpus & online)
        many = counted(len(alone), "thread")
        yield Difference(
            "offline",
            f"{label('cpu', offline)} of the plan {are(offline)} offline"
            + (f", and {many} bound to nothing else" if alone else ""),
            "switched off since the start; the kernel lets a thread that was bound to such cpus "
            "alone run on any other as soon as it wakes up",
            "switch them on again and start anew, or plan without them: --exclude " + str(offline),
            alone,
        )
    missing = CpuSet() if seen.cpuset is None else (expected.cpus & online) - seen.cpuset
    if missing:
        yield Difference(
            "cgroup",
            f"the process' cgroup has lost {label('cpu', missing)} of the plan: its cpuset "
            f"is {seen.cpuset}",
            "the cpuset was made smaller, or the process was moved into another cgroup, since the "
            "start (a container's or a job's limits, systemd's AllowedCPUs, the kubelet)",
            "give the cgroup these cpus back and start anew, or plan within "
            f"{(expected.cpus & online & (seen.cpuset or online)) or seen.cpuset}",
        )


def environment(view: View) -> Iterable[Difference]:
    """Variables that are not as planned."""
    if view.seen.environ is None:
        return
    environ = dict(view.seen.environ)
    for name, value in view.expected.env:
        if environ.get(name) != value:
            has = f"is {environ[name]}" if name in environ else "is not set"
            yield Difference(
                "environment",
                f"{name} {has} in its environment, planned is {value}",
                "it was started by another plan or without ompbind, or something between changed "
                "it (a script, env, sudo)",
                "give the plan it was started with, or start it with ompbind run --plan",
            )


def outside(view: View) -> Iterable[Difference]:
    """Threads that may run on cpus that are neither the rank's nor a role's of it."""
    own = (view.cpus, *view.expected.roles)
    stray = [not any(mask <= cpus for cpus in own) for mask in view.masks]
    for mask, threads in by_mask(view, stray):
        who = "every thread" if threads == view.seen.threads else name_threads(threads, view)
        overrides = [f"{n}={v}" for n, v in view.seen.environ or () if n in REMOVED]
        if view.lost:
            cause = f"the kernel widened the mask, as it had to: {view.lost}"
        elif overrides:
            cause = f"{overrides[0]} in its environment, which a runtime follows instead"
        else:
            cause = (
                "the mask was changed later: by taskset or sched_setaffinity from outside, by the "
                "program itself, or by a cpuset that was written to"
            )
        yield Difference(
            "changed" if threads == view.seen.threads else "outside",
            f"{who} may run on {label('cpu', mask)}, planned is {view.cpus}",
            cause,
            set_back(threads, view, view.whole),
            tuple(t.tid for t in threads),
        )


# --- threads ------------------------------------------------------------------------------------


def judge_masks(view: View, differences: list[Difference], notes: list[str]) -> None:
    """Where no thread has a place of its own: each may use all of the rank's cpus."""
    narrow = [bool(m) and m <= view.cpus and not view.whole <= m for m in view.masks]
    for mask, threads in by_mask(view, narrow):
        who = name_threads(threads, view)
        where = f"only on {label('cpu', mask)} of {view.whole}"
        if threads[0].tid != view.seen.pid:
            notes.append(f"{who} may run {where}: narrowed by the program itself, or later")
            continue
        differences.append(
            Difference(
                "changed",
                f"{who} may run {where}",
                "the mask was changed later: by taskset or sched_setaffinity from outside, or by "
                "the program itself; what it starts from now on inherits that",
                set_back(threads, view, view.whole),
                tuple(t.tid for t in threads),
            )
        )


def judge_places(
    view: View, differences: list[Difference], notes: list[str], parent: Checked | None
) -> None:
    """Where OpenMP binds each of its threads to a place."""
    expected = view.expected
    team = expected.threads or len(view.places)
    most = team if expected.proc_bind in ("primary", "master") else -(-team // len(view.places))
    held = [view.bound.count(n) for n in range(len(view.places))]
    if caught_with_parent(view, parent):
        differences.append(caught_child(view, parent))
        return
    for n, count in enumerate(held):
        if count > most:
            differences.append(crowded(view, n, count, most))
    in_place = sum(min(count, most) for count in held)
    free = [
        bool(mask) and mask <= view.cpus and bound is None
        for mask, bound in zip(view.masks, view.bound, strict=True)
    ]
    stray = sum(not mask or not mask <= view.cpus for mask in view.masks)
    vacant = max(0, team - in_place - stray)
    suspects = find_suspects(view, free, vacant, team)
    if suspects:
        differences.append(wandered(view, suspects, held))
    elif in_place == 0 and view.threads(free) and team > 1:
        unbound(view, differences, notes)
    elif vacant and not stray and not view.lost:
        notes.append(few(view, in_place, team))
    own = len(view.threads(free)) - len(suspects)
    if own and in_place:
        notes.append(
            f"{counted(own, 'thread')} without a place, inside the rank's cpus: not OpenMP's"
        )


def find_suspects(view: View, free: Sequence[bool], vacant: int, team: int) -> tuple[Thread, ...]:
    """The threads without a place that most likely belong to vacant ones; () when that cannot be
    told: at least half of a team must be in place, and as many threads be in question as there are
    vacant places, if need be of those whose numbers lie among the team's own."""
    loose = view.threads(free)
    if not vacant or 2 * vacant > team:
        return ()
    odd = view.threads(
        so and not view.whole <= mask for so, mask in zip(free, view.masks, strict=True)
    )
    pool = [t.tid for t in view.threads(n is not None for n in view.bound)]
    first, last = min(pool, default=0), max(pool, default=0)
    among = tuple(t for t in loose if first <= t.tid <= last or t.tid == view.seen.pid)
    return next((some for some in (loose, among, odd) if len(some) == vacant), ())


def wandered(view: View, threads: tuple[Thread, ...], held: list[int]) -> Difference:
    empty = [f"{{{p}}}" for p, count in zip(view.places, held, strict=True) if count == 0]
    places = f"{plural('place', len(empty))} {some(empty)}"
    masks = some([str(m) for m in dict.fromkeys(t.cpus & view.cpus for t in threads)])
    if view.lost:
        cause = f"the kernel changed the mask, as it had to: {view.lost}"
    elif threads[0].tid == view.seen.pid:
        cause = (
            "the main thread's mask was set again after OpenMP had bound it: by the program, "
            "often so that what it starts does not inherit one cpu, or from outside"
        )
    else:
        cause = (
            "its mask was changed after OpenMP had bound it: by taskset or sched_setaffinity, or "
            "by a cpuset that was written to"
        )
    remedy = "start anew with --places one, if the main thread must have all cpus"
    if threads[0].tid != view.seen.pid:
        remedy = set_back(threads, view, None)
    return Difference(
        "wandered",
        f"{name_threads(threads, view)} may run on cpus {masks}, while {places} "
        f"{'are' if len(empty) > 1 else 'is'} empty",
        cause,
        remedy,
        tuple(t.tid for t in threads),
    )


def crowded(view: View, place: int, count: int, most: int) -> Difference:
    """More threads bound to one place than OpenMP would put there."""
    threads = view.threads(n == place for n in view.bound)
    where = f"place {{{view.places[place]}}}"
    if threads[0].tid == view.seen.pid and not view.lost:
        others = threads[1:]
        later = all(n in (None, place) for n in view.bound)
        return Difference(
            "caught",
            f"the main thread is caught in {where}, and {name_threads(others, view)} with it, "
            f"while the rank has cpus {view.cpus}",
            "OpenMP binds the main thread to its first place as soon as its library is loaded, and "
            "every thread that the program starts from there inherits that"
            + (", or all masks were set to it later (taskset -a)" if later else ""),
            "--places one leaves the main thread all of the rank's cpus",
            tuple(t.tid for t in threads),
        )
    remedy = "let one runtime and one team do the work, or --places one"
    if view.lost:
        cause = f"the kernel changed masks, as it had to: {view.lost}"
        remedy = "start anew, on what is left"
    elif len(view.runtimes) > 1:
        runtimes = ", ".join(view.runtimes)
        cause = f"two OpenMP runtimes, each with its own team ({runtimes}), or masks that were "
        cause += "changed later"
    else:
        cause = "a second team of OpenMP threads (nested regions, regions entered by several "
        cause += "threads), or masks that were changed later"
    return Difference(
        "crowded",
        f"{count} threads are bound to {where}, {most} by the plan: {name_threads(threads, view)}",
        cause,
        remedy,
        tuple(t.tid for t in threads),
    )


def caught_with_parent(view: View, parent: Checked | None) -> bool:
    """Whether a process that a rank has started sits whole in the place of the rank's own main
    thread, in one of several."""
    if parent is None or not parent.seen.threads or len(view.places) < 2:
        return False
    mask = view.masks[0]
    return (
        view.bound[0] is not None
        and all(m == mask for m in view.masks)
        and parent.seen.threads[0].cpus == view.seen.threads[0].cpus
    )


def caught_child(view: View, parent: Checked | None) -> Difference:
    of = parent.seen.pid if parent else 0
    return Difference(
        "caught",
        f"{view.seen.name} is caught on {label('cpu', view.masks[0])}, with the main "
        f"thread of pid {of}, while the rank has cpus {view.cpus}",
        "OpenMP binds the main thread to its first place as soon as its library is loaded, and "
        "every process that the program starts from there inherits that",
        "--places one leaves the main thread all of the rank's cpus",
        tuple(t.tid for t in view.seen.threads),
    )


def unbound(view: View, differences: list[Difference], notes: list[str]) -> None:
    """No thread is in a place: OpenMP's have been unbound, or there are none yet."""
    count, team = len(view.seen.threads), view.expected.threads or len(view.places)
    # GNU's runtime binds the main thread when it is loaded; the others do when it first needs them.
    if any(name.startswith("libgomp") for name in view.runtimes) or (
        count >= team and view.runtimes
    ):
        differences.append(
            Difference(
                "wandered",
                f"no thread is bound to a place, though {', '.join(view.runtimes)} is loaded",
                "masks were changed after OpenMP had bound its threads, or its variables were "
                "changed before it was loaded",
                "look for what sets affinity in the program (os.sched_setaffinity, KMP_AFFINITY, "
                "psutil, torch's own options), or plan with --proc-bind false",
                tuple(t.tid for t in view.seen.threads),
            )
        )
    else:
        loaded = "" if view.runtimes else ", and no OpenMP runtime is loaded"
        notes.append(f"no thread of OpenMP's can be told: none is bound to a place{loaded}")


def few(view: View, in_place: int, team: int) -> str:
    text = f"{in_place} of {team} OpenMP threads {'is' if in_place == 1 else 'are'} there"
    if in_place == 1 and view.bound[0] is not None:
        text += f": the main thread, on {label('cpu', view.masks[0])}; what it starts inherits that"
    return text


def remarks(view: View) -> list[str]:
    """What is worth knowing, and no difference."""
    seen, notes = view.seen, []
    count, running = len(seen.threads), sum(t.state == "R" for t in seen.threads)
    if count > len(view.cpus):
        notes.append(
            f"{count} threads for {counted(len(view.cpus), 'cpu')}, {running} of them "
            "running just now"
        )
    away = view.threads(
        bool(mask) and mask <= view.cpus and t.last is not None and t.last not in view.cpus
        for t, mask in zip(seen.threads, view.masks, strict=True)
    )
    if away:
        notes.append(f"{name_threads(away, view)} last ran elsewhere, before the mask was set")
    if len(view.runtimes) > 1:
        notes.append(f"{len(view.runtimes)} OpenMP runtimes are loaded: {', '.join(view.runtimes)}")
    return notes


# --- memory -------------------------------------------------------------------------------------


def judge_memory(view: View, differences: list[Difference], notes: list[str]) -> None:
    """The policy and where the pages are; files' pages are where the first reader put them."""
    expected, memory = view.expected, view.seen.memory
    if expected.mem == "none":
        return
    if memory is None:
        if dict(view.seen.unseen).get("memory"):
            what = f"whether {expected.mem} {expected.mems}".strip() + " holds"
            differences.append(unseen(view.seen, "memory", what))
        return
    if not same_policy(memory.policy, expected):
        differences.append(other_policy(view, memory))
    elif others := {policy: 0 for policy, _, _ in memory.own if policy != memory.policy}:
        for policy, _, size in memory.own:
            if policy in others:
                others[policy] += size
        told = ", ".join(f"{format_size(size)} {policy}" for policy, size in others.items())
        notes.append(f"memory that the program gave a policy of its own: {told}")
    if expected.mem == "local":
        return
    own = [(node, size) for policy, node, size in memory.own if policy == memory.policy]
    total = sum(size for _, size in own)
    away = [(node, size) for node, size in own if node not in expected.mems]
    wrong = sum(size for _, size in away)
    if wrong < SOME_BYTES or wrong < SOME_SHARE * total:
        return
    nodes = CpuSet(node for node, _ in away)
    text = (
        f"{format_size(wrong)} of its memory ({wrong / total:.0%}) is on {label('node', nodes)}"
        f", planned is {expected.mem} {expected.mems}"
    )
    if expected.mem == "preferred":
        notes.append(f"{text}: node {expected.mems} was full, or the pages were moved")
        return
    differences.append(
        Difference(
            "memory",
            text,
            "the pages were moved (migratepages, a cgroup's memory_migrate), or touched while "
            "another policy held",
            f"migratepages {view.seen.pid} {nodes} {expected.mems} brings them back",
        )
    )


def same_policy(text: str, expected: Expected) -> bool:
    """Whether the kernel's `bind=static:0` is the planned policy."""
    head, _, nodes = text.partition(":")
    word = head.partition("=")[0]
    return word in POLICY_WORDS[expected.mem] and nodes == str(expected.mems)


def other_policy(view: View, memory: Memory) -> Difference:
    expected, mems = view.expected, view.seen.mems
    if mems is not None and not expected.mems <= mems:
        cause = f"the process' cgroup has lost nodes of the plan: it may use memory of {mems}"
        remedy = "give the cgroup these nodes back and start anew"
    else:
        cause = "the program set another policy itself (set_mempolicy, libnuma), or it was not set"
        remedy = "look for numa_set_… and set_mempolicy in the program, or start it anew"
    return Difference(
        "policy",
        f"its memory policy is {memory.policy or 'not known'}, planned is "
        f"{expected.mem} {expected.mems}".rstrip(),
        cause,
        remedy,
    )


# --- words --------------------------------------------------------------------------------------


def by_mask(view: View, where: Sequence[bool]) -> Iterable[tuple[CpuSet, tuple[Thread, ...]]]:
    """The threads chosen, those of one mask together."""
    groups: dict[CpuSet, list[Thread]] = {}
    for thread, mask, so in zip(view.seen.threads, view.masks, where, strict=True):
        if so:
            groups.setdefault(mask, []).append(thread)
    return [(mask, tuple(threads)) for mask, threads in groups.items()]


def name_threads(threads: Sequence[Thread], view: View, most: int = 4) -> str:
    """`the main thread and threads 12, 13`; of many the first few, and how many more."""
    words = []
    others = [t for t in threads if t.tid != view.seen.pid]
    if len(others) < len(threads):
        words.append("the main thread")
    if others:
        shown = others if len(others) <= most else others[: most - 1]
        more = f" and {len(others) - len(shown)} more" if len(others) > len(shown) else ""
        tids = ", ".join(str(t.tid) for t in shown)
        words.append(f"{plural('thread', len(others))} {tids}{more}")
    return " and ".join(words)


def set_back(threads: Sequence[Thread], view: View, cpus: CpuSet | None) -> str:
    """The command that sets a mask again; None: each thread's own place, which only it knows."""
    pid = view.seen.pid
    if cpus is not None and len(threads) == len(view.seen.threads):
        return f"start anew, or taskset -a -p -c {cpus} {pid}"
    if cpus is not None and len(threads) == 1 and not view.places:
        return f"start anew, or taskset -p -c {cpus} {threads[0].tid}"
    vacant = [p for n, p in enumerate(view.places) if n not in view.bound]
    if len(threads) == 1 and len(vacant) == 1:
        return f"start anew, or taskset -p -c {vacant[0]} {threads[0].tid}"
    return "start anew"


def some(words: Sequence[str], most: int = 4) -> str:
    shown = words if len(words) <= most else [*words[: most - 1], f"… {words[-1]} ({len(words)})"]
    return " ".join(shown)


def are(cpus: CpuSet) -> str:
    return "are" if len(cpus) > 1 else "is"
