"""`ompbind compare`: which binding is best for a command, and whether it matters."""

from __future__ import annotations

import os
import time

from ompbind.cli.output_file import find_problem, write_file
from ompbind.cli.progress import ProgressLine
from ompbind.cli.run import QUIET, SERVER_GRACE, given_environment
from ompbind.compare.automatic import AUTO, make_automatic
from ompbind.compare.experiment import ROUNDS, Experiment, Limits
from ompbind.compare.measure import measure
from ompbind.compare.metric import make_metric
from ompbind.compare.procedure import Conditions, make_procedure
from ompbind.compare.result import Result, read_result, to_csv, to_json
from ompbind.compare.spoilers import find_spoilers
from ompbind.compare.statistics import fewest_rounds
from ompbind.compare.variants import (
    make_ablation,
    make_grid,
    make_variants,
    parse_variant,
    plan_rows,
)
from ompbind.compare.watch import Watch
from ompbind.cpuset import union
from ompbind.errors import TopologyError, UsageError
from ompbind.host import Lease
from ompbind.launch.trial import Interruption, catch_signals
from ompbind.machine import linux_root, read_machine
from ompbind.messages import counted, quote, say, write_output
from ompbind.options import make_values, parse_arguments
from ompbind.options.commands import options_of
from ompbind.saved import check_plan
from ompbind.worker import require_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.compare.experiment import Run
    from ompbind.compare.metric import Metric
    from ompbind.compare.variants import Omitted, Wish
    from ompbind.cpuset import CpuSet
    from ompbind.options import Texts
    from ompbind.options.values import Values

GRACE = 10.0  # seconds from each step of ending a run to the next
# What goes with --resume: the file has everything else.
WITH_RESUME = ("resume", "runs", "time", "warmup", "timeout", "format", "save", "html", "ablate")


def compare(args: Sequence[str]) -> int:
    """Carry out `ompbind compare`; return the exit status. Raises OmpbindError."""
    texts, command = parse_arguments(args, options_of("compare"))
    rows = plan_rows()
    common = {key: text for key, text in texts.items() if key in rows}
    ours = {key: text for key, text in texts.items() if key not in rows}
    values = make_values(ours, [o for o in options_of("compare") if o.key not in rows])
    environ = given_environment()
    lease = Lease.open()
    try:
        if "resume" in values:
            start = resume(values, common, command)
        else:
            if environ.get("OMPBIND_OPTIONS"):
                from ompbind.options.defaults import with_defaults

                common = with_defaults(common, environ, list(rows.values()))
            start = begin(values, common, command, environ, lease)
            start = start.replace(arguments=tuple(args))
        if lease:  # between runs, too, launches that look for free cores pass these over
            lease.hold(union(v.plan.held_by(r) for v in start.variants for r in v.plan.ranks))
        return carry_out(start, values, environ)
    finally:
        if lease:
            lease.close()


def carry_out(start: Result, values: Values, environ: Mapping[str, str]) -> int:
    """Measure the variants, and report; return the exit status. Raises OmpbindError."""
    check_outputs(values)
    procedure = start.procedure
    for words in (start.command, procedure.setup, procedure.load, procedure.cleanup):
        if words:
            require_program(words[0], environ)
    say_variants(start, values.get("runs"))
    catch_signals()
    session = Session(values, environ)
    result = session.carry_out(start)
    if "ablate" in values and not session.number:
        result = session.ablate(result)
    write_result(result, values)
    if session.number:
        return 128 + session.number
    return 0 if result.judge() else 1


def begin(
    values: Values,
    common: Texts,
    command: Sequence[str],
    environ: Mapping[str, str],
    lease: Lease | None,
) -> Result:
    """Return a comparison of the variants that are asked for, with nothing measured; `lease` holds
    cores that nobody else is to have. Raises OmpbindError."""
    if not command:
        raise UsageError("no command to run", hint="ompbind compare [OPTIONS] -- COMMAND")
    metric = make_metric(values.get("metric", "wall"), values.get("better"), values.get("join"))
    procedure = make_procedure(
        setup=values.get("setup"),
        ready=tuple(values.get("ready", ())),
        within=values.get("ready_timeout"),
        load=values.get("load"),
        cleanup=values.get("cleanup"),
    )
    wishes, passed_over = make_wishes(values, common, metric, command, environ)
    unbound = values.get("unbound", True)
    variants, omitted = make_variants(
        wishes, common, command, environ, unbound=unbound, lease=lease
    )
    if not variants[1:]:
        raise UsageError(
            f"there is nothing to compare {variants[0].name} with",
            hint="--vary smt=1,all, or leave --no-unbound out",
        )
    seed = values.get("seed", int.from_bytes(os.urandom(4), "big"))
    return Result(
        command=tuple(command),
        metric=metric,
        variants=tuple(variants),
        omitted=(*passed_over, *omitted),
        seed=seed,
        runs=(),
        ending="",
        procedure=procedure,
    )


def make_wishes(
    values: Values,
    common: Texts,
    metric: Metric,
    command: Sequence[str],
    environ: Mapping[str, str],
) -> tuple[list[Wish], list[Omitted]]:
    """Return the variants of --vary and --variant, and those that auto has passed over. Raises
    OmpbindError."""
    vary = values.get("vary", [])
    by_hand = [parse_variant(text) for text in values.get("variant", ())]
    if AUTO not in vary:
        return [*(make_grid(vary) if vary or not by_hand else []), *by_hand], []
    if vary[1:]:
        raise UsageError(
            "--vary auto chooses what to vary, and another --vary is given",
            hint="leave one of them out; --variant adds plans to those of auto",
        )
    machine = read_machine(devices=False)
    wishes, omitted = make_automatic(machine, common, metric, command, environ)
    return [*wishes, *by_hand], omitted


def resume(values: Values, common: Texts, command: Sequence[str]) -> Result:
    """Return an earlier comparison, to be gone on with. Raises OmpbindError."""
    for key in (*common, *values):
        if key not in WITH_RESUME:
            name = f"--{key.replace('_', '-')}"
            raise UsageError(f"--resume goes on with what the file has: leave {name} out")
    result = read_result(values["resume"])
    if command and tuple(command) != result.command:
        raise UsageError(
            f"--resume: the comparison is of {quote(' '.join(result.command))}",
            hint="leave the command out, or begin a new comparison",
        )
    for variant in result.variants:
        check_plan(variant.plan)
    return result.replace(notes=tuple(f"before: {note}" for note in result.notes))


def check_outputs(values: Values) -> None:
    """Refuse files that cannot be written, before anything is measured. Raises UsageError."""
    for key in ("save", "html"):
        if (path := values.get(key)) and (problem := find_problem(path)):
            raise UsageError(f"--{key} {quote(path)}: {problem}")


def say_variants(start: Result, runs: int | None) -> None:
    """Report the variants that are not measured and why, the warnings of the others' plans, each
    once, and what makes the result say less: too few `runs`, different numbers of ranks."""
    by_reason: dict[str, list[str]] = {}
    for omitted in start.omitted:
        by_reason.setdefault(omitted.why, []).append(omitted.name)
    for why, names in by_reason.items():
        say("note", f"left out {', '.join(names)}: {why}")
    for variant in start.variants:
        if variant.same:
            come = "come" if variant.same[1:] else "comes"
            names = list(variant.same)
            say("note", f"{', '.join(names)} {come} out as {variant.name}: measured once")
    # What other launches do shows in the notes on the measurement.
    quiet = (*QUIET, "neighbours")
    cautions = {c.text: c for v in start.variants for c in v.plan.cautions if c.kind not in quiet}
    for caution in cautions.values():
        say("warning", caution.text, caution.hint)
    fewest = fewest_rounds(len(start.variants))
    if runs is not None and runs < fewest:
        count = counted(runs, "run")
        say("note", f"{count} of each variant can settle nothing; {fewest} are the fewest")
    counts = {len(v.plan.ranks) for v in start.variants}
    if counts - {1} and len(counts) > 1 and not start.metric.is_printed:
        say(
            "warning",
            f"variants start {min(counts)} to {max(counts)} ranks, and {start.metric.title} is "
            "compared as if they did the same work together",
            "where each rank does the whole work, compare a rate: --metric 'tok/s: ([0-9.]+)'",
        )


class Session:
    """Carries out experiments. `number`: of the signal that interrupted it, 0 for none."""

    def __init__(self, values: Values, environ: Mapping[str, str]) -> None:
        self.values, self.environ = values, environ
        self.number = 0
        default = ROUNDS if "time" not in values else None
        self.limits = Limits(
            runs=values.get("runs", default),
            seconds=values.get("time"),
            warmup=values.get("warmup", 1),
        )

    def carry_out(self, result: Result) -> Result:
        """Return the result with what is measured now."""
        line = ProgressLine()
        variants = {v.name: v for v in result.variants}

        cpus = find_cpus(result)
        machine = make_watch(cpus)

        def tick() -> None:
            line.tick()
            if machine:
                machine.sample()

        def run(name: str, number: int) -> Run:
            variant = variants[name]
            conditions = Conditions(
                self.environ,
                grace=SERVER_GRACE if result.procedure.load else GRACE,
                on_denied=variant.on_denied,
                timeout=self.values.get("timeout"),
                tick=tick,
            )
            return measure(variant, number, result.metric, result.procedure, conditions)

        experiment = Experiment(
            names=list(variants),
            better=result.metric.better,
            limits=self.limits,
            seed=result.seed,
            run=run,
            clock=time.monotonic,
            earlier=result.runs,
            watch=line.show,
            machine=machine,
        )
        try:
            experiment.carry_out()
        except Interruption as e:
            self.number = e.number
        finally:
            line.clear()
        periods = machine.periods if machine else []
        spoilers = find_spoilers(periods, cpus) if periods else []
        return result.replace(
            runs=tuple(experiment.runs),
            ending="interrupted" if self.number else experiment.ending,
            notes=tuple(dict.fromkeys((*result.notes, *(s.text for s in spoilers)))),
        )

    def ablate(self, result: Result) -> Result:
        """Return the result with the best variant compared with itself less one option each."""
        best = next((v for v in map(result.find, result.ranking()) if v.options), None)
        if best is None:
            say("note", "--ablate: no plan has options to leave out")
            return result
        wishes, common = make_ablation(best)
        variants, omitted = make_variants(
            wishes, common, result.command, self.environ, unbound=False
        )
        if not variants[1:]:
            say("note", f"--ablate: without any one of its options {best.name} is the same plan")
            return result
        part = result.replace(
            variants=tuple(variants), omitted=tuple(omitted), runs=(), ending="", ablation=None,
            notes=(),
        )  # fmt: skip
        return result.replace(ablation=self.carry_out(part))


def find_cpus(result: Result) -> CpuSet:
    """Return the cpus that the variants' runs are to have."""
    if all(v.is_bound for v in result.variants):
        return union(r.cpus for v in result.variants for r in v.plan.ranks)
    return result.variants[0].plan.host.allowed


def make_watch(cpus: CpuSet) -> Watch | None:
    """Return what watches the machine while runs have these cpus; None where that is not to be
    seen, as in containers without these files."""
    root = linux_root()
    try:
        return Watch(root, cpus) if root else None
    except TopologyError:
        return None


def write_result(result: Result, values: Values) -> None:
    """Print the result, and write the files that are asked for. Raises OmpbindError."""
    form = values.get("format", "table")
    if form == "json":
        write_output(to_json(result))
    elif form == "csv":
        write_output(to_csv(result))
    else:
        from ompbind.render import make_text
        from ompbind.render.compare import draw_result

        write_output(make_text(draw_result(result)))
    if "html" in values:
        from ompbind.cli.help import version
        from ompbind.cli.show import read_shape
        from ompbind.render.pages import make_comparison_page

        machine = read_shape(None, result.variants[0].plan, devices=True)
        write_file("--html", values["html"], make_comparison_page(result, machine, version()))
    best = result.find_best()
    if "save" in values:
        if best is None:
            say("warning", "--save: nothing was measured, and no plan is written")
        else:
            write_file("--save", values["save"], best.plan.to_json())
            if not best.is_bound:
                say("note", f"--save: {best.name} is the best: the saved plan binds nothing")
