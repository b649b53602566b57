"""Machines of every form, and what can be asked of them: from the machine's own sizes, so that most
requests can be had. What is counted here is counted from the topology, not by the planner."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hypothesis import strategies as st

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.machine.topology import Allowed, Machine, Topology
from ompbind.planner.request import Request
from tests.support.machines import make_asked
from tests.support.trees import make_topology, shapes


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """A machine of any form, of which any part may be used."""
    topology = make_topology(draw(shapes(most_cores=16)))
    cpus = sorted(topology.online)
    nodes = sorted(topology.node_numbers)
    few = st.sets(st.sampled_from(cpus), min_size=1)
    allowed = draw(st.just(set(cpus)) | st.just(set(cpus)) | few)
    some = st.sets(st.sampled_from(nodes)) if nodes else st.just(set[int]())
    mems = draw(st.just(set(nodes)) | some)
    quota = draw(st.none() | st.sampled_from([0.5, 1.0, 2.5, 100.0]))
    return Machine(topology, Allowed(CpuSet(allowed), CpuSet(mems), quota), "made-up")


WORDS = st.binary(max_size=6).map(
    lambda b: os.fsdecode(b.translate(None, b"{}").replace(b"\0", b"{rank}"))
)
COMMANDS = st.lists(WORDS, min_size=1, max_size=3).map(tuple)


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
        return self.draw(st.integers(1, odds)) == 1

    def maybe(self, name: str, values: st.SearchStrategy[str], odds: int = 3) -> bool:
        if not self.one_of(odds):
            return False
        self.args += [name, self.draw(values)]
        return True

    def exclude(self) -> None:
        """Some cpus, whose cores stay out; one core is left."""
        cores = cores_of(self.machine.topology, self.machine.topology.online)
        picked = self.draw(st.sets(st.sampled_from(self.cpus), min_size=1, max_size=3))
        lost = union(core for core in cores if core & CpuSet(picked))
        if not self.machine.allowed.cpus <= lost:
            option = self.draw(st.sampled_from(["--exclude", "--exclude", "--exclude-cpus"]))
            self.args += [option, str(CpuSet(picked))]
            self.sizes = Sizes(self.machine, lost)

    def name_cpus(self, sharing: bool) -> bool:
        """Lists of cpus, and of nodes for their memory; returns whether of nodes."""
        order = self.draw(st.permutations(self.cpus))
        ends = {len(order), *self.draw(st.lists(st.integers(1, len(order)), max_size=3))}
        bounds = [0, *sorted(ends)]
        lists = [order[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
        if sharing:
            lists = [self.draw(st.lists(st.sampled_from(self.cpus), min_size=1)) for _ in range(2)]
        elif lists[1:]:
            lists = lists[: self.draw(st.integers(1, len(lists)))]
        self.args += ["--numa-bind-cpus", *(str(CpuSet(numbers)) for numbers in lists)]
        self.ranks = len(lists)
        if not self.sizes.nodes or self.draw(st.booleans()):
            return False
        node = st.sampled_from(sorted(self.sizes.nodes))
        self.args += ["--numa-bind-nodes", *(str(self.draw(node)) for _ in lists)]
        return True

    def place(self, where: str, many: int) -> None:
        """Where ranks go, at most `many` times as many as there are cores."""
        sizes, draw = self.sizes, self.draw
        self.parts = [len(sizes.cores)]
        if where == "ranks":
            self.ranks = draw(st.integers(1, min(len(sizes.cores) * many, 20)))
            self.args += ["--ranks", str(self.ranks)]
        elif where == "nodes":
            room = [n for n, count in sorted(sizes.nodes.items()) for _ in range(count * many)]
            named = draw(st.permutations(room))[: draw(st.integers(1, min(len(room), 8)))]
            self.args += ["--numa-bind-nodes", *map(str, named)]
            self.ranks = len(named)
            self.parts = [sizes.nodes[n] for n in dict.fromkeys(named)]
        elif where == "bind":
            self.parts = list(sizes.nodes.values())
            self.args += ["--numa-bind"]
        elif where == "per":
            every = ("numa", "package", "l3", "core", "die", "l2", "cluster", "book", "drawer")
            levels = [per for per in every if sizes.groups(per)]
            per = draw(st.sampled_from(levels))
            self.parts = sizes.groups(per)
            self.ranks = len(self.parts)
            self.args += ["--per", per]
        if where in ("per", "bind") and draw(st.booleans()):
            self.ranks = draw(st.integers(1, min(len(self.parts) * min(self.parts) * many, 20)))
            way = draw(st.sampled_from(["block", "cyclic", "spread"]))
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
            if each >= 1 and self.draw(st.booleans()):
                number = self.draw(st.integers(1, min(each, 2)))
                if self.maybe(option, st.just(f"{name}{number}/rank"), odds):
                    spare, each = spare - number * ranks, each - number
            elif spare >= 1:
                number = self.draw(st.integers(1, min(spare, 4)))
                if self.maybe(option, st.just(f"{name}{number}"), odds):
                    spare, each = spare - number, 0
        return len(self.args) > before

    def narrow(self) -> None:
        """A part of the machine, or one kind of its cores."""
        count = self.draw(st.integers(1, min(4, len(self.sizes.cores))))
        self.maybe("--part", st.integers(1, count).map(lambda n: f"{n}/{count}"))
        kinds = {c.kind for c in self.machine.topology.cpus if c.cpu in self.sizes.usable}
        if len(kinds - {None}) > 1 and "--part" not in self.args:
            self.maybe("--kind", st.sampled_from(["performance", "efficiency", "all"]))


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
    where = draw(st.sampled_from(["", "ranks", "ranks", "per", "bind", "nodes", "cpus"]))
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
        asking.maybe("--smt", st.sampled_from(["all", *map(str, range(1, most + 1))]))
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
    asking.maybe("--places", st.sampled_from(places), 2)
    asking.maybe("--proc-bind", st.sampled_from(["close", "spread", "primary", "true", "false"]))
    asking.maybe("--threads", st.integers(1, 40).map(str) | st.just("cores"), 4)
    asking.maybe("--mem", st.sampled_from(policies), 2)
    asking.args += ["--binder", binder or draw(st.sampled_from(["numactl", "native"]))]
    asking.args += draw(st.sampled_from([[], ["--rank-env"], ["--no-rank-env"]]))
    asking.args += draw(st.sampled_from([[], ["--template"]]))
    return make_asked(asking.args, draw(COMMANDS), draw(environments(asking.cpus)))


def environments(cpus: Sequence[int]) -> st.SearchStrategy[dict[str, str]]:
    """What of OpenMP a user may have set, usable and not."""
    places = f"{{{cpus[0]}}},{{{cpus[-1]}}}"
    return st.fixed_dictionaries(
        {},
        optional={
            "OMP_PLACES": st.sampled_from(["threads", "cores", places, "{0},{1}", ""]),
            "OMP_PROC_BIND": st.sampled_from(["spread", "false", "close,spread"]),
            "OMP_NUM_THREADS": st.sampled_from(["3", "4,2", "x"]),
            "KMP_AFFINITY": st.just("compact"),
        },
    )


@st.composite
def wild_requests(draw: st.DrawFn, machine: Machine) -> Request:
    """Any request that the command line takes; most of them cannot be had."""
    cpus, topology = sorted(machine.topology.online), machine.topology
    nodes = [*topology.node_numbers, 99]
    asked: list[list[str]] = []

    def maybe(name: str, values: st.SearchStrategy[object], odds: int = 4) -> None:
        if draw(st.integers(1, odds)) == 1:
            asked.append([name, str(draw(values))])

    maybe("--ranks", st.integers(1, 20), 2)
    maybe("--per", st.sampled_from(["numa", "package", "l3", "core", "die", "l2", "book"]))
    if draw(st.integers(1, 4)) == 1:
        named = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=6))
        plus = draw(st.sampled_from(["", "+0", "+99"]))
        asked.append(["--numa-bind-nodes", *(f"{node}{plus}" for node in named)])
    if draw(st.integers(1, 4)) == 1:
        sets = st.sets(st.sampled_from([*cpus, cpus[-1] + 1]), min_size=1).map(CpuSet)
        lists = draw(st.lists(sets, min_size=1, max_size=3))
        asked.append(["--numa-bind-cpus", *map(str, lists)])
    for flag in ("--share", "--oversubscribe", "--numa-bind"):
        asked += [[flag]] * (draw(st.integers(1, 4)) == 1)
    maybe("--smt", st.sampled_from(["1", "2", "4", "all"]))
    maybe("--reserve", st.integers(0, 4) | st.just("1/rank"))
    maybe("--role", st.sampled_from(["kv=1", "kv=2", "kv=1/rank", "kv=1/rank,io=1"]))
    maybe("--cores-per-rank", st.integers(1, 5) | st.sampled_from(["1,2", "3,1,1", "2,2"]))
    maybe("--threads", st.sampled_from(["cores", "3"]))
    if draw(st.integers(1, 4)) == 1:
        each = st.sampled_from([*map(str, nodes), "all"])
        asked.append(["--mem-nodes", *draw(st.lists(each, min_size=1, max_size=3))])
    maybe("--mem-kind", st.sampled_from(["hbm", "dram", "cxl"]))
    maybe("--mem-need", st.sampled_from(["1G", "3K/rank"]))
    asked += [["--mem-balancing"]] * (draw(st.integers(1, 6)) == 1)
    maybe("--distribution", st.sampled_from(["cyclic", "spread"]))
    maybe("--kind", st.sampled_from(["performance", "efficiency"]))
    maybe("--part", st.sampled_from(["1/1", "1/2", "2/2", "3/3", "1/4"]))
    maybe("--exclude", st.sets(st.sampled_from(cpus), min_size=1, max_size=3).map(CpuSet))
    maybe("--exclude-cpus", st.sampled_from(cpus))
    maybe("--places", st.sampled_from(["threads", "l3", "numa", "one"]))
    maybe("--mem", st.sampled_from(["bind", "preferred", "interleave", "local", "none"]))
    while True:
        try:
            return make_asked([word for words in asked for word in words])
        except PlanError:  # options that contradict each other
            asked.pop(draw(st.integers(0, len(asked) - 1)))
