"""Snapshots: byte for byte the same machine elsewhere, nothing private, nothing that can harm."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ompbind
from ompbind.cli import main
from ompbind.errors import TopologyError
from ompbind.machine import read_machine, read_system
from ompbind.machine.saving import save_machine
from ompbind.machine.snapshot import MAX_TEXT_BYTES, parse_snapshot
from tests.support.shared_trees import machine_names, need_topologies, read_tree, unpacked
from tests.support.trees import Shape, make_files, write_tree

Capture = pytest.CaptureFixture[bytes]


@pytest.mark.parametrize("name", machine_names() or ["none"])
def test_a_real_tree_travels_unchanged(name: str, tmp_path: Path) -> None:
    """Saving a real machine and reading the file gives byte for byte the machine's own JSON."""
    need_topologies()
    tree = unpacked(name)
    if not (tree / "sys/devices/system/cpu").is_dir():
        pytest.skip("the tree holds cgroup files only: there is no topology to save")
    file = tmp_path / "saved"
    save_machine(str(file), str(tree), with_name=False)
    assert read_machine(str(file)).to_json() == read_tree(name).to_json()
    assert file.stat().st_size < 200_000


def test_this_machine_travels_unchanged(tmp_path: Path, capfdbinary: Capture) -> None:
    """The command line does the same for the machine that it runs on."""
    file = str(tmp_path / "saved")
    assert main(["topo", "--save", file]) == 0
    assert main(["topo", "--format", "json"]) == 0
    here = capfdbinary.readouterr().out
    assert main(["topo", "--topology", file, "--format", "json"]) == 0
    assert capfdbinary.readouterr().out == here


def test_a_snapshot_holds_nothing_private(tmp_path: Path) -> None:
    """No host name unless asked for, no other mounts, cgroups or process details."""
    tree = tmp_path / "tree"
    files = {
        "sys/devices/system/cpu/online": "0-1\n",
        "sys/devices/system/cpu/possible": "0-1\n",
        "proc/self/status": "Name:\tsecret-program\nCpus_allowed_list:\t0\nUid:\t4711\n",
        "proc/self/cgroup": "9:memory:/secret-pod\n3:cpuset:/visible\n0::/\n",
        "proc/self/mountinfo": "1 2 0:1 / /secret-mount rw - nfs secret-host rw\n"
        "2 2 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "proc/meminfo": "MemTotal: 1024 kB\nSecretTotal: 1 kB\n",
        "proc/sys/kernel/hostname": "secret-name\n",
    }
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    save_machine(str(tmp_path / "saved"), str(tree), with_name=False)
    assert b"secret" not in gzip.decompress((tmp_path / "saved").read_bytes()).lower()
    assert read_machine(str(tmp_path / "saved")).name == ""
    save_machine(str(tmp_path / "named"), str(tree), with_name=True)
    assert read_machine(str(tmp_path / "named")).name == "secret-name"
    assert str(read_machine(str(tmp_path / "saved")).allowed.cpus) == "0"


@pytest.fixture
def narrowed_tree(tmp_path: Path) -> Path:
    """A machine of 8 cpus, of which a container has 0-5 and the process 0-3."""
    shape = Shape(nodes=2, packages=2, cores=8)
    files = make_files(shape) | {
        "proc/self/status": "Name:\tx\nPPid:\t7\nCpus_allowed_list:\t0-3\nMems_allowed_list:\t0\n",
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 20 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/cpuset.cpus.effective": "0-5\n",
        "sys/fs/cgroup/cpuset.mems.effective": "0\n",
        "run/.containerenv": 'name="secret"\n',
    }
    write_tree(files, tmp_path / "tree")
    return tmp_path / "tree"


def test_a_snapshot_knows_what_was_narrowed(narrowed_tree: Path, tmp_path: Path) -> None:
    """Plans by it report, refuse and ignore a restriction as plans by the machine's files do."""
    file = str(tmp_path / "saved")
    save_machine(file, str(narrowed_tree), with_name=False)
    assert b"secret" not in gzip.decompress(Path(file).read_bytes())
    by_tree, by_file = (
        ompbind.plan(topology=path, environ={}) for path in (str(narrowed_tree), file)
    )
    assert by_file.to_json() == by_tree.to_json()
    assert [(i.name, i.value, i.why) for i in by_file.narrowed] == [
        ("cpuset", "0-5", "podman (--cpuset-cpus, --cpuset-mems)"),
        ("affinity mask", "0-3", "an unknown process (its files were not read)"),
        ("memory nodes", "0", "podman (--cpuset-cpus, --cpuset-mems)"),
    ]
    with pytest.raises(ompbind.PlanError, match="affinity mask is restricted to 0-3"):
        ompbind.plan(topology=file, environ={}, inherited="error")
    ignoring = ompbind.plan(topology=file, environ={}, inherited="ignore")
    assert str(ignoring.ranks[0].cpus) == "0-5"


def pack(data: object) -> bytes:
    return gzip.compress(json.dumps(data).encode(), mtime=0)


GOOD = {
    "ompbind_snapshot": 1,
    "system": "linux",
    "files": {"sys/devices/system/cpu/online": "0-3"},
    "directories": {},
    "links": {},
}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (pack(GOOD)[:-9], "truncated"),
        (b"\x1f\x8b garbage", "damaged"),
        (gzip.compress(b"[" * 200_000, mtime=0), "damaged"),
        (gzip.compress(b"not json", mtime=0), "damaged"),
        (pack([]), "not a snapshot"),
        (pack({**GOOD, "ompbind_snapshot": 2}), "newer format"),
        (pack({**GOOD, "system": "plan9"}), "plan9"),
        (pack({**GOOD, "system": 3}), "does not name a system"),
        (pack({**GOOD, "files": {"a": 1}}), "values that are not texts"),
        (pack({**GOOD, "files": []}), "files is not an object"),
        (pack({**GOOD, "directories": {"a": [1]}}), "directories"),
        (pack({**GOOD, "files": {"sys/devices/system/cpu/online": "0-99999999999"}}), "too large"),
        (pack({**GOOD, "files": {"../../etc/passwd": "x"}}), "no online cpus"),
    ],
)
def test_a_bad_snapshot_is_refused_in_one_line(data: bytes, problem: str, tmp_path: Path) -> None:
    """Truncated, foreign or absurd snapshots are refused with their reason and the file's name."""
    file = tmp_path / "bad"
    file.write_bytes(data)
    with pytest.raises(TopologyError, match=problem) as caught:
        read_machine(str(file))
    assert "\n" not in caught.value.message
    assert str(file) in caught.value.message


def test_a_bomb_is_not_unpacked() -> None:
    """A small file that unpacks to gigabytes is refused before it has."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    bomb = (
        b"".join(packer.compress(block) for _ in range(2 * MAX_TEXT_BYTES >> 20)) + packer.flush()
    )
    with pytest.raises(TopologyError, match="unpacks to more"):
        parse_snapshot(bomb)


def test_a_small_file_takes_no_gigabytes(tmp_path: Path) -> None:
    """Lists take many times the memory of their text: too many are refused before they are made."""
    text = b'{"ompbind_snapshot":1,"a":[' + b"[]," * (MAX_TEXT_BYTES // 3 - 20) + b"[]]}"
    (tmp_path / "bomb").write_bytes(gzip.compress(text, 1))
    code = (
        "import sys; from ompbind.cli import main; main(sys.argv[1:]); "
        "print(*(ln for ln in open('/proc/self/status') if ln.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "topo", "--topology", str(tmp_path / "bomb")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "more lists and objects than any machine has" in done.stderr
    # Not ru_maxrss, which the process has from the one that forked it.
    assert int(done.stdout.split()[1]) < 200 << 10  # KiB


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100])
def test_a_file_that_is_no_machine(content: bytes, tmp_path: Path) -> None:
    """Any other file is named as describing none, with what would be taken."""
    file = tmp_path / "other"
    file.write_bytes(content)
    with pytest.raises(TopologyError) as caught:
        read_machine(str(file))
    assert str(file) in caught.value.message
    assert "--save" in caught.value.hint


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    """A named pipe without a writer is an empty file, not a wait for ever."""
    import os

    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TopologyError, match="empty"):
        read_machine(str(tmp_path / "fifo"))


def test_save_refuses_what_cannot_be_written(tmp_path: Path) -> None:
    """A file in a directory that is not there is one line, from outside."""
    done = subprocess.run(
        [sys.executable, "-m", "ompbind", "topo", "--save", str(tmp_path / "no/where")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 125
    assert done.stderr.startswith("ompbind: error: --save ")
    assert "Traceback" not in done.stderr


# Texts that a reader parses, good and bad, to be thrown at every file that it looks at.
TEXTS = st.one_of(
    st.sampled_from(
        ["0-3", "0,2", "", "f", "ff,00000000", "-1", "0", "3", "65535", "9" * 5000, "0x030200",
         "Node 0 MemTotal: 10 kB", "MemTotal: " + "9" * 5000 + " kB", "10 20", "10 " + "9" * 5000,
         "max 100000", "9" * 5000 + " 1", "0::/a", "1:cpuset:/../..", "x", "\x00", "٣", "1_0"]
    ),
    st.text(max_size=12),
)  # fmt: skip
FILES = [
    *(f"sys/devices/system/cpu/{n}" for n in ("online", "possible", "isolated", "nohz_full")),
    *(f"sys/devices/system/cpu/cpu{c}/topology/{n}" for c in (0, 1) for n in
      ("core_cpus", "thread_siblings", "package_cpus", "die_cpus", "die_id", "core_id")),
    *(f"sys/devices/system/cpu/cpu{c}/cache/index3/{n}" for c in (0, 1) for n in
      ("level", "type", "shared_cpu_map")),
    *(f"sys/devices/system/cpu/cpu{c}/cpu_capacity" for c in (0, 1)),
    "sys/devices/system/node/online",
    *(f"sys/devices/system/node/node{n}/{f}" for n in (0, 1) for f in
      ("cpumap", "meminfo", "distance")),
    *(f"sys/bus/pci/devices/0000:00:01.0/{n}" for n in
      ("class", "vendor", "numa_node", "local_cpus")),
    "proc/self/status", "proc/self/cgroup", "proc/self/mountinfo", "proc/mounts", "proc/meminfo",
    "sys/fs/cgroup/a/cpu.max", "sys/fs/cgroup/a/cpuset.cpus.effective", "proc/stat",
]  # fmt: skip
MOUNTS = "2 2 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
DIRECTORIES = {
    "sys/devices/system/cpu": ["cpu0", "cpu1", "cpu٣", "cpux", "cpu99999999999"],
    "sys/bus/pci/devices": ["0000:00:01.0"],
    "sys/devices/system/cpu/cpu0/cache": ["index3", "index"],
}


@given(st.dictionaries(st.sampled_from(FILES), TEXTS), st.booleans())
def test_hostile_files_make_a_machine_or_a_refusal(files: dict[str, str], grouped: bool) -> None:
    """Whatever texts a tree or a snapshot holds, the reader ends with a machine or one line."""
    if grouped:
        files = {**files, "proc/self/mountinfo": MOUNTS, "proc/self/cgroup": "0::/a"}
    snapshot = pack({**GOOD, "files": {**GOOD["files"], **files}, "directories": DIRECTORIES})  # type: ignore[dict-item]
    try:
        system, root = parse_snapshot(snapshot)
        machine = read_system(system, root)
    except TopologyError as e:
        assert "\n" not in e.message
    else:
        assert machine.allowed.cpus <= machine.topology.online
        machine.to_json()


def test_a_directory_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said that it may not be read, not that it has no machine."""

    def deny(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("ompbind.machine.description.os.listdir", deny)
    with pytest.raises(TopologyError, match="Permission denied"):
        read_machine(str(tmp_path))
