"""Sets of cpus and their notations: what the kernel writes, what users type, masks."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import LIMIT, CpuSet, label_numbers, parse_range, union
from ompbind.errors import ParseError

numbers = st.sets(st.integers(0, 300) | st.integers(0, LIMIT - 1), max_size=40)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", []), ("\n", []), (" \t\n", []), ("\0\0", []), ("0", [0]), ("0-3,8\n", [0, 1, 2, 3, 8]),
        ("3\0\0", [3]), ("7,1", [1, 7]), ("1-2,2-3", [1, 2, 3]), ("00", [0]), ("5-5", [5]),
        ("0-6:2", [0, 2, 4, 6]), (str(LIMIT - 1), [LIMIT - 1]),
    ],
)  # fmt: skip
def test_kernel(text: str, cpus: list[int]) -> None:
    """What the kernel writes: an empty list is the empty set, NUL bytes and newlines end it."""
    assert list(CpuSet.parse_kernel(text)) == cpus


REFUSED = [
    "5-3", "0-", "-", "-1", "a", "0-a", "0--3", "1-2-3", "99999999999999999999", str(LIMIT),
    "0,,1", ",", "0,", "٣", "１", "²", "0x1", "1_0", "+1", "1.0", "1e3", "0;1", "0 1", "0-3:0",
    "0-3:", "0-3:-1", "3:1", "0-3:2:1", ":", "$(id)", "0\n1", "0\0001", "all", "!0",
    "0-" + "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("parse", [CpuSet.parse_kernel, CpuSet.parse_user])
def test_refused(parse: object, text: str) -> None:
    """Neither the kernel nor a user may write these; the error is one short line that shows it."""
    assert callable(parse)
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 250
    assert caught.value.data["text"] == text


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3,8", [0, 1, 2, 3, 8]), (" 0 , 2 ", [0, 2]), ("0-6:2", [0, 2, 4, 6]),
        ("0-7:4,1", [0, 1, 4]), ("007", [7]), ("3,1,3", [1, 3]), ("\t4\n", [4]),
    ],
)  # fmt: skip
def test_user(text: str, cpus: list[int]) -> None:
    """What users type: blanks around commas, and steps."""
    assert list(CpuSet.parse_user(text)) == cpus


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_user_empty(text: str) -> None:
    """An empty list that somebody typed is a mistake, most often a variable that is not set."""
    with pytest.raises(ParseError, match="an empty list") as caught:
        CpuSet.parse_user(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5-3", "'5-3' is a descending range"),
        ("0,5-3", "'5-3' in '0,5-3' is a descending range"),
        ("0-", "'0-' is not a number or a range"),
        ("a", "'a' is not a number or a range"),
        ("-1", "'-1' is not a number or a range"),
        ("0,,1", "an empty part in '0,,1' is not a number or a range"),
        (
            "99999999999999999999",
            f"'99999999999999999999' is too large: the highest number is {LIMIT - 1}",
        ),
        ("3:1", "'3:1' is not a range with a step"),
    ],
)
def test_messages(text: str, message: str) -> None:
    """The message names the part that is wrong, and the whole where it is longer."""
    with pytest.raises(ParseError) as caught:
        CpuSet.parse_user(text)
    assert caught.value.message == message
    assert caught.value.hint


def test_hint_turns_a_range_round() -> None:
    """For a descending range the hint is the one meant."""
    with pytest.raises(ParseError) as caught:
        CpuSet.parse_user("5-3")
    assert caught.value.hint == "write 3-5"


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", []), ("", []), ("\n", []), ("f", [0, 1, 2, 3]), ("ff,00000001", [0, *range(32, 40)]),
        ("00000000,00000003\n", [0, 1]), ("3\0\0", [0, 1]), ("0000,80000000", [31]),
        ("F", [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_mask(text: str, cpus: list[int]) -> None:
    """Masks are hexadecimal words of 32 bits, the lowest last."""
    assert list(CpuSet.parse_mask(text)) == cpus


@pytest.mark.parametrize(
    "text",
    ["g", "0x3", "-1", "+1", "1_1", "123456789", ",", "1,", ",1", "1 1", "٣", "é", "(null)", "0-3"],
)
def test_mask_refused(text: str) -> None:
    """Whatever is no mask is an error, not an empty set and not cpu 0."""
    with pytest.raises(ParseError):
        CpuSet.parse_mask(text)


def test_huge_masks_end() -> None:
    """A mask beyond all bounds is refused without being built."""
    with pytest.raises(ParseError):
        CpuSet.parse_mask("ffffffff," * 100_000 + "ffffffff")


@given(numbers)
def test_list_there_and_back(cpus: set[int]) -> None:
    """What is written as a list is read as the same set, by both parsers."""
    text = str(CpuSet(cpus))
    assert set(CpuSet.parse_kernel(text)) == cpus
    assert not cpus or CpuSet.parse_user(text) == CpuSet(cpus)


@given(numbers)
def test_list_is_canonical(cpus: set[int]) -> None:
    """A list is sorted, ranges are joined, and one set has one text."""
    text = str(CpuSet(cpus))
    ends = [int(n) for part in text.split(",") if text for n in part.split("-")]
    assert ends == sorted(set(ends))
    assert all(b - a > 1 for a, b in pairs_between(text))


def pairs_between(text: str) -> list[tuple[int, int]]:
    """The end of each range with the start of the next."""
    spans = [[int(n) for n in part.split("-")] for part in text.split(",") if part]
    return [(a[-1], b[0]) for a, b in zip(spans, spans[1:], strict=False)]


@given(numbers)
def test_mask_there_and_back(cpus: set[int]) -> None:
    """What is written as a mask is read as the same set."""
    mask = sum(1 << c for c in cpus)
    words = [f"{mask >> 32 * i & 0xFFFFFFFF:08x}" for i in range((mask.bit_length() + 31) // 32)]
    assert set(CpuSet.parse_mask(",".join(reversed(words)))) == cpus
    assert CpuSet.from_mask(mask).mask == mask


@given(st.text(max_size=30) | st.text("0123456789-,: ", max_size=12))
def test_any_text(text: str) -> None:
    """Any text is a set or a ParseError, and a set is what str() writes."""
    for parse in (CpuSet.parse_kernel, CpuSet.parse_user, CpuSet.parse_mask):
        try:
            cpus = parse(text)
        except ParseError:
            continue
        assert CpuSet.parse_kernel(str(cpus)) == cpus


@given(numbers, numbers)
def test_like_a_set(a: set[int], b: set[int]) -> None:
    """The operators mean what they mean on Python's sets."""
    x, y = CpuSet(a), CpuSet(b)
    assert (set(x | y), set(x & y), set(x - y), x <= y) == (a | b, a & b, a - b, a <= b)
    assert (x == y, len(x), bool(x)) == (a == b, len(a), bool(a))
    assert list(x) == sorted(a)
    assert union([x, y]) == x | y
    assert x != y or hash(x) == hash(y)
    assert pickle.loads(pickle.dumps(x)) == x
    assert not a or x.first == min(a)
    assert all(n in x for n in a)


def test_frozen() -> None:
    """A set does not change, and holds numbers from 0 to its limit only."""
    cpus = CpuSet((1, 2))
    with pytest.raises(AttributeError):
        cpus._mask = 3
    for wrong in (-1, LIMIT):
        with pytest.raises(ParseError):
            CpuSet((wrong,))
    with pytest.raises(ParseError):
        CpuSet.from_mask(-1)
    with pytest.raises(IndexError):
        _ = CpuSet().first
    assert -1 not in cpus
    assert "1" not in cpus
    assert repr(cpus) == "CpuSet('1-2')"
    assert cpus != {1, 2}


def test_range() -> None:
    """A range is its first, last and step."""
    assert parse_range("7") == (7, 7, 1)
    assert parse_range("0-6:2") == (0, 6, 2)


@given(numbers)
def test_numbers_of_ranks(ranks: set[int]) -> None:
    """Ranks are written as a set of cpus is, and a job may have more of them than that holds."""
    assert label_numbers("rank", ranks).split(" ")[1] == str(CpuSet(ranks))
    assert label_numbers("rank", [LIMIT + 1, 3, LIMIT]) == f"ranks 3,{LIMIT}-{LIMIT + 1}"
    assert label_numbers("worker", [7]) == "worker 7"
