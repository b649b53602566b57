"""Prints the manual page; setup.py has it made whenever the package is built.

    python tools/make_man.py | man -l -

The options come from ompbind's own table, so the page has all of them in the words of `--help`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from ompbind import __version__
from ompbind.options.table import OPTIONS, Option

COMMANDS = (
    ("run", "[OPTIONS] [--] COMMAND [ARG]...", "Start COMMAND bound, as one rank or several."),
    (
        "show",
        "[OPTIONS] [-- COMMAND [ARG]...]",
        "Print the plan that `run` would execute, as a table, as JSON, as a rank's environment or as "
        "the commands, and start nothing.",
    ),
    ("topo", "[OPTIONS]", "Draw the machine, print it as JSON, or save it."),
    (
        "verify",
        "[OPTIONS] PID...",
        "Compare running workers with their plan: the cpus of every thread, the memory policy and "
        "the pages on each node. PID is a worker's, or that of the ompbind that started it.",
    ),
    (
        "doctor",
        "[OPTIONS] [-- COMMAND [ARG]...]",
        "Say what this machine, container or job allows, and what costs performance, each with "
        "its remedy.",
    ),
    ("help", "[PAGE]", "List the pages of the documentation, or print one."),
)

DESCRIPTION = """ompbind starts worker processes bound to the right cpus and memory. It reads the \
topology of the machine, works out for every worker (a rank) its cpus, its memory nodes and its \
OpenMP places, and starts each one so: the masks, the memory policy and the OpenMP variables are in \
place before the worker's program begins. What cannot be had is an error before anything starts.

Everything after `--` is the worker's own command line; nothing goes through a shell. An option \
that takes a list takes all values up to the next option or `--`."""

STATUSES = (
    ("the worker's", "It exited; with several ranks, the status of the first that failed, else 0."),
    ("128+N", "Signal N ended it."),
    (
        "1",
        "From `verify`: something is not as planned. From `doctor`: something prevents binding.",
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
        "Set for every rank. Those that are set already are respected as if given as options, unless "
        "they would override the plan.",
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
    ("OMPBIND_NEIGHBOURS", "`no`: do not look for other launches that hold cpus of the plan."),
    ("NO_COLOR, COLUMNS", "No colours; the width of tables."),
)

EXAMPLES = (
    ("ompbind show --per numa --mem bind", "The plan for a rank on each memory node."),
    ("ompbind run --numa-bind-nodes 0 0 1 1 -- python worker.py", "Four ranks, two on each node."),
    ("ompbind run --per gpu --gpu-env -- python train.py", "A rank for each GPU, next to it."),
    ("ompbind topo --save server.topo", "Save this machine, to plan for it elsewhere."),
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
    for name, words, _ in COMMANDS:
        lines += [".br", rf"\fBompbind {name}\fP {escape(words)}"]
    lines += [".SH DESCRIPTION"]
    for number, paragraph in enumerate(DESCRIPTION.split("\n\n")):
        lines += [".PP"] * (number > 0) + [roff(paragraph)]
    lines += [".SH COMMANDS", *entries((name, text) for name, _, text in COMMANDS)]
    lines += [".SH OPTIONS", "Options are for", r"\fBrun\fP and \fBshow\fP"]
    lines += ["unless a line in brackets says otherwise."]
    for panel in dict.fromkeys(option.panel for option in OPTIONS):
        lines += [f".SS {roff(panel)}"]
        for option in OPTIONS:
            if option.panel == panel:
                lines += [".TP", make_heading(option), roff(option.help) + make_scope(option)]
    lines += [".SH EXIT STATUS", *entries(STATUSES)]
    lines += [".SH ENVIRONMENT", *entries(VARIABLES)]
    lines += [".SH EXAMPLES", *entries(EXAMPLES)]
    lines += [".SH SEE ALSO", r"\fBnumactl\fP(8), \fBtaskset\fP(1), \fBlstopo\fP(1)"]
    lines += [".PP", roff("`ompbind help` lists the pages of the documentation.")]
    return "\n".join(lines) + "\n"


def make_heading(option: Option) -> str:
    """Return an option's names and value: `-n`, `--ranks` N."""
    value = "|".join(option.choices) or option.metavar
    if value:
        value = f"[={value}]" if option.kind == "optional" else f" {value}"
    names = [*sorted(option.names, key=len)]
    if option.no:
        names.append(f"--no-{option.names[0][2:]}")
    return ", ".join(rf"\fB{escape(name)}\fP" for name in names) + rf"\fI{escape(value)}\fP"


def make_scope(option: Option) -> str:
    """Return the commands that take the option, where these are not `run` and `show`."""
    if set(option.commands) == {"run", "show"}:
        return ""
    return f"\n[{', '.join(option.commands)}]"


def entries(rows: Iterable[tuple[str, str]]) -> list[str]:
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
