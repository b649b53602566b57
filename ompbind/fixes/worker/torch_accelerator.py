"""On a torch without an accelerator, what only synchronises or frees is a no-op, so that a shared
shutdown path goes on to the rest of its clean-up.

Which functions those are is not a list but their shape, so that later versions' are covered: public
functions of torch.accelerator and its submodules that say they return nothing and that can be
called without saying anything. What returns a fact, and what needs to be told something (setting a
device or a stream), raises as before.
"""

from __future__ import annotations

import functools
import inspect
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

TARGET = "torch.accelerator"
VERSIONS = ">=2.6"
REASON = "synchronize, empty_cache and the like do nothing where torch has no accelerator"
SOURCE = "vllm-project/vllm#41034"

# What torch says for want of an accelerator, the second where a device is named, as in
# synchronize("cpu").
MESSAGES = ("Cannot access accelerator device when none is available", "Accelerator expected")
# A later function that makes something so, and only happens to take no argument, must still raise.
MAKING = ("set", "init", "enable", "start", "begin")


def is_needed(module: ModuleType) -> bool:
    """Whether there is something to wrap. Raises LookupError for a torch of another shape."""
    if not callable(module.is_available) or not callable(module.synchronize):
        raise LookupError("is_available or synchronize is no function")
    functions = find_functions(module)
    if not functions and not hasattr(module.synchronize, "ompbind_fix"):
        raise LookupError("synchronize does not say any more that it returns nothing")
    return bool(functions)


def apply(module: ModuleType) -> str:
    """Wraps them wherever they stand; returns their names."""
    functions = find_functions(module)
    for name, function in functions.items():
        quiet = make_quiet(module, function)
        for place in find_modules(module):
            if vars(place).get(name) is function:
                setattr(place, name, quiet)
    return ", ".join(sorted(functions))


def find_modules(module: ModuleType) -> list[ModuleType]:
    """The package and its imported submodules."""
    inner = [m for n, m in list(sys.modules.items()) if n.startswith(f"{module.__name__}.")]
    return [module, *(m for m in inner if m is not None)]


def find_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions to wrap, by name."""
    found = {}
    for place in find_modules(module):
        for name, value in list(vars(place).items()):
            asked = not name.startswith("_") and name.partition("_")[0] not in MAKING
            if asked and is_ours(module, value) and only_acts(value):
                found[name] = value
    return found


def is_ours(module: ModuleType, value: object) -> bool:
    home = getattr(value, "__module__", None) or ""
    named = f"{home}.".startswith(f"{module.__name__}.")
    wrapped = hasattr(value, "ompbind_fix")
    return named and callable(value) and not isinstance(value, type) and not wrapped


def only_acts(function: Callable[..., Any]) -> bool:
    """Whether it says that it returns nothing, and needs to be told nothing."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError, NameError):
        return False
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needs = [p for p in signature.parameters.values() if p.default is p.empty]
    nothing = signature.return_annotation in (None, "None")
    return nothing and all(p.kind in optional for p in needs)


def make_quiet(module: ModuleType, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which does nothing where there is no accelerator. It asks only when the call
    has failed: importing must not wake a device, and one may be registered later."""

    @functools.wraps(function)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except RuntimeError as e:
            if not any(m in str(e) for m in MESSAGES) or module.is_available():
                raise
            return None

    quiet.ompbind_fix = "torch-accelerator"  # type: ignore[attr-defined]
    return quiet
