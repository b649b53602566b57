"""What a guest boots from: a kernel, a small root (initramfs), and for another architecture the
programs that run there, made once from packages that are unpacked, not installed."""

from __future__ import annotations

import fcntl
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.guest.packages import (
    GuestError,
    download,
    download_all,
    find_own_architecture,
    make_archive,
    need_tools,
    package_files,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.guest.architectures import Architecture

# In the order in which they can be loaded, as far as one order fits all kernels; what a package
# lacks is built into its kernel.
MODULES = (
    *("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("netfs", "fscache", "9pnet", "9pnet_virtio", "9p", "overlay"),
)
KERNELS = ("linux-image-amd64", "linux-image-generic")  # Debian's, Ubuntu's
# What a guest of another architecture runs; libraries come with them.
PROGRAMS = (
    *("coreutils", "dash", "libc-bin", "libgomp1", "libpython3-stdlib", "numactl"),
    *("python3-minimal", "util-linux"),
)
COMPLETE = "complete"  # written last; tools/setup-system looks for it


class Image(NamedTuple):
    """`root`: the initramfs; `files`: the folder that is the guest's root, over which it has an
    overlay; `emulator`: the start of QEMU's command line."""

    kernel: Path
    root: Path
    files: Path
    emulator: list[str]


def cache_directory(architecture: Architecture) -> Path:
    given = os.environ.get("OMPBIND_GUEST_CACHE")
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME", "") + "/.cache"
    folder = Path(given).absolute() if given else Path(caches, "ompbind", "guest")
    return folder if architecture.is_native else folder / architecture.name


def find_image(architecture: Architecture) -> Image:
    """Raises GuestError."""
    cache = cache_directory(architecture)
    if not (cache / COMPLETE).exists():
        raise GuestError(
            f"no guest kernel in {cache}; `tools/setup-system {architecture.setup}` makes it"
        )
    files = Path("/") if architecture.is_native else cache / "files"
    emulator = [architecture.qemu]
    if architecture.emulator:
        unpacked = cache / "emulator" / "usr"
        emulator = [str(unpacked / "bin" / architecture.qemu), "-L", str(unpacked / "share/qemu")]
    return Image(cache / "kernel", cache / "root", files, emulator)


def make_image(architecture: Architecture) -> None:
    """Fetches the packages and fills the cache, unless that is done. Raises GuestError."""
    cache = cache_directory(architecture)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (cache / COMPLETE).exists():
                need_tools()
                if architecture.is_native:
                    fill(cache, kernel_packages(KERNELS, {}), {})
                else:
                    fill_foreign(cache, architecture)
    except OSError as e:
        raise GuestError(f"cannot make the guest's image in {cache}: {e}") from None


def fill(cache: Path, packages: list[str], environ: Mapping[str, str]) -> None:
    """Make the kernel and the initramfs."""
    names = "|".join(MODULES)
    wanted = re.compile(rf"(?:/boot/vmlinu[xz]-[^/]*|/(?:{names})\.ko(?:\.xz|\.zst)?)$")
    files: dict[str, bytes] = {}
    for package in packages:
        files |= package_files(package, wanted, environ)
    kernels = [name for name in files if name.startswith("vmlinu")]
    busybox = package_files("busybox-static", re.compile(r"/bin/busybox$"), environ).get("busybox")
    if not kernels or not busybox:
        raise GuestError("the kernel's or busybox's package does not hold what it should")
    root: dict[str, bytes | None] = {"bin": None, "bin/busybox": busybox, "modules": None}
    for name, data in files.items():
        stem, _, ending = name.partition(".ko")
        if stem in MODULES:
            root[f"modules/{MODULES.index(stem):02}-{stem}"] = decompress(data, ending)
    (cache / "kernel").write_bytes(without_xz(files[kernels[0]]))
    (cache / "root").write_bytes(make_cpio(root))
    (cache / COMPLETE).write_text(kernels[0] + "\n")


def fill_foreign(cache: Path, architecture: Architecture) -> None:
    """The same for another architecture, and its programs."""
    with tempfile.TemporaryDirectory(prefix="ompbind-image-") as name:
        folder = Path(name)
        environ = make_archive(folder, architecture.name, architecture.suite)
        files = cache / "files"
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir()
        for link in ("bin", "sbin", "lib", "lib64"):
            (files / "usr" / link).mkdir(parents=True)
            (files / link).symlink_to(f"usr/{link}")
        for link in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var/cache/ldconfig"):
            (files / link).mkdir(parents=True, exist_ok=True)
        (folder / "programs").mkdir()
        for package in download_all(PROGRAMS, folder / "programs", environ):
            unpack(package, files)
        compile_library(files)
        if architecture.emulator:
            fetch_emulator(cache / "emulator", architecture)
        fill(cache, kernel_packages([architecture.package], environ), environ)


def fetch_emulator(emulator: Path, architecture: Architecture) -> None:
    """Unpack a newer QEMU for this machine than its release has, from that release's backports."""
    with tempfile.TemporaryDirectory(prefix="ompbind-image-") as name:
        folder = Path(name)
        environ = make_archive(folder, find_own_architecture(), "{}-backports")
        for package in architecture.emulator:
            (folder / package).mkdir()
            unpack(download(package, folder / package, environ), emulator)


def compile_library(files: Path) -> None:
    """Make the bytecode of the guest's standard library here, if there is a Python of the same
    version: in the guest it takes many times as long."""
    for library in (files / "usr/lib").glob("python3.*"):
        python = find_python(library.name)
        if python:
            subprocess.run(
                [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
                 "-x", "/(?:test|tests|idlelib|lib2to3|pydoc_data|distutils)/",
                 "-s", str(files), "-p", "/", str(library)],
                check=False, stdout=subprocess.DEVNULL,
            )  # fmt: skip


def find_python(name: str) -> str:
    """A Python of this version, which reads and writes the same bytecode; "" without."""
    ours = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    found = sys.executable if name == ours else shutil.which(name)
    if not found:
        return ""
    tried = subprocess.run([found, "-c", ""], check=False, stderr=subprocess.DEVNULL)
    return found if tried.returncode == 0 else ""


def kernel_packages(names: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The packages of the newest kernel: its image and, where they are apart, its modules."""
    for meta in names:
        listed = subprocess.run(
            ["apt-cache", "depends", "--important", meta],
            env={**os.environ, **environ}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = re.findall(r"Depends: (linux-(?:image|modules)-\S*\d\S*)", listed.stdout)
        if found:
            modules = [re.sub(r"linux-image(-unsigned)?-", "linux-modules-", f) for f in found]
            return found + (modules if meta == "linux-image-generic" else [])
    raise GuestError(f"apt knows none of the packages {', '.join(names)}: run apt-get update first")


def decompress(data: bytes, ending: str) -> bytes:
    if ending == ".xz":
        return lzma.decompress(data)
    if ending == ".zst":
        if not shutil.which("zstd"):
            raise GuestError("the kernel's modules are compressed with zstd: install zstd")
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    return data


def without_xz(kernel: bytes) -> bytes:
    """The kernel proper, where a PC's is packed with xz: that in the guest takes seconds."""
    if kernel[0x202:0x206] != b"HdrS":
        return kernel
    start = kernel.find(b"\xfd7zXZ\0")
    return kernel if start < 0 else lzma.LZMADecompressor().decompress(kernel[start:])


def make_cpio(files: dict[str, bytes | None]) -> bytes:
    """An archive as the kernel unpacks it ("newc"); None makes a folder. All is executable."""
    archive = bytearray()
    entries: list[tuple[str, bytes | None]] = [*files.items(), ("TRAILER!!!", b"")]
    for inode, (name, data) in enumerate(entries, 1):
        path, mode = name.encode() + b"\0", 0o040755 if data is None else 0o100755
        content = data or b""
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        for part in (b"070701" + b"".join(b"%08x" % f for f in fields) + path, content):
            archive += part + bytes(-len(part) % 4)
    return bytes(archive)
