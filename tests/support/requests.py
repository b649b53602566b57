"""Machines of every form, and what can be asked of them: from the machine's own sizes, so that most
requests can be had. What is counted here is counted from the topology, not by the planner."""

from __future__ import annotations

import os
from functools import cache

from hypothesis import strategies as st

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.machine.topology import Allowed, Machine, Topology
from ompbind.planner.request import Request
from tests.support.draws import draw_order, draw_some, numbers, one_of
from tests.support.machines import make_asked
from tests.support.trees import make_topology, shapes


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """A machine of any form, of which any part may be used."""
    topology = make_topology(draw(SHAPES))
    cpus = sorted(topology.online)
    mems = sorted(topology.node_numbers)
    if draw(numbers(1, 3)) == 3:
        cpus = draw_some(draw, cpus, least=1)
    if draw(numbers(1, 2)) == 2:
        mems = draw_some(draw, mems)
    quota = draw(one_of(None, None, None, None, 0.5, 1.0, 2.5, 100.0))
    return Machine(topology, Allowed(CpuSet(cpus), CpuSet(mems), quota), "made-up")


SHAPES = shapes(most_cores=16)


WORDS = st.binary(max_size=6).map(
    lambda b: os.fsdecode(b.translate(None, b"{}").replace(b"\0", b"{rank}"))
)
COMMANDS = st.lists(WORDS, min_size=1, max_size=3).map(tuple)
THREADS = one_of(*["cores"] * 20, *map(str, range(1, 41)))


def cores_of(topology: Topology, within: CpuSet) -> list[CpuSet]:
    """The cpus of each core; a cpu whose core is not known is one."""
    alone = [CpuSet([c.cpu]) for c in topology.cpus if c.core is None and c.cpu in within]
    return topology.groups("core", within) + alone


def usable_cpus(machine: Machine, request: Request) -> CpuSet:
    """What --exclude and --exclude-cpus leave: the former takes whole cores where each gives one
    thread, and beside --part."""
    lost = request.exclude
    if request.smt == 1 or request.part is not None:
        cores = cores_of(machine.topology, machine.topology.online)
        lost |= union(core for core in cores if core & request.exclude)
    return machine.allowed.cpus - lost - request.exclude_cpus


class Sizes:
    """What of a machine can be used when some cpus are excluded."""

    def __init__(self, machine: Machine, exclude: CpuSet) -> None:
        self.topology = machine.topology
        self.usable = machine.allowed.cpus - exclude
        self.cores = cores_of(self.topology, self.usable)
        self.threads = max(len(core) for core in self.cores)
        having = {n.node for n in self.topology.nodes if n.memory_bytes != 0}
        self.memory = bool(having & set(machine.allowed.nodes))
        # Nodes with usable cpus whose memory can be bound, or has a substitute.
        self.nodes = {
            n.node: len(cores_of(self.topology, n.cpus & self.usable))
            for n in self.topology.nodes
            if n.cpus & self.usable
            and (n.node in machine.allowed.nodes if n.node in having else self.memory)
        }
        homes = {n.node for n in self.topology.nodes if n.cpus & self.usable}
        self.bindable = homes <= self.nodes.keys() and self.known("node")

    def known(self, level: str) -> bool:
        """Whether the machine says of each usable cpu which of these it is in."""
        return all(getattr(c, level) is not None for c in self.topology.cpus
                   if c.cpu in self.usable)  # fmt: skip

    def groups(self, per: str) -> list[int]:
        """How many cores each thing of --per has; [] where the machine does not say."""
        if per == "core":
            return [1] * len(self.cores)
        level = {"numa": "node"}.get(per, per)
        if per == "l3":
            any_l3 = any(c.l3 is not None for c in self.topology.cpus)
            level = "l3" if any_l3 else "l2"
        if not self.known(level):
            return []
        found: dict[object, set[int]] = {}
        for c in self.topology.cpus:
            if c.cpu in self.usable:
                found.setdefault(getattr(c, level), set()).add(c.cpu)
        return [len(cores_of(self.topology, CpuSet(cpus))) for cpus in found.values()]


class Asking:
    """Puts the arguments of one request together, as far as the machine's sizes admit them."""

    def __init__(self, draw: st.DrawFn, machine: Machine) -> None:
        self.draw = draw
        self.machine = machine
        self.cpus = sorted(machine.allowed.cpus)
        self.args: list[str] = []
        self.sizes = Sizes(machine, CpuSet())
        self.parts: list[int] = []  # cores of each thing that ranks are on
        self.ranks = 1

    def one_of(self, odds: int) -> bool:
        return self.draw(numbers(1, odds)) == 1

    def maybe(self, name: str, values: st.SearchStrategy[str], odds: int = 3) -> bool:
        if not self.one_of(odds):
            return False
        self.args += [name, self.draw(values)]
        return True

    def exclude(self) -> None:
        """Some cpus, whose cores stay out; one core is left."""
        cores = cores_of(self.machine.topology, self.machine.topology.online)
        picked = {self.draw(one_of(*self.cpus)) for _ in range(self.draw(numbers(1, 3)))}
        lost = union(core for core in cores if core & CpuSet(picked))
        if not self.machine.allowed.cpus <= lost:
            option = self.draw(one_of("--exclude", "--exclude", "--exclude-cpus"))
            self.args += [option, str(CpuSet(picked))]
            self.sizes = Sizes(self.machine, lost)

    def name_cpus(self, sharing: bool) -> bool:
        """Lists of cpus, and of nodes for their memory; returns whether of nodes."""
        draw = self.draw
        if sharing:
            lists = [draw_some(draw, self.cpus, least=1) for _ in range(2)]
        else:
            order = draw_order(draw, self.cpus)
            cut = numbers(1, len(order))
            bounds = [0, *sorted({len(order), *(draw(cut) for _ in range(draw(numbers(0, 3))))})]
            lists = [order[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
            if lists[1:]:
                lists = lists[: draw(numbers(1, len(lists)))]
        self.args += ["--numa-bind-cpus", *(str(CpuSet(cpus)) for cpus in lists)]
        self.ranks = len(lists)
        if not self.sizes.nodes or self.one_of(2):
            return False
        node = one_of(*sorted(self.sizes.nodes))
        self.args += ["--numa-bind-nodes", *(str(draw(node)) for _ in lists)]
        return True

    def place(self, where: str, many: int) -> None:
        """Where ranks go, at most `many` times as many as there are cores."""
        sizes, draw = self.sizes, self.draw
        self.parts = [len(sizes.cores)]
        if where == "ranks":
            self.ranks = draw(numbers(1, min(len(sizes.cores) * many, 20)))
            self.args += ["--ranks", str(self.ranks)]
        elif where == "nodes":
            room = [n for n, count in sorted(sizes.nodes.items()) for _ in range(count * many)]
            named = draw_order(draw, room)[: draw(numbers(1, min(len(room), 8)))]
            self.args += ["--numa-bind-nodes", *map(str, named)]
            self.ranks = len(named)
            self.parts = [sizes.nodes[n] for n in dict.fromkeys(named)]
        elif where == "bind":
            self.parts = list(sizes.nodes.values())
            self.args += ["--numa-bind"]
        elif where == "per":
            every = ("numa", "package", "l3", "core", "die", "l2", "cluster", "book", "drawer")
            levels = [per for per in every if sizes.groups(per)]
            per = draw(one_of(*levels))
            self.parts = sizes.groups(per)
            self.ranks = len(self.parts)
            self.args += ["--per", per]
        if where in ("per", "bind") and self.one_of(2):
            self.ranks = draw(numbers(1, min(len(self.parts) * min(self.parts) * many, 20)))
            way = draw(one_of("block", "cyclic", "spread"))
            parts = sorted(self.parts) if way == "spread" else self.parts
            self.parts = parts[: self.ranks]
            self.args += ["--ranks", str(self.ranks), "--distribution", way]

    def set_aside(self, where: str, sharing: bool, roles: bool) -> bool:
        """Cores reserved or for a role; each rank keeps one. Returns whether there are any."""
        parts, ranks = self.parts, self.ranks
        holders = len(parts) if sharing else ranks
        fits = sharing or min(parts) * len(parts) >= ranks
        spare = sum(parts) - holders if fits else 0
        # Of a rank's own: what the least part can give to each of its ranks.
        each = 0 if sharing else min(parts) // -(-ranks // len(parts)) - 1
        if where == "ranks" and len(self.machine.topology.nodes) > 1:
            each = 0  # a rank may have less than its share
        before = len(self.args)
        for option, name, odds in (("--role", "kv=", 1 if roles else 4), ("--reserve", "", 4)):
            if each >= 1 and self.one_of(2):
                number = self.draw(numbers(1, min(each, 2)))
                if self.maybe(option, one_of(f"{name}{number}/rank"), odds):
                    spare, each = spare - number * ranks, each - number
            elif spare >= 1:
                number = self.draw(numbers(1, min(spare, 4)))
                if self.maybe(option, one_of(f"{name}{number}"), odds):
                    spare, each = spare - number, 0
        return len(self.args) > before

    def narrow(self) -> None:
        """A part of the machine, or one kind of its cores."""
        count = self.draw(numbers(1, min(4, len(self.sizes.cores))))
        self.maybe("--part", one_of(*(f"{n}/{count}" for n in range(1, count + 1))))
        kinds = {c.kind for c in self.machine.topology.cpus if c.cpu in self.sizes.usable}
        if len(kinds - {None}) > 1 and "--part" not in self.args:
            self.maybe("--kind", one_of("performance", "efficiency", "all"))


@st.composite
def requests(
    draw: st.DrawFn,
    machine: Machine,
    *,
    share: bool = False,
    roles: bool = False,
    binder: str = "",
) -> Request:
    """What can be asked of the machine; nearly all of it can be had. With `share` ranks share, with
    `roles` there is a role where there is a core for it."""
    asking = Asking(draw, machine)
    where = draw(one_of("", "ranks", "ranks", "per", "bind", "nodes", "cpus"))
    sharing = share or asking.one_of(4)
    crowd = asking.one_of(5)
    if where == "cpus":
        bound = asking.name_cpus(sharing)
    else:
        if asking.one_of(4):
            asking.exclude()
        if where in ("bind", "nodes") and not asking.sizes.nodes:
            where = "ranks"
        asking.place(where, 3 if crowd or sharing else 1)
        bound = where in ("bind", "nodes")
        most = asking.sizes.threads
        asking.maybe("--smt", one_of("all", *map(str, range(1, most + 1))))
        aside = asking.set_aside(where, sharing, roles)
        if where in ("", "ranks") and asking.ranks == 1 and not aside:
            asking.narrow()
        asking.args += ["--oversubscribe"] * crowd
    asking.args += ["--share"] * sharing
    places = ["threads", "cores", "one", "wide"]
    places += ["l3"] * bool(asking.sizes.groups("l3")) + ["numa"] * asking.sizes.known("node")
    policies = [] if where == "cpus" and bound else ["local", "none"]  # nodes are for memory
    named = ["bind", "preferred", "interleave", "weighted-interleave"]
    policies += named * (bound or asking.sizes.bindable)
    asking.maybe("--places", one_of(*places), 2)
    asking.maybe("--proc-bind", one_of("close", "spread", "primary", "true", "false"))
    asking.maybe("--threads", THREADS, 4)
    asking.maybe("--mem", one_of(*policies), 2)
    asking.args += ["--binder", binder or draw(one_of("numactl", "native"))]
    asking.args += draw(one_of((), ("--rank-env",), ("--no-rank-env",)))
    asking.args += draw(one_of((), ("--template",)))
    environ = draw(environments(asking.cpus[0], asking.cpus[-1]))
    return make_asked(asking.args, draw(COMMANDS), environ)


@cache
def environments(first: int, last: int) -> st.SearchStrategy[dict[str, str]]:
    """What of OpenMP a user may have set, usable and not, where these cpus may be used."""
    return st.fixed_dictionaries(
        {},
        optional={
            "OMP_PLACES": one_of("threads", "cores", f"{{{first}}},{{{last}}}", "{0},{1}", ""),
            "OMP_PROC_BIND": one_of("spread", "false", "close,spread"),
            "OMP_NUM_THREADS": one_of("3", "4,2", "x"),
            "KMP_AFFINITY": one_of("compact"),
        },
    )


@st.composite
def wild_requests(draw: st.DrawFn, machine: Machine) -> Request:
    """Any request that the command line takes; most of them cannot be had."""
    cpus, topology = sorted(machine.topology.online), machine.topology
    nodes = [*topology.node_numbers, 99]
    asked: list[list[str]] = []

    def maybe(name: str, values: st.SearchStrategy[object], odds: int = 4) -> None:
        if draw(numbers(1, odds)) == 1:
            asked.append([name, str(draw(values))])

    maybe("--ranks", numbers(1, 20), 2)
    maybe("--per", one_of("numa", "package", "l3", "core", "die", "l2", "book"))
    if draw(numbers(1, 4)) == 1:
        named = [draw(one_of(*nodes)) for _ in range(draw(numbers(1, 6)))]
        plus = draw(one_of("", "+0", "+99"))
        asked.append(["--numa-bind-nodes", *(f"{node}{plus}" for node in named)])
    if draw(numbers(1, 4)) == 1:
        every = [*cpus, cpus[-1] + 1]
        lists = [CpuSet(draw_some(draw, every, least=1)) for _ in range(draw(numbers(1, 3)))]
        asked.append(["--numa-bind-cpus", *map(str, lists)])
    for flag in ("--share", "--oversubscribe", "--numa-bind"):
        asked += [[flag]] * (draw(numbers(1, 4)) == 1)
    maybe("--smt", one_of("1", "2", "4", "all"))
    maybe("--reserve", one_of(0, 1, 2, 3, 4, "1/rank", "1/rank"))
    maybe("--role", one_of("kv=1", "kv=2", "kv=1/rank", "kv=1/rank,io=1"))
    maybe("--cores-per-rank", one_of(1, 2, 3, 4, 5, "1,2", "3,1,1", "2,2"))
    maybe("--threads", one_of("cores", "3"))
    if draw(numbers(1, 4)) == 1:
        each = one_of(*map(str, nodes), "all")
        asked.append(["--mem-nodes", *(draw(each) for _ in range(draw(numbers(1, 3))))])
    maybe("--mem-kind", one_of("hbm", "dram", "cxl"))
    maybe("--mem-need", one_of("1G", "3K/rank"))
    asked += [["--mem-balancing"]] * (draw(numbers(1, 6)) == 1)
    maybe("--distribution", one_of("cyclic", "spread"))
    maybe("--kind", one_of("performance", "efficiency"))
    maybe("--part", one_of("1/1", "1/2", "2/2", "3/3", "1/4"))
    if draw(numbers(1, 4)) == 1:
        excluded = {draw(one_of(*cpus)) for _ in range(draw(numbers(1, 3)))}
        asked.append(["--exclude", str(CpuSet(excluded))])
    maybe("--exclude-cpus", one_of(*cpus))
    maybe("--places", one_of("threads", "l3", "numa", "one"))
    maybe("--mem", one_of("bind", "preferred", "interleave", "local", "none"))
    while True:
        try:
            return make_asked([word for words in asked for word in words])
        except PlanError:  # options that contradict each other
            asked.pop(draw(numbers(0, len(asked) - 1)))
