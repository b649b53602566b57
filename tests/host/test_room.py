"""Whether the memory that ranks need is there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.host.room import check_room
from ompbind.machine.free_memory import read_cgroup_room
from ompbind.machine.topology import Machine
from ompbind.planner import make_plan
from ompbind.plans import Plan
from tests.support.machines import MACHINES, make_asked
from tests.support.trees import MemoryRoot, cgroup2_files

GIB = 1 << 20  # in kB
NODE = "sys/devices/system/node/node{}/meminfo"
# Of each node 4 GiB are free and 2 hold files; of node 2, none.
FILES = {
    NODE.format(n): (
        f"Node {n} MemTotal: {8 * GIB} kB\nNode {n} MemFree: {4 * free * GIB} kB\n"
        f"Node {n} Active(file): {free * GIB} kB\nNode {n} Inactive(file): 0 kB\n"
        f"Node {n} SReclaimable: {free * GIB} kB\n"
    )
    for n, free in enumerate((1, 1, 0, 1))
}


def check(
    args: str,
    files: dict[str, str] | None = None,
    machine: str = "server",
    huge_pages: str = "",
) -> Plan:
    """The plan for a machine of four such nodes."""
    made: Machine = MACHINES[machine]
    root = MemoryRoot(FILES | (files or {}))
    plan = make_plan(made, make_asked(args.split())).replace(huge_pages=huge_pages)
    return check_room(plan, made, root)


@pytest.mark.parametrize(
    ("args", "texts"),
    [
        ("--numa-bind-nodes 0 --mem-need 6G", []),
        ("--numa-bind-nodes 0 0 1 --mem-need 3G/rank", []),
        ("--mem bind --mem-need 18G", []),
        ("-n 4 --mem local --mem-need 18G", []),
        ("--numa-bind-nodes 0 --mem preferred --mem-need 7G",
         ["rank 0 needs 7.0 GiB (--mem-need), more than node 0 has 6.0 GiB free or reclaimable, of "
          "8.0 GiB: the rest comes from other nodes"]),
        ("-n 2 --mem interleave --mem-need 6.5G/rank",
         ["rank 1 needs 6.5 GiB (--mem-need), more than nodes 2-3 have 6.0 GiB free or "
          "reclaimable, of 16.0 GiB: the rest comes from other nodes"]),
    ],
)  # fmt: skip
def test_enough(args: str, texts: list[str]) -> None:
    """Free and reclaimable memory is enough; what may come from elsewhere carries a warning."""
    plan = check(args)
    assert [c.text for c in plan.cautions if "--mem-need" in c.text] == texts


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        ("--numa-bind-nodes 0 --mem-need 6.1G",
         "rank 0 needs 6.1 GiB (--mem-need) of node 0, which has 6.0 GiB free or reclaimable, of "
         "8.0 GiB",
         "nodes 1-3 have 12.0 GiB; --mem preferred takes memory of other nodes when these"),
        ("--numa-bind-nodes 0 0 1 --mem-need 4G/rank",
         "ranks 0-1 need 8.0 GiB (--mem-need) of node 0, which has 6.0 GiB free or reclaimable, of "
         "8.0 GiB",
         "nodes 1-3 have 12.0 GiB; --mem preferred takes memory of other nodes when these"),
        # Each of two ranks has room enough, both together have not.
        ("-n 2 --mem bind --mem-nodes 0,1 1,2 --mem-need 6.5G/rank",
         "rank 1 needs 6.5 GiB (--mem-need) of nodes 1-2, which have 6.0 GiB free or reclaimable, "
         "of 16.0 GiB", ""),
        ("-n 2 --share --mem bind --mem-nodes 0,2 1,2 --mem-need 6G/rank", "", ""),
        ("-n 3 --share --mem bind --mem-nodes 0,2 1-2 2 --mem-need 4.5G/rank",
         "rank 2 needs 4.5 GiB (--mem-need) of node 2, which has 0 KiB free or reclaimable, of "
         "8.0 GiB", ""),
        ("-n 3 --share --mem bind --mem-nodes 0,2 1-2 0,1 --mem-need 4.5G/rank",
         "ranks 0-2 need 13.5 GiB (--mem-need) of nodes 0-2, which have 12.0 GiB free or "
         "reclaimable, of 24.0 GiB", "node 3 has 6.0 GiB"),
        ("-n 2 --mem local --mem-need 19G",
         "ranks 0-1 need 19.0 GiB (--mem-need) of all nodes that are allowed, which have 18.0 GiB "
         "free or reclaimable, of 32.0 GiB", "fewer ranks, or less for each"),
    ],
)  # fmt: skip
def test_too_little(args: str, message: str, hint: str) -> None:
    """Ranks that need more together than is there are refused, with what there is elsewhere."""
    if not message:
        check(args)
        return
    with pytest.raises(PlanError) as caught:
        check(args)
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_the_cgroup_s_limit() -> None:
    """The least of what it and those above it leave; its files can be read again."""
    files = cgroup2_files("/a/b")
    gib = 1 << 30
    top = "sys/fs/cgroup/a"
    files |= {
        f"{top}/memory.max": f"{10 * gib}\n", f"{top}/memory.current": f"{4 * gib}\n",
        f"{top}/b/memory.max": "max\n", f"{top}/b/memory.current": f"{3 * gib}\n",
        f"{top}/memory.stat": f"anon {gib}\nactive_file {gib}\ninactive_file {gib}\n",
    }  # fmt: skip
    assert read_cgroup_room(MemoryRoot(files)) == 8 * gib
    assert read_cgroup_room(MemoryRoot(cgroup2_files("/a/b"))) is None
    check("-n 2 --mem-need 4G/rank", files)
    with pytest.raises(PlanError) as caught:
        check("-n 2 --mem-need 4.1G/rank", files)
    assert caught.value.message == (
        "ranks 0-1 need 8.2 GiB (--mem-need), and the cgroup's limit leaves 8.0 GiB"
    )


POOL = "sys/kernel/mm/hugepages/hugepages-2048kB"
# Of 1536 reserved pages on node 0, 512 are promised to somebody.
RESERVED = {
    f"{POOL}/free_hugepages": "1536\n", f"{POOL}/resv_hugepages": "512\n",
    f"{POOL}/nr_overcommit_hugepages": "4096\n",
    "sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages": "1536\n",
}  # fmt: skip


def test_reserved_huge_pages_are_room() -> None:
    """For ranks that take these, and for nobody else: no node counts them as free, nor a cgroup as
    its memory unless it is told to."""
    bound = "--numa-bind-nodes 0 --mem-need 8G"
    check(bound, RESERVED, huge_pages="2M")
    for kind in ("", "thp"):
        with pytest.raises(PlanError, match=r"node 0, which has 6\.0 GiB free"):
            check(bound, RESERVED, huge_pages=kind)
    with pytest.raises(PlanError, match=r"node 0, which has 8\.0 GiB free"):
        check("--numa-bind-nodes 0 --mem-need 8.1G", RESERVED, huge_pages="2M")
    check("-n 2 --mem local --mem-need 20G", RESERVED, huge_pages="2M")
    with pytest.raises(PlanError, match=r"are allowed, which have 20\.0 GiB free"):
        check("-n 2 --mem local --mem-need 20.1G", RESERVED, huge_pages="2M")
    limit = {"sys/fs/cgroup/a/memory.max": f"{6 << 30}\n", "sys/fs/cgroup/a/memory.current": "0\n"}
    limited = RESERVED | cgroup2_files("/a") | limit
    check(bound, limited, huge_pages="2M")
    with pytest.raises(PlanError, match=r"the cgroup's limit leaves 8\.0 GiB"):
        check("-n 2 --mem local --mem-need 8.1G", limited, huge_pages="2M")
    option = "cgroup2 /sys/fs/cgroup cgroup2 rw,memory_hugetlb_accounting 0 0\n"
    with pytest.raises(PlanError, match=r"the cgroup's limit leaves 6\.0 GiB"):
        check(bound, limited | {"proc/self/mounts": option}, huge_pages="2M")


def test_reserved_huge_pages_of_a_machine_without_nodes() -> None:
    """They are room of the whole."""
    machine = MACHINES["server"]
    plan = make_plan(machine, make_asked(["--numa-bind-nodes", "0", "--mem-need", "10G"]))
    root = MemoryRoot(
        {"proc/meminfo": f"MemTotal: {16 * GIB} kB\nMemAvailable: {8 * GIB} kB\n"} | RESERVED
    )
    assert check_room(plan.replace(huge_pages="2M"), machine, root)
    with pytest.raises(PlanError, match=r"which have 8\.0 GiB free"):
        check_room(plan, machine, root)


def test_another_machine() -> None:
    """Its nodes' sizes are compared, as nobody knows what is free there."""
    machine = MACHINES["server"]
    nodes = tuple(n.replace(memory_bytes=8 << 30) for n in machine.topology.nodes)
    machine = machine.replace(topology=machine.topology.replace(nodes=nodes))
    plan = make_plan(machine, make_asked(["--numa-bind-nodes", "0", "--mem-need", "8G"]))
    assert check_room(plan, machine, None) == plan
    plan = make_plan(machine, make_asked(["--numa-bind-nodes", "0", "--mem-need", "8.1G"]))
    with pytest.raises(PlanError, match=r"of node 0, which has 8\.0 GiB in all$"):
        check_room(plan, machine, None)


def test_nodes_that_say_nothing() -> None:
    """Nothing is refused by a node whose memory is unknown; the whole machine's is known."""
    machine = MACHINES["server"]
    plan = make_plan(machine, make_asked(["--numa-bind-nodes", "0", "--mem-need", "9G"]))
    assert check_room(plan, machine, MemoryRoot({})) == plan
    root = MemoryRoot({"proc/meminfo": f"MemTotal: {16 * GIB} kB\nMemAvailable: {8 * GIB} kB\n"})
    with pytest.raises(PlanError, match=r"which have 8\.0 GiB free"):
        check_room(plan, machine, root)


@pytest.mark.parametrize("command", ["show", "run"])
@pytest.mark.parametrize("groups", [False, True])
def test_nothing_starts(command: str, groups: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """Where no machine has so much; in groups, where all of them together need it."""
    words = [command, "--mem-need", "900T", "--mem", "bind", "--", "echo", "started"]
    if groups:
        size = 1 + read_total() * 6 // 10 // (1 << 20)
        one = ["--numa-bind-cpus", str(CpuSet([0])), "--mem-need", f"{size}M", "--", "echo", "x"]
        words = [command, "--group", "a", *one, ":::", "--group", "b", *one]
        words[words.index("0", 6 + 5)] = "1"
    assert main(words) == 125
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert "(--mem-need)" in lines[0]
    assert lines[0].startswith("ompbind: error: ")


def test_a_saved_plan(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What its ranks need is looked for again where it runs."""
    words = ["--numa-bind-cpus", str(min(os.sched_getaffinity(0))), "--mem-need", "1M"]
    assert main(["show", *words, "--format", "json", "--", "echo", "started"]) == 0
    plan = json.loads(capfd.readouterr().out)
    plan["ranks"][0]["mem_need_bytes"] = 1 << 59
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    assert main(["run", "--plan", str(file)]) == 125
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("ompbind: error: rank 0 needs 524288 TiB (--mem-need) of ")
    plan["ranks"][0]["mem_need_bytes"] = -1
    file.write_text(json.dumps(plan))
    assert main(["show", "--plan", str(file)]) == 125
    assert "mem_need_bytes is out of range" in capfd.readouterr().err


def read_total() -> int:
    """This machine's memory in bytes."""
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1]) * 1024
