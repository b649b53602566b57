"""Files that are brought into memory before the ranks start: which, where to, and what is said."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ompbind.cli import main
from ompbind.cli.progress import WarmingBar, describe_warmed
from ompbind.cpuset import CpuSet
from ompbind.errors import DeniedError, ParseError, UsageError
from ompbind.launch import warm
from ompbind.launch.warm import Warmed, explain_left, find_misplaced, warm_file, warm_files
from ompbind.machine import living_root
from ompbind.machine.limits import unescape
from ompbind.machine.page_cache import find_mappers, read_mapped_nodes
from ompbind.machine.processes import Memory, parse_numa_maps
from ompbind.machine.regions import parse_regions
from ompbind.memory.warming import add_files, join_files
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.plans import Plan, Task, WarmFile
from ompbind.verify.memory import judge_files
from tests.support.machines import MACHINES, make_asked

MIB = 1 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "a model.bin"
    path.write_bytes(b"x" * (3 * MIB + 5))
    return path


def plan_for(args: str) -> Plan:
    return make_plan(MACHINES["server"], make_asked(args.split()))


def warmed(args: str, *paths: str | Path) -> list[str]:
    plan = add_files(plan_for(args), [str(path) for path in paths])
    return [f"{os.path.basename(f.path)} {f.mem} {f.mems}" for f in plan.warm]


# --- the plan ------------------------------------------------------------------------------------


def test_the_ranks_nodes(model: Path) -> None:
    """One node: there. Several: interleaved over them. Bound memory counts, else the cpus."""
    assert warmed("--numa-bind-nodes 2", model) == ["a model.bin preferred 2"]
    assert warmed("--numa-bind-nodes 0 3", model) == ["a model.bin interleave 0,3"]
    assert warmed("-n 1", model) == ["a model.bin interleave 0-3"]
    named = "--numa-bind-cpus 0-3 --numa-bind-nodes 1"
    assert warmed(named, model) == ["a model.bin preferred 1"]


def test_each_ranks_own_file(tmp_path: Path) -> None:
    """{rank} in a name: each rank's file onto its node; the same file of several over theirs."""
    for n in range(2):
        (tmp_path / f"s{n}").write_bytes(b"x")
    assert warmed("--numa-bind-nodes 3 1", f"{tmp_path}/s{{rank}}") == [
        "s0 preferred 3", "s1 preferred 1"
    ]  # fmt: skip
    assert warmed("--numa-bind-nodes 3 1", f"{tmp_path}/s{{rank*0}}") == ["s0 interleave 1,3"]
    with pytest.raises(UsageError, match="unknown name"):
        warmed("-n 2", f"{tmp_path}/s{{rang}}")


def test_a_machine_of_one_node(model: Path) -> None:
    """There is nothing to choose: files are read."""
    plan = add_files(make_plan(MACHINES["desktop"], make_asked(["-n", "2"])), [str(model)])
    assert [(f.mem, str(f.mems)) for f in plan.warm] == [("none", "")]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("nothing", "No such file or directory"), (".", "is a directory"), ("pipe", "is no regular")],
)
def test_refused_before_anything_starts(name: str, problem: str, tmp_path: Path) -> None:
    """What is no file that can be read is an error that names it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=problem) as caught:
        warmed("-n 2", tmp_path / name)
    assert caught.value.hint


def test_one_of_an_engines_ranks(model: Path) -> None:
    """Ranks that an engine has started would pull a file to and fro; their own files are fine."""
    task = Task(engine="slurm", label="Slurm", local_rank=1, local_ranks=4)
    plan = plan_for("--numa-bind-nodes 1").replace(task=task)
    with pytest.raises(UsageError, match="Slurm has started 4 ranks here"):
        add_files(plan, [str(model)])
    own = model.rename(model.parent / "shard-0")
    assert len(add_files(plan, [f"{own.parent}/shard-{{rank}}"]).warm) == 1


def test_files_of_groups_are_joined() -> None:
    """A file that several groups read is interleaved over the nodes of all."""
    files = [WarmFile("/m", 5, "preferred", CpuSet([n])) for n in (1, 3, 1)]
    assert join_files(files) == (WarmFile("/m", 5, "interleave", CpuSet([1, 3])),)


def test_json_both_ways(model: Path) -> None:
    """A saved plan has its files, with their nodes."""
    plan = add_files(plan_for("--numa-bind-nodes 2"), [str(model)])
    assert json.loads(plan.to_json())["warm"] == [
        {"file": str(model), "bytes": 3 * MIB + 5, "mem": "preferred", "mems": "2"}
    ]
    assert parse_plan(plan.to_json()).warm == plan.warm


@pytest.mark.parametrize(
    "change", [{"mem": "bind"}, {"mems": ""}, {"file": "a\0b"}, {"bytes": -1}, {"bytes": "1"}]
)
def test_a_damaged_plan(change: dict[str, object], model: Path) -> None:
    """What no planner writes is refused as it is read."""
    plan = json.loads(add_files(plan_for("--numa-bind-nodes 2"), [str(model)]).to_json())
    plan["warm"][0] |= change
    with pytest.raises(ParseError, match=r"warm\[0\]"):
        parse_plan(json.dumps(plan))


def test_show_and_its_explanation(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """show names the file and where it goes; nothing is read."""
    assert main(["show", "--explain", "--warm", str(model), "--", "true"]) == 0
    text = " ".join(capfd.readouterr().out.split())
    assert f"warm: {model}, 3.0 MiB" in text
    assert "(3.0 MiB) is read into memory before the ranks start" in text


@pytest.mark.parametrize("option", [["--topology", "examples/server.topo"], ["--format", "srun"]])
def test_not_for_others(option: list[str], model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Another machine has other files, and other tools do not read them."""
    assert main(["show", *option, "--warm", str(model), "--", "true"]) == 125
    assert "--warm" in capfd.readouterr().err


def test_coming_from_numactl(model: Path) -> None:
    """The row of the page: the file's pages go where `numactl --membind=1 cat` puts them."""
    page = Path("docs/how-to/coming-from.md").read_text()
    assert "`ompbind run --numa-bind-nodes 1 --warm model -- prog`" in page
    assert warmed("--numa-bind-nodes 1", model) == ["a model.bin preferred 1"]


# --- reading -------------------------------------------------------------------------------------


class Kernel:
    """Counts pages as a machine of several nodes would: on node 0, after being dropped on 1."""

    def __init__(self, after: dict[int, int]) -> None:
        self.dropped: list[int] = []
        self.after = after

    def count(self, root: object, fd: int, start: int, length: int) -> dict[int, int]:
        return self.after if start in self.dropped else {0: length}

    def drop(self, fd: int, start: int, length: int) -> None:
        self.dropped.append(start)


def use(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "count_nodes", kernel.count)
    monkeypatch.setattr(warm, "drop_piece", kernel.drop)


def last(file: WarmFile) -> Warmed:
    *_, result = warm_file(living_root(), file)
    return result


def test_pages_elsewhere_are_dropped_and_read_again(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; those that then are in place have moved."""
    size = model.stat().st_size
    kernel = Kernel({1: size})
    use(kernel, monkeypatch)
    result = last(WarmFile(str(model), size, "preferred", CpuSet([1])))
    assert (result.read, result.moved, result.left) == (size, size, ())
    assert kernel.dropped == [0]
    assert describe_warmed(result) == (
        "a model.bin: 3.0 MiB in memory, on node 1; 3.0 MiB were elsewhere before"
    )


def test_pages_that_stay_are_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full node, or a file system in memory: not silently."""
    size = model.stat().st_size
    use(Kernel({0: size}), monkeypatch)
    result = last(WarmFile(str(model), size, "preferred", CpuSet([1])))
    assert result.left == ((0, size),)
    assert "planned for node 1, but 3.0 MiB on node 0 stay there: node 1 may be full" in (
        explain_left(result)
    )


def test_a_file_that_somebody_maps_is_left(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process's mapping is found by the kernel's maps; nothing is dropped."""
    size = model.stat().st_size
    kernel = Kernel({1: size})
    use(kernel, monkeypatch)
    code = (
        "import mmap, sys; file = open(sys.argv[1], 'rb'); "
        "held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); print(flush=True); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(model)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        result = last(WarmFile(str(model), size, "preferred", CpuSet([1])))
    finally:
        holder.communicate(b"\n")
    assert [pid for pid, _ in result.users] == [holder.pid]
    assert kernel.dropped == []
    assert f"pid {holder.pid} (python" in explain_left(result)


def test_a_file_system_without_writing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """squashfs has no fdatasync(): its pages are dropped all the same."""

    def refuse(fd: int) -> None:
        raise OSError(22, "Invalid argument")

    dropped: list[int] = []
    monkeypatch.setattr(os, "fdatasync", refuse)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, start, size, advice: dropped.append(start))
    warm.drop_piece(5, 0, 10)
    assert dropped == [0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(19, "No such device"), "No such device"), (ValueError("is short"), "is short")],
)
@pytest.mark.parametrize("known", [0, 1])
def test_a_file_that_cannot_be_counted_is_read(
    error: Exception, reason: str, known: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without mmap(), or a file that gets shorter: said once for all pieces."""
    size, calls = model.stat().st_size, []

    def count(root: object, fd: int, start: int, length: int) -> dict[int, int]:
        calls.append(start)
        if len(calls) > known:
            raise error
        return {0: length}

    monkeypatch.setattr(warm, "PIECE", MIB)
    monkeypatch.setattr(warm, "count_nodes", count)
    monkeypatch.setattr(warm, "set_policy", lambda *_: None)
    said: list[str] = []
    (result,) = warm_files((WarmFile(str(model), size, "preferred", CpuSet([0])),), "error",
                           said.append)  # fmt: skip
    assert (result.read, result.counted, result.moved) == (size, known * MIB, 0)
    assert calls == [n * MIB for n in range(known + 1)]
    which = "not all of its pages can" if known else "its pages cannot"
    assert said == [f"--warm '{model}': {which} be counted by node: {reason}"]


def test_a_file_that_gets_shorter(model: Path) -> None:
    """Its pages cannot be mapped; that is no internal error."""
    with model.open("rb") as file:
        nodes, reason = warm.try_count(living_root(), file.fileno(), 0, 64 * MIB)
    assert nodes == {}
    assert "greater than file size" in reason


def test_what_a_shorter_file_has_is_reported(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the size that it had when it was opened, nor pieces that it has no more."""
    size = model.stat().st_size
    whole = size // MIB
    assert whole >= 3
    read = os.pread

    def pread(fd: int, count: int, at: int) -> bytes:
        if at >= MIB:
            os.truncate(model, 2 * MIB + 5)
        return read(fd, count, at)

    monkeypatch.setattr(warm, "PIECE", MIB)
    monkeypatch.setattr(os, "pread", pread)
    results = list(warm_file(living_root(), WarmFile(str(model), size, "none", CpuSet())))
    assert [result.read for result in results] == [MIB, 2 * MIB, 2 * MIB + 5]


def test_the_kernels_count(model: Path) -> None:
    """Each page of a piece is counted once, also where the name has blanks."""
    if not os.path.exists("/proc/self/numa_maps"):
        pytest.skip("this kernel has no NUMA")
    with model.open("rb") as file:
        counted = warm.count_nodes(living_root(), file.fileno(), 0, 3 * MIB + 5)
        warm.drop_piece(file.fileno(), 0, 3 * MIB + 5)
    pages = -(-(3 * MIB + 5) // mmap.PAGESIZE)
    assert sum(counted.values()) == pages * mmap.PAGESIZE


class NumaMaps:
    """A process that has one file mapped, of which numa_maps has the name so."""

    def __init__(self, name: bytes, written: bytes) -> None:
        self.name, self.written = name, written

    def resolve(self, path: str) -> str:
        return os.fsdecode(self.name)

    def read_whole(self, path: str) -> bytes:
        other = b"7e00 default file=/other mapped=9 N0=9 kernelpagesize_kB=4"
        return b"%b\n7f00 default file=%b mapped=2 N1=2 kernelpagesize_kB=4\n" % (
            other, self.written
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (b"/x_\xff", b"/x_\xff"), (b"/x_\\101x", b"/x_\\101x"), (b"/a b=c", b"/a\\040b\\075c"),
        (b"/a\nb", b"/a\\012b"), ("/ü".encode(), "/ü".encode()),
    ],
)  # fmt: skip
def test_any_name_is_found_in_numa_maps(name: bytes, written: bytes) -> None:
    """Also bytes that are no text, and a backslash, which the kernel leaves as it is."""
    root: Any = NumaMaps(name, written)
    assert read_mapped_nodes(root, 5) == {1: 8192}


@pytest.mark.parametrize("name", [b"x_\xff", b"x_\\101x", b"a b=\n\tc"])
def test_the_kernel_writes_names_so(name: bytes, tmp_path: Path) -> None:
    if not os.path.exists("/proc/self/numa_maps"):
        pytest.skip("this kernel has no NUMA")
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "w+b") as file:
        file.write(b"x" * mmap.PAGESIZE)
        file.flush()
        counted = warm.count_nodes(living_root(), file.fileno(), 0, mmap.PAGESIZE)
    assert sum(counted.values()) == mmap.PAGESIZE


def test_nodes_are_named_only_where_pages_were_counted() -> None:
    """Not by the plan alone."""
    file = WarmFile("/m", MIB, "preferred", CpuSet([1]))
    unknown = "m: 1.0 MiB in memory, on nodes that are not known"
    assert describe_warmed(Warmed(file, MIB)) == unknown
    assert describe_warmed(Warmed(file, MIB, 4096, uncounted="is short")) == unknown
    assert describe_warmed(Warmed(file, MIB, MIB)) == "m: 1.0 MiB in memory, on node 1"


def test_this_process_is_no_user_of_its_file(model: Path) -> None:
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        own, fd = os.getpid(), file.fileno()
        assert own in [pid for pid, _ in find_mappers(living_root(), fd, but=0)]
        assert find_mappers(living_root(), fd, but=own) == []


@pytest.mark.parametrize(
    ("mem", "mems", "nodes", "wrong"),
    [
        ("preferred", "1", {1: 10}, {}),
        ("preferred", "1", {0: 3, 1: 7}, {0: 3}),
        ("interleave", "0-1", {0: 40 * MIB, 1: 40 * MIB}, {}),
        ("interleave", "0-1", {0: 80 * MIB}, {0: 40 * MIB}),
        ("interleave", "0-1", {2: 5, 0: 5}, {2: 5}),
        ("none", "", {0: 9}, {}),
    ],
)
def test_what_is_misplaced(
    mem: str, mems: str, nodes: dict[int, int], wrong: dict[int, int]
) -> None:
    """On other nodes, or all on one of several."""
    file = WarmFile("/m", 1, mem, CpuSet.parse_kernel(mems))
    assert find_misplaced(nodes, file) == wrong


def test_a_denied_policy(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, or with --on-denied degrade a warning, and the file is read wherever."""

    def deny(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(warm, "set_policy", deny)
    files = (WarmFile(str(model), 5, "preferred", CpuSet([0])),)
    with pytest.raises(DeniedError, match="the kernel denies a memory policy"):
        warm_files(files, "error", lambda text: None)
    said: list[str] = []
    results = warm_files(files, "degrade", said.append)
    assert "is only read" in said[0]
    assert results[0].read == model.stat().st_size


def test_verify_names_files_that_are_far() -> None:
    """A note for a large file on other nodes than the rank's memory; none for libraries."""
    files = [("/lib/libc.so.6", 0, 2), ("/m/near", 1, 99), ("/m/far", 0, 60), ("/m/far", 1, 20)]
    memory = Memory("bind:1", mapped=tuple((path, n, size * MIB) for path, n, size in files))
    assert list(judge_files(CpuSet([1]), memory)) == [
        "60.0 MiB of the file /m/far (75% of what is mapped) is on node 0, the rank's memory on "
        "1: ompbind run --warm FILE puts it there"
    ]
    data = b"7f00 bind:1 file=/m/far mapped=5 N0=5 kernelpagesize_kB=4\n"
    assert parse_numa_maps(data).mapped == (("/m/far", 0, 20480),)


def test_a_bar_on_a_terminal_only(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Elsewhere there is a note at the end and nothing before."""
    bar = WarmingBar()
    bar.show("m", 5, 10)
    assert capsys.readouterr().err == ""
    bar.on_terminal = True
    try:
        os.get_terminal_size(2)
    except OSError:
        return
    bar.show("m", 5, 10)
    assert "[###############" in capsys.readouterr().err


def test_names_of_files_in_numa_maps() -> None:
    """Blanks are written in octal."""
    assert unescape("/a\\040b\\011c") == "/a b\tc"
    assert unescape("/a\\b") == "/a\\b"
    assert unescape("/a\\134040b") == "/a\\040b"  # a backslash, and no blank
    line = b"7f00 default file=/a\\040b mapped=3 N0=1 N2=2 kernelpagesize_kB=4"
    (region,) = parse_regions(line)
    assert (region.file, region.pages) == ("/a b", ((0, 1), (2, 2)))
