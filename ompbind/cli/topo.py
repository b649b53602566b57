"""`ompbind topo`: the machine, drawn, as JSON, or saved to a file."""

from __future__ import annotations

import os

from ompbind.errors import UsageError
from ompbind.messages import quote, say, write_bytes, write_output
from ompbind.options import read_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.measurement import Measurement
    from ompbind.machine.topology import Machine
    from ompbind.options.values import Values


# What writes a file with this ending.
PICTURES = {".svg": "--svg", ".html": "--html", ".json": "--format json >"}


def topo(args: Sequence[str]) -> int:
    """Carry out `ompbind topo`; return the exit status. Raises OmpbindError."""
    from ompbind.machine import read_machine

    values, extra = read_arguments(args, "topo")
    if extra:
        hint = "ompbind topo --help"
        if os.path.exists(extra[0]):
            from ompbind.render.escape import quote_word

            hint = f"ompbind topo --topology {quote_word(extra[0])}"
        raise UsageError(f"topo takes no {quote(extra[0])}", hint=hint)
    path, file = values.get("topology"), values.get("save")
    measured = measure() if "measure" in values else None
    if file is not None:
        from ompbind.cli.output_file import fill_host

        with_name = values.get("with_name") is True
        return save(fill_host(file, os.environ), path, with_name=with_name, measured=measured)
    machine = read_machine(path, details=True)
    machine = machine.replace(measured=measured or machine.measured)
    if "svg" in values or "html" in values:
        write_drawing(values, machine)
    elif values.get("format", "table") == "json":
        write_output(machine.to_json())
    else:
        from ompbind.render import make_text
        from ompbind.render.machine import draw_machine

        write_output(make_text(draw_machine(machine)))
    return 0


def measure() -> Measurement:
    """Measure this machine, with a line on a terminal that says how far it is. Raises
    OmpbindError."""
    from ompbind.cli.progress import StatusLine
    from ompbind.machine import read_machine
    from ompbind.measuring import measure_machine

    line = StatusLine()
    try:
        return measure_machine(read_machine(details=True, devices=False), line.write)
    finally:
        line.clear()


def save(
    file: str, path: str | None, *, with_name: bool, measured: Measurement | None = None
) -> int:
    """Write the machine to a file, or to standard output; return the exit status. Raises
    OmpbindError."""
    from ompbind.machine.saving import pack_machine, save_machine

    ending = os.path.splitext(file)[1]
    if ending in PICTURES:
        raise UsageError(
            f"--save {quote(file)}: a saved machine is a snapshot, not a picture",
            hint=f"{PICTURES[ending]} {file}",
        )
    if file == "-":
        if os.isatty(1):
            raise UsageError(
                "--save -: standard output is a terminal, and a snapshot is not text",
                hint="ompbind topo --save - > FILE, or ompbind topo --format json",
            )
        write_bytes(pack_machine(path, with_name=with_name, measured=measured)[0])
        return 0
    save_machine(file, path, with_name=with_name, measured=measured)
    say("note", f"saved to {file}")
    return 0


def write_drawing(values: Values, machine: Machine) -> None:
    """Write the picture or the page that was asked for. Raises OmpbindError."""
    from ompbind.cli.output_file import write_file

    if "svg" in values:
        from ompbind.render.picture import make_machine_picture, make_svg

        write_file("--svg", values["svg"], make_svg(make_machine_picture(machine)))
    else:
        from ompbind.render.pages import make_machine_page

        write_file("--html", values["html"], make_machine_page(machine))
