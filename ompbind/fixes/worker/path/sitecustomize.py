"""Python runs this before a worker's code: it waits for the modules that fixes are for, and runs
the sitecustomize that would have been found without it.

Every Python that a worker starts reads this file, so it imports only what is loaded anyway, and any
version can read it, even 2.7; the fixes need 3.8.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class OmpbindFinder(object):
    """Finds the modules that fixes wait for with the other finders, and wraps their loaders."""

    def __init__(self, waiting, worker):
        # type: (Mapping[str, Sequence[str]], str) -> None
        self.waiting = waiting  # a module's name: the fixes for it
        self.worker = worker  # the directory that holds apply.py

    def find_spec(self, name, path=None, target=None):
        # type: (str, Sequence[str] | None, ModuleType | None) -> ModuleSpec | None
        if name not in self.waiting:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                self.watch(spec)
                return spec  # type: ignore[no-any-return]
        return None

    def watch(self, spec):
        # type: (ModuleSpec) -> None
        """Make the loader apply the fixes each time that it has executed the module."""
        loader = spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is None:
            return

        def exec_module(module):
            # type: (ModuleType) -> None
            execute(module)
            if module.__name__ == spec.name:  # a loader may serve several modules
                self.apply(module)

        if isinstance(loader, type):  # one class for all built-in or frozen modules
            methods = {"exec_module": staticmethod(exec_module)}
            spec.loader = type(loader.__name__, (loader,), methods)
        else:
            loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]

    def apply(self, module):
        # type: (ModuleType) -> None
        try:
            self.load_apply()(self.waiting[module.__name__], module)
        except Exception as e:  # the worker must go on in any case
            complain("fixes for %s: %s: %s" % (module.__name__, type(e).__name__, e))

    def load_apply(self):
        # type: () -> Callable[[Iterable[str], ModuleType], None]
        if "_ompbind_apply" not in sys.modules:
            from importlib.util import module_from_spec, spec_from_file_location

            file = os.path.join(self.worker, "apply.py")
            spec = spec_from_file_location("_ompbind_apply", file)
            module = module_from_spec(spec)  # type: ignore[arg-type]
            spec.loader.exec_module(module)  # type: ignore[union-attr]
            sys.modules["_ompbind_apply"] = module
        return sys.modules["_ompbind_apply"].apply_fixes  # type: ignore[no-any-return]


def complain(text):
    # type: (str) -> None
    if os.environ.get("OMPBIND_FIX_VERBOSE") == "0":
        return
    try:
        sys.stderr.write("ompbind: warning: %s\n" % text)
    except (AttributeError, OSError, ValueError):
        return  # none, or closed


def start():
    # type: () -> None
    """Remove this directory from sys.path, and wait for the modules that OMPBIND_FIX names."""
    here = os.path.dirname(__file__)
    sys.path[:] = [p for p in sys.path if p != here]
    entries = os.environ.get("OMPBIND_FIX", "")
    if os.environ.get("OMPBIND_FIX_CHILDREN") == "no":
        leave_environment(here)
    known = any(type(f).__name__ == "OmpbindFinder" for f in sys.meta_path)
    if not entries or known:
        return
    if sys.version_info < (3, 8):
        if os.environ.get("OMPBIND_FIX_VERBOSE") == "1":
            complain("no fix is applied in process %d: Python is older than 3.8" % os.getpid())
        return
    waiting = {}  # type: dict[str, list[str]]
    for entry in entries.split(","):
        name, _, target = entry.rpartition("@")
        waiting.setdefault(target, []).append(name)
    finder = OmpbindFinder(waiting, os.path.dirname(here))
    sys.meta_path.insert(0, finder)
    for target in waiting:
        if target in sys.modules:  # by a .pth file
            finder.apply(sys.modules[target])


def leave_environment(here):
    # type: (str) -> None
    """Remove the fixes from the environment of what this process starts."""
    rest = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    rest = [p for p in rest if p != here]
    if rest:
        os.environ["PYTHONPATH"] = os.pathsep.join(rest)
    else:
        os.environ.pop("PYTHONPATH", None)
    for name in ("OMPBIND_FIX", "OMPBIND_FIX_CHILDREN"):
        os.environ.pop(name, None)


if __name__ == "sitecustomize":
    start()
    # The next one: a user's, the virtual environment's, the system's. It replaces this one; if
    # there is none, or if it fails, Python's `site` gets the same error as without this one.
    del sys.modules["sitecustomize"]
    import sitecustomize  # type: ignore[import-not-found]
