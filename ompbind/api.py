"""ompbind in a Python program: plans, and ranks started one by one or all together.

Plans and ranks are those of the command line; errors are `OmpbindError` with data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

from ompbind import plans
from ompbind.cpuset import CpuSet
from ompbind.errors import DeniedError, OmpbindError, PlanError, UsageError
from ompbind.launch import popen
from ompbind.launch.rank import make_environ
from ompbind.options import PlanOptions, make_plan_options
from ompbind.options.keywords import in_keywords, make_values, wrong_type
from ompbind.planner.request import Request
from ompbind.resolve import resolve_plan
from ompbind.saved import check_plan, command_of_rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from subprocess import Popen
    from typing import IO, Any, Literal

    Path = str | os.PathLike[str]
    Cpus = str | Iterable[int]  # "0-3,8", a CpuSet, range(4)


class Plan(plans.Plan):
    """What every rank gets, and how to start one. Frozen; `plan` and `Plan.load` make it."""

    def popen(
        self,
        rank: int,
        argv: Sequence[Path] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        on_denied: Literal["error", "degrade"] = "error",
        **kwargs: Any,
    ) -> Popen[Any]:
        """Start a rank's worker; return when it is bound and its program (or numactl, if the plan
        uses it) runs with its environment complete. The pid is the worker's.

        `argv`: the worker's command, by default the plan's. `env`: what its environment is made
        from, by default this process's. `kwargs` are those of subprocess.Popen; preexec_fn, shell,
        executable, close_fds=False and restore_signals=False are refused. Raises DeniedError,
        CommandError, PlanError, UsageError; then nothing is left running.
        """
        chosen = find_rank(self, rank)
        given = chosen.command if self.groups else self.command
        command = given if argv is None else make_argv(argv)
        if not command:
            raise UsageError("no command to run", hint="popen(rank, [program, argument…])")
        worker = command_of_rank(self, chosen, command)
        base = os.environ if env is None else env
        try:
            return popen.start_rank(self, chosen, worker, base, on_denied=on_denied, **kwargs)
        except DeniedError as e:
            check_plan(self.replace(ranks=(chosen,)))  # for another machine? The better reason.
            raise in_keywords(e) from e.__cause__

    def environ(self, rank: int, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return a rank's whole environment, made from `env`, by default this process's."""
        return make_environ(find_rank(self, rank), os.environ if env is None else env)

    def save(self, path: Path) -> None:
        """Write the plan as JSON, for `load` and for --plan. Raises OSError."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.to_json())

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Return a plan saved as JSON, by `save` or `ompbind show`. Raises UsageError."""
        options = PlanOptions(Request(), saved=os.fspath(path))
        try:
            plan = cls.made_from(resolve_plan(options, snapshot(None), is_run=True))
        except OmpbindError as e:
            raise in_keywords(e) from e.__cause__
        warn_of_neighbours(plan)
        return plan

    @classmethod
    def made_from(cls, plan: plans.Plan) -> Plan:
        return cls(**vars(plan))


def plan(
    *,
    ranks: int | None = None,
    per: Literal[
        "numa",
        "package",
        "l3",
        "core",
        "gpu",
        "accel",
        "nic",
        "die",
        "cluster",
        "l2",
        "book",
        "drawer",
    ]
    | None = None,
    distribution: Literal["block", "cyclic", "spread"] | None = None,
    cores_per_rank: int | str | Sequence[int] | None = None,
    balance: Literal["local", "equal"] | None = None,
    leave_over: bool = False,
    numa_bind: bool = False,
    numa_bind_nodes: str | Sequence[int | str] | None = None,
    numa_bind_cpus: str | Sequence[Cpus] | None = None,
    share: bool = False,
    oversubscribe: bool = False,
    rank: int | str | None = None,
    engine: str | None = None,
    within: Literal["task", "node"] | None = None,
    kind: Literal["performance", "efficiency", "fastest", "all"] | None = None,
    part: str | None = None,
    near: str | None = None,
    gpu_domain: Literal["numa", "package", "l3"] | None = None,
    smt: int | Literal["all"] | None = None,
    reserve: int | str | None = None,
    role: Mapping[str, int | str] | Sequence[str] | None = None,
    exclude: Cpus | None = None,
    exclude_cpus: Cpus | None = None,
    places: Literal["threads", "cores", "l3", "numa", "one", "wide"] | None = None,
    runtime: Literal["auto", "libgomp", "libomp", "libiomp5", "none"] | None = None,
    proc_bind: Literal["close", "spread", "primary", "true", "false"] | None = None,
    threads: int | Literal["cores"] | None = None,
    pools: bool | None = None,
    omp: Literal["all", "threads", "off"] | None = None,
    mem: Literal["bind", "preferred", "interleave", "weighted-interleave", "local", "none"]
    | None = None,
    mem_balancing: bool = False,
    mem_kind: Literal["hbm", "dram", "cxl"] | None = None,
    mem_need: str | None = None,
    mem_nodes: Cpus | Sequence[Cpus] | None = None,
    huge_pages: Literal["thp", "2M"] | None = None,
    binder: Literal["auto", "numactl", "native"] | None = None,
    inherited: Literal["intersect", "error", "ignore"] | None = None,
    neighbours: bool | None = None,
    topology: Path | None = None,
    measured: Path | None = None,
    from_env: Literal["vllm"] | None = None,
    serve: Literal["auto", "vllm", "sglang"] | None = None,
    rank_env: bool | None = None,
    gpu_env: bool = False,
    nic_env: bool = False,
    warm: Path | Sequence[Path] | None = None,
    template: bool = False,
    env: Mapping[str, str] | Sequence[str] | None = None,
    env_file: Path | Sequence[Path] | None = None,
    preload: Path | Sequence[Path] | None = None,
    master_port: int | Literal["auto"] | None = None,
    master_addr: str | None = None,
    fix: str | Sequence[str] | None = None,
    fix_children: bool | None = None,
    verbose: bool = False,
    command: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan that `ompbind show` prints with the same options; its --help explains them.

    `command`: the workers' command, which the plan will name. `environ`: the environment in which
    OpenMP's variables are looked for, by default this process's; `env` is for the workers. Raises
    OmpbindError; TypeError for a value of a wrong type.
    """
    keywords = dict(locals())
    base, argv = snapshot(environ), make_argv(command)
    try:
        options = make_plan_options(make_values("plan", keywords), argv, base)
        if options.request.part and not options.request.part[0]:
            raise UsageError("--part auto: only ompbind run can claim a part for its workers",
                             hint="--part 1/2")  # fmt: skip
        made = Plan.made_from(resolve_plan(options, base))
    except OmpbindError as e:
        raise in_keywords(e) from e.__cause__
    warn_of_neighbours(made)
    return made


def run(
    plan: plans.Plan,
    argv: Sequence[Path] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    on_denied: Literal["error", "degrade"] | None = None,
    on_failure: Literal["stop", "keep"] | None = None,
    grace: float | None = None,
    leave_children: bool = False,
    report: Path | None = None,
    report_bindings: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    verify: bool | float | None = None,
    verify_strict: bool = False,
    output: Literal["inherit", "tag", "files"] | None = None,
    output_dir: Path | None = None,
    overwrite: bool = False,
    stdin: int | str | None = None,
    exclusive: bool = False,
    wait: bool | float | None = None,
) -> int:
    """Run all ranks until they have exited, as `ompbind run` does with the same options. Return its
    status: 0, or that of the first rank that failed, 128+N for a signal N.

    Another process supervises them; this one only waits. `argv`: the workers' command, by default
    the plan's. `environ`: what their environment is made from, by default this process's. Raises
    OmpbindError where `ompbind run` refuses; then nothing was started.
    """
    keywords = dict(locals())
    command = () if argv is None else make_argv(argv)
    kwargs = {"cwd": cwd, "stdout": stdout, "stderr": stderr}
    try:
        settings = json.dumps(make_values("run", keywords))
        return popen.supervise(plan.to_json(), settings, command, snapshot(environ), kwargs)
    except OmpbindError as e:
        raise in_keywords(e) from e.__cause__


def warn_of_neighbours(plan: plans.Plan) -> None:
    """Issue the plan's warning of other launches as Python's, to whoever called our caller: the
    first time there, and as its filters say."""
    for caution in plan.cautions:
        if caution.kind == "neighbours":
            import warnings

            text = f"{caution.text}\nhint: {caution.hint}"
            warnings.warn(text, RuntimeWarning, stacklevel=3)


def snapshot(environ: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of an environment, by default this process's, in which other threads may set
    variables meanwhile."""
    source = os.environ if environ is None else environ
    return {k: v for k in list(source) if (v := source.get(k)) is not None}


def find_rank(plan: plans.Plan, rank: int) -> plans.RankPlan:
    """Return a rank of a plan. Raises PlanError, TypeError."""
    last = len(plan.ranks) - 1
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise wrong_type("rank", rank)
    if not 0 <= rank <= last:
        ranks = f"ranks 0-{last}" if last else "the single rank 0"
        raise PlanError(f"rank {rank}: the plan has {ranks}", rank=rank, wanted=rank,
                        available=CpuSet(range(last + 1)))  # fmt: skip
    return plan.ranks[rank]


def make_argv(argv: Sequence[Path]) -> tuple[str, ...]:
    """Return a command's arguments as texts. Raises TypeError."""
    if isinstance(argv, str | bytes | os.PathLike):
        raise TypeError(f"a command is a list of arguments, not {argv!r}: nothing goes to a shell")
    return tuple(os.fsdecode(a) for a in argv)
