"""The commands: from arguments to an exit status.

`run` is on everybody's start path, so each command imports what it needs when it is called; help
and shell completion are made in `cli`, by typer, from the same table of options.
"""

from __future__ import annotations

import os
import sys

from ompbind.cpuset import parse_whole, shown
from ompbind.errors import OmpbindError, UsageError
from ompbind.options.parse import nearest_hint, parse_arguments
from ompbind.options.table import options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import NoReturn

    from ompbind.launch.settings import Prove
    from ompbind.options.parse import Values
    from ompbind.plans import Plan
    from ompbind.verify.report import Report

HELP = ("--help", "-h")
COMPLETION = "_OMPBIND_COMPLETE"  # set by a shell's completion


def main(args: Sequence[str]) -> int:
    """Runs the command line and returns the exit status of the contract."""
    try:
        name, *rest = args or HELP
        if name in COMMANDS and COMPLETION not in os.environ and not asks_for_help(name, rest):
            return COMMANDS[name](rest)
        if name not in COMMANDS and not name.startswith("-"):
            hint = nearest_hint(name, tuple(COMMANDS))
            hint = hint or f"commands: {', '.join(COMMANDS)}; ompbind run -- {name} starts it bound"
            raise UsageError(f"{shown(name)} is not a command of ompbind", hint=hint)
        from ompbind.cli.help import print_help

        return print_help(list(args or HELP))
    except OmpbindError as e:
        say("error", e.message)
        if e.hint:
            tell(f"hint: {one_line(e.hint)}")
        return e.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except (OSError, MemoryError) as e:  # no descriptors, no processes, no memory left
        say("error", f"the system refuses: {e or 'no memory is left'}")
        return 125
    except (ImportError, EOFError, SyntaxError) as e:  # a file of ours, or of Python's, is not read
        say("error", f"the system refuses to load a module: {e}")
        return 125
    except Exception as e:
        say("error", f"a fault of ompbind's own: {e!r}")
        tell(f"hint: please report it: {place_of(e)}")
        return 125


def place_of(error: Exception) -> str:
    """Where an exception was raised: module:line, from the outermost of ours on."""
    places = []
    frame = error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        places.append(f"{os.path.basename(code.co_filename)}:{frame.tb_lineno}")
        frame = frame.tb_next
    return " ".join(places)


def leave(status: int) -> NoReturn:
    """Ends this process at once: what Python tidies up at its end takes a tenth of a start."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # None: closed by whoever started us
                stream.flush()
        except (OSError, ValueError):
            pass  # nobody to tell
    os._exit(status)


def asks_for_help(name: str, args: Sequence[str]) -> bool:
    """Whether --help stands among the command's own arguments, before the worker's begin."""
    for n, word in enumerate(args):
        if word == "--":
            return False
        if word in HELP:
            try:
                return name == "verify" or not parse_arguments(args[:n], options_of(name))[1]
            except OmpbindError:
                return True
    return False


def run(args: Sequence[str]) -> int:
    """`ompbind run`. Raises OmpbindError."""
    import gc

    gc.disable()  # a launch is over before there is anything to collect
    from ompbind import launch
    from ompbind.launch.settings import make_settings
    from ompbind.prepare import check_plan, prepare_plan

    values, command = parse_arguments(args, options_of("run"))
    if wants_list(values):
        return list_fixes()
    if "topology" in values:
        raise UsageError(
            "--topology is another machine, where nothing can be run from here",
            hint="ompbind show --topology plans for it",
        )
    if not command and "plan" not in values:
        from ompbind.planner.request import make_request

        make_request(values)  # a list option may have swallowed the command: it then says so
        raise UsageError("no command to run", hint="put it after --: ompbind run -- COMMAND")
    settings = make_settings(values).replace(prove=make_prover(values))
    environ = given_environment()
    plan = prepare_plan(values, command, environ)
    if "plan" in values:
        check_plan(plan)
    if plan.inherited:
        judged = "; ".join(f"{i.name}={i.value} {i.action}" for i in plan.inherited)
        say("note", f"{judged} (ompbind show tells why)")
    for warning in plan.warnings:
        say("warning", warning)
    return launch.run(
        plan,
        environ,
        lambda text: say("warning", text),
        settings,
    )


def given_environment() -> dict[str, str]:
    """The environment as it was given to us. In the C locale Python puts an LC_CTYPE of its own
    into it (PEP 538), which is no worker's."""
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        from ompbind.machine import living_root
        from ompbind.machine.processes import read_environ

        given = read_environ(living_root(), os.getpid()) if sys.platform == "linux" else None
        if given is not None and "LC_CTYPE" not in dict(given):
            del environ["LC_CTYPE"]
    return environ


def show(args: Sequence[str]) -> int:
    """`ompbind show`. Raises OmpbindError."""
    from ompbind.prepare import prepare_plan

    values, command = parse_arguments(args, options_of("show"))
    if wants_list(values):
        return list_fixes()
    plan = prepare_plan(values, command, dict(os.environ))
    form = values.get("format", "table")
    rank = chosen_rank(plan, values.get("rank"), one_needed=form == "env")
    sentences: list[str] = []
    if "explain" in values:
        if form in ("env", "argv"):
            raise UsageError(f"--explain does not go with --format {form}", hint="table or json")
        from ompbind.render.sentences import explain

        sentences = explain(plan)
    if form == "json":
        write(plan.to_json(sentences))
    elif form == "env":
        write(environment_lines(plan, rank or 0))
    elif form == "argv":
        write(argv_lines(plan, rank))
    else:
        from ompbind.render import make_text
        from ompbind.render.plan import draw_plan

        write(make_text(draw_plan(plan, sentences)))
        return 0
    for warning in plan.warnings if form != "json" else ():
        say("warning", warning)
    return 0


def wants_list(values: Values) -> bool:
    """Whether --fix list is among what --fix names."""
    return "list" in str(values.get("fix")).split(",")


def list_fixes() -> int:
    from ompbind.fixes import registry

    write(registry.list_fixes())
    return 0


def topo(args: Sequence[str]) -> int:
    """`ompbind topo`. Raises OmpbindError."""
    from ompbind.machine import read_machine, save_machine

    values, extra = parse_arguments(args, options_of("topo"))
    if extra:
        raise UsageError(f"topo takes no {shown(extra[0])}", hint="ompbind topo --help")
    path, file = values.get("topology"), values.get("save")
    path = path if isinstance(path, str) else None
    if isinstance(file, str):
        save_machine(file, path, with_name=values.get("with_name") is True)
        say("note", f"saved to {file}")
        return 0
    machine = read_machine(path)
    if values.get("format", "table") == "json":
        write(machine.to_json())
    else:
        from ompbind.render import make_text
        from ompbind.render.machine import draw_machine

        write(make_text(draw_machine(machine)))
    return 0


def doctor(args: Sequence[str]) -> int:
    """`ompbind doctor`. Raises OmpbindError."""
    from ompbind.doctor import gather
    from ompbind.doctor.findings import examine, prevents, to_json

    values, command = parse_arguments(args, options_of("doctor"))
    findings = examine(gather(command, dict(os.environ)))
    if values.get("format") == "json":
        write(to_json(findings))
    else:
        from ompbind.render import make_text
        from ompbind.render.doctor import draw_findings

        write(make_text(draw_findings(findings)))
    return 1 if prevents(findings) else 0


def make_prover(values: Values) -> Prove | None:
    """What looks at the ranks for --verify. Raises UsageError, TopologyError."""
    if "verify" not in values and "verify_strict" not in values:
        return None
    from ompbind.launch.settings import parse_seconds
    from ompbind.machine import living_root
    from ompbind.verify.after_start import SECONDS, Prover

    text = values.get("verify")
    within = parse_seconds(str(text), "--verify") if text else SECONDS
    return Prover(living_root(), say, within=within, strict="verify_strict" in values)


def verify(args: Sequence[str]) -> int:
    """`ompbind verify`. Raises OmpbindError."""
    from ompbind.machine import living_root
    from ompbind.prepare import read_plan, text_of
    from ompbind.verify import check, find_targets

    values, pids = parse_verify(args)
    interval = parse_interval(str(values["watch"])) if "watch" in values else None
    plan = read_plan(text_of(values, "plan") or "") if "plan" in values else None
    root = living_root()
    targets = find_targets(root, pids, plan)
    report = check(root, targets)
    if interval is not None:
        return watch(report, lambda: check(root, targets), interval, values.get("format"))
    if values.get("format") == "json":
        write(report.to_json())
    else:
        from ompbind.render import make_text
        from ompbind.render.report import draw_report

        write(make_text(draw_report(report)))
    return 0 if report.holds else 1


def parse_verify(args: Sequence[str]) -> tuple[Values, list[int]]:
    """The options and the pids, in any order. Raises UsageError."""
    options = options_of("verify")
    values, rest = parse_arguments(args, options)
    pids = []
    while rest:
        pid = parse_whole(rest[0])
        if pid is None:
            raise UsageError(f"{shown(rest[0])} is not a pid", hint="ompbind verify PID...")
        pids.append(pid)
        more, rest = parse_arguments(rest[1:], options)
        values |= more
    if not pids:
        hint = "ompbind verify PID...; an ompbind run's own pid stands for all its ranks"
        raise UsageError("no pid to verify", hint=hint)
    return values, pids


def parse_interval(text: str) -> float:
    """The seconds of --watch. Raises UsageError."""
    from ompbind.launch.settings import parse_seconds

    seconds = parse_seconds(text or "2", "--watch")
    if seconds < 0.05:
        raise UsageError(f"--watch: {shown(text)} is too often", hint="0.05 seconds or more")
    return seconds


def watch(first: Report, look: Callable[[], Report], interval: float, form: object) -> int:
    """Shows report after report, until interrupted or all have ended; the last one's status."""
    import time

    last = first

    def reports() -> Iterator[Report]:
        nonlocal last
        while any(not p.seen.ended for p in last.processes):
            yield last
            time.sleep(interval)
            report = look()
            if all(p.seen.ended for p in report.processes):
                return
            last = report

    try:
        if form == "json":  # an object a line
            for report in reports():
                write(report.to_json(indent=None))
        else:
            from ompbind.render import draw_live
            from ompbind.render.report import draw_report

            draw_live(draw_report(report) for report in reports())
    except KeyboardInterrupt:
        pass
    return 0 if last.holds else 1


def chosen_rank(plan: Plan, text: object, *, one_needed: bool) -> int | None:
    """The rank that --rank names; None: all. Raises UsageError."""
    last = len(plan.ranks) - 1
    hint = f"ranks: 0-{last}" if last else "the only rank is 0"
    if isinstance(text, str):
        number = parse_whole(text)
        if number is not None and number <= last:
            return number
        raise UsageError(f"--rank {shown(text)}: there is no such rank", hint=hint)
    if one_needed and last:
        raise UsageError("--format env is for one rank", hint=f"--rank R; {hint}")
    return None if last else 0


def environment_lines(plan: Plan, rank: int) -> str:
    """What a shell can eval to have the rank's environment."""
    import shlex

    chosen = plan.ranks[rank]
    unset = [f"unset {' '.join(chosen.unset)}\n"] if chosen.unset else []
    return "".join(unset + [f"export {k}={shlex.quote(v)}\n" for k, v in chosen.env])


def argv_lines(plan: Plan, rank: int | None) -> str:
    """Exactly what is executed, quoted for a shell, a line for each rank."""
    import shlex

    if plan.binder == "native":
        say("note", "without numactl ompbind binds by itself: pasted, these lines do not bind")
    ranks = plan.ranks if rank is None else (plan.ranks[rank],)
    return "".join(shlex.join(r.argv) + "\n" for r in ranks)


def write(text: str) -> None:
    """To standard output; arguments that are not UTF-8 come out as they came in.

    Raises OmpbindError when it cannot be written, BrokenPipeError when nobody reads it any more.
    """
    data = text.encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise
    except OSError as e:
        raise OmpbindError(f"standard output cannot be written: {e.strerror}") from None


def say(kind: str, text: str) -> None:
    """One line on standard error."""
    tell(f"ompbind: {kind}: {one_line(text)}")


def tell(line: str) -> None:
    try:
        if sys.stderr is not None:  # None: closed by whoever started us
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
    except OSError:
        pass  # nobody to tell


def one_line(text: str) -> str:
    """Line breaks, control characters and undecodable bytes escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "show": show,
    "topo": topo,
    "verify": verify,
    "doctor": doctor,
}
