"""How long the commands take that are typed all day: show and topo of a large machine, help, and
what a shell asks at each TAB."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bench.measure import Contender, measure, print_table, program
from bench.reading import find_memory, make_tree_files, write_linked_tree
from bench.startup import find_ompbind
from ompbind.machine.saving import save_machine

CPUS = 512
COMPLETION = {"_OMPBIND_COMPLETE": "complete_bash", "COMP_WORDS": "ompbind\nrun\n--nu",
              "COMP_CWORD": "2"}  # fmt: skip


def bench(python: str, rounds: int) -> list[Contender]:
    """Print a table, and return its rows; the first is an empty Python."""
    ompbind = find_ompbind(python)
    base = program("python -c pass", [python, "-c", "pass"])
    with tempfile.TemporaryDirectory(prefix="ompbind-bench-", dir=find_memory()) as name:
        snapshot = str(Path(name) / "machine.topo")
        tree = write_linked_tree(make_tree_files(CPUS), Path(name) / "tree")
        save_machine(snapshot, str(tree), with_name=False)
        contenders = [base]
        for title, place in (("a snapshot", snapshot), ("its files", str(tree))):
            for command in ("show", "topo"):
                argv = [*ompbind, command, "--topology", place]
                contenders.append(program(f"{command}, {CPUS} cpus, {title}", argv))
        contenders.append(program("run --help", [*ompbind, "run", "--help"]))
        contenders.append(program("run -h", [*ompbind, "run", "-h"]))
        contenders.append(program("completion", ompbind, os.environ | COMPLETION))
        measure(contenders, rounds)
    print_table("interactive: commands that are typed all day", contenders, base)
    return contenders
