"""Lists of places, read as the OpenMP standard and libgomp read them, and dealt out to ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import ParseError
from ompbind.openmp.places import MAX_PLACES, parse_places
from ompbind.planner import make_plan
from ompbind.plans import Plan
from tests.support.machines import MACHINES, make_asked
from tests.support.needs import unavailable


def read(text: str) -> list[str]:
    return [str(place) for place in parse_places(text)]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("{0},{1}", ["0", "1"]),
        ("{0,1},{2,3}", ["0-1", "2-3"]),
        (" { 0 , 1 } ,\t{ 2 } ", ["0-1", "2"]),
        ("{3,1}", ["1,3"]),
        ("{1},{0}", ["1", "0"]),
        ("{0:4}", ["0-3"]),
        ("{0:4:2}", ["0,2,4,6"]),
        ("{6:4:-2}", ["0,2,4,6"]),
        ("{0:2,8:2}", ["0-1,8-9"]),
        ("{0:4}:2:4", ["0-3", "4-7"]),
        ("{0:2:16}:4", ["0,16", "1,17", "2,18", "3,19"]),
        ("{4}:3:-2", ["4", "2", "0"]),
        ("{0}:1:0", ["0"]),
        ("{0},{2}:2:4,{9}", ["0", "2", "6", "9"]),
        # numbers alone are places of one cpu since version 5.1
        ("3", ["3"]),
        ("0:4", ["0", "1", "2", "3"]),
        ("8:2:-8,4", ["8", "0", "4"]),
        # what is excluded stands before it
        ("{0:8,!3}", ["0-2,4-7"]),
        ("{0,!0,1}", ["1"]),
        ("{0}:4,!{2}", ["0", "1", "3"]),
        ("{0:2}:3:2,!{2,3}", ["0-1", "4-5"]),
        ("0:4,!1", ["0", "2", "3"]),
        ("{0},!{0},{0}", ["0"]),
        ("{65535}", ["65535"]),
    ],
)
def test_a_list_of_places(text: str, places: list[str]) -> None:
    """Intervals, strides and exclusions, of numbers and of places."""
    assert read(text) == places


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a number expected at the end"),
        ("cores", "a number expected at 'cores'"),
        ("cores(4)", "a number expected at 'cores(4)'"),
        ("{}", "a number expected at '}'"),
        ("{0", "a comma or } expected at the end"),
        ("{0}}", "a comma or the end expected at '}'"),
        ("{0} {1}", "a comma or the end expected at '{1}'"),
        ("{0},", "a number expected at the end"),
        ("{0,,1}", "a number expected at ',1}'"),
        ("{0-3}", "a comma or } expected at '-3}'"),
        ("{0:}", "a number expected at '}'"),
        ("{0:0}", "a length of 0 is not from 1 to 8192"),
        ("{0:-1}", "a number expected at '-1}'"),
        ("{0}:9000", "a length of 9000 is not from 1 to 8192"),
        ("{0:4:2:1}", "a comma or } expected at ':1}'"),
        ("{0}:4:-1", "':4:-1' leads to numbers that are not from 0 to 65535"),
        ("{65000:600}", "':600' leads to numbers that are not from 0 to 65535"),
        ("{65536}", "65536 is too large: the highest number is 65535"),
        ("{0:8000},{8000:8000},{0},!{77}", "'!{77}' excludes nothing before it"),
        ("!{1},{1}", "'!{1}' excludes nothing before it"),
        ("{0,!0}", "nothing is left"),
        ("{0},!{0}", "nothing is left"),
        ("{0}:3:0", "cpu 0 is in two places"),
        ("{0,1},{1,2}", "cpu 1 is in two places"),
        ("{\u0663}", "a number expected at '\u0663}'"),
    ],
)
def test_no_list_of_places(text: str, problem: str) -> None:
    """The error names the part that is wrong."""
    with pytest.raises(ParseError) as e:
        parse_places(text)
    assert e.value.message.endswith(problem)
    assert e.value.message.startswith(repr(text)[:1])
    assert e.value.message.isprintable()


@given(st.text(alphabet="{}:,!- 0123456789a", max_size=24) | st.text(max_size=12))
def test_any_text_is_a_list_or_an_error(text: str) -> None:
    """Never anything else; the places are disjoint, none is empty."""
    try:
        places = parse_places(text)
    except ParseError as e:
        assert e.message.isprintable()  # whichever it is
        return
    assert 0 < len(places) <= MAX_PLACES
    assert all(places)
    assert sum(map(len, places)) == len(CpuSet(n for place in places for n in place))


@given(st.lists(st.sets(st.integers(0, 200), min_size=1), min_size=1, max_size=6), st.data())
def test_however_it_is_written(sets: list[set[int]], data: st.DataObject) -> None:
    """Places written with intervals, blanks and exclusions are the same places."""
    taken: set[int] = set()
    wanted = []
    for numbers in sets:
        if own := numbers - taken:
            wanted.append(own)
            taken |= own
    blank = st.sampled_from(["", "", " ", "\t"])

    def spaced(*parts: str) -> str:
        return "".join(f"{data.draw(blank)}{part}{data.draw(blank)}" for part in parts)

    texts = []
    for own in wanted:
        parts, left = [], sorted(own)
        while left:
            step = data.draw(st.integers(1, 3))
            run = [left[0]]
            while run[-1] + step in left and data.draw(st.booleans()):
                run.append(run[-1] + step)
            left = [n for n in left if n not in run]
            backwards = data.draw(st.booleans())
            first = run[-1] if backwards else run[0]
            text = str(first) if len(run) == 1 else f"{first}:{len(run)}"
            if len(run) > 1 and (step > 1 or backwards):
                text += f":{-step if backwards else step}"
            parts.append(spaced(text))
        if data.draw(st.booleans()):
            parts += [spaced("777"), spaced("!", "777")]
        texts.append(spaced("{", ",".join(parts), "}"))
        if data.draw(st.booleans()):
            texts += [spaced("{ 999 }"), spaced("!", "{999}")]
    assert parse_places(",".join(texts)) == tuple(map(CpuSet, wanted))


PROGRAM = """
#include <omp.h>
#include <stdio.h>
int main(void) {
    for (int place = 0; place < omp_get_num_places(); place++) {
        int count = omp_get_place_num_procs(place), cpus[1024];
        omp_get_place_proc_ids(place, cpus);
        for (int i = 0; i < count; i++) printf("%s%d", i ? "," : "", cpus[i]);
        printf(";");
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def places_of_libgomp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints its places."""
    folder = tmp_path_factory.mktemp("places")
    if not shutil.which("gcc"):
        unavailable("there is no gcc; `tools/setup-system test` installs it")
    (folder / "places.c").write_text(PROGRAM)
    subprocess.run(
        ["gcc", "-fopenmp", "-o", folder / "places", folder / "places.c"], check=True, timeout=120
    )
    return folder / "places"


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp has places on Linux only")
@pytest.mark.parametrize(
    "form",
    ["{A}:2:S", "A:2:S", "{B}:2:-S", "{A:2:S}", "{A,B,!B}", "{A},{B},!{B}", "{A}:2:S,!{A}",
     "{A,!A,B}", " { A } , { B } ", "{B},{A}"],
)  # fmt: skip
def test_libgomp_reads_the_same(
    form: str, places_of_libgomp: Path, plain_environ: dict[str, str]
) -> None:
    """What a runtime makes of it, on two of the cpus here."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        unavailable("two cpus are needed")
    numbers = {"A": str(cpus[0]), "B": str(cpus[1]), "S": str(cpus[1] - cpus[0])}
    text = "".join(numbers.get(c, c) for c in form)
    done = subprocess.run(
        [places_of_libgomp], env=plain_environ | {"OMP_PLACES": text},
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    printed = tuple(CpuSet.parse_user(p) for p in done.stdout.rstrip(";").split(";"))
    assert parse_places(text) == printed


# --- dealt out --------------------------------------------------------------------------------


def planned(args: str, places: str, machine: str = "server", **environ: str) -> Plan:
    request = make_asked(args.split(), environ={"OMP_PLACES": places, **environ})
    return make_plan(MACHINES[machine], request)


@pytest.mark.parametrize(
    ("args", "places", "ranks"),
    [
        ("", "{0},{1},{2},{3}", ["0 1 2 3"]),
        ("-n 2", "{0},{1},{2},{3}", ["0 1", "2 3"]),
        ("-n 3", "{0},{1},{2},{3}", ["0 1", "2", "3"]),
        ("-n 2", "{0:4}:2:4", ["0-3", "4-7"]),
        ("-n 2", "{0,16},{1,17},{8,24},{9,25}", ["0,16 1,17", "8,24 9,25"]),
        ("-n 2", "{3}:4:-1", ["3 2", "1 0"]),
        ("-n 2 --share", "{0},{1}", ["0 1", "0 1"]),
        ("-n 4 --proc-bind spread --threads 2", "{0}:8", ["0 1", "2 3", "4 5", "6 7"]),
    ],
)
def test_a_users_own_list_is_dealt_out(args: str, places: str, ranks: list[str]) -> None:
    """Consecutive places to each rank, in the user's order, and nothing beside them."""
    plan = planned(args, places)
    assert [" ".join(map(str, r.places)) for r in plan.ranks] == ranks
    for rank in plan.ranks:
        assert rank.cpus == CpuSet(n for place in rank.places for n in place)
        assert parse_places(dict(rank.env)["OMP_PLACES"]) == rank.places
        assert rank.why.endswith("of OMP_PLACES")
    (variable,) = (i for i in plan.inherited if i.name == "OMP_PLACES")
    assert (variable.value, variable.action) == (places, "respected")
    shared = ["ranks 0-1 share 2 cpus" in text for text in plan.warnings]
    assert shared == [True] * ("--share" in args)


def test_threads_of_a_list() -> None:
    """One for each place inside a core, one for each cpu where any place is larger."""
    for places, threads in (("{0},{1}", "2"), ("{0,16},{1,17}", "2"), ("{0:4},{4}", "5")):
        assert dict(planned("", places).ranks[0].env)["OMP_NUM_THREADS"] == threads
    few = planned("", "{0},{1}", OMP_NUM_THREADS="1")
    assert dict(few.ranks[0].env)["OMP_NUM_THREADS"] == "1"


def test_threads_of_one_core_in_two_ranks_are_warned_of() -> None:
    """The user's list may do that; it is not kept quiet."""
    plan = planned("-n 2", "{0},{16}")
    assert plan.warnings == (
        "ranks 0 and 1 have hardware threads of one core (slower: give each whole cores)",
    )


@pytest.mark.parametrize(
    ("args", "places", "why"),
    [
        ("-n 2", "{0},{99}", "cpu 99 of it may not be used here"),
        ("-n 2", "{0},{90}:3", "cpus 90-92 of it may not be used here"),
        ("-n 3", "{0},{1}", "it has 2 places for 3 ranks"),
        (
            "-n 2",
            "{0,1},{1,2}",
            "it is not a list of places: '{0,1},{1,2}': cpu 1 is in two places",
        ),
        ("-n 2", "{0-3}", "it is not a list of places: '{0-3}': a comma or } expected at '-3}'"),
        ("-n 2 --places cores", "{0},{1}", "--places is given"),
        ("--numa-bind-nodes 0 1", "{0},{1}", "--numa-bind-nodes is given"),
        ("--numa-bind-cpus 0 1", "{0},{1}", "--numa-bind-cpus is given"),
        ("--per numa", "{0},{1}", "--per is given"),
        ("-n 2 --reserve 1", "{0},{1}", "--reserve is given"),
        ("-n 2 --part 1/2", "{0},{1}", "--part is given"),
        ("-n 2 --smt 2", "{0},{1}", "--smt is given"),
        ("-n 2", "sockets", "the plan gives each rank its own places"),
    ],
)
def test_a_list_that_cannot_be_dealt_out(args: str, places: str, why: str) -> None:
    """It is overridden, the plan is as without it, with the reason."""
    plan = planned(args, places)
    (variable,) = (i for i in plan.inherited if i.name == "OMP_PLACES")
    assert (variable.action, variable.why) == ("overridden", why)
    without = make_plan(MACHINES["server"], make_asked(args.split()))
    assert [r.cpus for r in plan.ranks] == [r.cpus for r in without.ranks]
    assert [r.places for r in plan.ranks] == [r.places for r in without.ranks]


def test_a_list_is_run_as_dealt(
    ompbind: str, places_of_libgomp: Path, plain_environ: dict[str, str]
) -> None:
    """Two ranks of a real program, each with its part and nothing else."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        unavailable("two cpus are needed")
    done = subprocess.run(
        [ompbind, "run", "-n", "2", "--binder", "native", "--output", "inherit", "--",
         places_of_libgomp],
        env=plain_environ | {"OMP_PLACES": f"{{{cpus[1]}}},{{{cpus[0]}}}"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert sorted(done.stdout.rstrip(";").split(";")) == [str(cpu) for cpu in cpus]
    assert "respected (ompbind show tells why)" in done.stderr
