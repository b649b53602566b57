"""Which launches are supervised because of their command."""

from __future__ import annotations

from typing import Any

import pytest

from ompbind.cli.run import SERVER_GRACE, settle_supervision
from ompbind.errors import PlanError, UsageError
from ompbind.launch import Settings
from ompbind.options import make_settings, read_arguments
from ompbind.planner import make_plan
from ompbind.plans import Plan
from tests.support.machines import MACHINES, make_asked


def plan_for(*command: str, ranks: int = 1) -> Plan:
    plan = make_plan(MACHINES["server"], make_asked(["-n", str(ranks)]))
    return plan.replace(command=command)


def settle(args: str, plan: Plan) -> Settings:
    values: dict[str, Any]
    values, _ = read_arguments([*args.split(), "--", *plan.command], "run")
    return settle_supervision(make_settings(values), values, plan)


@pytest.mark.parametrize(
    ("args", "command", "watched", "grace"),
    [
        ("", "vllm serve m", True, SERVER_GRACE),
        ("", "env A=b /opt/bin/vllm serve m", True, SERVER_GRACE),
        ("", "python -m sglang.launch_server --model-path m", True, SERVER_GRACE),
        ("--grace 5", "vllm serve m", True, 5.0),
        ("--supervise", "vllm serve m", True, SERVER_GRACE),
        ("--no-supervise", "vllm serve m", False, SERVER_GRACE),
        ("", "vllm bench serve", False, 10.0),
        ("", "python -c vllm", False, 10.0),
        ("--supervise", "true", True, 10.0),
        ("--no-supervise", "true", False, 10.0),
        ("-v", "true", True, 10.0),
    ],
)
def test_servers_are_supervised(args: str, command: str, watched: bool, grace: float) -> None:
    """Programs that start and bind workers, unless --no-supervise; others if it is asked for."""
    settings = settle(args, plan_for(*command.split()))
    assert (settings.watched, settings.grace) == (watched, grace)


def test_several_ranks_cannot_replace_ompbind() -> None:
    """There is one process to replace, and options that need a supervisor are refused, too."""
    with pytest.raises(
        UsageError, match="--no-supervise is for a single rank, and this plan has 2"
    ):
        settle("--no-supervise", plan_for("true", ranks=2))
    for option in ("-v", "--grace 3", "--verify", "--verify-strict", "--leave-children"):
        with pytest.raises(PlanError, match=r"^--no-supervise lets a rank replace ompbind, --"):
            settle(f"--no-supervise {option}", plan_for("true"))
