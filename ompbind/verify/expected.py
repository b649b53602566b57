"""The binding a worker should have: by its plan, or by the environment its launcher gave it."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole, union
from ompbind.errors import ParseError
from ompbind.openmp import parse_threads
from ompbind.openmp.places import parse_places
from ompbind.plans import (
    CPUS_VARIABLE,
    GROUP_VARIABLE,
    MEMORY_VARIABLE,
    POLICIES,
    RANK_VARIABLE,
    THREADS_VARIABLE,
    is_group_name,
    parse_roles,
)
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.plans import RankPlan


class NamedThreads(Record):
    """The threads of a role: patterns for their names, and the cpus on which they belong."""

    role: str
    patterns: tuple[str, ...]
    cpus: CpuSet


class Expected(Record):
    """A rank as planned."""

    rank: int
    cpus: CpuSet
    places: tuple[CpuSet, ...]  # () where OpenMP binds no thread, or places are not numbers
    proc_bind: str
    threads: int | None  # with those of nested levels; None: unknown
    mem: str
    mems: CpuSet
    env: tuple[tuple[str, str], ...] = ()  # variables that its environment must have
    roles: tuple[CpuSet, ...] = ()  # cpus set aside for threads that the worker binds itself
    named: tuple[NamedThreads, ...] = ()  # those that the supervisor binds
    number: int | None = None  # what it is called, where that is not `rank`
    group: str = ""  # the name of the group that it is in, "" without groups
    rebound: bool = False  # bound while it ran: its policy and its variables are those of before
    balancing: bool = False  # among the nodes of its memory policy


def expect_plan(rank: RankPlan) -> Expected:
    """Return what a plan says about a rank."""
    env = dict(rank.env)
    openmp = tuple((name, value) for name, value in rank.env if name.startswith("OMP_"))
    return make_expected(rank.rank, rank.cpus, env, rank.mem, rank.mems).replace(
        env=openmp, number=rank.number, group=rank.group, balancing=rank.binding.balancing
    )


def expect_environ(environ: Mapping[str, str]) -> Expected | None:
    """Return what a worker's own environment says; None if ompbind did not start it.

    Without cpus there (an earlier version's launcher), they are those of the places. A policy that
    lacks its nodes, or has nodes although it takes none, counts as "none": no launcher writes it.
    """
    rank = parse_whole(environ.get(RANK_VARIABLE, ""))
    if rank is None:
        return None
    policy, _, mems = environ.get(MEMORY_VARIABLE, "none").partition(":")
    mem, _, flag = policy.partition("=")
    try:
        cpus = CpuSet.parse_kernel(environ.get(CPUS_VARIABLE, ""))
        nodes = CpuSet.parse_kernel(mems)
    except ParseError:
        return None
    if mem not in POLICIES or bool(nodes) != (mem not in ("local", "none")):
        mem, nodes, flag = "none", CpuSet(), ""
    cpus = cpus or union(read_places(environ.get("OMP_PLACES", "")))
    expected = make_expected(rank, cpus, environ, mem, nodes)
    return expected.replace(balancing=True) if flag == "balancing" else expected


def make_expected(
    rank: int, cpus: CpuSet, environ: Mapping[str, str], mem: str, mems: CpuSet
) -> Expected:
    proc_bind = environ.get("OMP_PROC_BIND", "").partition(",")[0].strip().lower()
    places = () if proc_bind in ("", "false") else read_places(environ.get("OMP_PLACES", ""))
    threads = count_team(environ.get("OMP_NUM_THREADS", ""))
    roles = tuple(parse_roles(environ).values())
    group = environ.get(GROUP_VARIABLE, "")
    group = group if is_group_name(group) else ""
    return Expected(rank, cpus, places, proc_bind, threads, mem, mems, roles=roles, group=group,
                    named=parse_named(environ))  # fmt: skip


def parse_named(environ: Mapping[str, str]) -> tuple[NamedThreads, ...]:
    """Return the threads that belong to roles by their names."""
    roles = parse_roles(environ)
    named = []
    for variable, text in environ.items():
        name = variable.removeprefix(THREADS_VARIABLE)
        if name != variable and text and roles.get(name):
            named.append(NamedThreads(name.lower(), tuple(text.split(",")), roles[name]))
    return tuple(named)


def count_team(text: str) -> int | None:
    """Return the threads of a team with those that each makes on nested levels: `4,2` is 8; None
    where OMP_NUM_THREADS is not set, or not so written."""
    levels = parse_threads(text)
    if levels is None:
        return None
    threads = 1
    for level in levels.split(","):
        threads *= int(level)
    return threads


def read_places(text: str) -> tuple[CpuSet, ...]:
    """Return the places of OMP_PLACES; () for a name such as `cores`, and for what is no list.

    They may overlap: the first place of --places wide holds all the others."""
    try:
        return parse_places(text, overlapping=True)
    except ParseError:
        return ()
