"""Read what hardly any plan depends on and people want to know: the processor's family and model,
and its caches.

Sources: the kernel's show_cpuinfo of each architecture, and ABI/testing/sysfs-devices-system-cpu
for caches. The parts of Arm's implementers are those of util-linux's lscpu-arm.c; the machines of
s390, which has no name for its processors, those of setup_elf_platform in the kernel's arch/s390.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import TopologyError
from ompbind.machine.cpus import CPUS
from ompbind.machine.roots import parse_numbered, read_mask
from ompbind.machine.topology import Cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Machine

CPUINFO = "proc/cpuinfo"
# The fields that name a processor, the best one first: x86 and others, LoongArch, POWER and SPARC,
# RISC-V. On x86 `cpu` is absent.
MODEL_FIELDS = ("model name", "Model Name", "cpu", "uarch")
ARM_FIELDS = ("CPU implementer", "CPU part")
FIELDS = (*MODEL_FIELDS, *ARM_FIELDS)
ARM_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53", ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55", ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72", ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0b"): "Cortex-A76", ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd44"): "Cortex-X1", ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710", ("0x41", "0xd48"): "Cortex-X2",
    ("0x41", "0xd80"): "Cortex-A520", ("0x41", "0xd81"): "Cortex-A720",
    ("0x41", "0xd82"): "Cortex-X4", ("0x41", "0xd85"): "Cortex-X925",
    ("0x41", "0xd87"): "Cortex-A725", ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1", ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2", ("0x41", "0xd83"): "Neoverse-V3",
    ("0x41", "0xd8e"): "Neoverse-N3", ("0x43", "0x0a1"): "ThunderX",
    ("0x43", "0x0af"): "ThunderX2", ("0x46", "0x001"): "A64FX", ("0x48", "0xd01"): "Kunpeng-920",
    ("0x4e", "0x004"): "Carmel", ("0x50", "0x000"): "X-Gene", ("0x70", "0x662"): "FTC662",
    ("0x70", "0x663"): "FTC663", ("0xc0", "0xac3"): "Ampere-1", ("0xc0", "0xac4"): "Ampere-1a",
}  # fmt: skip
S390_NAMES = {
    "2064": "z900", "2066": "z900", "2084": "z990", "2086": "z990", "2094": "z9", "2096": "z9",
    "2097": "z10", "2098": "z10", "2817": "z196", "2818": "z196", "2827": "zEC12",
    "2828": "zEC12", "2964": "z13", "2965": "z13", "3906": "z14", "3907": "z14", "8561": "z15",
    "8562": "z15", "3931": "z16", "3932": "z16", "9175": "z17", "9176": "z17",
}  # fmt: skip
MAX_MODELS = 3
MAX_MODEL = 80  # characters
CACHE_NAMES = {"Data": "d", "Instruction": "i", "Unified": ""}
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class CacheFilesRoot:
    """A root that reads the files of caches once: the groups of cpus that share one need half of
    what is read for their sizes. When cpus have come or gone they are read again."""

    def __init__(self, inner: Root) -> None:
        self.inner = inner
        self.names = inner.names
        self.resolve = inner.resolve
        self.texts: dict[str, str | None] = {}
        self.online: str | None = None

    def read(self, path: str) -> str | None:
        if "/cache/index" not in path:
            text = self.inner.read(path)
            if path == f"{CPUS}/online" and text != self.online:
                self.online, self.texts = text, {}
            return text
        if path not in self.texts:
            self.texts[path] = self.inner.read(path)
        return self.texts[path]


def add_details(root: Root, machine: Machine) -> Machine:
    """Return the machine with its model and its caches, as far as its files have them."""
    caches = read_caches(root, machine.topology.online)
    return machine.replace(model=parse_model(root.read(CPUINFO) or ""), caches=caches)


def parse_model(cpuinfo: str) -> str:
    """Return the names of the processors in /proc/cpuinfo, those of several kinds of core with a
    plus; "" if there are none."""
    models: dict[str, None] = {}
    fields: dict[str, str] = {}
    for line in [*cpuinfo.splitlines(), ""]:
        if line.startswith(FIELDS):  # of thirty lines for each cpu one or two
            name, _, value = line.partition(":")
            fields[name.strip()] = " ".join(value.split())
        elif ":" not in line:
            models[name_model(fields)] = None
            fields = {}
    models |= dict.fromkeys(f"IBM {name}" for name in find_s390_machines(cpuinfo).values())
    return join_models(models)


def parse_family(cpuinfo: str) -> str:
    """Return the kind of processor that /proc/cpuinfo describes: "x86", "arm", "power", "s390" or
    "riscv"; "" for any other. Source: the kernel's show_cpuinfo."""
    lines = cpuinfo[:4096].lower().splitlines()
    words = {line.partition(":")[0].strip(): line.partition(":")[2] for line in lines}
    if "cpu implementer" in words:
        return "arm"
    if words.get("isa", "").strip().startswith("rv"):
        return "riscv"
    if "s390" in words.get("vendor_id", ""):
        return "s390"
    if words.get("cpu", "").strip().startswith("power"):
        return "power"
    return "x86" if "cpu family" in words and "vendor_id" in words else ""


def join_models(models: Iterable[str]) -> str:
    """Return the names of a machine's models as one, each once."""
    return " + ".join(list(dict.fromkeys(filter(None, models)))[:MAX_MODELS])


def find_s390_machines(cpuinfo: str) -> dict[str, str]:
    """Return the names of the machines in an s390's /proc/cpuinfo, by number."""
    names = {}
    for line in cpuinfo.splitlines() if "machine" in cpuinfo else ():
        # `processor 0: version = FF, …, machine = 2964`, and a line of its own: `machine : 2964`.
        start, _, field = line.rpartition(",")
        name, _, number = (word.strip() for word in field.replace("=", ":").partition(":"))
        if name == "machine" and number in S390_NAMES and (not start or line.startswith("proc")):
            names[number] = S390_NAMES[number]
    return names


def name_model(fields: Mapping[str, str]) -> str:
    """Return the name of one processor, given its part of /proc/cpuinfo."""
    if all(field in fields for field in ARM_FIELDS):
        implementer, part = (fields[field] for field in ARM_FIELDS)
        return ARM_PARTS.get((implementer, part), "")
    return clean_model(next((fields[field] for field in MODEL_FIELDS if fields.get(field)), ""))


def clean_model(model: str) -> str:
    """Return a processor's name as it is drawn: on one line, of a sane length."""
    return " ".join(model.split()).partition(", altivec")[0][:MAX_MODEL]


def read_caches(root: Root, online: CpuSet) -> tuple[Cache, ...]:
    """Return every cache whose size is known, those of one level together, by their lowest cpu."""
    caches: list[Cache] = []
    covered: dict[tuple[int, str], dict[int, CpuSet]] = {}  # by level and kind: each cpu's cache
    before: dict[int, tuple[int, str] | None] = {}  # of the cpu before: level and kind by index
    done = CpuSet()
    for cpu in online:
        if cpu in done:
            continue
        alike = online  # cpus that share all caches of this one
        levels = set()
        directory = f"{CPUS}/cpu{cpu}/cache"
        for number in parse_numbered(root.names(directory), "index"):
            index = f"{directory}/index{number}"
            which = before[number] = read_level_and_kind(root, index, before.get(number))
            if which is None:
                continue
            level, kind = which
            levels.add(level)
            known = covered.setdefault(which, {})
            if cpu in known:
                alike &= known[cpu]
                continue
            size = parse_size(root.read(f"{index}/size") or "")
            try:
                cpus = (read_mask(root, f"{index}/shared_cpu_map") or CpuSet([cpu])) & online
            except TopologyError:  # no plan depends on it
                cpus = CpuSet([cpu])
            known |= dict.fromkeys(cpus, cpus)
            alike &= cpus
            if size:
                caches.append(Cache(f"L{level}{kind}", size, cpus | CpuSet([cpu])))
        if 1 in levels:  # the threads of its core, whose files need not be read
            done |= alike
    return tuple(sorted(caches, key=lambda cache: (cache.name, cache.cpus.first)))


def read_level_and_kind(
    root: Root, index: str, before: tuple[int, str] | None
) -> tuple[int, str] | None:
    """Return 1 and "d" for the data cache of level 1; None for what is no such cache. `before`: the
    same index of the cpu before, whose kind that of this one is if the level is."""
    level = parse_whole((root.read(f"{index}/level") or "").strip())
    if before is not None and level == before[0]:
        return before
    kind = CACHE_NAMES.get((root.read(f"{index}/type") or "").strip())
    return None if level is None or kind is None else (level, kind)


def parse_size(text: str) -> int:
    """Return the bytes of `1024K`; 0 for anything else."""
    text = text.strip()
    value = parse_whole(text[:-1]) if text[-1:] in UNITS else parse_whole(text)
    return (value or 0) * UNITS.get(text[-1:], 1)
