"""Functions in the place of others, which note how they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Calls = list[tuple[Any, ...]]


def noting(calls: Calls, name: str, result: Any = None) -> Callable[..., Any]:
    """Return a function that notes how it is called, and returns `result`, or raises it."""

    def call(*args: object, **more: object) -> Any:
        calls.append((name, *args, *sorted(more.items())))
        if isinstance(result, BaseException):
            raise result
        return result

    return call
