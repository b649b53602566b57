"""Debian's packages, downloaded and unpacked, not installed; those of another architecture or suite
with a configuration of APT's own, so that the lists of this machine stay as they are."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

FETCH_LIMIT = 900  # seconds
# What nobody reads in a guest.
LEFT_OUT = re.compile(r"usr/share/(?:doc|info|lintian|locale|man)/")
# A folder of the root that is a link into usr/, as on every Debian since 12.
MERGED = re.compile(r"(?:bin|sbin|lib|lib32|lib64)(?=/|$)")
PRIVATE = """
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::SourceList "{folder}/sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
Acquire::Languages "none";
Acquire::Retries "3";
APT::Update::Error-Mode "any";
"""


class GuestError(Exception):
    """The guest cannot be had, or did not do what it was asked; the message says why."""


def need_tools() -> None:
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if not shutil.which(tool):
            raise GuestError(f"what the guest boots comes as Debian packages: there is no {tool}")


def make_archive(folder: Path, architecture: str, suite: str) -> dict[str, str]:
    """The environment in which APT knows the packages of an architecture, from the same server as
    this machine's, of a suite; {} in its name is this machine's release."""
    address, release = find_release()
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources").write_text(f"deb {address} {suite.format(release)} main\n")
    (folder / "apt.conf").write_text(PRIVATE.format(folder=folder, architecture=architecture))
    environ = {"APT_CONFIG": str(folder / "apt.conf")}
    apt("update", environ=environ, wanted=f"the list of packages for {architecture}")
    return environ


def find_release() -> tuple[str, str]:
    """The address that this machine has its release of Debian from, and the release's name. The
    lists of updates beside it change while they are read."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ORIGIN)",
         "Created-By: Packages", "Component: main"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in listed.stdout.splitlines():
        address, release, *origin = line.split()
        if origin == ["Debian"] and "-" not in release:
            return address, release
    raise GuestError("apt has no source of Debian here, or needs `apt-get update` first")


def find_own_architecture() -> str:
    printed = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True,
                             check=False)  # fmt: skip
    return printed.stdout.strip()


def apt(*words: str, environ: Mapping[str, str], wanted: str, cwd: Path | None = None) -> None:
    # As root apt-get would fetch as a user who may not write into such a folder.
    done = subprocess.run(
        ["apt-get", "-q", "-y", "-o", "APT::Sandbox::User=root", *words],
        cwd=cwd, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False, timeout=FETCH_LIMIT,
    )  # fmt: skip
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise GuestError(
            f"apt-get cannot download {wanted} ({'; '.join(said) or 'it says nothing'}): "
            "run apt-get update first, and be online"
        )


def download(package: str, folder: Path, environ: Mapping[str, str]) -> Path:
    """The file of a package, in a folder that has no other."""
    apt("download", package, environ=environ, wanted=package, cwd=folder)
    return next(folder.glob("*.deb"))


def download_all(packages: Iterable[str], folder: Path, environ: Mapping[str, str]) -> list[Path]:
    """The files of packages and of all that they depend on."""
    (folder / "partial").mkdir()
    words = ["--download-only", "--no-install-recommends", "-o", f"Dir::Cache::Archives={folder}"]
    apt("install", *words, *packages, environ=environ, wanted=" ".join(packages))
    return sorted(folder.glob("*.deb"))


def open_package(file: Path) -> tarfile.TarFile:
    packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", file], capture_output=True, check=True)
    return tarfile.open(fileobj=io.BytesIO(packed.stdout))


def package_files(
    package: str, wanted: re.Pattern[str], environ: Mapping[str, str]
) -> dict[str, bytes]:
    """The files of a package whose path matches, by their names."""
    with tempfile.TemporaryDirectory(prefix="ompbind-image-") as folder:
        file = download(package, Path(folder), environ)
        with open_package(file) as tar:
            return {
                member.name.rpartition("/")[2]: content.read()
                for member in tar
                if wanted.search(member.name) and (content := tar.extractfile(member))
            }


def unpack(file: Path, root: Path) -> None:
    """A package's files, links and folders below a root; nobody's rights but to read."""
    with open_package(file) as tar:
        for member in tar:
            name = merge(member.name)
            path = root / name
            if LEFT_OUT.match(name) or not name:
                continue
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if member.issym():
                path.symlink_to(member.linkname)
            elif member.islnk():
                path.hardlink_to(root / merge(member.linkname))
            elif content := tar.extractfile(member):
                path.write_bytes(content.read())
                path.chmod(0o755 if member.mode & 0o100 else 0o644)


def merge(name: str) -> str:
    """A path in a package as one below the root, without links."""
    plain = os.path.normpath(name).strip("/.")
    return f"usr/{plain}" if MERGED.match(plain) else plain
