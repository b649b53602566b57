"""The blocks of a machine's map: its packages and nodes, with the cores, names, memory and devices
of each. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.messages import format_size, label
from ompbind.record import Record
from ompbind.render.inventory import describe_memory, name_kind, number_gpus
from ompbind.render.outline import (
    find_device_home,
    find_home,
    find_size,
    name_part,
    round_memory,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Cpu, Level, Machine, Node, Topology

    Key = tuple[int | None, ...]

# What divides a block, coarsest first. Of the first that does, a gap is left between the groups; in
# detail all count, and kinds of core.
GAPS: tuple[Level, ...] = ("package", "die", "l3", "cluster", "l2")
DETAILS: tuple[Level, ...] = ("package", "die", "l3", "kind", "cluster", "l2")
# Of what a group is at once, the one that names it where there is room for one.
PREFERRED: tuple[Level, ...] = ("kind", "l3", "l2", "die", "package", "cluster")
MAX_DEVICE_LINES = 2  # of names below a block
DEVICE_WIDTH = 24  # of such a line, at least


class Heading(Record):
    """What stands above some cores of a block: the first of `names` that has room."""

    position: int  # of the first of the cores
    names: tuple[str, ...]


class Block(Record):
    """A node, a package without nodes, or a piece of one; without cores, memory alone."""

    outer: str  # the package and what is above it: "package 0"
    inner: str  # "node 0"; "" where the outer name tells all
    cores: tuple[tuple[int, ...], ...]  # the cpus of each core, ascending
    gaps: frozenset[int] = frozenset()  # positions of cores before which a gap is left
    headings: tuple[tuple[Heading, ...], ...] = ()  # a line for each level
    notes: tuple[str, ...] = ()  # lines below it: memory and devices that belong to it
    cell: int = 1  # characters of a core: more than one have a blank between two of them
    level: str = ""  # what it is one of, and its number
    number: int | None = None
    likeness: tuple[object, ...] = ()  # equal for blocks that are the same but for their numbers
    piece: bool = False  # of a block that is wider than a line

    @property
    def cpus(self) -> CpuSet:
        return union(CpuSet(core) for core in self.cores)

    @property
    def rows(self) -> list[tuple[int | None, ...]]:
        """The first thread of each core, the second, and so on; None: the core has none."""
        most = max(map(len, self.cores), default=0)
        return [tuple(c[n] if n < len(c) else None for c in self.cores) for n in range(most)]


def make_blocks(machine: Machine, *, cell: int = 1, details: bool = False) -> list[Block]:
    """Return a machine's blocks. With `details` they have sizes of memory and caches, the names of
    all that divides them, and every device that has a name; else GPUs only."""
    topology = machine.topology
    levels = block_levels(topology, details=details)
    groups: dict[Key, list[Cpu]] = {}
    for c in topology.cpus:
        groups.setdefault(tuple(getattr(c, level) for level in levels), []).append(c)
    groups = dict(sorted(groups.items(), key=sort_key))
    outers = [key[:-1] for key in groups]
    within: dict[Key, CpuSet] = {}
    for outer, cpus in zip(outers, groups.values(), strict=True):
        within[outer] = within.get(outer, CpuSet()) | CpuSet(c.cpu for c in cpus)
    namer = Namer(machine, details=details)
    blocks: list[Block] = []
    for outer, (key, cpus) in zip(outers, groups.items(), strict=True):
        named = [(lv, {n}) for lv, n in zip(levels, key, strict=True)]
        members, around = CpuSet(c.cpu for c in cpus), within[outer]
        several = members != around  # in one package, which is named above them
        inner = [named.pop()] if several or (details and named[1:]) else []
        if "package" not in levels:  # they are in the node
            (inner or named).append(("package", {c.package for c in cpus}))
        title = namer.name(named, around, whole=several or not inner)
        subtitle = namer.name(inner, members) if inner else ""
        if inner and not subtitle:
            subtitle = name_part(levels[-1], None)
        cores, gaps, headings = namer.arrange(cpus)
        blocks.append(
            Block(
                title or subtitle, subtitle if title else "", cores, gaps, headings, cell=cell,
                level=levels[-1] if levels else "", number=key[-1] if levels else None,
                likeness=namer.compare(cpus),
            )
        )  # fmt: skip
    return add_devices(blocks, topology, details=details)


def block_levels(topology: Topology, *, details: bool) -> tuple[Level, ...]:
    """Return the levels whose groups are blocks, coarsest first: nodes in packages; but of nodes
    that have several packages, and of packages of a core each, only the larger. With `details` also
    the dies, or caches, of a package that have several nodes each."""
    cpus = topology.cpus
    packages, nodes, cores = (
        len({getattr(c, level) for c in cpus}) for level in ("package", "node", "core")
    )
    levels: list[Level] = ["drawer", "book"]
    if packages <= nodes or nodes == 1 < cores / packages:
        levels.append("package")
    levels = [level for level in levels if any(getattr(c, level) is not None for c in cpus)]
    between: tuple[Level, ...] = ("die", "l3") if details else ()
    for level in between:
        pairs = {(getattr(c, level), c.node) for c in cpus}
        count = len({number for number, _ in pairs})
        if packages < count < nodes == len(pairs) and "package" in levels:
            levels.append(level)
            break
    if topology.numa and (nodes > 1 or not levels):
        levels.append("node")
    return tuple(levels)


def sort_key(group: tuple[Key, list[Cpu]]) -> tuple[int, ...]:
    return tuple(-1 if number is None else number for number in group[0])


class Part:
    """Cores of a block that share something."""

    def __init__(self) -> None:
        self.start = -1  # the position of the first one
        self.cores: dict[object, list[Cpu]] = {}

    def add(self, c: Cpu) -> None:
        self.cores.setdefault(core_of(c), []).append(c)

    def set_start(self, position: int) -> None:
        if self.start < 0:
            self.start = position

    @property
    def has_several(self) -> bool:
        return len(self.cores) > 1

    @property
    def first(self) -> Cpu:
        return next(iter(self.cores.values()))[0]

    @property
    def cpus(self) -> CpuSet:
        return CpuSet(c.cpu for core in self.cores.values() for c in core)


class Namer:
    """Names the parts of one machine, and arranges the cores of a block by them."""

    def __init__(self, machine: Machine, *, details: bool) -> None:
        self.machine = machine
        self.details = details
        self.kinds = len(machine.topology.groups("kind"))
        self.by_cpu = {c.cpu: c for c in machine.topology.cpus}
        # The groups of caches and dies by their cpus, to name a block that is one of them.
        self.same: dict[CpuSet, list[Level]] = {}
        self.sizes: dict[int, list[tuple[str, int]]] = {}  # of caches, by their lowest cpu
        if details:
            levels: tuple[Level, ...] = ("die", "l3", "cluster", "l2")
            for level in levels:
                for cpus in machine.topology.groups(level):
                    self.same.setdefault(cpus, []).append(level)
            for cache in machine.caches:
                self.sizes.setdefault(cache.cpus.first, []).append((cache.name, cache.bytes))

    def name(
        self, named: Sequence[tuple[Level, set[int | None]]], cpus: CpuSet, *, whole: bool = True
    ) -> str:
        """Return the title of these groups, which together have these cpus; if `whole`, with the
        caches that they are."""
        words = []
        for level, numbers in named:
            known = CpuSet(n for n in numbers if n is not None)
            if known and level not in ("die", "l3"):  # which are named by their cpus, below
                words.append(label(level, known))
            node = self.machine.topology.find_node(known.first) if known else None
            if self.details and level == "node" and node and (size := describe_memory(node)):
                words.append(size)
        if named and whole and cpus in self.same and len({self.by_cpu[c].core for c in cpus}) > 1:
            for level in self.same[cpus]:
                if level != "die" or len(self.machine.topology.groups("die")) > 1:
                    number = getattr(self.by_cpu[cpus.first], level)
                    words.append(self.name_part(level, number, cpus, sized=True))
        return "  ".join(words)

    def name_part(self, level: Level, number: int, cpus: CpuSet, *, sized: bool) -> str:
        if level == "kind":
            return name_kind(number, self.kinds)
        size = find_size(self.machine, level, cpus) if sized else 0
        return name_part(level, number) + (f" ({format_size(size)})" if size else "")

    def compare(self, cpus: Sequence[Cpu]) -> tuple[object, ...]:
        """Return what is equal for alike nodes: their memory, their caches and kinds of core."""
        if not self.details:
            return ()
        topology = self.machine.topology
        memory = [
            topology.find_node(n) for n in sorted({c.node for c in cpus if c.node is not None})
        ]
        caches = sorted(size for c in cpus for size in self.sizes.get(c.cpu, ()))
        return (
            tuple(
                (round_memory(node.memory_bytes), node.kind) if node else None for node in memory
            ),
            tuple(caches),
            tuple(c.kind for c in cpus),
        )

    def arrange(
        self, cpus: Sequence[Cpu]
    ) -> tuple[tuple[tuple[int, ...], ...], frozenset[int], tuple[tuple[Heading, ...], ...]]:
        """Return the cores of a block, those that share a package or cache side by side; where gaps
        are left, between such groups and after every eight cores; and the groups' names."""
        levels = [lv for lv in (DETAILS if self.details else GAPS) if divides(cpus, lv)]
        alike: dict[Key, list[Level]] = {}  # levels that divide the block in the same way
        for level in levels if self.details else levels[:1]:
            alike.setdefault(find_lowest(cpus, level), []).append(level)
        parts: dict[Key, Part] = {}  # of every level, by the lowest cpus of it and those around it
        for n, c in enumerate(cpus):
            key = tuple(lowest[n] for lowest in alike)
            for depth in range(len(key) + 1):
                parts.setdefault(key[:depth], Part()).add(c)
        runs: list[list[list[Cpu]]] = []  # between two gaps
        start, before = 0, None
        for key in sorted(key for key in parts if len(key) == len(alike)):
            for depth in range(len(key) + 1):
                parts[key[:depth]].set_start(start)
            members = list(parts[key].cores.values())
            around = [key[:n] for n in range(len(key)) if parts[key[:n]].has_several]
            parent = around[-1] if around and len(members) == 1 else None
            if parent is not None and parent == before:  # neighbours of a core each are one run
                runs[-1] += members
            else:
                runs.append(members)
            start, before = start + len(members), parent
        cores: list[tuple[int, ...]] = []
        gaps: set[int] = set()
        for run in runs:
            gaps.update(range(len(cores), len(cores) + len(run), 8))
            cores += [tuple(c.cpu for c in core) for core in run]
        headings = [
            tuple(
                Heading(part.start, self.make_names(levels, part))
                for key, part in parts.items()
                if len(key) == depth and part.has_several
            )
            for depth, levels in enumerate(alike.values(), start=1)
        ]
        return tuple(cores), frozenset(gaps - {0}), tuple(headings) if self.details else ()

    def make_names(self, levels: Sequence[Level], part: Part) -> tuple[str, ...]:
        """Return the names of a group that is one of each of these, the longest first."""
        first = part.first
        sized, plain = (
            [self.name_part(lv, getattr(first, lv), part.cpus, sized=sized) for lv in levels]
            for sized in (True, False)
        )
        best = min(range(len(levels)), key=lambda n: PREFERRED.index(levels[n]))
        return "  ".join(sized), sized[best], plain[best]


def core_of(c: Cpu) -> object:
    """Return what is equal for the hardware threads of one core."""
    return c.core if c.core is not None else ("cpu", c.cpu)


def find_lowest(cpus: Sequence[Cpu], level: Level) -> Key:
    """Return for each cpu the lowest one of its group."""
    lowest: dict[int | None, int] = {}
    for c in cpus:
        lowest.setdefault(getattr(c, level), c.cpu)
    return tuple(lowest[getattr(c, level)] for c in cpus)


def divides(cpus: Sequence[Cpu], level: Level) -> bool:
    """Whether a block has several groups of this level, most of them of several cores."""
    groups: dict[int, set[object]] = {}
    for c in cpus:
        number = getattr(c, level)
        if number is None:
            return False
        groups.setdefault(number, set()).add(core_of(c))
    return len(groups) > 1 and sum(map(len, groups.values())) > 1.5 * len(groups)


def make_plain_blocks(cpus: CpuSet) -> list[Block]:
    """Return blocks for a machine of which only the cpus are known: one for each range."""
    blocks = []
    for text in str(cpus).split(",") if cpus else ():
        numbers = tuple((cpu,) for cpu in CpuSet.parse_kernel(text))
        blocks.append(Block("", "", numbers, frozenset(range(8, len(numbers), 8))))
    return blocks


# --- memory and devices --------------------------------------------------------------------------


def add_devices(blocks: Sequence[Block], topology: Topology, *, details: bool) -> list[Block]:
    """Return the blocks with the names of the devices that belong to each; with `details` of all
    that have any, else of GPUs."""
    names: dict[int, list[str]] = {}
    noted = list(blocks)
    places = places_of(blocks)
    numbers = number_gpus(topology)
    for device in topology.devices:
        name = numbers.get(device.pci, "")
        if details and not name and not device.virtual:
            name = device.names[0] if device.names else ""
        home = find_device_home(topology, device)
        at = next((n for n, cpus in enumerate(places) if home and home <= cpus), None)
        if name and at is None and len(blocks) == 1:
            at = 0
        if name and at is not None:
            names.setdefault(at, []).append(name)
    for at, devices in names.items():
        text = tuple(fold_words(devices, max(DEVICE_WIDTH, 2 * len(noted[at].cores))))
        counts = sum(name.startswith("gpu") for name in devices), len(devices)
        block = noted[at]
        noted[at] = block.replace(notes=text, likeness=(*block.likeness, counts))
    return noted


def fold_words(words: Sequence[str], width: int) -> list[str]:
    """Return lines of words, with `…` where they are cut."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            if len(lines) == MAX_DEVICE_LINES:
                lines[-1] += " …"
                break
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def attach_memory(blocks: Sequence[Block], topology: Topology) -> tuple[list[Block], list[str]]:
    """Return the blocks with the nodes without cpus that are nearest to each, with blocks of their
    own for those of a package of several nodes, and a line for the others."""
    memory: dict[int, list[list[Node]]] = {}  # of each block
    further: dict[int, list[Block]] = {}  # after it
    rest = []
    for home, nodes in group_loose(topology):
        at = [n for n, block in enumerate(blocks) if block.cpus & home or len(blocks) == 1]
        outers = {blocks[n].outer for n in at}
        if len(at) == 1:
            memory.setdefault(at[0], []).append(nodes)
        elif len(outers) == 1 and len(at) < len(blocks):
            title, _, size = describe_loose(nodes).partition("  ")
            block = Block(blocks[at[0]].outer, title, (), notes=(size,))
            further.setdefault(at[-1], []).append(block)
        else:
            rest.append(describe_loose(nodes))
    noted: list[Block] = []
    for n, block in enumerate(blocks):
        groups = memory.get(n, [])
        sizes = tuple(round_memory(node.memory_bytes) for nodes in groups for node in nodes)
        notes = (*(f"+ {describe_loose(nodes)}" for nodes in groups), *block.notes)
        noted.append(block.replace(notes=notes, likeness=(*block.likeness, sizes)))
        noted += further.get(n, [])
    return noted, rest


def places_of(blocks: Sequence[Block]) -> list[CpuSet]:
    return [block.cpus for block in blocks]


def group_loose(topology: Topology) -> list[tuple[CpuSet, list[Node]]]:
    """Return the nodes without cpus, those near the same cpus and of about one size together."""
    groups: dict[tuple[CpuSet, int | None, str], list[Node]] = {}
    for node in topology.nodes if topology.numa else ():
        if not node.cpus:
            key = find_home(topology, node), round_memory(node.memory_bytes), node.kind
            groups.setdefault(key, []).append(node)
    return [(home, nodes) for (home, *_), nodes in groups.items()]


def describe_loose(nodes: Sequence[Node]) -> str:
    """Return `node 4  16.0 GiB HBM, no cpus`, of several nodes with the size of each."""
    name = label("node", CpuSet(n.node for n in nodes))
    size = describe_memory(nodes[0])
    each = " each" if len(nodes) > 1 else ""
    return f"{name}  {size}{each}, no cpus" if size else f"{name}  no cpus"
