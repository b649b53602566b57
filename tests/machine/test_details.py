"""What no plan depends on: the processors' model, and the caches."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from ompbind.cpuset import CpuSet
from ompbind.machine import read_machine, read_system
from ompbind.machine.details import CACHE_NAMES, parse_model, parse_size, read_caches
from ompbind.machine.saving import save_machine
from ompbind.machine.snapshot import redact
from ompbind.machine.topology import Cache
from tests.support.shared_trees import need_topologies, unpacked
from tests.support.trees import CPUS, MemoryRoot, Shape, make_files, make_topology, shapes

ARM = "processor\t: {}\nCPU implementer\t: {}\nCPU part\t: {}\n\n"


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("", ""),
        ("garbage\n\x00: :\n", ""),
        ("processor\t: 0\nmodel name\t: AMD  EPYC 7763\ncpu MHz\t: 1\n\n" * 2, "AMD EPYC 7763"),
        ("processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t: 3GHz\n", "POWER9"),
        (ARM.format(0, "0x41", "0xd87") + ARM.format(1, "0x41", "0xd85"),
         "Cortex-A725 + Cortex-X925"),
        (ARM.format(0, "0x99", "0x1"), ""),
        ("system type\t: x\n\nprocessor\t: 0\nModel Name\t: Loongson-3A5000\n", "Loongson-3A5000"),
        ("hart\t: 1\nuarch\t: sifive,u74-mc\n", "sifive,u74-mc"),
        ("model name\t: " + "x" * 500, "x" * 80),
        ("vendor_id       : IBM/S390\n# processors    : 2\n"
         "processor 0: version = FF,  identification = 023F98,  machine = 2964\n"
         "processor 1: version = FF,  identification = 023F98,  machine = 2964\n", "IBM z13"),
        ("vendor_id       : IBM/S390\n\ncpu number      : 0\nmachine         : 8561\n", "IBM z15"),
        ("processor 0: version = FF,  identification = 1,  machine = 9672\n", ""),
        ("processor 0: version = FF,  machine = 2964 or so\n", ""),
        ("processor 0: machine = 2964,  version = FF\n", ""),
        ("features\t: a, machine = 2964\n", ""),
        ("machine\t\t: CHRP IBM pSeries (emulated by qemu)\n", ""),
    ],
)  # fmt: skip
def test_models(text: str, model: str) -> None:
    """Of each architecture as its kernel writes it; "" where nothing is said."""
    assert parse_model(text) == model
    assert parse_model(redact("proc/cpuinfo", text)) == model


def test_a_snapshot_keeps_only_models() -> None:
    """No frequencies, no flags; each kind of processor once."""
    text = "processor\t: {}\nmodel name\t: A\ncpu MHz\t: 1.{}\nflags\t: fpu\n\n"
    assert redact("proc/cpuinfo", text.format(0, 0) + text.format(1, 1)) == "model name\t: A\n\n"
    assert redact("proc/cpuinfo", "processor 0: identification = 0133E8\n") == ""


def test_sizes() -> None:
    """In the kernel's units; garbage is unknown."""
    texts = ("32K\n", "16M", "512", "", "K", "-1K", "xK")
    assert [parse_size(text) for text in texts] == [32 << 10, 16 << 20, 512, 0, 0, 0, 0]


def test_caches_are_read_once_each() -> None:
    """Those that cpus share are one; one without a size, or of an unknown kind, is none."""
    files: dict[str, str] = {}
    for cpu in range(2):
        for number, (level, kind, size, mask) in enumerate(
            (("1", "Data", "32K", f"{1 << cpu:x}"), ("1", "Instruction", "64K", "garbage"),
             ("2", "Unified", "", "3"), ("3", "Unified", "8M", "3"), ("4", "Odd", "1M", "3"))
        ):  # fmt: skip
            directory = f"sys/devices/system/cpu/cpu{cpu}/cache/index{number}"
            files |= {f"{directory}/level": level, f"{directory}/type": kind,
                      f"{directory}/size": size, f"{directory}/shared_cpu_map": mask}  # fmt: skip
    both = CpuSet([0, 1])
    assert read_caches(MemoryRoot(files), both) == (
        Cache("L1d", 32 << 10, CpuSet([0])), Cache("L1d", 32 << 10, CpuSet([1])),
        Cache("L1i", 64 << 10, CpuSet([0])), Cache("L1i", 64 << 10, CpuSet([1])),
        Cache("L3", 8 << 20, both),
    )  # fmt: skip


@settings(max_examples=40)
@given(shapes())
def test_every_cache_is_there_once(shape: Shape) -> None:
    """By what each cpu says of each of its caches."""
    files = make_files(shape)
    files |= {path.replace("/level", "/size"): "1M\n" for path in files if "/cache/" in path
              and path.endswith("/level")}  # fmt: skip
    online = make_topology(shape).online
    expected = set()
    for path in files:
        directory, _, name = path.rpartition("/")
        if "/cache/" in path and name == "level":
            kind = CACHE_NAMES[files[f"{directory}/type"].strip()]
            cpus = CpuSet.parse_mask(files[f"{directory}/shared_cpu_map"]) & online
            if int(path.split("/cpu/cpu")[1].split("/")[0]) in online:
                expected.add((f"L{files[path].strip()}{kind}", str(cpus)))
    found = [(cache.name, str(cache.cpus)) for cache in read_caches(MemoryRoot(files), online)]
    assert len(found) == len(expected)
    assert set(found) == expected


def test_cores_with_other_caches() -> None:
    """A little core without a level 2 shares level 3 with those that have one, whose number it has
    among its own; masks that are blank or garbage are each cpu's own."""
    files: dict[str, str] = {}
    big = [("1", "Data"), ("1", "Instruction"), ("2", "Unified"), ("3", "Unified")]
    masks = {"1": "", "2": "garbage", "3": "f"}
    for cpu in range(4):
        for number, (level, kind) in enumerate(big if cpu in (1, 3) else big[:2] + big[3:]):
            directory = f"sys/devices/system/cpu/cpu{cpu}/cache/index{number}"
            files |= {f"{directory}/level": level, f"{directory}/type": kind,
                      f"{directory}/size": "1M", f"{directory}/shared_cpu_map": masks[level],
                      }  # fmt: skip
    found = read_caches(MemoryRoot(files), CpuSet(range(4)))
    by_name: dict[str, list[str]] = {}
    for cache in found:
        by_name.setdefault(cache.name, []).append(str(cache.cpus))
    every = ["0", "1", "2", "3"]
    assert by_name == {"L1d": every, "L1i": every, "L2": ["1", "3"], "L3": ["0-3"]}


def test_cpus_without_a_first_level() -> None:
    """As some firmware describes them, share a cache that is one all the same, also where it is
    there twice, as a virtual machine has it."""
    files: dict[str, str] = {}
    for directory in (f"{CPUS}/cpu{cpu}/cache/index{n}" for cpu in range(2) for n in (2, 3)):
        files |= {f"{directory}/level": "2", f"{directory}/type": "Unified",
                  f"{directory}/size": "4M", f"{directory}/shared_cpu_map": "3"}  # fmt: skip
    both = CpuSet([0, 1])
    assert read_caches(MemoryRoot(files), both) == (Cache("L2", 4 << 20, both),)


def test_files_of_caches_are_read_once() -> None:
    """Both for the groups of cpus that share a cache and for its size."""
    root = MemoryRoot(make_files(Shape(packages=2, cores=8, threads=2, l3s=4)))
    read_system("linux", root, details=True)
    reads = [path for path in root.reads if "/cache/" in path]
    assert any(path.endswith("index3/shared_cpu_map") for path in reads)
    assert len(reads) == len(set(reads))


def test_caches_of_cpus_that_come_meanwhile() -> None:
    """Are those of all cpus that are there in the end."""
    before, after = (Shape(cores=4, threads=2, offline=offline) for offline in ("3", ""))

    class PluggedRoot(MemoryRoot):
        def read(self, path: str) -> str | None:
            text = super().read(path)
            if path.endswith("cpu0/cache/index3/shared_cpu_map"):
                self.files |= make_files(after)
            return text

    root = PluggedRoot(make_files(before))
    assert read_system("linux", root, details=True).topology.groups("l3") == [CpuSet(range(8))]
    assert root.reads.count(f"{CPUS}/cpu0/cache/index3/shared_cpu_map") == 2


def test_a_real_machine_and_its_snapshot(tmp_path: Path) -> None:
    """Have the same; without details nothing is read of them."""
    need_topologies()
    path = str(unpacked("memorysidecaches"))
    machine = read_machine(path, details=True)
    assert machine.model == "Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz"
    sizes = {c.name: c.bytes for c in machine.caches}
    assert sizes == {"L1d": 32 << 10, "L1i": 32 << 10, "L2": 1 << 20, "L3": 28160 << 10}
    save_machine(str(tmp_path / "machine"), path, with_name=False)
    saved = read_machine(str(tmp_path / "machine"), details=True)
    assert (saved.model, saved.caches) == (machine.model, machine.caches)
    plain = read_machine(path)
    assert (plain.model, plain.caches) == ("", ())
