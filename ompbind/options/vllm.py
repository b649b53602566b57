"""vLLM's environment variables for its CPU workers, as options of ours. Pure.

Source: vLLM's documentation of the CPU backend and its OMPProcessManager. What it does is kept
where it works: a rank for each visible memory node, one thread for each core (on POWER four of
eight, on Arm and RISC-V all), cores reserved from the last rank backwards. Where it refuses (more
ranks than nodes) or lets ranks overlap, the machine's tree is divided instead.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import UsageError
from ompbind.messages import quote
from ompbind.plans import Inherited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.machine.topology import Machine
    from ompbind.options.parse import Values

BIND = "VLLM_CPU_OMP_THREADS_BIND"
RESERVED = "VLLM_CPU_NUM_OF_RESERVED_CPU"
NODES = "CPU_VISIBLE_MEMORY_NODES"
SIMULATED = "VLLM_CPU_SIM_MULTI_NUMA"

# Options that say where ranks go: given with --from-env, they win over the variables.
PLACING = ("per", "numa_bind", "numa_bind_nodes", "numa_bind_cpus", "share")
# Hardware threads used of each core, by family of processor.
THREADS = {"power": 4, "arm": None, "riscv": None}


def make_options(
    values: Values, environ: Mapping[str, str], machine: Machine, family: str
) -> tuple[Values, tuple[Inherited, ...]]:
    """`values` with what the variables ask for, and what became of each variable that is set.

    Without any of them vLLM's default holds: `auto`. An option given wins. Raises UsageError.
    """
    made: Values
    bind = environ.get(BIND, "auto").strip()
    placed = next((key for key in PLACING if key in values), None)
    told = [Inherited(NAME, environ[NAME], "respected", "as vLLM reads it")
            for NAME in (BIND, NODES, RESERVED, SIMULATED) if NAME in environ]  # fmt: skip
    if placed is not None:
        made, why = {}, f"--{placed.replace('_', '-')} is given"
        told = [i.replace(action="overridden", why=why) for i in told]
    elif bind == "nobind":
        made = {"share": True, "smt": "all", "proc_bind": "false", "mem": "none"}
    elif bind == "auto":
        made = make_auto(values, environ, machine, family)
    else:
        lists = bind.split("|")
        made = {"numa_bind_cpus": [text.strip() for text in lists], "mem": "bind"}
        told = [i if i.name == BIND else i.replace(action="overridden", why=f"{BIND} names cpus")
                for i in told]  # fmt: skip
    made |= {"places": "one"}
    if "proc_bind" not in made:
        made["proc_bind"] = "true"
    # The plan has done it: vLLM in a worker must not do it a second time.
    extra = values.get("env")
    made["env"] = [f"{BIND}=nobind", *(extra if isinstance(extra, list) else [])]
    return made | {k: v for k, v in values.items() if k != "env"}, tuple(told)


def make_auto(values: Values, environ: Mapping[str, str], machine: Machine, family: str) -> Values:
    """Rank r on the r-th visible node; several on a node, or a node in several, by the tree."""
    ranks = parse_whole(str(values.get("ranks", "1"))) or 1  # a bad text is refused later
    smt = threads_of(machine, family)
    made: Values = {"ranks": str(ranks), "smt": "all" if smt is None else str(smt), "mem": "bind"}
    nodes = visible_nodes(environ, machine)
    if environ.get(SIMULATED, "0") == "0" and (ranks <= len(nodes) or NODES in environ):
        named = nodes[:ranks]
        if ranks > len(nodes):
            named = [nodes[rank * len(nodes) // ranks] for rank in range(ranks)]
        made["numa_bind_nodes"] = [str(node) for node in named]
        del made["ranks"]
    reserve = reserved_cores(environ, machine, family, ranks, smt)
    return made | ({"reserve": str(reserve)} if reserve else {})


def threads_of(machine: Machine, family: str) -> int | None:
    """Hardware threads used of each core; None: all."""
    wanted = THREADS.get(family, 1)
    most = max((len(core) for core in machine.topology.groups("core")), default=1)
    return None if wanted is None else min(wanted, most)


def visible_nodes(environ: Mapping[str, str], machine: Machine) -> list[int]:
    """The nodes to use, in order: those listed of the allowed ones, else every one that is allowed
    and has cpus. Raises UsageError."""
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
    """How many cores stay free: as many as hold the cpus that vLLM reserves. Unset, that is one
    for its scheduler, on Arm and RISC-V one for each rank. Raises UsageError."""
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
