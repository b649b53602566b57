"""Bypass torch 2.10's compile cache when a graph cannot be pickled because of a ValueError, as
torch does for other pickling errors in FxGraphCachePickler.dumps. Later versions do so themselves.
"""

from __future__ import annotations

import functools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

TARGET = "torch._inductor.codecache"
VERSIONS = "2.10.*"
REASON = "a graph that cannot be pickled (ValueError) bypasses the compile cache instead of failing"
SOURCE = "vllm-project/vllm#38205, pytorch/pytorch#176557"


def is_needed(module: ModuleType) -> bool:
    """Whether dumps does not handle ValueError. Raises AttributeError or LookupError if torch has
    changed."""
    dumps = module.FxGraphCachePickler.dumps
    if not issubclass(module.BypassFxGraphCache, Exception):
        raise LookupError("BypassFxGraphCache is not an exception")
    code = dumps.__code__
    if code.co_varnames[: code.co_argcount] != ("self", "obj"):
        raise LookupError("FxGraphCachePickler.dumps takes other arguments")
    return "ValueError" not in code.co_names


def apply(module: ModuleType) -> None:
    """Wrap dumps. The ValueError is kept as the cause."""
    pickler = module.FxGraphCachePickler
    original = pickler.dumps
    if hasattr(original, "ompbind_fix"):
        return

    @functools.wraps(original)
    def dumps(self: Any, obj: Any) -> Any:
        try:
            return original(self, obj)
        except ValueError as e:
            raise module.BypassFxGraphCache("Failed to pickle cache key") from e

    dumps.ompbind_fix = "fxgraph-pickle"  # type: ignore[attr-defined]
    pickler.dumps = dumps
