"""`verify --repair`: give back to threads and pages what their plan says, where they have left it.

Only what can be changed from outside: masks and pages. Which of a process's threads are OpenMP's is
known by the places that are empty: where as many threads have left, they get these in the order of
both; otherwise threads are brought back to the rank's cpus, and their places remain unknown.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.launch.running import set_mask
from ompbind.messages import format_size, label
from ompbind.plans import is_called
from ompbind.rebind.pages import Migration, explain
from ompbind.verify.observation import name_threads, observe
from ompbind.verify.report import Repair
from ompbind.verify.threads import Occupancy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ompbind.machine.roots import LivingRoot
    from ompbind.verify.observation import Observation
    from ompbind.verify.report import ProcessReport, Report

ROUNDS = 5  # of repairing and looking again: threads may start meanwhile, in a mask that was wrong
AWAY = ("changed", "outside", "wandered")  # kinds of differences about threads that have left
CROWDED = ("caught", "crowded")  # about threads that are all in one place


def repair(root: LivingRoot, report: Report, look: Callable[[], Report]) -> Report:
    """Repair what a report says is not as planned; return another one, of `look`, with what was
    done."""
    repairs: list[Repair] = []
    migration = Migration(root)
    for _ in range(ROUNDS):
        done = [r for p in report.processes for r in repair_process(p, report.online, migration)]
        new = [r for r in done if r not in repairs]
        repairs += new
        if not any(r.done for r in new):
            break
        report = look()
    return report.replace(repairs=tuple(repairs))


def repair_process(report: ProcessReport, online: CpuSet, migration: Migration) -> list[Repair]:
    """Repair one process, and return what was done, or could not be."""
    if report.expected is None or report.process.ended or not report.differences:
        return []
    observation = observe(report.process, report.expected, online)
    masks = find_masks(report, observation) | find_named(report)
    repairs = bind_threads(report, observation, masks)
    if any(d.kind == "memory" for d in report.differences):
        repairs += move_pages(report, migration)
    return repairs


def find_masks(report: ProcessReport, observation: Observation) -> dict[int, CpuSet]:
    """Return the cpus that threads are to get which have left theirs, by tid."""
    kinds: tuple[str, ...] = AWAY
    team = observation.team
    if len(report.process.threads) == team > 1 and observation.runtimes:
        kinds += CROWDED  # all are OpenMP's: who is where is known by their order
    away = {tid for d in report.differences if d.kind in kinds for tid in d.threads}
    tids = [t.tid for t in report.process.threads if t.tid in away]
    if observation.places:
        places = find_vacant(observation, away)
        if len(tids) <= len(places):
            return dict(zip(tids, places, strict=False))
        # What is inside the rank's cpus is better left than brought to a place of others.
        outside = {t for d in report.differences if d.kind in AWAY[:2] for t in d.threads}
        tids = [tid for tid in tids if tid in outside]
    return dict.fromkeys(tids, observation.available)


def find_named(report: ProcessReport) -> dict[int, CpuSet]:
    """Return the cpus of the roles to which threads belong by their names, by tid, of those that
    are elsewhere."""
    away = {tid for d in report.differences if d.kind == "role" for tid in d.threads}
    named = report.expected.named if report.expected else ()
    return {
        t.tid: n.cpus
        for t in report.process.threads
        for n in named
        if t.tid in away and is_called(t.name, n.patterns)
    }


def find_vacant(observation: Observation, away: set[int]) -> list[CpuSet]:
    """Return the places that wait for a thread when these have left, each as often as the plan
    puts a thread there, in OpenMP's order."""
    limit = Occupancy(observation).limit
    threads = observation.process.threads
    staying = [place for thread, place in zip(threads, observation.bound, strict=True)
               if thread.tid not in away]  # fmt: skip
    places = [place for n, place in enumerate(observation.places)
              for _ in range(limit - staying.count(n))]  # fmt: skip
    missing = observation.team - sum(place is not None for place in staying)
    available = [place & observation.available for place in places]
    return [place for place in available if place][: max(missing, 0)]


def bind_threads(
    report: ProcessReport, observation: Observation, masks: Mapping[int, CpuSet]
) -> list[Repair]:
    """Bind threads; return one repair for those that were bound the same before and after."""
    before = dict(zip((t.tid for t in report.process.threads), observation.masks, strict=True))
    bound: dict[tuple[CpuSet, CpuSet], list[int]] = {}
    repairs = []
    for tid, cpus in masks.items():
        if before[tid] == cpus:
            continue
        try:
            set_mask(tid, cpus)
            bound.setdefault((before[tid], cpus), []).append(tid)
        except ProcessLookupError:
            continue  # it has exited
        except OSError as e:
            text = f"thread {tid} cannot be bound to {label('cpu', cpus)}: {e.strerror or e}"
            repairs.append(make_repair(report, "threads", text, done=False))
    for (old, new), tids in bound.items():
        threads = [t for t in report.process.threads if t.tid in tids]
        text = f"{name_threads(observation, threads)}: from {label('cpu', old)} to {new}"
        repairs.append(make_repair(report, "threads", text, done=True))
    return repairs


def move_pages(report: ProcessReport, migration: Migration) -> list[Repair]:
    """Move a process's pages to the nodes of its plan."""
    nodes = report.expected.mems if report.expected else CpuSet()
    moved = migration.move(report.process.pid, nodes)
    repairs = []
    if moved.moved:
        text = f"{format_size(moved.moved)} of its memory: to {label('node', nodes)}"
        repairs.append(make_repair(report, "memory", text, done=True))
    if migration.problem or moved.left:
        size = format_size(moved.left) if moved.left else "memory"
        text = f"{size} cannot be moved: {migration.problem or explain(moved)}"
        repairs.append(make_repair(report, "memory", text, done=False))
    return repairs


def make_repair(report: ProcessReport, kind: str, text: str, *, done: bool) -> Repair:
    rank = report.expected.rank if report.expected else None
    return Repair(report.process.pid, rank, kind, f"{report.name}: {text}", done)
