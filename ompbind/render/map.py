"""Where the blocks of a machine's map stand: alike ones folded, wide ones cut, side by side where
there is room. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.messages import label
from ompbind.record import Record
from ompbind.render.lists import short_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.render.blocks import Block, Heading

    Owner = Callable[[int], tuple[str, int]]
    Shape = tuple[int, frozenset[int], int, int]  # cores, gaps, width of a cell, room

BETWEEN = 3  # blanks between two blocks
MAX_BLOCKS = 12  # of a plan; more are folded where they look the same
MAX_LABEL = 14
MAX_NAMED = 8  # blocks that are named one by one in a fold


class Fold(Record):
    """Blocks that look like the one before them, and are not drawn."""

    like: Block
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        name = name_block(self.like)
        return f"{len(self.blocks)} more like {name}: {list_folded(self.blocks, self.like.outer)}"


def name_block(block: Block) -> str:
    if block.level and block.number is not None:
        return f"{block.level} {block.number}"
    return "this"


def list_folded(blocks: Sequence[Block], outer: str) -> str:
    """Return the names and cpus of blocks: those in one package together where their cpus are a
    range for each hardware thread, which they divide in order; else of each."""
    texts = []
    runs: list[list[Block]] = []
    for block in blocks:
        last = runs[-1][0] if runs else None
        within = (block.outer, True) if block.inner else ("", False)
        if last and within == ((last.outer, True) if last.inner else ("", False)):
            runs[-1].append(block)
        else:
            runs.append([block])
    for run in runs:
        texts += [f"{run[0].outer}: "] if run[0].inner and run[0].outer != outer else [""]
        whole = union(block.cpus for block in run)
        threads = max(len(core) for block in run for core in block.cores)
        together = str(whole).count(",") < threads and len({b.level for b in run}) == 1
        parts = [run] if together or len(run) == 1 else [[block] for block in run]
        texts[-1:] = [texts[-1] + name_run(part) for part in parts]
    if len(texts) > MAX_NAMED:
        texts = [*texts[: MAX_NAMED - 2], "…", texts[-1]]
    return "; ".join(texts)


def name_run(blocks: Sequence[Block]) -> str:
    cpus = f"cpus {short_list(union(block.cpus for block in blocks))}"
    numbers = CpuSet(block.number for block in blocks if block.number is not None)
    if not blocks[0].level or len(numbers) < len(blocks):
        return cpus
    return f"{label(blocks[0].level, numbers)}, {cpus}"


def fold_blocks(blocks: Sequence[Block], owner: Owner, least: int = 4) -> list[Block | Fold]:
    """Return the blocks, runs of at least so many that look the same as their first and a Fold.

    `owner` returns what a cpu is: a kind, and the number of its rank. Blocks look the same if they
    have the same shape and the same kinds of cpus, and the same ranks or equally numbered ones.
    """
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
            folded += close_run(run, step, least)
            run, step = [], None
        run.append(block)
        previous = shape, first
    return folded + close_run(run, step, least)


def close_run(run: list[Block], step: int | None, least: int) -> list[Block | Fold]:
    """Return a run of blocks that look the same, folded if it is long; the last one is drawn too
    where its ranks are others than the first one's."""
    if len(run) < least or not run[0].cores:
        return list(run)
    if not step:
        return [run[0], Fold(run[0], tuple(run[1:]))]
    return [run[0], Fold(run[0], tuple(run[1:-1])), run[-1]]


def look_of(block: Block, owner: Owner) -> tuple[object, int]:
    """Return what a block looks like but for the numbers of cpus and ranks, and its first rank."""
    ranks = [rank for cpu in block.cpus for kind, rank in (owner(cpu),) if kind == "rank"]
    first = min(ranks, default=0)
    cells = tuple(
        tuple(None if cpu is None else shift(owner(cpu), first) for cpu in row)
        for row in block.rows
    )
    titles = bool(block.outer), bool(block.inner), bool(block.notes)
    return (cells, block.gaps, titles, block.likeness), first


def shift(owned: tuple[str, int], first: int) -> tuple[str, int]:
    kind, rank = owned
    return (kind, rank - first) if kind == "rank" else owned


def drop_threads(blocks: Sequence[Block], owner: Owner) -> list[Block]:
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


# --- widths --------------------------------------------------------------------------------------


def row_label(row: Sequence[int | None]) -> str:
    cpus = CpuSet(cpu for cpu in row if cpu is not None)
    text = short_list(cpus)
    return text if len(text) <= MAX_LABEL else f"{cpus.first}…{max(cpus)}"


def label_width(block: Block) -> int:
    """Return the width of the labels of its rows, with the blank after them. Cells that are wider
    than a character need none: they have the cpus themselves."""
    if block.cell > 1 or not block.cores:
        return 0
    return 1 + max(len(row_label(row)) for row in block.rows)


def measure_cells(block: Block, start: int, end: int) -> int:
    """Return the width of these cores with the gaps between them and the blank after each."""
    return (end - start) * block.cell + sum(start < gap < end for gap in block.gaps)


def block_width(block: Block) -> int:
    labels = label_width(block)
    cells = labels + measure_cells(block, 0, len(block.cores)) - (block.cell > 1)
    ends = [column + len(name) for line in fit_headings(block, labels) for column, name in line]
    return max(cells, *ends, *map(len, (block.inner, *block.notes)))


def column_widths(blocks: Sequence[Block]) -> list[int]:
    """Return the widths of blocks side by side: those of one package have room for its name
    together."""
    widths = [block_width(block) for block in blocks]
    start = 0
    for n, block in enumerate(blocks):
        if block.outer != blocks[start].outer:
            start = n
        if n + 1 == len(blocks) or blocks[n + 1].outer != block.outer:
            used = line_width(widths[start : n + 1])
            widths[n] += max(0, len(block.outer) - used)
    return widths


def line_width(widths: Sequence[int]) -> int:
    return sum(widths) + BETWEEN * (len(widths) - 1)


def fit_headings(block: Block, labels: int) -> list[list[tuple[int, str]]]:
    """Return the lines above the rows, each as columns and names: those whose names have room, and
    of several forms of a name the first for which all of a line have it. `labels`: the width of the
    rows' labels."""
    lines = []
    for headings in block.headings:
        starts = [
            labels + measure_cells(block, 0, h.position) + (h.position in block.gaps)
            for h in headings
        ]
        rooms = [end - start for start, end in zip(starts, [*starts[1:], 1000], strict=False)]
        for names in zip(*(heading.names for heading in headings), strict=True):
            if all(len(name) < room for name, room in zip(names, rooms, strict=True)):
                lines.append(list(zip(starts, names, strict=True)))
                break
    return lines


# --- lines ---------------------------------------------------------------------------------------


def split_block(block: Block, width: int, known: dict[Shape, list[int]]) -> list[Block]:
    """Return the block in pieces that fit the width, about as wide as each other, cut at its gaps
    where they are near. `known`: the ends of pieces by shape, as most blocks of a machine are
    alike."""
    if block_width(block) <= width or not block.cores:
        return [block]
    room = max(8, width - (block.cell == 1) * (MAX_LABEL + 1) + (block.cell > 1))
    shape = len(block.cores), block.gaps, block.cell, room
    if shape not in known:
        known[shape] = balance_ends(block, room)
    ends = known[shape]
    pieces = []
    for start, end in zip([0, *ends], ends, strict=False):
        first, last = start == 0, end == len(block.cores)
        pieces.append(
            block.replace(
                outer=block.outer if first else "",
                inner=block.inner if first else "",
                cores=block.cores[start:end],
                gaps=frozenset(gap - start for gap in block.gaps if start < gap < end),
                headings=tuple(move_headings(line, start, end) for line in block.headings),
                notes=block.notes if last else (),
                piece=True,
            )
        )
    return pieces


def balance_ends(block: Block, room: int) -> list[int]:
    """Return where the pieces of a block end if they are about as wide as each other, and no more
    than they have to be."""
    ends = find_ends(block, room)
    for narrower in range(room - 1, room // 2, -1):
        others = find_ends(block, narrower)
        if len(others) > len(ends):
            break
        ends = others
    return ends


def find_ends(block: Block, room: int) -> list[int]:
    """Return where each piece of a block ends, if pieces have so much room."""
    ends = [0]
    while ends[-1] < len(block.cores):
        start = end = ends[-1]
        used = block.cell
        while end < len(block.cores) and used <= room:
            end += 1
            used += block.cell + (end in block.gaps)
        end = max(end, start + 1)
        if end < len(block.cores):
            near = [gap for gap in block.gaps if start + (end - start) // 2 < gap <= end]
            end = max(near, default=end)
        ends.append(end)
    return ends[1:]


def move_headings(line: Sequence[Heading], start: int, end: int) -> tuple[Heading, ...]:
    return tuple(h.replace(position=h.position - start) for h in line if start <= h.position < end)


def lay_out(blocks: Sequence[Block | Fold], width: int) -> list[list[Block] | Fold]:
    """Return the lines of blocks: as many side by side as fit, cut where one does not; those of one
    package together where they fit at all."""
    pieces: list[Block | Fold] = []
    known: dict[Shape, list[int]] = {}
    for block in blocks:
        pieces += [block] if isinstance(block, Fold) else split_block(block, width, known)
    lines: list[list[Block] | Fold] = []
    for n, block in enumerate(pieces):
        if isinstance(block, Fold):
            lines.append(block)
            continue
        last = lines[-1] if lines else None
        if isinstance(last, list) and not (block.piece or last[-1].piece):
            package = [block]
            if last[-1].outer != block.outer:
                package = take_package(pieces[n:])
                if line_width(column_widths(package)) > width:
                    package = [block]
            if line_width(column_widths([*last, *package])) <= width:
                last.append(block)
                continue
        lines.append([block])
    return lines


def take_package(blocks: Sequence[Block | Fold]) -> list[Block]:
    """Return the first block and those after it in the same package."""
    package: list[Block] = []
    for block in blocks:
        if isinstance(block, Fold) or (package and block.outer != package[0].outer):
            break
        package.append(block)
    return package


def count_lines(lines: Sequence[list[Block] | Fold]) -> int:
    """Return how many lines of characters these take."""
    return sum(1 if isinstance(line, Fold) else count_rows(line) for line in lines)


def count_rows(blocks: Sequence[Block]) -> int:
    """Return how many lines blocks side by side take, with a blank one."""
    rows = max(len(b.rows) + len(fit_headings(b, label_width(b))) + len(b.notes) for b in blocks)
    return 2 + any(b.inner for b in blocks) + rows
