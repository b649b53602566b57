"""The values of options about memory: nodes of several ranks, and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import ParseError, UsageError
from ompbind.options.keywords import make_values
from ompbind.options.values import parse_mem_nodes, parse_need, parse_nodes
from ompbind.planner.request import Need

NODES = "--numa-bind-nodes"
SETS = st.lists(st.sets(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=5)


@given(SETS)
def test_nodes_of_each_rank(sets: list[set[int]]) -> None:
    """Numbers with a plus are one rank's, in any order; with a comma or a blank they are of
    several."""
    words = ["+".join(map(str, nodes)) for nodes in sets]
    wanted = tuple(map(CpuSet, sets))
    assert parse_nodes(words, NODES) == parse_nodes([",".join(words)], NODES) == wanted
    assert tuple(parse_mem_nodes([str(CpuSet(s)) for s in sets], "--mem-nodes")) == wanted


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        ("0 0 1", "0 0 1"),
        ("0-2", "0 1 2"),
        ("0-1+4", "0-1,4"),
        ("0+1,2+3", "0-1 2-3"),
        ("4-5+0-1 2", "0-1,4-5 2"),
    ],
)
def test_ranges_of_nodes(words: str, nodes: str) -> None:
    """A range alone is a rank for each; with a plus it is a part of one rank's."""
    assert " ".join(map(str, parse_nodes(words.split(), NODES))) == nodes


@pytest.mark.parametrize("word", ["0+", "+1", "0++1", "0+x", "1+5-3"])
def test_nodes_that_are_none(word: str) -> None:
    """Each is named, with the rank."""
    with pytest.raises(ParseError, match=rf"^{NODES}, rank 1: "):
        parse_nodes(["0", word], NODES)


def test_memory_nodes() -> None:
    """A set for each rank, or `all`; what is none is named with its rank, if there are several."""
    assert parse_mem_nodes(["all", "0,2-3"], "--mem-nodes") == ("all", CpuSet([0, 2, 3]))
    with pytest.raises(ParseError, match=r"^--mem-nodes, rank 1: "):
        parse_mem_nodes(["0", "./worker"], "--mem-nodes")
    with pytest.raises(ParseError, match=r"^--mem-nodes: ") as caught:
        parse_mem_nodes(["./worker"], "--mem-nodes")
    assert "--" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "sets"),
    [([0, 2], "0,2"), (range(2), "0-1"), (CpuSet([3]), "3"), ("all", "all"), (3, "3"),
     (["0-1", "2"], "0-1 2"), ([[0, 4], [1]], "0,4 1"), (["all", CpuSet([1])], "all 1")],
)  # fmt: skip
def test_memory_nodes_as_a_keyword(value: object, sets: str) -> None:
    """A list of numbers is one set, for all ranks; a list of sets has one for each."""
    values = make_values("plan", {"mem_nodes": value, "mem": "bind"})
    assert " ".join(map(str, values["mem_nodes"])) == sets


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("40G", Need(40 << 30)), ("40g", Need(40 << 30)), ("1.5GiB", Need(3 << 29)),
        ("512M/rank", Need(512 << 20, per_rank=True)), ("1T", Need(1 << 40)),
        ("100KB", Need(100 << 10)), ("0.5K", Need(512)),
    ],
)  # fmt: skip
def test_sizes(text: str, need: Need) -> None:
    """Binary units, of all ranks together or of each."""
    assert parse_need(text, "--mem-need") == need
    assert [need.of_each(2), Need(3).of_each(2)] == [need.bytes // (1 if need.per_rank else 2), 2]


@given(st.text(max_size=8) | st.sampled_from(["40", "G", "-1G", "1.2.3G", "1G/node", "0G", "1e9G"]))
def test_anything_as_a_size(text: str) -> None:
    """It is a size, or an error that names it."""
    try:
        assert parse_need(text, "--mem-need").bytes > 0
    except UsageError as e:
        assert e.message.startswith("--mem-need: ")
        assert e.hint


@pytest.mark.parametrize(
    "text", ["40", "G", "-1G", "1.2.3G", "1G/node", "0G", "1e9G", "٣G", "1.٣G"]
)
def test_sizes_that_are_none(text: str) -> None:
    """Without a unit it could be bytes or megabytes; nothing is no need."""
    with pytest.raises(UsageError):
        parse_need(text, "--mem-need")
