"""A saved plan read back: what is not one is refused in one line, whatever it is."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import ParseError
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.plans import BINDERS, Binding, Caution, Host, Inherited, Plan, RankPlan, Role
from ompbind.saved import check_agreement
from tests.support.machines import MACHINES, make_asked

PLAN = Plan(
    host=Host("server", CpuSet(range(8)), CpuSet(range(6)), CpuSet([0, 1]), 2.5),
    ranks=(
        RankPlan(0, Binding(CpuSet([0, 1]), "bind", CpuSet([0]), "numactl"),
                 (CpuSet([0]), CpuSet([1])), CpuSet([0]),
                 (("OMP_NUM_THREADS", "2"), ("OMP_PLACES", "{0},{1}")), ("KMP_AFFINITY",),
                 ("w", "{rank}"), ("gpu0",), "why"),
        RankPlan(1, Binding(CpuSet([2, 3]), "none", CpuSet(), "numactl"), (CpuSet([2, 3]),),
                 CpuSet([0]), (), (), ("w", "\udcff")),
    ),
    reserved=CpuSet([4]),
    roles=(Role("kv", CpuSet([6]), CpuSet([0, 1])),),
    unused=CpuSet([5]),
    part="1/2",
    others=CpuSet([7]),
    cautions=(Caution("uneven", "one"), Caution("gpu", "two")),
    inherited=(Inherited("OMP_PLACES", "x", "overridden", "so"),),
    command=("w", "{rank}"),
    template=True,
)  # fmt: skip
DATA = json.loads(PLAN.to_json())


def refusal(text: str) -> str:
    """The message with which the text is refused: one line, and no hint that is longer."""
    with pytest.raises(ParseError) as e:
        parse_plan(text)
    assert e.value.status == 125
    return check(e.value)


def check(error: ParseError) -> str:
    assert "\n" not in error.message
    assert "\n" not in error.hint
    assert 0 < len(error.message) < 500
    return error.message


def changed(path: str, value: object) -> str:
    """The plan's JSON with one field changed, `ranks.0.mem`; ... takes it away."""
    data: Any = copy.deepcopy(DATA)
    *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    place = data
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data)


def test_there_and_back() -> None:
    """Everything in a plan is in its JSON."""
    assert parse_plan(PLAN.to_json()) == PLAN
    assert PLAN.to_json().endswith("}\n")


def test_the_contracts_fields() -> None:
    """The names and types that scripts rely on."""
    assert DATA["schema"] == 1
    assert {k: DATA["host"][k] for k in ("name", "cpus", "allowed", "nodes")} == {
        "name": "server",
        "cpus": "0-7",
        "allowed": "0-5",
        "nodes": "0-1",
    }
    rank = {k: v for k, v in DATA["ranks"][0].items() if not k.startswith("why")}
    assert rank == {
        "rank": 0,
        "global_rank": 0,
        "local_rank": 0,
        "cpus": "0-1",
        "places": ["0", "1"],
        "nodes": "0",
        "mem": "bind",
        "mems": "0",
        "gpus": ["gpu0"],
        "accels": [],
        "nics": [],
        "nics_why": "",
        "env": {"OMP_NUM_THREADS": "2", "OMP_PLACES": "{0},{1}"},
        "unset": ["KMP_AFFINITY"],
        "argv": ["numactl", "--physcpubind=0-1", "--membind=0", "w", "{rank}"],
    }
    assert (DATA["reserved"], DATA["warnings"]) == ("4", ["one", "two"])
    assert DATA["roles"] == [{"name": "kv", "cpus": "6", "ranks": "0-1", "threads": []}]
    assert (DATA["part"], DATA["others"]) == ("1/2", "7")


def test_a_plan_by_the_contract_alone_is_enough() -> None:
    """What the contract does not name may be left out, and unknown fields are ignored."""
    least = {
        "schema": 1,
        "host": {"name": "h", "cpus": "0-1", "allowed": "0-1", "nodes": "0", "new": 1},
        "ranks": [
            {"rank": 0, "cpus": "0", "places": ["0"], "nodes": "0", "mem": "bind", "mems": "0",
             "gpus": [], "env": {"A": "b"}, "unset": [],
             "argv": ["numactl", "--physcpubind=0", "--membind=0", "w"], "new": {}}
        ],
        "reserved": "", "warnings": [], "new": None,
    }  # fmt: skip
    plan = parse_plan(json.dumps(least))
    assert plan.ranks[0].argv == ("numactl", "--physcpubind=0", "--membind=0", "w")
    assert plan.ranks[0].command == ("w",)
    assert (plan.binder, plan.command, plan.template) == ("numactl", (), False)


BOUND = Binding(CpuSet([0, 1]), "bind", CpuSet([0]), "numactl")


@pytest.mark.parametrize(
    ("binding", "command", "argv"),
    [
        (BOUND, ("w", "-x"), "numactl --physcpubind=0-1 --membind=0 w -x"),
        (BOUND, ("-w",), "numactl --physcpubind=0-1 --membind=0 -- -w"),
        (BOUND, ("--", "w"), "numactl --physcpubind=0-1 --membind=0 -- -- w"),
        (BOUND, (), "numactl --physcpubind=0-1 --membind=0"),
        (
            BOUND.replace(mem="local", mems=CpuSet()),
            ("w",),
            "numactl --physcpubind=0-1 --localalloc w",
        ),
        (BOUND.without(["cpus"]), ("w",), "numactl --membind=0 w"),
        (BOUND.without(["memory"]), ("w",), "numactl --physcpubind=0-1 w"),
        (BOUND.without(["cpus", "memory"]), ("numac", "w"), "numac w"),
        (BOUND.without(["numactl"]), ("-w",), "-w"),
    ],
)
def test_argv_is_made_from_the_binding(
    binding: Binding, command: tuple[str, ...], argv: str
) -> None:
    """numactl's words, a -- where the command needs it, the command; and the way back."""
    made = binding.make_argv(command)
    assert " ".join(made) == argv
    assert binding.parse_argv(made) == command


def test_another_binding_is_told_in_the_environment() -> None:
    """The variables of the binding change with it; what else is there stays, in its place."""
    rank = PLAN.ranks[0].replace(env=(("A", "b"), *BOUND.environment(), ("C", "d")))
    rebound = rank.rebind(rank.binding.keep_nodes(CpuSet([1])))
    assert (rebound.mem, rebound.mems, rebound.cpus) == ("none", CpuSet(), CpuSet([0, 1]))
    assert rebound.env == (
        ("A", "b"), ("OMPBIND_CPUS", "0-1"), ("OMPBIND_MEM", "none"), ("C", "d"),
    )  # fmt: skip
    assert rank.rebind(rank.binding.keep_nodes(CpuSet([0, 1]))) == rank


def test_truncated() -> None:
    """A file that was not written to its end is no plan."""
    text = PLAN.to_json()
    for cut in range(len(text) - 2):
        assert refusal(text[:cut]).startswith("not JSON: "), cut


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "schema '2' is not known, 1 is"),
        ("schema", ..., "plan lacks 'schema'"),
        ("schema", "1", "plan.schema: '1' is of the wrong type"),
        ("schema", True, "plan.schema is not a number"),
        ("schema", None, "plan.schema: 'None' is of the wrong type"),
        ("schema", 1.0, "plan.schema: '1.0' is of the wrong type"),
        ("host", ..., "plan lacks 'host'"),
        ("host", [], "plan.host: '[]' is of the wrong type"),
        ("host.cpus", "3-1", "host.cpus: '3-1' is a descending range"),
        ("host.cpus", 3, "host.cpus: '3' is of the wrong type"),
        ("host.quota", "1", "host.quota: '1' is of the wrong type"),
        ("ranks", [], "ranks are not numbered from 0"),
        ("ranks", {}, "plan.ranks: '{}' is of the wrong type"),
        ("ranks.0", "x", "ranks[0] is not an object"),
        ("ranks.0.rank", 1, "ranks are not numbered from 0"),
        ("ranks.1.rank", 0, "ranks are not numbered from 0"),
        ("ranks.1.rank", 2, "ranks are not numbered from 0"),
        ("ranks.0.rank", True, "ranks[0].rank is not a number"),
        ("ranks.0.rank", "0", "ranks[0].rank: '0' is of the wrong type"),
        ("ranks.0.cpus", "a", "ranks[0].cpus: 'a' is not a number or a range"),
        ("ranks.0.cpus", "0-99999999", "ranks[0].cpus: '0-99999999' is too large: "
                                       "the highest number is 65535"),
        ("ranks.0.places", "0", "ranks[0].places: '0' is of the wrong type"),
        ("ranks.0.places", [0], "ranks[0].places is not a list of texts"),
        ("ranks.0.places", ["{0}"], "ranks[0].places: '{0}' is not a number or a range"),
        ("ranks.0.mem", "strict", "ranks[0].mem: 'strict' is not one of "
                                  "bind, preferred, interleave, weighted-interleave, local, none"),
        ("ranks.0.mem", ["bind"], "ranks[0].mem: \"['bind']\" is of the wrong type"),
        ("ranks.0.mem", "none", "ranks[0]: mem 'none' does not go with mems '0'"),
        ("ranks.0.mem", "local", "ranks[0]: mem 'local' does not go with mems '0'"),
        ("ranks.0.mems", "", "ranks[0]: mem 'bind' does not go with mems ''"),
        ("ranks.1.mem", "bind", "ranks[1]: mem 'bind' does not go with mems ''"),
        ("ranks.0.env", ["A=b"], "ranks[0].env: \"['A=b']\" is of the wrong type"),
        ("ranks.0.env.A", 4, "ranks[0].env is not an object of texts"),
        ("ranks.0.env.A", "a\0b", "ranks[0].env is not an object of texts"),
        ("ranks.0.env.A\0", "b", "ranks[0].env is not an object of texts"),
        ("ranks.0.unset", [None], "ranks[0].unset is not a list of texts"),
        ("ranks.0.argv", ..., "ranks[0] lacks 'argv'"),
        ("ranks.0.argv", "w", "ranks[0].argv: 'w' is of the wrong type"),
        ("ranks.0.argv", ["w", "a\0b"], "ranks[0].argv is not a list of texts"),
        ("ranks.0.argv", ["w", 1], "ranks[0].argv is not a list of texts"),
        ("ranks.0.argv", ["w"], "ranks[0]: argv does not bind as cpus, mem and mems say"),
        ("ranks.0.argv.1", "--physcpubind=0",
         "ranks[0]: argv does not bind as cpus, mem and mems say"),
        ("ranks.0.cpus", "0", "ranks[0]: argv does not bind as cpus, mem and mems say"),
        ("ranks.0.mem", "interleave", "ranks[0]: argv does not bind as cpus, mem and mems say"),
        ("binder", "native", "ranks[0]: argv does not bind as cpus, mem and mems say"),
        ("ranks.0.gpus", [0], "ranks[0].gpus is not a list of texts"),
        ("binder", "taskset", f"plan.binder: 'taskset' is not one of {', '.join(BINDERS)}"),
        ("roles", {}, "plan.roles: '{}' is of the wrong type"),
        ("roles", [1], "roles[0] is not an object"),
        ("roles.0.name", ..., "roles[0] lacks 'name'"),
        ("roles.0.cpus", "x", "roles[0].cpus: 'x' is not a number or a range"),
        ("part", 1, "plan.part: '1' is of the wrong type"),
        ("reserved", "x", "plan.reserved: 'x' is not a number or a range"),
        ("warnings", "x", "plan.warnings: 'x' is of the wrong type"),
        ("inherited", [3], "inherited[0] is not an object"),
        ("inherited.0.name", ..., "inherited[0] lacks 'name'"),
        ("command", [3], "plan.command is not a list of texts"),
        ("template", 1, "plan.template: '1' is of the wrong type"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(path: str, value: object, message: str) -> None:
    """The message names the field, and what it should be."""
    assert refusal(changed(path, value)) == message


@pytest.mark.parametrize("name", ["", "A=B", "=A", "A B", "1A", "A;touch x", "$(touch x)", "A\n"])
def test_names_of_variables(name: str) -> None:
    """No execve takes a name that is empty or holds =, and in `show --format env` a shell would
    execute others."""
    refusal(changed(f"ranks.0.env.{name}", "x"))
    refusal(changed("ranks.0.unset", [name]))


@pytest.mark.parametrize("path", ["ranks.0.env.A", "ranks.0.argv.3", "command.0"])
def test_texts_that_no_process_can_be_given(path: str) -> None:
    """Half a surrogate pair stands for no byte; those that stand for one are fine."""
    refusal(changed(path, "\ud800"))
    parse_plan(changed(path, "\udc80"))


@pytest.mark.parametrize("text", ["", " ", "[]", "3", '"x"', "null", "NaN", "{", "\0", "\ufeff{}"])
def test_no_object(text: str) -> None:
    """Other JSON, and what is none."""
    refusal(text)


def test_hostile_json() -> None:
    """Nesting beyond the stack, numbers beyond all use and lone surrogates are only refused."""
    refusal("[" * 100_000)
    refusal('{"a":' * 100_000)
    refusal(changed("schema", 10**4000))
    refusal('{"schema": ' + "9" * 10_000 + "}")
    refusal(changed("ranks.0.rank", 10**400))
    refusal(changed("ranks.0.cpus", "9" * 100_000))
    refusal(changed("ranks.0.mem", "\ud800" * 10_000))
    refusal(changed("host.quota", "x" * 10_000))


@pytest.mark.parametrize("quota", [10**400, -(10**400)], ids=["huge", "-huge"])
def test_a_quota_beyond_floats(quota: int) -> None:
    """A whole number that no float can hold is refused like any other nonsense."""
    refusal(changed("host.quota", quota))


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**320)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["0-3", "bind", "none", "\0", "\ud800", "5-3", "0-9999999"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def ways(data: object, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of a JSON value."""
    if isinstance(data, dict):
        inner = list(data.items())
    elif isinstance(data, list):
        inner = list(enumerate(data))
    else:
        inner = []
    return [so_far, *(w for key, part in inner for w in ways(part, (*so_far, key)))]


@given(st.lists(st.tuples(st.sampled_from(ways(DATA)[1:]), st.just(...) | JUNK), max_size=3))
def test_mutated(changes: list[tuple[tuple[Any, ...], object]]) -> None:
    """Any parts of a plan changed or taken away: it is still one, or refused with a ParseError."""
    data: Any = copy.deepcopy(DATA)
    for (*way, last), value in changes:
        place = data
        try:
            for step in way:
                place = place[step]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has taken it away
    read_or_refuse(json.dumps(data))


@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_any_text(text: str) -> None:
    """Whatever a file holds, it is a plan or refused."""
    read_or_refuse(text)


@given(st.integers(0, len(PLAN.to_json())), st.integers(0, 30), st.text(max_size=5))
def test_damaged(start: int, length: int, instead: str) -> None:
    """A stretch of the file replaced by something else."""
    text = PLAN.to_json()
    read_or_refuse(text[:start] + instead + text[start + length :])


def read_or_refuse(text: str) -> None:
    """A plan that goes there and back, or a ParseError; nothing else."""
    try:
        plan = parse_plan(text)
    except ParseError as e:
        error: ParseError | None = e
    else:
        error = None
    if error is not None:
        check(error)
        return
    again = parse_plan(plan.to_json()) if plan.host.quota == plan.host.quota else plan
    assert again == plan


def test_a_warning_keeps_its_kind() -> None:
    """The kinds stand beside the texts; a plan without them, or with others, has texts only."""
    assert DATA["warning_kinds"] == ["uneven", "gpu"]
    assert parse_plan(json.dumps(DATA)).cautions == PLAN.cautions
    for kinds in ({}, {"warning_kinds": ["gpu"]}):
        data = {key: value for key, value in DATA.items() if key != "warning_kinds"} | kinds
        plan = parse_plan(json.dumps(data))
        assert plan.cautions == (Caution("", "one"), Caution("", "two"))
        assert plan.warnings == ("one", "two")


def test_a_warning_keeps_its_hint() -> None:
    """Beside the texts, as the kinds are."""
    plan = PLAN.replace(cautions=(Caution("gpu", "one", "do"), Caution("uneven", "two")))
    assert plan.to_dict()["warning_hints"] == ["do", ""]
    assert parse_plan(plan.to_json()).cautions == plan.cautions


@pytest.mark.parametrize(
    "words",
    ["", "-n 2 --share", "-n 3", "--per l3", "--places wide", "--places numa", "--smt all",
     "-n 2 --role kv=1/rank", "-n 2 --role KV=1 --role io=1/rank", "--mem interleave",
     "-n 2 --oversubscribe --role kv=1", "--proc-bind false", "--numa-bind", "--part 1/2",
     "-n 2 --share --smt all --role kv=2/rank", "-n 2 --threads 3 --places threads"],
)  # fmt: skip
def test_plans_agree_with_themselves(words: str) -> None:
    """No plan that ompbind makes is refused as contradicting itself when it is read again."""
    plan = make_plan(MACHINES["server"], make_asked(words.split()))
    check_agreement(parse_plan(plan.to_json()))
