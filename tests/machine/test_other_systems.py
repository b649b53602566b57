"""macOS and systems known only through psutil: canned machines, and the whole command line."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ompbind.errors import TopologyError
from ompbind.machine.darwin import decode_value, read_darwin
from ompbind.machine.portable import PsutilRoot, read_generic
from ompbind.machine.roots import SnapshotRoot
from ompbind.machine.snapshot import make_snapshot
from ompbind.machine.topology import Machine
from ompbind.render.inventory import describe_caches

# What sysctl says of Macs, as far as it is read. Numbers from Apple's specifications of them.
MACS: dict[str, dict[str, str]] = {
    "MacBookPro Intel Core i7 (4 cores, 8 threads)": {
        "hw.ncpu": "8", "hw.logicalcpu": "8", "hw.physicalcpu": "4", "hw.packages": "1",
        "hw.memsize": "17179869184", "hw.cacheconfig": "8 2 2 8 0 0 0 0 0 0",
        "hw.l1dcachesize": "32768", "hw.l1icachesize": "32768", "hw.l2cachesize": "262144",
        "hw.l3cachesize": "6291456",
        "machdep.cpu.brand_string": "Intel(R) Core(TM) i7-8569U CPU @ 2.80GHz",
        "kern.hostname": "intel.local",
    },
    "MacBookAir M1 (4 + 4)": {
        "hw.ncpu": "8", "hw.logicalcpu": "8", "hw.physicalcpu": "8", "hw.packages": "1",
        "hw.memsize": "8589934592", "hw.nperflevels": "2", "hw.cacheconfig": "8 1 4 0 0 0 0 0 0 0",
        "hw.perflevel0.logicalcpu": "4", "hw.perflevel0.physicalcpu": "4",
        "hw.perflevel0.cpusperl2": "4", "hw.perflevel1.logicalcpu": "4",
        "hw.perflevel1.physicalcpu": "4", "hw.perflevel1.cpusperl2": "4",
        "hw.perflevel0.l1dcachesize": "131072", "hw.perflevel0.l1icachesize": "196608",
        "hw.perflevel0.l2cachesize": "12582912", "hw.perflevel1.l1dcachesize": "65536",
        "hw.perflevel1.l1icachesize": "131072", "hw.perflevel1.l2cachesize": "4194304",
        "hw.l1dcachesize": "65536", "hw.l2cachesize": "4194304",
        "machdep.cpu.brand_string": "Apple M1",
    },
    "MacBookPro M3 Pro (6 + 6)": {
        "hw.ncpu": "12", "hw.logicalcpu": "12", "hw.physicalcpu": "12", "hw.packages": "1",
        "hw.memsize": "38654705664", "hw.nperflevels": "2",
        "hw.perflevel0.logicalcpu": "6", "hw.perflevel0.physicalcpu": "6",
        "hw.perflevel0.cpusperl2": "6", "hw.perflevel1.logicalcpu": "6",
        "hw.perflevel1.physicalcpu": "6", "hw.perflevel1.cpusperl2": "6",
    },
    "MacStudio M1 Ultra (16 + 4)": {
        "hw.ncpu": "20", "hw.logicalcpu": "20", "hw.physicalcpu": "20", "hw.packages": "1",
        "hw.memsize": "137438953472", "hw.nperflevels": "2",
        "hw.perflevel0.logicalcpu": "16", "hw.perflevel0.physicalcpu": "16",
        "hw.perflevel0.cpusperl2": "4", "hw.perflevel1.logicalcpu": "4",
        "hw.perflevel1.physicalcpu": "4", "hw.perflevel1.cpusperl2": "2",
    },
}  # fmt: skip


def mac(name: str) -> SnapshotRoot:
    return SnapshotRoot({f"sysctl/{k}": v for k, v in MACS[name].items()}, {}, {})


def sizes(machine: Machine, level: str) -> list[int]:
    """How many cpus share each group of a level, in the order of the groups."""
    groups = [getattr(c, level) for c in machine.topology.cpus]
    return [n for _, n in sorted(Counter(g for g in groups if g is not None).items())]


@pytest.mark.parametrize(
    ("name", "model", "caches"),
    [
        (next(iter(MACS)), "Intel(R) Core(TM) i7-8569U CPU @ 2.80GHz",
         "L3 6.0 MiB × 1, L2 256 KiB × 4, L1d 32 KiB × 4, L1i 32 KiB × 4"),
        (list(MACS)[1], "Apple M1",
         "L2 4.0 MiB × 1 and 12.0 MiB × 1, L1d 64 KiB × 4 and 128 KiB × 4,"
         " L1i 128 KiB × 4 and 192 KiB × 4"),
        (list(MACS)[2], "", ""),
    ],
)  # fmt: skip
def test_models_and_caches_of_macs(name: str, model: str, caches: str) -> None:
    """Of each kind of core those of its own, of which sysctl's plain values are the efficiency
    cores'."""
    machine = read_darwin(mac(name))
    assert (machine.model, describe_caches(machine)) == (model, caches)


@pytest.mark.parametrize(
    ("name", "cores", "l2", "l3", "kinds"),
    [
        (next(iter(MACS)), [2] * 4, [2] * 4, [8], []),
        (list(MACS)[1], [1] * 8, [4, 4], [], [4, 4]),
        (list(MACS)[2], [1] * 12, [6, 6], [], [6, 6]),
        (list(MACS)[3], [1] * 20, [2, 2, 4, 4, 4, 4], [], [4, 16]),
    ],
)
def test_macs(name: str, cores: list[int], l2: list[int], l3: list[int], kinds: list[int]) -> None:
    """Cores, threads, shared caches and kinds of core (efficiency first) of several Macs."""
    machine = read_darwin(mac(name))
    assert sizes(machine, "core") == cores
    assert sizes(machine, "l2") == l2
    assert sizes(machine, "l3") == l3
    assert sizes(machine, "kind") == kinds
    assert sizes(machine, "package") == [len(machine.topology.cpus)]
    assert machine.topology.nodes[0].memory_bytes == int(MACS[name]["hw.memsize"])
    assert not machine.can_bind
    assert not machine.topology.numa


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"hw.ncpu": "0"},
        {"hw.ncpu": "-8"},
        {"hw.ncpu": "many"},
        {"hw.logicalcpu": "99999999999999999999"},
        {"hw.logicalcpu": "65536"},
    ],
)
def test_a_mac_that_does_not_count_is_refused(values: dict[str, str]) -> None:
    """Without a sensible number of cpus there is nothing to plan on."""
    root = SnapshotRoot({f"sysctl/{k}": v for k, v in values.items()}, {}, {})
    with pytest.raises(TopologyError, match=r"hw\.logicalcpu"):
        read_darwin(root)


def test_performance_levels_that_do_not_add_up_are_left_aside() -> None:
    """Levels that contradict the number of cpus give one kind, not a wrong machine."""
    values = MACS["MacBookAir M1 (4 + 4)"] | {"hw.perflevel0.logicalcpu": "3"}
    machine = read_darwin(SnapshotRoot({f"sysctl/{k}": v for k, v in values.items()}, {}, {}))
    assert sizes(machine, "kind") == []
    assert sizes(machine, "core") == [1] * 8


def test_sysctl_values_are_decoded_as_sysctl_prints_them() -> None:
    """Texts, single numbers of 4 and 8 bytes, and arrays of 64-bit numbers."""
    order = sys.byteorder
    assert decode_value("sysctl/hw.ncpu", (8).to_bytes(4, order)) == "8"
    assert decode_value("sysctl/hw.memsize", (1 << 34).to_bytes(8, order)) == str(1 << 34)
    array = b"".join(n.to_bytes(8, order) for n in (8, 2, 2, 8))
    assert decode_value("sysctl/hw.cacheconfig", array) == "8 2 2 8"
    assert decode_value("sysctl/kern.hostname", b"mac.local\0") == "mac.local"
    assert decode_value("sysctl/machdep.cpu.brand_string", b"Apple M1\0") == "Apple M1"


@pytest.mark.parametrize(
    ("logical", "physical", "cores"),
    [("8", "4", [2] * 4), ("8", "8", [1] * 8), ("20", "14", []), ("8", "", [])],
)
def test_what_psutil_knows(logical: str, physical: str, cores: list[int]) -> None:
    """Threads are told apart where every core has as many; hybrid machines are not guessed."""
    files = {"generic/logical": logical, "generic/memory": "1024"}
    files |= {"generic/physical": physical} if physical else {}
    machine = read_generic(SnapshotRoot(files, {}, {}))
    assert sizes(machine, "core") == cores
    assert len(machine.topology.cpus) == int(logical)


def test_psutil_reads_this_machine() -> None:
    """With psutil itself: as many cpus as Python counts, memory, and a name."""
    pytest.importorskip("psutil")
    machine = read_generic(PsutilRoot())
    assert len(machine.topology.cpus) == os.cpu_count()
    assert (machine.topology.nodes[0].memory_bytes or 0) > 1 << 20
    assert machine.name == platform.node()


def saved_mac(tmp_path: Path, name: str) -> str:
    file = tmp_path / "mac.topo"
    file.write_bytes(make_snapshot("darwin", mac(name), with_name=False))
    return str(file)


# Runs the command line as on another system: that platform's name, its reader over canned values,
# and without the calls that it does not have.
SWAPPED = """
import json, os, sys
system, files, missing, args = json.loads(sys.argv[1])
from ompbind.machine import darwin
from ompbind.machine import portable as generic
from ompbind.machine.roots import SnapshotRoot
darwin.SysctlRoot = generic.PsutilRoot = lambda: SnapshotRoot(files, {}, {})
import _signal, signal, subprocess  # before the platform changes: they look at it
sys.platform = system
for name in missing:
    for module in (os, _signal):
        if hasattr(module, name):
            delattr(module, name)
from ompbind.cli import main
sys.exit(main(args))
"""
LINUX_ONLY = ["sched_setaffinity", "sched_getaffinity", "sigwaitinfo", "sigtimedwait"]
# What Windows lacks besides; posix_spawn is what subprocess works with here and stays.
UNIX_ONLY = [*LINUX_ONLY, "fork", "execve", "pthread_sigmask", "setitimer", "sigwait"]


def swapped(system: str, *args: str, name: str = list(MACS)[1]) -> subprocess.CompletedProcess[str]:
    files = {f"sysctl/{k}": v for k, v in MACS[name].items()}
    files |= {"generic/logical": "8", "generic/physical": "4"}
    missing = UNIX_ONLY if system == "win32" else LINUX_ONLY
    spec = json.dumps([system, files, missing, list(args)])
    return subprocess.run(
        [sys.executable, "-c", SWAPPED, spec],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_one_worker_starts_elsewhere(system: str) -> None:
    """A worker runs with its OpenMP variables; that it is not bound is said once, clearly."""
    worker = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['OMP_PLACES'])"
    done = swapped(system, "run", "--", sys.executable, "-c", worker)
    assert done.returncode == 0, done.stderr
    threads = "8" if system == "darwin" else "4"
    assert done.stdout.split()[0] == threads
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        "ompbind: warning: this system cannot bind processes to cpus or memory"
    )


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_several_workers_start_elsewhere(system: str) -> None:
    """Two ranks run, each with its half; the first failure's status is the whole's."""
    # one write, so that the ranks' lines cannot mix
    worker = "import os; e = os.environ; os.write(1, f\"{e['OMPBIND_RANK']} "
    worker += "{e['OMP_NUM_THREADS']}\\n\".encode())"
    args = ["-n", "2", "--output", "inherit", "--", sys.executable, "-c", worker]
    done = swapped(system, "run", *args)
    assert done.returncode == 0, done.stderr
    half = "4" if system == "darwin" else "2"
    assert sorted(done.stdout.splitlines()) == [f"0 {half}", f"1 {half}"]
    failing = "import os, sys; sys.exit(3 * int(os.environ['OMPBIND_RANK']))"
    done = swapped(system, "run", "-n", "2", "--", sys.executable, "-c", failing)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("system", "args"),
    [
        *((s, (c,)) for s in ("darwin", "win32", "freebsd14") for c in ("show", "topo")),
        *((s, (c, "--format", "json")) for s in ("darwin", "win32") for c in ("show", "topo")),
    ],
)
def test_plans_and_drawings_elsewhere(system: str, args: tuple[str, ...]) -> None:
    """show and topo work wherever Python does."""
    done = swapped(system, *args)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_asking_for_nodes_elsewhere_still_starts(system: str) -> None:
    """--numa-bind has its one node there; the worker starts, and the one warning says the rest."""
    done = swapped(system, "run", "--numa-bind", "--mem", "bind", "--", sys.executable, "-c", "")
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_a_missing_command_elsewhere(system: str) -> None:
    """The same one line and status as on Linux."""
    done = swapped(system, "run", "--", "no-such-command-here")
    assert done.returncode == 127
    assert done.stderr.splitlines()[-1].startswith("ompbind: error: command not found")


def test_a_mac_s_snapshot_is_planned_for_on_linux(tmp_path: Path) -> None:
    """What a Mac saves is read on any other system, and a plan is made for it."""
    file = saved_mac(tmp_path, "MacStudio M1 Ultra (16 + 4)")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ompbind",
            "show",
            "-n",
            "2",
            "--topology",
            file,
            "--format",
            "json",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [r["cpus"] for r in plan["ranks"]] == ["0-1,4-11", "2-3,12-19"]  # of each kind
    assert plan["binder"] == "none"
