"""What verify found, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ompbind.messages import counted, format_size
from ompbind.verify.report import bytes_by_node, count_looked_at

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ompbind.cpuset import CpuSet
    from ompbind.verify.report import Checked, Report

MOST = 16  # rows of threads


def draw_report(report: Report) -> RenderableType:
    parts: list[RenderableType] = []
    for checked in report.processes:
        parts += [headline(checked)]
        if not checked.seen.ended:
            parts += [thread_table(checked, report.online), *memory_lines(checked)]
        parts += [Text(f"note: {note}", style="dim", overflow="fold") for note in checked.notes]
        for difference in checked.differences:
            parts.append(Text.assemble(("difference: ", "bold red"), difference.text))
            parts.append(Text.assemble(("  likely: ", "dim"), difference.cause))
            parts.append(Text.assemble(("  remedy: ", "dim"), difference.remedy))
        parts.append(Text())
    return Group(*parts, verdict(report))


def headline(checked: Checked) -> Text:
    seen, expected = checked.seen, checked.expected
    text = Text.assemble((checked.name, "bold"), f" {seen.name}")
    if checked.parent:
        text.append(f", started by {checked.parent}")
    if expected is not None:
        memory = "" if expected.mem == "none" else f", memory {expected.mem} {expected.mems}"
        text.append(f": planned cpus {expected.cpus}{memory.rstrip()}", style="dim")
    if checked.runtimes:
        text.append(f"; {', '.join(checked.runtimes)}", style="dim")
    return text


def thread_table(checked: Checked, online: CpuSet) -> Table:
    """A row for each thread, or for those that are alike where there are many."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim")
    for name in ("thread", "name", "what", "allowed cpus", "last on"):
        table.add_column(name, overflow="fold")
    seen = checked.seen
    spoiled = {tid for d in checked.differences for tid in d.threads}
    rows: dict[tuple[object, ...], list[int]] = {}
    each = len(seen.threads) <= MOST
    for n, (thread, place) in enumerate(zip(seen.threads, checked.places, strict=True)):
        mask = thread.cpus & online if place is None else None
        alike = (thread.name, checked.openmp[n], mask)
        key: tuple[object, ...] = (
            (n,) if each or thread.tid == seen.pid or thread.tid in spoiled else alike
        )
        if len(rows) >= MOST and key not in rows:  # hundreds of spoiled ones
            key = (thread.tid in spoiled, place is None)
        rows.setdefault(key, []).append(n)
    for members in rows.values():
        add_row(table, checked, members, online, spoiled)
    return table


def add_row(
    table: Table, checked: Checked, members: list[int], online: CpuSet, spoiled: set[int]
) -> None:
    seen = checked.seen
    threads = [seen.threads[n] for n in members]
    one, many = threads[0], len(threads)
    masks = list(dict.fromkeys(str(t.cpus & online) for t in threads))
    lasts = sorted({t.last for t in threads if t.last is not None})
    names = list(dict.fromkeys(t.name for t in threads))
    table.add_row(
        str(one.tid) if many == 1 else f"{many} threads",
        names[0] if len(names) == 1 else f"{names[0]} …",
        role(checked, members),
        Text(" ".join(masks[:4]) + (" …" if masks[4:] else ""),
             style="red" if any(t.tid in spoiled for t in threads) else ""),
        " ".join(map(str, lasts[:4])) + (" …" if lasts[4:] else ""),
    )  # fmt: skip


def role(checked: Checked, members: list[int]) -> str:
    """What a thread is, as far as that can be told."""
    is_main = checked.seen.threads[members[0]].tid == checked.seen.pid
    place = checked.places[members[0]]
    words = ["main"] if is_main else []
    words += ["OpenMP"] if checked.openmp[members[0]] else []
    if place is not None:
        words.append(f"place {place}" if len(members) == 1 else "in their places")
    return ", ".join(words)


def memory_lines(checked: Checked) -> list[Text]:
    memory = checked.seen.memory
    if memory is None:
        return []
    own = ", ".join(f"node {n} {format_size(b)}" for n, b in bytes_by_node(memory)) or "none"
    files = sum(b for _, b in memory.files)
    return [Text.assemble(("memory: ", "bold dim"), f"{memory.policy}; {own}",
                          (f"; files {format_size(files)}", "dim"), overflow="fold")]  # fmt: skip


def verdict(report: Report) -> Text:
    count = sum(len(c.differences) for c in report.processes)
    looked = count_looked_at(report)
    if not count:
        return Text.assemble(("as planned: ", "bold green"), looked)
    text = f"not as planned: {counted(count, 'difference')}"
    return Text.assemble((text, "bold red"), f" in {looked}")
