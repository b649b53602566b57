"""Where the wheel is tried: releases of Debian, unpacked from their packages into a folder each and
kept in the user's cache directory, and this system with a Python that none of them has.

Nothing is installed: apt has lists, packages and state of its own, and no package's scripts run.
What these would do and matters here is done by `finish`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from tests.support.needs import REPOSITORY

MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# The releases and the Python of each. Bullseye's is too old for ompbind, which it must say.
RELEASES = {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13", "forky": "3.14"}
# Versions that no release has, run on this system itself.
OTHERS = ("3.10", "3.12")
PACKAGES = ("python3", "python3-venv", "numactl", "libgomp1", "util-linux", "coreutils", "dash",
            "bash", "libc-bin", "locales", "gzip", "ca-certificates",
            "base-files", "grep", "sed")  # fmt: skip
# No part of a release that a program reads.
UNUSED = ("doc", "man", "locale", "info", "lintian", "bug")
LATIN = "en_US.ISO-8859-1"  # a locale that is not UTF-8
NEEDED = ("apt-get", "dpkg-deb", "tar", "unshare")


class PlaceError(Exception):
    """A release cannot be had here; the message says why."""


class Place(NamedTuple):
    """`root`: the folder that is `/` there; `python`: the interpreter's path in it."""

    name: str
    version: str
    root: Path
    python: str


def cache_folder() -> Path:
    """Return where the releases are kept (OMPBIND_DISTRIBUTIONS_CACHE names another place)."""
    if given := os.environ.get("OMPBIND_DISTRIBUTIONS_CACHE"):
        return Path(given).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "ompbind", "distributions")


def wheels_folder(version: str) -> Path:
    """Return the folder of the wheels that ompbind needs under a version of Python."""
    return cache_folder() / "wheels" / version


def find_place(name: str) -> Place:
    """Return a release by its name, or this system with another Python by its version. Raises
    PlaceError where `set_up` has not made it."""
    folder = cache_folder() / name
    try:
        made = json.loads((folder / "complete").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise PlaceError(f"there is no {name} in {folder}: run make test-distributions") from None
    if name in RELEASES:
        return Place(name, RELEASES[name], folder / "root", "/usr/bin/python3")
    return Place(name, name, Path("/"), made["python"])


def set_up() -> None:
    """Make all places where they are missing, or are not what is asked for now. Raises
    PlaceError, CalledProcessError."""
    for tool in NEEDED:
        if not shutil.which(tool):
            raise PlaceError(f"the releases come as Debian packages, and there is no {tool}")
    if not Path(KEYRING).exists():
        raise PlaceError(f"there is no {KEYRING}: install debian-archive-keyring")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "lock").open("w") as lock, ThreadPoolExecutor(2) as two:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = [two.submit(set_up_release, name) for name in RELEASES]
        made += [two.submit(set_up_python, version) for version in OTHERS]
        versions = [v for v in (*RELEASES.values(), *OTHERS) if v != "3.9"]
        made += [two.submit(fetch_wheels, version) for version in versions]
        for future in made:
            future.result()


def set_up_release(name: str) -> None:
    folder = cache_folder() / name
    stamp = {"packages": PACKAGES, "recipe": read_recipe()}
    if is_complete(folder, stamp):
        return
    print(f"make: unpacking Debian's {name} (120 MB) into {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    archives = fetch_packages(name, folder / "apt")
    root = folder / "root"
    for directory in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / directory).mkdir(parents=True)
        (root / directory).symlink_to(f"usr/{directory}")
    for archive in archives:
        unpack(archive, root)
    finish(root)
    shutil.rmtree(folder / "apt")
    complete(folder, stamp)


def set_up_python(version: str) -> None:
    """Note where tools/test-pythons finds a version; it fetches those of Debian's newest suite."""
    folder = cache_folder() / version
    listed = run(str(REPOSITORY / "tools/test-pythons"), "--list", version).strip()
    path = listed.partition(": ")[2]
    if not path:
        raise PlaceError(f"there is no Python {version}, and none can be fetched: {listed}")
    real = run(path, "-c", "import sys; print(sys.executable)").strip()
    folder.mkdir(parents=True, exist_ok=True)
    complete(folder, {"python": real})


def fetch_wheels(version: str) -> None:
    """Download what the installed ompbind's metadata asks for, as wheels for a version."""
    folder = wheels_folder(version)
    wanted = [r for r in metadata.requires("ompbind") or () if "extra ==" not in r]
    stamp = {"requirements": wanted}
    if is_complete(folder, stamp):
        return
    shutil.rmtree(folder, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    only = ("--only-binary=:all:", f"--python-version={version}", "--implementation=cp")
    run(*pip, "download", *only, "--dest", str(folder), *wanted)
    complete(folder, stamp)


def fetch_packages(suite: str, state: Path) -> list[Path]:
    """Download PACKAGES with all that they depend on; return the archives."""
    for directory in ("lists/partial", "archives/partial"):
        (state / directory).mkdir(parents=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
        "Acquire::Languages": "none",
        "Acquire::Retries": 3,
        "Debug::NoLocking": 1,
        "APT::Sandbox::User": "",  # as root apt would fetch as a user who may not write here
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    run(*apt, "update")
    run(*apt, "install", "-y", "--no-install-recommends", "--download-only", *PACKAGES)
    return sorted((state / "archives").glob("*.deb"))


def unpack(archive: Path, root: Path) -> None:
    """Unpack a package below `root`, where bin, lib, sbin are links, as in every release today."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE
    ) as packed:
        command = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
        subprocess.run(command, stdin=packed.stdout, check=True)
    if packed.returncode:
        raise PlaceError(f"dpkg-deb cannot read {archive}")


def finish(root: Path) -> None:
    """Do what the packages' scripts would do: certificates, without which pip does not start, the
    linker's cache, a locale, compiled modules."""
    for name in UNUSED:
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    for name in ("proc", "sys", "dev", "tmp", "mnt"):
        (root / name).mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/mnt/home:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(c.read_bytes() for c in certificates))
    inside = ("unshare", "--user", "--map-root-user", "chroot", str(root))
    run(*inside, "/sbin/ldconfig")
    run(*inside, "localedef", "-i", "en_US", "-f", "ISO-8859-1", LATIN)
    modules = next((root / "usr/lib").glob("python3.*"))
    skipped = "/(test|idlelib|lib2to3|turtledemo)/"
    run(*inside, "python3", "-Im", "compileall", "-q", "-x", skipped, f"/usr/lib/{modules.name}")


def read_recipe() -> str:
    """Return what changes whenever this file does."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def is_complete(folder: Path, stamp: Mapping[str, object]) -> bool:
    try:
        return bool((folder / "complete").read_text(encoding="utf-8") == json.dumps(stamp))
    except OSError:
        return False


def complete(folder: Path, stamp: Mapping[str, object]) -> None:
    (folder / "complete").write_text(json.dumps(stamp), encoding="utf-8")


def run(*command: str) -> str:
    """Run a command and return what it prints. Raises PlaceError with what it says."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-5:])
        raise PlaceError(f"{' '.join(command)[:200]} exited with {done.returncode}: {last}")
    return done.stdout
