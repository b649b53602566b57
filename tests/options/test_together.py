"""No option of a plan is ignored in silence: pair by pair, over the whole table.

Each is given alone and beside each other one; a plan that does not change is allowed only where it
already is what was asked for.
"""

from __future__ import annotations

from functools import cache

import pytest

from ompbind.errors import PlanError
from ompbind.options.commands import OPTIONS
from ompbind.planner import make_plan
from ompbind.plans import Plan
from tests.support.machines import MACHINES, make_asked

# A value of each option that changes the plan of its context; the server has 4 nodes of 4 cores.
VALUES = {
    "ranks": "2",
    "per": "numa",
    "balance": "equal",
    "leave_over": "",
    "distribution": "cyclic",
    "cores_per_rank": "2",
    "numa_bind": "",
    "numa_bind_nodes": "1 0",
    "numa_bind_cpus": "0-3 4-7",
    "share": "",
    "oversubscribe": "",
    "part": "2/2",
    "smt": "2",
    "reserve": "1",
    "role": "kv=1",
    "exclude": "0",
    "exclude_cpus": "1",
    "places": "threads",
    "proc_bind": "spread",
    "threads": "3",
    "mem": "interleave",
    "mem_nodes": "3",
    "mem_balancing": "",
    "mem_need": "1G",
    "binder": "native",
    "rank_env": "",
    "template": "",
}
CONTEXTS = {
    "balance": "-n 3",
    "leave_over": "-n 3 --balance equal",
    "distribution": "--per numa -n 8",
    "share": "-n 6",
    "mem_nodes": "--mem interleave",
    "mem_balancing": "--mem bind",
    "oversubscribe": "-n 20",
    "places": "--smt all",
    "role": "-n 2",
    "reserve": "-n 2",
}
# Not here: what devices, a hybrid machine, other launches, another tool's variables or a denied
# binding show, and what --places, when it is not given, is chosen by.
ELSEWHERE = {
    "free",
    "near",
    "group",
    "gpu_domain",
    "gpu_env",
    "nic_env",
    "kind",
    "mem_kind",
    "omp",
    "on_denied",
    "runtime",
}

# The plan is what both ask for already: (ignored, beside) and why.
AGREE = {
    ("ranks", "numa_bind_nodes"): "a list is for as many ranks",
    ("ranks", "numa_bind_cpus"): "a list is for as many ranks",
    ("numa_bind", "numa_bind_nodes"): "implied",
    ("rank_env", "ranks"): "the default with several ranks",
    ("rank_env", "per"): "the default with several ranks",
    ("rank_env", "numa_bind_nodes"): "the default with several ranks",
    ("rank_env", "numa_bind_cpus"): "the default with several ranks",
    ("oversubscribe", "share"): "permits what is done anyway",
}


def words(key: str) -> list[str]:
    return ["--" + key.replace("_", "-"), *VALUES[key].split()]


@cache
def planned(*args: str) -> Plan | str:
    """The plan, or the message of its refusal."""
    try:
        return make_plan(MACHINES["server"], make_asked(args, ("true", "{rank}")))
    except PlanError as e:
        return e.message


def test_every_option_of_a_request_is_here() -> None:
    """An option that is added to the table is added to the pairs."""
    options = {o.key for o in OPTIONS if any(f.startswith("request.") for f in o.fields)}
    assert options == VALUES.keys() | ELSEWHERE


@pytest.mark.parametrize("key", VALUES)
def test_an_option_has_an_effect(key: str) -> None:
    """In its context, with nothing else."""
    context = CONTEXTS.get(key, "").split()
    assert planned(*context, *words(key)) != planned(*context)


@pytest.mark.parametrize("key", VALUES)
def test_an_option_has_an_effect_beside_another(key: str) -> None:
    """Or it is refused, or what it asks for is so already."""
    context = CONTEXTS.get(key, "").split()
    for other in VALUES.keys() - {key, *(w[2:] for w in context)}:
        if "-n" in context and other in ("ranks", "numa_bind_nodes", "numa_bind_cpus"):
            continue  # says another number of ranks
        without = planned(*context, *words(other))
        beside = planned(*context, *words(other), *words(key))
        if isinstance(beside, Plan) and beside == without:
            assert (key, other) in AGREE, f"{words(key)} is ignored beside {words(other)}"
