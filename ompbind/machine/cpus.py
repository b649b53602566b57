"""Read cpus, what they share, and memory nodes from `/sys`.

Sources: the kernel's admin-guide/cputopology.rst, ABI/stable/sysfs-devices-system-cpu
and ABI/stable/sysfs-devices-node.

Groups of cpus come from masks, each read once, at the group's lowest cpu: numbers such as
`core_id` are unique only within a package, and missing or -1 on many machines.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import TopologyError
from ompbind.machine.limits import (
    parse_memory_bytes,
    read_has_numa,
    read_memory_bytes,
    read_stat_cpus,
)
from ompbind.machine.roots import parse_numbered, read_int, read_list, read_mask, read_optional_list
from ompbind.machine.topology import LEVELS, Cpu, Node, Topology

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Device, Level

    Groups = dict[int, int]  # cpu -> number of its group, without cpus that are in none

CPUS = "sys/devices/system/cpu"
NODES = "sys/devices/system/node"

# The files that say which cpus share a thing, the newer name first; each has a `_list` beside it.
MASKS: dict[str, tuple[str, ...]] = {
    "core": ("core_cpus", "thread_siblings"),
    "package": ("package_cpus", "core_siblings"),
    "die": ("die_cpus",),
    "cluster": ("cluster_cpus",),
    "book": ("book_siblings",),
    "drawer": ("drawer_siblings",),
}
# With one of these numbers the mask beside it is meaningless, mostly the cpu alone. x86 writes -1
# as 65535 for a cluster.
NO_GROUP = {"die": ("-1",), "cluster": ("-1", "65535")}
CACHES = {"l2": "2", "l3": "3"}


def read_topology(
    root: Root, levels: Collection[Level] = LEVELS, *, devices: bool = True
) -> Topology:
    """Return the machine under `root`. Other `levels` are None, and their files are not read.

    Cpus may come and go meanwhile: if those online have changed, everything is read again, the
    third time only for those that were online before and after. Raises TopologyError if the machine
    does not name its cpus, or what a plan depends on (cpus, cores, packages, nodes) is garbage.
    """
    online = read_online(root)
    for attempt in range(3):
        topology = read_once(root, online, levels, devices=devices)
        after = read_online(root)
        if after == online:
            break
        online = online & after if attempt == 1 and online & after else after
    return topology


def read_once(
    root: Root,
    online: CpuSet,
    levels: Collection[Level],
    *,
    devices: bool,
) -> Topology:
    possible = read_possible(root, online)
    nodes, distances, numa = read_nodes(root, online)
    near: tuple[Device, ...] = ()
    if devices:  # few launches need them, so the module is imported here
        from ompbind.machine.devices import add_driver_facts, read_devices

        near = add_driver_facts(root, read_devices(root, online, nodes))
    groups = {level: read_level(root, level, online) for level in MASKS | CACHES if level in levels}
    if "node" in levels:
        groups["node"] = make_node_numbers(nodes)
    if "kind" in levels:
        cores = groups.get("core") or read_level(root, "core", online)
        groups["kind"], groups["capacity"] = read_kinds(root, online, cores)
    columns = {level: groups[level].get for level in groups}
    return Topology(
        cpus=tuple(Cpu(c, **{lv: get(c) for lv, get in columns.items()}) for c in online),
        nodes=nodes,
        distances=distances,
        devices=near,
        possible=possible,
        offline=read_offline(root, online, possible),
        isolated=read_optional_list(root, f"{CPUS}/isolated"),
        nohz_full=read_optional_list(root, f"{CPUS}/nohz_full"),
        numa=numa,
    )


# --- cpus ----------------------------------------------------------------------------------------


def read_online(root: Root) -> CpuSet:
    """Return the cpus that are online. Raises TopologyError if there are none, or for garbage."""
    online = read_list(root, f"{CPUS}/online")
    if online is None:
        online = read_cpu_directories(root, online=True) or read_stat_cpus(root)
    if not online:
        raise TopologyError(
            f"no online cpus in {CPUS}",
            hint="check that sys is mounted, and that this is the root of a machine's files",
        )
    return online


def read_possible(root: Root, online: CpuSet) -> CpuSet:
    """Return the cpus that may ever be online. Only drawings show them, so garbage is ignored."""
    possible = read_optional_list(root, f"{CPUS}/possible")
    return (possible or read_cpu_directories(root)) | online  # Linux before 2.6.30 has no such file


def read_cpu_directories(root: Root, *, online: bool = False) -> CpuSet:
    """Return the cpus that have a directory; with `online`, only those that are (old kernels).

    A cpu that cannot be taken offline has no `online` file.
    """
    numbers = parse_numbered(root.names(CPUS), "cpu")
    if online:
        return CpuSet(n for n in numbers if read_int(root, f"{CPUS}/cpu{n}/online") != 0)
    return CpuSet(numbers)


def read_offline(root: Root, online: CpuSet, possible: CpuSet) -> CpuSet:
    """Return the cpus that are present but offline; the `offline` file has absent ones as well."""
    return CpuSet() if possible == online else read_cpu_directories(root) - online


# --- groups --------------------------------------------------------------------------------------


def read_level(root: Root, level: str, online: CpuSet) -> Groups:
    if level in CACHES:
        # As with masks, the first few cpus show whether the machine describes caches at all.
        described = any(root.names(f"{CPUS}/cpu{cpu}/cache") for cpu in list_first(online))
        return make_groups(online, CacheReader(root, CACHES[level])) if described else {}
    name = find_mask_name(root, MASKS[level], online)
    if name is None:
        return read_groups_by_number(root, level, online)
    no_group = NO_GROUP.get(level)

    def read(cpu: int) -> CpuSet | None:
        directory = f"{CPUS}/cpu{cpu}/topology"
        if no_group and (root.read(f"{directory}/{level}_id") or "").strip() in no_group:
            return None
        try:
            return read_mask(root, f"{directory}/{name}")
        except TopologyError:
            if level in ("core", "package"):  # a plan depends on them
                raise
            return None

    return make_groups(online, read)


def read_cores(root: Root, cpus: CpuSet) -> list[CpuSet]:
    """Return the cores of `cpus` with all of their hardware threads; a cpu whose core is unknown is
    a core. Raises TopologyError for garbage."""
    name = find_mask_name(root, MASKS["core"], cpus)
    cores: list[CpuSet] = []
    left = cpus
    while left:
        cpu = left.first
        core = read_mask(root, f"{CPUS}/cpu{cpu}/topology/{name}") if name else None
        cores.append((core or CpuSet()) | CpuSet([cpu]))
        left -= cores[-1]
    return cores


def find_mask_name(root: Root, names: tuple[str, ...], online: CpuSet) -> str | None:
    """Return which of the names the machine has, or None.

    Only the first few cpus are tried (one may be going offline), so that a level that the machine
    lacks costs the same however many cpus there are.
    """
    for cpu in list_first(online):
        for name in names:
            for suffix in ("", "_list"):
                if root.read(f"{CPUS}/cpu{cpu}/topology/{name}{suffix}") is not None:
                    return name
    return None


def list_first(cpus: CpuSet) -> list[int]:
    """Return the first few cpus."""
    return [cpu for _, cpu in zip(range(4), cpus, strict=False)]


def read_groups_by_number(root: Root, level: str, online: CpuSet) -> Groups:
    """Return the cores or packages of a machine without masks, by number; {} without numbers."""
    keys: dict[int, tuple[int, ...]] = {}
    for cpu in online if level in ("core", "package") else ():
        directory = f"{CPUS}/cpu{cpu}/topology"
        package = read_int(root, f"{directory}/physical_package_id")
        core = read_int(root, f"{directory}/core_id") if level == "core" else 0
        if package is None or core is None or package < 0 or core < 0:
            return {}
        keys[cpu] = (package, core)
    return make_dense(keys)


def make_groups(online: CpuSet, read: Callable[[int], CpuSet | None]) -> Groups:
    """Number groups in the order of their lowest cpu. `read(cpu)` returns the cpus of its group, or
    None.

    It is called for the lowest cpu that is in no group yet. A mask without this cpu is ignored.
    Cpus that already are in a group stay there: overlapping masks are a mistake of the kernel.
    """
    groups: Groups = {}
    count = 0
    for cpu in online:
        if cpu in groups:
            continue
        mask = read(cpu)
        if mask is None or cpu not in mask:
            continue
        rest = (mask & online).mask
        while rest:  # for few cpus in a wide mask, faster than to iterate over the set
            low = rest & -rest
            groups.setdefault(low.bit_length() - 1, count)
            rest ^= low
        count += 1
    return groups


def make_dense(keys: dict[int, tuple[int, ...]]) -> Groups:
    """Number groups of cpus with equal keys, in the order of first appearance."""
    numbers: dict[tuple[int, ...], int] = {}
    return {cpu: numbers.setdefault(key, len(numbers)) for cpu, key in keys.items()}


class CacheReader:
    """Reads the cpus that share a cache of one level with a cpu.

    It first tries the `index*` where that level was last time.
    """

    def __init__(self, root: Root, level: str) -> None:
        self.root = root
        self.level = level
        self.last = int(level)  # usually: 0 and 1 are the two of level 1

    def __call__(self, cpu: int) -> CpuSet | None:
        directory = f"{CPUS}/cpu{cpu}/cache"
        number: int | None = self.last
        if not self.fits(f"{directory}/index{number}"):
            number = self.find(directory)
        if number is None:
            return None
        self.last = number
        try:
            return read_mask(self.root, f"{directory}/index{number}/shared_cpu_map")
        except TopologyError:  # no plan depends on caches
            return None

    def fits(self, directory: str) -> bool:
        level = self.root.read(f"{directory}/level")
        if level is None or level.strip() != self.level:
            return False
        return (self.root.read(f"{directory}/type") or "").strip() != "Instruction"

    def find(self, directory: str) -> int | None:
        numbers = parse_numbered(self.root.names(directory), "index")
        return next((n for n in numbers if self.fits(f"{directory}/index{n}")), None)


# --- kinds of core -------------------------------------------------------------------------------


def read_kinds(root: Root, online: CpuSet, cores: Groups) -> tuple[Groups, Groups]:
    """Return the kind of each cpu, numbered from the least capable, and its capacity; ({}, {}) if
    all are of one kind.

    Two cpus are of one kind if they have the same type (Intel has performance counters for each),
    capacity, base frequency and highest frequency. Read once for each core.
    """
    leaders = {cores.get(cpu, -1 - cpu): cpu for cpu in reversed(list(online))}
    readable = sorted(leaders.values())
    types = read_core_types(root)
    type_of = {cpu: next((i for i, t in types if cpu in t), 0) for cpu in readable}
    capacity = read_all(root, readable, "cpu_capacity")
    base = read_all(root, readable, "cpufreq/base_frequency")
    peak = make_steps(read_all(root, readable, "cpufreq/cpuinfo_max_freq"), base)
    kind_of = make_kinds(type_of, capacity, peak, base)
    if not kind_of:
        return {}, {}
    kinds = {cpu: kind_of[leaders[cores.get(cpu, -1 - cpu)]] for cpu in online}
    firmware = read_all(root, readable, "acpi_cppc/highest_perf")
    capacities = make_capacities(kind_of, (capacity, firmware, peak))
    return kinds, {cpu: capacities[kinds[cpu]] for cpu in online} if capacities else {}


def make_kinds(
    types: dict[int, int], capacity: dict[int, int], peak: dict[int, int], base: dict[int, int]
) -> Groups:
    """Return the kind of each cpu, numbered from the least capable; {} if all are of one. All are
    given by cpu: the type of core, its capacity, and in steps its highest and its base frequency.
    """
    steps = make_steps(capacity)
    keys = {cpu: (types[cpu], steps[cpu], peak[cpu], base[cpu]) for cpu in types}
    order = make_kind_order(keys)
    return {cpu: order[keys[cpu]] for cpu in keys} if len(order) > 1 else {}


def make_capacities(kinds: Groups, sources: Sequence[dict[int, int]]) -> dict[int, int]:
    """Return the capacity of each kind, 1024 for the most capable; {} if nothing says it.

    The kernel's number comes first, then the firmware's highest performance (CPPC), which takes
    instructions per cycle into account, then the highest frequency. A kind has the least of its
    cores' values: that one of them boosts higher is no use once all are busy.
    """
    for values in sources:
        least: dict[int, int] = {}
        for cpu, kind in kinds.items():
            least[kind] = min(values[cpu], least.get(kind, values[cpu]))
        if min(least.values()) > 0 and len(set(least.values())) > 1:
            return {
                kind: max(1, value * 1024 // max(least.values())) for kind, value in least.items()
            }
    return {}


def read_core_types(root: Root) -> list[tuple[int, CpuSet]]:
    """Return the cpus of Intel's types of core, least capable first, by performance counters."""
    names = ("cpu_lowpower", "cpu_atom", "cpu_core")
    types = [(i, read_optional_list(root, f"sys/devices/{n}/cpus")) for i, n in enumerate(names)]
    return [(i, cpus) for i, cpus in types if cpus]


def read_all(root: Root, cpus: list[int], name: str) -> dict[int, int]:
    """Return a number of each cpu; 0 for all of them if it is missing for any, as they could not be
    compared then."""
    values: dict[int, int] = {}
    for cpu in cpus:
        value = read_int(root, f"{CPUS}/cpu{cpu}/{name}")
        if value is None:
            return dict.fromkeys(cpus, 0)
        values[cpu] = value
    return values


def make_steps(values: dict[int, int], within: dict[int, int] | None = None) -> dict[int, int]:
    """Return the values, those at most a tenth above a lower one made equal to it.

    The best cores of a chip boost a little higher than others of the same kind. With `within`, only
    cpus with equal values there are compared.
    """
    steps: dict[int, int] = {}
    low: dict[int, int] = {}
    for cpu in sorted(values, key=values.__getitem__):
        group = within[cpu] if within else 0
        if group not in low or values[cpu] * 10 > low[group] * 11:
            low[group] = values[cpu]
        steps[cpu] = low[group]
    return steps


def make_kind_order(keys: dict[int, tuple[int, int, int, int]]) -> dict[tuple[int, ...], int]:
    """Number (type, capacity, peak, base) keys, least capable first.

    The kernel's capacity decides if all kinds differ in it, else the type, then the highest
    frequency; keys that are still equal stay in the order of their lowest cpu.
    """
    kinds = list(dict.fromkeys(keys[cpu] for cpu in sorted(keys)))
    if len({capacity for _, capacity, _, _ in kinds}) == len(kinds):
        kinds.sort(key=lambda key: key[1])
    else:
        kinds.sort(key=lambda key: (key[0], key[2]))
    return {key: number for number, key in enumerate(kinds)}


# --- memory nodes --------------------------------------------------------------------------------


def read_nodes(
    root: Root, online: CpuSet
) -> tuple[tuple[Node, ...], tuple[tuple[int, ...], ...], bool]:
    """Return the online nodes, their distances, and whether the kernel has NUMA. Raises
    TopologyError."""
    listed = read_list(root, f"{NODES}/online")
    numbers = list(listed) if listed else parse_numbered(root.names(NODES), "node")
    nodes, rows = [], []
    for number in numbers:
        cpus = read_node_cpus(root, number)
        if cpus is None:  # listed, but gone meanwhile or missing in a copy
            continue
        text = root.read(f"{NODES}/node{number}/meminfo") or ""
        cpus = cpus & online
        initiators = CpuSet() if cpus else read_initiators(root, number)
        nodes.append(Node(number, cpus, parse_memory_bytes(text), initiators))
        rows.append(root.read(f"{NODES}/node{number}/distance") or "")
    if nodes:
        return tuple(nodes), make_distances(rows), True
    if read_has_numa(root):  # the directory is hidden, as in some containers
        return (), (), True
    return (Node(0, online, read_memory_bytes(root)),), (), False


def read_initiators(root: Root, number: int) -> CpuSet:
    """Return the nodes with the best access to a node's memory, from the firmware's table (HMAT):
    of those with cpus, else of all (the kernel's Documentation/admin-guide/mm/numaperf.rst)."""
    for access in ("access1", "access0"):
        names = root.names(f"{NODES}/node{number}/{access}/initiators")
        if nodes := parse_numbered(names, "node"):
            return CpuSet(nodes)
    return CpuSet()


def read_node_cpus(root: Root, number: int) -> CpuSet | None:
    directory = f"{NODES}/node{number}"
    cpus = read_mask(root, f"{directory}/cpumap")
    return read_list(root, f"{directory}/cpulist") if cpus is None else cpus


def make_distances(rows: list[str]) -> tuple[tuple[int, ...], ...]:
    """Return a square matrix from its lines; () if a number is missing or garbage: half a matrix
    could order nodes wrongly."""
    parsed = [[parse_whole(word) for word in row.split()] for row in rows]
    if any(len(row) != len(rows) or None in row for row in parsed):
        return ()
    return tuple(tuple(n for n in row if n is not None) for row in parsed)


def make_node_numbers(nodes: Iterable[Node]) -> Groups:
    """Return each cpu's node, the lowest if the machine lists it in several."""
    numbers: Groups = {}
    for node in nodes:
        for cpu in node.cpus:
            numbers.setdefault(cpu, node.node)
    return numbers
