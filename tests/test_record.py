"""Frozen value classes behave as frozen dataclasses do."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from ompbind.record import Record


class Point(Record):
    x: int
    y: int = 0


class Named(Point):
    name: str = ""


class Other(Record):
    x: int
    y: int = 0


def test_fields() -> None:
    """Fields are given by position or name, with defaults."""
    assert (Point(1).x, Point(1).y) == (1, 0)
    assert Point(1, 2) == Point(x=1, y=2) == Point(1, y=2)


def test_inherited_fields() -> None:
    """A subclass has its parent's fields first."""
    assert Named(1, 2, "a") == Named(1, 2, name="a")
    assert Named(1).name == ""
    assert Point(1) != Named(1)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"z": 1}), ((), {"y": 1})]
)
def test_wrong_fields(args: tuple[int, ...], kwargs: dict[str, int]) -> None:
    """A missing, unknown or surplus field is a TypeError that names the class."""
    with pytest.raises(TypeError, match="Point: missing or unknown"):
        Point(*args, **kwargs)


def test_frozen() -> None:
    """A field cannot be set, nor one added."""
    point = Point(1)
    for name in ("x", "z"):
        with pytest.raises(AttributeError, match=f"Point is frozen: {name} cannot be set"):
            setattr(point, name, 2)
    assert point == Point(1)


def test_frozen_against_deleting() -> None:
    """A field cannot be deleted."""
    with pytest.raises(AttributeError, match="frozen"):
        del Point(1).x


def test_equality_and_hash() -> None:
    """Records are equal when class and fields are, and then hash alike."""
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert Point(1, 2) != Point(2, 1)
    assert Point(1) != Other(1)
    assert Point(1) != (1, 0)
    assert len({Point(1), Point(1), Point(2)}) == 2


def test_replace() -> None:
    """replace() changes a copy, and refuses what is no field."""
    point = Point(1, 2)
    assert point.replace(y=3) == Point(1, 3)
    assert point == Point(1, 2)
    with pytest.raises(TypeError):
        point.replace(z=1)


def test_repr_and_pickle() -> None:
    """repr() is what makes it; pickle gives an equal one."""
    assert repr(Named(1, 2, "a")) == "Named(x=1, y=2, name='a')"
    assert pickle.loads(pickle.dumps(Named(1, 2, "a"))) == Named(1, 2, "a")


def test_reading_a_machine_imports_little() -> None:
    """Reading the machine imports none of the modules that would slow every start down."""
    slow = {
        "dataclasses", "typing", "re", "enum", "json", "pathlib", "functools", "collections",
        "subprocess", "psutil", "inspect",
    }  # fmt: skip
    code = "import sys; import ompbind.machine as m; m.read_machine(); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {_root()!r}); {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not slow & set(run.stdout.split())


def _root() -> str:
    return __file__.rpartition("/tests/")[0]
