"""What was measured of a machine, as lines and rows. Pure."""

from __future__ import annotations

from ompbind.machine.measurement import MARGIN, find_fastest, find_spread
from ompbind.messages import counted, plural
from ompbind.render.lists import short_list
from ompbind.render.words import Row, Rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.machine.measurement import Figure, Measurement

MAX_ROWS = 64  # of pairs of nodes
CORES, READING = (
    "measured: cores, in million steps of a loop per second",
    "measured: reading memory",
)


def describe_cores(measurement: Measurement) -> list[str]:
    """Return a line for each group of cores that are equally fast, the fastest first; or what is
    known of cores that were not told apart."""
    groups = find_fastest(measurement)
    lines = [describe_group(measurement, cpus, several=bool(groups[1:])) for cpus in groups]
    if groups[1:] or not measurement.cores[1:]:
        return lines
    spread = find_spread(measurement, groups[0])
    cores = counted(len(measurement.cores), "core")
    if spread <= MARGIN**2:
        return [*lines, f"the {cores} are equally fast, within {spread - 1:.0%}"]
    most = f", which may differ by up to {spread - 1:.0%}" if spread < 10 else ""
    return [*lines, f"could not tell which of the {cores} are faster{most}: measure again while "
            "nothing else runs"]  # fmt: skip


def describe_group(measurement: Measurement, cpus: CpuSet, *, several: bool) -> str:
    """Return `cpus 0-3,8-11: 18.2 alone, 16.9 together`."""
    cores = [core for core in measurement.cores if core.cpus <= cpus]
    alone = describe_speeds([core.alone for core in cores])
    together = describe_speeds([core.together for core in cores if core.together])
    text = f"{alone} alone" + (f", {together} with all cores busy" if together else "")
    who = f"{plural('cpu', len(cpus))} {short_list(cpus)}"
    best = several and cpus == find_fastest(measurement)[0]
    return f"{who}: {text}{' (fastest)' if best else ''}"


def describe_speeds(figures: Sequence[Figure]) -> str:
    """Return the medians of figures, from the least to the greatest; "" of none."""
    values = sorted(figure.value for figure in figures)
    texts = [f"{value:.1f}" for value in values]
    return "" if not texts else texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def make_access_rows(measurement: Measurement) -> Rows:
    """Return a row for each pair of nodes that was measured: bandwidths in GB/s, latency in ns."""
    rows = tuple(
        Row((
            str(a.node), str(a.memory), show_figure(a.bandwidth, 1e-9, 1),
            show_figure(a.together, 1e-9, 1), show_figure(a.latency, 1e9, 0),
        ))
        for a in measurement.accesses[:MAX_ROWS]
    )  # fmt: skip
    more = len(measurement.accesses) - MAX_ROWS
    note = f"and {more} more: --format json has them" if more > 0 else ""
    columns = ("cpus of node", "memory of node", "one core, GB/s", "all its cores, GB/s",
               "latency, ns")  # fmt: skip
    return Rows(columns, rows, note)


def show_figure(figure: Figure | None, unit: float, digits: int) -> str:
    """Return a median and its interval, `21.3 (20.9-21.6)`; "-" of what was not measured."""
    if figure is None:
        return "-"
    text = f"{figure.value * unit:.{digits}f}"
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({figure.low * unit:.{digits}f}-{figure.high * unit:.{digits}f})"
