"""A machine's blocks as shapes, its cpus in the look of their owners. Pure."""

from __future__ import annotations

from ompbind.cpuset import label_numbers
from ompbind.record import Record
from ompbind.render.picture.layout import (
    CACHE_SIZE,
    CHIP_HEIGHT,
    CHIP_SIZE,
    CORE_GAP,
    CPU_SIZE,
    GAP,
    LABEL_HEIGHT,
    LABEL_SIZE,
    LANE,
    MEMORY_HEIGHT,
    NAME_HEIGHT,
    NAME_SIZE,
    PADDING,
    THREAD_HEIGHT,
    chip_width,
    head_height,
    name_width,
)
from ompbind.render.picture.looks import RANKS
from ompbind.render.picture.shapes import Box, Lines, Words, measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.render.picture.contents import Block, Chip, Memory
    from ompbind.render.picture.layout import Cells, Frame
    from ompbind.render.picture.shapes import Shape

HATCH = 5  # between the lines of hatched cells
MAX_SEGMENTS = 64  # of a memory's ranks


class Look(Record):
    """How a cpu is drawn. `look`: its class; `hatched`: with lines; `label`: what stands above its
    core, a long and a short form, and `group`, equal for cpus under one label; `marked`: as one
    that is not as it should be."""

    look: str
    hatched: bool = False
    label: tuple[str, str] = ("", "")
    group: object = None
    marked: bool = False


def labelled(core: CpuSet, look_of: Callable[[int], Look]) -> Look:
    """Return the look of a core's first thread that has a label, else of its first one."""
    looks = [look_of(cpu) for cpu in core]
    return next((look for look in looks if look.label[0]), looks[0])


def make_groups(cores: Iterable[CpuSet], look_of: Callable[[int], Look]) -> dict[int, object]:
    """Return what stands above each core, by its first cpu: see Cells."""
    looks = {core.first: labelled(core, look_of) for core in cores}
    return {cpu: look.group if look.label[0] else None for cpu, look in looks.items()}


class Drawer:
    """Collects the shapes of one picture. `look_of`: a cpu's look; `title_of`: what is shown for it
    under the pointer."""

    def __init__(
        self, cells: Cells, look_of: Callable[[int], Look], title_of: Callable[[int], str]
    ) -> None:
        self.cells = cells
        self.look_of = look_of
        self.title_of = title_of
        self.shapes: list[Shape] = []
        self.bars: dict[int, list[Box]] = {}  # above the cores of each rank
        self.chips: list[tuple[Chip, Box, Box]] = []  # with their boxes, and their blocks'
        self.noun = "rank"

    def draw(self, block: Block, frame: Frame, x: float, y: float, height: float = 0) -> None:
        """Draw a block with its upper left corner there."""
        padding = PADDING[block.look]
        tall = max(frame.height, height)
        if padding:
            title = ", ".join(filter(None, (block.name, block.detail)))
            radius = 3 if block.look == "cache" else 5
            self.shapes.append(Box(x, y, frame.width, tall, f"block {block.look}", title, radius))
        self.draw_head(block, frame, x + padding, y)
        top = y + head_height(block) + (padding if padding and not block.name else 0)
        if block.blocks:
            self.draw_blocks(block.blocks, frame, x + padding, top)
        else:
            self.draw_cores(block.cores, frame, x + padding, top)
        self.draw_chips(block, frame, Box(x, y, frame.width, tall, ""))

    def draw_head(self, block: Block, frame: Frame, x: float, y: float) -> None:
        """Draw a block's name, what it is, and its memory."""
        room = frame.width - 2 * PADDING[block.look]
        baseline = y + NAME_HEIGHT - 3
        taken = 0.0
        if block.name and block.look == "cache":
            self.shapes.append(Words(x, baseline, block.name, CACHE_SIZE, "text soft"))
            taken = name_width(block) + 8
        elif block.name:
            self.shapes.append(Words(x, baseline, block.name, NAME_SIZE, "text bold"))
            taken = name_width(block) + 8
        parts = block.detail.split(", ")
        details = (", ".join(parts[n:]) for n in range(len(parts)))
        if text := next((t for t in details if measure(t, LABEL_SIZE) <= room - taken), ""):
            self.shapes.append(Words(x + taken, baseline, text, LABEL_SIZE, "text soft"))
        top = y + (NAME_HEIGHT + 2 if block.name else 0)
        for memory in block.memories:
            self.draw_memory(memory, x, top, room)
            top += MEMORY_HEIGHT + 3

    def draw_memory(self, memory: Memory, x: float, y: float, room: float) -> None:
        """Draw a node's memory as a bar, with a piece for each rank that is bound to it."""
        ranks = memory.ranks
        bound = label_numbers(self.noun, ranks) if ranks else ""
        text = memory.text
        parts = [f"memory of node {memory.node}: {text}", f"bound to it: {bound}" if bound else ""]
        if not memory.allowed:
            parts.append("not allowed")
        title = "; ".join(filter(None, parts))
        look = "memory-bar" if memory.allowed else "memory-bar denied"
        self.shapes.append(Box(x, y, room, MEMORY_HEIGHT, look, title, 2))
        shown = ranks if len(ranks) <= MAX_SEGMENTS else ()
        for n, rank in enumerate(shown):
            width = room / len(shown)
            self.shapes.append(
                Box(x + n * width, y + MEMORY_HEIGHT - 4, width, 4, f"strong {rank_look(rank)}")
            )
        baseline = y + MEMORY_HEIGHT - 7
        long = f"memory {text}" if memory.bytes else text
        if measure(long, LABEL_SIZE) > room - 8:
            long = text
        self.shapes.append(Words(x + 4, baseline, long, LABEL_SIZE, "text"))
        left = room - 20 - measure(long, LABEL_SIZE)
        note = next(
            (t for t in (bound, "bound" if bound else "") if measure(t, LABEL_SIZE) <= left), ""
        )
        if not memory.allowed:
            note = "not allowed" if measure("not allowed", LABEL_SIZE) <= left else ""
        if note:
            end = x + room - 4
            self.shapes.append(Words(end, baseline, note, LABEL_SIZE, "text soft", "end"))

    def draw_blocks(self, blocks: Sequence[Block], frame: Frame, x: float, y: float) -> None:
        rest = iter(blocks)
        for row in frame.rows:
            left, tall = x, max(f.height for f in row)
            for inner in row:
                held = next(rest)
                self.draw(held, inner, left, y, 0 if held.look == "memory" else tall)
                left += inner.width + GAP
            y += tall + GAP

    def draw_cores(self, cores: Sequence[CpuSet], frame: Frame, x: float, y: float) -> None:
        if not cores:
            return
        step, columns = self.cells.width + CORE_GAP, frame.columns
        most = max(map(len, cores))
        heights = self.cells.label_heights(cores, columns)
        for start, height in zip(range(0, len(cores), columns), heights, strict=True):
            row = cores[start : start + columns]
            if height:
                self.draw_labels(row, x, y, height)
            for n, core in enumerate(row):
                self.draw_core(core, x + n * step, y + height)
            y += height + most * THREAD_HEIGHT + CORE_GAP

    def draw_labels(self, row: Sequence[CpuSet], x: float, y: float, height: float) -> None:
        """Draw bars above cores in the colours of their owners, once for neighbours, and the names
        of these if the height allows."""
        step = self.cells.width + CORE_GAP
        start = 0
        for n in range(1, len(row) + 1):
            group = self.cells.group(row[start])
            if n < len(row) and self.cells.group(row[n]) == group:
                continue
            if group is not None:
                look = self.look_of_core(row[start])
                left, width = x + start * step, (n - start) * step - CORE_GAP
                bar = Box(left, y + height - 3, width, 2, f"strong {look.look}")
                self.shapes.append(bar)
                if isinstance(group, int):
                    self.bars.setdefault(group, []).append(bar)
                fitting = (t for t in look.label if measure(t, LABEL_SIZE, bold=True) <= width + 2)
                text = next(fitting, "") if height >= LABEL_HEIGHT else ""
                if text:
                    self.shapes.append(
                        Words(left + width / 2, y + height - 5, text, LABEL_SIZE,
                              f"label bold {look.look}", "middle")
                    )  # fmt: skip
            start = n

    def look_of_core(self, core: CpuSet) -> Look:
        return labelled(core, self.look_of)

    def draw_core(self, core: CpuSet, x: float, y: float) -> None:
        width = self.cells.width
        for n, cpu in enumerate(core):
            look = self.look_of(cpu)
            top = y + n * THREAD_HEIGHT
            cell = Box(x, top, width, THREAD_HEIGHT, f"cpu {look.look}", self.title_of(cpu), 2, cpu)
            self.shapes.append(cell)
            if look.hatched:
                self.shapes.append(hatch(cell))
            if look.marked:
                self.shapes.append(mark(cell))
            self.shapes.append(
                Words(x + width / 2, top + THREAD_HEIGHT - 3.8, str(cpu), CPU_SIZE,
                      f"number {look.look}", "middle")
            )  # fmt: skip

    def draw_chips(self, block: Block, frame: Frame, outer: Box) -> None:
        """Draw a block's devices at the lower end of its box."""
        padding = PADDING[block.look]
        y = outer.y + outer.height - padding - len(frame.chips) * (CHIP_HEIGHT + LANE) + LANE
        for row in frame.chips:
            left = outer.x + padding
            for n in row:
                chip, width = block.chips[n], chip_width(block, n)
                look = "chip" if chip.usable else "chip denied"
                if chip.rank is not None:
                    look = f"chip taken {rank_look(chip.rank)}"
                box = Box(left, y, width, CHIP_HEIGHT, look, chip.title, 8)
                self.shapes.append(box)
                self.shapes.append(
                    Words(left + width / 2, y + CHIP_HEIGHT - 5, chip.text, CHIP_SIZE,
                          "text" if chip.rank is None else f"number {rank_look(chip.rank)}",
                          "middle")
                )  # fmt: skip
                if chip.rank is not None:
                    self.chips.append((chip, box, outer))
                left += width + GAP
            y += CHIP_HEIGHT + LANE

    def draw_links(self) -> None:
        """Draw a line from each device to the cores of its rank, where these are in its block."""
        lanes: dict[Box, int] = {}
        for chip, box, outer in self.chips:
            bars = [
                bar
                for bar in self.bars.get(chip.rank or 0, ())
                if outer.x <= bar.x <= outer.x + outer.width
                and outer.y <= bar.y <= outer.y + outer.height
            ]
            if bars:
                lane = lanes.get(outer, 0)
                lanes[outer] = lane + 1
                self.shapes += link(box, bars, outer, lane, rank_look(chip.rank or 0))


def link(chip: Box, bars: Sequence[Box], outer: Box, lane: int, look: str) -> list[Shape]:
    """Return a line from a device to the nearest of its rank's bars: along the sides of the block,
    where nothing is written; neighbouring lines on either side in turn."""
    right = lane % 2 == 1
    step = 1.5 + 2 * (lane // 2 % 2)
    side = outer.x + outer.width - step if right else outer.x + step
    nearest = max(bars, key=lambda bar: (bar.y, bar.x if right else -bar.x))
    end = nearest.x + nearest.width if right else nearest.x
    start, turn, level = chip.x + chip.width / 2, chip.y - 2.5 - step / 2, nearest.y + 1
    points = ((start, chip.y), (start, turn), (side, turn), (side, level), (end, level))
    return [Lines((points,), f"link {look}")]


def hatch(box: Box) -> Lines:
    """Return diagonal lines across a box."""
    paths = []
    offset = HATCH / 2
    while offset < box.width + box.height:
        start = (box.x + min(offset, box.width), box.y + max(0, offset - box.width))
        end = (box.x + max(0, offset - box.height), box.y + min(offset, box.height))
        paths.append((start, end))
        offset += HATCH
    return Lines(tuple(paths), "hatch")


def mark(box: Box) -> Box:
    """Return the outline that says that something is wrong with what a box stands for."""
    return Box(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1, "wrong", "", box.radius)


def rank_look(rank: int) -> str:
    """Return the class of a rank's colour."""
    return f"rank{rank % len(RANKS)}"
