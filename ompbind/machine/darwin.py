"""Read macOS through `sysctl`: cores, threads, caches, performance and efficiency cores.

macOS has one memory node and cannot bind processes to cpus, so this is for planning only. Cpu
numbers are the kernel's (`logical-cpu-id`): the threads of a core are adjacent, and efficiency
cores come before performance cores. Sources: sysctl(3), Apple's "Determining system capabilities".
"""

from __future__ import annotations

from ompbind.cpuset import LIMIT, CpuSet, parse_whole
from ompbind.errors import TopologyError
from ompbind.machine.details import clean_model
from ompbind.machine.topology import Allowed, Cache, Cpu, Machine, Node, Topology

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Level


class SysctlRoot:
    """The running system's `sysctl` values, as files `sysctl/NAME`."""

    def read(self, path: str) -> str | None:
        import ctypes

        name = path.removeprefix("sysctl/").encode()
        library = ctypes.CDLL(None)
        size = ctypes.c_size_t(0)
        if library.sysctlbyname(name, None, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
            return None
        value = ctypes.create_string_buffer(size.value)
        if library.sysctlbyname(name, value, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
            return None
        return decode_value(path, value.raw[: size.value])

    def names(self, path: str) -> list[str]:
        return []

    def resolve(self, path: str) -> str | None:
        return None


def decode_value(path: str, value: bytes) -> str:
    """Return a value as sysctl(8) prints it: a text, 64-bit numbers, or one number."""
    import sys

    if path.endswith((".hostname", ".name", ".model", ".brand_string")):
        return value.rstrip(b"\0").decode("utf-8", "replace")
    step = 8 if len(value) > 8 else len(value)
    parts = [value[i : i + step] for i in range(0, len(value), step)]
    return " ".join(str(int.from_bytes(p, sys.byteorder)) for p in parts if p)


def read_darwin(root: Root) -> Machine:
    """Return the Mac under `root`. Raises TopologyError if its number of cpus is unknown."""
    logical = read_sysctl_value(root, "hw.logicalcpu") or read_sysctl_value(root, "hw.ncpu")
    if not logical or logical >= LIMIT:
        raise TopologyError("the number of cpus is unknown: sysctl has no hw.logicalcpu")
    levels = read_perflevels(root, logical)
    cpus: list[Cpu] = []
    cores = l2s = 0
    for kind, (_, count, physical, per_l2) in enumerate(levels):
        threads = count // physical if physical and count % physical == 0 else 1
        first = len(cpus)
        for n in range(count):
            cpus.append(
                Cpu(
                    first + n,
                    core=cores + n // threads,
                    l2=l2s + n // per_l2 if per_l2 else None,
                    kind=kind if len(levels) > 1 else None,
                )
            )
        cores += -(-count // threads)
        l2s += -(-count // per_l2) if per_l2 else 0
    packages = read_sysctl_value(root, "hw.packages") or 1
    sharing = read_cache_sharing(root)
    per_package = logical // packages if packages and logical % packages == 0 else logical
    cpus = [
        c.replace(
            package=c.cpu // per_package,
            l2=c.cpu // sharing[2] if c.l2 is None and sharing.get(2) else c.l2,
            l3=c.cpu // sharing[3] if sharing.get(3) else None,
        )
        for c in cpus
    ]
    everything = CpuSet(range(logical))
    memory = read_sysctl_value(root, "hw.memsize")
    topology = Topology(
        cpus=tuple(c.replace(node=0) for c in cpus),
        nodes=(Node(0, everything, memory),),
        possible=everything,
        numa=False,
    )
    name = (root.read("sysctl/kern.hostname") or "").strip()
    return Machine(
        topology,
        Allowed(everything, CpuSet([0])),
        name,
        can_bind=False,
        model=clean_model(root.read("sysctl/machdep.cpu.brand_string") or ""),
        caches=read_caches(root, topology, [level[0] for level in levels]),
    )


def read_caches(root: Root, topology: Topology, prefixes: Sequence[str]) -> tuple[Cache, ...]:
    """Return the caches whose size sysctl has. `prefixes`: under which it has those of each kind of
    core."""
    caches = []
    names: tuple[tuple[str, str, Level], ...] = (
        ("L1d", "l1dcachesize", "core"), ("L1i", "l1icachesize", "core"),
        ("L2", "l2cachesize", "l2"), ("L3", "l3cachesize", "l3"),
    )  # fmt: skip
    kinds = {c.cpu: c.kind or 0 for c in topology.cpus}
    for name, value, level in names:
        for cpus in topology.groups(level):
            size = read_sysctl_value(root, f"{prefixes[kinds[cpus.first]]}.{value}")
            caches += [Cache(name, size, cpus)] if size else []
    return tuple(caches)


def read_perflevels(root: Root, logical: int) -> list[tuple[str, int, int, int]]:
    """Return (sysctl's name, logical cpus, physical cores, cpus that share an L2) of each kind,
    least capable first; Apple numbers its levels from the most capable."""
    levels = []
    for n in range(min(read_sysctl_value(root, "hw.nperflevels") or 0, 16)):
        name = f"hw.perflevel{n}"
        count = read_sysctl_value(root, f"{name}.logicalcpu") or 0
        physical = read_sysctl_value(root, f"{name}.physicalcpu") or count
        levels.append((name, count, physical, read_sysctl_value(root, f"{name}.cpusperl2") or 0))
    levels = [level for level in reversed(levels) if level[1]]
    if sum(level[1] for level in levels) == logical:
        return levels
    return [("hw", logical, read_sysctl_value(root, "hw.physicalcpu") or logical, 0)]


def read_cache_sharing(root: Root) -> dict[int, int]:
    """Return the number of cpus that share a cache, by level, from hw.cacheconfig, which is right
    on Intel Macs only.

    Its first number is for memory, the n-th after it for level n; 0 or absent: no such cache.
    """
    if read_sysctl_value(root, "hw.nperflevels"):
        return {}
    words = (root.read("sysctl/hw.cacheconfig") or "").split()
    valid = all(w.isascii() and w.isdigit() and len(w) < 6 for w in words)
    return {n: int(w) for n, w in enumerate(words) if int(w)} if valid else {}


def read_sysctl_value(root: Root, name: str) -> int | None:
    return parse_whole((root.read(f"sysctl/{name}") or "").strip())
