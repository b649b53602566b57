"""Help texts and shell completion, made by typer from the table of options.

typer never runs a command: `commands` does, after the strict parser in `arguments`.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from ompbind import __version__
from ompbind.options.table import Option, options_of

INTRO = """Starts worker processes where they belong on a machine.

ompbind reads the topology, works out for every worker (rank) its cpus, its OpenMP places and its
memory node, and starts each so. `show` prints that plan, `run` executes it.
"""

HELP_TEXTS = {
    "doctor": """Tell what this machine, container or job allows, and what spoils performance.

Each finding comes with its remedy. The system calls that bind are really tried, in a process of
their own. With a command: which OpenMP runtimes its files bring; it is not started. The exit status
is 1 where something prevents binding.

Examples:

  ompbind doctor                                         here and now

  ompbind doctor -- python -c 'import torch'             and the OpenMP runtimes of torch
""",
    "run": """Start COMMAND bound, as one rank or several.

Everything after -- is the worker's own command line; nothing goes through a shell. One rank
replaces ompbind itself, several are watched over. The exit status is the worker's, the first
failure's among several; 125: ompbind refused, 126: the command cannot be executed, 127: not found.

Examples:

  ompbind run -- ./solver                                every allowed core, a place for each

  ompbind run --numa-bind-nodes 0 0 1 1 -- python w.py   four ranks, two on each node

  ompbind run --per l3 -- ./solver                       a rank for each last-level cache

  ompbind run -n 2 --template -- serve --port {8000+rank}  the rank in the arguments
""",
    "show": """Print the plan that `run` would execute, and start nothing.

Examples:

  ompbind show --per numa --numa-bind                    a table to look at

  ompbind show -n 4 --format json -- ./solver            everything, for a script or for --plan

  eval "$(ompbind show -n 4 --rank 2 --format env)"      one rank's environment in this shell

  ompbind show --topology /tmp/server -n 8               a plan for another machine
""",
    "verify": """Look at running workers, and compare what really is with the plan.

Every thread's allowed cpus and the cpu it last ran on, the memory policy and the pages on each
node, beside the plan that ompbind told the worker, or that of --plan. The pid of an ompbind run, or
of a script around it, stands for all its ranks. What a rank has started is looked at as well.

The exit status is 0 when all is as planned and 1 when not; 125: no such process, or no worker.

Examples:

  ompbind verify 4711                                    a worker, or the ompbind that started it

  ompbind verify --plan plan.json 4711 4712              against a saved plan

  ompbind verify --watch 4711                            again and again, until interrupted

  ompbind verify --format json 4711                      for a script
""",
    "topo": """Draw the machine, print it as JSON, or save it.

Examples:

  ompbind topo                                           what this machine is made of

  ompbind topo --save server.topo                        for a plan made elsewhere, or a bug report

  ompbind topo --topology server.topo                    look at it there
""",
}


def print_help(args: list[str]) -> int:
    """Lets typer answer --help, --version and completion; returns the exit status."""
    app = make_app()
    try:
        app(args=args, prog_name="ompbind", standalone_mode=True)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 125
    return 0


def make_app() -> typer.Typer:
    app = typer.Typer(
        help=INTRO,
        add_completion=True,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def top(
        version: Annotated[
            bool,
            typer.Option(
                "--version", is_eager=True, callback=print_version, help="Print the version."
            ),
        ] = False,
    ) -> None:
        """The options before a command."""

    for name, text in HELP_TEXTS.items():
        app.command(
            name,
            help=text,
            context_settings={"allow_interspersed_args": False},
            options_metavar="[OPTIONS]",
        )(make_command(name))
    top.__doc__ = INTRO
    return app


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ompbind {__version__}")
        raise typer.Exit


def make_command(name: str) -> Any:
    """A function whose signature is the command's options; it only lends them to typer."""

    def command(**_: object) -> None:
        """Never called."""

    parameters = [make_parameter(option) for option in options_of(name)]
    metavar = "PID..." if name == "verify" else "[-- COMMAND [ARG]...]"
    words = Annotated[list[str] | None, typer.Argument(metavar=metavar, show_default=False)]
    parameters.append(
        inspect.Parameter("command", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=words)
    )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def make_parameter(option: Option) -> inspect.Parameter:
    names = list(option.names)
    if option.no:
        names[0] += f"/--no-{names[0][2:]}"
    several = option.kind == "list" or option.many
    kind: Any = bool if option.kind == "flag" else list[str] if several else str

    def complete(incomplete: str) -> list[str]:
        return [c for c in option.choices if c.startswith(incomplete)]

    declared = typer.Option(
        *names,
        help=option.help,
        metavar=option.value or None,
        show_default=False,
        rich_help_panel=option.panel,
        autocompletion=complete if option.choices else None,
    )
    annotation = Annotated[kind | None, declared]
    return inspect.Parameter(
        option.key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
