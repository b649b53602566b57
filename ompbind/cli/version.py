"""`ompbind --version`: the version, and what ompbind runs on here, for a report of a bug."""

from __future__ import annotations

import os
import sys

from ompbind.cli.help import version
from ompbind.messages import one_line, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Packages that ompbind uses where they are installed, and what for.
PACKAGES = (
    ("typer", "completion"),
    ("nvidia-ml-py", "GPUs of NVIDIA"),
)


def print_version(*, short: bool) -> int:
    """Print the version on one line, and without `short` what ompbind runs on, a line for each."""
    lines = [f"ompbind {version()}"]
    if not short:
        lines += describe_surroundings(os.environ)
    write_output("".join(f"{one_line(line)}\n" for line in lines))
    return 0


def describe_surroundings(environ: Mapping[str, str]) -> list[str]:
    """Return Python, the kernel, numactl, and the packages that ompbind uses, each with its version
    and place as far as it has them."""
    from ompbind.worker import find_program
    from ompbind.worker.installed import find_installed

    python = ".".join(map(str, sys.version_info[:3]))
    lines = [f"{sys.implementation.name} {python}: {sys.executable}"]
    if hasattr(os, "uname"):
        system = os.uname()
        lines.append(f"{system.sysname} {system.release} {system.machine}")
    numactl = find_program("numactl", environ)
    lines.append(f"numactl: {numactl or 'not installed: ranks are bound natively'}")
    for name, purpose in PACKAGES:
        installed = find_installed(sys.path, [name])
        lines.append(f"{name} {installed or 'is not installed'} ({purpose})")
    return lines
