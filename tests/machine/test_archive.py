"""Archives of a machine's files: read as the directory is, and nothing in them does harm."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ompbind.cli import main
from ompbind.errors import TopologyError
from ompbind.machine import archive, read_machine
from ompbind.machine.archive import ArchiveRoot, parse_archive
from tests.support.shared_trees import machine_names, need_topologies, read_tree, topologies
from tests.support.trees import Shape, make_files

# Small ones, with links in their files, cgroups and devices.
NAMES = [n for n in machine_names() if n in (
    "16amd64-8n2c-cpusets", "32amd64-4s2n4c-cgroup2", "fakememinitiators-1np2c+1npp+gi",
    "s390-lpar",
)]  # fmt: skip


def pack(*members: tuple[str, bytes | str], **attributes: int) -> bytes:
    """An archive: of each member the name, and its bytes or, as a text, what a link leads to."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            if isinstance(content, str):
                info.type, info.linkname = attributes.get("type") or tarfile.SYMTYPE, content  # type: ignore[assignment]
                file.addfile(info)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return data.getvalue()


def pack_tree(top: str = "host") -> bytes:
    """An archive of a small machine's files, below a directory."""
    files = make_files(Shape(nodes=2)).items()
    return pack(*((f"{top}/{path}", text.encode()) for path, text in files))


@pytest.mark.parametrize("name", NAMES or ["none"])
def test_real_archives(name: str) -> None:
    """The archive of a real machine gives byte for byte what its directory gives."""
    need_topologies()
    path = topologies() / f"machines/{name}.tar.gz"
    assert read_machine(str(path)).to_json() == read_tree(name).to_json()


def test_hwloc_gather_topology(tmp_path: Path) -> None:
    """What hwloc gathers of this machine is read as the machine itself."""
    gather = shutil.which("hwloc-gather-topology")
    if gather is None:
        if os.environ.get("CI"):
            pytest.fail("hwloc-gather-topology is not installed")
        pytest.skip("hwloc-gather-topology (package hwloc-nox) is not installed")
    subprocess.run([gather, "--no-cpuid", str(tmp_path / "here")], check=True, capture_output=True)
    gathered, here = (
        json.loads(read_machine(path).to_json()) for path in (str(tmp_path / "here.tar.bz2"), None)
    )
    for content in (gathered, here):  # gathered of no process, and without devices
        del content["devices"], content["allowed"]
    assert gathered == here


@pytest.mark.parametrize("packer", [bytes, gzip.compress, bz2.compress])
@pytest.mark.parametrize("top", ["host", "a/b", "."])
def test_forms(packer: object, top: str, tmp_path: Path) -> None:
    """Plain, or packed with gzip or bzip2; below a directory or at the top."""
    file = tmp_path / "machine.tar"
    file.write_bytes(packer(pack_tree(top)))  # type: ignore[operator]
    whole = tmp_path / "tree"
    for path, text in make_files(Shape(nodes=2)).items():
        (whole / path).parent.mkdir(parents=True, exist_ok=True)
        (whole / path).write_text(text)
    assert read_machine(str(file)).to_json() == read_machine(str(whole)).to_json()
    saved = tmp_path / "saved"
    assert main(["topo", "--topology", str(file), "--save", str(saved)]) == 0
    assert read_machine(str(saved)).to_json() == read_machine(str(file)).to_json()


def test_links() -> None:
    """Links are followed inside the archive, at the end of a path and on its way."""
    root = parse_archive(pack(
        ("x/sys/devices/cpu0/online", b"1\n"), ("x/sys/bus/cpu/cpu0", "../../devices/cpu0"),
        ("x/sys/class/here", "../bus/cpu"), ("x/proc/mounts", "self/mounts"),
        ("x/proc/self/mounts", b"none\n"), ("x/sys/loop", "loop"), ("x/sys/a", "b"),
        ("x/sys/b", "a"), ("x/sys/nowhere", "there"),
    ))  # fmt: skip
    assert root.read("sys/bus/cpu/cpu0/online") == "1\n"
    assert root.read("sys/class/here/cpu0/online") == "1\n"
    assert root.names("sys/class/here") == ["cpu0"]
    assert root.resolve("sys/class/here/cpu0") == "sys/devices/cpu0"
    assert root.read("proc/mounts") == "none\n"
    assert root.resolve("sys/devices/cpu0") is None
    for path in ("sys/loop/x", "sys/a", "sys/nowhere", "sys/devices", "nothing"):
        assert root.read(path) is None
    assert root.names("sys/nowhere") == []


HOSTILE = [
    (pack(("../sys/x", b"1")), "'../sys/x' in the archive leads out of it"),
    (pack(("a/../../sys/x", b"1")), "'a/../../sys/x' in the archive leads out of it"),
    (pack(("/sys/x", b"1")), "'/sys/x' in the archive leads out of it"),
    (pack(("sys/x", "/etc/passwd")),
     "'sys/x' in the archive is a link that leads out of it, to '/etc/passwd'"),
    (pack(("h/sys/x", "../../../etc/passwd")),
     "'h/sys/x' in the archive is a link that leads out of it, to '../../../etc/passwd'"),
    (pack(("sys/x", "sys/y"), type=tarfile.LNKTYPE),  # type: ignore[arg-type]
     "'sys/x' in the archive is a hard link, which no machine's files are"),
    (pack(("sys/x", b""), type=tarfile.CHRTYPE),  # type: ignore[arg-type]
     "'sys/x' in the archive is a device or something like it, which no machine's files are"),
    (pack(("sys/x", b""), type=tarfile.FIFOTYPE),  # type: ignore[arg-type]
     "'sys/x' in the archive is a device or something like it, which no machine's files are"),
    (pack(("a/sys/x", b"1"), ("b/sys/x", b"1")), "the archive has several machines: 'a', 'b'"),
    (pack(("a/etc/x", b"1")), "the archive has no sys directory"),
    (gzip.compress(pack_tree())[:-200], "the archive is damaged: Compressed file ended before"),
    (bz2.compress(pack_tree())[:-200], "the archive is damaged: Compressed file ended before"),
    (bz2.compress(b"no archive" * 200), "the archive is damaged: "),
    (b"BZh9garbage", "the archive is damaged: "),
    (pack_tree()[:5000], "the archive is damaged: unexpected end of data"),
    (pack(("h/sys/" + "x" * 70_000, b"1")), "the archive has names longer than those of any file"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), HOSTILE, ids=[m[:60] for _, m in HOSTILE])
def test_hostile(data: bytes, message: str, tmp_path: Path) -> None:
    """An archive that could do harm where it is unpacked, or is damaged, is refused in one line."""
    file = tmp_path / "hostile.tar"
    file.write_bytes(data)
    with pytest.raises(TopologyError, match=re.escape(f"{file}: {message}")) as caught:
        read_machine(str(file))
    assert "\n" not in caught.value.message
    assert [p.name for p in tmp_path.iterdir()] == ["hostile.tar"]


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress])
def test_bombs(packer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that unpacks to gigabytes is refused before that, and never held whole."""
    monkeypatch.setattr(archive, "MAX_BYTES", 16 << 20)
    large = tarfile.TarInfo("h/sys/large")
    large.size = 24 << 20
    data = packer(large.tobuf() + bytes(24 << 20))  # type: ignore[operator]
    assert len(data) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(TopologyError, match="the archive unpacks to more than 16 MiB"):
            parse_archive(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MAX_MEMBERS", 3, "the archive has more than 3 files"),
        ("MAX_KEPT_BYTES", 1, "the archive has more than 0 MiB of files"),
    ],
)
def test_limits(name: str, value: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More files, or larger ones, than any machine has are refused."""
    monkeypatch.setattr(archive, name, value)
    with pytest.raises(TopologyError, match=f"^{message}$"):
        parse_archive(pack_tree())


@settings(max_examples=40)
@given(st.integers(0, 4000), st.integers(0, 255))
def test_any_damage(position: int, byte: int) -> None:
    """An archive with any byte changed is a machine's or is refused in one line."""
    data = bytearray(pack_tree())
    data[position] = byte
    try:
        root = parse_archive(bytes(data))
    except TopologyError as e:
        assert "\n" not in e.message
    else:
        assert isinstance(root, ArchiveRoot)
