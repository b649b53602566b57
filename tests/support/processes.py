"""A made-up machine and its processes, as files of /proc."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ompbind.machine.roots import DirectoryRoot
from ompbind.plans import RECORD_NAME


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts by path, over those that are there."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Processes:
    """A made-up machine of eight cpus and its processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        online = path / "sys" / "devices" / "system" / "cpu" / "online"
        online.parent.mkdir(parents=True)
        online.write_text("0-7\n")
        self.root = DirectoryRoot(str(path))

    def add(
        self,
        pid: int,
        parent: int = 1,
        environ: dict[str, str] | bytes | None = None,
        *,
        masks: Sequence[str] = ("0-7",),
        state: str = "S",
        started: int = 1,
        name: str = "w",
        cgroup: str = "",
    ) -> None:
        """Write a process with a thread for each mask, the main one first. `environ`: as bytes if
        it is to be what a program has made of it."""
        data = environ if isinstance(environ, bytes) else None
        if isinstance(environ, dict):
            data = "".join(f"{k}={v}\0" for k, v in environ.items()).encode()
        folder = self.path / "proc" / str(pid)
        (folder / "task").mkdir(parents=True, exist_ok=True)
        fields = [str(n) for n in range(53)]
        fields[4], fields[22], fields[39] = str(parent), str(started), "0"
        stat = f"({name}) {state} {' '.join(fields[4:])}\n"
        for tid, mask in enumerate(masks, pid):
            task = folder / "task" / str(tid)
            task.mkdir(parents=True, exist_ok=True)
            (task / "stat").write_text(f"{tid} {stat}")
            (task / "status").write_text(f"Uid:\t0\t0\t0\t0\nCpus_allowed_list:\t{mask}\n")
            if data is not None:
                (task / "environ").write_bytes(data)
        (folder / "stat").write_text(f"{pid} {stat}")
        if data is not None:
            (folder / "environ").write_bytes(data)
        if cgroup:
            (folder / "cgroup").write_text(f"0::{cgroup}\n")

    def remove(self, *pids: int) -> None:
        """Let processes end, and nobody wait for them."""
        for pid in pids:
            shutil.rmtree(self.path / "proc" / str(pid))

    def end(self, pid: int, parent: int = 1) -> None:
        """Let a process be a zombie."""
        self.remove(pid)
        self.add(pid, parent, state="Z", masks=())

    def keep(self, supervisor: int, claims: Mapping[int, dict[str, str]]) -> None:
        """Write the record that a supervisor has of its ranks, by their pids."""
        data = "".join(
            f"{pid}\0" + "".join(f"{k}={v}\0" for k, v in claim.items()) + "\0"
            for pid, claim in claims.items()
        )
        folder = self.path / "proc" / str(supervisor) / "fd"
        folder.mkdir(exist_ok=True)
        file = self.path / str(supervisor) / f"memfd:{RECORD_NAME} (deleted)"
        file.parent.mkdir(exist_ok=True)
        file.write_text(data)
        (folder / "5").unlink(missing_ok=True)
        (folder / "5").symlink_to(file)
