"""`ompbind verify`: compare running workers with their plan, once or repeatedly."""

from __future__ import annotations

import time

from ompbind.cli.pids import parse_pids
from ompbind.errors import UsageError
from ompbind.messages import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ompbind.verify.report import Report


def verify(args: Sequence[str]) -> int:
    """Carry out `ompbind verify`; return the exit status. Raises OmpbindError."""
    from ompbind.machine import living_root
    from ompbind.saved import read_plan
    from ompbind.verify import add_huge_pages, check, find_targets

    values, pids = parse_pids(args, "verify")
    if not pids:
        hint = "ompbind verify PID...; an ompbind run's own pid stands for all its ranks"
        raise UsageError("no pid to verify", hint=hint)
    interval = values.get("watch")
    plan = read_plan(values["plan"]) if "plan" in values else None
    root = living_root()
    targets = find_targets(root, pids, plan)
    report = check(root, targets)
    if "repair" in values:
        from ompbind.rebind.repair import repair

        report = repair(root, report, lambda: check(root, targets))
    report = add_huge_pages(root, report)
    if interval is not None:

        def look() -> Report:
            return add_huge_pages(root, check(root, targets))

        return watch(report, look, interval, values.get("format"))
    if values.get("format") == "json":
        write_output(report.to_json())
    elif "html" in values:
        from ompbind.cli.output_file import write_file
        from ompbind.machine import read_machine
        from ompbind.render.pages import make_report_page

        write_file("--html", values["html"], make_report_page(report, read_machine()))
    else:
        from ompbind.render import make_text
        from ompbind.render.report import draw_report

        write_output(make_text(draw_report(report)))
    return 0 if report.holds else 1


def watch(first: Report, look: Callable[[], Report], interval: float, form: object) -> int:
    """Print report after report until interrupted or all processes have exited.

    Return the exit status for the last one.
    """
    last = add_time(first)

    def reports() -> Iterator[Report]:
        nonlocal last
        while any(not p.process.ended for p in last.processes):
            yield last
            time.sleep(interval)
            report = look()
            if all(p.process.ended for p in report.processes):
                return
            last = add_time(report)

    try:
        if form == "json":  # one object a line
            for report in reports():
                write_output(report.to_json(indent=None))
        else:
            from ompbind.render import draw_live
            from ompbind.render.report import draw_report

            draw_live(draw_report(report) for report in reports())
    except KeyboardInterrupt:
        pass
    return 0 if last.holds else 1


def add_time(report: Report) -> Report:
    """Return a report with the time of now."""
    return report.replace(time=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
