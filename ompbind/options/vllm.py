"""vLLM's environment variables for its CPU workers, as values of options. Pure.

Source: vLLM's documentation of the CPU backend and its OMPProcessManager. What vLLM does is done
here as well where it works: a rank for each visible memory node, one thread for each core (on POWER
four of eight, on Arm and RISC-V all), cores reserved from the last rank backwards. Where it refuses
(more ranks than nodes) or lets ranks overlap, the machine's tree is divided instead.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import UsageError
from ompbind.messages import quote
from ompbind.options.table import OPTIONS
from ompbind.options.together import check_together
from ompbind.options.values import parse_cpu_lists
from ompbind.planner.request import Pool
from ompbind.plans import Inherited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.machine.topology import Machine
    from ompbind.options.values import Values

BIND = "VLLM_CPU_OMP_THREADS_BIND"
RESERVED = "VLLM_CPU_NUM_OF_RESERVED_CPU"
NODES = "CPU_VISIBLE_MEMORY_NODES"
SIMULATED = "VLLM_CPU_SIM_MULTI_NUMA"

# Hardware threads used of each core, by family of processor.
THREADS = {"power": 4, "arm": None, "riscv": None}


def with_variables(
    values: Values, environ: Mapping[str, str], machine: Machine, family: str
) -> tuple[Values, dict[str, str], tuple[Inherited, ...]]:
    """Return the values of options with those that the variables stand for, the name of what each
    added value comes from, and what became of each variable that is set.

    Without any variable vLLM's default holds: `auto`. An option that is given wins. Raises
    UsageError, ParseError, PlanError.
    """
    added: Values
    bind = environ.get(BIND, "auto").strip()
    row = next(option for option in OPTIONS if option.key == "from_env")
    winner = next((key for key in row.yields_to if key in values), None)
    notes = [Inherited(name, environ[name], "respected", "as vLLM reads it")
             for name in (BIND, NODES, RESERVED, SIMULATED) if name in environ]  # fmt: skip
    if winner is not None:
        added, why = {}, f"--{winner.replace('_', '-')} is given"
        notes = [note.replace(action="overridden", why=why) for note in notes]
    elif bind == "nobind":
        added = {"share": True, "smt": None, "proc_bind": "false", "mem": "none"}
    elif bind == "auto":
        added = make_auto(values, environ, machine, family)
    else:
        lists = [text.strip() for text in bind.split("|")]
        added = {"numa_bind_cpus": parse_cpu_lists(lists, BIND), "mem": "bind"}
        notes = [note if note.name == BIND else
                 note.replace(action="overridden", why=f"{BIND} names cpus")
                 for note in notes]  # fmt: skip
    added["places"] = "one"
    if "proc_bind" not in added:
        added["proc_bind"] = "true"
    names = {key: name_of(key, environ) for key in added if key not in values}
    # The plan has done it: vLLM in a worker must not do it a second time.
    values = added | values | {"env": ((BIND, "nobind"), *values.get("env", ()))}
    check_together(values, [o for o in OPTIONS if "show" in o.commands], names)
    return values, names, tuple(notes)


def name_of(key: str, environ: Mapping[str, str]) -> str:
    """Return what asks for a value, for messages: the variable, where it is set."""
    variable = {"numa_bind_nodes": NODES, "reserve": RESERVED}.get(key, BIND)
    return variable if variable in environ else "--from-env vllm"


def make_auto(values: Values, environ: Mapping[str, str], machine: Machine, family: str) -> Values:
    """Return the values for `auto`: rank r on the r-th visible node. With more ranks than nodes the
    ranks of a node share its cores out, or the machine's tree is divided."""
    ranks: int = values.get("ranks", 1)
    smt = threads_of(machine, family)
    made: Values = {"ranks": ranks, "smt": smt, "mem": "bind"}
    nodes = visible_nodes(environ, machine)
    if environ.get(SIMULATED, "0") == "0" and (ranks <= len(nodes) or NODES in environ):
        named = nodes[:ranks]
        if ranks > len(nodes):
            named = [nodes[rank * len(nodes) // ranks] for rank in range(ranks)]
        made["numa_bind_nodes"] = tuple(named)
        del made["ranks"]
    reserve = reserved_cores(environ, machine, family, ranks, smt)
    if reserve:
        source = f"{RESERVED}={environ[RESERVED]}" if RESERVED in environ else "--from-env vllm"
        made["reserve"] = Pool("", reserve, source=source)
    return made


def threads_of(machine: Machine, family: str) -> int | None:
    """Return the number of hardware threads to use of each core, None for all."""
    wanted = THREADS.get(family, 1)
    most = max((len(core) for core in machine.topology.groups("core")), default=1)
    return None if wanted is None else min(wanted, most)


def visible_nodes(environ: Mapping[str, str], machine: Machine) -> list[int]:
    """Return the nodes to use, in order: those of the variable that are allowed, else all allowed
    ones with cpus. Raises UsageError."""
    usable = [n.node for n in machine.topology.nodes
              if n.node in machine.allowed.nodes and n.cpus & machine.allowed.cpus]  # fmt: skip
    text = environ.get(NODES, "").strip()
    if not text:
        return usable
    numbers = [parse_whole(part.strip()) for part in text.split(",")]
    listed = [n for n in numbers if n is not None and n in machine.allowed.nodes]
    if None in numbers or not listed:
        problem = "is no list of nodes" if None in numbers else "names no node that is allowed"
        raise UsageError(
            f"{NODES}={quote(text)} {problem}",
            hint=f"nodes: {CpuSet(usable) or 'none'}, with commas between",
        )
    return listed


def reserved_cores(
    environ: Mapping[str, str], machine: Machine, family: str, ranks: int, smt: int | None
) -> int:
    """Return how many cores stay free: enough for the cpus that vLLM reserves. By default that is
    one for its scheduler, on Arm and RISC-V one for each rank. Raises UsageError."""
    cores = machine.topology.groups("core", machine.allowed.cpus)
    total = len(cores) or len(machine.allowed.cpus)
    text = environ.get(RESERVED)
    if text is None:
        wanted = ranks if family in ("arm", "riscv") else 1
        return wanted if total > wanted + ranks - 1 else 0  # as vLLM, no more than can be spared
    number = parse_whole(text.strip())
    if number is None:
        raise UsageError(f"{RESERVED}={quote(text)} is not a number of cpus")
    each = smt if smt is not None else max((len(core) for core in cores), default=1)
    return -(-number // each)
