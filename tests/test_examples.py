"""The README's and the manual's commands and the examples do what is said of them.

A fenced `console` block is a shell session: its commands are run and must print what stands there.
After a comment `<!-- as on this machine -->`, cpu numbers may differ and lines come in any order.

    python -m tests.test_examples

runs them all and writes what they print into the texts, and the example machine into its file.
"""

from __future__ import annotations

import gzip
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ompbind.machine import read_machine
from ompbind.machine.saving import save_machine
from ompbind.machine.topology import Port
from tests.support.commands import OMPBIND
from tests.support.images import IMAGES, arguments_for, find_images
from tests.support.trees import NODES, Pci, Shape, make_files, make_links, make_machine, write_tree

HERE = Path(__file__).parents[1]
EXAMPLES = HERE / "examples"
TEXTS = [HERE / "README.md", *sorted((HERE / "docs").rglob("*.md"))]

# examples/server.topo: two packages, two nodes in each, two last-level caches in each.
SERVER = Shape(packages=2, nodes=4, l3s=8, cores=32, threads=2, numbering="halves")
SERVER_FILES = {
    f"{NODES}/node{node}/{name}": text
    for node, distances in enumerate(("10 12 32 32", "12 10 32 32", "32 32 10 12", "32 32 12 10"))
    for name, text in (
        ("meminfo", f"Node {node} MemTotal: {64 << 20} kB\n"),
        ("distance", f"{distances}\n"),
    )
}

# examples/gpus.topo: the same machine with two GPUs near the second node and two near the fourth,
# a network card near the third, and its management controller's display.
NEAR = [f"{8 * node}-{8 * node + 7},{8 * node + 32}-{8 * node + 39}" for node in range(4)]
GPUS = replace(
    SERVER,
    devices=(
        Pci("0000:01:00.0", "030000", 0, NEAR[0], "1a03", driver="ast"),
        Pci("0000:18:00.0", "030200", 1, NEAR[1], model="2330", driver="nvidia"),
        Pci("0000:2a:00.0", "030200", 1, NEAR[1], model="2330", driver="nvidia"),
        Pci("0000:9a:00.0", "020700", 2, NEAR[2], "15b3", names=("ib0",), driver="mlx5_core"),
        Pci("0000:ab:00.0", "030200", 3, NEAR[3], model="2330", driver="nvidia"),
        Pci("0000:ba:00.0", "030200", 3, NEAR[3], model="2330", driver="nvidia"),
    ),
)

# examples/cards.topo: the same with four GPUs and four InfiniBand cards, a pair of each below one
# PCI switch, and a slow card for the administrators.
PAIRS = (("17", 1, "mlx5_0"), ("29", 1, "mlx5_1"), ("98", 3, "mlx5_2"), ("aa", 3, "mlx5_3"))
CARDS = replace(
    SERVER,
    devices=(
        Pci("0000:02:00.0", "020000", 0, NEAR[0], "8086", driver="igb",
            ports=(Port("eth0", "net", True, 1000),)),
        *(
            Pci(f"0000:{int(bus, 16) + 1:02x}:00.0", "030200", node, NEAR[node], model="2330",
                driver="nvidia", bridges=(f"pci0000:{bus}", f"0000:{bus}:01.0"))
            for bus, node, _ in PAIRS
        ),
        *(
            Pci(f"0000:{int(bus, 16) + 2:02x}:00.0", "020700", node, NEAR[node], "15b3",
                driver="mlx5_core", bridges=(f"pci0000:{bus}", f"0000:{bus}:01.0"),
                ports=(Port(f"{name}:1", "rdma", True, 400_000),
                       Port(f"ib{name[-1]}", "net", True, 400_000)))
            for bus, node, name in PAIRS
        ),
    ),
)  # fmt: skip

# examples/cluster/n0017.topo: one of the servers, with a cpu offline and half the memory of a node.
ODD = replace(SERVER, offline="5")
ODD_FILES = SERVER_FILES | {f"{NODES}/node2/meminfo": f"Node 2 MemTotal: {32 << 20} kB\n"}

MACHINES = (
    ("server", SERVER, SERVER_FILES),
    ("gpus", GPUS, SERVER_FILES),
    ("cards", CARDS, SERVER_FILES),
    ("cluster/n0017", ODD, ODD_FILES),
)

MARK = "\x1e"  # printed between the commands of a session
BLOCK = re.compile(r"(<!-- as on this machine -->\n)?```console\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Session:
    """A block: its commands, and what each printed."""

    where: str
    here: bool  # the output is one machine's
    commands: tuple[str, ...]
    outputs: tuple[str, ...]


def parse_session(where: str, here: bool, text: str) -> Session:
    commands: list[str] = []
    outputs: list[str] = []
    goes_on = False
    for line in text.splitlines():
        if goes_on:
            commands[-1] += "\n" + line
        elif line.startswith("$ "):
            commands.append(line[2:])
            outputs.append("")
        else:
            outputs[-1] += line + "\n"
            continue
        goes_on = line.endswith("\\")
    return Session(where, here, tuple(commands), tuple(outputs))


def find_sessions(path: Path) -> list[Session]:
    text = path.read_text(encoding="utf-8")
    return [
        parse_session(f"{path.name}:{text[: m.start()].count(chr(10)) + 1}", bool(m[1]), m[2])
        for m in BLOCK.finditer(text)
    ]


def make_environment() -> dict[str, str]:
    """Ours, with this Python's `ompbind` and `python` first, and nothing that changes a plan."""
    taken = ("OMP", "KMP_", "GOMP_", "RANK", "LOCAL_", "WORLD_SIZE", "FORCE_COLOR", "TERM",
             "CUDA_", "ROCR_", "HIP_", "GPU_", "ZE_")  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(taken)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    # Other launches of this machine are no part of what a page shows.
    env["OMPBIND_NEIGHBOURS"] = "no"
    return env | {"COLUMNS": "96", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}


def run_session(session: Session) -> tuple[str, ...]:
    """What each command prints, on both streams."""
    script = f"printf '{MARK}'; ".join(command + "\n" for command in session.commands)
    # `$?` must be the command's, not printf's.
    script = script.replace(f"printf '{MARK}'; echo $?", f"s=$?; printf '{MARK}'; echo $s")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=HERE,
        env=make_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return tuple(done.stdout.decode().split(MARK))


def tidy(output: str, command: str = "") -> str:
    """Without the blanks with which tables fill their lines, and without warnings of `run`: one
    is due wherever a container has less cpu time than cpus."""
    lines = output.splitlines()
    if "ompbind run" in command:
        lines = [line for line in lines if not line.startswith("ompbind: warning: ")]
    return "".join(line.rstrip() + "\n" for line in lines)


def shape_of(output: str) -> list[str]:
    """Its distinct lines with numbers, lists of them and widths of columns made equal."""
    lines = (re.sub(r"\{?\d[\d,{}.-]*", "#", line) for line in output.splitlines())
    return sorted({re.sub(r" +", " ", line) for line in lines})


def need_cores(session: Session) -> None:
    """Skips a session for two ranks where this process may use a single core."""
    if session.here and re.search(r"-n 2\b|ranks=2", " ".join(session.commands + session.outputs)):
        done = subprocess.run(
            ["ompbind", "show", "-n", "2", "--format", "json"],
            env=make_environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode == 125:
            pytest.skip(f"two ranks do not fit on this machine: {done.stderr}")


SESSIONS = [session for path in TEXTS for session in find_sessions(path)]


@pytest.mark.parametrize("session", SESSIONS, ids=lambda s: s.where)
def test_texts(session: Session) -> None:
    """What a text shows is what its commands print."""
    need_cores(session)
    outputs = run_session(session)
    assert len(outputs) == len(session.outputs), outputs
    for command, output, told in zip(session.commands, outputs, session.outputs, strict=True):
        output = tidy(output, command)  # noqa: PLW2901
        if session.here:
            assert shape_of(output) == shape_of(told), command
        else:
            assert output == told, command


def test_readme_has_sessions() -> None:
    """The README shows something, of each kind."""
    of_readme = [s for s in SESSIONS if s.where.startswith("README")]
    assert {s.here for s in of_readme} == {True, False}
    assert all(s.commands for s in SESSIONS)


@pytest.mark.parametrize(("name", "shape", "files"), MACHINES)
def test_example_machine(name: str, shape: Shape, files: dict[str, str]) -> None:
    """The snapshots of examples/ are the machines that this module describes."""
    assert is_saved(name, shape, files)
    assert b"/tmp" not in gzip.decompress((EXAMPLES / f"{name}.topo").read_bytes())


def is_saved(name: str, shape: Shape, files: dict[str, str]) -> bool:
    found = read_machine(str(EXAMPLES / f"{name}.topo"))
    return found.to_json() == make_machine(shape, files).to_json()


# --- the examples --------------------------------------------------------------------------------

SERVER_PROGRAM = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        names = ("OMP_PLACES", "OMPBIND_RANKS")
        text = " ".join([str(os.getpid()), str([os.environ.get(n) for n in names])])
        self.wfile.write(text.encode())
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def run_example(*args: str, expect: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        args,
        cwd=HERE,
        env=make_environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == expect, done.stderr
    return done


def test_serve() -> None:
    """A server behind serve.sh has the script's own pid, its places and one rank, and a TERM sent
    to that pid ends it."""
    process = subprocess.Popen(
        [EXAMPLES / "serve.sh", sys.executable, "-c", SERVER_PROGRAM],
        env=make_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        connection = http.client.HTTPConnection(
            "127.0.0.1", int(process.stdout.readline()), timeout=30
        )
        connection.request("GET", "/")
        text = connection.getresponse().read().decode()
        connection.close()
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(process.pid))))
        assert text == f"{process.pid} ['{{{cpus}}}', '1']"
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_serve_many() -> None:
    """One server for each node named, its number in its arguments; here both share a node, and a
    word with blanks and quotes stays one word."""
    node = first_node()
    program = "import sys; sys.stdout.write(' '.join(map(repr, sys.argv[1:])) + '\\n')"
    words = ("800{rank}", "a b", "it's $HOME;")
    wrapped = run_example(
        str(EXAMPLES / "serve.sh"), sys.executable, "-c", program, *words, NODES=node
    )
    assert wrapped.stdout == "'8000' 'a b' \"it's $HOME;\"\n"


def test_serve_refusals() -> None:
    """What cannot be had is ompbind's own error, with nothing started."""
    script = str(EXAMPLES / "serve.sh")
    done = run_example(script, "echo", "started", NODES="4095", expect=125)
    assert done.stdout == ""
    assert done.stderr.startswith("ompbind: error: rank 0: node 4095 does not exist\n")
    assert run_example(script, expect=125).stderr.startswith("usage: ")


def first_node() -> str:
    nodes = read_machine(devices=False).topology.nodes_of(read_machine(devices=False).allowed.cpus)
    return str(nodes.first) if nodes else "0"


# --- make bench ----------------------------------------------------------------------------------


def test_bench(tmp_path: Path) -> None:
    """The measurements run, in their shortest form; what they find is not judged here."""
    parts = (
        "startup",
        "startup-phases",
        "planning",
        "reading",
        "trap",
        "compare",
        "spread",
        "servers",
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke", "--python", sys.executable, *parts],
        cwd=HERE,
        env=make_environment() | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for title in ("start-up", *parts[1:]):
        assert f"\n{title}" in f"\n{done.stdout}", done.stdout
    assert "python -c pass" in done.stdout
    assert not list(tmp_path.iterdir())


# --- writing the texts ---------------------------------------------------------------------------


def rewrite() -> None:
    for name, shape, files in MACHINES:
        if is_saved(name, shape, files):
            continue  # readers of today may have asked for more files, in which nothing is
        with tempfile.TemporaryDirectory() as directory:
            tree = write_tree(make_files(shape) | files, Path(directory), make_links(shape))
            save_machine(str(EXAMPLES / f"{name}.topo"), str(tree), with_name=False)
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        path.write_text(BLOCK.sub(rewritten, text), encoding="utf-8")


def rewritten(match: re.Match[str]) -> str:
    session = parse_session("", bool(match[1]), match[2])
    outputs = run_session(session)
    told = "".join(
        f"$ {command}\n{tidy(output, command)}"
        for command, output in zip(session.commands, outputs, strict=True)
    )
    return f"{match[1] or ''}```console\n{told}```"


def redraw() -> None:
    """Draw the documentation's pictures."""
    for name, image in find_images().items():
        subprocess.run([OMPBIND, *arguments_for(image, IMAGES / name)], check=True, cwd=HERE)


if __name__ == "__main__":
    rewrite()
    redraw()
