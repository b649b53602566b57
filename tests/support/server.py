"""A stand-in for `vllm serve` on CPUs: its process tree, its processes' names and variables, and
the way in which it binds its workers, with completions that mean nothing.

    vllm serve MODEL [--host H] [--port P] [-tp N] [--served-model-name NAME] …

vLLM's front end starts an engine, which starts a worker for each tensor-parallel rank and puts the
worker's cpus into its environment; GNU's OpenMP, preloaded, binds the worker by them. Engine and
workers rename themselves as setproctitle does, which overwrites most of their environment.
tests/serving holds it to the real vLLM. Told to by STAND_IN_GATE=FIFO, the engine starts no worker
until somebody has written to that file: vLLM's workers come half a minute late.

Only the standard library, and little of that: it is started often.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
from _thread import allocate_lock, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

BIND = "VLLM_CPU_OMP_THREADS_BIND"
SIMULATED = "VLLM_CPU_SIM_MULTI_NUMA"
RESERVED = "VLLM_CPU_NUM_OF_RESERVED_CPU"
# What vLLM sets in the process of the front end, so that all others have it.
FIRST_SET = "VLLM_WORKER_MULTIPROC_METHOD"
GATE = "STAND_IN_GATE"
THREADS = 3  # that each engine and worker starts
REPLY = (
    '{"object": "text_completion", "model": "%s", "choices": '
    '[{"index": 0, "text": " worked on by %s", "finish_reason": "length"}]}'
)


def main(args: Sequence[str]) -> NoReturn:
    """Become one of the processes of a server."""
    if args[:1] == ["--role"]:
        role = args[1]
        if role == "tracker":
            become_tracker()
        if role == "engine":
            become_engine(int(args[2]))
        become_worker(role)
    if args[:1] != ["serve"] or len(args) < 2 or args[1].startswith("-"):
        stop("usage: vllm serve MODEL [--host H] [--port P] [-tp N] [--served-model-name NAME]", 2)
    become_front_end(args[1], list(args[2:]))


def stop(message: str, status: int) -> NoReturn:
    print(f"vllm (stand-in): {message}", file=sys.stderr, flush=True)
    os._exit(status)


# --- the front end -------------------------------------------------------------------------------


def become_front_end(model: str, args: list[str]) -> NoReturn:
    """Start the engine and answer requests until TERM or INT, with status 0 then; 1 when the
    engine has died."""
    name_process("vllm")  # not python3, whatever the script's first line is
    host = take(args, "--host") or "127.0.0.1"
    port = int(take(args, "--port") or 8000)
    workers = int(take(args, "-tp", "--tensor-parallel-size") or 1)
    name = take(args, "--served-model-name") or model
    preload = "libgomp.so.1"
    os.environ |= {
        FIRST_SET: "spawn",
        "LD_PRELOAD": " ".join(filter(None, (os.environ.get("LD_PRELOAD"), preload))),
        "LOCAL_WORLD_SIZE": str(workers),
    }
    alive, held = os.pipe()
    os.set_inheritable(held, True)  # by all: the tracker outlives them
    tracker, *_ = spawn("tracker", stdin=alive)
    engine, requests, replies = spawn("engine", str(workers))

    def finish(*signal_and_frame: object) -> NoReturn:
        for pid in (engine, tracker):
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        os._exit(0)

    signal.signal(signal.SIGTERM, finish)
    signal.signal(signal.SIGINT, finish)
    if not read_line(replies):
        stop("the engine could not be started", 1)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as vLLM, alas
        listening.bind((host, port))
        listening.listen()
        text = f"INFO:     Application startup complete: http://{host}:{listening.getsockname()[1]}"
        print(text, file=sys.stderr, flush=True)
        while True:
            ready, _, _ = select.select([listening.fileno(), replies], [], [])
            if replies in ready:  # it has closed its end
                stop("the engine has died", 1)
            connection, _ = listening.accept()
            with connection:
                answer(connection, name, requests, replies)


def take(args: list[str], *names: str) -> str:
    """Remove an option and its value from the arguments, and return the value; "" without it."""
    for at, word in enumerate(args):
        option, equals, value = word.partition("=")
        if option in names:
            taken = value if equals else "".join(args[at + 1 : at + 2])
            del args[at : at + (1 if equals else 2)]
            return taken
    return ""


def answer(connection: socket.socket, model: str, requests: int, replies: int) -> None:
    """Answer one HTTP request."""
    data = b""
    connection.settimeout(10)
    try:
        while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n")
                       if line.startswith(b"content-length:")), 0)  # fmt: skip
        while len(body) < length and (more := connection.recv(65536)):
            body += more
        status, text = "404 Not Found", "{}"
        path = head.split(b" ")[1:2]
        if path == [b"/health"]:
            status, text = "200 OK", ""
        elif path == [b"/v1/models"]:
            status, text = "200 OK", f'{{"object": "list", "data": [{{"id": "{model}"}}]}}'
        elif path == [b"/v1/completions"]:
            os.write(requests, b"work\n")
            status, text = "200 OK", REPLY % (model, read_line(replies))
        reply = text.encode()
        connection.sendall(
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(reply)}\r\n\r\n".encode()
            + reply
        )
    except OSError:
        pass  # the client has gone


# --- the other processes -------------------------------------------------------------------------


def become_tracker() -> NoReturn:
    """Wait, as multiprocessing's resource tracker, until all processes of the server have gone."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def become_engine(workers: int) -> NoReturn:
    """Start the workers and pass requests on to them."""
    set_title("VLLM::EngineCore")
    start_threads()
    if gate := os.environ.get(GATE):
        with open(gate, "rb") as file:
            file.read()
    lists = list_cpus(os.environ.get(BIND, "auto"), workers)
    children = []
    for number in range(workers):
        variables: dict[str, str] = {}
        if lists:
            cpus = lists[number]
            variables = {"OMP_NUM_THREADS": str(len(cpus)),
                         "GOMP_CPU_AFFINITY": " ".join(map(str, cpus))}  # fmt: skip
        title = f"VLLM::Worker_TP{number}" if workers > 1 else "VLLM::Worker"
        children.append(spawn(title, variables=variables))

    def finish(*signal_and_frame: object) -> NoReturn:
        for pid, _, _ in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os._exit(0)

    signal.signal(signal.SIGTERM, finish)
    signal.signal(signal.SIGINT, finish)
    for _, _, ready in children:
        if not read_line(ready):
            finish()
    os.write(1, b"ready\n")
    while read_line(0):
        for _, requests, _ in children:
            os.write(requests, b"work\n")
        os.write(1, (" ".join([read_line(replies) for _, _, replies in children]) + "\n").encode())
    while True:  # vLLM's does not notice either that the front end was killed
        signal.pause()


def become_worker(title: str) -> NoReturn:
    """Let the OpenMP runtime that is preloaded bind this process, and answer requests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    set_title(title)
    start_threads()
    os.write(1, b"ready\n")
    while read_line(0):
        os.write(1, f"{os.getpid()}\n".encode())
    while True:
        signal.pause()


def spawn(
    role: str, *args: str, stdin: int = -1, variables: Mapping[str, str] | None = None
) -> tuple[int, int, int]:
    """Start a process of the server; return its pid, where to write to it and read from it."""
    reader, requests = (stdin, -1) if stdin >= 0 else os.pipe()
    replies, writer = os.pipe()
    os.set_inheritable(reader, True)
    os.set_inheritable(writer, True)
    actions = [
        (os.POSIX_SPAWN_DUP2, reader, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_CLOSE, writer),
    ]
    # A command as long as that of multiprocessing, for the new name to fit in.
    flags = ["-I", "-S", "-c", "import runpy, sys; runpy.run_path(sys.argv.pop(1), "
             "run_name='__main__')  # spawn_main(tracker_fd=6, pipe_handle=10)"]  # fmt: skip
    command = [sys.executable, *flags, os.path.realpath(__file__), "--role", role, *args]
    env = os.environ | (variables or {})
    pid = os.posix_spawn(sys.executable, command, env, file_actions=actions)
    os.close(writer)
    os.close(reader)
    return pid, requests, replies


def read_line(fd: int) -> str:
    """Return a line without its end, "" at the end of what there is."""
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(fd, 1)
        if not more:
            return ""
        data += more
    return data.decode().strip()


def start_threads() -> None:
    """Start threads that wait for ever; they inherit this one's mask."""
    lock = allocate_lock()
    lock.acquire()
    for _ in range(THREADS):
        start_new_thread(lock.acquire, ())


# --- as vLLM's OMPProcessManager -----------------------------------------------------------------


def list_cpus(text: str, workers: int) -> list[list[int]]:
    """Return each worker's cpus; [] for `nobind`. With `auto` there must be a NUMA node for each,
    and one of each worker's cores stays free for the engine, if they have more than these."""
    if text == "nobind":
        return []
    if text != "auto":
        parts = text.split("|")
        if len(parts) != workers:
            stop(f"AssertionError: Given number of CPU id list {parts} doesn't match local world "
                 f"size {workers}.", 1)  # fmt: skip
        return [expand(part) for part in parts]
    allowed = sorted(os.sched_getaffinity(0))
    nodes = list_nodes(set(allowed))
    if os.environ.get(SIMULATED, "0") != "0":
        size = len(allowed) // workers
        nodes = [allowed[n * size : (n + 1) * size] for n in range(workers)]
    if len(nodes) < workers:
        stop(f"AssertionError: Not enough allowed NUMA nodes to bind threads of {workers} local "
             "CPUWorkers.", 1)  # fmt: skip
    lists = [last_of_cores(cpus) for cpus in nodes[:workers]]
    reserve = int(os.environ.get(RESERVED, workers))
    if sum(map(len, lists)) > reserve:
        for number in range(workers):
            share = reserve // workers + (workers - number <= reserve % workers)
            lists[number] = lists[number][: len(lists[number]) - share]
    return lists


def expand(text: str) -> list[int]:
    """0-2,8 as [0, 1, 2, 8]."""
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def list_nodes(allowed: set[int]) -> list[list[int]]:
    """Return the allowed cpus of each node that has some."""
    top = "/sys/devices/system/node"
    names = [n for n in os.listdir(top) if n[4:].isdigit()] if os.path.isdir(top) else []
    nodes = []
    for name in sorted(names, key=lambda n: int(n[4:])):
        with open(f"{top}/{name}/cpulist") as file:
            text = file.read().strip()
        if cpus := sorted(allowed & set(expand(text) if text else [])):
            nodes.append(cpus)
    return nodes or [sorted(allowed)]


def last_of_cores(cpus: list[int]) -> list[int]:
    """Return the last of each core's cpus, as vLLM takes them on x86."""
    last = {}
    for cpu in cpus:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:
                last[file.read()] = cpu
        except OSError:
            last[str(cpu)] = cpu
    return sorted(last.values())


# --- as setproctitle -----------------------------------------------------------------------------


def set_title(title: str) -> None:
    """Rename this process: write the name over its arguments, and zeros over the rest of them and
    over its environment, up to the first variable that it has itself set again."""
    libc = ctypes.CDLL(None)
    libc.setenv.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
    libc.clearenv()  # the C library's copy moves: what this process starts inherits that
    for name, value in os.environb.items():
        libc.setenv(name, value, 1)
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[48])  # arg_start and env_end of proc_pid_stat(5)
    first = int(fields[47])  # env_start
    at = ctypes.string_at(first, end - first).find(FIRST_SET.encode() + b"=")
    size = (first + at if at >= 0 else end) - start
    ctypes.memset(start, 0, size)
    ctypes.memmove(start, title.encode()[: size - 1], len(title[: size - 1]))
    name_process(title)


def name_process(name: str) -> None:
    """Set what the kernel calls this process, in up to 15 bytes."""
    pr_set_name = 15
    ctypes.CDLL(None).prctl(pr_set_name, name.encode()[:15], 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
