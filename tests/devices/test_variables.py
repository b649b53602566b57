"""What CUDA_VISIBLE_DEVICES and its like leave visible: the vendors' documented cases, and torch's
own reading of them."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.devices.variables import Selection, pick_cuda, pick_hip, pick_level_zero, pick_rocr
from tests.support.needs import unavailable

UUIDS = ("GPU-8932f937-d72c-4106", "GPU-8932aaaa-0000-1111", "GPU-b5c92e4d-8a1f-6c3b")


def numbers(picked: Selection) -> list[int]:
    return [n for _, n in picked.entries]


# --- CUDA ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted", "problem"),
    [
        (None, [0, 1, 2], ""),
        ("", [], ""),  # the guide: no device is visible
        ("2,1", [2, 1], ""),  # the guide: device 0 is not visible, 2 comes before 1
        ("0,2,-1,1", [0, 2], ""),  # the guide's example
        ("-1", [], ""),
        ("NoDevFiles", [], "'NoDevFiles'"),  # what Slurm writes for no GPU
        (" 1 , 0 ", [1, 0], ""),
        ("1gpu,0", [1, 0], ""),  # read as strtol does
        ("0,", [0], ""),
        ("0,3,1", [0], "devices there: 0-2"),
        ("0,99999999999999999999", [0], "'99999999999999999999'"),
        ("0,0", [], "twice"),
        ("GPU-8932f", [0], ""),  # enough digits to tell it
        ("GPU-b5,GPU-8932f937-d72c-4106", [2, 0], ""),
        ("GPU-8932", [], "several GPUs begin with"),
        ("GPU-b5,GPU-77,GPU-8932f", [2], "no GPU has"),
        ("GPU-b5,0", [2], "'0'"),  # one kind only
        ("0,GPU-b5", [0], "'GPU-b5'"),
    ],
)
def test_cuda(text: str | None, wanted: list[int], problem: str) -> None:
    """The list ends before the first entry that names nothing; only an intended end is silent."""
    picked = pick_cuda(text, UUIDS)
    assert numbers(picked) == wanted
    assert problem in picked.problem
    assert bool(picked.problem) == bool(problem)


def test_cuda_parts() -> None:
    """MIG names are those of parts, whole or their beginning, in the order of the list."""
    parts = ("MIG-aaaa-1", "MIG-aaab-2", "MIG-cccc-3")
    assert pick_cuda("MIG-cc,MIG-aaab-2", UUIDS, parts).entries == (
        ("MIG-cc", 5),
        ("MIG-aaab-2", 4),
    )
    assert "several" in pick_cuda("MIG-aaa", UUIDS, parts).problem
    assert "'MIG-'" in pick_cuda("MIG-", UUIDS, parts).problem
    assert numbers(pick_cuda("MIG-cccc-3,GPU-b5", UUIDS, parts)) == [5]


@pytest.fixture(scope="module")
def torch_cuda() -> Any:
    try:
        from torch import cuda
    except ImportError:
        unavailable("torch is not installed: pip install --group torch")
    return cuda


WORDS = st.sampled_from(
    ["0", "1", "2", "3", "7", "-1", "-2", "", "x", "1gpu", "+2", " 0", "00", *UUIDS, "GPU-8",
     "GPU-8932f", "GPU-b", "GPU-7"]
)  # fmt: skip


@given(words=st.lists(WORDS, min_size=1, max_size=5), count=st.integers(0, 3))
def test_cuda_as_torch_reads_it(torch_cuda: Any, words: list[str], count: int) -> None:
    """torch, which counts devices by the same variable without starting CUDA, finds as many."""
    text = ",".join(words)
    uuids = list(UUIDS[:count])
    with mock.patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": text}):
        theirs = torch_cuda._parse_visible_devices()
    if theirs and isinstance(theirs[0], str):
        theirs = torch_cuda._transform_uuid_to_ordinals(theirs, uuids)
    in_range = next((n for n, number in enumerate(theirs) if number >= count), len(theirs))
    picked = pick_cuda(text, uuids)
    if picked.problem and "twice" not in picked.problem:  # torch lets a later repetition hide all
        assert theirs[:in_range] in ([], numbers(picked))
    else:
        assert numbers(picked) == theirs[:in_range]


# --- ROCm ----------------------------------------------------------------------------------------

AMD = ("GPU-4b2c1a9f8d3e6f7a", "GPU-4b2cffffffffffff", "", "GPU-deadbeefdeadbeef")


@pytest.mark.parametrize(
    ("text", "wanted", "problem"),
    [
        (None, [0, 1, 2, 3], ""),
        ("", [], ""),
        ("0,GPU-DEADBEEFDEADBEEF", [0, 3], ""),  # the documentation's example, kinds mixed
        ("gpu-deadbeef, 0x1", [3, 1], ""),
        ("GPU-4b2c", [], "several"),
        ("1,GPU-0123,0", [1], "no GPU has"),
        ("1,1,0", [1], "a second time"),
        ("2,9", [2], "devices there: 0-3"),
        ("2,-1,0", [2], ""),
        ("1x", [], "'1x'"),
    ],
)
def test_rocr(text: str | None, wanted: list[int], problem: str) -> None:
    """Numbers and beginnings of UUIDs mix; a repetition ends the list, as what names nothing."""
    picked = pick_rocr(text, AMD)
    assert numbers(picked) == wanted
    assert problem in picked.problem
    assert bool(picked.problem) == bool(problem)


@pytest.mark.parametrize(
    ("text", "wanted", "problem"),
    [
        (None, [0, 1, 2, 3], ""),
        ("", [0, 1, 2, 3], ""),  # HIP takes empty as not set, other than CUDA
        ("3,0", [3, 0], ""),
        ("-1", [], ""),
        ("1,1,0", [1, 0], ""),  # passed over
        ("0,01", [0], "'01'"),
        ("0, 1", [0], "' 1'"),
        ("0,GPU-deadbeefdeadbeef", [0, 3], ""),
        ("GPU-deadbeef", [], "no GPU has"),  # whole ones only
    ],
)
def test_hip(text: str | None, wanted: list[int], problem: str) -> None:
    """HIP's list is stricter in how a number is written, and milder with repetitions."""
    picked = pick_hip(text, AMD)
    assert numbers(picked) == wanted
    assert problem in picked.problem
    assert bool(picked.problem) == bool(problem)


# --- Level Zero ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "flat", "wanted", "problem"),
    [
        (None, True, [("0", 0), ("1", 0), ("2", 1), ("3", 1)], ""),  # tiles are devices
        (None, False, [("0", 0), ("1", 1)], ""),
        ("", True, [("0", 0), ("1", 0), ("2", 1), ("3", 1)], ""),
        ("3,1", True, [("1", 0), ("3", 1)], ""),  # a mask has no order of its own
        ("1", False, [("1", 1)], ""),
        ("1.0,0.1", False, [("0.1", 0), ("1.0", 1)], ""),
        ("1.2", False, [], "'1.2'"),
        ("0.1", True, [], "'0.1'"),
        ("4,0", True, [("0", 0)], "devices there: 0-3"),  # passed over, not the end
        ("x", False, [], "'x'"),
    ],
)
def test_level_zero(text: str | None, flat: bool, wanted: list[Any], problem: str) -> None:
    """Two GPUs of two tiles, as devices of their own or as parts of a GPU."""
    picked = pick_level_zero(text, [2, 2], flat=flat)
    assert list(picked.entries) == wanted
    assert problem in picked.problem
    assert bool(picked.problem) == bool(problem)


# --- what holds for any text ---------------------------------------------------------------------

TEXTS = st.text("0123456789,-+. xGPUMIgpumi", max_size=24) | st.lists(WORDS).map(",".join)


@given(text=TEXTS, count=st.integers(0, 4))
def test_any_text_names_what_is_there(text: str, count: int) -> None:
    """Whatever a user wrote: devices that are there, each once, by the text that named it."""
    uuids = [*UUIDS, "", ""][:count]
    for picked in (pick_cuda(text, uuids), pick_rocr(text, uuids), pick_hip(text, uuids)):
        assert sorted(set(numbers(picked))) == sorted(numbers(picked))
        assert all(0 <= n < count for n in numbers(picked))
        assert "\n" not in picked.problem
    mask = pick_level_zero(text, [1, 2, 1, 4][:count], flat="." not in text)
    assert all(0 <= n < count for n in numbers(mask))
    assert len({name for name, _ in mask.entries}) == len(mask.entries)


@given(order=st.permutations(range(4)), count=st.integers(1, 4))
def test_any_order_of_numbers(order: list[int], count: int) -> None:
    """A list of numbers is taken as it stands."""
    text = ",".join(map(str, order[:count]))
    wanted = tuple((str(n), n) for n in order[:count])
    for pick in (pick_cuda, pick_rocr, pick_hip):
        assert pick(text, ["", "", "", ""]) == Selection(wanted)


@given(words=st.lists(WORDS, min_size=1, max_size=4), more=st.lists(WORDS, max_size=3))
def test_nothing_after_the_end_counts(words: list[str], more: list[str]) -> None:
    """Where a list has ended, what follows changes nothing."""
    if words == [""]:  # an empty list, which no longer is empty with more
        return
    short = pick_rocr(",".join(words), UUIDS)
    longer = pick_rocr(",".join([*words, *more]), UUIDS)
    if len(short.entries) < len(words):
        assert longer == short
    else:
        assert longer.entries[: len(words)] == short.entries
