"""Where the wheel is tried: releases of Debian, unpacked from their packages into a folder each and
kept in the user's cache directory, a system with musl, and this one with a Python that no release
has.

No package's scripts run. What these would do and matters here is done by `finish`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from tests.distributions.archive import KEYRING, Archive, PlaceError, run, unpack
from tests.distributions.musl import make_musl_root
from tests.support.needs import REPOSITORY

# The releases and the Python of each. Bullseye's is too old for ompbind, which it must say.
RELEASES = {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13", "forky": "3.14"}
# Versions that no release has, run on this system itself.
OTHERS = ("3.10", "3.12")
# Alpine's kind of system: musl and busybox. No package has a Python for it: it is compiled.
MUSL = {"musl": "3.13"} if platform.machine() == "x86_64" else {}
OLD = "bullseye"
# The places where ompbind can be installed.
VERSIONS = {n: v for n, v in RELEASES.items() if n != OLD} | MUSL | {v: v for v in OTHERS}
PACKAGES = ("python3", "python3-venv", "numactl", "libgomp1", "util-linux", "coreutils", "dash",
            "bash", "libc-bin", "locales", "gzip", "ca-certificates",
            "base-files", "grep", "sed")  # fmt: skip
# No part of a release that a program reads.
UNUSED = ("doc", "man", "locale", "info", "lintian", "bug")
LATIN = "en_US.ISO-8859-1"  # a locale that is not UTF-8
NEEDED = ("apt-get", "dpkg-deb", "tar", "unshare")


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


def wheels_folder(name: str) -> Path:
    """Return the folder of the wheels that ompbind needs in a place."""
    return cache_folder() / "wheels" / name


def find_place(name: str) -> Place:
    """Return a release by its name, or this system with another Python by its version. Raises
    PlaceError where `set_up` has not made it."""
    folder = cache_folder() / name
    try:
        made = json.loads((folder / "complete").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise PlaceError(f"there is no {name} in {folder}: run make test-distributions") from None
    if version := {**RELEASES, **MUSL}.get(name):
        return Place(name, version, folder / "root", "/usr/bin/python3")
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
        made = [two.submit(set_up_release, name) for name in (*MUSL, *RELEASES)]
        made += [two.submit(set_up_python, version) for version in OTHERS]
        made += [two.submit(fetch_wheels, name, version) for name, version in VERSIONS.items()]
        for future in made:
            future.result()


def set_up_release(name: str) -> None:
    folder = cache_folder() / name
    stamp = {"packages": PACKAGES, "recipe": read_recipe()}
    if is_complete(folder, stamp):
        return
    shutil.rmtree(folder, ignore_errors=True)
    if name in MUSL:
        print(f"make: compiling Python for musl (a minute, 120 MB) into {folder}", file=sys.stderr)
        make_musl_root(Archive("trixie", folder / "apt"), folder)
        shutil.rmtree(folder / "apt")
        complete(folder, stamp)
        return
    print(f"make: unpacking Debian's {name} (120 MB) into {folder}", file=sys.stderr)
    archives = Archive(name, folder / "apt").fetch(*PACKAGES)
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


def fetch_wheels(name: str, version: str) -> None:
    """Download what the installed ompbind's metadata asks for, as wheels for a place."""
    folder = wheels_folder(name)
    wanted = [r for r in metadata.requires("ompbind") or () if "extra ==" not in r]
    stamp = {"requirements": wanted}
    if is_complete(folder, stamp):
        return
    shutil.rmtree(folder, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    only = ["--only-binary=:all:", f"--python-version={version}", "--implementation=cp"]
    if name in MUSL:
        only.append(f"--platform=musllinux_1_1_{platform.machine()}")
    run(*pip, "download", *only, "--dest", str(folder), *wanted)
    complete(folder, stamp)


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
    """Return what changes whenever the files that make places do."""
    files = [Path(__file__).with_name(f"{n}.py") for n in ("archive", "musl", "places")]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def is_complete(folder: Path, stamp: Mapping[str, object]) -> bool:
    try:
        return bool((folder / "complete").read_text(encoding="utf-8") == json.dumps(stamp))
    except OSError:
        return False


def complete(folder: Path, stamp: Mapping[str, object]) -> None:
    (folder / "complete").write_text(json.dumps(stamp), encoding="utf-8")
