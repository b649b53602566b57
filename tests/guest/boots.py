"""All boots of tests/guest/cases/, in the background of the tests, which they outlast otherwise:

    python -m tests.guest.boots FOLDER OMPBIND ARCHITECTURE/RUNTIME=WHERE...

writes a file for each into the folder as soon as it has ended. Each guest takes a cpu: two run at a
time.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.guest import guest
from tests.guest.architectures import ARCHITECTURES
from tests.guest.cases import BOOTS
from tests.guest.packages import GuestError
from tests.support.needs import REPOSITORY

START_LIMIT = 600  # seconds until the first boot begins
TIMEOUT = 1800  # seconds of one boot, with all that is run in it
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "OMP_WAIT_POLICY": "passive",  # threads that spin cost much where cpus take turns
}


def start_boots(folder: Path, ompbind: str, programs: list[str]) -> None:
    """Starts them as nobody's child, in a process group of their own; a lock tells whether
    they still run."""
    script = 'exec 3>"$0" && flock 3 && echo $$ && { "$@" >&2 & }'
    command = [sys.executable, "-m", "tests.guest.boots", str(folder), ompbind, *programs]
    with (folder / "log").open("w") as log:
        started = subprocess.run(
            ["sh", "-c", script, str(folder / "lock"), *command],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            text=True,
            check=True,
        )
    (folder / "group").write_text(started.stdout)


def running(folder: Path) -> bool:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def end_boots(folder: Path) -> None:
    """Ends those that still run, as nobody waits for them."""
    if (folder / "group").exists() and running(folder):
        os.killpg(int((folder / "group").read_text()), signal.SIGTERM)


def wait_for_boot(folder: Path, name: str) -> dict[str, Any]:
    """What a boot brought, once it has ended. Raises AssertionError when it failed."""
    path = folder / f"{name}.json"
    limit = time.monotonic() + START_LIMIT
    while not path.exists():
        if (folder / "group").exists():
            assert running(folder) or path.exists(), (folder / "log").read_text()
        else:  # the process that starts the boots may still be collecting tests
            assert time.monotonic() < limit, "nobody has started the boots"
        time.sleep(0.1)
    result: dict[str, Any] = json.loads(path.read_text())
    assert "error" not in result, result["error"]
    return result


def boot(name: str, ompbind: str, programs: list[str]) -> str:
    """One boot: the JSON that the cases printed, or an object that has only an error."""
    architecture = ARCHITECTURES[BOOTS[name].architecture]
    prefix = f"{architecture.name}/"
    workers = [p.removeprefix(prefix) for p in programs if p.startswith(prefix)]
    if architecture.is_native:
        python, variables, folders = sys.executable, {}, []
    else:
        python, variables = "python3", {"PYTHONPATH": str(REPOSITORY)}
        folders = [REPOSITORY, *{Path(worker.partition("=")[2]).parent for worker in workers}]
    try:
        outcome = guest.run(
            BOOTS[name].machine,
            [python, "-m", "tests.guest.session", name, ompbind, *workers],
            env=ENVIRONMENT | variables,
            cwd=REPOSITORY,
            timeout=TIMEOUT,
            architecture=architecture,
            folders=folders,
        )
    except GuestError as e:
        return json.dumps({"error": str(e)})
    return outcome.out if outcome.status == 0 else json.dumps({"error": outcome.err})


def main(folder: str, ompbind: str, *programs: str) -> None:
    def write(name: str) -> None:
        path = Path(folder, f"{name}.json")
        path.with_suffix(".part").write_text(boot(name, ompbind, list(programs)))
        path.with_suffix(".part").rename(path)

    runnable = {program.partition("/")[0] for program in programs}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [n for n, boot in BOOTS.items() if boot.architecture in runnable]))


if __name__ == "__main__":
    main(*sys.argv[1:])
