"""The script that runs one machine's cases in the guest and prints what it saw:

    python -m tests.guest.session BOOT OMPBIND RUNTIME=WHERE...

as one JSON object. It judges nothing; tests/test_guest.py does, outside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.guest.cases import ALL
from tests.guest.cases.case import Case, Refusal
from tests.guest.rebound import rebind
from tests.guest.spoiled import spoil_all, taken_offline
from tests.guest.stopped import stop_all
from tests.support import forks
from tests.support.observe import launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RUN_LIMIT = 300  # seconds; emulated, and beside all other tests
# What a cpu's folder says in the kernel's words, which ompbind's are compared with.
CPU_FILES = (
    "topology/core_cpus_list",
    "topology/package_cpus_list",
    "topology/cluster_cpus_list",
    "cache/index2/shared_cpu_list",
    "cache/index3/shared_cpu_list",
    "cpu_capacity",
)


def main(name: str, ompbind: str, *programs: str) -> None:
    forks.load()
    boot = ALL[name]
    workers = dict(program.split("=", 1) for program in programs)
    json.dump(
        {
            "page": os.sysconf("SC_PAGE_SIZE"),
            "order": sys.byteorder,
            "kernel": os.uname().machine,
            "files": read_cpu_files(),
            "topo": capture_ompbind(ompbind, "topo", "--format", "json"),
            "lscpu": capture("lscpu", "-p=CPU,CORE,SOCKET,NODE,CACHE"),
            "numactl": capture("numactl", "--hardware"),
            "cases": {
                name: run_case(ompbind, case, workers[case.runtime], boot.binders)
                for name, case in boot.cases.items()
                if case.runtime in workers
            },
            "matrix": {
                name: run_all(ompbind, options, workers) for name, options in boot.matrix.items()
            },
            "shown": {
                f"{name} {binder}": capture_ompbind(
                    ompbind, "run", *options.split(), "--binder", binder, "--", "numactl", "--show"
                )
                for name, (options, _) in boot.shown.items()
                for binder in boot.binders
            },
            "refused": {
                name: run_refused(ompbind, refusal, workers["libgomp"])
                for name, refusal in boot.refused.items()
            },
            "spoiled": spoil_all(ompbind, workers["libgomp"], boot.spoiled),
            "rebound": rebind(ompbind, workers["libgomp"], boot.rebound) if boot.rebound else {},
            "measured": measure() if boot.measured else {},
            "stopped": stop_all(ompbind, boot.stopped),
            "scripts": {
                name: capture(
                    "env", f"OMPBIND={ompbind}", f"WHERE={workers['libgomp']}", "sh", "-c", script
                )
                for name, script in boot.scripts.items()
            },
        },
        sys.stdout,
    )


def read_cpu_files() -> dict[str, dict[str, str]]:
    """By name: the text of each cpu's file, where it has one."""
    cpus = Path("/sys/devices/system/cpu").glob("cpu[0-9]*")
    paths = [(name, cpu.name[3:], cpu / name) for cpu in sorted(cpus) for name in CPU_FILES]
    texts: dict[str, dict[str, str]] = {}
    for name, cpu, path in paths:
        if path.exists():
            texts.setdefault(name, {})[cpu] = path.read_text().strip()
    return texts


def measure() -> dict[str, Any]:
    from tests.guest import measured  # few boots need it, and it imports much

    return measured.measure()


def run_case(ompbind: str, case: Case, worker: str, binders: Sequence[str]) -> dict[str, Any]:
    """The plan as `show` prints it, and for each binder what was seen of the ranks."""
    words = [ompbind, "show", *case.options.split(), "--format", "json", "--", worker]
    with taken_offline(case.offline):
        result: dict[str, Any] = {"show": capture_ompbind(*words, cpus=case.mask)}
        for binder in binders:
            words = [ompbind, "run", *case.options.split(), "--binder", binder]
            words += ["--", worker, "--wait", "--touch", str(case.touch)]
            result[binder] = look_at(words, len(case.ranks), cpus=case.mask)
    return result


def run_refused(ompbind: str, refusal: Refusal, worker: str) -> tuple[int, str, str]:
    """The status and what was printed, on both streams."""
    words = [ompbind, "show", *refusal.options.split(), "--format", "json", "--", worker]
    if refusal.saved:
        plan = Path("/tmp/refused")
        plan.write_text(capture_ompbind(*words))
        words = [ompbind, "run", "--plan", str(plan)]
    with taken_offline(refusal.offline):
        return forks.run(words, timeout=RUN_LIMIT)


def run_all(ompbind: str, options: str, workers: Mapping[str, str]) -> dict[str, Any]:
    """The plan for two ranks as `show` prints it, and what was seen of them with each runtime."""
    words = options.split()
    result: dict[str, Any] = {"show": capture_ompbind(ompbind, "show", *words, "--format", "json")}
    for runtime, worker in workers.items():
        result[runtime] = look_at(
            [ompbind, "run", *words, "--binder", "native", "--", worker, "--wait"], 2
        )
    return result


def look_at(words: Sequence[str], ranks: int, cpus: str = "") -> dict[str, Any]:
    """A run with this mask ("": ours), as far as it got."""
    try:
        done = launch(words, ranks=ranks, timeout=RUN_LIMIT, start=partial(forks.Fork, cpus=cpus))
    except AssertionError as e:
        return {"error": str(e)}
    return done._asdict() | {"ranks": [rank._asdict() for rank in done.ranks]}


def capture_ompbind(*command: str, cpus: str = "") -> str:
    """What ompbind prints, standard error last."""
    _, out, err = forks.run(command, timeout=RUN_LIMIT, cpus=cpus)
    return out + err


def capture(*command: str) -> str:
    """What a command prints on both streams."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_LIMIT,
        check=False,
    )
    return done.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
