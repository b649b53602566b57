"""What a worker is to be: from its plan, or from the environment that its launcher gave it."""

from __future__ import annotations

from ompbind.claims import CPUS, MEMORY, RANK
from ompbind.cpuset import CpuSet, parse_whole, union
from ompbind.errors import ParseError
from ompbind.plans import POLICIES
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ompbind.plans import RankPlan

ROLE = "OMPBIND_ROLE_"


class Expected(Record):
    """A rank as planned. `places` is empty where OpenMP's threads are not to be bound, or where the
    places are not given as numbers; `threads`, with those of nested levels, is None where that is
    not said; `env`: what its environment is to hold; `roles`: the cpus set aside for threads that
    the worker binds itself."""

    rank: int
    cpus: CpuSet
    places: tuple[CpuSet, ...]
    proc_bind: str
    threads: int | None
    mem: str
    mems: CpuSet
    env: tuple[tuple[str, str], ...] = ()
    roles: tuple[CpuSet, ...] = ()


def expect_plan(rank: RankPlan) -> Expected:
    """What a plan says of a rank."""
    env = dict(rank.env)
    openmp = tuple((name, value) for name, value in rank.env if name.startswith("OMP_"))
    return make_expected(rank.rank, rank.cpus, env, rank.mem, rank.mems).replace(env=openmp)


def expect_environ(environ: Mapping[str, str]) -> Expected | None:
    """What a worker's own environment says; None for no worker of ompbind.

    A launcher that told no cpus (of an earlier version) is taken to mean those of the places.
    """
    rank = parse_whole(environ.get(RANK, ""))
    if rank is None:
        return None
    mem, _, mems = environ.get(MEMORY, "none").partition(":")
    try:
        cpus = CpuSet.parse_kernel(environ.get(CPUS, ""))
        nodes = CpuSet.parse_kernel(mems)
    except ParseError:
        return None
    cpus = cpus or union(parse_places(environ.get("OMP_PLACES", "")))
    return make_expected(rank, cpus, environ, mem if mem in POLICIES else "none", nodes)


def make_expected(
    rank: int, cpus: CpuSet, environ: Mapping[str, str], mem: str, mems: CpuSet
) -> Expected:
    proc_bind = environ.get("OMP_PROC_BIND", "").partition(",")[0].strip().lower()
    places = () if proc_bind in ("", "false") else parse_places(environ.get("OMP_PLACES", ""))
    threads = parse_threads(environ.get("OMP_NUM_THREADS", ""))
    roles = parse_roles({k: v for k, v in environ.items() if k.startswith(ROLE)}.values())
    return Expected(rank, cpus, places, proc_bind, threads, mem, mems, roles=roles)


def parse_threads(text: str) -> int | None:
    """The threads of a team with those that each makes on nested levels: `4,2` is 8."""
    product = 1
    for level in text.split(","):
        product *= parse_whole(level.strip()) or 0
    return product or None


def parse_roles(texts: Iterable[str]) -> tuple[CpuSet, ...]:
    """The cpus of each role; what a program has put there of its own is left out."""
    roles = []
    for text in texts:
        try:
            roles.append(CpuSet.parse_kernel(text))
        except ParseError:
            continue
    return tuple(roles)


def parse_places(text: str) -> tuple[CpuSet, ...]:
    """`{0,1},{2,3}`, as ompbind writes places; () for any other notation."""
    parts = text.strip().removeprefix("{").removesuffix("}").split("},{")
    if not text.strip().startswith("{") or not all(p.replace(",", "").isdigit() for p in parts):
        return ()
    try:
        return tuple(CpuSet.parse_kernel(part) for part in parts)
    except ParseError:
        return ()
