"""Builds the wheel and the sdist and tries them as users get them.

    python tools/release.py             build, check and try both: `make package`
    python tools/release.py --release   the same for a release, all but the upload: `make release`

It needs the packages of the dependency group `release`. The results are in dist/. Each step that
fails ends it with status 1 and one line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
MAN_PAGE = "share/man/man1/ompbind.1"
# The part of the tests that runs from the sdist: quick, and without compilers or other tools.
QUICK_TESTS = (
    "test_cpuset",
    "test_record",
    "test_plans",
    "test_docs",
    "test_package",
    "test_imports",
)
# What changes what ompbind plans or how its tests judge; not for a trial.
UNWANTED = ("OMP", "KMP_", "GOMP_", "PYTHON", "CI", "VIRTUAL_ENV")


class ReleaseError(Exception):
    """What keeps this tree from being released."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--release", action="store_true", help="check that this is a release, too")
    release = parser.parse_args().release
    try:
        version = read_version()
        check_version(version, read_versions())
        if release:
            check_release(version)
        wheel, sdist = build(version)
        with tempfile.TemporaryDirectory(prefix="ompbind-release-") as directory:
            try_wheel(wheel, version, Path(directory))
            try_sdist(sdist, Path(directory))
    except ReleaseError as e:
        print(f"release: error: {e}", file=sys.stderr)
        return 1
    print(f"release: {wheel.name} and {sdist.name} are built and tried, in {DIST.name}/")
    if release:
        print(f"""release: to publish them:
  git tag -a v{version} -m 'ompbind {version}'
  git push origin v{version}
  twine upload dist/{wheel.name} dist/{sdist.name}
then set __version__ to the next one with .dev0 and open a new Unreleased part""")
    return 0


def read_version() -> str:
    """Return the version that ompbind/__init__.py declares."""
    text = (ROOT / "ompbind/__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.*)"$', text, re.MULTILINE)
    if not match:
        raise ReleaseError("ompbind/__init__.py declares no __version__")
    return match[1]


def read_versions() -> list[str]:
    """Return the changelog's headings, newest first: `Unreleased` or a version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)


def check_version(version: str, headings: list[str]) -> None:
    """Raise ReleaseError unless the version is what the changelog describes first: the heading
    itself, or for `Unreleased` a development version above the newest release."""
    first, *others = headings
    if first != "Unreleased":
        if version != first:
            raise ReleaseError(f"the version is {version}, the changelog's first {first}")
        return
    number, dev, _ = version.partition(".dev")
    if not dev:
        raise ReleaseError(f"the version is {version}, but the changelog begins with Unreleased")
    if others and not numbers_of(number) > numbers_of(others[0]):
        raise ReleaseError(f"version {version} is not above {others[0]}, which is released")


def numbers_of(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def check_release(version: str) -> None:
    """Raise ReleaseError unless this tree is committed, is a release and is not tagged yet."""
    if run("git", "status", "--porcelain", cwd=ROOT):
        raise ReleaseError("the tree is not clean: commit or stash the changes")
    if ".dev" in version:
        raise ReleaseError(f"{version} is a development version: set __version__ and the changelog")
    if run("git", "tag", "--list", f"v{version}", cwd=ROOT):
        raise ReleaseError(f"the tag v{version} exists already")


def build(version: str) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it; return the wheel and the sdist, checked."""
    shutil.rmtree(DIST, ignore_errors=True)
    log = run(sys.executable, "-m", "build", "--outdir", str(DIST), cwd=ROOT)
    if "importable package" in log or "SetuptoolsDeprecationWarning" in log:
        raise ReleaseError(f"setuptools warns:\n{log}")
    wheel = DIST / f"ompbind-{version}-py3-none-any.whl"
    sdist = DIST / f"ompbind-{version}.tar.gz"
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
    with zipfile.ZipFile(wheel) as archive:
        check_contents(set(archive.namelist()))
        metadata = archive.read(f"ompbind-{version}.dist-info/METADATA").decode()
    check_requirements(re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE))
    return wheel, sdist


def check_contents(names: set[str]) -> None:
    """Raise ReleaseError unless a wheel with these files has the package and the pages, and nothing
    else that would be importable."""
    wanted = {p.relative_to(ROOT).as_posix() for p in (ROOT / "ompbind").rglob("*.py")}
    pages = [p.relative_to(ROOT) for p in (ROOT / "docs").rglob("*.md")]
    wanted |= {f"ompbind/{page.as_posix()}" for page in pages if "development" not in page.parts}
    if missing := sorted(wanted - names):
        raise ReleaseError(f"the wheel lacks {', '.join(missing)}")
    tops = {name.partition("/")[0] for name in names}
    if others := sorted(top for top in tops if not top.startswith("ompbind")):
        raise ReleaseError(f"the wheel installs {', '.join(others)}")
    if not any(name.endswith(f".data/data/{MAN_PAGE}") for name in names):
        raise ReleaseError("the wheel lacks the manual page")


def check_requirements(requirements: list[str]) -> None:
    """Raise ReleaseError if these ask for a package that was not looked at, or for psutil on Linux,
    where nothing uses it: pip would need a compiler on ppc64le, s390x and riscv64, for which it has
    no wheel."""
    needed = {
        re.split(r"[^\w.-]", r, maxsplit=1)[0]: r for r in requirements if "extra ==" not in r
    }
    if sorted(needed) != ["psutil", "typer"]:
        raise ReleaseError(f"the wheel requires {', '.join(sorted(needed)) or 'nothing'}")
    if not re.search(r"""; *sys_platform != ['"]linux['"]""", needed["psutil"]):
        raise ReleaseError(f"the wheel requires psutil on Linux, too: {needed['psutil']}")


def try_wheel(wheel: Path, version: str, directory: Path) -> None:
    """Install the wheel in a clean environment and use it, far from this repository."""
    home = make_environment(directory / "wheel", str(wheel))
    python, ompbind = str(home / "bin/python"), str(home / "bin/ompbind")
    away = directory / "away"
    away.mkdir()
    run(python, "-m", "pip", "check", cwd=away)
    if (printed := run(ompbind, "-V", cwd=away).strip()) != f"ompbind {version}":
        raise ReleaseError(f"ompbind -V prints {printed!r}")
    plan = json.loads(run(ompbind, "show", "--format", "json", "--", "true", cwd=away))
    if len(plan["ranks"]) != 1:
        raise ReleaseError("ompbind show does not plan one rank")
    run(ompbind, "show", cwd=away)
    run(ompbind, "run", "--", "true", cwd=away)
    run(ompbind, "topo", cwd=away)
    run(ompbind, "run", "--help", cwd=away)
    if "binding" not in run(ompbind, "help", cwd=away):
        raise ReleaseError("ompbind help does not list the page `binding`")
    page_text = (ROOT / "docs/explanation/binding.md").read_text(encoding="utf-8")
    if run(ompbind, "help", "binding", cwd=away) != page_text:
        raise ReleaseError("ompbind help does not print the page `binding`")
    run(ompbind, "doctor", cwd=away, statuses=(0, 1))  # 1: this machine does not let it bind
    run(python, "-c", "import ompbind; assert len(ompbind.plan().ranks) == 1", cwd=away)
    page = home / MAN_PAGE
    if not page.exists():
        raise ReleaseError(f"{MAN_PAGE} is not installed")
    if shutil.which("man"):
        run("man", "--warnings", "-l", str(page), cwd=away)


def try_sdist(sdist: Path, directory: Path) -> None:
    """Install from the sdist in a clean environment and run a quick part of its tests there."""
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(directory, filter="data")
        else:
            archive.extractall(directory)  # noqa: S202  # our own archive, just built
    source = directory / sdist.name.removesuffix(".tar.gz")
    home = make_environment(directory / "sdist", str(source), "pytest", "hypothesis")
    files = [f"tests/{name}.py" for name in QUICK_TESTS]
    run(str(home / "bin/python"), "-m", "pytest", "-q", *files, cwd=source)


def make_environment(place: Path, *requirements: str) -> Path:
    """Make a virtual environment with these installed; return its directory."""
    venv.create(place, with_pip=True)
    pip = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", *requirements]
    run(*pip, "--disable-pip-version-check", cwd=place)
    return place


def run(*words: str, cwd: Path = ROOT, statuses: tuple[int, ...] = (0,)) -> str:
    """Run a command and return what it prints; raise ReleaseError for any other exit status."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(UNWANTED)}
    print(f"release: {' '.join(words)[:100]}", file=sys.stderr)
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in statuses:
        raise ReleaseError(f"{words[0]} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
