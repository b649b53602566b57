"""What the installed numactl can do, by made-up ones."""

from __future__ import annotations

from typing import Any

import pytest

from ompbind.errors import UsageError
from ompbind.launch import numactl
from ompbind.planner import make_plan
from ompbind.plans import Plan
from tests.support.machines import MACHINES, make_asked

# What numactl writes without arguments: the options that each release knows.
USAGE = "usage: numactl [--all | -a] [--interleave= | -i <nodes>] [--preferred= | -p <node>]\n"
MANY = USAGE + "[--balancing | -b] [--preferred-many= | -P <nodes>]\n"
WEIGHTED = MANY + "[--weighted-interleave= | -w <nodes>]\n"


def plan_with(mem: str) -> Plan:
    words = ["-n", "2", "--binder", "numactl", "--mem", *mem.split()]
    return make_plan(MACHINES["server"], make_asked(words))


@pytest.mark.parametrize(
    ("mem", "usage", "missing"),
    [
        ("bind", USAGE, ""),
        ("interleave --mem-nodes 0,1", USAGE, ""),
        ("preferred --mem-nodes 0", USAGE, ""),
        ("preferred --mem-nodes 0,1", USAGE, "no --preferred-many; 2.0.15 has"),
        ("preferred --mem-nodes 0,1", MANY, ""),
        ("bind --mem-balancing", USAGE, "no --balancing; 2.0.15 has"),
        ("bind --mem-balancing", MANY, ""),
        ("weighted-interleave --mem-nodes 0,1", MANY, "no --weighted-interleave; 2.0.19 has"),
        ("weighted-interleave --mem-nodes 0,1", WEIGHTED, ""),
        ("none", "", ""),
    ],
)
def test_a_numactl_that_is_too_old(
    mem: str, usage: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Does not bind what it has no option for: system calls do, and where nothing but numactl is
    asked for, that is an error which names the release that has it."""
    calls: list[tuple[Any, ...]] = []

    def capture(*args: Any) -> tuple[int, str]:
        calls.append(args)
        return 1, usage

    monkeypatch.setattr(numactl, "require_program", lambda name, environ: f"{environ['A']}/{name}")
    monkeypatch.setattr(numactl, "capture", capture)
    environ = {"A": "/x"}
    plan = plan_with(mem)
    replaced = numactl.replace_numactl(plan, environ, required=False)
    assert calls == [("/x/numactl", ("/x/numactl",), environ)]
    if not missing:
        assert replaced is plan
        assert numactl.replace_numactl(plan, environ, required=True) is plan
        return
    assert replaced.binder == "native"
    assert [r.binding for r in replaced.ranks] == [
        r.binding.replace(binder="native") for r in plan.ranks
    ]
    with pytest.raises(UsageError, match=missing) as caught:
        numactl.replace_numactl(plan, environ, required=True)
    assert "--binder native" in caught.value.hint
