"""ompbind's commands as typer knows them: it writes and installs the completion scripts of shells,
and answers PowerShell's questions. The other shells' are answered in `completion`, which is faster.

typer never runs a command and shows no help.
"""

from __future__ import annotations

import inspect
import io
import os
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from typer.completion import install  # type: ignore[attr-defined]

from ompbind.cli.help import COMMANDS
from ompbind.errors import UsageError
from ompbind.messages import did_you_mean, quote, write_output
from ompbind.options.commands import options_of
from ompbind.options.table import Option

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
VARIABLE = "_OMPBIND_COMPLETE"


def set_up_completion(name: str, words: list[str]) -> int:
    """Carry out `--install-completion [SHELL]` or `--show-completion`. Raises UsageError."""
    shell = words[0] if words else find_shell()
    if shell not in SHELLS or words[1:]:
        hint = did_you_mean(shell, SHELLS) or f"{name} bash, zsh or fish"
        raise UsageError(f"{name}: {quote(' '.join(words) or shell)} is not a shell", hint=hint)
    if name == "--show-completion":
        os.environ[VARIABLE] = f"source_{shell}"
        return answer_with_typer()
    _, path = install(shell, "ompbind", VARIABLE)
    if shell == "zsh":  # else the first TAB of a session only loads the file
        with open(path, "a", encoding="utf-8") as file:
            file.write('\n_ompbind_completion "$@"\n')
    write_output(f"installed completion for {shell} in {path}; start a new shell to use it\n")
    return 0


def find_shell() -> str:
    """Return the name of the shell that ompbind was typed into, else that of the user's own."""
    from ompbind.machine import living_root
    from ompbind.machine.processes import read_name, read_parent

    root, pid = living_root(), os.getppid()
    while pid > 1:
        name = read_name(root, pid)
        if name in SHELLS:
            return name
        pid = read_parent(root, pid) or 0
    return os.path.basename(os.environ.get("SHELL", ""))


def answer_with_typer() -> int:
    """Let typer answer what VARIABLE asks; return the exit status. Raises as write_output does:
    typer itself says nothing of a standard output that is closed."""
    answer = io.StringIO()
    status: object = 0
    with redirect_stdout(answer):
        try:
            make_app()(args=[], prog_name="ompbind", standalone_mode=True)
        except SystemExit as e:
            status = e.code
    write_output(answer.getvalue())
    return status if isinstance(status, int) else 125


def make_app() -> typer.Typer:
    """Return the group of commands with all their options."""
    app = typer.Typer(add_completion=True)

    @app.callback()
    def root() -> None:
        """The options before a command."""

    for command in COMMANDS:
        app.command(command.name, context_settings={"allow_interspersed_args": False})(
            make_command(command.name)
        )
    return app


def make_command(name: str) -> Any:
    """Return a function whose signature is the command's options, for typer to read."""

    def command(**_: object) -> None:
        """Never called."""

    parameters = [make_parameter(option) for option in options_of(name)]
    words = Annotated[list[str] | None, typer.Argument()]
    parameters.append(
        inspect.Parameter("command", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=words)
    )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def make_parameter(option: Option) -> inspect.Parameter:
    """Return an option of the table as a parameter that typer reads."""
    names = list(option.names)
    if option.no:
        names[0] += f"/--no-{names[0][2:]}"
    several = option.kind == "list" or option.many
    kind: Any = bool if option.kind == "flag" else list[str] if several else str

    def complete(incomplete: str) -> list[str]:
        return [c for c in option.choices if c.startswith(incomplete)]

    declared = typer.Option(
        *names, help=option.help, autocompletion=complete if option.choices else None
    )
    annotation = Annotated[kind | None, declared]
    return inspect.Parameter(
        option.key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
