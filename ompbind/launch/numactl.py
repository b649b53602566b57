"""What the installed numactl can do: each version has learnt more of the kernel's newer memory
policies.

Source: numactl's releases. 2.0.15 has --preferred-many and --balancing, 2.0.19 has
--weighted-interleave. There is no option for its version: its usage names what it knows.
"""

from __future__ import annotations

from ompbind.errors import UsageError
from ompbind.launch.binding import capture
from ompbind.worker import require_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.plans import Binding, Plan

RELEASES = {
    "--preferred-many": "2.0.15", "--balancing": "2.0.15", "--weighted-interleave": "2.0.19",
}  # fmt: skip


def replace_numactl(plan: Plan, environ: Mapping[str, str], *, required: bool) -> Plan:
    """Return the plan, bound by system calls where the installed numactl has no option for one of
    its memory policies. Raises UsageError where numactl is `required`."""
    path = require_program("numactl", environ)
    _, usage = capture(path, (path,), environ)
    missing = find_missing([r.binding for r in plan.ranks], usage)
    if not missing:
        return plan
    if required:
        raise UsageError(
            f"--binder numactl: the installed numactl has no {missing}; {RELEASES[missing]} has",
            hint="--binder native makes the same system calls without numactl",
        )
    return plan.bind_natively()


def find_missing(bindings: list[Binding], usage: str) -> str:
    """Return the first option for a memory policy that numactl's usage does not have; "" where it
    has all."""
    for binding in bindings:
        for word in binding.numactl():
            option = word.partition("=")[0]
            if option in RELEASES and option not in usage:
                return option
    return ""
