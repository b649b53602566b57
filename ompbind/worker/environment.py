"""Variables that --env, --env-file and --master-port add to the workers' environment."""

from __future__ import annotations

import os

from ompbind.errors import ParseError, UsageError
from ompbind.inputs import read_input
from ompbind.messages import quote
from ompbind.record import Record
from ompbind.worker.template import fill, make_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.plans import Numbers, Plan, RankPlan

# The option to use in place of a variable that the plan sets.
OPTION_FOR = {
    "OMP_NUM_THREADS": "--threads",
    "OMP_PLACES": "--places",
    "OMP_PROC_BIND": "--proc-bind",
    "RANK": "--no-rank-env",
    "LOCAL_RANK": "--no-rank-env",
    "WORLD_SIZE": "--no-rank-env",
    "LOCAL_WORLD_SIZE": "--no-rank-env",
    "OMPBIND_FIX": "--fix",
}
QUOTES = ("'", '"')
ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t"}  # after a backslash in double quotes


class EnvVar(Record):
    """A variable to add."""

    name: str
    value: str
    source: str  # where it is given, for messages
    template: bool = False  # whether the value is a template


class Variables(Record):
    """What the options say about variables; None: the option is not given."""

    # Of --env; a value of None is to be that of ompbind's environment.
    assignments: tuple[tuple[str, str | None], ...] = ()
    files: tuple[str, ...] = ()  # the paths of --env-file
    read: tuple[EnvVar, ...] | None = None  # what is in them: a pipe can be read only once
    master_port: int | str | None = None  # a number or "auto"
    master_addr: str | None = None
    rank_env: bool | None = None
    fixes: bool = False  # whether --fix is given


def with_environment(plan: Plan, variables: Variables, environ: Mapping[str, str]) -> Plan:
    """Return the plan whose workers also get these variables. Raises UsageError, ParseError."""
    given = list(read_files(variables))
    given += [make_variable(name, value, environ) for name, value in variables.assignments]
    added = {v.name: v for v in given}  # the last one wins
    master = make_master(variables)
    for v in added.values():
        check_variable(v, plan, master, fixed=variables.fixes)
    ranks = []
    for r in plan.ranks:
        env, numbers = dict(r.env), plan.numbers_of(r)
        if master and variables.rank_env is not False:
            env |= dict(numbers.environment())
        env |= master | {v.name: make_value(v, r, numbers) for v in added.values()}
        ranks.append(r.replace(env=tuple(env.items())))
    return plan.replace(ranks=tuple(ranks))


def read_files(variables: Variables) -> tuple[EnvVar, ...]:
    """Return the variables of --env-file. Raises UsageError, ParseError."""
    if variables.read is not None:
        return variables.read
    return tuple(v for path in variables.files for v in read_variables(path))


def make_variable(name: str, value: str | None, environ: Mapping[str, str]) -> EnvVar:
    """Return a variable of --env; without a value it takes that of `environ`. Raises UsageError."""
    source = f"--env {name}"
    if value is not None:
        return EnvVar(name, value, source, True)
    if name not in environ:
        raise UsageError(
            f"{source}: ompbind's environment has no such variable to pass on",
            hint=f"{source}=VALUE sets it",
            text=name,
        )
    return EnvVar(name, environ[name], source)


def is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier()


def make_value(variable: EnvVar, rank: RankPlan, numbers: Numbers) -> str:
    """Return the value for one of the ranks. Raises ParseError."""
    if not variable.template:
        return variable.value
    try:
        return fill(variable.value, make_names(numbers, rank.cpus, rank.nodes, rank.group))
    except ParseError as e:
        raise ParseError(f"{variable.source}: {e.message}", hint=e.hint, **e.data) from None


def check_variable(variable: EnvVar, plan: Plan, master: Mapping[str, str], *, fixed: bool) -> None:
    """Raises UsageError for a variable that would override the plan, or that the plan sets."""
    name = variable.name
    problem, hint = "", "leave it out"
    if any(name in r.unset for r in plan.ranks):
        problem = "the plan removes it: a runtime would obey it instead of the plan"
    elif any(name in dict(r.env) for r in plan.ranks):
        problem = "the plan sets it itself"
    elif name.startswith("OMPBIND_") and name != "OMPBIND_FIX_OFF":
        problem = "such names are reserved for ompbind"
    elif name in master:
        problem, hint = "--master-port sets it", "leave one of them out"
    elif name == "PYTHONPATH" and fixed:
        problem = "--fix sets it, in front of the value in ompbind's environment"
        hint = "PYTHONPATH=... ompbind run ... reaches the workers"
    if problem:
        if name in OPTION_FOR:
            hint = f"use {OPTION_FOR[name]}"
        raise UsageError(f"{variable.source}: {problem}", hint=hint, text=name)


# --- files of variables --------------------------------------------------------------------------


def read_variables(path: str) -> list[EnvVar]:
    """Read a file of --env-file. Raises UsageError."""
    name = f"--env-file {quote(path, 400)}"
    try:
        text = os.fsdecode(read_input(path, 1 << 30))
    except OSError as e:
        raise UsageError(f"{name}: {e.strerror}") from None
    lines = enumerate(text.split("\n"), 1)
    parsed = [parse_line(line, f"{name}, line {n}") for n, line in lines]
    return [variable for variable in parsed if variable is not None]


def parse_line(line: str, source: str) -> EnvVar | None:
    """Parse `NAME=VALUE`; None for a blank line and for a comment, which begins with # or ;.

    Blanks around name and value are dropped. A value in single quotes is taken literally, one in
    double quotes with \\\\, \\", \\n and \\t replaced, and any other literally, even with # and
    quotes inside. Raises UsageError.
    """
    line = line.strip(" \t\r")
    if not line or line[0] in "#;":
        return None
    name, equals, value = line.removeprefix("export ").partition("=")
    name, value = name.strip(" \t"), value.strip(" \t")
    if not is_name(name):
        raise UsageError(f"{source}: {quote(name)} is not a variable name", hint="write NAME=VALUE")
    if not equals:
        raise UsageError(
            f"{source}: {name} has no value",
            hint=f"write {name}=VALUE, or {name}= for an empty one",
        )
    if "\0" in value:
        raise UsageError(f"{source}: the value of {name} has a NUL character")
    if value[:1] in QUOTES:
        inner = unquote(value)
        if inner is None:
            raise UsageError(
                f"{source}: the value of {name} does not end with its opening quote",
                hint='write a double quote inside double quotes as \\"',
            )
        value = inner
    return EnvVar(name, value, f"{source}, {name}")


def unquote(text: str) -> str | None:
    """Return the text between the quotes that `text` begins and ends with; None if it does not."""
    mark, at = text[0], 1
    done: list[str] = []
    while at < len(text):
        if text[at] == mark:
            return "".join(done) if at == len(text) - 1 else None
        pair = mark == '"' and text[at] == "\\" and text[at + 1 : at + 2] in ESCAPES
        done.append(ESCAPES[text[at + 1]] if pair else text[at])
        at += 2 if pair else 1
    return None


# --- torch.distributed ---------------------------------------------------------------------------


def make_master(variables: Variables) -> dict[str, str]:
    """Return MASTER_ADDR and MASTER_PORT if they are asked for."""
    port, address = variables.master_port, variables.master_addr
    if port is None and address is None:
        return {}
    if not isinstance(port, int):
        port = find_port()
    return {"MASTER_ADDR": address or "127.0.0.1", "MASTER_PORT": str(port)}


def find_port() -> int:
    """Return a port that is free now. Raises OSError."""
    import socket

    for family in (socket.AF_INET6, socket.AF_INET):  # the former listens for both if possible
        try:
            with socket.socket(family, socket.SOCK_STREAM) as s:
                s.bind(("", 0))
                return int(s.getsockname()[1])
        except OSError:
            if family == socket.AF_INET:
                raise
    raise AssertionError
