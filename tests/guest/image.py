"""What the guest boots from: a kernel and a small root (initramfs), made once from packages that
are unpacked, not installed."""

from __future__ import annotations

import fcntl
import io
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

# In the order in which they can be loaded, as far as one order fits all kernels; what a package
# lacks is built into its kernel.
MODULES = (
    *("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("netfs", "fscache", "9pnet", "9pnet_virtio", "9p", "overlay"),
)
KERNELS = ("linux-image-amd64", "linux-image-generic")  # Debian's, Ubuntu's
COMPLETE = "complete"  # written last; tools/setup-system looks for it


class GuestError(Exception):
    """The guest cannot be had, or did not do what it was asked; the message says why."""


class Image(NamedTuple):
    kernel: Path
    root: Path


def cache_directory() -> Path:
    if given := os.environ.get("OMPBIND_GUEST_CACHE"):
        return Path(given).absolute()
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME", "") + "/.cache"
    return Path(caches, "ompbind", "guest")


def find_image() -> Image:
    """Raises GuestError."""
    cache = cache_directory()
    if not (cache / COMPLETE).exists():
        raise GuestError(f"no guest kernel in {cache}; `tools/setup-system test` makes it")
    return Image(cache / "kernel", cache / "root")


def make_image() -> None:
    """Fetches the packages and fills the cache, unless that is done. Raises GuestError."""
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (cache / COMPLETE).exists():
                fill(cache)
    except OSError as e:
        raise GuestError(f"cannot make the guest's image in {cache}: {e}") from None


def fill(cache: Path) -> None:
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if not shutil.which(tool):
            raise GuestError(
                f"the guest's kernel and busybox come as Debian packages, and there is no {tool}"
            )
    names = "|".join(MODULES)
    wanted = re.compile(rf"(?:/boot/vmlinuz-[^/]*|/(?:{names})\.ko(?:\.xz|\.zst)?)$")
    files: dict[str, bytes] = {}
    for package in kernel_packages():
        files |= package_files(package, wanted)
    kernels = [name for name in files if name.startswith("vmlinuz")]
    busybox = package_files("busybox-static", re.compile(r"/bin/busybox$")).get("busybox")
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


def kernel_packages() -> list[str]:
    """The packages of the newest kernel: its image and, where they are apart, its modules."""
    for meta in KERNELS:
        listed = subprocess.run(
            ["apt-cache", "depends", "--important", meta],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = re.findall(r"Depends: (linux-(?:image|modules)-\S*\d\S*)", listed.stdout)
        if found:
            modules = [re.sub(r"linux-image(-unsigned)?-", "linux-modules-", f) for f in found]
            return found + (modules if meta == "linux-image-generic" else [])
    raise GuestError(
        f"apt knows none of the packages {', '.join(KERNELS)}: run apt-get update first"
    )


def package_files(package: str, wanted: re.Pattern[str]) -> dict[str, bytes]:
    """The files of a package whose path matches, by their names."""
    with tempfile.TemporaryDirectory(prefix="ompbind-image-") as folder:
        # As root apt-get would fetch as a user who may not write into this folder.
        fetched = subprocess.run(
            ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package],
            cwd=folder, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        archives = list(Path(folder).glob("*.deb"))
        if fetched.returncode != 0 or not archives:
            said = [line for line in fetched.stderr.splitlines() if line.startswith("E:")]
            raise GuestError(
                f"apt-get cannot download {package} ({'; '.join(said) or 'it says nothing'}): "
                "run apt-get update first, and be online"
            )
        packed = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", archives[0]], capture_output=True, check=True
        )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        return {
            member.name.rpartition("/")[2]: file.read()
            for member in tar
            if wanted.search(member.name) and (file := tar.extractfile(member))
        }


def decompress(data: bytes, ending: str) -> bytes:
    if ending == ".xz":
        return lzma.decompress(data)
    if ending == ".zst":
        if not shutil.which("zstd"):
            raise GuestError("the kernel's modules are compressed with zstd: install zstd")
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    return data


def without_xz(kernel: bytes) -> bytes:
    """The kernel proper, where it is packed with xz: unpacking that in the guest takes seconds."""
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
