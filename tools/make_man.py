"""Prints the manual page; setup.py has it made whenever the package is built.

    python tools/make_man.py | man -l -

The options come from ompbind's own table, so the page has all of them in the words of `--help`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from ompbind import __version__
from ompbind.cli.help import COMMANDS, write_names
from ompbind.options.commands import OPTIONS
from ompbind.options.table import PANELS, Option

DESCRIPTION = (
    "ompbind reads the topology of the machine, works out for every worker (a rank) its cpus, its "
    "memory nodes and its OpenMP places, and starts each one so: the mask, the memory policy and "
    "the OpenMP variables are in place before the worker's program begins. What cannot be had is "
    "an error before anything starts.",
    "An option that takes a list takes all values up to the next option or `--`.",
)

STATUSES = (
    ("the worker's", "It exited; with several ranks, the status of the first that failed, else 0."),
    ("128+N", "Signal N ended it."),
    (
        "1",
        "From `verify` and `rebind`: something is not as planned. From `doctor`: something "
        "prevents binding.",
    ),
    (
        "125",
        "ompbind refused: bad input, an impossible plan, a binding that the kernel denies.",
    ),
    ("126, 127", "The command cannot be executed; it was not found."),
)

VARIABLES = (
    (
        "OMP_NUM_THREADS, OMP_PLACES, OMP_PROC_BIND",
        "Set for every rank. Those that are set already are respected as if given as options, "
        "unless they would override the plan.",
    ),
    (
        "OMPBIND_RANK, OMPBIND_RANKS, OMPBIND_CPUS, OMPBIND_MEM",
        "Set for every rank: its number, the number of ranks, its cpus and its memory policy.",
    ),
    (
        "RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE",
        "Set among several ranks, or with `--rank-env`.",
    ),
    (
        "CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES, ZE_AFFINITY_MASK",
        "Followed where ranks are placed by GPU; set with `--gpu-env`.",
    ),
    ("OMPBIND_NEIGHBOURS", "`no`: do not look for other launches that hold cores of the plan."),
    ("NO_COLOR, COLUMNS", "No colours; the width of tables."),
)


def make_page() -> str:
    """Return the whole page in the man macros."""
    lines = [
        '.\\" Made by tools/make_man.py; do not edit.',
        f'.TH OMPBIND 1 "" "ompbind {__version__}" "User Commands"',
        ".SH NAME",
        r"ompbind \- start worker processes bound to the right cpus and memory",
        ".SH SYNOPSIS",
    ]
    for command in COMMANDS:
        lines += [".br", rf"\fBompbind {command.name}\fP {escape(command.usage)}"]
    lines += [".br", r"\fBompbind help\fP [COMMAND|OPTION|PAGE]", ".SH DESCRIPTION"]
    lines += make_paragraphs(DESCRIPTION)
    for command in COMMANDS:
        lines += [f".SH OMPBIND {command.name.upper()}"]
        lines += make_paragraphs([f"{command.summary}.", *command.text])
        lines += make_entries(command.examples)
    lines += [".SH OPTIONS", roff("Options of `run` and `show`, but where brackets name others.")]
    for panel in PANELS:
        lines += [f".SS {roff(panel)}"]
        for option in OPTIONS:
            if option.panel == panel:
                lines += [".TP", rf"\fB{escape(write_names(option))}\fP"]
                lines += [f"{roff(option.help)}.{make_scope(option)}"]
    lines += [".SH EXIT STATUS", *make_entries(STATUSES)]
    lines += [".SH ENVIRONMENT", *make_entries(VARIABLES)]
    lines += [".SH SEE ALSO", r"\fBnumactl\fP(8), \fBtaskset\fP(1), \fBlstopo\fP(1)"]
    lines += [".PP", roff("`ompbind help` lists the pages of the documentation.")]
    return "\n".join(lines) + "\n"


def make_paragraphs(texts: Iterable[str]) -> list[str]:
    """Return the texts as paragraphs, the first one without a request of its own."""
    lines: list[str] = []
    for text in texts:
        lines += [".PP", roff(text)] if lines else [roff(text)]
    return lines


def make_scope(option: Option) -> str:
    """Return the commands that take the option, where these are not `run` and `show`."""
    if set(option.commands) == {"run", "show"}:
        return ""
    return f" [{', '.join(option.commands)}]"


def make_entries(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return a tagged paragraph for each name and its text."""
    lines = []
    for name, text in rows:
        lines += [".TP", rf"\fB{escape(name)}\fP", roff(text)]
    return lines


def roff(text: str) -> str:
    """Return text as roff, what stands between backquotes in bold."""
    parts = re.split(r"`([^`]*)`", " ".join(text.split()))
    return "".join(
        rf"\fB{escape(part)}\fP" if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def escape(text: str) -> str:
    """Return text with the characters that mean something to roff escaped."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...")
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    sys.stdout.write(make_page())
