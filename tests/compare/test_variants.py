"""Variants: the grid, variants by hand, what is left out, and what comes out the same."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.compare.variants import (
    UNBOUND,
    Variant,
    Wish,
    find_option,
    make_ablation,
    make_grid,
    make_variants,
    parse_variant,
    parse_vary,
    plan_rows,
    write_words,
)
from ompbind.errors import OmpbindError, UsageError
from ompbind.options import parse_arguments

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plans are for Linux")
ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
ENVIRON = {"PATH": "/usr/bin:/bin", "OMPBIND_NEIGHBOURS": "no"}


def variants_of(
    *vary: str, common: str = "", by_hand: tuple[str, ...] = (), unbound: bool = True
) -> tuple[list[Variant], dict[str, str]]:
    """The variants, and the reasons of those left out by name."""
    texts, _ = parse_arguments(common.split(), list(plan_rows().values()))
    wishes = [*make_grid(vary), *map(parse_variant, by_hand)]
    variants, omitted = make_variants(wishes, texts, ["true"], ENVIRON, unbound=unbound)
    return variants, {o.name: o.why for o in omitted}


def test_grid_is_the_product() -> None:
    """Every combination of the values has its name, in the order in which they were given."""
    names = [wish.name for wish in make_grid(["places=one,cores", "proc-bind=close,false"])]
    assert names == [
        "places=one proc-bind=close", "places=one proc-bind=false",
        "places=cores proc-bind=close", "places=cores proc-bind=false",
    ]  # fmt: skip
    assert make_grid([]) == [Wish("bound")]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("smt=1,all", ["1", "all"]),
        ("--smt=1,all", ["1", "all"]),
        ("n=1,2", ["1", "2"]),
        ("share", [True, None]),
        ("rank-env=yes,no,default", [True, False, None]),
        ("numa-bind-nodes=0 0;0", [["0", "0"], ["0"]]),
        ("exclude=0,1;default", ["0,1", None]),
        ("env=A=1;A=2", [["A=1"], ["A=2"]]),
    ],
)
def test_values_are_read_as_typed(text: str, values: list[object]) -> None:
    """A value is what the option would have been given; ; divides where values have commas."""
    assert [value for _, value, _ in parse_vary(text)] == values


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("smt", "--vary 'smt' names no values", "--vary smt=VALUE,VALUE"),
        ("smt=", "--vary 'smt=': a value is empty or given twice", ""),
        ("smt=1,1", "--vary 'smt=1,1': a value is empty or given twice", ""),
        ("smt=0", "--vary smt: '0' is neither all nor a whole number from 1 to 65535",
         "1 uses one hardware thread of each core, all uses every one"),
        ("plces=one", "--vary: 'plces' is not a plan option", "did you mean places?"),
        ("runs=1,2", "--vary: 'runs' is not a plan option",
         "--vary takes plan options: --vary smt=1,all"),
        ("share=maybe", "--vary share: 'maybe' is neither yes nor no", ""),
        ("mem=some", "--vary mem: 'some' is not one of bind, preferred, interleave, "
         "weighted-interleave, local, none",
         None),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(text: str, message: str, hint: str | None) -> None:
    """What cannot be typed cannot be varied: the error names the value and what is possible."""
    with pytest.raises(OmpbindError) as e:
        parse_vary(text)
    assert e.value.message == message
    assert hint is None or e.value.hint == hint


def test_an_option_varies_once() -> None:
    """Two --vary of one option, by whatever names, are refused."""
    with pytest.raises(UsageError, match="ranks is given twice"):
        make_grid(["n=1", "ranks=2"])


@pytest.mark.parametrize("text", ["near", ": --smt 1", "a: --smt 'x", "a: ./cmd", "a: --runs 3"])
def test_wrong_variants_are_refused(text: str) -> None:
    """A variant is a name, a colon and plan options."""
    with pytest.raises(UsageError):
        parse_variant(text)


def test_contradictions_leave_the_grid() -> None:
    """What options exclude or the machine has not is left out with its reason; the rest stays."""
    variants, omitted = variants_of(f"n=1,{ALLOWED + 1}", "balance=equal,default")
    names = [v.name for v in variants]
    assert names[:2] == [UNBOUND, "ranks=1 balance=equal"]
    assert set(omitted) == {f"ranks={ALLOWED + 1} balance={b}" for b in ("equal", "default")}
    assert all("usable core" in why for why in omitted.values())


def test_nothing_left_is_an_error() -> None:
    """Where no combination is possible, the first reason is the error."""
    with pytest.raises(OmpbindError, match="usable core"):
        variants_of(f"n={ALLOWED + 1},{ALLOWED + 2}")


def test_by_hand_must_be_possible() -> None:
    """A variant by hand that cannot be is an error that names it, not one left out."""
    with pytest.raises(OmpbindError, match=r"^variant 'many': .*usable core"):
        variants_of(by_hand=(f"many: -n {ALLOWED + 1}",))
    with pytest.raises(UsageError, match="two variants are called 'unbound'"):
        variants_of(by_hand=("unbound: --smt 1",))


def test_same_plans_are_one() -> None:
    """Variants whose ranks are started alike are one, which names the others."""
    variants, _ = variants_of("places=one,default", by_hand=("again: --places one",))
    first = next(v for v in variants if v.name == "places=one")
    assert "again" in first.same
    assert len(variants) == 3 - ("places=default" in first.same)


def test_common_options_hold_for_all() -> None:
    """A variant changes the common options; `default` leaves one out."""
    variants, _ = variants_of(
        "threads=4,default", common="--places one --threads 5", by_hand=("x: --threads 3",)
    )
    words = {v.name: " ".join(v.options) for v in variants}
    assert words["threads=4"] == "--places one --threads 4"
    assert words["threads=default"] == "--places one"
    assert words["x"] == "--places one --threads 3"


def test_numactl_is_not_measured() -> None:
    """Plans bind natively, whatever is installed, unless a binder is asked for."""
    variants, _ = variants_of("places=one")
    assert variants[1].plan.binder in ("native", "none")
    asked, _ = variants_of(common="--binder native --places one", unbound=False)
    assert asked[0].plan.ranks == variants[1].plan.ranks


def test_unbound_binds_nothing() -> None:
    """The reference has no cpus, no memory policy and no OpenMP variables, but the variables that
    the user gives, and as many ranks as the common options ask for."""
    variants, _ = variants_of("places=one", common="--oversubscribe -n 2 --env A=1")
    unbound = variants[0]
    assert (unbound.name, unbound.is_bound, unbound.options) == (UNBOUND, False, ())
    assert [r.argv for r in unbound.plan.ranks] == [("true",), ("true",)]
    for number, rank in enumerate(unbound.plan.ranks):
        env = dict(rank.env)
        assert not rank.cpus
        assert rank.mem == "none"
        assert not [n for n in env if n.startswith(("OMP_", "KMP_", "GOMP_", "OMPBIND_CPUS"))]
        assert (env["A"], env["RANK"], env["WORLD_SIZE"]) == ("1", str(number), "2")
    assert not variants_of(unbound=False)[0][0].options


def test_ablation_leaves_one_out() -> None:
    """The best comes first, then the best without each of its options."""
    variants, _ = variants_of(common="--places one --threads 3 --env A=1 --env B=2")
    wishes, common = make_ablation(variants[1])
    assert [w.name for w in wishes] == [
        "bound", "without --places one", "without --threads 3", "without --env A=1 --env B=2",
    ]  # fmt: skip
    made, _ = make_variants(wishes, common, ["true"], ENVIRON, unbound=False)
    assert {" ".join(v.options) for v in made} >= {
        "--places one --threads 3 --env A=1 --env B=2",
        "--places one --env A=1 --env B=2",
        "--places one --threads 3",
    }


VALUES = {"flag": [], "value": ["1"], "list": ["0", "1"], "optional": []}


@given(st.lists(st.sampled_from(sorted(plan_rows())), unique=True, max_size=4))
def test_words_are_read_back(keys: list[str]) -> None:
    """Options are written so that the parser reads the same from them."""
    rows = plan_rows()
    words = [w for key in keys for w in (rows[key].names[0],
             *(rows[key].choices[:1] or VALUES[rows[key].kind]))]  # fmt: skip
    texts, rest = parse_arguments(words, list(rows.values()))
    assert rest == []
    assert parse_arguments(write_words(texts), list(rows.values())) == (texts, [])


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever is typed for --vary and --variant is read or refused with an error of ours."""
    for parse in (parse_vary, parse_variant, find_option):
        try:
            parse(text)
        except OmpbindError as e:
            assert "\n" not in e.message
