"""The variables that --env, --env-file and --master-port add to the workers' environment."""

from __future__ import annotations

import os

from ompbind.errors import ParseError, UsageError
from ompbind.messages import quote
from ompbind.record import Record
from ompbind.worker.template import fill, make_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.plans import Plan, RankPlan

# Options that say what a variable of the plan would have said.
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
ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t"}  # in double quotes, after a backslash


class Asked(Record):
    """A variable that is asked for: `where`, for messages, and whether its value is a template."""

    name: str
    value: str
    where: str
    template: bool = False


class Variables(Record):
    """The variables that the options add. `texts`: of --env, NAME=VALUE or NAME; `files`: paths of
    --env-file; `master_port`: "auto", a port's number or None, as not asked for; `rank_env`: None
    means not asked for; `fixes`: whether --fix is given."""

    texts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    master_port: int | str | None = None
    master_addr: str | None = None
    rank_env: bool | None = None
    fixes: bool = False


def with_environment(plan: Plan, variables: Variables, environ: Mapping[str, str]) -> Plan:
    """Return the plan whose workers also get these variables. Raises UsageError, ParseError."""
    found = [a for path in variables.files for a in read_file(path)]
    found += [parse_variable(text, environ) for text in variables.texts]
    asked = {a.name: a for a in found}  # the last wins
    master = make_master(variables)
    for a in asked.values():
        check_name(a, plan, master, fixed=variables.fixes)
    count, ranks = len(plan.ranks), []
    for r in plan.ranks:
        env = dict(r.env)
        if master and variables.rank_env is not False:
            who = {"RANK": str(r.rank), "WORLD_SIZE": str(count)}
            env |= who | {f"LOCAL_{name}": value for name, value in who.items()}
        env |= master | {a.name: make_value(a, r, count) for a in asked.values()}
        ranks.append(r.replace(env=tuple(env.items())))
    return plan.replace(ranks=tuple(ranks))


def parse_variable(text: str, environ: Mapping[str, str]) -> Asked:
    """`NAME=VALUE`; NAME alone takes its value from `environ`. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not is_name(name):
        raise UsageError(
            f"--env: {quote(name)} is no variable's name",
            hint="NAME=VALUE, the name of letters, digits and underscores",
            text=text,
        )
    if not equals and name not in environ:
        raise UsageError(
            f"--env {name}: there is no such variable here whose value it could take",
            hint=f"{name}=VALUE sets it",
            text=text,
        )
    where = f"--env {name}"
    return Asked(name, value, where, True) if equals else Asked(name, environ[name], where)


def is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier()


def make_value(asked: Asked, rank: RankPlan, count: int) -> str:
    """A rank's value. Raises ParseError."""
    if not asked.template:
        return asked.value
    try:
        return fill(asked.value, make_names(rank.rank, count, rank.cpus, rank.nodes))
    except ParseError as e:
        raise ParseError(f"{asked.where}: {e.message}", hint=e.hint, **e.data) from None


def check_name(asked: Asked, plan: Plan, master: Mapping[str, str], *, fixed: bool) -> None:
    """Refuses to set what would defeat the plan, or what it sets itself. Raises UsageError."""
    name = asked.name
    problem, hint = "", "leave it out"
    if any(name in r.unset for r in plan.ranks):
        problem = "the plan removes it: a runtime would follow it instead of the plan"
    elif any(name in dict(r.env) for r in plan.ranks):
        problem = "the plan sets it itself"
    elif name.startswith("OMPBIND_") and name != "OMPBIND_FIX_OFF":
        problem = "such names are ompbind's own"
    elif name in master:
        problem, hint = "--master-port sets it", "leave one of them out"
    elif name == "PYTHONPATH" and fixed:
        problem = "--fix sets it, with what ompbind's own environment says in front"
        hint = "PYTHONPATH=... ompbind run ... reaches the workers"
    if problem:
        if name in OPTION_FOR:
            hint = f"{OPTION_FOR[name]} is the option for it"
        raise UsageError(f"{asked.where}: {problem}", hint=hint, text=name)


# --- files of variables --------------------------------------------------------------------------


def read_file(path: str) -> list[Asked]:
    """Raises UsageError."""
    name = f"--env-file {quote(path, 400)}"
    try:
        with open(path, "rb") as file:
            text = os.fsdecode(file.read())
    except OSError as e:
        raise UsageError(f"{name}: {e.strerror}") from None
    lines = enumerate(text.split("\n"), 1)
    parsed = [parse_line(line, f"{name}, line {n}") for n, line in lines]
    return [asked for asked in parsed if asked is not None]


def parse_line(line: str, where: str) -> Asked | None:
    """`NAME=VALUE` of a file; None for a blank line and for a comment, which begins with # or ;.

    Blanks around name and value are left out. A value in single quotes is taken as it is, one in
    double quotes with \\\\, \\", \\n and \\t replaced; any other as it is, # and quotes inside it
    too. Raises UsageError.
    """
    line = line.strip(" \t\r")
    if not line or line[0] in "#;":
        return None
    name, equals, value = line.removeprefix("export ").partition("=")
    name, value = name.strip(" \t"), value.strip(" \t")
    if not is_name(name):
        raise UsageError(f"{where}: {quote(name)} is no variable's name", hint="NAME=VALUE")
    if not equals:
        raise UsageError(f"{where}: {name} has no value", hint=f"{name}=VALUE, or {name}= for none")
    if "\0" in value:
        raise UsageError(f"{where}: the value of {name} has a NUL, which no variable can hold")
    if value[:1] in QUOTES:
        inner = unquote(value)
        if inner is None:
            raise UsageError(
                f"{where}: the value of {name} does not end with the quote that it begins with",
                hint='a double quote inside double quotes is written \\"',
            )
        value = inner
    return Asked(name, value, f"{where}, {name}")


def unquote(text: str) -> str | None:
    """What stands between the quotes that `text` begins with; None where it does not end there."""
    quote, at = text[0], 1
    done: list[str] = []
    while at < len(text):
        if text[at] == quote:
            return "".join(done) if at == len(text) - 1 else None
        pair = quote == '"' and text[at] == "\\" and text[at + 1 : at + 2] in ESCAPES
        done.append(ESCAPES[text[at + 1]] if pair else text[at])
        at += 2 if pair else 1
    return None


# --- torch.distributed ---------------------------------------------------------------------------


def make_master(variables: Variables) -> dict[str, str]:
    """Return MASTER_ADDR and MASTER_PORT where they are asked for."""
    port, address = variables.master_port, variables.master_addr
    if port is None and address is None:
        return {}
    if not isinstance(port, int):
        port = find_port()
    return {"MASTER_ADDR": address or "127.0.0.1", "MASTER_PORT": str(port)}


def find_port() -> int:
    """A port that is free now. Raises OSError."""
    import socket

    for family in (socket.AF_INET6, socket.AF_INET):  # the former listens for both where it can
        try:
            with socket.socket(family, socket.SOCK_STREAM) as s:
                s.bind(("", 0))
                return int(s.getsockname()[1])
        except OSError:
            if family == socket.AF_INET:
                raise
    raise AssertionError
