"""OpenMP's variables: what an inherited one means, and what is written for a rank."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.openmp import (
    LIMITS,
    REMOVED,
    choose_places,
    judge_environment,
    limited,
    make_environment,
    parse_proc_bind,
    parse_threads,
)
from ompbind.plans import Inherited

AS_OPTION = "as if given as an option"
FLAG = {k: f"--{k} is given" for k in ("places", "proc_bind", "threads")}


@pytest.mark.parametrize("name", ["GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET",
                                  "KMP_PLACE_THREADS",
                                  "KMP_HIDDEN_HELPER_AFFINITY"])  # fmt: skip
@pytest.mark.parametrize("value", ["0-3", "compact,verbose", ""])
@pytest.mark.parametrize("given_too", [{}, FLAG])
def test_rivals_of_the_plan_are_removed(name: str, value: str, given_too: dict[str, str]) -> None:
    """Whatever a runtime would follow instead of OMP_PLACES goes, whatever it says."""
    settings = judge_environment({name: value}, given_too)
    why = "a runtime would follow it instead of the plan's OMP_PLACES"
    assert settings.inherited == (Inherited(name, value, "removed", why),)
    assert (settings.places, settings.proc_bind, settings.threads) == (None, None, None)
    assert name in REMOVED


@pytest.mark.parametrize(
    ("name", "key", "value", "meaning"),
    [
        ("OMP_PLACES", "places", "threads", "threads"),
        ("OMP_PLACES", "places", " CORES ", "cores"),
        ("OMP_PLACES", "places", "ll_caches", "l3"),
        ("OMP_PLACES", "places", "numa_domains", "numa"),
        ("OMP_PROC_BIND", "proc_bind", "spread", "spread"),
        ("OMP_PROC_BIND", "proc_bind", "TRUE", "true"),
        ("OMP_PROC_BIND", "proc_bind", "master", "master"),
        ("OMP_PROC_BIND", "proc_bind", "spread, close", "spread,close"),
        ("OMP_NUM_THREADS", "threads", "8", "8"),
        ("OMP_NUM_THREADS", "threads", " 4 , 2", "4,2"),
    ],
)
def test_a_wish_is_respected(name: str, key: str, value: str, meaning: str) -> None:
    """What the plan can follow it follows, unless an option has settled it."""
    settings = judge_environment({name: value, "PATH": "/bin"}, {})
    assert getattr(settings, key) == meaning
    assert settings.inherited == (Inherited(name, value, "respected", AS_OPTION),)
    others = {"places", "proc_bind", "threads"} - {key}
    assert [getattr(settings, k) for k in others] == [None, None]

    settled = judge_environment({name: value}, {key: "--this is given"})
    assert getattr(settled, key) is None
    assert settled.inherited == (Inherited(name, value, "overridden", "--this is given"),)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("OMP_PLACES", "{0},{0}", "it is not a list of places: '{0},{0}': cpu 0 is in two places"),
        ("OMP_PLACES", "cores(4)", "the plan gives each rank its own places"),
        ("OMP_PLACES", "sockets", "the plan gives each rank its own places"),
        ("OMP_PLACES", "", "the plan gives each rank its own places"),
        ("OMP_PROC_BIND", "false", "it would leave threads unbound or is not a binding"),
        ("OMP_PROC_BIND", "", "it would leave threads unbound or is not a binding"),
        ("OMP_PROC_BIND", "close,false", "it would leave threads unbound or is not a binding"),
        ("OMP_NUM_THREADS", "0", "it is not a number of threads"),
        ("OMP_NUM_THREADS", "", "it is not a number of threads"),
        ("OMP_NUM_THREADS", "4,", "it is not a number of threads"),
    ],
)
def test_what_would_defeat_the_plan_is_overridden(name: str, value: str, why: str) -> None:
    """A wish that cannot be kept is overridden, and the reason said."""
    settings = judge_environment({name: value}, {})
    assert settings.inherited == (Inherited(name, value, "overridden", why),)
    assert (settings.places, settings.proc_bind, settings.threads) == (None, None, None)


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_the_users(name: str) -> None:
    """What can only change the number of threads stays, with a note, unless --threads says it."""
    given = {k: v for k, v in FLAG.items() if k != "threads"}
    (variable,) = judge_environment({name: "4"}, given).inherited
    assert (variable.name, variable.action) == (name, "respected")
    (variable,) = judge_environment({name: "4"}, FLAG).inherited
    assert (variable.name, variable.action, variable.why) == (name, "removed", "--threads is given")


@pytest.mark.parametrize(
    ("text", "threads", "planned"),
    [
        ("2", "8", "2"),
        ("8", "2", "2"),
        (" 3 ", "8,2", "3,2"),
        ("0", "8", "8"),
        ("none", "8", "8"),
        ("", "8", "8"),
        ("2,1", "8", "8"),
    ],
)
def test_no_more_threads_than_the_limit(text: str, threads: str, planned: str) -> None:
    """OMP_THREAD_LIMIT, where it is a number, is what is planned with."""
    settings = judge_environment({"OMP_THREAD_LIMIT": text}, {})
    assert limited(threads, settings.limit) == planned


def test_other_variables_are_nobodys_business() -> None:
    """Variables that move no thread are not judged."""
    environ = {
        "OMP_SCHEDULE": "static",
        "OMP_STACKSIZE": "1G",
        "KMP": "x",
        "OPENBLAS_NUM_THREADS": "3",
    }
    assert judge_environment(environ, {}).inherited == ()


def test_all_at_once() -> None:
    """Each variable is judged for itself, in an order that does not depend on the environment's."""
    environ = {
        "OMP_NUM_THREADS": "2",
        "OMP_DYNAMIC": "true",
        "KMP_AFFINITY": "compact",
        "OMP_PROC_BIND": "false",
        "OMP_PLACES": "threads",
        "GOMP_CPU_AFFINITY": "0 1",
    }
    settings = judge_environment(environ, {"threads": "--threads is given"})
    actions = [(i.name, i.action) for i in settings.inherited]
    assert actions == [
        ("GOMP_CPU_AFFINITY", "removed"),
        ("KMP_AFFINITY", "removed"),
        ("OMP_PLACES", "respected"),
        ("OMP_PROC_BIND", "overridden"),
        ("OMP_NUM_THREADS", "overridden"),
        ("OMP_DYNAMIC", "removed"),
    ]
    assert (settings.places, settings.proc_bind, settings.threads) == ("threads", None, None)
    turned = dict(reversed(environ.items()))
    assert judge_environment(turned, {"threads": "--threads is given"}) == settings


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("close", "close"),
        (" Spread ", "spread"),
        ("primary", "primary"),
        ("master", "master"),
        ("true", "true"),
        ("spread,close", "spread,close"),
        ("false", None),
        ("true,close", None),
        ("close,true", None),
        ("close,,spread", None),
        (",", None),
        ("", None),
        ("close spread", None),
        ("clo\0se", None),
    ],
)
def test_parse_proc_bind(text: str, meaning: str | None) -> None:
    """The standard's words and lists of them by nesting level; anything else is no binding."""
    assert parse_proc_bind(text) == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1", "1"),
        (" 16 ", "16"),
        ("4,2,1", "4,2,1"),
        ("4, 2", "4,2"),
        ("0", None),
        ("4,0", None),
        ("-4", None),
        ("+4", None),
        ("", None),
        (",", None),
        ("4.0", None),
        ("1e3", None),
        ("٤", None),  # a digit, but not ASCII
        ("²", None),
        ("99999", "99999"),
        ("100000", None),
        ("99999999999999999999", None),
    ],
)
def test_parse_threads(text: str, meaning: str | None) -> None:
    """Whole numbers from 1, and lists of them by nesting level."""
    assert parse_threads(text) == meaning


@given(st.text(max_size=12))
def test_any_text_is_judged(text: str) -> None:
    """No value makes judging fail, and what is respected is a single printable word or list."""
    names = ("OMP_PLACES", "OMP_PROC_BIND", "OMP_NUM_THREADS", "OMP_DYNAMIC", *REMOVED)
    settings = judge_environment(dict.fromkeys(names, text), {})
    assert {i.name for i in settings.inherited} == set(names)
    for meaning in (settings.places, settings.proc_bind, settings.threads):
        assert meaning is None or meaning.isprintable()


def test_make_environment() -> None:
    """Places are written as explicit numbers: `{0-3}` would not be a place of four cpus."""
    places = [CpuSet([0, 16]), CpuSet([1]), CpuSet(range(4, 8))]
    assert make_environment(places, "spread", "3,2") == (
        ("OMP_NUM_THREADS", "3,2"),
        ("OMP_PLACES", "{0,16},{1},{4,5,6,7}"),
        ("OMP_PROC_BIND", "spread"),
    )


def test_every_runtime_understands_primary() -> None:
    """`primary` is written by the name that older runtimes know as well, alone and in a list."""
    places = [CpuSet([0])]
    assert dict(make_environment(places, "primary", "1"))["OMP_PROC_BIND"] == "master"
    assert dict(make_environment(places, "spread,primary", "1"))["OMP_PROC_BIND"] == "spread,master"


@pytest.mark.parametrize(
    ("threads", "cores", "said"),
    [("2", 2, None), ("3", 2, "FALSE"), ("4,1", 2, "FALSE"), ("2,9", 2, None), ("9", None, None)],
)
def test_mkl_makes_as_many_threads(threads: str, cores: int | None, said: str | None) -> None:
    """More threads than cores are announced to MKL, which else makes one for each core."""
    env = dict(make_environment([CpuSet([0, 1])], "close", threads, cores))
    assert env.get("MKL_DYNAMIC") == said


@pytest.mark.parametrize(
    ("kind", "runtimes", "runtime", "places"),
    [
        ("python", [], None, "one"),
        ("python", ["libiomp5"], None, "one"),
        ("python", [], "libgomp", "one"),
        ("compiled", ["libgomp"], None, "cores"),
        ("compiled", ["libomp"], None, "cores"),
        ("compiled", ["libgomp", "libomp"], None, "one"),
        ("compiled", ["libgomp", "libgomp"], None, "one"),
        ("compiled", [], None, "one"),
        ("compiled", [], "libomp", "cores"),
        ("compiled", ["libgomp"], "none", "one"),
        ("wrapper", ["libomp"], None, "one"),
        ("wrapper", ["libgomp", "libomp"], None, "one"),
        ("wrapper", ["libomp"], "libomp", "cores"),
        ("unknown", [], None, "one"),
        ("unknown", [], "libomp", "cores"),
        ("unknown", [], "none", "one"),
    ],
)
def test_what_a_place_is(kind: str, runtimes: list[str], runtime: str | None, places: str) -> None:
    """A place for each core where the worker surely is a program with one OpenMP runtime and no
    Python; else nothing is to be caught on one cpu."""
    what, why = choose_places(kind, runtimes, "worker", runtime)
    assert what == places
    assert all(r in why for r in (runtimes if runtime is None and kind != "python" else ()))
