"""The result of a comparison: variants, runs and verdicts, as JSON both ways and as CSV."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ompbind.compare.experiment import Run, make_rounds
from ompbind.compare.metric import JOINS, Metric
from ompbind.compare.procedure import READY_WITHIN, Procedure
from ompbind.compare.readiness import parse_ready
from ompbind.compare.statistics import Verdict, judge
from ompbind.compare.variants import Omitted, Variant
from ompbind.errors import OmpbindError, ParseError, UsageError
from ompbind.inputs import read_input
from ompbind.messages import quote
from ompbind.plan_json import Reader, parse_plan, read_object
from ompbind.record import Record

if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1
MAX_BYTES = 1 << 30  # of a file: a result has the plan of each variant
BETTER = ("lower", "higher")


class Result(Record):
    """Everything that a comparison knows. `seed`: of the order; `ending`: why it ended, as
    `Experiment` has it, "interrupted" or ""; `notes`: what the reader must know of how it was
    measured; `ablation`: the best plan against the same less one option each, None without one;
    `arguments`: the words after `ompbind compare` that began it."""

    command: tuple[str, ...]
    metric: Metric
    variants: tuple[Variant, ...]
    omitted: tuple[Omitted, ...]
    seed: int
    runs: tuple[Run, ...]
    ending: str
    notes: tuple[str, ...] = ()
    ablation: Result | None = None
    procedure: Procedure = Procedure()  # what belongs to each run besides the command
    arguments: tuple[str, ...] = ()

    @property
    def rounds(self) -> int:
        """The number of rounds that were measured."""
        return max((run.round for run in self.runs), default=0)

    def judge(self) -> list[Verdict]:
        """Return the verdict on each variant that has figures, the best first."""
        return judge(list(make_rounds(self.runs)), self.metric.better)

    def ranking(self) -> list[str]:
        """Return the names of the variants that have figures, the best first."""
        return [verdict.name for verdict in self.judge()]

    def find_best(self) -> Variant | None:
        """Return the best variant; None where nothing was measured."""
        return next(map(self.find, self.ranking()), None)

    def find(self, name: str) -> Variant:
        return next(v for v in self.variants if v.name == name)

    def values_of(self, name: str) -> list[float]:
        """Return the figures of a variant, round by round."""
        return [r.value for r in self.runs if r.variant == name and r.round and r.value is not None]

    def failures_of(self, name: str) -> list[Run]:
        return [r for r in self.runs if r.variant == name and r.value is None]


# --- to JSON and CSV -----------------------------------------------------------------------------


def to_json(result: Result) -> str:
    """Return the documented JSON object, as text that ends in a newline."""
    return json.dumps(to_dict(result), indent=1) + "\n"


def to_dict(result: Result) -> dict[str, Any]:
    verdicts = {v.name: v for v in result.judge()}
    return {
        "schema": SCHEMA,
        "command": list(result.command),
        "arguments": list(result.arguments),
        "metric": dict(vars(result.metric)) | {"unit": result.metric.unit},
        "procedure": procedure_to_dict(result.procedure),
        "seed": result.seed,
        "rounds": result.rounds,
        "ending": result.ending,
        "variants": [
            {
                "name": v.name,
                "options": list(v.options),
                "bound": v.is_bound,
                "on_denied": v.on_denied,
                "same": list(v.same),
                "verdict": verdict_to_dict(verdicts.get(v.name)),
                "plan": v.plan.to_dict(),
            }
            for v in result.variants
        ],
        "omitted": [dict(vars(o)) for o in result.omitted],
        "runs": [dict(vars(run)) for run in result.runs],
        "notes": list(result.notes),
        "ablation": None if result.ablation is None else to_dict(result.ablation),
    }


def procedure_to_dict(procedure: Procedure) -> dict[str, Any]:
    return {
        "setup": list(procedure.setup),
        "ready": [ready.text for ready in procedure.ready],
        "ready_timeout": procedure.within,
        "load": list(procedure.load),
        "cleanup": list(procedure.cleanup),
    }


def verdict_to_dict(verdict: Verdict | None) -> dict[str, Any] | None:
    """Return a verdict without the variant's name; None for one without figures."""
    if verdict is None:
        return None
    return {key: value for key, value in vars(verdict).items() if key != "name"}


COLUMNS = ("variant", "round", "value", "wall", "user", "system", "peak", "status", "failure")


def to_csv(result: Result) -> str:
    """Return a line for each run, below the names of the columns; those of an ablation follow."""
    import csv
    from io import StringIO

    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in (result, *([result.ablation] if result.ablation else [])):
        for run in part.runs:
            writer.writerow(["" if (v := getattr(run, c)) is None else v for c in COLUMNS])
    return text.getvalue()


# --- from JSON -----------------------------------------------------------------------------------


def read_result(path: str) -> Result:
    """Read the result in a file of --format json. Raises UsageError."""
    try:
        return parse_result(read_input(path, MAX_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
        raise UsageError(f"--resume {quote(path)}: {reason}") from None
    except OmpbindError as e:
        hint = "ompbind compare --format json writes such a file"
        raise UsageError(f"--resume {quote(path)}: {e.message}", hint=hint) from None


def parse_result(text: str) -> Result:
    """Return the result in a JSON text; unknown fields are ignored, and an ablation is not read.
    Raises ParseError."""
    top = read_object(text, "result", SCHEMA)
    metric = Reader(top.get("metric", dict), "metric")
    variants = tuple(
        read_variant(Reader(v, f"variants[{n}]")) for n, v in enumerate(top.get("variants", list))
    )
    names = {v.name for v in variants}
    runs = tuple(read_run(Reader(r, f"runs[{n}]")) for n, r in enumerate(top.get("runs", list)))
    for n, run in enumerate(runs):
        if run.variant not in names:
            raise ParseError(f"runs[{n}] is of {quote(run.variant)}, which is no variant", text="")
    omitted = [Reader(o, f"omitted[{n}]") for n, o in enumerate(top.get("omitted", list, []))]
    return Result(
        command=top.texts("command"),
        metric=Metric(
            name=metric.get("name", str),
            better="higher" if metric.one_of("better", BETTER) == "higher" else "lower",
            join=metric.one_of("join", ("", *JOINS)),
        ),
        variants=variants,
        omitted=tuple(Omitted(o.get("name", str), o.get("why", str)) for o in omitted),
        seed=top.get("seed", int),
        runs=runs,
        ending=top.get("ending", str, ""),
        notes=top.texts("notes", []),
        procedure=read_procedure(Reader(top.get("procedure", dict, {}), "procedure")),
        arguments=top.texts("arguments", []),
    )


def read_procedure(procedure: Reader) -> Procedure:
    return Procedure(
        setup=procedure.texts("setup", []),
        ready=tuple(map(parse_ready, procedure.texts("ready", []))),
        within=float(procedure.get("ready_timeout", (int, float), READY_WITHIN)),
        load=procedure.texts("load", []),
        cleanup=procedure.texts("cleanup", []),
    )


def read_variant(variant: Reader) -> Variant:
    return Variant(
        name=variant.get("name", str),
        options=variant.texts("options"),
        plan=parse_plan(json.dumps(variant.get("plan", dict))),
        is_bound=variant.get("bound", bool),
        on_denied=variant.one_of("on_denied", ("error", "degrade"), "error"),
        same=variant.texts("same", []),
    )


def read_run(run: Reader) -> Run:
    number = (int, float)
    value = run.get("value", (*number, type(None)))
    if value is not None and not 0 < value < float("inf"):
        raise ParseError(f"{run.where}.value is not a number above 0", text=str(value))
    return Run(
        variant=run.get("variant", str),
        round=run.get("round", int),
        value=value,
        status=run.get("status", int),
        peak=run.get("peak", int),
        failure=run.get("failure", str, ""),
        tail=run.texts("tail", []),
        ranks=tuple(Reader(r, f"{run.where}.ranks").data for r in run.get("ranks", list, [])),
        **{name: float(run.get(name, number)) for name in ("wall", "user", "system")},
    )
