"""The files that options name for output: what stands in their names, whether they can be written,
before anything is started, and how texts get into them."""

from __future__ import annotations

import errno
import os

from ompbind.errors import OmpbindError, UsageError
from ompbind.messages import counted, quote, write_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.plans import Plan

LONGEST = 300  # characters of a file's name in a message


def fill_host(file: str, environ: Mapping[str, str], option: str = "--save") -> str:
    """Return the name of a file with %N replaced by this host's name: the one by which Slurm knows
    it, else its hostname up to the first dot. Raises UsageError."""
    if "%N" not in file:
        return file
    host = environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]
    if not host or "/" in host or host in (".", ".."):
        raise UsageError(f"{option} {file}: {quote(host)} is not a host's name",
                         hint="leave %N out", option=option)  # fmt: skip
    return file.replace("%N", host)


def find_report(file: str, plan: Plan, environ: Mapping[str, str]) -> str:
    """Return the path of the file for --report, with %N and %r filled in, where it can be written.
    Raises UsageError, also where other ranks of a job would write the same file."""
    task, option = plan.task, "--report"
    other_nodes = task.nodes != 1 and "%N" not in file
    is_shared = task.local_ranks != 1 or other_nodes
    if task and task.engine != "hand" and task.ranks != 1 and is_shared and "%r" not in file:
        ranks = "several ranks" if task.ranks is None else counted(task.ranks, "rank")
        raise UsageError(
            f"{option} {quote(file, LONGEST)}: {ranks} of {task.label} would write this file",
            hint=f"{option} {file}.%r has the rank in its name",
            option=option,
        )
    path = fill_host(file, environ, option).replace("%r", str(plan.ranks[0].number))
    if problem := find_problem(path):
        raise UsageError(f"{option} {quote(path, LONGEST)}: {problem}", option=option)
    return os.path.abspath(path)


def find_problem(path: str) -> str:
    """Return why a file cannot be written, or replaced; "" if it can."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.basename(path):
        return os.strerror(errno.EISDIR)
    if not os.path.isdir(directory):
        return f"there is no directory {quote(directory, LONGEST)}"
    is_device = os.path.exists(path) and not os.path.isfile(path)  # is written, not replaced
    is_writable = os.access(path if is_device else directory, os.W_OK)
    return "" if is_writable else os.strerror(errno.EACCES)


def write_file(option: str, file: str, text: str) -> None:
    """Write the text to the file that an option names, `-` for standard output. Raises
    OmpbindError."""
    if file == "-":
        write_bytes(text.encode("utf-8", "surrogateescape"))  # a picture or page says that it is
        return
    try:
        with open(file, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as out:
            out.write(text)
    except OSError as e:
        raise OmpbindError(f"{option} {quote(file)}: {e.strerror}") from None
