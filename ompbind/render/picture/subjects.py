"""The pictures that there are: a plan on its machine, a machine alone, who is where. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.machine.topology import Allowed, Cpu, Machine, Topology
from ompbind.messages import label
from ompbind.render.escape import escape, quote_word
from ompbind.render.inventory import describe_caches, describe_machine, name_kind
from ompbind.render.outline import name_part
from ompbind.render.owners import KINDS, Owners, make_owners
from ompbind.render.picture.assembly import assemble
from ompbind.render.picture.contents import describe_kind, make_contents
from ompbind.render.picture.drawing import Drawer, Look, make_groups, rank_look
from ompbind.render.picture.layout import all_cores, make_cells
from ompbind.render.picture.legend import draw_keys, draw_lines, draw_table
from ompbind.render.rows import RIGHT, describe_plan, list_unassigned, make_rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.machine.topology import Level
    from ompbind.plans import Plan
    from ompbind.render.picture.contents import Block
    from ompbind.render.picture.legend import Piece
    from ompbind.render.picture.shapes import Picture

NONE = CpuSet()
LOOKS = {  # of cpus that are no single rank's
    "shared": Look("shared", group="shared"),
    "reserved": Look("set-aside", hatched=True, group="reserved"),
    "other parts": Look("other", group="other parts"),
    "excluded": Look("idle", hatched=True, group="excluded"),
    "not used": Look("idle", group="not used"),
    "not allowed": Look("denied", group="not allowed"),
}
LEVELS: tuple[Level, ...] = (
    "core", "l2", "cluster", "l3", "die", "node", "package", "book", "drawer"
)  # fmt: skip


def make_plan_picture(plan: Plan, machine: Machine | None, *, legend: bool = True) -> Picture:
    """Return the picture of a plan on the machine that it is for; None: one whose shape is unknown,
    or that is not the plan's. Without `legend` the ranks are listed elsewhere on the page."""
    plan = escape(plan)
    unassigned = list_unassigned(plan, machine)
    machine = escape(machine or make_plain_machine(plan))
    owners = make_owners(plan)
    title, details = describe_plan(plan)
    command = " ".join(map(quote_word, plan.command))
    contents = make_contents(machine, plan)
    if not legend:
        return draw_owned(contents, machine, owners, title)
    rows = make_rows(plan)
    below = [
        lambda room: draw_table(rows, RIGHT, room),
        lambda room: draw_lines(unassigned, room),
    ]
    heading = [title, machine.model, *details.split("; "), command]
    return draw_owned(contents, machine, owners, title, heading, below)


def make_check_picture(
    machine: Machine, owners: Owners, name: str, wrong: CpuSet = NONE
) -> Picture:
    """Return the picture of who is on which cpus, those that are `wrong` marked."""
    machine = escape(machine)
    return draw_owned(make_contents(machine), machine, owners, name, wrong=wrong)


def draw_owned(
    contents: Block,
    machine: Machine,
    owners: Owners,
    name: str,
    heading: Sequence[str] = (),
    below: Sequence[Callable[[float], Piece]] = (),
    wrong: CpuSet = NONE,
) -> Picture:
    """Return the machine with its cpus in the looks of their owners, which are explained below."""
    looks = {cpu: look_of_owner(owners, cpu) for cpu in machine.topology.online}
    for cpu in wrong & machine.topology.online:
        looks[cpu] = looks[cpu].replace(marked=True)
    places = name_places(machine)

    def title_of(cpu: int) -> str:
        kind, rank = owners.owner(cpu)
        whose = f"{owners.name('rank')} {rank}" if kind == "rank" else owners.name(kind)
        if kind == "shared":
            ranks = CpuSet(owners.ranks[cpu])
            whose = f"shared by {label(owners.name('rank'), ranks)}"
        mark = " (not as planned)" if cpu in wrong else ""
        return f"cpu {cpu}: {whose}{mark}\n{places[cpu]}"

    keys = list_keys(owners, machine)
    if wrong & machine.topology.online:
        keys.append((Look("idle", marked=True), "not as planned"))
    groups = make_groups(all_cores(contents), looks.__getitem__)
    drawer = Drawer(make_cells(contents, groups), looks.__getitem__, title_of)
    drawer.noun = owners.name("rank")
    pieces = [lambda room: draw_keys(keys, room), *below]
    return assemble(contents, drawer, name, heading, pieces)


def make_machine_picture(machine: Machine, *, legend: bool = True) -> Picture:
    """Return the picture of a machine alone. Without `legend` its name and what it has are written
    elsewhere on the page."""
    machine = escape(machine)
    places = name_places(machine)
    topology, allowed = machine.topology, machine.allowed.cpus
    kinds = topology.groups("kind")

    def look_of(cpu: int) -> Look:
        if cpu not in allowed:
            return LOOKS["not allowed"]
        if cpu in topology.isolated:
            return Look("plain", hatched=True)
        kind = next((n for n, cpus in enumerate(kinds) if cpu in cpus), len(kinds) - 1)
        return Look("plain" if kind == len(kinds) - 1 else "lesser")

    def title_of(cpu: int) -> str:
        notes = [] if cpu in allowed else ["not allowed"]
        notes += ["isolated"] if cpu in topology.isolated else []
        return "\n".join([": ".join([f"cpu {cpu}", *notes[:1]]), places[cpu]])

    keys = [
        (look_of(cpus.first), f"{name_kind(n, len(kinds))} core") for n, cpus in enumerate(kinds)
    ][::-1]
    if topology.online - allowed:
        keys.append((LOOKS["not allowed"], "not allowed"))
    if topology.isolated & topology.online:
        keys.append((Look("plain", hatched=True), "isolated"))
    contents = make_contents(machine)
    drawer = Drawer(make_cells(contents, {}), look_of, title_of)
    title = machine.name or "machine"
    details = [machine.model, describe_machine(machine), describe_caches(machine)]
    heading = [title, *filter(None, details)] if legend else []
    return assemble(contents, drawer, title, heading, [lambda room: draw_keys(keys, room)])


def look_of_owner(owners: Owners, cpu: int) -> Look:
    """Return the look of a cpu in a plan."""
    kind, rank = owners.owner(cpu)
    if kind == "rank":
        return Look(rank_look(rank), False, (f"{owners.name('rank')} {rank}", str(rank)), rank)
    if kind in LOOKS:
        if kind != "shared":
            return LOOKS[kind]
        ranks = CpuSet(owners.ranks[cpu])
        text = label(owners.name("rank"), ranks)
        return LOOKS[kind].replace(label=(text, str(ranks)), group=text)
    return Look("set-aside", False, (kind, kind[:2]), kind)


def list_keys(owners: Owners, machine: Machine) -> list[tuple[Look, str]]:
    """Return the looks of cpus that are no rank's, as far as there are any, with their meaning."""
    kinds = dict.fromkeys(owners.owner(cpu)[0] for cpu in machine.topology.online)
    keys = [(Look("set-aside"), f"role {kind}") for kind in kinds if kind not in (*KINDS, "rank")]
    return keys + [(LOOKS[kind], owners.name(kind)) for kind in KINDS if kind in kinds]


def name_places(machine: Machine) -> dict[int, str]:
    """Return for each cpu where it is: `core 3, L3 0, node 0, package 0`."""
    places = {}
    for c in machine.topology.cpus:
        words = [
            name_part(level, getattr(c, level)) for level in LEVELS if getattr(c, level) is not None
        ]
        if kind := describe_kind(machine, [CpuSet([c.cpu])]):
            words.append(f"{kind} core")
        places[c.cpu] = ", ".join(words)
    return places


def make_plain_machine(plan: Plan) -> Machine:
    """Return a machine of which only the plan's cpus are known."""
    topology = Topology(tuple(Cpu(cpu) for cpu in plan.host.cpus), ())
    return Machine(topology, Allowed(plan.host.allowed, plan.host.nodes), plan.host.name)
