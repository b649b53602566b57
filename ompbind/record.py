"""Frozen value classes: the part of `dataclasses` that is used here, without importing it.

`import dataclasses` takes longer than starting Python (it pulls in `inspect`, `re` and `enum`), and
every launch would pay for it. Type checkers see a frozen dataclass.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name; importing typing would cost as much
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """Base of the frozen value classes. The annotations are the fields, in order, with defaults.

    Two records are equal when they are of the same class and all their fields are equal. Assigning
    to a field raises AttributeError; a missing or unknown field raises TypeError.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _names: ClassVar[frozenset[str]] = frozenset()  # the same, for quick comparisons
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        names = tuple(n for n in cls.__dict__.get("__annotations__", ()) if not n.startswith("_"))
        cls._fields += names
        cls._names = frozenset(cls._fields)
        cls._defaults = cls._defaults | {n: cls.__dict__[n] for n in names if n in cls.__dict__}

    if not TYPE_CHECKING:  # type checkers derive the signature from the fields

        def __init__(self, *args, **kwargs):
            names, values = self._names, self.__dict__
            values |= self._defaults
            if args:
                values.update(zip(self._fields, args, strict=False))
            values |= kwargs
            # Quicker than to compare the names: those in the defaults and in `args` are right.
            if len(args) > len(names) or len(values) != len(names) or not names.issuperset(kwargs):
                wrong = sorted(names ^ values.keys()) or f"{len(args)} values"
                raise TypeError(f"{type(self).__name__}: missing or unknown: {wrong}")

        def __setattr__(self, name, value):
            raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

        def __delattr__(self, name):
            raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__[n] for n in self._fields))

    def __repr__(self) -> str:
        inner = ", ".join(f"{n}={self.__dict__[n]!r}" for n in self._fields)
        return f"{type(self).__name__}({inner})"

    def replace(self, **changes: Any) -> Self:
        """Return a copy with the named fields changed."""
        return type(self)(**(self.__dict__ | changes))
