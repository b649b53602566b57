"""How the blocks of a machine are arranged: sizes first, then places. Pure."""

from __future__ import annotations

from ompbind.record import Record
from ompbind.render.picture.shapes import measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.render.picture.contents import Block

CPU_SIZE, THREAD_HEIGHT = 9, 14  # of a cpu's number, and of its cell
NAME_SIZE, CACHE_SIZE, NAME_HEIGHT = 10.5, 9.5, 16  # of a block's name, and a cache's
LABEL_SIZE, LABEL_HEIGHT = 9, 13  # of a rank's name above its cores
BAR_HEIGHT = 4  # of the bar above cores of a rank that is named above other ones
MEMORY_HEIGHT = 18
CHIP_SIZE, CHIP_HEIGHT, CHIP_PADDING = 9, 16, 6
LANE = 9  # above chips, for lines to cores
CORE_GAP, GAP = 3, 6
FEW_COLUMNS = 4  # of a few cores, at least; twice as many of many
PADDING = {"machine": 0, "group": 0, "cache": 4, "memory": 6, "node": 6, "package": 7}
WIDTHS = tuple(range(360, 2161, 120))  # of a whole machine, tried
ASPECT = 0.6  # height to width of a good picture


class Frame(Record):
    """The size of a block, and how what it holds is arranged: `columns` of cores, or `rows` of
    blocks; rows of `chips` by position."""

    width: float
    height: float
    columns: int = 0
    rows: tuple[tuple[Frame, ...], ...] = ()
    chips: tuple[tuple[int, ...], ...] = ()


class Cells(Record):
    """How cores are drawn. `width`: of a cpu's cell; `groups`: of each core, by its first cpu, what
    stands above it, equal for cores under one label, None for nothing; {}: there are no labels."""

    width: float
    groups: dict[int, object]

    def group(self, core: CpuSet) -> object:
        return self.groups.get(core.first)

    def label_heights(self, cores: Sequence[CpuSet], columns: int) -> list[float]:
        """Return the height above each row of cores: the lower one where all its groups have their
        label in the row before."""
        if not self.groups:
            return [0] * -(-len(cores) // columns)
        heights: list[float] = []
        above: set[object] = {None}
        for start in range(0, len(cores), columns):
            groups = {self.group(core) for core in cores[start : start + columns]}
            heights.append(BAR_HEIGHT if groups <= above else LABEL_HEIGHT)
            above = groups | {None}
        return heights


def make_cells(block: Block, groups: dict[int, object]) -> Cells:
    """Return cells that the highest cpu number fits in."""
    highest = max((max(core) for core in all_cores(block)), default=0)
    return Cells(max(20, measure(str(highest), CPU_SIZE) + 6), groups)


def all_cores(block: Block) -> Iterator[CpuSet]:
    yield from block.cores
    for inner in block.blocks:
        yield from all_cores(inner)


def arrange(block: Block, cells: Cells) -> Frame:
    """Return the frame of a whole machine: small, and in the shape of a screen."""
    arranger = Arranger(cells)

    def cost(frame: Frame) -> float:
        aspect = frame.height / frame.width / ASPECT
        return frame.width * frame.height * max(aspect, 1 / aspect)

    frames = [arranger.fit(block, width) for width in WIDTHS]
    return min(frames, key=cost)


class Arranger:
    """Arranges blocks; alike ones once."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.frames: dict[tuple[int, float], Frame] = {}
        self.keys: dict[object, int] = {}
        self.key_of: dict[int, int] = {}  # of a block by its identity: it is asked for often

    def key(self, block: Block) -> int:
        """Return a number that blocks have in common that look the same but for their numbers."""
        if id(block) not in self.key_of:
            parts = (
                block.look, len(block.name), bool(block.detail),
                tuple(map(len, block.cores)), self.pattern(block.cores),
                tuple(map(self.key, block.blocks)),
                tuple(len(m.text) for m in block.memories),
                tuple(chip.text for chip in block.chips),
            )  # fmt: skip
            self.key_of[id(block)] = self.keys.setdefault(parts, len(self.keys))
        return self.key_of[id(block)]

    def pattern(self, cores: Sequence[CpuSet]) -> tuple[int, ...]:
        """Return which cores have one label in common."""
        numbers: dict[object, int] = {None: 0}
        groups = map(self.cells.group, cores)
        return tuple(numbers.setdefault(group, len(numbers)) for group in groups)

    def fit(self, block: Block, room: float) -> Frame:
        """Return the lowest frame of a block no wider than `room`, if it can be so narrow."""
        key = self.key(block), room
        if key not in self.frames:
            self.frames[key] = self.make_frame(block, room)
        return self.frames[key]

    def make_frame(self, block: Block, room: float) -> Frame:
        padding = PADDING[block.look]
        inside = room - 2 * padding
        if block.blocks:
            inner = self.fit_blocks(block.blocks, inside)
        else:
            inner = self.fit_cores(block.cores, inside)
        width = max(inner.width, self.least_width(block))
        chips = arrange_chips(block, max(width, min(inside, 160)))
        for row in chips:
            taken = sum(chip_width(block, n) for n in row) + GAP * (len(row) - 1)
            width = max(width, taken)
        height = head_height(block) + inner.height + foot_height(len(chips)) + padding
        if padding and not block.name:
            height += padding
        return inner.replace(width=width + 2 * padding, height=height, chips=chips)

    def least_width(self, block: Block) -> float:
        """Return the room for a block's name and its memory."""
        widths = [name_width(block)]
        if block.look in ("group", "memory"):
            widths[0] += measure(block.detail, LABEL_SIZE) + 9
        widths += [measure(m.text, LABEL_SIZE) + 10 for m in block.memories]
        return max(widths)

    def fit_cores(self, cores: Sequence[CpuSet], room: float) -> Frame:
        if not cores:
            return Frame(0, 0)
        step = self.cells.width + CORE_GAP
        most = min(len(cores), max(fewest_columns(len(cores)), int((room + CORE_GAP) // step)))
        rows = -(-len(cores) // most)
        # Full rows look better, if they are not many more.
        full = max(n for n in range(1, most + 1) if len(cores) % n == 0)
        columns = full if len(cores) // full <= rows * 1.34 else -(-len(cores) // rows)
        labels = self.cells.label_heights(cores, columns)
        tall = max(map(len, cores)) * THREAD_HEIGHT + CORE_GAP
        return Frame(columns * step - CORE_GAP, sum(labels) + len(labels) * tall, columns)

    def fit_blocks(self, blocks: Sequence[Block], room: float) -> Frame:
        """Return the best frame of these blocks, memory without cpus in rows of its own."""
        frames = []
        for memory in (False, True):
            chosen = [b for b in blocks if (b.look == "memory") == memory]
            if chosen:
                frames.append(self.fit_alike(chosen, room))
        return stack(tuple(row for frame in frames for row in frame.rows))

    def fit_alike(self, blocks: Sequence[Block], room: float) -> Frame:
        """Return the best of the ways to put blocks into rows of equal numbers."""
        best, lowest = Frame(0, 0), 0.0
        counts = sorted({-(-len(blocks) // rows) for rows in range(1, len(blocks) + 1)})
        if len(blocks) == 2 and blocks[0].look == "package":
            counts = [2]
        for count in reversed(counts):
            share = (room - (count - 1) * GAP) / count
            frames = align([self.fit(b, room if count == 1 else share) for b in blocks])
            rows = tuple(flow(frames, room, count))
            frame = stack(rows)
            ragged = count * len(rows) - len(blocks)
            cost = frame.height * (1 + ragged / len(blocks) / 4)
            if frame.width > room:
                cost *= 2 + frame.width / room
            if not best.rows or cost < lowest:
                best, lowest = frame, cost
        return best


def fewest_columns(cores: int) -> int:
    """Return in how many columns so many cores are drawn at least, preferably in full rows."""
    few = FEW_COLUMNS if cores < 4 * FEW_COLUMNS else 2 * FEW_COLUMNS
    return next((n for n in range(few, few * 3 // 2 + 1) if cores % n == 0), few)


def name_width(block: Block) -> float:
    """Return the width of a block's name; those of caches are less conspicuous."""
    if block.look == "cache":
        return measure(block.name, CACHE_SIZE)
    return measure(block.name, NAME_SIZE, bold=True)


def align(frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames, made equally wide where they nearly are."""
    widest = max(frame.width for frame in frames)
    if min(frame.width for frame in frames) * 1.3 < widest:
        return list(frames)
    return [frame.replace(width=widest) for frame in frames]


def flow(frames: Sequence[Frame], room: float, count: int) -> Iterator[tuple[Frame, ...]]:
    """Return rows of at most `count` frames, as many in each as fit."""
    row: list[Frame] = []
    for frame in frames:
        width = sum(f.width + GAP for f in row) + frame.width
        if row and (len(row) == count or width > room):
            yield tuple(row)
            row = []
        row.append(frame)
    if row:
        yield tuple(row)


def stack(rows: tuple[tuple[Frame, ...], ...]) -> Frame:
    widths = [sum(f.width for f in row) + GAP * (len(row) - 1) for row in rows]
    heights = [max(f.height for f in row) for row in rows]
    return Frame(max(widths), sum(heights) + GAP * (len(rows) - 1), rows=rows)


def head_height(block: Block) -> float:
    """Return the height of a block's name and memory."""
    named = NAME_HEIGHT + 2 if block.name else 0
    if block.look == "group" and block.detail:
        named = NAME_HEIGHT
    return named + len(block.memories) * (MEMORY_HEIGHT + 3)


def foot_height(rows: int) -> float:
    return rows * (CHIP_HEIGHT + LANE) if rows else 0


def chip_width(block: Block, number: int) -> float:
    return measure(block.chips[number].text, CHIP_SIZE) + 2 * CHIP_PADDING


def arrange_chips(block: Block, room: float) -> tuple[tuple[int, ...], ...]:
    rows: list[tuple[int, ...]] = []
    used = 0.0
    for n in range(len(block.chips)):
        width = chip_width(block, n)
        if rows and used + GAP + width <= room:
            rows[-1] += (n,)
            used += GAP + width
        else:
            rows.append((n,))
            used = width
    return tuple(rows)
