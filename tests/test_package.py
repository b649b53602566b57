"""What is released: version, changelog, metadata, the manual page, the documentation inside."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path
from types import ModuleType

import pytest

import ompbind
from ompbind.options.commands import OPTIONS

ROOT = Path(__file__).parents[1]


def load_tool(name: str) -> ModuleType:
    """A script of tools/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load_tool("release")


def test_version_and_changelog_agree() -> None:
    """The version is what the changelog describes first, and it is what is installed."""
    release.check_version(ompbind.__version__, release.read_versions())
    assert release.read_version() == ompbind.__version__ == metadata.version("ompbind")


@pytest.mark.parametrize(
    ("version", "headings", "fits"),
    [
        ("1.2.0", ["1.2.0", "1.1.0"], True),
        ("1.2.0", ["1.1.0"], False),
        ("1.2.0", ["Unreleased", "1.1.0"], False),
        ("1.2.0.dev0", ["1.2.0", "1.1.0"], False),
        ("1.2.0.dev0", ["Unreleased", "1.1.0"], True),
        ("1.10.0.dev0", ["Unreleased", "1.9.0"], True),
        ("1.1.0.dev0", ["Unreleased", "1.1.0"], False),
    ],
)
def test_release_needs_a_version_of_the_changelog(
    version: str, headings: list[str], fits: bool
) -> None:
    """A version that the changelog does not describe first is no release, nor a development one."""
    if fits:
        release.check_version(version, headings)
    else:
        with pytest.raises(release.ReleaseError):
            release.check_version(version, headings)


def test_linux_needs_no_psutil() -> None:
    """What is installed asks for psutil on other systems alone: it has no wheels for some machines;
    a release whose wheel asks for it everywhere, or for anything else, is refused."""
    requirements = metadata.requires("ompbind") or []
    release.check_requirements(requirements)
    (marked,) = [r for r in requirements if r.startswith("psutil")]
    plain = [r for r in requirements if r != marked]
    with pytest.raises(release.ReleaseError, match="psutil on Linux"):
        release.check_requirements([*plain, marked.partition(";")[0]])
    with pytest.raises(release.ReleaseError, match="requires attrs"):
        release.check_requirements([*requirements, "attrs>=1"])
    with pytest.raises(release.ReleaseError, match="requires typer"):
        release.check_requirements(plain)


def test_manual_page_has_every_option() -> None:
    """Each option is in the manual page, under its names, with its values."""
    page = load_tool("make_man").make_page().replace("\\-", "-")
    for option in OPTIONS:
        for name in option.names:
            assert re.search(rf"^\\fB([^\n]*, )?{name}\b(?!-)", page, re.MULTILINE), name
        assert all(choice in page for choice in option.choices)


@pytest.mark.skipif(not shutil.which("groff"), reason="there is no groff")
def test_manual_page_is_well_formed() -> None:
    """groff formats the page without a warning, and the option names come out as typed."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou"],
        input=load_tool("make_man").make_page(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "--numa-bind-nodes NODE" in done.stdout


def test_installed_package_has_the_documentation() -> None:
    """`ompbind help` finds the pages beside the package, also where that is a working tree."""
    docs = resources.files("ompbind") / "docs"
    for page in (ROOT / "docs").glob("*/*.md"):
        if page.parent.name != "development":
            text = (docs / page.parent.name / page.name).read_text(encoding="utf-8")
            assert text == page.read_text(encoding="utf-8")


def test_classifiers_are_what_is_tested() -> None:
    """The versions of Python that are claimed are those that CI runs."""
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', read("pyproject.toml"))
    assert claimed == read_versions_tested()
    assert f'requires-python = ">={claimed[0]}"' in read("pyproject.toml")


@pytest.mark.parametrize("name", ["ompbind/__main__.py", "scripts/ompbind"])
def test_older_pythons_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Python that pip refuses is refused by the command in a clone, before anything is loaded."""
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    with pytest.raises(SystemExit) as e:
        exec(compile(read(name), name, "exec"), {"__name__": "__main__"})
    assert e.value.code == 125
    assert capsys.readouterr().err.splitlines() == [
        "ompbind: error: this is Python 3.9",
        "hint: ompbind needs Python 3.10 or newer",
    ]


def test_older_pythons_import_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program on such a Python that finds a clone is told why, not what a newer one would do."""
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    code = compile(read("ompbind/__init__.py"), "ompbind/__init__.py", "exec")
    with pytest.raises(ImportError, match=r"^ompbind needs Python 3\.10 or newer, .* Python 3\.9$"):
        exec(code, {"__name__": "ompbind"})


def test_workflow_has_the_same_versions() -> None:
    """A fork's CI runs the versions of Python that ours runs."""
    if not (workflow := ROOT / ".github/workflows/ci.yml").exists():
        pytest.skip("an sdist has no workflow")
    match = re.search(r"python: \[(.*)\]", workflow.read_text(encoding="utf-8"))
    assert match
    assert [v.strip('"') for v in match[1].split(", ")] == read_versions_tested()


def read_versions_tested() -> list[str]:
    match = re.search(r"^VERSIONS=\((.*)\)$", read("tools/test-pythons"), re.MULTILINE)
    assert match
    return match[1].split()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
