"""The page of a verification: the plan, and beside it what the processes really have."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.messages import counted, format_size
from ompbind.render.lists import short_list
from ompbind.render.owners import Owners, list_owners
from ompbind.render.pages.html import (
    make_page,
    write_figure,
    write_heading,
    write_paragraph,
    write_side_by_side,
    write_table,
)
from ompbind.render.picture import make_check_picture
from ompbind.render.report import describe_threads
from ompbind.render.words import Row, Rows
from ompbind.verify.report import bytes_by_node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.topology import Machine
    from ompbind.verify.expected import Expected
    from ompbind.verify.report import ProcessReport, Report

MAX_THREADS = 512  # of a process, in its table


def make_report_page(report: Report, machine: Machine) -> str:
    """Return the page of what was seen on this machine."""
    count = sum(len(p.differences) for p in report.processes)
    if count:
        verdict = write_paragraph(f"{counted(count, 'difference')} in {report.summary}", "bad")
    else:
        verdict = write_paragraph(report.summary, "good")
    parts = [verdict, draw_check(report, machine)]
    for process in report.processes:
        parts += write_process(process, report.online)
    return make_page("not as planned" if count else "as planned", parts)


def draw_check(report: Report, machine: Machine) -> str:
    """Draw the ranks' cpus as planned, and those on which their threads may run."""
    allowed = machine.allowed.cpus
    planned: dict[int, CpuSet] = {}
    real: dict[int, CpuSet] = {}
    for process in report.processes:
        expected = process.expected
        if expected is None or process.process.ended:
            continue
        number = name_number(expected)
        planned[number] = expected.cpus & report.online
        masks = union(t.cpus for t in process.process.threads) & report.online
        real[number] = real.get(number, CpuSet()) | masks
    if not planned:
        return ""
    wrong = find_wrong(report)
    left = make_check_picture(machine, Owners(list_owners(planned.items()), allowed), "planned")
    right = make_check_picture(
        machine, Owners(list_owners(real.items()), allowed), "where threads may run", wrong
    )
    return write_side_by_side(
        [
            write_figure(left, "planned"),
            write_figure(right, "where threads may run", style=False),
        ]
    )


def find_wrong(report: Report) -> CpuSet:
    """Return the cpus that a rank has and should not have, or should have and has not."""
    wrong = CpuSet()
    for process in report.processes:
        if process.expected is None or process.process.ended:
            continue
        cpus = process.expected.cpus & report.online
        masks = union(t.cpus for t in process.process.threads) & report.online
        wrong |= masks - union([cpus, *process.expected.roles])
        if any(d.threads for d in process.differences) and not process.parent:
            wrong |= cpus - masks
    return wrong


def name_number(expected: Expected) -> int:
    return expected.rank if expected.number is None else expected.number


def write_process(report: ProcessReport, online: CpuSet) -> list[str]:
    """Return a process, what was planned for it beside what it has, and every difference."""
    process, expected = report.process, report.expected
    started = f", started by {report.parent}" if report.parent else ""
    parts = [write_heading(f"{report.name} {process.name}{started}")]
    if process.ended:
        parts.append(write_paragraph("has exited", "soft"))
    else:
        parts.append(write_table(compare_with_plan(report, online)))
    for difference in report.differences:
        parts.append(write_paragraph(f"difference: {difference.text}", "bad"))
        parts.append(write_paragraph(f"likely: {difference.cause}"))
        parts.append(write_paragraph(f"remedy: {difference.remedy}"))
    parts += [write_paragraph(f"note: {note}", "soft") for note in report.notes]
    if expected is None:
        parts.append(write_paragraph("its plan is unknown", "soft"))
    rows, wrong = make_thread_rows(report, online)
    return [*parts, write_table(rows, wrong=wrong)]


def compare_with_plan(report: ProcessReport, online: CpuSet) -> Rows:
    """Return cpus, places and memory, as planned and as they are."""
    process, expected = report.process, report.expected
    masks = union(t.cpus for t in process.threads) & online
    rows = [("cpus", short_list(expected.cpus) if expected else "-", short_list(masks))]
    openmp = sum(known is True for known in report.openmp)
    if expected and expected.threads:
        real = "unknown" if None in report.openmp else str(openmp)
        rows.append(("OpenMP threads", str(expected.threads), real))
    memory = process.memory
    if memory is not None:
        nodes = ", ".join(f"node {n} {format_size(b)}" for n, b in bytes_by_node(memory))
        policy = f"{expected.mem} {short_list(expected.mems)}".strip() if expected else "-"
        rows.append(("memory", policy, f"{memory.policy}; {nodes or 'none'}"))
    return Rows(("", "planned", "now"), tuple(Row(row) for row in rows))


def make_thread_rows(report: ProcessReport, online: CpuSet) -> tuple[Rows, set[int]]:
    """Return a row for each thread, those that differ first where there are many, and the positions
    of those that differ."""
    threads = report.process.threads
    differing = {tid for d in report.differences for tid in d.threads}
    order = list(range(len(threads)))
    if len(order) > MAX_THREADS:
        order.sort(key=lambda n: threads[n].tid not in differing)
    rows = [
        Row((
            str(threads[n].tid),
            threads[n].name,
            describe_threads(report, [n]) or "-",
            short_list(threads[n].cpus & online),
            "-" if threads[n].last is None else str(threads[n].last),
        ))
        for n in order[:MAX_THREADS]
    ]  # fmt: skip
    more = len(order) - MAX_THREADS
    note = f"and {counted(more, 'more thread')}" if more > 0 else ""
    wrong = {at for at, n in enumerate(order[:MAX_THREADS]) if threads[n].tid in differing}
    return Rows(("thread", "name", "kind", "allowed cpus", "last on"), tuple(rows), note), wrong
