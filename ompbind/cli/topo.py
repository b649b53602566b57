"""`ompbind topo`: the machine, drawn, as JSON, or saved to a file."""

from __future__ import annotations

import os

from ompbind.errors import UsageError
from ompbind.messages import quote, say, write_output
from ompbind.options import read_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def topo(args: Sequence[str]) -> int:
    """Carry out `ompbind topo`; return the exit status. Raises OmpbindError."""
    from ompbind.machine import read_machine, save_machine

    values, extra = read_arguments(args, "topo")
    if extra:
        raise UsageError(f"topo takes no {quote(extra[0])}", hint="ompbind topo --help")
    path, file = values.get("topology"), values.get("save")
    if file is not None:
        file = fill_host(file, os.environ)
        save_machine(file, path, with_name=values.get("with_name") is True)
        say("note", f"saved to {file}")
        return 0
    machine = read_machine(path)
    if values.get("format", "table") == "json":
        write_output(machine.to_json())
    else:
        from ompbind.render import make_text
        from ompbind.render.machine import draw_machine

        write_output(make_text(draw_machine(machine)))
    return 0


def fill_host(file: str, environ: Mapping[str, str]) -> str:
    """Return the name of a file with %N replaced by this host's name: the one by which Slurm knows
    it, else its hostname up to the first dot. Raises UsageError."""
    if "%N" not in file:
        return file
    host = environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]
    if not host or "/" in host or host in (".", ".."):
        raise UsageError(f"--save {file}: {quote(host)} is not a host's name", hint="leave %N out")
    return file.replace("%N", host)
