"""`ompbind show --hosts`: a job on many hosts, those of a kind folded, those that differ named."""

from __future__ import annotations

import gzip
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cli import main
from ompbind.cluster.differences import are_similar, list_differences
from ompbind.cluster.plan import ClusterPlan
from ompbind.machine import read_system
from ompbind.machine.roots import RecordingRoot
from ompbind.machine.snapshot import make_comparable, make_snapshot, unpack
from ompbind.machine.topology import Allowed, Machine
from tests.support.trees import (
    MemoryRoot,
    Pci,
    Shape,
    make_files,
    make_topology,
    shapes,
)

BASE = Shape(packages=2, nodes=4, l3s=8, cores=32, threads=2, numbering="halves")
SMALL = Shape(packages=1, nodes=1, l3s=1, cores=8)


@cache
def snapshot(shape: Shape, allowed: str = "") -> bytes:
    """What `topo --save` writes on such a machine."""
    files = make_files(shape)
    if allowed:
        files["proc/self/status"] = f"Cpus_allowed_list:\t{allowed}\nMems_allowed_list:\t0-3\n"
    root = RecordingRoot(MemoryRoot(files))
    read_system("linux", root)
    return make_snapshot("linux", root, with_name=False)


def machine_of(shape: Shape) -> Machine:
    topology = make_topology(shape)
    return Machine(topology, Allowed(topology.online, topology.node_numbers))


Show = Callable[..., Any]


@pytest.fixture
def show(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Show:
    """Runs `ompbind show` here; gives the JSON, another output's text, or the refusal."""
    for name in [n for n in os.environ if n.startswith(("OMP_", "KMP_", "GOMP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*args: str) -> Any:
        status = main(["show", *args, "--", "true"])
        out, err = capfd.readouterr()
        if status:
            assert out == ""
            assert status == 125
            return err
        return json.loads(out) if "json" in args else out

    return call


def write(folder: Path, hosts: dict[str, Shape]) -> Path:
    folder.mkdir(exist_ok=True)
    for host, shape in hosts.items():
        (folder / host).write_bytes(snapshot(shape))
    return folder


def test_every_rank_has_its_number(show: Show, tmp_path: Path) -> None:
    """Hosts follow one another in the order of the list; each has the ranks of its own machine."""
    folder = write(tmp_path / "d", {"n1": BASE, "n2": SMALL, "n3": BASE})
    args = ("--hosts", "n3,n[1-2]", "--topology", str(folder), "--per", "numa")
    plan = show(*args, "--format", "json")
    assert [(h["host"], h["first_rank"]) for h in plan["hosts"]] == [
        ("n3", 0),
        ("n1", 4),
        ("n2", 8),
    ]
    assert (plan["host_count"], plan["rank_count"], plan["kind_count"]) == (3, 9, 2)
    assert [g["hosts"] for g in plan["groups"]] == ["n[3,1]", "n2"]
    assert plan["warning_kinds"] == ["uneven"]
    for position, host in enumerate(plan["hosts"]):
        group = plan["groups"][host["group"]]
        for rank in group["plan"]["ranks"]:
            number = host["first_rank"] + rank["rank"]
            env = show(*args, "--rank", str(number), "--format", "env")
            count = len(group["plan"]["ranks"])
            assert f"export RANK={number}\n" in env or count == 1, position
            assert f"export OMPBIND_CPUS={rank['cpus']}\n" in env
    assert "there is no such rank" in show(*args, "--rank", "9", "--format", "env")


def test_a_group_has_the_plan_that_show_prints(show: Show, tmp_path: Path) -> None:
    """The plan of a group is that of its snapshot alone, but for the numbers of the job."""
    folder = write(tmp_path / "d", {"n1": BASE, "n2": BASE})
    args = ("-n", "4", "--mem", "bind", "--explain", "--format", "json")
    group = show("--hosts", "n[1-2]", "--topology", str(folder), *args)["groups"][0]
    alone = show("--topology", str(folder / "n1"), *args)
    for rank in alone["ranks"]:
        rank["env"]["WORLD_SIZE"] = "8"
    assert group["plan"].pop("host") == alone.pop("host") | {"name": "n1"}
    for rank in group["plan"]["ranks"]:  # where it stands in the job
        for name in rank.keys() - alone["ranks"][0].keys():
            del rank[name]
    assert group["plan"] == alone


def test_templates_go_on_from_host_to_host(show: Show, tmp_path: Path) -> None:
    """What is filled in for a rank has its number in the job, and all meet on the first host."""
    folder = write(tmp_path / "d", {"n1": BASE, "n2": BASE})
    args = ("--hosts", "n[1-2]", "--topology", str(folder), "-n", "2", "--master-port", "29500")
    more = ("--env", "PORT={8000+rank}", "--env", "HERE={local_rank}")
    env = show(*args, *more, "--rank", "3", "--format", "env")
    lines = [line.removeprefix("export ") for line in env.splitlines()[1:]]
    assert dict(line.split("=") for line in lines).items() >= {
        "PORT": "8003", "HERE": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29500", "RANK": "3",
        "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "OMPBIND_RANK": "1",
    }.items()  # fmt: skip


DIFFERENT = {
    "offline": (replace(BASE, offline="5"), "cpu 5 is offline"),
    "missing": (replace(BASE, threads=1), "cpus 32-63 are missing"),
    "memory": (replace(BASE, without_memory=(3,)), "node 3 has no memory, in its kind 4.0 GiB"),
    "nodes": (replace(BASE, nodes=2), "2 nodes, in its kind 4"),
    "numbering": (replace(BASE, numbering="pairs"), "differently: cpu 0 is beside cpus 0-15"),
    "core": (
        replace(BASE, numbering="round-robin"),
        "numbered differently: cpu 0 is beside cpus 0,2,4,6,8,10,12,14,",
    ),
    "node numbers": (replace(BASE, node_numbers=(0, 2, 4, 6)), "nodes 1,3 are missing"),
    "swapped": (replace(BASE, node_numbers=(1, 0, 2, 3)), "cpu 0 is on node 1, in its kind on "),
    "isolated": (replace(BASE, isolated="2-3"), "isolated cpus: 2-3, in its kind: none"),
    "device": (
        replace(BASE, devices=(Pci("0000:3b:00.0", "030200", 1),)),
        "gpu 0000:3b:00.0 is there, but not in its kind",
    ),
    "caches": (replace(BASE, l3s=4), "4 L3 caches, in its kind 8"),
    "not said": (replace(BASE, l3s=None), "does not say which cpus share a L3 cache"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_hosts_that_differ_are_named(name: str, show: Show, tmp_path: Path) -> None:
    """A cpu that is missing, a node that is smaller, another numbering: in the table and as data,
    and such a host's plan is that of its own machine."""
    shape, text = DIFFERENT[name]
    folder = write(tmp_path / "d", {"n1": shape, "n2": BASE, "n3": BASE, "n4": shape, "n5": BASE})
    args = ("--hosts", "n[1-5]", "--topology", str(folder), "-n", "2")
    plan = show(*args, "--format", "json")
    usual, other = plan["groups"]
    assert (usual["hosts"], usual["differences"], usual["kind"]) == ("n[2-3,5]", [], 0)
    assert (other["hosts"], other["kind"]) == ("n[1,4]", 0)
    assert text in "; ".join(d["text"] for d in other["differences"])
    alone = show("--topology", str(folder / "n1"), "-n", "2", "--format", "json")
    assert [r["cpus"] for r in other["plan"]["ranks"]] == [r["cpus"] for r in alone["ranks"]]
    table = show(*args)
    assert "2 differ from theirs" in table
    assert re.search(r"n\[1,4\] +0 +\S", table)


@given(shapes(), shapes())
def test_any_two_machines_can_be_compared(one: Shape, other: Shape) -> None:
    """No machine differs from itself, and those between which nothing is named have equal trees."""
    here, there = machine_of(one), machine_of(other)
    assert list_differences(here, here) == ()
    assert are_similar(here, there) == are_similar(there, here)
    if not list_differences(here, there):
        assert here.topology.online == there.topology.online
        for level in ("core", "package", "node", "l3"):
            assert set(here.topology.groups(level)) == set(there.topology.groups(level))


def test_kinds_of_a_file(show: Show, tmp_path: Path) -> None:
    """A file names hosts and their kinds' snapshots, relative to itself; a host's own snapshot is
    compared with that of its kind."""
    write(tmp_path, {"big.topo": BASE, "small.topo": SMALL})
    file = tmp_path / "hosts"
    file.write_text("# rack 1\nn[1-3]  big.topo  # new\n\n n[4-5],n9\tsmall.topo\n")
    plan = show("--hosts", str(file), "-n", "2", "--format", "json")
    assert [(g["hosts"], g["kind"]) for g in plan["groups"]] == [("n[1-3]", 0), ("n[4-5,9]", 1)]
    folder = write(tmp_path / "d", {"n2": replace(BASE, offline="7"), "n4.topo": BASE})
    plan = show("--hosts", str(file), "-n", "2", "--format", "json", "--topology", str(folder))
    groups = [(g["hosts"], g["kind"], bool(g["differences"])) for g in plan["groups"]]
    assert groups == [("n[1,3]", 0, False), ("n2", 0, True), ("n[5,9]", 1, False), ("n4", 1, True)]


def test_what_equal_hosts_of_a_job_differ_in(tmp_path: Path, show: Show) -> None:
    """A little memory, the number of a task in its cgroup's name and of mounts make no kind."""
    text = unpack(snapshot(BASE)).decode()
    data = json.loads(text)
    size = re.search(r"MemTotal: *(\d+)", text)
    assert size
    mounts = "{} 26 0:{} / /sys/fs/cgroup rw shared:{} - cgroup2 cgroup2 rw\n"
    texts = []
    for task in range(3):
        more = {"proc/self/cgroup": f"0::/slurm/job_4/step_0/task_{task}\n",
                "proc/self/mountinfo": mounts.format(30 + task, 20 + task, 9 + task)}  # fmt: skip
        changed = json.dumps(data | {"files": data["files"] | more})
        texts.append(changed.replace(size[1], str(int(size[1]) + task)).encode())
    assert len(set(texts)) == 3
    assert len({make_comparable(t) for t in texts}) == 1
    for task, changed_text in enumerate(texts):
        (tmp_path / f"n{task}").write_bytes(gzip.compress(changed_text))
    plan = show("--hosts", "n[0-2]", "--topology", str(tmp_path), "-n", "2", "--format", "json")
    assert [g["hosts"] for g in plan["groups"]] == ["n[0-2]"]


def test_a_mask_at_collection_does_not_count(tmp_path: Path, show: Show) -> None:
    """srun binds what takes the snapshots: the job will have all of the machine's cpuset. Asked to,
    ompbind plans inside the masks, and names hosts where they differ."""
    for host in ("n1", "n2", "n3"):
        (tmp_path / host).write_bytes(snapshot(BASE, "0-15" if host == "n2" else "0-63"))
    args = ("--hosts", "n[1-3]", "--topology", str(tmp_path), "-n", "2", "--format", "json")
    (group,) = show(*args)["groups"]
    assert [rank["cpus"] for rank in group["plan"]["ranks"]] == ["0-15", "16-31"]
    other = show(*args, "--inherited", "intersect")["groups"][1]
    assert other["differences"] == [
        {"about": "allowed", "text": "allowed cpus: 0-15, in its kind: 0-63"}
    ]
    assert [rank["cpus"] for rank in other["plan"]["ranks"]] == ["0-7", "8-15"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--hosts", "n[1-"], "--hosts: 'n[1-': a bracket is not closed"),
        (["--hosts", "n1,n[1-2]"], "--hosts names n1 twice"),
        (["--hosts", ""], "--hosts: an empty value"),
        (["--hosts", "./none"], "--hosts './none': No such file or directory"),
        (["--hosts", "bad"], "--hosts 'bad', line 2: 'x;y' is not the name of a host: "),
        (["--hosts", "blank"], "--hosts 'blank' names no host"),
        (["--hosts", "n[1-4]", "--topology", "d"], "--topology 'd' has no snapshot of n4"),
        (["--hosts", "n[1-3]", "--topology", "d", "--numa-bind-nodes", "3"],
         "n2: rank 0: node 3 does not exist"),
        (["--hosts", "n[1,3]", "--topology", "d", "--numa-bind-nodes", "7"],
         "rank 0: node 7 does not exist"),
        (["--hosts", "n[1-3]", "--topology", "spoiled"], "spoiled/n1: the snapshot is truncated"),
        (["--hosts", "n1", "--topology", "d", "--format", "argv"], "--format argv is for one rank"),
        (["--hosts", "n1", "--plan", "p"], "--hosts has no effect on a saved plan"),
        (["--hosts", "n1", "--master-port", "auto"], "--master-port auto: each host would take"),
        (["--hosts", "n1", "--engine", "slurm"], "--engine is about the engine that has started"),
        (["--hosts", "n1", "--from-env", "vllm"], "--from-env follows the variables of"),
    ],
)  # fmt: skip
def test_refused(
    args: list[str], message: str, show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that names the hosts, and nothing on standard output."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "d", {"n1": BASE, "n2": SMALL, "n3": BASE})
    write(tmp_path / "spoiled", {"n2": BASE, "n3": BASE})
    (tmp_path / "spoiled/n1").write_bytes(snapshot(BASE)[:100])
    (tmp_path / "bad").write_text("n1\nx;y\n")
    (tmp_path / "blank").write_text("# nothing\n")
    default = [] if "--numa-bind-nodes" in args else ["-n", "2"]
    if "--plan" in args:
        default = []
    error = show(*default, *args)
    first, *rest = error.splitlines()
    assert first.startswith(f"ompbind: error: {message}")
    assert all(line.startswith("hint: ") for line in rest)


def test_the_kinds_that_fail_are_all_named(show: Show, tmp_path: Path) -> None:
    """Of several failures the first is explained and the other hosts are listed."""
    shapes = {"n1": BASE, "n2": SMALL, "n3": replace(BASE, nodes=1), "n4": SMALL}
    folder = write(tmp_path / "d", shapes)
    error = show("--hosts", "n[1-4]", "--topology", str(folder), "--numa-bind-cpus", "0-7", "8-63")
    assert error.startswith("ompbind: error: n[2,4]: rank 1: ")
    folder = write(tmp_path / "d", {"n3": replace(BASE, offline="63")})
    error = show("--hosts", "n[1-4]", "--topology", str(folder), "--numa-bind-cpus", "0-7", "8-63")
    assert error.splitlines()[0].endswith("; n3 cannot be planned either")


def test_without_a_snapshot(show: Show) -> None:
    """This machine stands for the hosts, and a warning says so."""
    plan = show("--hosts", "n[1-3]", "--format", "json")
    assert plan["warning_kinds"] == ["hosts"]
    assert plan["rank_count"] == 3


def test_ten_thousand_hosts(show: Show, tmp_path: Path) -> None:
    """Their plan takes neither a plan for each nor a reading of each: 80,000 ranks in two groups,
    in a table of one screen. (`make bench` measures it.)"""
    (tmp_path / "kind").write_bytes(snapshot(BASE))
    (tmp_path / "odd").write_bytes(snapshot(replace(BASE, offline="9")))
    file = tmp_path / "hosts"
    file.write_text("n[00001-09998] kind\nn09999 odd\nn10000 kind\n")
    start = time.process_time()
    plan = show("--hosts", str(file), "-n", "8", "--format", "json")
    table = show("--hosts", str(file), "-n", "8", "--threads", "99", "--explain", "--rank", "79999")
    assert time.process_time() - start < 10
    assert plan["rank_count"] == 80_000
    assert plan["hosts"][-1] == {"host": "n10000", "group": 0, "first_rank": 79_992}
    assert "executed for rank 79999, rank 7 of n10000" in table
    assert " RANK=79999 " in " ".join(table.split())
    assert len(table.splitlines()) < 100


def test_a_name_in_the_saved_file_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`topo --save DIR/%N` writes under the name by which Slurm knows the host, or its own."""
    monkeypatch.setenv("SLURMD_NODENAME", "n0042")
    assert main(["topo", "--save", str(tmp_path / "%N")]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["n0042"]
    monkeypatch.delenv("SLURMD_NODENAME")
    assert main(["topo", "--save", str(tmp_path / "%N.topo")]) == 0
    assert (tmp_path / f"{os.uname().nodename.partition('.')[0]}.topo").exists()
    monkeypatch.setenv("SLURMD_NODENAME", "../x")
    assert main(["topo", "--save", str(tmp_path / "%N")]) == 125
    assert "'../x' is not a host's name" in capfd.readouterr().err


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_a_rank_is_found_on_its_host(counts: list[int], data: st.DataObject) -> None:
    """Numbers of ranks, whatever each host has, lead to the host and the rank there."""
    first = [sum(counts[:n]) for n in range(len(counts))]
    plan = ClusterPlan(tuple(map(str, counts)), (), (), (), tuple(first), sum(counts))
    rank = data.draw(st.integers(0, sum(counts) - 1))
    position, local = plan.find_rank(rank)
    assert first[position] + local == rank
    assert 0 <= local < counts[position]
