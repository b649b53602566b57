"""From options to cpus that nobody else holds: --free, --part auto/N, --exclusive and --wait.

`ompbind.host.queue` sees to it that no two launches take the same; what is taken is held by the
launch's lease. `show` looks only.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import OmpbindError, PlanError, UsageError
from ompbind.host import Lease, find_leased, find_threads
from ompbind.machine import living_root
from ompbind.messages import counted, label, say
from ompbind.plans import CPUS_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ompbind.machine.topology import Machine
    from ompbind.options import PlanOptions
    from ompbind.planner.request import Request
    from ompbind.plans import Plan


class View:
    """What this launch sees of others' leases: not those that it is itself a part of."""

    def __init__(
        self, lease: Lease, options: PlanOptions, environ: Mapping[str, str], job: str
    ) -> None:
        self.environ, self.job = environ, job
        nested = CPUS_VARIABLE in environ
        inherited = Lease.find_inherited() if nested else None
        self.lease = inherited or lease
        # Leases have no names: which are of the launch around this one, or of the same engine's
        # job, is then told by variables. Otherwise all but our own are of others.
        self.by_variables = bool(job) or (nested and inherited is None)
        self.looks_again = self.lease is lease and not self.by_variables
        self.searches = options.neighbours is True  # also for launches without leases

    def find_held(self, cpus: CpuSet, machine: Machine | None) -> CpuSet:
        """Return the hardware threads of the cores of `cpus` that others hold."""
        held = find_leased(cpus, machine, self.lease)
        if not self.searches and not (held and self.by_variables):
            return held
        from ompbind.host.neighbours import find_neighbours

        neighbours = find_neighbours(living_root(), cpus, self.environ, self.job, leased=held)
        visible = union(n.cores for n in neighbours if self.searches or n.cores & held)
        return visible if self.by_variables else visible | held


def claim_cores(
    machine: Machine,
    request: Request,
    options: PlanOptions,
    environ: Mapping[str, str],
    lease: Lease | None,
    *,
    is_run: bool,
) -> Request:
    """Return the request for cores that nobody else holds, of --free or --part auto/N, which
    `lease` holds from now on where there is one. Raises OmpbindError."""
    from ompbind.planner.free import choose_free, name_free

    found = options.found
    count = request.part[1] if request.part else 0
    asked = f"--part auto/{count}" if count else name_free(request)
    problem = ""
    if options.topology is not None:
        problem = "which cores of another machine are free is not known here"
    elif found and found.engine and found.task.local_ranks != 1:
        problem = f"the ranks that {found.task.label} has started divide what they share by "
        problem += "themselves"
    if problem:
        raise UsageError(f"{asked}: {problem}", hint="--part 1/2, or leave it out")
    if request.free:
        # What is too much even where nobody holds a core is not waited for: that would never end,
        # and keep out all who come later.
        choose_free(machine, request, CpuSet())
    looking = lease or (None if is_run else Lease.open())
    if looking is None:
        raise cannot_hold(asked)
    view = View(looking, options, environ, found.task.job if found else "")
    parts = cut_cpus(machine, request) if count else []

    def look() -> CpuSet:
        held = view.find_held(machine.allowed.cpus, machine)
        if parts:
            return choose_part(parts, held)
        return choose_free(machine, request, held)

    cpus = take(lease, look, view, options, asked) if lease else look()
    if parts:
        return request.replace(part=(parts.index(cpus) + 1, count))
    elsewhere = request.per or request.numa_bind or request.share or request.cores_per_rank
    if request.free.per_rank and not elsewhere:
        request = request.replace(balance="equal")  # each rank's share was counted
    return request.replace(only=cpus)


def claim_plan(
    plan: Plan,
    options: PlanOptions,
    environ: Mapping[str, str],
    machine: Machine | None,
    lease: Lease | None,
) -> None:
    """Hold the cpus of a plan by `lease`, for --exclusive. Raises PlanError where others hold one
    of its cores."""
    if lease is None or plan.binder == "none":
        raise cannot_hold("--exclusive")
    view = View(lease, options, environ, plan.task.job)
    cpus = union(map(plan.held_by, plan.ranks))

    def look() -> CpuSet:
        held = view.find_held(cpus, machine)
        if held:
            text = f"--exclusive: {label('cpu', held)} of this plan's cores are held by others"
            raise PlanError(text, wanted=cpus, available=cpus - held)
        return find_threads(cpus, machine)

    try:
        take(lease, look, view, options, "--exclusive", in_turn=False)
    except PlanError as e:
        named = name_holders(e, plan, environ, view.find_held(cpus, machine), options.wait)
        raise named from None


def name_holders(
    error: PlanError,
    plan: Plan,
    environ: Mapping[str, str],
    held: CpuSet,
    waited: float | None = None,
) -> PlanError:
    """Return the error with who holds the plan's cores, as far as can be seen. `waited`: the
    seconds for which they were waited for, None for not at all."""
    from ompbind.host.neighbours import describe, find_neighbours, make_hint

    cpus = union(map(plan.held_by, plan.ranks))
    neighbours = find_neighbours(living_root(), cpus, environ, plan.task.job, leased=held)
    if not neighbours:
        return error
    text = f"--exclusive: {describe(neighbours)}"
    hint = make_hint(neighbours, plan.host.allowed)
    if waited is None:
        hint += "; --wait waits for them"
    else:
        text += f"; the time of --wait={waited:g} is over"
    return PlanError(text, hint=hint, **error.data)


def take(
    lease: Lease,
    look: Callable[[], CpuSet],
    view: View,
    options: PlanOptions,
    asked: str,
    *,
    in_turn: bool = True,
) -> CpuSet:
    """Hold the cpus that `look` returns, and return them; wait for them with --wait. Raises
    OmpbindError."""
    from ompbind.host import queue

    def report() -> None:
        if not options.quiet:
            say("note", f"{asked}: waiting for cores that nobody holds")

    return queue.take(
        lease,
        look,
        asked,
        wait=options.wait,
        in_turn=in_turn,
        looks_again=view.looks_again,
        on_wait=report,
    )


def cannot_hold(asked: str) -> OmpbindError:
    return OmpbindError(
        f"{asked}: cpus cannot be held here: that needs Linux, sysfs and a plan that binds",
        hint="--part 1/2 and --part 2/2 divide the machine without",
    )


# --- parts ---------------------------------------------------------------------------------------


def cut_cpus(machine: Machine, request: Request) -> list[CpuSet]:
    """Return the hardware threads of each part of --part auto/N."""
    from ompbind.planner.cores import make_cores
    from ompbind.planner.mapping import cut_parts

    parts = cut_parts(make_cores(machine, request), 0, request.part[1] if request.part else 1)
    return [union(core.threads for core in part) for part in parts]


def choose_part(parts: Sequence[CpuSet], held: CpuSet) -> CpuSet:
    """Return the first part of which others hold nothing. Raises PlanError."""
    for part in parts:
        if not part & held:
            return part
    raise PlanError(
        f"--part auto/{len(parts)}: {counted(len(parts), 'part')} of the machine, and all are in "
        "use",
        hint="a part is free again when the processes that were started in it have exited; --wait "
        "waits for one",
        wanted=1,
        available=0,
    )
