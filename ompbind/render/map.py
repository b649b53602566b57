"""A machine's cores as characters in its own shape: packages and nodes are blocks, a column is a
core, a row one hardware thread of each. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.gpus.visible import make_visible
from ompbind.messages import counted, label
from ompbind.record import Record
from ompbind.render.lists import short_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.machine.topology import Cpu, Level, Machine, Topology

# Between those in one block a gap is left.
GAPS: tuple[Level, ...] = ("package", "die", "l3", "cluster", "l2")
BETWEEN = 3  # blanks between two blocks
MAX_BLOCKS = 12  # more are folded where they look the same
MAX_LABEL = 14


class Block(Record):
    """A node, or a part of one that is as wide as a line."""

    outer: str  # the package and what is above it: "package 0"
    inner: str  # "node 0"; "" where the outer name tells all
    cores: tuple[tuple[int, ...], ...]  # the cpus of each core, ascending
    gaps: frozenset[int] = frozenset()  # positions of cores before which a gap is left
    devices: tuple[str, ...] = ()  # "gpu0"

    @property
    def cpus(self) -> CpuSet:
        return union(CpuSet(core) for core in self.cores)

    @property
    def rows(self) -> list[tuple[int | None, ...]]:
        """The first thread of each core, the second, and so on; None: the core has none."""
        most = max(map(len, self.cores), default=0)
        return [tuple(c[n] if n < len(c) else None for c in self.cores) for n in range(most)]


def make_blocks(machine: Machine, width: int) -> list[Block]:
    """Return a machine's blocks, each at most `width` characters wide with its labels."""
    topology = machine.topology
    levels = block_levels(topology)
    groups: dict[tuple[int | None, ...], list[Cpu]] = {}
    for c in topology.cpus:
        groups.setdefault(tuple(getattr(c, level) for level in levels), []).append(c)
    groups = dict(sorted(groups.items(), key=sort_key))
    outers = [key[:-1] if levels[-1:] == ("node",) else key for key in groups]
    gpus: dict[object, list[str]] = {}
    numbers = number_gpus(topology)
    for device in topology.devices:
        if device.pci in numbers:
            gpus.setdefault(device.node, []).append(numbers[device.pci])
    blocks: list[Block] = []
    for outer_key, (key, cpus) in zip(outers, groups.items(), strict=True):
        names = [name_group(level, {n}) for level, n in zip(levels, key, strict=True)]
        inner = ""
        if "package" not in levels:  # they are in the node
            names.append(name_group("package", {c.package for c in cpus}))
        elif outers.count(outer_key) > 1:
            inner = names.pop()
        outer = "  ".join(name for name in names if name)
        near = gpus.pop(cpus[0].node, ())
        blocks += split_block(Block(outer or inner, inner if outer else "", *find_cores(cpus),
                                    tuple(near)), width)  # fmt: skip
    return blocks


def block_levels(topology: Topology) -> tuple[Level, ...]:
    """Return the levels whose groups are blocks, coarsest first: nodes in packages; but of nodes
    that have several packages, and of packages of a core each, only the larger."""
    cpus = topology.cpus
    packages, nodes, cores = (
        len({getattr(c, level) for c in cpus}) for level in ("package", "node", "core")
    )
    levels: list[Level] = ["drawer", "book"]
    if packages <= nodes or nodes == 1 < cores / packages:
        levels.append("package")
    if topology.numa and (nodes > 1 or "package" not in levels):
        levels.append("node")
    return tuple(level for level in levels if any(getattr(c, level) is not None for c in cpus))


def sort_key(group: tuple[tuple[int | None, ...], list[Cpu]]) -> tuple[int, ...]:
    return tuple(-1 if number is None else number for number in group[0])


def name_group(level: Level, numbers: set[int | None]) -> str:
    known = CpuSet(n for n in numbers if n is not None)
    return label(level, known) if known else ""


def number_gpus(topology: Topology) -> dict[str, str]:
    """Return the names by which --near reads the GPUs that workers may see, by PCI address."""
    visible = make_visible(topology.devices, {})
    return {gpu.device.pci: f"gpu{n}" for n, gpu in enumerate(visible.gpus)}


def find_cores(cpus: Sequence[Cpu]) -> tuple[tuple[tuple[int, ...], ...], frozenset[int]]:
    """Return the cores of a block, those that share a package or cache side by side, and where gaps
    are left: between the coarsest of these that divide it, else after every eight cores."""
    level = next((lv for lv in GAPS if divides(cpus, lv)), None)
    groups: dict[object, dict[object, list[int]]] = {}
    for c in cpus:
        group = groups.setdefault(getattr(c, level) if level else None, {})
        group.setdefault(c.core if c.core is not None else ("cpu", c.cpu), []).append(c.cpu)
    cores: list[tuple[int, ...]] = []
    gaps: set[int] = set()
    for group in groups.values():
        gaps.update(range(len(cores), len(cores) + len(group), 8))
        cores += [tuple(core) for core in group.values()]
    return tuple(cores), frozenset(gaps - {0})


def divides(cpus: Sequence[Cpu], level: Level) -> bool:
    """Whether a block has several groups of this level, most of them of several cores."""
    groups: dict[int, set[object]] = {}
    for c in cpus:
        number = getattr(c, level)
        if number is None:
            return False
        groups.setdefault(number, set()).add(c.core if c.core is not None else ("cpu", c.cpu))
    return len(groups) > 1 and sum(map(len, groups.values())) > 1.5 * len(groups)


def make_plain_blocks(cpus: CpuSet, width: int) -> list[Block]:
    """Return blocks for a machine of which only the cpus are known: one for each range."""
    blocks = []
    for text in str(cpus).split(",") if cpus else ():
        numbers = tuple((cpu,) for cpu in CpuSet.parse_kernel(text))
        gaps = frozenset(range(8, len(numbers), 8))
        blocks += split_block(Block("", "", numbers, gaps), width)
    return blocks


def drop_threads(blocks: Sequence[Block], owner: Callable[[int], tuple[str, int]]) -> list[Block]:
    """Return the blocks without the second and further threads that nothing uses on the whole
    machine."""
    most = max((len(core) for block in blocks for core in block.cores), default=0)
    kept = {0}
    for block in blocks:
        for n in range(1, most):
            if any(len(core) > n and owner(core[n])[0] != "not used" for core in block.cores):
                kept.add(n)
    return [
        block.replace(
            cores=tuple(
                tuple(cpu for n, cpu in enumerate(core) if n in kept) for core in block.cores
            )
        )
        for block in blocks
    ]


def split_block(block: Block, width: int) -> list[Block]:
    """Return the block in pieces that fit the width, cut at its gaps where they are near."""
    if block_width(block) <= width:
        return [block]
    room = max(8, width - MAX_LABEL - 1)
    cut = used = 0
    for position in range(len(block.cores)):
        used += 1 + (position in block.gaps)
        if used > room:
            break
        cut = position + 1
    before = [gap for gap in block.gaps if cut // 2 < gap <= cut]
    cut = max(before, default=cut)
    if cut >= len(block.cores):
        return [block]
    first = block.replace(
        cores=block.cores[:cut], gaps=frozenset(g for g in block.gaps if g < cut), devices=()
    )
    rest = block.replace(
        outer="", inner="", cores=block.cores[cut:],
        gaps=frozenset(g - cut for g in block.gaps if g > cut),
    )  # fmt: skip
    return [first, *split_block(rest, width)]


def row_label(row: Sequence[int | None]) -> str:
    cpus = CpuSet(cpu for cpu in row if cpu is not None)
    text = short_list(cpus)
    return text if len(text) <= MAX_LABEL else f"{cpus.first}…{max(cpus)}"


def label_width(block: Block) -> int:
    return max((len(row_label(row)) for row in block.rows), default=0)


def block_width(block: Block) -> int:
    cells = len(block.cores) + len(block.gaps)
    return max(label_width(block) + 1 + cells, len(block.outer), len(block.inner))


class Fold(Record):
    """Blocks that look like the one before them, and are not drawn."""

    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        cpus = short_list(union(block.cpus for block in self.blocks))
        return f"{counted(len(self.blocks), 'more block')} like this: cpus {cpus}"


def fold_blocks(
    blocks: Sequence[Block], owner: Callable[[int], tuple[str, int]]
) -> list[Block | Fold]:
    """Return the blocks, long runs of those that look the same as their first and a Fold.

    `owner` returns what a cpu is: a kind, and the number of its rank. Blocks look the same if they
    have the same shape and the same kinds of cpus, and the same ranks or equally numbered ones.
    """
    if len(blocks) <= MAX_BLOCKS:
        return list(blocks)
    folded: list[Block | Fold] = []
    run: list[Block] = []
    previous: tuple[object, int] | None = None
    step: int | None = None
    for block in blocks:
        shape, first = look_of(block, owner)
        alike = previous is not None and previous[0] == shape and bool(run)
        if alike and previous is not None:
            change = first - previous[1]
            alike = step is None or change == step
            step = change
        if not alike:
            folded += close_run(run, step)
            run, step = [], None
        run.append(block)
        previous = shape, first
    return folded + close_run(run, step)


def close_run(run: list[Block], step: int | None) -> list[Block | Fold]:
    """Return a run of blocks that look the same, folded if it is long; the last one is drawn too
    where its ranks are others than the first one's."""
    if len(run) < 4:
        return list(run)
    if not step:
        return [run[0], Fold(tuple(run[1:]))]
    return [run[0], Fold(tuple(run[1:-1])), run[-1]]


def look_of(block: Block, owner: Callable[[int], tuple[str, int]]) -> tuple[object, int]:
    """Return what a block looks like but for the numbers of cpus and ranks, and its first rank."""
    ranks = [rank for cpu in block.cpus for kind, rank in (owner(cpu),) if kind == "rank"]
    first = min(ranks, default=0)
    cells = tuple(
        tuple(None if cpu is None else shift(owner(cpu), first) for cpu in row)
        for row in block.rows
    )
    return (cells, block.gaps, bool(block.outer), bool(block.inner), bool(block.devices)), first


def shift(owned: tuple[str, int], first: int) -> tuple[str, int]:
    kind, rank = owned
    return (kind, rank - first) if kind == "rank" else owned


def lay_out(blocks: Sequence[Block | Fold], width: int) -> list[list[Block] | Fold]:
    """Return the lines of blocks: as many side by side as fit; those of one package together where
    they fit at all."""
    lines: list[list[Block] | Fold] = []
    used = 0
    for n, block in enumerate(blocks):
        if isinstance(block, Fold):
            lines.append(block)
            continue
        last = lines[-1] if lines else None
        needed = block_width(block)
        if isinstance(last, list) and used + BETWEEN + needed <= width:
            whole = package_width(blocks, n)
            starts = last[-1].outer != block.outer
            if not starts or used + BETWEEN + whole <= width or whole > width:
                last.append(block)
                used += BETWEEN + needed
                continue
        lines.append([block])
        used = needed
    return lines


def package_width(blocks: Sequence[Block | Fold], start: int) -> int:
    """Return the width of the block at `start` and those after it in the same package."""
    width = -BETWEEN
    for block in blocks[start:]:
        if isinstance(block, Fold) or block.outer != getattr(blocks[start], "outer", ""):
            break
        width += BETWEEN + block_width(block)
    return width
