"""Results: JSON that is read back, CSV, the best plan, and files that are refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ompbind.compare.experiment import Run
from ompbind.compare.metric import Metric
from ompbind.compare.result import Result, parse_result, read_result, to_csv, to_json
from ompbind.compare.variants import Omitted, make_grid, make_variants
from ompbind.errors import ParseError, UsageError
from ompbind.plan_json import parse_plan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plans are for Linux")


def make_result(rounds: int = 30, ablation: Result | None = None) -> Result:
    """Unbound runs in 2 s, bound ones in 1 s; one run has failed."""
    variants, _ = make_variants(make_grid([]), {}, ["a b"], {"OMPBIND_NEIGHBOURS": "no"})
    runs = [
        Run(name, number, value, value, 0.5, 0.25, 4096, ranks=({"rank": 0, "swap_bytes": None},))
        for number in range(1, rounds + 1)
        for name, value in (("unbound", 2.0), ("bound", 1.0))
    ]
    failed = Run("unbound", 0, None, 3.0, status=3, failure="ended with status 3", tail=("é\n",))
    return Result(
        ("a b",), Metric(), tuple(variants), (Omitted("smt=9", "why"),), 7, (failed, *runs),
        "settled", ("a note",), ablation,
    )  # fmt: skip


def test_json_is_read_back() -> None:
    """What is written is read as the same result; an ablation is not gone on with."""
    result = make_result()
    assert parse_result(to_json(result)) == result
    assert parse_result(to_json(make_result(ablation=result))) == result


def test_json_has_the_verdicts() -> None:
    """Each variant has its options, its plan as show prints it, and its verdict."""
    data = json.loads(to_json(make_result()))
    unbound, bound = data["variants"]
    assert (bound["name"], bound["options"], bound["bound"]) == ("bound", [], True)
    assert bound["verdict"] == {
        "kind": "best", "ratio": 1.0, "low": 1.0, "high": 1.0, "rounds": 30,
    }  # fmt: skip
    assert unbound["verdict"]["kind"] == "worse"
    assert unbound["verdict"]["ratio"] == pytest.approx(2)
    assert data["rounds"] == 30
    assert parse_plan(json.dumps(bound["plan"])) == make_result().variants[1].plan


def test_csv_has_each_run() -> None:
    """A line for each run, failed ones without a value, and those of an ablation."""
    lines = to_csv(make_result(rounds=2)).splitlines()
    assert lines[0] == "variant,round,value,wall,user,system,peak,status,failure"
    assert lines[1] == "unbound,0,,3.0,0.0,0.0,0,3,ended with status 3"
    assert lines[2] == "unbound,1,2.0,2.0,0.5,0.25,4096,0,"
    assert len(lines) == 6
    assert len(to_csv(make_result(2, ablation=make_result(3))).splitlines()) == 6 + 7


def test_best() -> None:
    """The best variant, by its median ratio; none without figures."""
    best = make_result().find_best()
    assert best is not None
    assert best.name == "bound"
    assert make_result(rounds=0).find_best() is None


def change(*path: str | int, value: object) -> Callable[[Any], None]:
    """What sets a field of the JSON."""

    def apply(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("schema", value=2), "schema '2' is not known"),
        (change("command", value="ls"), "result.command: 'ls' is of the wrong type"),
        (change("metric", "better", value="most"), "'most' is not one of lower, higher"),
        (change("runs", 0, "variant", value="x"), "runs[0] is of 'x', which is no variant"),
        (change("runs", 1, "value", value=-1), "runs[1].value is not a number above 0"),
        (change("variants", 0, "plan", value={}), "plan lacks 'schema'"),
        (change("variants", value=3), "variants: '3' is of the wrong type"),
    ],
)
def test_spoilt_files_are_refused(spoil: Callable[[Any], None], message: str) -> None:
    """The error names the field."""
    data = json.loads(to_json(make_result(rounds=1)))
    spoil(data)
    with pytest.raises(ParseError) as e:
        parse_result(json.dumps(data))
    assert message in e.value.message


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there, not text or not JSON is an error of one line that names the file."""
    monkeypatch.chdir(tmp_path)
    for content in (None, b"\xff\xfe", b"{"):
        path = Path("result.json")
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError, match=f"^--resume '{path}': [^\n]+$"):
            read_result(str(path))
