"""Running ranks on systems where a process can neither fork nor become another program."""

from __future__ import annotations

import os

from ompbind.launch.rank import cannot_execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from ompbind.launch.rank import Start


def run_portably(starts: Sequence[Start]) -> int:
    """Start every rank with subprocess, wait for all, and return the first failure's status, or 0.

    Raises CommandError.
    """
    import queue
    import subprocess
    import threading

    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    workers: list[subprocess.Popen[bytes]] = []
    first_failure = 0
    try:
        for start in starts:
            env = {os.fsdecode(k): os.fsdecode(v) for k, v in start.env.items()}
            try:
                worker = subprocess.Popen(start.argv, executable=start.path, env=env)
            except OSError as e:
                raise cannot_execute(start, e.strerror or str(e)) from None
            workers.append(worker)
            threading.Thread(target=lambda w=worker: ended.put(w.wait()), daemon=True).start()
        for _ in workers:
            status = ended.get()
            if status and not first_failure:
                first_failure = status if status > 0 else 128 - status
                terminate(workers)
    except BaseException:
        terminate(workers)
        raise
    return first_failure


def terminate(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
