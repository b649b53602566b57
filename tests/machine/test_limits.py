"""The reader of /proc and cgroups: what a process may use, in every way that can be arranged."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import TopologyError
from ompbind.machine.limits import (
    Mount,
    make_allowed,
    parse_cgroups,
    parse_cpu_max,
    parse_memory_bytes,
    parse_mountinfo,
    parse_mounts,
    parse_stat_cpus,
    read_hostname,
)
from ompbind.machine.topology import Allowed
from tests.support.trees import (
    MemoryRoot,
    Shape,
    cgroup1_files,
    cgroup2_files,
    make_files,
    make_machine,
    status_files,
)

# Eight cores of two threads (0-1, 2-3, …) on two nodes
SHAPE = Shape(packages=2, nodes=2, cores=8, threads=2)
V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpuset"


def allowed(*files: dict[str, str], shape: Shape = SHAPE) -> Allowed:
    merged: dict[str, str] = {}
    for some in files:
        merged |= some
    return make_machine(shape, merged).allowed


def cpus(*files: dict[str, str]) -> str:
    return str(allowed(*files).cpus)


# Affinity


def test_nothing_said() -> None:
    """Where nothing restricts the process, it may use everything that is online."""
    may = allowed()
    assert (str(may.cpus), str(may.nodes), may.quota) == ("0-15", "0-1", None)


def test_affinity_mask() -> None:
    """The process' own mask and nodes hold."""
    may = allowed(status_files("2-5", "1"))
    assert (str(may.cpus), str(may.nodes)) == ("2-5", "1")


def test_mask_covers_possible_cpus() -> None:
    """The mask covers cpus that may come; allowed are those that are online."""
    may = allowed(status_files("0-255", "0-63"), shape=Shape(nodes=1, cores=4, offline="2"))
    assert (str(may.cpus), str(may.nodes)) == ("0-1,3", "0")


def test_half_a_core() -> None:
    """A cgroup can hold one thread of a core: that cpu stays, its sibling is not allowed."""
    assert cpus(status_files("1-4")) == "1-4"
    assert cpus(cgroup2_files(cpus="3")) == "3"


def test_mask_and_cpuset() -> None:
    """Where the process' mask and the cpuset's differ, what is in both holds."""
    assert cpus(status_files("0-7"), cgroup2_files(cpus="4-11")) == "4-7"


def test_status_is_the_last_word() -> None:
    """A cpuset that shares nothing with the process' own mask is somebody else's."""
    may = allowed(status_files("0-3", "0"), cgroup2_files(cpus="8-11", mems="1"))
    assert (str(may.cpus), str(may.nodes)) == ("0-3", "0")


def test_only_offline_cpus_allowed() -> None:
    """When nothing that is allowed is online, nothing is allowed; not everything."""
    may = allowed(cgroup2_files(cpus="2"), shape=Shape(cores=4, offline="2"))
    assert may.cpus == CpuSet()


@given(*[st.none() | st.sets(st.integers(0, 9)).map(CpuSet)] * 2, st.sets(st.integers(0, 9)))
def test_allowed_is_online(status: CpuSet | None, cpuset: CpuSet | None, there: set[int]) -> None:
    """What is allowed is online and in the mask, and not empty for a cpuset's sake."""
    online = CpuSet(there)
    may = make_allowed(online, status, cpuset)
    assert may <= online
    if status is not None:
        assert may <= status
        assert may or not status & online


# Cpusets of version 2


def test_v2() -> None:
    """A cpuset of cgroup version 2 restricts cpus and nodes."""
    may = allowed(cgroup2_files("/job", "0-3,8", "0"))
    assert (str(may.cpus), str(may.nodes)) == ("0-3,8", "0")


def test_v2_nested() -> None:
    """In nested cgroups the process' own one holds, not those above."""
    files = cgroup2_files("/user.slice/job/step", "4-5")
    files |= {f"{V2}/user.slice/job/cpuset.cpus.effective": "0-7\n"}
    assert cpus(files) == "4-5"


def test_v2_without_controller() -> None:
    """A cgroup for which cpusets are not enabled has its parent's."""
    files = cgroup2_files("/job/step/0", mems="1")
    files |= {f"{V2}/job/cpuset.cpus.effective": "0-7\n"}
    may = allowed(files)
    assert (str(may.cpus), str(may.nodes)) == ("0-7", "1")


def test_v2_effective_before_wanted() -> None:
    """What a cpuset asks for is not what it gets: the effective file holds."""
    files = cgroup2_files("/job", "0-3") | {f"{V2}/job/cpuset.cpus": "0-15\n"}
    assert cpus(files) == "0-3"
    files = cgroup2_files("/job") | {f"{V2}/job/cpuset.cpus": "0-5\n"}
    assert cpus(files) == "0-5"


def test_v2_mounted_elsewhere() -> None:
    """A cgroup file system may be mounted anywhere, also where the path has blanks."""
    assert cpus(cgroup2_files("/job", "3", mount="/mnt/my cgroups")) == "3"


def test_v2_container() -> None:
    """In a container the mount starts at the container's own cgroup."""
    files = cgroup2_files("/docker/abc/inner", "0-1", mount_root="/docker/abc")
    assert f"{V2}/inner/cpuset.cpus.effective" in files
    assert cpus(files) == "0-1"


def test_v2_foreign_mount() -> None:
    """Of several mounts the one below which the process' cgroup is found is taken."""
    files = cgroup2_files("/job", "0-1")
    other = "29 23 0:26 /other /mnt/other rw - cgroup2 cgroup2 rw\n"
    files["proc/self/mountinfo"] = other + files["proc/self/mountinfo"]
    files["mnt/other/cpuset.cpus.effective"] = "7\n"
    assert cpus(files) == "0-1"


def test_v2_outside_of_namespace() -> None:
    """A cgroup outside of this namespace is written with `..`: the mount's root is all there is."""
    files = {
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "proc/self/cgroup": "0::/../../other\n",
        f"{V2}/cpuset.cpus.effective": "0-7\n",
        "sys/other/cpuset.cpus.effective": "3\n",
    }
    assert cpus(files) == "0-7"


def test_v2_empty() -> None:
    """An empty list restricts nothing, the parent's may."""
    files = cgroup2_files("/a/b") | {
        f"{V2}/a/b/cpuset.cpus.effective": "\n",
        f"{V2}/a/cpuset.cpus.effective": "0-3\n",
    }
    assert cpus(files) == "0-3"


# Cpusets of version 1


@pytest.mark.parametrize("effective", [True, False])
def test_v1(effective: bool) -> None:
    """A cpuset of cgroup version 1 restricts cpus and nodes, also on kernels that do not say
    what is effective."""
    may = allowed(cgroup1_files("/slurm/job_1", "0-3", "0", effective=effective))
    assert (str(may.cpus), str(may.nodes)) == ("0-3", "0")


def test_v1_effective_before_wanted() -> None:
    """After cpus have gone, the effective list says less than the one asked for."""
    files = cgroup1_files("/job", "0-3") | {f"{V1}/job/cpuset.cpus": "0-15\n"}
    assert cpus(files) == "0-3"


def test_v1_noprefix() -> None:
    """Cpusets mounted with noprefix have files without `cpuset.`."""
    files = cgroup1_files("/torque/1", "2-3", "1", mount="/dev/cpuset", prefix=False)
    may = allowed(files)
    assert (str(may.cpus), str(may.nodes)) == ("2-3", "1")


@pytest.mark.parametrize("table", ["proc/mounts", "proc/self/mounts"])
def test_cpuset_file_system(table: str) -> None:
    """The cpuset file system, older than cgroups, is at /dev/cpuset."""
    files = {
        table: "none /dev/cpuset cpuset rw 0 0\n",
        "proc/self/cpuset": "/job\n",
        "dev/cpuset/job/cpus": "1,3\n",
        "dev/cpuset/job/mems": "0\n",
    }
    may = allowed(files)
    assert (str(may.cpus), str(may.nodes)) == ("1,3", "0")


def test_v1_before_v2() -> None:
    """With both mounted, the version that has the cpuset controller holds."""
    files = cgroup1_files("/job", "0-3")
    files["proc/self/mountinfo"] += "40 23 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    files["proc/self/cgroup"] += "0::/user.slice\n"
    files["sys/fs/cgroup/unified/user.slice/cpuset.cpus.effective"] = "8-11\n"
    assert cpus(files) == "0-3"


def test_v1_nested_and_elsewhere() -> None:
    """A nested cpuset of version 1 on a mount point of its own."""
    files = cgroup1_files("/uid_1/job_2/step_0", "5", mount="/cgroup/cpuset", effective=False)
    files |= {"cgroup/cpuset/uid_1/cpuset.cpus": "0-7\n"}
    assert cpus(files) == "5"


def test_v1_of_a_container() -> None:
    """A container's mount shows its own cgroup as the root."""
    files = cgroup1_files("/docker/abc")
    files["proc/self/mountinfo"] = (
        "30 23 0:26 /docker/abc /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n"
    )
    files |= {f"{V1}/cpuset.cpus": "6-7\n"}
    assert cpus(files) == "6-7"


@pytest.mark.parametrize("text", ["zz", "5-3", "0-", "-1", "99999999999999999999"])
def test_garbage_in_a_cpuset(text: str) -> None:
    """Garbage in a cpuset or in the status is an error that names the file: without it, cpus
    that are forbidden might be planned on."""
    with pytest.raises(TopologyError, match=r"cpuset\.cpus\.effective"):
        allowed(cgroup2_files("/job", text))
    with pytest.raises(TopologyError, match="Mems_allowed_list of proc/self/status"):
        allowed(status_files("0", text))


# Quota


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("max 100000", None), ("max", None), ("200000 100000", 2.0), ("150000 100000", 1.5),
        ("50000 100000", 0.5), ("100000", 1.0), ("1000 0", None), ("0 100000", None), ("", None),
        ("-1 100000", None), ("1.5 1", None), ("٣ 1", None), ("1 2 3", None), ("zz", None),
    ],
)  # fmt: skip
def test_cpu_max(text: str, quota: float | None) -> None:
    """A quota is time in each period; `max`, and whatever is no number, is none."""
    assert parse_cpu_max(text) == quota


def test_quota_v2() -> None:
    """A quota far below the allowed cpus is said as such; the cpus stay."""
    may = allowed(cgroup2_files("/job", cpu_max={"job": "150000 100000"}))
    assert (may.quota, str(may.cpus)) == (1.5, "0-15")


def test_quota_nested() -> None:
    """The smallest quota on the way up to the mount's root holds, whoever set it."""
    below = {
        "a/b/c": "max 100000",
        "a/b": "800000 100000",
        "a": "250000 100000",
        "": "900000 100000",
    }
    assert allowed(cgroup2_files("/a/b/c", cpu_max=below)).quota == 2.5


def test_quota_of_a_sibling() -> None:
    """The quota of a cgroup that the process is not in does not matter."""
    assert allowed(cgroup2_files("/a/b", cpu_max={"a/other": "1000 100000"})).quota is None


def test_quota_of_a_container() -> None:
    """In a container with its own cgroup namespace the quota lies at the mount's root."""
    assert allowed(cgroup2_files("/", cpu_max={"": "400000 100000"})).quota == 4.0


def test_quota_v1() -> None:
    """In version 1 quota and period are two files, -1 is none, and `cpu` may be mounted with
    `cpuacct`."""
    nested = {"job/step": (-1, 100_000), "job": (75_000, 50_000)}
    assert allowed(cgroup1_files("/job/step", quota=nested)).quota == 1.5
    assert allowed(cgroup1_files("/job", quota={"job": (-1, 100_000)})).quota is None


def test_quota_without_period() -> None:
    """Without a period the kernel's own of 100 ms counts."""
    files = cgroup1_files("/job", quota={"job": (300_000, 1)})
    del files["sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us"]
    assert allowed(files).quota == 3.0


def test_garbage_in_a_quota() -> None:
    """Garbage in a quota is none: it advises, and a wrong small one would starve a machine."""
    assert allowed(cgroup2_files("/job", cpu_max={"job": "zz"})).quota is None


# Tables


def test_mountinfo() -> None:
    """Of the mounts only cgroups count; optional fields before the dash may be any number."""
    text = (
        "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 23 0:26 /a\\040b /mnt/x\\134y rw shared:1 master:2 - cgroup2 none rw,nsdelegate\n"
        "31 23 0:27 / /c rw - cgroup none rw,cpuset,noprefix\n"
        "garbage - cgroup2\n"
        "\n"
    )
    assert parse_mountinfo(text) == [
        Mount("/mnt/x\\y", "cgroup2", ("rw", "nsdelegate"), "/a b"),
        Mount("/c", "cgroup", ("rw", "cpuset", "noprefix"), "/"),
    ]


def test_mounts() -> None:
    """The older table has neither roots nor a dash."""
    text = "none /c cgroup rw,cpuset 0 0\nproc /proc proc rw 0 0\ncgroup2 /sys\n"
    assert parse_mounts(text) == [Mount("/c", "cgroup", ("rw", "cpuset"))]


def test_cgroups() -> None:
    """A cgroup's path may hold colons; controllers that are mounted together share one."""
    text = "4:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\nzz\n"
    assert parse_cgroups(text) == {"cpu": "/a:b", "cpuacct": "/a:b", "name=systemd": "/s", "": "/u"}


@settings(max_examples=200)
@given(st.text())
def test_tables_of_garbage(text: str) -> None:
    """Whatever the tables hold, parsing them ends without an error."""
    parse_mountinfo(f"1 2 3 4 5 - cgroup{text}")
    parse_mounts(text)
    parse_cgroups(text)
    parse_memory_bytes(f"MemTotal:{text}")
    parse_stat_cpus(f"cpu{text}"[:9])
    parse_cpu_max(text)


@settings(max_examples=200)
@given(st.data())
def test_garbage_anywhere(data: st.DataObject) -> None:
    """Whatever a file of /proc or a cgroup holds, allowed is online, or it is a TopologyError."""
    files = status_files("0-3", "0") | data.draw(
        st.sampled_from([
            cgroup1_files("/a/b", "0-7", "0-1", quota={"a": (1000, 1000)}),
            cgroup2_files("/a/b", "0-7", "0-1", cpu_max={"a": "1000 1000"}),
        ])
    )  # fmt: skip
    path = data.draw(st.sampled_from(sorted(files)))
    cut = data.draw(st.integers(0, len(files[path])))
    files[path] = files[path][:cut] + data.draw(st.text(max_size=20))
    with suppress(TopologyError):
        assert allowed(files).cpus <= CpuSet(range(16))


def test_memory() -> None:
    """The memory's size is in kB; a line of another form says nothing."""
    assert parse_memory_bytes("MemFree: 1 kB\nMemTotal:   12 kB\n") == 12288
    assert parse_memory_bytes("Node 3 MemTotal: 0 kB\n") == 0
    assert parse_memory_bytes("MemTotal: 12\n") is None
    assert parse_memory_bytes("") is None


def test_stat() -> None:
    """The lines of /proc/stat name the online cpus; the first is their sum."""
    assert str(parse_stat_cpus("cpu  1 2\ncpu3 1\ncpu10 1\ncpufoo 1\nintr 5\n")) == "3,10"
    assert parse_stat_cpus("cpu") == CpuSet()


def test_hostname() -> None:
    """The host's name is a line, or not there."""
    files = make_files(SHAPE)
    assert read_hostname(MemoryRoot(files)) == ""
    assert read_hostname(MemoryRoot(files | {"proc/sys/kernel/hostname": "n1\n"})) == "n1"
