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
    """`ompbind run`. Raises OmpbindError."""
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

        make_request(values)  # a list option may have swallowed the command: it then says so
        raise UsageError("no command to run", hint="put it after --: ompbind run -- COMMAND")
    settings = make_settings(values).replace(prove=make_prover(values))
    environ = given_environment()
    plan = resolve_plan(values, command, environ)
    if "plan" in values:
        from ompbind.saved import check_plan

        check_plan(plan)
    if plan.inherited:
        judged = "; ".join(f"{i.name}={i.value} {i.action}" for i in plan.inherited)
        say("note", f"{judged} (ompbind show tells why)")
    for warning in plan.warnings:
        say("warning", warning)
    return launch.run(
        plan,
        environ,
        lambda text: say("warning", text),
        settings,
    )


def given_environment() -> dict[str, str]:
    """The environment as it was given to us. In the C locale Python puts an LC_CTYPE of its own
    into it (PEP 538), which is no worker's."""
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        from ompbind.machine import living_root
        from ompbind.machine.processes import read_environ

        given = read_environ(living_root(), os.getpid()) if sys.platform == "linux" else None
        if given is not None and "LC_CTYPE" not in dict(given):
            del environ["LC_CTYPE"]
    return environ


def make_prover(values: Values) -> Prove | None:
    """What looks at the ranks for --verify. Raises UsageError, TopologyError."""
    if "verify" not in values and "verify_strict" not in values:
        return None
    from ompbind.machine import living_root
    from ompbind.options.settings import parse_seconds
    from ompbind.verify.after_start import SECONDS, Verifier

    text = values.get("verify")
    within = parse_seconds(str(text), "--verify") if text else SECONDS
    return Verifier(living_root(), say, within=within, strict="verify_strict" in values)


def wants_list(values: Values) -> bool:
    """Whether --fix list is among what --fix names."""
    return "list" in str(values.get("fix")).split(",")


def list_fixes() -> int:
    from ompbind.fixes import registry

    write_output(registry.list_fixes())
    return 0
