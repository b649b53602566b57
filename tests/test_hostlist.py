"""Lists of hosts: Slurm's notation both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.errors import ParseError
from ompbind.hostlist import LIMIT, first_host, format_hostlist, parse_hostlist

names = st.from_regex(r"[a-z_][a-z0-9._-]{0,8}", fullmatch=True)
numbers = st.from_regex(r"[0-9]{1,4}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", "n1"), ("login", "login"), ("a.b.example.org,c", "a.b.example.org c"),
        ("n[1-3]", "n1 n2 n3"), ("n[001-003,17]", "n001 n002 n003 n17"), ("n[8-10]", "n8 n9 n10"),
        ("n[08-10]", "n08 n09 n10"), ("n[99-101]", "n99 n100 n101"), ("n[5]", "n5"),
        ("n[098-102]", "n098 n099 n100 n101 n102"), ("n[2,1,2]", "n2 n1 n2"),
        ("n[1-2]-ib0,x", "n1-ib0 n2-ib0 x"),
        ("[1-2]", "1 2"), ("10.0.0.[1-2]", "10.0.0.1 10.0.0.2"),
        ("r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02"), ("b,a,b", "b a b"), (" a , b\n", "a b"),
        ("n1-3", "n1-3"),
    ],
)  # fmt: skip
def test_lists(text: str, hosts: str) -> None:
    """Ranges keep the padding of their first number, and hosts the order they are written in."""
    assert parse_hostlist(text) == tuple(hosts.split())
    assert first_host(text) == hosts.split(maxsplit=1)[0]


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a,", ",a", "a,,b", "n[", "n]", "n[1", "n1]", "n[]", "n[1-]", "n[-1]", "n[a]",
        "n[1-2-3]", "n[[1]]", "n[3-1]", "n[1-010]", "n[1,]", "a b", "a/b", "..", ".", "-n", "n;m",
        "$(x)", "é", "n[١]", "n\0", "a\nb", "n[0-999999999]", f"n[1-{LIMIT}],m", "n" * 254,
        "n[1-2]" * 20, "n[" + "9" * 19 + "]", "r[1-9999]n[1-9999]",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    """What is no list of hosts is refused in one short line; a host's name is safe as a file's."""
    with pytest.raises(ParseError) as caught:
        parse_hostlist(text)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 250


@given(st.lists(names | st.builds("{}{}".format, names, numbers), min_size=1, max_size=20))
def test_a_list_is_read_as_it_was_written(hosts: list[str]) -> None:
    """Every sequence of hosts comes back from its notation, in its order."""
    text = format_hostlist(hosts)
    assert parse_hostlist(text) == tuple(hosts)
    assert first_host(text) == hosts[0]


@given(names, st.integers(0, 2000), st.integers(1, 300), st.integers(1, 5), names)
def test_a_range_is_one_range(prefix: str, first: int, count: int, width: int, suffix: str) -> None:
    """Hosts that are numbered consecutively are written as one range, whatever their padding."""
    prefix = prefix.rstrip("0123456789")
    suffix = "-" + "".join(c for c in suffix if not c.isdigit())
    hosts = [f"{prefix}{n:0{width}d}{suffix}" for n in range(first, first + count)]
    text = format_hostlist(hosts)
    assert text.count("-") == suffix.count("-") + prefix.count("-") + (count > 1)
    assert "," not in text
    assert parse_hostlist(text) == tuple(hosts)


@given(st.text(alphabet="n01[],-. a", max_size=20))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text makes the parser fail otherwise than with its error, and hosts are plain names."""
    try:
        hosts = parse_hostlist(text)
    except ParseError:
        return
    assert hosts
    assert all(h and h[0] in "n01a" and not set(h) & set("[], /") for h in hosts)
