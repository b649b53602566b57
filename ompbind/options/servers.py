"""Servers that start workers: how many a command asks for, and how an engine is told of their cpus.

Given the values of options, the command and the environment; returns values by which the workers
are planned as ranks are, and what the planner needs to hand the plan to the one server. Without a
server, `--from-env` is for ranks that are workers themselves.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole, union
from ompbind.errors import ParseError, PlanError, UsageError
from ompbind.machine import read_family, read_machine
from ompbind.messages import quote
from ompbind.options import vllm
from ompbind.options.table import LAUNCH
from ompbind.options.together import check_together
from ompbind.options.values import parse_cpu_lists
from ompbind.planner.request import Pool, Serving
from ompbind.planner.server import make_words
from ompbind.plans import Inherited
from ompbind.record import Record
from ompbind.worker.installed import find_version
from ompbind.worker.launchers import find_launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.machine.topology import Machine
    from ompbind.options.values import Values
    from ompbind.plans import Plan, Server
    from ompbind.worker.launchers import Launch

    Workers = tuple[Values, dict[str, str], tuple[Inherited, ...], Serving | None]


class Engine(Record):
    """An engine, and its own words. `sizes`: the options of its command by what they count;
    `variable`: its CPU workers' lists of cpus, with | between; `node_words`, `cpu_words`: the
    options that bind its GPU workers, `binding`: all its options that do; `distributions`: the
    names it is installed under."""

    name: str
    sizes: Mapping[str, tuple[str, ...]]
    variable: str
    node_words: tuple[str, ...]
    cpu_words: tuple[str, ...]
    binding: tuple[str, ...]
    distributions: tuple[str, ...]


# Sources: vLLM's ParallelConfig, arg_utils, OMPProcessManager and numa_utils (0.32); SGLang's
# server_args, init_threads_binding, numa_utils and docs/platforms/cpu_server.md.
ENGINES = {
    "vllm": Engine(
        "vLLM",
        {
            "tp": ("--tensor-parallel-size", "-tp"),
            "pp": ("--pipeline-parallel-size", "-pp"),
            "pcp": ("--prefill-context-parallel-size", "-pcp"),
            "dp": ("--data-parallel-size", "-dp"),
            "local": ("--data-parallel-size-local", "-dpl"),
            "nnodes": ("--nnodes", "-n"),
        },
        vllm.BIND,
        ("--numa-bind", "--numa-bind-nodes"),
        ("--numa-bind-cpus",),
        ("--numa-bind", "--numa-bind-nodes", "--numa-bind-cpus"),
        vllm.DISTRIBUTIONS,
    ),
    "sglang": Engine(
        "SGLang",
        {
            "tp": ("--tensor-parallel-size", "--tp-size", "--tp"),
            "pp": ("--pipeline-parallel-size", "--pp-size"),
            "dp": ("--data-parallel-size", "--dp-size", "--dp"),
            "nnodes": ("--nnodes",),
        },
        "SGLANG_CPU_OMP_THREADS_BIND",
        ("--numa-node",),
        (),
        ("--numa-node",),
        ("sglang",),
    ),
}


class Count(Record):
    """A number of workers, and the words that say it."""

    number: int
    text: str


def with_workers(values: Values, command: Sequence[str], environ: Mapping[str, str]) -> Workers:
    """Return the values of options with those that another tool's variables or a server's command
    stand for, the name of what each added value comes from, what became of each variable, and the
    server; None for ranks that are workers. Raises OmpbindError."""
    path = values.get("topology")
    launch = find_launch(command)
    key = find_engine(values, launch)
    if key is None:
        machine = read_machine(path, devices=False)
        version = find_version(command, environ, vllm.DISTRIBUTIONS)
        workers = values.get("ranks", 1)
        case = vllm.Case(machine, read_family(path), environ, version, workers)
        return (*vllm.with_variables(values, case), None)
    engine = ENGINES[key]
    arguments = launch.arguments if launch else ()
    check_words(engine, arguments)
    count = choose_count(key, values, launch, environ)
    version = find_version([launch.program], environ, engine.distributions) if launch else ""
    machine = read_machine(path, devices=True)
    serving = Serving(key, engine.name, version, engine.variable)
    if uses_gpus(version, arguments, environ, machine):
        serving = Serving(key, engine.name, version, "", engine.node_words, engine.cpu_words)
        added, notes = make_gpu_values(values, engine), [*override(engine, environ)]
        if key == "vllm":
            added |= exclude_slow(values, machine)
    else:
        kv_transfer = bool(find_word(arguments, ("--kv-transfer-config",))[1])
        case = vllm.Case(machine, read_family(path), environ, version, count.number, kv_transfer)
        if key == "vllm":
            if is_left_unbound(values, environ):
                return leave_unbound(values, environ)
            added, notes = make_vllm_values(values, case)
        else:
            added, notes = make_sglang_values(values, case, engine, arguments)
    source = f"--serve {key}" if "serve" in values else "--from-env vllm"
    names = {k: vllm.name_of(k, environ, source) for k in added if k not in values}
    if "exclude" in names:
        names["exclude"] = "the choice of priority cores (PCT), as vLLM's"
    if "ranks" not in values:
        names["ranks"] = count.text or "the server's command"
    values = {"ranks": count.number} | added | values | {"serve": key}
    check_together(values, [o for o in LAUNCH if "show" in o.commands], names)
    return values, names, tuple(notes), serving


def find_engine(values: Values, launch: Launch | None) -> str | None:
    """Return the engine of --serve, or of the server that is to be planned --from-env; None for
    ranks that are workers. Raises UsageError."""
    by_name = {engine.name: key for key, engine in ENGINES.items()}
    seen = by_name.get(launch.launcher.name) if launch else None
    asked = values.get("serve")
    if asked == "auto":
        if seen is None:
            raise UsageError(
                "--serve auto: the command is no server that is known",
                hint="--serve vllm or --serve sglang names the engine that it starts",
            )
        return seen
    if asked is not None and seen not in (None, asked):
        raise UsageError(
            f"--serve {asked}: the command starts {ENGINES[seen].name}",
            hint=f"--serve {seen}",
        )
    if asked is None:
        return "vllm" if seen == "vllm" else None
    return str(asked)


def check_words(engine: Engine, arguments: Sequence[str]) -> None:
    """Refuse a command that binds its workers by words of its own. Raises UsageError."""
    for word in arguments:
        if normal(word) in engine.binding:
            raise UsageError(
                f"the command has {quote(word)} itself, and the plan of its workers is to be "
                "ompbind's",
                hint=f"leave --serve or {quote(word)} out",
            )


def check_server(plan: Plan, server: Server) -> None:
    """Refuse a saved server whose variable or words say something else than its workers' cpus and
    nodes: they reach another command as well. Raises ParseError."""
    engine = ENGINES.get(server.engine)
    if engine is None:
        raise ParseError(f"server: the engine {quote(server.engine)} is not known", part="server")
    serving = Serving(server.engine, engine.name, "", engine.variable)
    told = tuple(dict(r.env).get(engine.variable) for r in plan.ranks)
    agrees = told == ("|".join(str(w.cpus) for w in server.workers),) and not server.words
    if not server.variable:
        serving = Serving(server.engine, engine.name, "", "", engine.node_words, engine.cpu_words)
        agrees = server.words == make_words(serving, server.workers)
    if not agrees or server.variable != serving.variable:
        raise ParseError("server: what tells it of its workers says otherwise", part="server")
    outside = union([server.rest, *(w.cpus for w in server.workers)]) - plan.ranks[0].cpus
    if outside:
        problem = f"cpus {outside} are not among those of its process"
        raise ParseError(f"server: {problem}", part="server")


# --- how many workers ----------------------------------------------------------------------------


def choose_count(
    key: str, values: Values, launch: Launch | None, environ: Mapping[str, str]
) -> Count:
    """Return the number of workers on this machine, by the command, else by -n. Raises UsageError,
    PlanError."""
    ranks = values.get("ranks")
    count = None
    if launch is not None:
        count = (count_vllm if key == "vllm" else count_sglang)(launch.arguments, environ)
    if count is None:
        if ranks is None:
            raise UsageError(
                f"--serve {key}: the command does not show how many workers it starts",
                hint="-n N says it",
            )
        return Count(ranks, "")
    if ranks is not None and ranks != count.number:
        text = count.text or "its command, without an option that says more,"
        raise PlanError(
            f"the number of workers is unclear: --ranks is for {ranks}, {text} is for "
            f"{count.number}",
            hint=f"leave -n out, or give the command {ENGINES[key].sizes['tp'][0]} {ranks}",
            counts={"--ranks": ranks, text: count.number},
        )
    return count


def count_vllm(arguments: Sequence[str], environ: Mapping[str, str]) -> Count | None:
    """Return the workers that vLLM starts on this machine, as its ParallelConfig counts them: those
    of each data-parallel engine one after the other, in the order of its list. None where they are
    in a file of --config. Raises UsageError."""
    sizes, words = read_sizes("vllm", arguments)
    if not words and find_word(arguments, ("--config",))[1]:
        return None
    if (backend := find_word(arguments, ("--distributed-executor-backend",))[1]) == "ray":
        raise UsageError(
            f"the command's --distributed-executor-backend {backend}: Ray starts the workers, and "
            "vLLM does not bind them",
            hint="leave --serve out, and the executor too for workers on this machine alone",
        )
    dp = sizes["dp"]
    if not find_word(arguments, ENGINES["vllm"].sizes["dp"])[1] and "VLLM_DP_SIZE" in environ:
        # Each such server has one engine, which takes its slice of the lists of all.
        dp = parse_size("VLLM_DP_SIZE", environ["VLLM_DP_SIZE"])
        words.append(f"VLLM_DP_SIZE={dp}")
    local = sizes["local"] if any(w.startswith(("--data-parallel-size-local", "-dpl"))
                                  for w in words) else dp  # fmt: skip
    if find_word(arguments, ("--data-parallel-rank", "-dpn"))[1]:
        local = 1
    groups = max(dp // max(local, 1), 1)
    machines = max(sizes["nnodes"] // groups, 1)
    each = sizes["tp"] * sizes["pp"] * sizes["pcp"] // machines
    return Count(each * max(local, 1), " ".join(words))


def count_sglang(arguments: Sequence[str], environ: Mapping[str, str]) -> Count | None:
    """Return the workers that SGLang starts. Raises UsageError."""
    sizes, words = read_sizes("sglang", arguments)
    if not words and find_word(arguments, ("--config",))[1]:
        return None
    if sizes["nnodes"] > 1:
        raise UsageError(
            "the command's --nnodes: a plan is for the workers of one machine",
            hint="leave --serve out on several machines",
        )
    return Count(sizes["tp"] * sizes["pp"] * sizes["dp"], " ".join(words))


def read_sizes(key: str, arguments: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Return what an engine's options of sizes say, 1 where they are not given, and these options
    as they were given. Raises UsageError."""
    sizes, given = {}, []
    for size, names in ENGINES[key].sizes.items():
        name, text = find_word(arguments, names)
        sizes[size] = 1 if text is None else parse_size(f"the command's {name}", text)
        if text is not None:
            given.append(f"{name} {text}")
    return sizes, given


def find_word(arguments: Sequence[str], names: Sequence[str]) -> tuple[str, str | None]:
    """Return an option of a command as it is written, and its value; None where it is not given. Of
    several the last holds, as argparse has it."""
    written, value = names[0], None
    for position, word in enumerate(arguments):
        name, equals, text = word.partition("=")
        if normal(name) in names:
            written = name
            value = text if equals else "".join(arguments[position + 1 : position + 2])
        elif normal(name.partition(".")[0]) in names:  # --kv-transfer-config.kv_connector=…
            written, value = name, text or "".join(arguments[position + 1 : position + 2])
    return written, value


def normal(word: str) -> str:
    """Return an option as the engines compare it: vLLM takes underscores for dashes."""
    return word.replace("_", "-") if word.startswith("--") else word


def parse_size(name: str, text: str) -> int:
    number = parse_whole(text.strip())
    if not number:
        problem = f"{name}: {quote(text)} is not a number of workers"
        raise UsageError(problem, hint="a whole number, 1 or more")
    return number


# --- CPUs or GPUs --------------------------------------------------------------------------------


def uses_gpus(
    version: str, arguments: Sequence[str], environ: Mapping[str, str], machine: Machine
) -> bool:
    """Whether the server's workers use GPUs: the machine has some that they will see, and neither
    the installed engine nor the command is for CPUs."""
    device = find_word(arguments, ("--device",))[1]
    if device is not None and device != "auto":
        return device != "cpu"
    if "cpu" in version or environ.get("SGLANG_USE_CPU_ENGINE", "0") not in ("", "0"):
        return False
    if not machine.topology.devices:
        return False
    from ompbind.devices.visible import make_visible

    return bool(make_visible(machine.topology.devices, environ).gpus)


def make_gpu_values(values: Values, engine: Engine) -> Values:
    """Return the values for a worker near each GPU, bound to one node. An engine that takes no cpus
    gives a worker its whole node."""
    added: Values = {"smt": None}
    if not engine.cpu_words:
        added["share"] = True
    if not vllm.find_winner(values):
        added |= {"per": "gpu", "numa_bind": True, "mem": "none"}
    return added


def exclude_slow(values: Values, machine: Machine) -> Values:
    """Return the value that leaves GPU workers the priority cores of a machine that has some, as
    vLLM does; {} where an option chooses cores. Raises TopologyError."""
    if any(key in values for key in ("kind", "exclude", "numa_bind_cpus")):
        return {}
    from ompbind.machine.priority import read_priority_cpus

    fast = read_priority_cpus(values.get("topology"), machine.topology)
    return {"exclude": machine.topology.online - fast} if fast else {}


def override(engine: Engine, environ: Mapping[str, str]) -> list[Inherited]:
    why = f"{engine.name}'s GPU workers do not follow it"
    return [Inherited(name, environ[name], "overridden", why)
            for name in (engine.variable,) if name in environ]  # fmt: skip


# --- vLLM and SGLang on CPUs ---------------------------------------------------------------------


def make_vllm_values(values: Values, case: vllm.Case) -> tuple[Values, list[Inherited]]:
    """Return the values for vLLM's CPU workers, and what became of its variables. Raises
    OmpbindError."""
    added, notes = vllm.read_variables(values, case)
    if case.environ.get(vllm.BIND, "").strip() == "nobind":
        overridden = {"action": "overridden", "why": "--serve is given"}
        notes = [n.replace(**overridden) if n.name == vllm.BIND else n for n in notes]
    added.pop("mem", None)
    if "numa_bind_nodes" in added:
        added["mem"] = "none"  # each worker binds its own; the server's process need not be bound
    if "numa_bind_cpus" not in {*added, *values} and "cores_per_rank" not in values:
        added["reserve"] = vllm.make_reserve(case, "--serve vllm")
    if "smt" not in added and "numa_bind_cpus" not in {*added, *values}:
        added["smt"] = case.smt
    return added, notes


def is_left_unbound(values: Values, environ: Mapping[str, str]) -> bool:
    """Whether vLLM's own variable says that its workers are not to be bound, and nobody else says
    that they are."""
    nobind = environ.get(vllm.BIND, "").strip() == "nobind"
    return nobind and "serve" not in values and not vllm.find_winner(values)


def leave_unbound(values: Values, environ: Mapping[str, str]) -> Workers:
    """Return the values for one server on everything that is allowed, with its variables."""
    notes = tuple(Inherited(name, environ[name], "respected", "as vLLM reads it")
                  for name in vllm.VARIABLES if name in environ)  # fmt: skip
    rest = {key: value for key, value in values.items() if key != "ranks"}
    return {"smt": None} | rest, {}, notes, None


def make_sglang_values(
    values: Values, case: vllm.Case, engine: Engine, arguments: Sequence[str]
) -> tuple[Values, list[Inherited]]:
    """Return the values for SGLang's CPU workers: its variable's lists, else a worker for each node
    with one hardware thread of each core, and a core for its other processes. Raises OmpbindError.
    """
    sizes = read_sizes("sglang", arguments)[0] if arguments else {}
    for size, what in (("dp", "data-parallel replica"), ("pp", "pipeline stage")):
        if sizes.get(size, 1) > 1:
            raise UsageError(
                f"the command's {engine.sizes[size][0]}: SGLang gives the CPU workers of each "
                f"{what} the same cpus",
                hint="a server for each replica: -n N --template -- … --port {30000+rank}",
            )
    name, text = engine.variable, case.environ.get(engine.variable, "all").strip()
    notes = []
    if name in case.environ:
        notes = [Inherited(name, text, "respected", "as SGLang reads it")]
    winner = vllm.find_winner(values)
    if winner:
        why = f"--{winner.replace('_', '-')} is given"
        notes = [note.replace(action="overridden", why=why) for note in notes]
    elif text not in ("all", ""):
        return {"numa_bind_cpus": parse_cpu_lists(text.split("|"), name)}, notes
    if "numa_bind_cpus" in values:
        return {}, notes
    added: Values = {}
    if "cores_per_rank" not in values:
        added["reserve"] = Pool("", 1, source="--serve sglang", if_spare=True)
    nodes = vllm.visible_nodes(case.replace(environ={}))
    if not winner and case.workers <= len(nodes) and "part" not in values:
        added |= {"numa_bind_nodes": tuple(CpuSet([n]) for n in nodes[: case.workers]),
                  "mem": "none"}  # fmt: skip
    return added, notes
