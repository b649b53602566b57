"""`ompbind run`: from arguments to the workers' exit status.

On everybody's start path: what only some launches need is imported where they need it.
"""

from __future__ import annotations

import os
import sys

from ompbind.errors import UsageError
from ompbind.messages import say, write_output
from ompbind.options.parse import parse_arguments
from ompbind.options.table import options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.launch.rank import Prove
    from ompbind.options.parse import Values


def run(args: Sequence[str]) -> int:
    """Carry out `ompbind run`; return the exit status. Raises OmpbindError."""
    import gc

    gc.disable()  # a launch is over before there is anything to collect
    from ompbind import launch
    from ompbind.options.settings import make_settings
    from ompbind.resolve import resolve_plan

    values, command = parse_arguments(args, options_of("run"))
    if wants_list(values):
        return list_fixes()
    if "topology" in values:
        raise UsageError(
            "--topology is another machine, where nothing can be run from here",
            hint="ompbind show --topology plans for it",
        )
    if not command and "plan" not in values:
        from ompbind.options.request import make_request

        make_request(values)  # raises where a list option has taken the command for its values
        raise UsageError("no command to run", hint="put it after --: ompbind run -- COMMAND")
    settings = make_settings(values).replace(prove=make_verifier(values))
    environ = given_environment()
    plan = resolve_plan(values, command, environ)
    if "plan" in values:
        from ompbind.saved import check_plan

        check_plan(plan)
    if plan.inherited:
        variables = "; ".join(f"{i.name}={i.value} {i.action}" for i in plan.inherited)
        say("note", f"{variables} (ompbind show tells why)")
    for warning in plan.warnings:
        say("warning", warning)
    return launch.run(
        plan,
        environ,
        lambda text: say("warning", text),
        settings,
    )


def given_environment() -> dict[str, str]:
    """Return the environment that ompbind was started with.

    In the C locale Python adds an LC_CTYPE (PEP 538), which workers must not inherit.
    """
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        from ompbind.machine import living_root
        from ompbind.machine.processes import read_environ

        given = read_environ(living_root(), os.getpid()) if sys.platform == "linux" else None
        if given is not None and "LC_CTYPE" not in dict(given):
            del environ["LC_CTYPE"]
    return environ


def make_verifier(values: Values) -> Prove | None:
    """Return what checks the ranks for --verify. Raises UsageError, TopologyError."""
    if "verify" not in values and "verify_strict" not in values:
        return None
    from ompbind.machine import living_root
    from ompbind.options.settings import parse_seconds
    from ompbind.verify.after_start import SECONDS, Verifier

    text = values.get("verify")
    within = parse_seconds(str(text), "--verify") if text else SECONDS
    return Verifier(living_root(), say, within=within, strict="verify_strict" in values)


def wants_list(values: Values) -> bool:
    """Whether `list` is among the names that --fix was given."""
    return "list" in str(values.get("fix")).split(",")


def list_fixes() -> int:
    """Print the fixes that there are; return the exit status."""
    from ompbind.fixes import registry

    write_output(registry.list_fixes())
    return 0
