"""What was measured of a machine: figures, their JSON both ways, and the kinds and distances that
they amount to. `ompbind.measuring` measures them; nothing here takes time.

A figure is a median with the interval that holds the true one. Two figures are told apart only
where their intervals do not overlap, so a noisy machine comes out with fewer differences, not with
wrong ones.
"""

from __future__ import annotations

import json
import math

from ompbind.cpuset import CpuSet, union
from ompbind.errors import ParseError, TopologyError
from ompbind.messages import quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from typing import Any, TypeVar

    Key = TypeVar("Key", bound=Hashable)

MARGIN = 1.05  # a ratio that does not make another kind of core, or another distance
HINT = "ompbind topo --measure --save FILE measures this machine"


class Figure(Record):
    """A median, and the ends of the interval that has the true one; None: too few samples."""

    value: float
    low: float | None = None
    high: float | None = None


class CoreSpeed(Record):
    """The speed of a core, in million steps of a loop in each second: while the others do nothing
    of ours, and while each of them runs the same; None: not measured."""

    cpus: CpuSet
    alone: Figure
    together: Figure | None = None


class Access(Record):
    """The way from a node's cores to a node's memory. Bandwidths of reading, in bytes in each
    second: of one core, and of all cores of `node` together; `latency`: of a load that no cache
    has, in seconds. None: not measured."""

    node: int
    memory: int
    bandwidth: Figure
    together: Figure | None = None
    latency: Figure | None = None


class Measurement(Record):
    """What was measured of a machine. `model`, `shape`: which machine that is; `notes`: what could
    not be measured, or was disturbed, in sentences."""

    model: str
    shape: str
    cores: tuple[CoreSpeed, ...]
    accesses: tuple[Access, ...] = ()
    notes: tuple[str, ...] = ()


# --- what the figures amount to ------------------------------------------------------------------


def group_figures(figures: Mapping[Key, Figure]) -> list[list[Key]]:
    """Return keys in groups, the greatest figures first. Between two groups all intervals are
    apart, and their neighbours differ by more than a twentieth; inside one nothing is told
    apart."""
    keys = sorted(figures, key=lambda key: -figures[key].value)
    groups: list[list[Key]] = [[]]
    for n, key in enumerate(keys):
        before = [figures[k] for k in keys[:n]]
        after = [figures[k] for k in keys[n:]]
        if before and are_apart(before, after):
            groups.append([])
        groups[-1].append(key)
    return groups


def are_apart(greater: Sequence[Figure], less: Sequence[Figure]) -> bool:
    """Whether all of the first are greater than all of the others, given sorted figures."""
    lows = [figure.low for figure in greater]
    highs = [figure.high for figure in less]
    if None in lows or None in highs or greater[-1].value <= MARGIN * less[0].value:
        return False
    return min(low for low in lows if low is not None) > max(h for h in highs if h is not None)


def find_fastest(measurement: Measurement) -> list[CpuSet]:
    """Return the cpus of cores that are equally fast, the fastest first: as they were while all
    were busy, or where that tells none apart, each alone."""
    for name in ("together", "alone"):
        figures = {core.cpus: getattr(core, name) for core in measurement.cores}
        if None not in figures.values() and len(groups := group_figures(figures)) > 1:
            return [union(group) for group in groups]
    return [union(core.cpus for core in measurement.cores)]


def is_unsure(measurement: Measurement, cpus: CpuSet) -> bool:
    """Whether cores with any of these cpus may differ by more than a tenth, alone or together,
    although nothing told them apart."""
    return find_spread(measurement, cpus) > MARGIN**2


def find_spread(measurement: Measurement, cpus: CpuSet) -> float:
    """Return by which factor cores with any of these cpus may differ at most, alone or together;
    infinity if that is not known."""
    cores = [core for core in measurement.cores if core.cpus & cpus]
    spread = 1.0 if cores else math.inf
    for figures in ([c.alone for c in cores], [c.together for c in cores if c.together]):
        lows = [figure.low or 0.0 for figure in figures]
        highs = [figure.high or math.inf for figure in figures]
        if figures[1:]:
            spread = max(spread, max(highs) / min(lows) if min(lows) else math.inf)
    return spread


# --- JSON ----------------------------------------------------------------------------------------


def to_dict(measurement: Measurement) -> dict[str, Any]:
    """Return the measurement as the JSON of topo has it."""
    return {
        "model": measurement.model,
        "shape": measurement.shape,
        "cores": [
            {"cpus": str(c.cpus), "alone": figure_to_dict(c.alone),
             "together": figure_to_dict(c.together)}
            for c in measurement.cores
        ],
        "memory": [
            {"node": a.node, "memory": a.memory, "bandwidth": figure_to_dict(a.bandwidth),
             "together": figure_to_dict(a.together), "latency": figure_to_dict(a.latency)}
            for a in measurement.accesses
        ],
        "fastest": [str(cpus) for cpus in find_fastest(measurement)],
        "notes": list(measurement.notes),
    }  # fmt: skip


def figure_to_dict(figure: Figure | None) -> dict[str, float | None] | None:
    if figure is None:
        return None
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def parse_measurement(text: str) -> Measurement:
    """Return the measurement in a JSON text. Raises TopologyError."""
    try:
        return make_measurement(json.loads(text))
    except (ValueError, RecursionError) as e:
        raise damaged(str(e)) from None


def make_measurement(data: Any) -> Measurement:
    """Return the measurement that an object describes. Raises TopologyError."""
    try:
        cores = tuple(
            CoreSpeed(CpuSet.parse_kernel(c["cpus"]), make_figure(c["alone"]),
                      make_figure_or_none(c["together"]))
            for c in data["cores"]
        )  # fmt: skip
        accesses = tuple(
            Access(make_node(a["node"]), make_node(a["memory"]), make_figure(a["bandwidth"]),
                   make_figure_or_none(a["together"]), make_figure_or_none(a["latency"]))
            for a in data["memory"]
        )  # fmt: skip
        texts = [data["model"], data["shape"], *data["notes"]]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text is none")
    except (KeyError, TypeError, AttributeError, ParseError) as e:
        raise damaged(f"{e} is missing" if isinstance(e, KeyError) else str(e)) from None
    if not cores or any(not core.cpus for core in cores):
        raise damaged("no cores")
    return Measurement(texts[0], texts[1], cores, accesses, tuple(texts[2:]))


def make_node(value: object) -> int:
    return CpuSet([value]).first if isinstance(value, int) else damaged_number(value)


def make_figure(row: Mapping[str, Any]) -> Figure:
    """Return a figure. Raises TypeError for what is no positive number."""
    numbers = [row["value"], row["low"], row["high"]]
    for number in numbers[:1] + [n for n in numbers[1:] if n is not None]:
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1e30:
            damaged_number(number)
    return Figure(*(None if n is None else float(n) for n in numbers))  # type: ignore[arg-type]


def make_figure_or_none(row: Mapping[str, Any] | None) -> Figure | None:
    return None if row is None else make_figure(row)


def damaged_number(value: object) -> int:
    raise TypeError(f"{quote(str(value))} is not a figure")


def damaged(problem: str) -> TopologyError:
    return TopologyError(f"the measurement is damaged: {problem}", hint=HINT)
