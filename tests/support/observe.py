"""What the kernel says about workers while they run, read from outside: who they are, and where
each of their threads and pages may be.

Only the standard library, as this runs inside the guest too.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Rank(NamedTuple):
    """A worker. `launcher`: its third ancestor, above the supervisor and who watches over it;
    `threads`: the cpus of each OpenMP thread, by thread number; `tasks`: of all its threads,
    whoever made them; `policy` and `pages` of the memory it touched, if it did."""

    rank: str
    pid: int
    parent: int
    launcher: int
    command: list[str]
    env: dict[str, str]
    threads: list[list[int]]
    places: list[int]
    tasks: list[list[int]]
    policy: str
    pages: dict[str, int]


class Launch(NamedTuple):
    """One run: the pid that the launcher had, its ranks in order, what it and they wrote."""

    pid: int
    ranks: list[Rank]
    status: int
    err: str


def launch(
    command: Sequence[str],
    *,
    ranks: int,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    start: Callable[..., Any] = subprocess.Popen,
) -> Launch:
    """Starts workers that each print "ready" and then wait for the end of their standard input,
    looks at them, and lets them end. Nothing is left over, whatever happens. ompbind's `run` is
    told to let them all read, and write as they are. `start`: what is called as Popen is."""
    command = let_all_read(command)
    with (
        tempfile.TemporaryFile("w+") as err,
        start(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            env=env,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def kill_all() -> None:
            os.killpg(process.pid, signal.SIGKILL)

        watchdog = threading.Timer(timeout, kill_all)
        watchdog.start()
        try:
            lines = read_until_ready(process.stdout, ranks)
            if lines is not None:
                seen = [look(told) for told in by_rank(lines)]
            process.stdin.close()
            status = process.wait()
        except BaseException:
            kill_all()
            raise
        finally:
            watchdog.cancel()
            watchdog.join()  # the next one may be started by a fork
        err.seek(0)
        text = err.read()
        if lines is None:
            raise AssertionError(f"{' '.join(command)}: status {status}, not ready: {text}")
        return Launch(process.pid, seen, status, text)


def let_all_read(command: Sequence[str]) -> list[str]:
    words = list(command)
    if "run" in words:
        at = words.index("run") + 1
        words[at:at] = ["--stdin", "all", "--output", "inherit"]
    return words


def read_until_ready(stream: Any, ranks: int) -> list[str] | None:
    """The lines before every rank's "ready"; None when they end earlier."""
    lines: list[str] = []
    for line in stream:
        if line == "ready\n":
            ranks -= 1
            if ranks == 0:
                return lines
        else:
            lines.append(line)
    return None


def by_rank(lines: Sequence[str]) -> list[list[dict[str, str]]]:
    """What each rank said in lines like "rank 0 pid 7 thread 0 tid 7", in the order of ranks."""
    told: dict[int, list[dict[str, str]]] = {}
    for line in lines:
        words = line.split()
        if words[:1] == ["rank"]:
            pairs = dict(zip(words[::2], words[1::2], strict=False))
            told.setdefault(int(pairs["pid"]), []).append(pairs)
    return sorted(told.values(), key=lambda pairs: pairs[0]["rank"])


def look(told: Sequence[Mapping[str, str]]) -> Rank:
    pid = int(told[0]["pid"])
    process = Path("/proc", str(pid))
    threads = sorted((t for t in told if "thread" in t), key=lambda t: int(t["thread"]))
    touched = [t["at"] for t in told if "touched" in t]
    policy, pages = read_memory(process, touched[0]) if touched else ("", {})
    parent = int(status_field(process, "PPid"))
    watcher = status_field(process.with_name(str(parent)), "PPid")
    return Rank(
        rank=told[0]["rank"],
        pid=pid,
        parent=parent,
        launcher=int(status_field(process.with_name(watcher), "PPid")),
        command=read_words(process / "cmdline"),
        env=dict(word.partition("=")[::2] for word in read_words(process / "environ")),
        threads=[mask_of(process / "task" / t["tid"]) for t in threads],
        places=[int(t["place"]) for t in threads],
        tasks=[mask_of(task) for task in sorted((process / "task").iterdir())],
        policy=policy,
        pages=pages,
    )


def read_words(path: Path) -> list[str]:
    return os.fsdecode(path.read_bytes()).split("\0")[:-1]


def status_field(task: Path, name: str) -> str:
    found = re.search(rf"^{name}:\s*(.*)$", (task / "status").read_text(), re.M)
    assert found, f"{task} has no {name}"
    return found[1]


def mask_of(task: Path) -> list[int]:
    """The cpus that a thread may use. The kernel's list counts cpus that could be there one day."""
    online = expand(Path("/sys/devices/system/cpu/online").read_text())
    return sorted(set(expand(status_field(task, "Cpus_allowed_list"))) & set(online))


def read_memory(process: Path, address: str) -> tuple[str, dict[str, int]]:
    """The policy of the mapping at an address and its pages on each node; ("", {}): no NUMA."""
    if not (process / "numa_maps").exists():
        return "", {}
    policy, details = "", ""
    lines = re.findall(
        r"^(\w+) (prefer \(many\)\S*|weighted \S+|\S+)(.*)$",
        (process / "numa_maps").read_text(),
        re.M,
    )
    for start, its_policy, its_details in lines:
        if int(start, 16) <= int(address, 16):  # it may have grown together with one before it
            policy, details = its_policy, its_details
    return policy, {node: int(pages) for node, pages in re.findall(r" N(\d+)=(\d+)", details)}


def policy_text(mem: str, mems: str, *, balancing: bool = False) -> tuple[str, ...]:
    """How the kernel may write a planned memory policy; of balancing, before 6.12, as nothing."""
    names = {
        "bind": ("bind=balancing", "bind=") if balancing else ("bind",),
        "preferred": ("prefer", "prefer (many)") if mems.isdigit() else ("prefer (many)",),
        "interleave": ("interleave",),
        "weighted-interleave": ("weighted interleave",),
        "local": ("local",),
        "none": ("default",),
    }
    return tuple(f"{name}:{mems}" if mems else name for name in names[mem])


def expand(text: str) -> list[int]:
    """0-2,8 as [0, 1, 2, 8]."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus += range(int(first), int(last or first) + 1)
    return cpus


def expected_threads(rank: Mapping[str, Any]) -> list[list[int]]:
    """Where OpenMP's rules put every thread of a rank in a plan (as `show --format json` has it).

    For counts of threads and places of which one divides the other; the rest is a runtime's own.
    """
    env = rank["env"]
    places = [expand(place) for place in rank["places"]]
    count = int(env["OMP_NUM_THREADS"])
    assert count % len(places) == 0 or len(places) % count == 0
    bind = env["OMP_PROC_BIND"]
    if bind == "false":
        return [expand(rank["cpus"])] * count
    if bind == "master":  # primary, as all runtimes know it
        return places[:1] * count
    if bind in ("close", "true") and count <= len(places):
        return places[:count]
    return [places[thread * len(places) // count] for thread in range(count)]
