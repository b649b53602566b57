"""`ompbind doctor`: what this machine allows, and what spoils performance."""

from __future__ import annotations

import os

from ompbind.messages import write_output
from ompbind.options import read_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def doctor(args: Sequence[str]) -> int:
    """Carry out `ompbind doctor`; return the exit status. Raises OmpbindError."""
    from ompbind.doctor import gather
    from ompbind.doctor.findings import examine, prevents, to_json

    values, command = read_arguments(args, "doctor")
    findings = examine(gather(command, dict(os.environ)))
    if values.get("format") == "json":
        write_output(to_json(findings))
    else:
        from ompbind.render import make_text
        from ompbind.render.doctor import draw_findings

        write_output(make_text(draw_findings(findings)))
    return 1 if prevents(findings) else 0
