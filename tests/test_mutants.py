"""What the mutation run (`make mutants`) changes, and that it knows the tests it runs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mutants.__main__ import TESTS, choose, files_about, find_modules
from tests.mutants.mutations import find_mutations
from tests.mutants.plugin import take_over
from tests.mutants.tree import ROOT

SOURCE = '''"""Text with a number, 1."""
def f(a: "int", b=True):
    """So 2 says nothing."""
    if a < 1 and b:
        raise ValueError("3", 3)
    g(a)
    return f"{a + 1}"
'''
CHANGES = [
    "True -> False",
    "a < 1 and b -> False",
    "a < 1 and b -> True",
    "a < 1 and b -> (a < 1 or b)",
    "a < 1 and b -> (b)",
    "a < 1 and b -> (a < 1)",
    "a < 1 -> (a <= 1)",
    "1 -> 2",
    "1 -> 0",
    'raise ValueError("3", 3) -> pass',
    "g(a) -> pass",
    'return f"{a + 1}" -> return None',
]


def test_changes_of_behaviour_only() -> None:
    """Each kind where it stands; not docstrings, annotations, or what messages say."""
    assert sorted(m.change for m in find_mutations("m", SOURCE.encode())) == sorted(CHANGES)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = a not in ('ä', b)", ["x = (a in ('ä', b))", "x = a not in ('ä?', b)"]),
        ("for a in b:\n    continue", ["for a in b:\n    break", "for a in b:\n    pass"]),
        ("x = 'é' + -y", ["x = ('é' - -y)", "x = 'é' + (y)"]),
        ("x.y = 'ü'; x[0] = a", ["pass; x[0] = a", "x.y = 'ü'; pass", "x.y = 'ü'; x[1] = a"]),
        ("x = min(y, key=z)", ["x = max(y, key=z)", "x = min(y)"]),
        ("x = zip(y, strict=True)", []),
        ("while a:\n    break", ["while False:\n    break", "while a:\n    continue"]),
        ("x = [y for y in z if y]", ["x = [y for y in z if True]"]),
    ],
)
def test_a_change_is_made_in_its_place(before: str, after: list[str]) -> None:
    """Also behind characters of several bytes; the rest of the source stays as it is."""
    made = [m.apply(before.encode()).decode() for m in find_mutations("m", before.encode())]
    assert sorted(made) == sorted(after)


def test_a_change_is_in_the_lines_of_its_statement() -> None:
    """Not in those of the statements below it, nor only in the line where it is written; a default
    is in its function's."""
    source = """def f(a=1):
    x = [
        2,
        3]
    while a < 4 and (
        b):
        g(
            a)
    try:
        g(a)
    except (A if b else C):
        pass
"""
    lines = {m.change: m.lines for m in find_mutations("m", source.encode())}
    assert lines["1 -> 2"] == (1, 12)
    assert lines["3 -> 4"] == (2, 4)
    assert lines["b -> False"] == (11, 11)
    assert lines["4 -> 5"] == (5, 6)
    assert lines["g( a) -> pass"] == (7, 8)
    assert lines["g(a) -> pass"] == (10, 10)


def test_lines_are_noted_also_in_forks(tmp_path: Path) -> None:
    """Of the files in the folder alone, each once."""
    noted, module = tmp_path / "noted", tmp_path / "code" / "noted_module.py"
    module.parent.mkdir()
    module.write_text(NOTED)
    noted.touch()
    command = (
        f"import os, sys; sys.path[:0] = [{str(ROOT)!r}, {str(module.parent)!r}]\n"
        "import noted_module; from tests.mutants import lines\n"
        f"lines.start({str(module.parent)!r}, {str(noted)!r}, os.getpid())\n"
        "noted_module.f(1); pid = os.fork()\n"
        "if not pid: noted_module.f(0); noted_module.f(0); os._exit(0)\n"
        "os.waitpid(pid, 0); print(sorted(line for name, line in lines.seen))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", command], check=True, capture_output=True, text=True
    )
    assert result.stdout == "[1, 2, 3]\n"
    assert noted.read_text() == f"{module}\t4\n"


NOTED = """def f(a):
    if a:
        return 1
    return 2
"""


def test_every_change_is_one() -> None:
    """In all modules: it is Python, another program than before, and has a name of its own."""
    for module in find_modules([]):
        source = (ROOT / "ompbind" / f"{module}.py").read_bytes()
        mutations = find_mutations(module, source)
        assert len({m.name for m in mutations}) == len(mutations)
        for mutation in choose(mutations, 2, seed=1):
            changed = ast.parse(mutation.apply(source))
            assert ast.dump(changed) != ast.dump(ast.parse(source)), mutation.name


def test_modules_and_tests_are_there() -> None:
    """Every package of the table is one; each of its tests is a file."""
    assert {module.split("/")[0] for module in find_modules([])} == set(TESTS)
    for package in TESTS:
        assert all(Path(ROOT, test).exists() for test in files_about(package)), package


MODULE = """
import contextlib

def number(add=1):
    def inner():
        return add + 1
    return inner()

@contextlib.contextmanager
def held():
    yield 1

class Thing:
    @property
    def size(self):
        return 1

    @staticmethod
    def make():
        return 1

    def closed(self):
        return __class__ is Thing and 1
"""


def test_loaded_functions_take_changed_code_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions, methods, properties, what decorators wrap: also where imported by name. What
    closes over other variables than before cannot."""
    file = tmp_path / "taken_over.py"
    file.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("taken_over")
    number, held, thing = module.number, module.held, module.Thing()
    file.write_text(MODULE.replace("1", "10"))
    undo: list[Callable[[], None]] = []
    assert take_over(module, undo)
    with held() as value:
        assert [number(), value, thing.size, thing.make(), thing.closed()] == [20, 10, 10, 10, 10]
    file.write_text(MODULE.replace("__class__ is Thing and ", ""))
    assert not take_over(module, undo)
