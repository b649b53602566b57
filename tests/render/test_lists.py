"""Lists of cpus for people: the same set, shorter, broken only where a word ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.render.lists import list_pieces, short_list
from ompbind.render.text import plain

sets = st.frozensets(st.integers(0, 200), min_size=1)
strides = st.builds(
    lambda first, step, count: frozenset(range(first, first + step * count, step)),
    st.integers(0, 50), st.integers(1, 9), st.integers(1, 20),
)  # fmt: skip


@given(st.one_of(sets, strides, st.builds(frozenset.union, strides, strides)))
def test_a_short_list_is_the_same_set(numbers: frozenset[int]) -> None:
    """As an option reads it, and never longer than the kernel's."""
    text = short_list(CpuSet(numbers))
    assert set(CpuSet.parse_user(text)) == numbers
    assert len(text) <= len(str(CpuSet(numbers)))


def test_strides() -> None:
    """Where they are shorter; else the list is the kernel's."""
    for numbers, text in (
        ((), ""),
        ((0,), "0"),
        (range(0, 31, 2), "0-30:2"),
        ((*range(0, 64, 4), *range(1, 64, 4)), "0-60:4,1-61:4"),
        ((0, 2), "0,2"),
        ((0, 4, 8), "0,4,8"),
        ((0, 1, 2, 8, 9), "0-2,8-9"),
        ((*range(0, 40, 4), 100), "0-36:4,100"),
    ):
        assert short_list(CpuSet(numbers)) == text


@given(st.one_of(sets, strides), st.integers(12, 60))
def test_no_number_is_cut(numbers: frozenset[int], width: int) -> None:
    """In a narrow column: a list is broken after a comma at most."""
    text = short_list(CpuSet(numbers))
    lines = [plain(line) for line in list_pieces(text).draw(width)]
    assert "".join(lines) == text
    assert all(line.endswith(",") for line in lines[:-1])
    assert all(len(line) <= width for line in lines)
