"""Make functions that only synchronise or free a no-op on a torch without an accelerator, so that a
shared shutdown path can go on with the rest of its clean-up.

These functions are not listed but recognised, so that later versions are covered: public functions
of torch.accelerator and its submodules that are annotated to return None and need no arguments.
Functions that return a value, or need one (to set a device or a stream), raise as before.
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

# torch's errors without an accelerator, the second if a device is named, as in synchronize("cpu").
MESSAGES = ("Cannot access accelerator device when none is available", "Accelerator expected")
# A later function that changes a state, and only happens to take no argument, must still raise.
CHANGING = ("set", "init", "enable", "start", "begin")


def is_needed(module: ModuleType) -> bool:
    """Whether there are functions to wrap. Raises LookupError if torch has changed."""
    if not callable(module.is_available) or not callable(module.synchronize):
        raise LookupError("is_available or synchronize is not a function")
    functions = find_functions(module)
    if not functions and not hasattr(module.synchronize, "ompbind_fix"):
        raise LookupError("synchronize is no longer annotated to return None")
    return bool(functions)


def apply(module: ModuleType) -> str:
    """Wrap the functions in every module that has them. Return their names."""
    functions = find_functions(module)
    for name, function in functions.items():
        quiet = make_quiet(module, function)
        for part in find_modules(module):
            if vars(part).get(name) is function:
                setattr(part, name, quiet)
    return ", ".join(sorted(functions))


def find_modules(module: ModuleType) -> list[ModuleType]:
    """Return the package and its imported submodules."""
    inner = [m for n, m in list(sys.modules.items()) if n.startswith(f"{module.__name__}.")]
    return [module, *(m for m in inner if m is not None)]


def find_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the functions to wrap, by name."""
    functions = {}
    for part in find_modules(module):
        for name, value in list(vars(part).items()):
            candidate = not name.startswith("_") and name.partition("_")[0] not in CHANGING
            if candidate and is_unwrapped(module, value) and has_no_result(value):
                functions[name] = value
    return functions


def is_unwrapped(module: ModuleType, value: object) -> bool:
    """Whether a value is a function of the package that is not wrapped yet."""
    home = getattr(value, "__module__", None) or ""
    named = f"{home}.".startswith(f"{module.__name__}.")
    wrapped = hasattr(value, "ompbind_fix")
    return named and callable(value) and not isinstance(value, type) and not wrapped


def has_no_result(function: Callable[..., Any]) -> bool:
    """Whether a function is annotated to return None, and needs no arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError, NameError):
        return False
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needs = [p for p in signature.parameters.values() if p.default is p.empty]
    nothing = signature.return_annotation in (None, "None")
    return nothing and all(p.kind in optional for p in needs)


def make_quiet(module: ModuleType, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function wrapped to do nothing without an accelerator. It checks for one only when
    the call has failed: an import must not wake a device, and one may be registered later."""

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
