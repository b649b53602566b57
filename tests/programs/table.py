"""The programs: how each is set up, what starts it, how it is asked and what it must print.

A command with ompbind in front of it stands on the program's page (tests/programs/pages.py), once
for one rank and once for two.
"""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

ENDLESS = "1000000000"  # in place of a job's number of rounds
ROUND = r"round \d+: "


class Program(NamedTuple):
    """A program. `command`: without ompbind; a job's last word is its number of rounds, each of
    which prints a line `round N: RESULT` with the same result; a server's ports begin at `port`,
    `ask` fails unless it answers well, and `result` is what its lines are like."""

    name: str
    page: str  # in docs/how-to/with/
    command: str
    library: str  # the start of the name of a file that it has loaded
    environment: str = ""  # a group of tests/programs/environments.py; "": the system has it
    prepare: tuple[str, ...] = ()  # commands that come first, with variables, from the page
    result: str = ""  # a pattern
    port: int = 0
    ask: Callable[[int], None] | None = None
    refuses_root: bool = False
    alone: tuple[tuple[str, str], ...] = ()  # variables that it needs without ompbind
    # Which of the rank's cpus its threads may use: "whole" all, "each" one for each thread,
    # "some" any
    threads: str = "whole"
    # Without ompbind: whether it has as many threads as it may use cpus ("mask") or as the machine
    # has ("machine"), or a number of its own ("fixed"); and whether it binds them, with "machine"
    # to the machine's cpus.
    counts: str = "mask"
    binds: bool | None = False  # None: sometimes
    leaves: bool = False  # without ompbind, after a TERM, some of what it has started
    # How it exits without ompbind after a TERM and an INT
    term: int = 143
    interrupt: int = 130


def get(port: int, wanted: str) -> None:
    """Ask a server for its page, which must be this."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=120) as answer:
        text = answer.read().decode()
    assert text == wanted


def talk(port: int, line: str, wanted: str) -> None:
    """Send a server a line, which it must answer with this one."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(f"{line}\r\n".encode())
        assert connection.makefile().readline().strip() == wanted


def complete(port: int, text: str, wanted: str) -> None:
    """Ask llama.cpp's server how a text goes on. Raises OSError while it has no model."""
    data = json.dumps({"prompt": text, "n_predict": len(wanted), "temperature": 0}).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/completion", data)
    with urllib.request.urlopen(asked, timeout=120) as answer:
        assert json.load(answer)["content"] == wanted


def query(port: int, text: str, wanted: str) -> None:
    """Ask PostgreSQL. Raises ConnectionError while it does not answer."""
    done = subprocess.run(
        ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-Atc", text],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if done.returncode == 2:
        raise ConnectionError(done.stderr)
    assert done.stdout.strip() == wanted, done.stderr


def compiled(runtime: str, compiler: str) -> Program:
    """A C++ program with this OpenMP runtime."""
    return Program(
        runtime,
        "cpp",
        "./pi 3",
        f"{runtime}.so",
        prepare=(f"{compiler} -O2 pi.cpp -o pi",),
        result=r"pi is 3\.1415926536",
        threads="each",
    )


PROGRAMS = (
    compiled("libgomp", "g++ -fopenmp"),
    compiled("libomp", "clang++ -fopenmp"),
    compiled("libiomp5", "clang++ -fopenmp=libiomp5 -L$INTEL -Wl,-rpath,$INTEL"),
    Program(
        "numpy-openblas",
        "numpy",
        "python product.py 3",
        "libscipy_openblas64",
        "programs",
        result=r"trace 62473\.6622",
    ),
    Program(
        "numpy-mkl",
        "numpy",
        "python product.py 3",
        "libmkl_intel_thread.so",
        "mkl",
        result=r"trace 62473\.6622",
    ),
    Program(
        "scikit-learn",
        "scikit-learn",
        "python fit.py 3",
        "libgomp",
        "programs",
        leaves=True,
        result=r"8 clusters, score 1\.000",
    ),
    Program(
        "onnxruntime",
        "onnxruntime",
        "python serve.py 8001",
        "onnxruntime_pybind11_state",
        "programs",
        prepare=("python make_model.py",),
        port=8001,
        ask=lambda port: get(port, "500.0"),
        counts="machine",
        binds=True,
    ),
    Program(
        "redis",
        "redis",
        "redis-server --port 6379 --dbfilename dump-0.rdb --set-proc-title no",
        "redis-check-rdb",
        result=r"\d+:(\w|signal-handler) .*",
        port=6379,
        ask=lambda port: talk(port, "PING", "+PONG"),
        counts="fixed",
        term=0,
        interrupt=0,
    ),
    Program(
        "postgresql",
        "postgresql",
        "postgres -D data-0 -p 5432 -k .",
        "postgres",
        prepare=("initdb -A trust -U postgres -D data-0", "initdb -A trust -U postgres -D data-1"),
        port=5432,
        ask=lambda port: query(port, "select 6 * 7", "42"),
        refuses_root=True,
        counts="fixed",
        term=0,
        interrupt=0,
    ),
    Program(
        "torch",
        "torch",
        "python infer.py 8001",
        "libtorch_cpu.so",
        "torchrun",
        port=8001,
        ask=lambda port: get(port, "0.2515"),
    ),
    Program(
        "torch-gloo",
        "torch",
        "python train.py 3",
        "libtorch_cpu.so",
        "torchrun",
        result=r"loss 1\.0000 on (1, sum of ranks 0|2, sum of ranks 1)",
        alone=(
            ("RANK", "0"),
            ("WORLD_SIZE", "1"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", "0"),
        ),
    ),
    Program(
        "openvino",
        "openvino",
        "python infer.py 8001",
        "libopenvino.so",
        "programs",
        port=8001,
        ask=lambda port: get(port, "500.0"),
        threads="some",
        binds=None,
    ),
    Program(
        "llama.cpp",
        "llama-cpp",
        "llama-server -m model.gguf --port 8001",
        "libggml-cpu",
        "llamacpp",
        prepare=("python make_model.py",),
        port=8001,
        ask=lambda port: complete(port, "a", "bcd"),
        counts="machine",
        term=0,
        interrupt=0,
    ),
    Program(
        "lightgbm",
        "boosting",
        "python light.py 3",
        "lib_lightgbm.so",
        "programs",
        result=r"20 trees, score 1\.00",
    ),
    Program(
        "xgboost",
        "boosting",
        "python extreme.py 3",
        "libxgboost.so",
        "programs",
        result=r"20 trees, score 1\.00",
    ),
)
