"""Templates: what is filled, what stays, what is refused, and arithmetic as Python's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import ParseError
from ompbind.plans import Numbers
from ompbind.worker.template import MAX_DEPTH, MAX_RESULT, fill, fill_arguments, make_names

NAMES = make_names(Numbers(3, 8, 3, 8), CpuSet(range(4)), CpuSet([1]))


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{rank}", "3"),
        ("{ranks}-{local_rank}", "8-3"),
        ("--port={8000+rank}", "--port=8003"),
        ("{8000 + 10 * rank}", "8030"),
        ("{(rank+1)%ranks}", "4"),
        ("{rank//2}{rank%2}", "11"),
        ("{-rank//2}", "-2"),
        ("{2*-rank}", "-6"),
        ("{cpus} on {nodes}", "0-3 on 1"),
        ("{{rank}}", "{rank}"),
        ("{{{rank}}}", "{3}"),
        ('{{"port": {8000+rank}}}', '{"port": 8003}'),
        ("ünï{rank}\udc80", "ünï3\udc80"),
        ("{007}", "7"),
    ],
)
def test_fill(text: str, filled: str) -> None:
    """Expressions are replaced, doubled braces become single ones, all else stays."""
    assert fill(text, NAMES) == filled


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "unclosed {"),
        ("a}", "unmatched }"),
        ("{rank}}", "unmatched }"),
        ("{}", "'{}': empty expression"),
        ("{ }", "'{ }': incomplete expression"),
        ("{rank+}", "'{rank+}': incomplete expression"),
        ("{rank ranks}", "'{rank ranks}': unexpected 'ranks' after 'rank'"),
        ("{rank)}", "'{rank)}': unexpected ')' after 'rank'"),
        ("{(rank}", "'{(rank}': unclosed ("),
        ("{*rank}", "'{*rank}': unexpected '*'"),
        ("{rank/2}", "'{rank/2}': unexpected '/'"),
        ("{rank**2}", "'{rank**2}': unexpected '*'"),
        ("{rank!r}", "'{rank!r}': unexpected '!'"),
        ("{rank.real}", "'{rank.real}': unexpected '.'"),
        ("{{rank:02}", "unmatched }"),
        ("{rank:02}", "'{rank:02}': unexpected ':'"),
        ("{worker}", "'{worker}': unknown name 'worker'"),
        ("{__import__}", "'{__import__}': unknown name '__import__'"),
        ("{0x10}", "'{0x10}': '0x10' is not a whole number of at most 18 digits"),
        ("{1000000000000000000}",
         "'{1000000000000000000}': '1000000000000000000' is not a whole number of at most "
         "18 digits"),
        ("{٣}", "'{٣}': unexpected '٣'"),
        ("{cpus+1}", "'{cpus+1}': cpus is a text, '0-3', not a number"),
        ("{1//(rank-3)}", "'{1//(rank-3)}': division by zero"),
        ("{1%0}", "'{1%0}': division by zero"),
        ("{10*999999999999999999}",
         f"'{{10*999999999999999999}}': the result exceeds {MAX_RESULT}"),
        ('{"a": 1}', "'{\"a\": 1}': unexpected '\"'"),
        ("${HOME}", "'{HOME}': unknown name 'HOME'"),
    ],
)  # fmt: skip
def test_refused(text: str, problem: str) -> None:
    """What is no template says which part is at fault."""
    with pytest.raises(ParseError) as caught:
        fill(text, NAMES)
    assert caught.value.message == problem


def test_hint() -> None:
    """An unknown name is told the known ones, and how braces are written that are meant."""
    with pytest.raises(ParseError) as caught:
        fill("${HOME}", NAMES)
    assert caught.value.hint == (
        "rank, ranks, local_rank, cpus, nodes; write literal braces as {{ and }}"
    )


@pytest.mark.parametrize("nested", ["(" * 60 + "1" + ")" * 60, "-" * 60 + "1", "(" * 100_000])
def test_nested_too_deep(nested: str) -> None:
    """However deep it is nested, it is refused before Python's own stack is at its end."""
    with pytest.raises(ParseError, match="too many nested"):
        fill("{" + nested + "}", NAMES)


def test_deep_enough() -> None:
    """Chains are not nested: their length is no limit, and parentheses can be closed and opened."""
    assert fill("{" + "(" * MAX_DEPTH + "7" + ")" * MAX_DEPTH + "}", NAMES) == "7"
    assert fill("{0" + "+(1)-(-2)" * 1000 + "}", NAMES) == "3000"


def test_arguments() -> None:
    """Every argument is a template, the command too; the message tells which one is at fault."""
    words = ("./worker{rank}", "--out", "{{x}}", "{ranks}")
    assert fill_arguments(words, NAMES) == ("./worker3", "--out", "{x}", "8")
    with pytest.raises(ParseError) as caught:
        fill_arguments(["serve", "--json", '{"a": 1}'], NAMES)
    assert caught.value.message.startswith("--template: argument 2, '{\"a\": 1}': ")
    assert caught.value.hint.endswith("write literal braces as {{ and }}")
    with pytest.raises(ParseError) as caught:
        fill_arguments(["{x}"], NAMES)
    assert caught.value.message == "--template: the command, '{x}': '{x}': unknown name 'x'"


BLANKS = st.text(" \t", max_size=1)


def expressions() -> st.SearchStrategy[str]:
    """Expressions of numbers, names, signs and parentheses, in Python's syntax as well."""
    leaves = st.one_of(
        st.integers(0, 10**6).map(str),
        st.sampled_from(["rank", "ranks", "local_rank"]),
        st.integers(0, 10**18 - 1).map(str),
    )

    def wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        signs = st.sampled_from(["+", "-", "*", "//", "%"])
        return st.one_of(
            st.tuples(inner, BLANKS, signs, BLANKS, inner).map("".join),
            st.tuples(st.sampled_from("+-"), BLANKS, inner).map("".join),
            st.tuples(st.just("("), BLANKS, inner, BLANKS, st.just(")")).map("".join),
        )

    return st.recursive(leaves, wider, max_leaves=12)


@given(expressions(), st.integers(0, 300), st.integers(1, 300))
def test_arithmetic_is_pythons(expression: str, rank: int, count: int) -> None:
    """What an expression comes to is what Python makes of it, or it is refused: for a division by
    zero, for numbers that grow too large on the way, for depth."""
    names = make_names(Numbers(rank, count, rank, count), CpuSet([0]), CpuSet([0]))
    try:
        expected = eval(expression, {"__builtins__": {}}, dict(names))
    except ZeroDivisionError:
        with pytest.raises(ParseError):
            fill("{" + expression + "}", names)
        return
    try:
        filled = fill("{" + expression + "}", names)
    except ParseError as e:
        assert "the result exceeds" in e.message or "too many nested" in e.message
    else:
        assert filled == str(expected)


@given(st.text("{}rank0123456789+-*/%() \"'\\", max_size=30))
def test_any_text(text: str) -> None:
    """Any text is filled or refused, never anything else."""
    try:
        fill(text, NAMES)
    except ParseError as e:
        assert "\n" not in e.message


@given(st.text())
def test_doubled_braces(text: str) -> None:
    """A text with its braces doubled comes out as it was."""
    assert fill(text.replace("{", "{{").replace("}", "}}"), NAMES) == text
