"""How long a machine's description takes to read, beside other readers of the same tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from bench.measure import Contender, function, measure, print_table, program
from bench.startup import find_ompbind
from ompbind.machine import read_machine
from tests.support.trees import CPUS, Shape, make_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.topology import Level

BESIDE = Path(__file__).parents[1] / "../shared/topologies"
LAUNCH: tuple[Level, ...] = ("core", "package", "node", "l3")  # what `run` without options looks at


def make_shape(cpus: int) -> Shape:
    """A machine of so many cpus: 64 to a node, 16 to a cache, 2 to a core."""
    return Shape(
        packages=max(cpus // 256, 1),
        nodes=max(cpus // 64, 1),
        l3s=max(cpus // 16, 1),
        cores=cpus // 2,
        threads=2,
        numbering="halves",
    )


def make_tree_files(cpus: int) -> dict[str, str]:
    """With the files without which lscpu reads next to nothing."""
    info = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 1\nmodel name\t: Made up\n\n"
    return make_files(make_shape(cpus)) | {
        "proc/cpuinfo": "".join(f"processor\t: {cpu}\n{info}" for cpu in range(cpus)),
        f"{CPUS}/kernel_max": "8191\n",
    }


def write_linked_tree(files: dict[str, str], directory: Path) -> Path:
    """Writes the files below `directory`; those of the same text are one file with many names.

    That is a tenth of the time where files are slow to make, and 4,096 cpus have 100,000.
    """
    first: dict[str, str] = {}
    made = set()
    for path, text in files.items():
        place = f"{directory}/{path}"
        if (parent := os.path.dirname(place)) not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        try:
            os.link(first[text], place)
        except (KeyError, OSError):  # the first, or one more name than the file system allows
            Path(place).write_text(text)
            first[text] = place
    return directory


def bench(python: str, rounds: int, sizes: tuple[int, ...], real: int) -> None:
    """Prints a table for the synthetic trees, and one for each of so many `real` ones."""
    with tempfile.TemporaryDirectory(prefix="ompbind-bench-", dir=find_memory()) as name:
        directory = Path(name)
        trees = {n: write_linked_tree(make_tree_files(n), directory / str(n)) for n in sizes}
        base = program("python -c pass", [python, "-c", "pass"])
        contenders = [base]
        for size, tree in trees.items():
            contenders.append(
                function(f"{size:,} cpus, all there is", partial(read_machine, str(tree)))
            )
            contenders.append(
                function(
                    f"{size:,} cpus, for run",
                    partial(read_machine, str(tree), LAUNCH, devices=False),
                )
            )
        measure(contenders, rounds)
        print_table("reading: synthetic trees, in this process", contenders, base)
        bench_tree(python, f"a synthetic tree of {max(sizes):,} cpus", trees[max(sizes)], rounds)
        for title, tree in unpack_largest(directory, real):
            bench_tree(python, title, tree, rounds)


def bench_tree(python: str, title: str, tree: Path, rounds: int) -> None:
    """Whole processes that read one tree and write what they have found."""
    base = program("python -c pass", [python, "-c", "pass"])
    ompbind = find_ompbind(python)
    place = ["--topology", str(tree), "--format", "json"]
    contenders: list[Contender] = [
        base,
        program("ompbind show", [*ompbind, "show", *place]),
        program("ompbind topo", [*ompbind, "topo", *place]),
    ]
    absent = []
    lstopo = shutil.which("lstopo-no-graphics") or shutil.which("lstopo")
    if lstopo:
        argv = [lstopo, "--input", str(tree), "--input-format", "fsroot", "--of", "xml"]
        contenders.append(program("lstopo, as XML", argv))
    else:
        absent.append("lstopo")
    if lscpu := shutil.which("lscpu"):
        argv = [lscpu, "--sysroot", str(tree), "--extended", "--json"]
        contenders.append(program("lscpu, as JSON", argv))
    else:
        absent.append("lscpu")
    measure(contenders, rounds)
    print_table(f"reading: {title}, whole processes", contenders, base)
    if absent:
        print(f"\nnot installed: {', '.join(absent)}")


def find_memory() -> str | None:
    """Where files are in memory, unless TMPDIR says where they are to be; None: the usual place."""
    memory = "/dev/shm"  # noqa: S108  # a directory of our own is made in it
    return memory if os.access(memory, os.W_OK) and "TMPDIR" not in os.environ else None


def unpack_largest(directory: Path, count: int) -> list[tuple[str, Path]]:
    """The real machines with most cpus among those beside the project, if there are any;
    OMPBIND_TOPOLOGIES names another place."""
    place = Path(os.environ.get("OMPBIND_TOPOLOGIES") or BESIDE) / "machines"
    sizes = []
    for archive in place.glob("*.tar.gz") if count else ():
        name = archive.name.removesuffix(".tar.gz")
        answer = place / f"{name}.json"
        if answer.exists():
            sizes.append((len(json.loads(answer.read_text())["cpus"]), name))
    found = []
    for cpus, name in sorted(sizes, reverse=True)[:count]:
        tree = directory / name
        tree.mkdir()
        subprocess.run(["tar", "-xzf", place / f"{name}.tar.gz", "-C", tree], check=True)
        found.append((f"{name}, {cpus} cpus", tree / "fsroot"))
    return found
