"""The installed ompbind as a command: its environment, running it, a worker that reports itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OMPBIND = str(Path(sys.executable).with_name("ompbind"))
BINDERS = ("numactl", "native")
TIMEOUT = 120  # seconds; a busy machine takes long

# What would change a plan, or what is asked of a terminal.
UNSET = ("OMP_", "KMP_", "GOMP_", "OMPBIND_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "_OMPBIND",
         "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "PYTHON", "LINES")  # fmt: skip

# A worker that writes what it is and was given to the file named by its first argument; ranks add
# .0, .1…
REPORT = r"""
import json, os, sys
status = open("/proc/self/status").read().splitlines()
status = dict(line.split(":", 1) for line in status if ":" in line)
told = {
    "argv": [os.fsencode(a).hex() for a in sys.argv[2:]],
    "env": {os.fsencode(k).hex(): os.fsencode(v).hex() for k, v in os.environ.items()},
    "pid": os.getpid(),
    "parent": os.getppid(),
    "cpus": status["Cpus_allowed_list"].strip(),
    "ignored": int(status["SigIgn"], 16),
    "blocked": int(status["SigBlk"], 16),
    "fds": sorted(int(n) for n in os.listdir("/proc/self/fd")),
    "cwd": os.getcwd(),
}
path = sys.argv[1] + "." + os.environ.get("OMPBIND_RANK", "none")
with open(path + ".part", "w") as file:
    json.dump(told, file)
os.rename(path + ".part", path)
"""


def environment(**changes: str) -> dict[str, str]:
    """This process' environment without what would change a plan, and with `changes`."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(UNSET)}
    return env | {"OMPBIND_NEIGHBOURS": "no"} | changes


def ompbind_run(
    *args: str | bytes,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    under: Sequence[str] = (),
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Runs the installed ompbind to its end; `under`: what it is started by, with arguments."""
    done = subprocess.run(
        [*under, OMPBIND, *args],
        env=environment() if env is None else env,
        cwd=cwd,
        input=stdin.encode(),
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )  # not as text: that would turn \r\n into \n
    out, err = os.fsdecode(done.stdout), os.fsdecode(done.stderr)
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def report_command(tmp_path: Path) -> list[str]:
    """The worker that reports; its own arguments may follow."""
    script = tmp_path / "report.py"
    script.write_text(REPORT)
    return [sys.executable, "-I", "-S", str(script), str(tmp_path / "report")]


def read_report(tmp_path: Path, rank: int | str = 0) -> dict[str, Any]:
    """What a rank of it wrote, its bytes decoded."""
    told: dict[str, Any] = json.loads((tmp_path / f"report.{rank}").read_text())
    told["argv"] = [bytes.fromhex(a) for a in told["argv"]]
    told["env"] = {
        os.fsdecode(bytes.fromhex(k)): os.fsdecode(bytes.fromhex(v)) for k, v in told["env"].items()
    }
    return told


def error(message: str, hint: str = "") -> str:
    """Standard error of a refusal, complete."""
    return f"ompbind: error: {message}\n" + (f"hint: {hint}\n" if hint else "")
