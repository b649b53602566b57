"""What a rank was killed for that wanted more memory than there was."""

from __future__ import annotations

from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet
from ompbind.launch.oom import KILLER, explain_oom
from ompbind.machine.roots import DirectoryRoot
from ompbind.plans import Binding, RankPlan
from tests.support.processes import write_files

GIB = 1 << 20  # in KiB


def make_node(node: int, total: int, free: int, files: int = 0) -> dict[str, str]:
    """A node's meminfo, in KiB."""
    sizes = {"MemTotal": total, "MemFree": free, "Active(file)": files, "Dirty": 7}
    lines = [f"Node {node} {name}:  {size} kB\n" for name, size in sizes.items()]
    text = "".join([*lines, f"Node {node} HugePages_Total:  0\n"])
    return {f"sys/devices/system/node/node{node}/meminfo": text}


NODES = make_node(0, 4 * GIB, 3 * GIB, GIB // 2) | make_node(1, 8 * GIB, 6 * GIB)
LIMITED = {
    "proc/self/cgroup": "0::/a/b\n",
    "proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/a/b/memory.events": "max 0\noom 0\noom_kill 1\n",
}
VERSION_1 = {
    "proc/self/cgroup": "3:memory:/job\n",
    "proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1000\n",
}
PEAK = "sys/fs/cgroup/memory/job/memory.max_usage_in_bytes"
LIMIT = ": its cgroup has been at its limit of memory"
FULL = ": no memory left on node 0, to which it is bound"
ADVICE = "--mem preferred takes memory of other nodes when these are full"


@pytest.mark.parametrize(
    ("files", "mem", "mems", "remark", "hint"),
    [
        (NODES, "bind", "0", FULL,
         f"3.5 GiB of 4.0 GiB free on node 0 now, 6.0 GiB on node 1; {ADVICE}"),
        (NODES | LIMITED, "bind", "0", FULL,
         f"3.5 GiB of 4.0 GiB free on node 0 now, 6.0 GiB on node 1; {ADVICE}"),
        ({}, "bind", "0", FULL, ADVICE),
        (NODES, "bind", "0-1", "", ""),  # there is no more
        (NODES, "preferred", "0", "", ""),
        (NODES, "none", "", "", ""),
        (NODES | LIMITED | {"sys/fs/cgroup/a/memory.events": "oom 1\n"}, "bind", "0", LIMIT, ""),
        (NODES | VERSION_1 | {PEAK: "1000\n"}, "bind", "0", LIMIT, ""),
        (NODES | VERSION_1 | {PEAK: "999\n"}, "none", "", "", ""),
    ],
)  # fmt: skip
def test_reasons(
    files: dict[str, str], mem: str, mems: str, remark: str, hint: str, tmp_path: Path
) -> None:
    """A limit of a cgroup, of whatever version, or above it; nodes that a rank is bound to, if
    there are others; else nothing is guessed."""
    write_files(tmp_path, files)
    binding = Binding(CpuSet([0]), mem, CpuSet.parse_kernel(mems))
    rank = RankPlan(0, binding, (), CpuSet([0]), (), (), ("w",))
    reason = explain_oom(DirectoryRoot(str(tmp_path)), rank, CpuSet([0, 1]))
    assert reason == (KILLER + remark, hint)
