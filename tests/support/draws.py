"""What machines and requests are drawn with, dozens of times each. A strategy is made once: to make
one takes several times as long as to draw from it. A set or an order is one draw of bytes, not two
or three draws for each member."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache, lru_cache
from typing import TypeVar

from hypothesis import strategies as st

Value = TypeVar("Value", bound=Hashable)
Thing = TypeVar("Thing")


@lru_cache(None, typed=True)  # 1 is not True
def one_of(*values: Value) -> st.SearchStrategy[Value]:
    """One of the values, the simplest first; one that is there twice comes twice as often."""
    return st.sampled_from(values)


@cache
def numbers(least: int, most: int) -> st.SearchStrategy[int]:
    return st.integers(least, most)


@cache
def maybe(most: int, *others: Value) -> st.SearchStrategy[int | Value]:
    """One of the others, each as often as all the numbers from 1 on together."""
    return one_of(*(other for other in others for _ in range(most)), *range(1, most + 1))


@cache
def some_bytes(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


def draw_some(draw: st.DrawFn, things: Sequence[Thing], *, least: int = 0) -> list[Thing]:
    """About a quarter, half or three quarters of the things, in their order; the first `least`
    where fewer were drawn."""
    size = (len(things) + 7) // 8
    data = draw(some_bytes(2 * size + 1))
    first, second = (int.from_bytes(data[at : at + size], "big") for at in (1, 1 + size))
    mask = (first & second, first, first | second)[data[0] % 3]
    picked = [thing for n, thing in enumerate(things) if mask >> n & 1]
    return picked if len(picked) >= least else list(things[:least])


def draw_few(draw: st.DrawFn, things: Sequence[Thing]) -> list[Thing]:
    """None of the things half of the time, otherwise mostly one to three of them, and now and then
    as many as `draw_some` draws; in their order."""
    count = draw(one_of(0, 0, 0, 0, 1, 2, 3, None))
    if count is None:
        return draw_some(draw, things)
    position = numbers(0, len(things) - 1)
    return [things[n] for n in sorted({draw(position) for _ in range(count)})]


def draw_order(draw: st.DrawFn, things: Sequence[Thing]) -> list[Thing]:
    """All the things, in any order."""
    ranks = draw(some_bytes(len(things)))
    return [things[n] for n in sorted(range(len(things)), key=lambda n: ranks[n])]
