"""What is drawn of other people's words: no control character reaches a terminal, nothing is taken
for markup."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from ompbind.doctor.findings import Finding
from ompbind.machine.topology import Node
from ompbind.render import make_text
from ompbind.render.doctor import draw_findings
from ompbind.render.escape import escape, quote_word
from ompbind.render.machine import draw_machine
from tests.support.commands import TIMEOUT, ompbind_run
from tests.support.machines import MACHINES

EVIL = "\x1b[31m\x1b]0;PWNED\x07\x9bx\r\n\u202e[bold]:skull:[/nothing]"


def check(text: str) -> None:
    """Fail for any character that a terminal might obey."""
    assert all(c.isprintable() for line in text.split("\n") for c in line), repr(text)


def replace_texts(data: Any, keys: tuple[str, ...]) -> Any:
    """Return JSON data with every text under these keys followed by what is evil."""
    if isinstance(data, dict):
        return {
            k: v + EVIL if k in keys and isinstance(v, str) else replace_texts(v, keys)
            for k, v in data.items()
        }
    return [replace_texts(item, keys) for item in data] if isinstance(data, list) else data


def test_a_plan_is_drawn_escaped(tmp_path: Path) -> None:
    """Host, reasons, warnings, what was inherited, its command and variables."""
    env = {"FOO": EVIL}
    made = ompbind_run("show", "--env", "A=b", "--format", "json", "--", "w")
    plan = replace_texts(json.loads(made.stdout), ("name", "why", "why_shared", "places_why"))
    plan["warnings"] = plan["warning_hints"] = [EVIL]
    plan["inherited"] = plan["narrowed"] = [
        {"name": EVIL, "value": EVIL, "action": "respected", "why": EVIL}
    ]
    plan["ranks"][0]["env"] |= env
    plan["ranks"][0]["argv"] += [EVIL]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    for extra in ([], ["--explain"]):
        done = ompbind_run("show", "--plan", str(path), *extra)
        assert done.returncode == 0
        assert "PWNED" in done.stdout
        assert "[bold]:skull:" in done.stdout
        check(done.stdout + done.stderr)


def test_a_machine_is_drawn_escaped(tmp_path: Path) -> None:
    """The host's name in a snapshot."""
    path = tmp_path / "machine.gz"
    assert ompbind_run("topo", "--save", str(path)).returncode == 0
    data = json.loads(zlib.decompress(path.read_bytes(), 31))
    data["files"]["proc/sys/kernel/hostname"] = f"host{EVIL}\n"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    path.write_bytes(packer.compress(json.dumps(data).encode()) + packer.flush())
    for command in (["topo"], ["show"]):
        done = ompbind_run(*command, "--topology", str(path))
        assert done.returncode == 0
        assert "PWNED" in done.stdout
        check(done.stdout + done.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_are_drawn_escaped() -> None:
    """Any user may give a thread any name."""
    for name in ("\x1b[31mroot", "[/red]", ":skull:\r\n"):
        code = f"""
import ctypes, sys
ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0)
print(flush=True)
sys.stdin.read()
"""
        command = [sys.executable, "-c", code]
        made = ompbind_run("show", "--format", "json", "--", *command)
        env = json.loads(made.stdout)["ranks"][0]["env"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            done = ompbind_run("verify", str(child.pid))
            child.communicate(timeout=TIMEOUT)
        assert done.returncode in (0, 1), done.stderr
        assert name.split("\r")[0].lstrip("\x1b") in done.stdout
        check(done.stdout)


def test_findings_are_drawn_escaped() -> None:
    """Variables of the environment, names of programs."""
    text = make_text(draw_findings([Finding(EVIL, "note", EVIL, EVIL)]))
    assert "PWNED" in text.replace("\n", "")
    check(text)


def test_a_word_for_a_shell_has_no_control_characters() -> None:
    """Pasted, it is the same word."""
    for word in ("a b", "it's", "", "a\nb", f"{EVIL}'\\x", "\udcff\t$(x)`y`"):
        quoted = quote_word(word)
        assert quoted.isprintable()
        if quoted.startswith("$"):
            done = subprocess.run(
                ["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True
            )
            assert done.stdout == word.encode("utf-8", "surrogateescape")
        else:
            assert shlex.split(quoted) == [word]


def test_what_is_printable_stays_the_same() -> None:
    """Not even a copy is made."""
    finding = Finding("a", "note", "b × c", "d")
    assert escape(finding) is finding


def test_a_node_without_memory_is_drawn_so() -> None:
    """With cpus or without: not as 0 KiB; of unknown size, nothing is said."""
    machine = MACHINES["hungry"]
    nodes = (*machine.topology.nodes, Node(7, CpuSet(), 0), Node(8, CpuSet(), None))
    topology = machine.topology.replace(nodes=nodes, distances=())
    drawn = make_text(draw_machine(machine.replace(topology=topology)))
    assert drawn.count("no memory") == 2
    assert "node 7  no memory, no cpus" in drawn
    assert "node 8  no cpus" in drawn
    assert "0 KiB" not in drawn
