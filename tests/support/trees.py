"""Made-up machines: their `/sys` and `/proc` as files, and what a reader must find in them.

A `Shape` says what a machine is made of; `make_files` gives the files of such a machine,
`make_topology` what they say, worked out from the shape alone. `MemoryRoot` holds files as a
reader wants them, `write_tree` writes them to a directory, `shapes` is a hypothesis strategy.

    root = MemoryRoot(make_files(Shape(packages=2, nodes=4, l3s=8, cores=32, threads=2)))
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.machine.cpus import read_topology
from ompbind.machine.limits import read_allowed, read_hostname
from ompbind.machine.topology import Cpu, Device, Machine, Node, Port, Topology
from tests.support.draws import draw_few, draw_order, draw_some, maybe, numbers, one_of

CPUS = "sys/devices/system/cpu"
NODES = "sys/devices/system/node"


@dataclass(frozen=True)
class Kind:
    """`cores` cores of one kind; frequencies in kHz; `cppc` the firmware's highest performance;
    `pmu` is `cpu_core`, `cpu_atom`…"""

    cores: int
    threads: int = 1
    capacity: int | None = None
    base: int | None = None
    peak: int | None = None
    pmu: str | None = None
    cppc: int | None = None


@dataclass(frozen=True)
class Pci:
    pci: str
    pci_class: str  # "030200"
    node: int = -1
    cpus: str | None = None  # None: all online
    vendor: str = "10de"
    model: str = ""
    names: tuple[str, ...] = ()  # of network interfaces
    driver: str | None = None  # "": none; None on all devices: the tree does not say
    ports: tuple[Port, ...] = ()  # of a network card, instead of names
    bridges: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """What a machine is made of. Counts are of the whole machine; each thing holds a block of
    neighbouring cores, as equal as can be. None: the machine does not say that level.

    `numbering` of cpus: "pairs" (a core's threads side by side), "halves" (first threads of all
    cores, then second ones), "round-robin" (halves, neighbouring numbers in different packages).
    """

    packages: int = 1
    nodes: int = 1
    cores: int = 4
    threads: int = 1
    dies: int | None = None
    clusters: int | None = None
    l2s: int | None = 0  # 0: each core has its own
    l3s: int | None = 1
    books: int | None = None
    drawers: int | None = None
    kinds: tuple[Kind, ...] = ()  # instead of cores and threads
    numbering: str = "pairs"
    cpu_step: int = 1
    first_cpu: int = 0
    node_numbers: tuple[int, ...] = ()
    memory_only: tuple[int, ...] = ()  # numbers of further nodes, without cpus
    without_memory: tuple[int, ...] = ()  # numbers of nodes
    offline: str = ""
    spare: int = 0  # possible cpus above, never plugged in
    isolated: str = ""
    nohz_full: str | None = None
    node_dir: str = "there"  # or "hidden" (in a container), "none" (a kernel without NUMA)
    lists: bool = True  # the _list files beside the masks
    old: bool = False  # before Linux 2.6.30: no online, possible; no newer names
    core_numbers: bool = True  # False: core_id and physical_package_id of -1
    devices: tuple[Pci, ...] = ()

    @property
    def all_kinds(self) -> tuple[Kind, ...]:
        return self.kinds or (Kind(self.cores, self.threads),)


@dataclass(frozen=True)
class Thread:
    """A hardware thread: its core's position in the machine, and its position in the core."""

    core: int
    thread: int
    kind: Kind


@lru_cache(maxsize=4)  # asked for each file
def make_threads(shape: Shape) -> Mapping[int, Thread]:
    """Every hardware thread by its cpu number, the offline ones too."""
    threads = []
    core = 0
    for kind in shape.all_kinds:
        for _ in range(kind.cores):
            threads += [Thread(core, t, kind) for t in range(kind.threads)]
            core += 1
    block = block_of(core, shape.packages)
    position = [c - next(d for d in range(core) if block(d) == block(c)) for c in range(core)]
    keys: dict[str, Callable[[Thread], tuple[int, ...]]] = {
        "pairs": lambda t: (t.core, t.thread),
        "halves": lambda t: (t.thread, t.core),
        "round-robin": lambda t: (t.thread, position[t.core], block(t.core)),
    }
    threads.sort(key=keys[shape.numbering])
    return {shape.first_cpu + shape.cpu_step * i: t for i, t in enumerate(threads)}


def block_of(cores: int, blocks: int) -> Callable[[int], int]:
    return lambda core: core * blocks // cores


@lru_cache(maxsize=4)
def online_threads(shape: Shape) -> Mapping[int, Thread]:
    offline = CpuSet.parse_kernel(shape.offline)
    return {cpu: t for cpu, t in make_threads(shape).items() if cpu not in offline}


def count_cores(shape: Shape) -> int:
    return sum(kind.cores for kind in shape.all_kinds)


def make_level(shape: Shape, level: str) -> dict[int, int]:
    """A number of the thing each online cpu is in, not yet dense; {} where it is not said."""
    cores = count_cores(shape)
    counts = {
        "core": cores,
        "package": shape.packages,
        "die": shape.dies,
        "cluster": shape.clusters,
        "l2": cores if shape.l2s == 0 else shape.l2s,
        "l3": shape.l3s,
        "book": shape.books,
        "drawer": shape.drawers,
        "node": shape.nodes,
    }
    count = counts[level]
    if count is None or (shape.old and level in ("die", "cluster")):
        return {}
    block = block_of(cores, count)
    return {cpu: block(t.core) for cpu, t in online_threads(shape).items()}


def make_groups(shape: Shape, level: str) -> dict[int, frozenset[int]]:
    """Who shares a thing with each online cpu."""
    numbers = make_level(shape, level)
    groups: dict[int, set[int]] = {}
    for cpu, number in numbers.items():
        groups.setdefault(number, set()).add(cpu)
    frozen = {number: frozenset(cpus) for number, cpus in groups.items()}
    return {cpu: frozen[number] for cpu, number in numbers.items()}


def all_nodes(shape: Shape) -> dict[int, CpuSet]:
    """Online cpus by real node number."""
    numbers = shape.node_numbers or tuple(range(shape.nodes))
    level = make_level(shape, "node")
    found = {n: CpuSet(c for c, b in level.items() if b == i) for i, n in enumerate(numbers)}
    found |= {n: CpuSet() for n in shape.memory_only}
    return dict(sorted(found.items()))


def memory_kb(shape: Shape, node: int) -> int:
    return 0 if node in shape.without_memory else (node + 1) * 1024 * 1024


def distance(a: int, b: int) -> int:
    return 10 if a == b else 20 + abs(a - b) % 50


# What must be read


def make_topology(shape: Shape) -> Topology:
    """What a reader must find in the files of such a machine."""
    levels = {
        level: dense(make_level(shape, level))
        for level in ("core", "package", "die", "cluster", "l2", "l3", "book", "drawer")
    }
    threads = online_threads(shape)
    online = CpuSet(threads)
    nodes = tuple(Node(n, cs, memory_kb(shape, n) * 1024) for n, cs in all_nodes(shape).items())
    if shape.node_dir != "there":
        nodes = (Node(0, online, 8 << 30),) if shape.node_dir == "none" else ()
    node_of = {cpu: n.node for n in nodes for cpu in n.cpus}
    order = sorted(set(shape.kinds), key=capability)
    kinds = {c: order.index(t.kind) for c, t in threads.items()} if len(order) > 1 else {}
    kinds = dense_in_order(kinds)
    capacities = make_capacities({t.kind for t in threads.values()}) if kinds else {}
    offline = CpuSet(make_threads(shape)) - online
    return Topology(
        cpus=tuple(
            Cpu(
                cpu,
                node=node_of.get(cpu),
                kind=kinds.get(cpu),
                capacity=capacities.get(threads[cpu].kind),
                **{lv: groups.get(cpu) for lv, groups in levels.items()},
            )
            for cpu in sorted(threads)
        ),
        nodes=nodes,
        distances=(
            tuple(tuple(distance(a.node, b.node) for b in nodes) for a in nodes)
            if shape.node_dir == "there"
            else ()
        ),
        devices=tuple(
            Device(
                {"03": "gpu", "02": "nic", "12": "accelerator", "0b": "coprocessor"}[
                    d.pci_class[:2]
                ],
                d.pci,
                d.node if d.node >= 0 else None,
                online if d.cpus is None else CpuSet.parse_kernel(d.cpus) & online,
                d.vendor,
                d.model,
                names_of(d),
                (d.driver or "") if any(d.driver for d in shape.devices) else None,
                bridges=d.bridges,
                ports=d.ports or make_ports(d),
            )
            for d in sorted(shape.devices, key=lambda d: d.pci)
        ),
        possible=possible(shape),
        offline=offline,
        isolated=CpuSet.parse_kernel(shape.isolated),
        nohz_full=CpuSet.parse_kernel(shape.nohz_full or ""),
        numa=shape.node_dir != "none",
    )


def make_ports(d: Pci) -> tuple[Port, ...]:
    """The ports of a network card of which only the interfaces' names are known."""
    return tuple(Port(name, "net") for name in d.names if d.pci_class[:2] == "02")


def names_of(d: Pci) -> tuple[str, ...]:
    nets = [port.name for port in d.ports if port.kind == "net"]
    cards = [
        p.name.partition(":")[0] for kind in ("rdma", "cxi") for p in d.ports if p.kind == kind
    ]
    return (*d.names, *nets, *dict.fromkeys(cards))


def capability(kind: Kind) -> tuple[int, int, int]:
    pmus = ("cpu_lowpower", "cpu_atom", "cpu_core")
    return kind.capacity or 0, pmus.index(kind.pmu) if kind.pmu else 0, kind.peak or 0


def make_capacities(kinds: set[Kind]) -> dict[Kind, int]:
    """What each kind can do, the most capable 1024, by the first number that tells them apart."""
    for name in ("capacity", "cppc", "peak"):
        values = {kind: getattr(kind, name) or 0 for kind in kinds}
        if min(values.values()) > 0 and len(set(values.values())) > 1:
            return {kind: value * 1024 // max(values.values()) for kind, value in values.items()}
    return {}


def dense(numbers: Mapping[int, int]) -> dict[int, int]:
    """Numbered again in the order of each group's lowest cpu."""
    new: dict[int, int] = {}
    return {cpu: new.setdefault(numbers[cpu], len(new)) for cpu in sorted(numbers)}


def dense_in_order(numbers: Mapping[int, int]) -> dict[int, int]:
    """Numbered again without gaps, the order kept; {} when only one is left."""
    left = sorted(set(numbers.values()))
    return {c: left.index(n) for c, n in numbers.items()} if len(left) > 1 else {}


@lru_cache(maxsize=4)
def possible(shape: Shape) -> CpuSet:
    cpus = CpuSet(make_threads(shape))
    if shape.old:
        return cpus
    top = max(cpus) + 1
    return cpus | CpuSet(range(top, top + shape.spare))


@lru_cache(maxsize=4)
def count_bits(shape: Shape) -> int:
    """How many bits the kernel's masks have."""
    return max(possible(shape)) + 1


# Files


def make_files(shape: Shape) -> dict[str, str]:
    """The files of such a machine, by path without the leading `/`."""
    files: dict[str, str] = {"proc/meminfo": "MemTotal:        8388608 kB\nMemFree: 1 kB\n"}
    add_cpu_files(files, shape)
    for level, names in (
        ("core", ("thread_siblings",) if shape.old else ("core_cpus", "thread_siblings")),
        ("package", ("core_siblings",) if shape.old else ("package_cpus", "core_siblings")),
        ("die", ("die_cpus",)),
        ("cluster", ("cluster_cpus",)),
        ("book", ("book_siblings",)),
        ("drawer", ("drawer_siblings",)),
    ):
        number_name = {"package": "physical_package_id"}.get(level, f"{level}_id")
        numbers = make_level(shape, level)
        for cpu, group in make_groups(shape, level).items():
            directory = f"{CPUS}/cpu{cpu}/topology"
            number = numbers[cpu] if shape.core_numbers else -1
            if level not in ("die", "cluster"):  # -1 there would be "not said"
                files[f"{directory}/{number_name}"] = f"{number}\n"
            else:
                files[f"{directory}/{number_name}"] = f"{numbers[cpu]}\n"
            for name in names:
                add_mask(files, shape, f"{directory}/{name}", group)
    add_caches(files, shape)
    add_kinds(files, shape)
    add_nodes(files, shape)
    add_devices(files, shape)
    return files


def add_cpu_files(files: dict[str, str], shape: Shape) -> None:
    online = CpuSet(online_threads(shape))
    everything = CpuSet(make_threads(shape))
    if not shape.old:
        files[f"{CPUS}/online"] = f"{online}\n"
        files[f"{CPUS}/possible"] = f"{possible(shape)}\n"
        files[f"{CPUS}/present"] = f"{everything}\n"
        files[f"{CPUS}/offline"] = f"{possible(shape) - online}\n"
        files[f"{CPUS}/isolated"] = f"{shape.isolated}\n"
    if shape.nohz_full is not None:
        files[f"{CPUS}/nohz_full"] = f"{shape.nohz_full or '  (null)'}\n"
    for cpu in everything:
        if cpu != shape.first_cpu or cpu not in online:  # the first one cannot be switched off
            files[f"{CPUS}/cpu{cpu}/online"] = f"{int(cpu in online)}\n"
    files["proc/stat"] = "cpu  1 2 3\n" + "".join(f"cpu{c} 1 2 3\n" for c in online) + "intr 1\n"


def add_mask(files: dict[str, str], shape: Shape, path: str, cpus: Iterable[int]) -> None:
    files[path] = mask_text(cpus, count_bits(shape))
    if shape.lists and not shape.old:
        files[f"{path}_list"] = list_text(frozenset(cpus))


def mask_text(cpus: Iterable[int], bits: int) -> str:
    """As the kernel writes it: words of 32 bits, the first one cut to the bits it needs."""
    return make_mask_text(frozenset(cpus), bits)


@lru_cache(maxsize=4096)  # each of a core's cpus has a dozen files that say the same
def make_mask_text(cpus: frozenset[int], bits: int) -> str:
    mask = sum(1 << c for c in cpus)
    words = [f"{mask >> 32 * i & 0xFFFFFFFF:08x}" for i in range((bits + 31) // 32)]
    words[-1] = words[-1][-(((bits - 1) % 32) // 4 + 1) :]
    return ",".join(reversed(words)) + "\n"


@lru_cache(maxsize=4096)
def list_text(cpus: frozenset[int]) -> str:
    return f"{CpuSet(cpus)}\n"


def add_caches(files: dict[str, str], shape: Shape) -> None:
    l2, l3 = make_groups(shape, "l2"), make_groups(shape, "l3")
    for cpu, core in make_groups(shape, "core").items():
        caches = [("1", "Data", core), ("1", "Instruction", core)]
        caches += [("2", "Unified", l2[cpu])] if cpu in l2 else []
        caches += [("3", "Unified", l3[cpu])] if cpu in l3 else []
        if shape.l2s is None and shape.l3s is None:  # no cache directories at all
            return
        for i, (level, kind, group) in enumerate(caches):
            directory = f"{CPUS}/cpu{cpu}/cache/index{i}"
            files[f"{directory}/level"] = f"{level}\n"
            files[f"{directory}/type"] = f"{kind}\n"
            files[f"{directory}/shared_cpu_map"] = mask_text(group, count_bits(shape))
            files[f"{directory}/shared_cpu_list"] = list_text(group)


def add_kinds(files: dict[str, str], shape: Shape) -> None:
    pmus: dict[str, list[int]] = {}
    for cpu, t in online_threads(shape).items():
        for name, value in (
            ("cpu_capacity", t.kind.capacity),
            ("cpufreq/base_frequency", t.kind.base),
            ("cpufreq/cpuinfo_max_freq", t.kind.peak),
            ("acpi_cppc/highest_perf", t.kind.cppc),
        ):
            if value is not None:
                files[f"{CPUS}/cpu{cpu}/{name}"] = f"{value}\n"
        if t.kind.pmu:
            pmus.setdefault(t.kind.pmu, []).append(cpu)
    files.update({f"sys/devices/{pmu}/cpus": f"{CpuSet(cpus)}\n" for pmu, cpus in pmus.items()})


def add_nodes(files: dict[str, str], shape: Shape) -> None:
    if shape.node_dir != "none":
        files["proc/self/numa_maps"] = "00400000 default file=/bin/true\n"
    if shape.node_dir != "there":
        return
    nodes = all_nodes(shape)
    if not shape.old:
        files[f"{NODES}/online"] = f"{CpuSet(nodes)}\n"
    for node, cpus in nodes.items():
        directory = f"{NODES}/node{node}"
        files[f"{directory}/cpumap"] = mask_text(cpus, count_bits(shape))
        if shape.lists:
            files[f"{directory}/cpulist"] = f"{cpus}\n"
        kb = memory_kb(shape, node)
        files[f"{directory}/meminfo"] = (
            f"Node {node} MemTotal: {kb} kB\nNode {node} MemFree: 1 kB\n"
        )
        files[f"{directory}/distance"] = " ".join(str(distance(node, m)) for m in nodes) + "\n"


def add_devices(files: dict[str, str], shape: Shape) -> None:
    bits = count_bits(shape)
    for d in shape.devices:
        cpus = online_threads(shape) if d.cpus is None else CpuSet.parse_kernel(d.cpus)
        directory = f"sys/bus/pci/devices/{d.pci}"
        files[f"{directory}/class"] = f"0x{d.pci_class}\n"
        files[f"{directory}/vendor"] = f"0x{d.vendor}\n"
        files[f"{directory}/numa_node"] = f"{d.node}\n"
        files[f"{directory}/local_cpus"] = mask_text(cpus, bits)
        if d.model:
            files[f"{directory}/device"] = f"0x{d.model}\n"
        files.update({f"{directory}/net/{name}/mtu": "1500\n" for name in d.names})
        for port in d.ports:
            files.update({f"{directory}/{path}": text for path, text in make_port_files(port)})


def make_port_files(port: Port) -> list[tuple[str, str]]:
    card, _, number = port.name.partition(":")
    if port.kind == "rdma":
        directory = f"infiniband/{card}/ports/{number}"
        state = {True: "4: ACTIVE\n", False: "1: DOWN\n", None: ""}[port.up]
        rate = f"{port.rate / 1000:g} Gb/sec (4X EDR)\n" if port.rate else ""
        return [(f"{directory}/state", state), (f"{directory}/rate", rate)]
    if port.kind == "cxi":
        return [(f"cxi/{card}/uevent", "\n")]
    state = {True: "up\n", False: "down\n", None: "unknown\n"}[port.up]
    return [(f"net/{card}/operstate", state), (f"net/{card}/speed", f"{port.rate or -1}\n")]


def make_links(shape: Shape) -> dict[str, str]:
    """The symbolic links of such a machine: from the bus to devices below their bridges, and from
    devices to their drivers."""
    bus = "sys/bus/pci/devices"
    places = {
        f"{bus}/{d.pci}": f"sys/devices/{'/'.join(d.bridges)}/{d.pci}"
        for d in shape.devices
        if d.bridges
    }
    drivers = {
        f"{bus}/{d.pci}/driver": f"sys/bus/pci/drivers/{d.driver}"
        for d in shape.devices
        if d.driver
    }
    return places | drivers


def status_files(cpus: str, mems: str = "") -> dict[str, str]:
    """The process' own status: its affinity mask and its nodes, as lists."""
    text = f"Name:\tpython\nCpus_allowed:\tffff\nCpus_allowed_list:\t{cpus}\n"
    return {"proc/self/status": text + (f"Mems_allowed_list:\t{mems}\n" if mems else "")}


def cgroup2_files(
    path: str = "/job",
    cpus: str = "",
    mems: str = "",
    *,
    mount: str = "/sys/fs/cgroup",
    mount_root: str = "/",
    cpu_max: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """This process in the cgroup `path` of version 2. `cpu_max`: the text by directory below the
    mount, "" for the mount itself. Blank cpus and mems: the controller is not enabled there."""
    mount_text = mount.replace(" ", "\\040")
    inner = path.removeprefix(mount_root.rstrip("/")).strip("/")
    directory = posixpath.join(mount.strip("/"), inner).rstrip("/")
    files = {
        "proc/self/mountinfo": (
            "22 1 0:21 / /proc rw,relatime - proc proc rw\n"
            f"30 23 0:26 {mount_root} {mount_text} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
        ),
        "proc/self/cgroup": f"0::{path}\n",
    }
    if cpus:
        files[f"{directory}/cpuset.cpus.effective"] = f"{cpus}\n"
    if mems:
        files[f"{directory}/cpuset.mems.effective"] = f"{mems}\n"
    for below, text in (cpu_max or {}).items():
        files[posixpath.join(mount.strip("/"), below, "cpu.max")] = f"{text}\n"
    return files


def cgroup1_files(
    path: str = "/job",
    cpus: str = "",
    mems: str = "",
    *,
    mount: str = "/sys/fs/cgroup/cpuset",
    effective: bool = True,
    prefix: bool = True,
    cpu_mount: str = "/sys/fs/cgroup/cpu,cpuacct",
    quota: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, str]:
    """This process in the cgroup `path` of version 1. `quota`: quota and period by directory."""
    directory = f"{mount.strip('/')}/{path.strip('/')}".rstrip("/")
    start, noprefix = ("cpuset.", "") if prefix else ("", ",noprefix")
    files = {
        "proc/self/mountinfo": (
            f"30 23 0:26 / {mount} rw,nosuid - cgroup cgroup rw,cpuset{noprefix}\n"
            f"31 23 0:27 / {cpu_mount} rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
        ),
        "proc/self/cgroup": f"4:cpuset:{path}\n3:cpu,cpuacct:{path}\n1:name=systemd:/x\n",
        "proc/self/cpuset": f"{path}\n",
    }
    for what, text in (("cpus", cpus), ("mems", mems)):
        if text:
            files[f"{directory}/{start}{what}"] = f"{text}\n"
            if effective:
                files[f"{directory}/{start}effective_{what}"] = f"{text}\n"
    for below, (us, period) in (quota or {}).items():
        place = posixpath.join(cpu_mount.strip("/"), below)
        files[f"{place}/cpu.cfs_quota_us"] = f"{us}\n"
        files[f"{place}/cpu.cfs_period_us"] = f"{period}\n"
    return files


def make_machine(shape: Shape, files: Mapping[str, str] | None = None) -> Machine:
    """Such a machine as it is read, with further `files`."""
    root = MemoryRoot(make_files(shape) | dict(files or {}), make_links(shape))
    topology = read_topology(root)
    return Machine(topology, read_allowed(root, topology), read_hostname(root))


# Roots


class MemoryRoot:
    """Files in memory, as readers want them. `links`: targets by path of the link.

    Counts what is read in `reads`. Subclasses inject faults.
    """

    def __init__(self, files: Mapping[str, str], links: Mapping[str, str] | None = None) -> None:
        self.files = dict(files)
        self.links = dict(links or {})
        self.reads: list[str] = []
        self._directories: dict[str, set[str]] = {}
        for path in self.files:
            while path:
                directory, _, name = path.rpartition("/")
                names = self._directories.setdefault(directory, set())
                if name in names:
                    break
                names.add(name)
                path = directory  # noqa: PLW2901

    def read(self, path: str) -> str | None:
        self.reads.append(path)
        return self.files.get(path)

    def names(self, path: str) -> list[str]:
        return sorted(self._directories.get(path, ()))

    def resolve(self, path: str) -> str | None:
        return self.links.get(path)


def write_tree(
    files: Mapping[str, str], directory: Path, links: Mapping[str, str] | None = None
) -> Path:
    """Writes the files and links below `directory`, and gives it back. Links are relative, as in
    sysfs: a snapshot of the tree has nothing of where it lay."""
    for path, target in (links or {}).items():
        parent = (directory / path).parent
        parent.mkdir(parents=True, exist_ok=True)
        (directory / target).mkdir(parents=True, exist_ok=True)
        relative = os.path.relpath(directory.resolve() / target, parent.resolve())
        (directory / path).symlink_to(relative)
    for path, text in files.items():
        place = directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return directory


# Strategies


@st.composite
def shapes(draw: st.DrawFn, *, most_cores: int = 24) -> Shape:
    """Machines of every form that a tree can have."""
    cores = draw(numbers(1, most_cores))
    few = min(cores, 8)
    count, level = numbers(1, few), maybe(few, None)
    kinds = draw(hybrid_kinds(cores))
    nodes = draw(count)
    memory_only = draw(numbers(0, 2))
    of_nodes = draw_order(draw, range(nodes + memory_only + 3))[: nodes + memory_only]
    shape = Shape(
        packages=draw(count),
        nodes=nodes,
        cores=cores,
        threads=draw(one_of(1, 1, 2, 2, 4, 8)),
        dies=draw(level),
        clusters=draw(level),
        l2s=draw(maybe(few, 0, None)),
        l3s=draw(level),
        books=draw(level),
        drawers=draw(level),
        kinds=kinds,
        numbering=draw(one_of("pairs", "halves", "round-robin")),
        cpu_step=draw(one_of(1, 1, 2, 5)),
        first_cpu=draw(one_of(0, 0, 3)),
        node_numbers=tuple(sorted(of_nodes[:nodes])),
        memory_only=tuple(sorted(of_nodes[nodes:])),
        without_memory=tuple(draw_some(draw, of_nodes)),
        spare=draw(one_of(0, 0, 4, 100)),
        nohz_full=draw(one_of(None, "", "1")),
        node_dir=draw(one_of("there", "there", "there", "hidden", "none")),
        lists=draw(one_of(False, True)),
        old=draw(one_of(False, False, False, True)),
        core_numbers=draw(one_of(False, True)),
    )
    cpus = sorted(make_threads(shape))
    return replace(shape, offline=str(CpuSet(draw_few(draw, cpus)[: len(cpus) - 1])))


@cache
def hybrid_kinds(cores: int) -> st.SearchStrategy[tuple[Kind, ...]]:
    """None, or as often big and small cores, told apart by capacity, by performance counters or by
    frequency."""
    hybrid = [
        kinds
        for big in range(1, cores)
        for kinds in (
            (Kind(big, 1, capacity=1024), Kind(cores - big, 1, capacity=446)),
            (Kind(big, 2, pmu="cpu_core"), Kind(cores - big, 1, pmu="cpu_atom")),
            (
                Kind(big, 2, pmu="cpu_core", cppc=64),
                Kind(cores - big, 1, pmu="cpu_atom", cppc=39),
            ),
            (
                Kind(big, 2, base=1_900_000, peak=5_000_000),
                Kind(cores - big, 1, base=1_400_000, peak=3_900_000),
            ),
        )
    ]
    return st.sampled_from([()] * max(1, len(hybrid)) + hybrid)
