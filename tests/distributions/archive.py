"""Debian's archive: packages and sources are downloaded and unpacked, nothing is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class PlaceError(Exception):
    """A release cannot be had here; the message says why."""


class Archive:
    """A suite of Debian's archive, with lists, packages and state of its own below `state`."""

    def __init__(self, suite: str, state: Path) -> None:
        for directory in ("lists/partial", "archives/partial", "sources"):
            (state / directory).mkdir(parents=True)
        (state / "status").touch()
        lines = [
            f"{kind} [signed-by={KEYRING}] {MIRROR} {suite} main\n" for kind in ("deb", "deb-src")
        ]
        (state / "sources.list").write_text("".join(lines))
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
        self.state = state
        self.apt = ("apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items()))
        run(*self.apt, "update")

    def fetch(self, *packages: str) -> list[Path]:
        """Download packages with all that they depend on; return the archives."""
        only = ("-y", "--no-install-recommends", "--download-only")
        run(*self.apt, "install", *only, *packages)
        return sorted((self.state / "archives").glob("*.deb"))

    def fetch_sources(self, *packages: str) -> list[Path]:
        """Download the sources of packages; return what their authors have released."""
        folder = self.state / "sources"
        run(*self.apt, "source", "--download-only", *packages, cwd=folder)
        return sorted(folder.glob("*.orig.tar.?z"))


def unpack(archive: Path, root: Path) -> None:
    """Unpack a package below `root`, where bin, lib, sbin are links, as in every release today."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE
    ) as packed:
        command = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
        subprocess.run(command, stdin=packed.stdout, check=True)
    if packed.returncode:
        raise PlaceError(f"dpkg-deb cannot read {archive}")


def run(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it prints. Raises PlaceError with what it says."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        cwd=cwd, env=env,
    )  # fmt: skip
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-5:])
        raise PlaceError(f"{' '.join(command)[:200]} exited with {done.returncode}: {last}")
    return done.stdout
