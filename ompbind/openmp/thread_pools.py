"""Pools of threads beside OpenMP's, and the variables that give them a rank's number of threads.
Pure.

Sources: the manuals of OpenBLAS, MKL, BLIS, NumExpr, Numba, Polars, Rayon, Julia, Go and Python
(os.cpu_count), java(1) of the JDK, llama-server's help, and the documentation of ONNX Runtime and
oneTBB. How pools count where their variable is not set, and that they obey it, is tried with the
real libraries in tests/jobs/test_thread_pools.py, and with llama.cpp in tests/programs; MKL was
tried by hand. BLIS, Go, Julia and oneTBB are by their documentation alone.
"""

from __future__ import annotations

from ompbind.plans import POOL_MODES, Inherited, ThreadPool
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ompbind.plans import Plan

# How a pool counts its threads where its variable is not set.
OPENMP = "openmp"  # by OMP_NUM_THREADS
MASK = "mask"  # one for each cpu that the process may use
OTHER = "other"  # by the whole machine, or a number of its own


class Pool(Record):
    """A pool. `variables`: those by which users set it, the first of which a plan sets, () where
    none reaches it; `counts`: how it counts without them; `value`: what the variable is set to,
    with {n} for the number; `otherwise`: what sets it, where no variable does; `files`: how its
    libraries' names begin, where it binds its threads to cpus of the machine by itself."""

    name: str
    variables: tuple[str, ...]
    counts: str
    value: str = "{n}"
    otherwise: str = ""
    files: tuple[str, ...] = ()


POOLS = (
    Pool("OpenBLAS", ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS"), OPENMP),
    Pool("MKL", ("MKL_NUM_THREADS",), OPENMP),
    Pool("BLIS", ("BLIS_NUM_THREADS",), OPENMP),
    Pool("NumExpr", ("NUMEXPR_NUM_THREADS",), OPENMP),
    Pool("Numba", ("NUMBA_NUM_THREADS",), MASK),
    Pool("Polars", ("POLARS_MAX_THREADS",), MASK),
    Pool("Rayon", ("RAYON_NUM_THREADS",), MASK),
    Pool("Go", ("GOMAXPROCS",), MASK),
    Pool("Java", ("JDK_JAVA_OPTIONS",), MASK, "-XX:ActiveProcessorCount={n}"),
    Pool("Julia", ("JULIA_NUM_THREADS",), OTHER),
    Pool("Python 3.13", ("PYTHON_CPU_COUNT",), OTHER),
    Pool("llama.cpp", ("LLAMA_ARG_THREADS",), OTHER),
    # It has a thread for each core of the machine, and binds it there, also outside the rank.
    Pool("ONNX Runtime", (), OTHER, otherwise="SessionOptions.intra_op_num_threads",
         files=("libonnxruntime.", "onnxruntime_pybind11_state.")),
    Pool("oneTBB", (), MASK, otherwise="tbb::global_control"),
)  # fmt: skip


def add_pools(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """Return the plan whose ranks' pools have as many threads as OMP_NUM_THREADS says. `environ`:
    what ranks inherit. A variable that is in there, or that the user has given a rank, stays."""
    several, ranks = [], []
    for rank in plan.ranks:
        env = dict(rank.env)
        given = {name for name in environ if name not in rank.unset} | env.keys()
        pools = choose_pools(env["OMP_NUM_THREADS"], len(rank.cpus), given)
        env |= {pool.variable: pool.value for pool in pools if pool.how == "set"}
        several.append(pools)
        ranks.append(rank.replace(env=tuple(env.items())))
    known = {note.name for note in plan.inherited}
    notes = tuple(note for note in judge_pools(environ) if note.name not in known)
    return plan.replace(
        ranks=tuple(ranks), pools=join_pools(several), inherited=(*plan.inherited, *notes)
    )


def choose_pools(threads: str, cpus: int, given: Collection[str]) -> tuple[ThreadPool, ...]:
    """Return what becomes of each pool of a rank. `threads`: OMP_NUM_THREADS, of which the first
    level counts; `cpus`: the number of cpus that the rank may use; `given`: the names of the
    variables that it has already. A pool whose own count is the planned one needs no variable."""
    number = threads.partition(",")[0]
    pools = []
    for pool in POOLS:
        kept = next((name for name in pool.variables if name in given), "")
        variable, value = (*pool.variables, "")[0], ""
        if kept:
            variable, how = kept, "kept"
        elif pool.counts == OPENMP:
            variable, how = "OMP_NUM_THREADS", "openmp"
        elif pool.counts == MASK and int(number) == cpus:
            variable, how = "", "mask"
        elif not variable:
            how = "unreached"
        else:
            how, value = "set", pool.value.replace("{n}", number)
        pools.append(ThreadPool(pool.name, how, variable, value))
    return tuple(pools)


def join_pools(several: Sequence[Sequence[ThreadPool]]) -> tuple[ThreadPool, ...]:
    """Return what becomes of each pool in a plan, by the `pools` of its ranks: where these differ,
    what is most done for it. Values are left out, as they differ by rank."""
    return tuple(
        min(ranks, key=lambda pool: POOL_MODES.index(pool.how)).replace(value="")
        for ranks in zip(*several, strict=True)
    )


def judge_pools(environ: Mapping[str, str]) -> tuple[Inherited, ...]:
    """Return the variables of pools that the user has set."""
    return tuple(
        Inherited(name, environ[name], "respected", f"{pool.name} follows it, not the plan")
        for pool in POOLS
        for name in pool.variables
        if name in environ
    )


def is_planned(name: str, value: str) -> bool:
    """Whether a variable has a value that a plan may have given it: a number of threads."""
    for pool in POOLS:
        if name in pool.variables[:1]:
            start, _, end = pool.value.partition("{n}")
            number = value.removeprefix(start).removesuffix(end)
            return value == f"{start}{number}{end}" and number.isascii() and number.isdigit()
    return False


def find_binding_pool(libraries: Iterable[str]) -> Pool | None:
    """Return the pool that binds its threads by itself, whatever the mask, if one of these files is
    its library."""
    names = tuple(libraries)
    return next((p for p in POOLS for name in names if p.files and name.startswith(p.files)), None)


def describe_pools(pools: Sequence[ThreadPool]) -> str:
    """Return how the pools of a plan get their numbers of threads, those of one way together."""
    remedies = {pool.name: pool.otherwise for pool in POOLS}
    words = {
        "openmp": "by OMP_NUM_THREADS",
        "set": "by their variables",
        "mask": "by the rank's cpus",
        "kept": "as these variables of yours say",
        "unreached": "by no variable, but in the program",
    }
    ways = []
    for how, word in words.items():
        names = []
        for pool in (p for p in pools if p.how == how):
            details = {"kept": pool.variable, "unreached": remedies.get(pool.name, "")}
            detail = details.get(how, "")
            names.append(f"{pool.name} ({detail})" if detail else pool.name)
        if names:
            ways.append(f"{', '.join(names)} {word}")
    return "; ".join(ways)
