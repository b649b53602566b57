"""The command line: finds the command, runs it, and turns an error into one line and a status.

`run` is on everybody's start path: each command is a module of its own, imported when it is called.
"""

from __future__ import annotations

import os
import sys

from ompbind.errors import OmpbindError, UsageError, system_error
from ompbind.messages import did_you_mean, quote, say, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

COMMANDS = ("run", "show", "topo", "verify", "doctor", "compare", "ps", "rebind")
HELP = ("--help", "-h")
VERSION = ("--version", "-V")
SET_UP_COMPLETION = ("--install-completion", "--show-completion")
COMPLETION = "_OMPBIND_COMPLETE"  # set by a shell that asks what can be typed


def main(args: Sequence[str]) -> int:
    """Run the command line and return the exit status of the contract."""
    try:
        if os.environ.get(COMPLETION):
            return answer_shell(os.environ[COMPLETION])
        name, *rest = args or ("--help",)
        if name not in COMMANDS:
            return run_root(name, rest)
        if word := find_help(name, rest):
            from ompbind.cli.help import print_help

            return print_help(name, short=word == "-h")
        command = find_command(name)
        if name != "run":  # which is over, or supervises, before there is anything to collect
            import gc

            gc.enable()
        return command(rest)
    except OmpbindError as e:
        if os.environ.get("OMPBIND_OPTIONS"):
            from ompbind.options.defaults import explain_origin

            e = explain_origin(e, os.environ["OMPBIND_OPTIONS"], args)
        return report(e)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except (OSError, MemoryError) as e:  # no descriptors, no processes, no memory left
        return report(system_error(e))
    except (ImportError, EOFError, SyntaxError) as e:  # a file of ours or of Python's is unreadable
        return report(OmpbindError(f"cannot load a module: {e}", hint=hint_for_module(e)))
    except Exception as e:
        hint = f"report it, with where it happened: {trace(e)}"
        return report(OmpbindError(f"internal error: {e!r}", hint=hint))


def hint_for_module(error: Exception) -> str:
    """Return what to do about a module that does not exist; "" for any other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    if error.name.partition(".")[0] in sys.stdlib_module_names:
        return "install Python's whole standard library: Debian's python3, not only python3-minimal"
    return "install ompbind with what it needs: pip install ompbind"


def report(error: OmpbindError) -> int:
    """Write an error, and its hint where it has one; return its exit status. Where an engine has
    started several ranks, each may fail for itself: they are told apart."""
    say("error", f"{name_rank()}{error.message}", error.hint)
    return error.status


def name_rank() -> str:
    """Return `rank 3 on n0: ` for a rank of an engine with several, else ""."""
    from ompbind.options import is_under_engine

    if not is_under_engine({}, os.environ):
        return ""
    from ompbind.engines import find_rank
    from ompbind.machine import linux_root
    from ompbind.machine.limits import read_hostname

    try:
        task = find_rank(None, None, os.environ).task
    except OmpbindError:  # the error that is reported, probably
        return ""
    root = linux_root()
    host = read_hostname(root) if root else ""
    if task.rank is None or task.ranks == 1:
        return ""
    return f"rank {task.rank}{f' on {host}' if host else ''}: "


def find_command(name: str) -> Callable[[Sequence[str]], int]:
    """Import one of COMMANDS and return its function, from arguments to an exit status."""
    if name == "run":
        from ompbind.cli.run import run

        return run
    if name == "show":
        from ompbind.cli.show import show

        return show
    if name == "topo":
        from ompbind.cli.topo import topo

        return topo
    if name == "verify":
        from ompbind.cli.verify import verify

        return verify
    if name == "compare":
        from ompbind.cli.compare import compare

        return compare
    if name == "ps":
        from ompbind.cli.ps import ps

        return ps
    if name == "rebind":
        from ompbind.cli.rebind import rebind

        return rebind
    from ompbind.cli.doctor import doctor

    return doctor


def trace(error: Exception) -> str:
    """Return where an exception was raised as file:line, from the outermost call on."""
    places = []
    frame = error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        places.append(f"{os.path.basename(code.co_filename)}:{frame.tb_lineno}")
        frame = frame.tb_next
    return " ".join(places)


def leave(status: int) -> NoReturn:
    """Exit at once: what Python tidies up at its end takes a tenth of a start."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # None: closed by whoever started us
                stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads it
    os._exit(status)


def find_help(name: str, args: Sequence[str]) -> str:
    """Return the -h or --help among the command's own arguments, before the worker's; else ""."""
    for n, word in enumerate(args):
        if word == "--":
            return ""
        if word in HELP:
            from ompbind.options import parse_arguments
            from ompbind.options.commands import options_of

            try:
                before_command = not parse_arguments(args[:n], options_of(name))[1]
            except OmpbindError:
                before_command = True
            return word if before_command or name in ("verify", "rebind") else ""
    return ""


def run_root(name: str, rest: Sequence[str]) -> int:
    """Carry out what is not one of COMMANDS. Raises UsageError."""
    if name in HELP:
        from ompbind.cli.help import print_help

        return print_help(short=name == "-h")
    if name in VERSION:
        from ompbind.cli.version import print_version

        return print_version(short=name == "-V")
    if name == "help":
        from ompbind.cli.help import print_topic

        return print_topic(rest)
    if name in SET_UP_COMPLETION:
        from ompbind.cli.group import set_up_completion

        return set_up_completion(name, list(rest))
    from ompbind.options.foreign import hint_for_root

    if name.startswith("-"):
        known = (*HELP, *VERSION, *SET_UP_COMPLETION)
        hint = hint_for_root(name) or did_you_mean(name, known) or "see ompbind --help"
        raise UsageError(f"{quote(name)} is not an option of ompbind itself", hint=hint)
    hint = did_you_mean(name, (*COMMANDS, "help"))
    hint = hint or f"commands: {', '.join(COMMANDS)}; ompbind run -- {name} starts it bound"
    raise UsageError(f"{quote(name)} is not a command of ompbind", hint=hint)


def answer_shell(instruction: str) -> int:
    """Write what can be typed at the cursor of a shell's command line; return the exit status."""
    from ompbind.cli.completion import answer

    answered = answer(instruction, os.environ)
    if answered is None:
        from ompbind.cli.group import answer_with_typer

        return answer_with_typer()
    write_output(answered[0])
    return answered[1]
