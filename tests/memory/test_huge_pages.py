"""--huge-pages: what each allocator is told, what is refused, and what a process then has."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import ompbind
from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError
from ompbind.host.huge_pages import HugePages, parse_mounts, read_huge_pages
from ompbind.machine.processes import parse_huge_pages
from ompbind.memory.huge_pages import SETTINGS, add_huge_pages, is_planned
from ompbind.options import make_plan_options
from ompbind.options.commands import OPTIONS
from ompbind.plans import Plan
from ompbind.resolve import resolve_plan
from ompbind.worker.libraries import ALLOCATORS, Finder
from tests.support.commands import environment, ompbind_run
from tests.support.needs import unavailable
from tests.support.programs import compile_library
from tests.support.trees import MemoryRoot

SERVER = str(Path(__file__).parents[2] / "examples/server.topo")
ENV = {"PATH": os.environ["PATH"]}
MODE = "sys/kernel/mm/transparent_hugepage/enabled"
POOL = "sys/kernel/mm/hugepages/hugepages-2048kB"
NODE = "sys/devices/system/node/node{}/hugepages/hugepages-2048kB/free_hugepages"
MADVISE = {MODE: "always [madvise] never\n"}
RESERVED = {
    f"{POOL}/free_hugepages": "8\n", f"{POOL}/nr_overcommit_hugepages": "0\n",
    f"{POOL}/resv_hugepages": "3\n", NODE.format(0): "8\n", NODE.format(1): "0\n",
}  # fmt: skip


def plan_of(command: str = "true", **values: object) -> Plan:
    options = make_plan_options({"topology": SERVER, **values}, [command], ENV)
    return resolve_plan(options, ENV)


ON_BOTH = (CpuSet([0]), CpuSet([1]))  # rank 0 on node 0, rank 1 on node 1


def told(
    kind: str, files: dict[str, str], preload: str = "", command: str = "true", **environ: str
) -> dict[str, str]:
    """The variables that a rank gets, on a machine with these files."""
    plan = plan_of(command)
    before = dict(plan.ranks[0].env)
    environ |= ENV | ({"LD_PRELOAD": preload} if preload else {})
    made = add_huge_pages(plan, kind, environ, MemoryRoot(files))
    assert made.huge_pages == kind
    return {k: v for k, v in made.ranks[0].env if k not in before}


def test_each_allocator_is_told_in_its_words() -> None:
    """The C library's where nothing else is preloaded or needed; mimalloc under both of its
    names; what a user has set is added to, or stays."""
    assert told("thp", MADVISE) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert told("thp", MADVISE, "/x/libjemalloc.so.2") == {"MALLOC_CONF": "thp:always"}
    mimalloc = {"MIMALLOC_ALLOW_LARGE_OS_PAGES": "1", "MIMALLOC_LARGE_OS_PAGES": "1"}
    assert told("thp", MADVISE, "/x/liba.so:/x/libmimalloc.so.2") == mimalloc
    assert told("thp", {MODE: "[always] madvise never\n"}, "/x/libtcmalloc.so.4") == {}
    assert told("2M", RESERVED) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2097152"}
    assert told("2M", RESERVED, "libmimalloc.so.3") == mimalloc
    assert told("thp", MADVISE, GLIBC_TUNABLES="glibc.malloc.arena_max=2") == {
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    }
    assert told("thp", MADVISE, GLIBC_TUNABLES="glibc.malloc.hugetlb=0") == {}
    assert told("thp", MADVISE, "libmimalloc.so", MIMALLOC_LARGE_OS_PAGES="0") == {
        "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1"
    }


def test_tcmalloc_needs_a_file_system(tmp_path: Path) -> None:
    """Of pages of 2 MiB, in which it may write."""
    mount = f"none {tmp_path} hugetlbfs rw,relatime,pagesize=2M 0 0\n"
    files = {**RESERVED, "proc/self/mounts": mount}
    assert told("2M", files, "libtcmalloc.so.4") == {
        "TCMALLOC_MEMFS_MALLOC_PATH": f"{tmp_path}/ompbind"
    }
    assert (
        parse_mounts(mount.replace("pagesize=2M", "pagesize=1024M") + "x y\nproc /proc p o\n") == ()
    )


@pytest.mark.parametrize(
    ("kind", "files", "preload", "message"),
    [
        ("thp", {}, "", "transparent huge pages: this kernel has none"),
        ("thp", {MODE: "always madvise [never]\n"}, "", "this kernel has them switched off"),
        ("thp", MADVISE, "libtcmalloc.so.4", "tcmalloc does not ask for transparent"),
        ("2M", MADVISE, "", "this kernel has no pages of 2 MiB"),
        ("2M", {**RESERVED, f"{POOL}/resv_hugepages": "8"}, "", "no page of 2 MiB is reserved"),
        ("2M", RESERVED, "libtcmalloc.so.4", "tcmalloc takes reserved pages from a hugetlbfs"),
        ("2M", RESERVED, "libjemalloc.so.2", "jemalloc does not take reserved pages"),
    ],
)  # fmt: skip
def test_what_cannot_be_had(kind: str, files: dict[str, str], preload: str, message: str) -> None:
    """Refused, in one line."""
    with pytest.raises(OmpbindError) as caught:
        told(kind, files, preload)
    assert caught.value.message.startswith(f"--huge-pages {kind}: ")
    assert message in caught.value.message


def test_pages_are_on_the_ranks_nodes() -> None:
    """A rank whose memory is bound to a node without a free page is refused; one that is not bound,
    and a kernel that makes pages on demand, are not."""
    root = MemoryRoot(RESERVED)
    assert read_huge_pages(root) == HugePages(None, 5, 0, ((0, 8), (1, 0)))
    add_huge_pages(plan_of(numa_bind_nodes=(CpuSet([0]),)), "2M", ENV, root)
    with pytest.raises(
        OmpbindError, match="rank 1: no page of 2 MiB is free on node 1, to"
    ) as caught:
        add_huge_pages(plan_of(numa_bind_nodes=ON_BOTH), "2M", ENV, root)
    assert caught.value.hint.startswith("node 0 has 8; as root: echo N >/sys/devices/system/node")
    add_huge_pages(plan_of(numa_bind_nodes=ON_BOTH, mem="preferred"), "2M", ENV, root)
    on_demand = MemoryRoot({**RESERVED, f"{POOL}/nr_overcommit_hugepages": "64"})
    add_huge_pages(plan_of(numa_bind_nodes=ON_BOTH), "2M", ENV, on_demand)


def test_an_old_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2.35 it knows nothing of huge pages; musl's never does."""
    monkeypatch.setattr("ompbind.memory.huge_pages.OLDEST_GLIBC", "GLIBC_2.999")
    with pytest.raises(OmpbindError, match="the C library of 'true' is older than"):
        told("thp", MADVISE)
    monkeypatch.setattr("ompbind.memory.huge_pages.GLIBC", "libc.musl-x86_64.so.1")
    with pytest.raises(OmpbindError, match="the C library of 'true' is not GNU's"):
        told("thp", MADVISE)
    assert told("thp", MADVISE, "libjemalloc.so.2") == {"MALLOC_CONF": "thp:always"}
    assert told("thp", MADVISE, command="no-such-program")


def test_it_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In the table, in the JSON and in words; another machine's kernel is not asked."""
    words = ["show", "--topology", SERVER, "--huge-pages", "2M"]
    assert main([*words, "--explain", "--", "true"]) == 0
    out = capfd.readouterr().out
    assert "\nhuge pages: reserved, of 2 MiB\n" in out.replace(" \n", "\n")
    assert "Allocators take reserved huge pages of 2 MiB" in " ".join(out.split())
    assert main([*words, "--format", "json", "--", "true"]) == 0
    file = tmp_path / "plan.json"
    file.write_text(capfd.readouterr().out)
    assert json.loads(file.read_text())["huge_pages"] == "2M"
    # a plan keeps them for another command
    assert main(["show", "--plan", str(file), "--format", "json", "--", "ls"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["huge_pages"] == "2M"
    assert plan["ranks"][0]["env"]["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=2097152"
    assert "huge_pages" not in ompbind.plan(topology=SERVER, command=["true"]).to_dict()


def test_another_machine_s_file_system_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    """Where an allocator needs one: it is refused, and not given a file in / instead."""
    words = ["show", "--topology", SERVER, "--huge-pages", "2M", "--format", "json"]
    preload = ["--env", "LD_PRELOAD=/x/libtcmalloc.so.4"]
    assert main([*words, *preload, "--", "true"]) == 125
    error, hint = capfd.readouterr().err.splitlines()
    assert error == (
        "ompbind: error: --huge-pages 2M: tcmalloc takes reserved pages from a hugetlbfs, and "
        "where the other machine has one is not known"
    )
    setting = "TCMALLOC_MEMFS_MALLOC_PATH={}/ompbind"
    assert hint.startswith(f"hint: --env {setting.format('DIRECTORY')} says where")
    assert main([*words, *preload, "--env", setting.format("/mnt/huge"), "--", "true"]) == 0
    env = json.loads(capfd.readouterr().out)["ranks"][0]["env"]
    assert env["TCMALLOC_MEMFS_MALLOC_PATH"] == "/mnt/huge/ompbind"


def test_only_what_a_plan_sets_is_planned() -> None:
    assert is_planned("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert is_planned("MALLOC_CONF", "thp:always")
    assert not is_planned("MALLOC_CONF", "prof:true,prof_prefix:/etc/x")
    assert not is_planned("TCMALLOC_MEMFS_MALLOC_PATH", "/etc/x")
    assert not is_planned("PATH", "1")


def test_the_table_is_whole() -> None:
    """Each kind that can be asked for has a row for every allocator that has a name."""
    option = next(o for o in OPTIONS if o.key == "huge_pages")
    assert set(option.choices) == set(SETTINGS)
    assert all(set(rows) == {"", *ALLOCATORS} for rows in SETTINGS.values())


# What it allocates is large enough for every allocator to take it from the kernel at once.
CODE = """
kept = bytearray(64 << 20)
print(sum(" hg" in line for line in open("/proc/self/smaps") if line.startswith("VmFlags:")))
print(open("/proc/self/smaps_rollup").read())
"""


@pytest.mark.parametrize("name", ["", "jemalloc", "mimalloc"])
def test_in_a_process(name: str) -> None:
    """By /proc: the kernel has been asked for huge pages where the large block is, which it gives
    nobody unasked here."""
    mode = Path("/", MODE)
    if not mode.exists() or "[never]" in mode.read_text():
        unavailable("this kernel gives no transparent huge pages")
    if name and not Finder([], dict(os.environ)).find(name):
        if name == "mimalloc":
            pytest.skip("there is no mimalloc")
        unavailable(f"there is no {name}; `tools/setup-system test` installs it")
    words = ["--preload", name] if name else []
    command = [sys.executable, "-I", "-S", "-c", CODE]
    done = ompbind_run("run", *words, "--huge-pages", "thp", "--", *command, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
    count, _, rollup = done.stdout.partition("\n")
    assert int(count) > 0
    assert parse_huge_pages(rollup.encode()).reserved == 0


def test_libraries_of_a_program_count() -> None:
    """An allocator that the program is linked with is the one that is told."""
    library = compile_library("libjemalloc.so.2")
    program = compile_library(
        "uses-jemalloc", "-Wl,--no-as-needed", library, f"-Wl,-rpath,{os.path.dirname(library)}",
        source="int main(void) { return 0; }\n", kind="program",
    )  # fmt: skip
    assert told("thp", MADVISE, command=program) == {"MALLOC_CONF": "thp:always"}
