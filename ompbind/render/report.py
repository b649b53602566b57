"""A verification, drawn."""

from __future__ import annotations

from ompbind.messages import counted, format_size
from ompbind.plans import describe_policy
from ompbind.render.escape import escape
from ompbind.render.table import Table
from ompbind.render.text import Group, Text
from ompbind.verify.report import bytes_by_node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.cpuset import CpuSet
    from ompbind.render.text import Drawing
    from ompbind.verify.report import ProcessReport, Report

MAX_ROWS = 16  # of a table of threads
MAX_VALUES = 4  # in a cell


def draw_report(report: Report) -> Drawing:
    report = escape(report)
    parts: list[Drawing] = []
    if report.time:
        parts += [Text(f"at {report.time[11:19]}", style="dim"), Text()]
    parts += draw_repairs(report)
    for process in report.processes:
        parts += [draw_headline(process)]
        if not process.process.ended:
            parts += [draw_threads(process, report.online), *draw_memory(process)]
        parts += [Text(f"note: {note}", style="dim", overflow="fold") for note in process.notes]
        last = len(process.differences) - 1
        for n, difference in enumerate(process.differences):
            parts.append(Text.assemble(("difference: ", "bold red"), difference.text))
            after = process.differences[n + 1] if n < last else None
            if after and (after.cause, after.remedy) == (difference.cause, difference.remedy):
                continue  # said once, below the last that it holds for
            parts.append(Text.assemble(("  likely: ", "dim"), difference.cause))
            parts.append(Text.assemble(("  remedy: ", "dim"), difference.remedy))
        parts.append(Text())
    return Group(*parts, draw_summary(report))


def draw_repairs(report: Report) -> list[Drawing]:
    """Draw what was done about differences, where that was asked for."""
    if report.repairs is None:
        return []
    lines = [
        Text.assemble(("repaired: ", "bold green") if r.done else ("not repaired: ", "bold red"),
                      r.text)
        for r in report.repairs
    ]  # fmt: skip
    return [*(lines or [Text("nothing to repair", style="bold")]), Text()]


def draw_headline(report: ProcessReport) -> Text:
    expected = report.expected
    text = Text.assemble((report.name, "bold"), f" {report.process.name}")
    if report.parent:
        text.append(f", started by {report.parent}")
    if expected is not None:
        policy = describe_policy(expected.mem, expected.mems, balancing=expected.balancing)
        memory = "" if expected.mem == "none" else f", memory {policy}"
        text.append(f": planned cpus {expected.cpus}{memory}", style="dim")
    if report.runtimes:
        text.append(f"; {', '.join(report.runtimes)}", style="dim")
    if report.allocators:
        text.append(f"; allocator {', '.join(report.allocators)}", style="dim")
    return text


def draw_threads(report: ProcessReport, online: CpuSet) -> Table:
    """Draw a row for each thread, or for similar threads where there are many."""
    table = Table()
    for name in ("thread", "name", "kind", "allowed cpus", "last on"):
        table.add_column(name, overflow="fold")
    process = report.process
    differing = {tid for d in report.differences for tid in d.threads}
    rows: dict[tuple[object, ...], list[int]] = {}
    each = len(process.threads) <= MAX_ROWS
    for n, (thread, place) in enumerate(zip(process.threads, report.places, strict=True)):
        mask = thread.cpus & online if place is None else None
        similar = (thread.name, report.openmp[n], mask)
        key: tuple[object, ...] = (
            (n,) if each or thread.tid == process.pid or thread.tid in differing else similar
        )
        if len(rows) >= MAX_ROWS and key not in rows:  # hundreds of differing ones
            key = (thread.tid in differing, place is None)
        rows.setdefault(key, []).append(n)
    for members in rows.values():
        table.add_row(*draw_row(report, members, online, differing))
    return table


def draw_row(
    report: ProcessReport, members: list[int], online: CpuSet, differing: set[int]
) -> tuple[str | Text, ...]:
    """Return the cells for the threads at these positions."""
    threads = [report.process.threads[n] for n in members]
    masks = list(dict.fromkeys(str(t.cpus & online) for t in threads))
    cpus = sorted({t.last for t in threads if t.last is not None})
    names = list(dict.fromkeys(t.name for t in threads))
    return (
        str(threads[0].tid) if len(threads) == 1 else f"{len(threads)} threads",
        names[0] if len(names) == 1 else f"{names[0]} …",
        describe_threads(report, members),
        Text(join_some(masks), style="red" if any(t.tid in differing for t in threads) else ""),
        join_some([str(cpu) for cpu in cpus]),
    )


def join_some(values: list[str]) -> str:
    """Return the first few values."""
    return " ".join(values[:MAX_VALUES]) + (" …" if values[MAX_VALUES:] else "")


def describe_threads(report: ProcessReport, members: list[int]) -> str:
    """Return what similar threads are, as far as that is known."""
    first = members[0]
    words = ["main"] if report.process.threads[first].tid == report.process.pid else []
    words += ["OpenMP"] if report.openmp[first] else []
    if report.places[first] is not None:
        words.append(f"place {report.places[first]}" if len(members) == 1 else "in their places")
    return ", ".join(words)


def draw_memory(report: ProcessReport) -> list[Text]:
    memory = report.process.memory
    if memory is None:
        huge = describe_huge_pages(report)
        return [Text.assemble(("memory: ", "bold dim"), huge[2:])] if huge else []
    nodes = ", ".join(f"node {n} {format_size(b)}" for n, b in bytes_by_node(memory)) or "none"
    files = sum(b for _, b in memory.files)
    return [Text.assemble(("memory: ", "bold dim"), f"{memory.policy}; {nodes}",
                          (f"; files {format_size(files)}", "dim"), describe_huge_pages(report),
                          overflow="fold")]  # fmt: skip


def describe_huge_pages(report: ProcessReport) -> str:
    """Return how much of a process's memory is in huge pages, `; huge pages 2.0 MiB`, "" where none
    is."""
    pages = report.process.huge_pages
    if pages is None:
        return ""
    parts = []
    if pages.transparent:
        parts.append(f"transparent huge pages {format_size(pages.transparent)}")
    if pages.reserved:
        parts.append(f"reserved huge pages {format_size(pages.reserved)}")
    return "".join(f"; {part}" for part in parts)


def draw_summary(report: Report) -> Text:
    count = sum(len(p.differences) for p in report.processes)
    if not count:
        return Text.assemble(("as planned: ", "bold green"), report.summary)
    headline = f"not as planned: {counted(count, 'difference')}"
    return Text.assemble((headline, "bold red"), f" in {report.summary}")
