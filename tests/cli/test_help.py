"""Help: laid out from the table of options, in any width, and without another package."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ompbind
from ompbind.cli import main
from ompbind.cli.help import COMMANDS, find_pages, names_of
from ompbind.options.commands import OPTIONS, options_of
from ompbind.options.table import PANELS
from tests.support.commands import (
    OMPBIND,
    TIMEOUT,
    environment,
    error,
    ompbind_run,
    read_report,
    report_command,
)

NAMES_OF_COMMANDS = [c.name for c in COMMANDS]


def read_help(*args: str, columns: int = 80) -> list[str]:
    """The lines of a help text."""
    done = ompbind_run(*args, env=environment(COLUMNS=str(columns)))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def names_in(lines: list[str]) -> list[str]:
    """The options that have an entry of their own, each name as often as it has one."""
    entries = [line for line in lines if re.match(r"  -", line)]
    words = [re.split(r"  +|[ =\[]", name)[0]
             for line in entries for name in line[2:].split("  ")[0].split(", ")]  # fmt: skip
    return [word for word in words if word.startswith("-")]


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_of_ompbind(args: list[str]) -> None:
    """Without a command ompbind says what it does and which commands there are."""
    lines = read_help(*args)
    assert lines[0] == "Usage: ompbind COMMAND [OPTIONS]..."
    assert args != ["-h"] or len(lines) <= 24
    for name in [*NAMES_OF_COMMANDS, "help"]:
        assert any(line.startswith(f"  {name} ") for line in lines), name


def test_every_command_has_help() -> None:
    """The commands of the table of options are those that have a text."""
    assert sorted(NAMES_OF_COMMANDS) == sorted({c for o in OPTIONS for c in o.commands})


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("command", NAMES_OF_COMMANDS)
def test_help_has_every_option_once(command: str, columns: int) -> None:
    """All options of the command, whole, each with its text, and no line too long."""
    lines = read_help(command, "--help", columns=columns)
    assert max(map(len, lines)) <= columns
    wanted = [n for o in options_of(command) for n in names_of(o)]
    assert sorted(names_in(lines)) == sorted([*wanted, "-h", "--help"])
    text = " ".join(" ".join(lines).split())
    for option in options_of(command):
        assert option.value in text
        assert " ".join(option.help.split()) in text


@pytest.mark.parametrize("command", NAMES_OF_COMMANDS)
def test_short_help_is_one_screen(command: str) -> None:
    """-h fits a terminal of 24 lines, with options of the command only."""
    lines = read_help(command, "-h")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    names = names_in(lines)
    assert set(names) <= {n for o in options_of(command) for n in names_of(o)}
    assert len(names) == len(set(names))
    assert len(names) >= 14 or command not in ("run", "show")
    assert f"ompbind {command} --help" in lines[-1]


@pytest.mark.parametrize(("columns", "width"), [("10", 60), ("500", 100), ("x", 80), ("", 80)])
def test_width(columns: str, width: int) -> None:
    """The text is from 60 to 100 columns wide, and 80 where nothing says how wide."""
    done = ompbind_run("run", "--help", env=environment(COLUMNS=columns))
    longest = max(map(len, done.stdout.splitlines()))
    assert width - 8 <= longest <= width


def on_a_terminal(columns: int, *args: str, **changes: str) -> str:
    """What ompbind writes to a terminal."""
    if shutil.which("script") is None:
        pytest.skip("no `script` to make a terminal")
    command = f"stty cols {columns}; {OMPBIND} {' '.join(args)}"
    env = environment(TERM="xterm-256color", **changes)
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], env=env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    return done.stdout


def test_headings_are_bold_on_a_terminal() -> None:
    """Headings are bold on a terminal, nothing is under NO_COLOR, and its width is used."""
    text = on_a_terminal(72, "run", "--help")
    assert "\x1b[1mOpenMP\x1b[0m" in text
    plain = on_a_terminal(72, "run", "--help", NO_COLOR="1")
    assert "\x1b" not in plain
    assert plain.replace("\r", "").splitlines() == read_help("run", "--help", columns=72)


def test_help_needs_no_other_package() -> None:
    """Neither typer nor rich, nor what they bring, is imported for any of it."""
    code = "import sys; from ompbind.cli import main; main(sys.argv[1:]);"
    code += "print(*sorted({'typer', 'rich', 'click', 'inspect', 're'} & set(sys.modules)))"
    for args in (["--help"], ["run", "--help"], ["run", "-h"], ["help"], ["-V"]):
        done = subprocess.run(
            [sys.executable, "-S", "-c", code, *args], cwd=os.path.dirname(ompbind.__path__[0]),
            capture_output=True, text=True, timeout=TIMEOUT, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "", args


def test_help_is_the_workers_after_the_command(tmp_path: Path) -> None:
    """--help behind the command or -- is not ours."""
    worker = report_command(tmp_path)
    assert ompbind_run("run", *worker, "--help").returncode == 0
    assert read_report(tmp_path)["argv"] == [b"--help"]
    assert ompbind_run("run", "-n", "2", "--help").stdout.startswith("Usage: ompbind run ")
    assert len(read_help("run", "-n", "2", "-h")) <= 24


def test_version(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """-V prints it on one line; --version also what ompbind runs on."""
    first = f"ompbind {ompbind.__version__}"
    assert main(["-V"]) == 0
    assert capfdbinary.readouterr().out.decode() == f"{first}\n"
    assert main(["--version"]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[0] == first
    assert lines[1] == f"{sys.implementation.name} {platform.python_version()}: {sys.executable}"
    assert lines[2] == f"{platform.system()} {platform.release()} {platform.machine()}"
    assert (
        lines[3]
        == f"numactl: {shutil.which('numactl') or 'not installed: ranks are bound natively'}"
    )
    assert lines[4].startswith(f"typer {importlib.metadata.version('typer')} ")
    assert any(line.startswith("nvidia-ml-py ") for line in lines)


# --- ompbind help --------------------------------------------------------------------------------


def test_help_of_a_command() -> None:
    """`ompbind help run` is `ompbind run --help`."""
    assert read_help("help", "run") == read_help("run", "--help")


@pytest.mark.parametrize(
    ("command", "first", "last"),
    [("run", "How many ranks", "Rarely needed"), ("compare", "What to compare", "Rarely needed")],
)
def test_parts_stand_in_order(command: str, first: str, last: str) -> None:
    """Help begins with what the command is about, and what is rarely needed comes last."""
    lines = read_help(command, "--help")
    parts = [line for line in lines if line in PANELS]
    assert (parts[0], parts[-1]) == (first, last)
    assert len(parts) == len({o.panel for o in options_of(command)})


def test_help_of_an_option() -> None:
    """`ompbind help --format` has the option's entry of each command that takes it."""
    lines = read_help("help", "--format")
    assert [line for line in lines if line.startswith("ompbind ")] == [
        "ompbind show", "ompbind topo, verify, doctor, ps, rebind", "ompbind compare",
    ]  # fmt: skip
    assert names_in(lines) == ["--format"] * 3


def test_pages(capfd: pytest.CaptureFixture[str]) -> None:
    """`ompbind help` lists the pages of the documentation, and each is printed as it is."""
    pages = find_pages()
    assert {"binding", "verify", "coming-from", "performance"} <= set(pages)
    lines = read_help("help")
    assert max(map(len, lines)) <= 80
    for name, path in pages.items():
        with open(path, encoding="utf-8") as file:
            text = file.read()
        long_name = "/".join(path.removesuffix(".md").split("/")[-2:])
        shown = long_name if name in NAMES_OF_COMMANDS else name
        assert any(line.startswith(f"  {shown} ") for line in lines), shown
        for word in {shown, long_name}:
            assert main(["help", word]) == 0
            assert capfd.readouterr().out == text


def test_no_pages(tmp_path: os.PathLike[str]) -> None:
    """Where the pages are not installed a topic is an error that says where they are."""
    code = "import sys; from ompbind.cli import help, main; help.PAGES = sys.argv[1];"
    code += "sys.exit(main(sys.argv[2:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "help", "binding"],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("ompbind: error: the pages of the documentation are not instal")
    assert len(done.stderr.splitlines()) == 2


# --- what is not there ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["-v"], "'-v' is not an option of ompbind itself",
         "-v is an option of ompbind run and show"),
        (["--versoin"], "'--versoin' is not an option of ompbind itself",
         "did you mean --version?"),
        (["--frobnicate"], "'--frobnicate' is not an option of ompbind itself",
         "see ompbind --help"),
        (["-n", "2", "--", "true"], "'-n' is not an option of ompbind itself",
         "-n is an option of ompbind run, show, compare and rebind"),
        (["hlep"], "'hlep' is not a command of ompbind", "did you mean help?"),
        (["help", "bindings"], "there is no command and no page 'bindings'",
         "did you mean binding?"),
        (["help", "llama"], "there is no command and no page 'llama'", "did you mean llama-cpp?"),
        (["help", "xyz"], "there is no command and no page 'xyz'",
         "ompbind help lists commands and pages"),
        (["help", "--place"], "'--place' is not an option", "did you mean --places?"),
        (["help", "run", "show"], "help takes one word", "ompbind help [COMMAND|OPTION|PAGE]"),
        # another command's option
        (["run", "--explain"], "'--explain' is not an option",
         "--explain is an option of ompbind show"),
        (["topo", "-n", "2"], "'-n' is not an option",
         "-n is an option of ompbind run, show, compare and rebind"),
        (["doctor", "--topology", "x"], "'--topology' is not an option",
         "--topology is an option of ompbind run, show and topo"),
        # another tool's
        (["run", "-np", "2"], "'-np' is not an option", "use -n 2"),
        (["run", "--physcpubind", "0"], "'--physcpubind' is not an option",
         "use --numa-bind-cpus 0"),
        (["run", "--dry-run"], "'--dry-run' is not an option",
         "use ompbind show, which takes the same options"),
        (["show", "--nproc-per-node=2"], "'--nproc-per-node' is not an option", "use -n 2"),
        (["verify", "--pid", "3"], "'--pid' is not an option", "use ompbind verify PID..."),
        # ompbind's own
        (["run", "--version"], "'--version' is not an option", "use ompbind --version"),
        (["topo", "examples/server.topo"], "topo takes no 'examples/server.topo'",
         "ompbind topo --topology examples/server.topo"),
        (["topo", "--hlep"], "'--hlep' is not an option", "did you mean --help?"),
        # nobody's
        (["run", "--frobnicate"], "'--frobnicate' is not an option",
         "the worker's own options follow its command; see ompbind run --help"),
        (["topo", "--cores", "2"], "'--cores' is not an option", "see ompbind topo --help"),
        (["topo", "--json"], "'--json' is not an option",
         "use --format json, an option of all commands but ompbind run"),
        (["topo", "--frobnicate"], "'--frobnicate' is not an option", "see ompbind topo --help"),
        # values
        (["show", "--per", "Numa"], "--per: 'Numa' is not one of numa, package, l3, core, "
         "gpu, accel, nic, die, cluster, l2, book, drawer",
         "did you mean numa?"),
        (["show", "--per", "socket"], "--per: 'socket' is not one of numa, package, l3, core, "
         "gpu, accel, nic, die, cluster, l2, book, drawer",
         "did you mean package?"),
        (["topo", "--format", "JSON"], "--format: 'JSON' is not one of table, json",
         "did you mean json?"),
    ],
)  # fmt: skip
def test_hints(args: list[str], message: str, hint: str) -> None:
    """What is not there is an error of one line and 125, with what is meant or where it is."""
    done = ompbind_run(*args)
    assert (done.returncode, done.stdout, done.stderr) == (125, "", error(message, hint))
