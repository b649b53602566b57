"""Shell completion: what a TAB offers, as each script asks for it, and in the real shells."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cli import main
from ompbind.cli.completion import answer, suggest
from ompbind.cli.help import COMMANDS
from ompbind.options.commands import OPTIONS
from ompbind.options.reports import EXPORTS, FORMS
from tests.support.commands import OMPBIND, TIMEOUT, environment, error, ompbind_run
from tests.support.trees import Pci, Shape, make_files, write_tree


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("ompbind ", {"run", "show"}),
        ("ompbind compare --vary sm", {"smt="}),
        ("ompbind ru", {"run"}),
        ("ompbind run --numa-b", {"--numa-bind", "--numa-bind-nodes", "--numa-bind-cpus"}),
        ("ompbind run --places ", {"threads", "cores", "l3", "numa", "one", "wide"}),
        ("ompbind run --places c", {"cores"}),
        ("ompbind show --format ", {*FORMS, *EXPORTS}),
        ("ompbind run --mem pre", {"preferred"}),
    ],
)
def test_completion_for_bash(words: str, wanted: set[str]) -> None:
    """What bash asks is answered with commands, options and their values, each on a line."""
    count = len(words.split(" ")) - 1
    env = environment(
        _OMPBIND_COMPLETE="complete_bash", COMP_WORDS=words.replace(" ", "\n"),
        COMP_CWORD=str(count),
    )  # fmt: skip
    done = ompbind_run(env=env)
    assert done.stderr == ""
    answer = set(done.stdout.split())
    assert answer >= wanted if count == 1 and words.endswith(" ") else answer == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell gets a script that asks ompbind."""
    done = ompbind_run(env=environment(_OMPBIND_COMPLETE=f"source_{shell}"))
    assert done.stderr == ""
    assert "_OMPBIND_COMPLETE" in done.stdout
    assert "complet" in done.stdout


def test_a_script_that_nobody_gets_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--show-completion bash >&-` is refused as `--help >&-` is, by the status as well."""
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it where the descriptor is closed
    monkeypatch.setenv("_OMPBIND_COMPLETE", "")
    kept = os.dup(1)
    os.close(1)
    try:
        status = main(["--show-completion", "bash"])
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert (status, capfd.readouterr().err) == (
        125,
        error("standard output cannot be written: Bad file descriptor"),
    )


def values(line: str) -> set[str]:
    """What can stand at the end of a line, with what is there of it already."""
    *words, last = line.split(" ")
    matches = suggest(words, last)
    return {v for v in (matches.head + value for value, _ in matches.pairs) if v.startswith(last)}


NAMES = sorted({n for o in OPTIONS for n in o.names} - {"--rank", "--stdin", "--topology"})


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine with two nodes, hardware threads and a network card."""
    shape = Shape(packages=2, nodes=2, l3s=2, cores=8, threads=2, numbering="halves")
    return write_tree(make_files(shape), tmp_path_factory.mktemp("machine"))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ompbind -", {"--help", "--version", "--install-completion", "--show-completion"}),
        ("ompbind h", {"help"}),
        ("ompbind help op", {"openmp", "openvino"}),
        ("ompbind --install-completion ", {"bash", "zsh", "fish"}),
        ("ompbind run --places=c", {"--places=cores"}),
        ("ompbind run --smt a", {"all"}),
        ("ompbind run --stdin ", {"0", "all", "none"}),
        ("ompbind run --fix f", {"fxgraph-pickle"}),
        ("ompbind run --fix=torch-accelerator,f", {"--fix=torch-accelerator,fxgraph-pickle"}),
        ("ompbind run --master-port a", {"auto"}),
        ("ompbind run --no-ra", {"--no-rank-env"}),
        ("ompbind run -n 2 --rank-", {"--rank-env"}),
        ("ompbind show --plan x --fo", {"--format"}),
        ("ompbind topo --for", {"--format"}),
        ("ompbind topo --he", {"--help"}),
        ("ompbind verify 47 --wa", {"--watch"}),
        ("ompbind run --nothing --places c", {"cores"}),
        ("ompbind run -- true --pl", set()),
        ("ompbind run true --pl", set()),
        ("ompbind nothing --pl", set()),
        ("ompbind show -n 70000 --rank ", set()),
    ],
)
def test_values(line: str, wanted: set[str]) -> None:
    """Options, commands and values are suggested where they can stand, and nowhere else."""
    if "70000" in line:
        env = environment(_OMPBIND_COMPLETE="complete_fish", _TYPER_COMPLETE_ARGS=line)
        assert ompbind_run(env=env | {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}).stdout == ""
        return
    assert values(line) == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--numa-bind-nodes ", {"0", "1"}),
        ("--numa-bind-nodes 0 1 ", {"0", "1"}),
        ("--numa-bind-nodes 0,", {"0,0", "0,1"}),
        ("--numa-bind-cpus ", {"0-3,8-11", "4-7,12-15"}),
        ("--smt ", {"1", "2", "all"}),
        ("-n 3 --rank ", {"0", "1", "2"}),
        ("--numa-bind-nodes 0 1 --rank ", {"0", "1"}),
    ],
)
def test_what_the_machine_has(machine: Path, line: str, wanted: set[str]) -> None:
    """Nodes, cpus, hardware threads and ranks are those of the machine that is planned for."""
    assert values(f"ompbind show --topology {machine} {line}") == wanted
    assert values(f"ompbind show --topology={machine} {line}") == wanted


def test_devices(tmp_path: Path) -> None:
    """--near is offered GPUs' numbers and devices' addresses, whose colons make words in bash."""
    gpu = Pci("0000:3b:00.0", "030200", 0)
    tree = write_tree(make_files(Shape(cores=2, devices=(gpu,))), tmp_path)
    assert values(f"ompbind run --topology {tree} --near ") == {"gpu0", "0000:3b:00.0"}
    parts = ["ompbind", "run", "--topology", "=", str(tree), "--near", "0000", ":", "3"]
    env = environment(
        _OMPBIND_COMPLETE="complete_bash", COMP_WORDS="\n".join(parts), COMP_CWORD="8"
    )
    assert ompbind_run(env=env).stdout == "3b:00.0\n"


@given(st.lists(st.text() | st.sampled_from([*NAMES, "--", "ompbind", "run", "show"])))
def test_any_line(words: list[str]) -> None:
    """Whatever was typed, in whatever quotes, each shell gets an answer it can read."""
    line = " ".join(["ompbind", *words])
    given_words = {"COMP_WORDS": line.replace(" ", "\n"), "COMP_CWORD": str(line.count(" "))}
    for shell in ("bash", "zsh", "fish"):
        answered = answer(f"complete_{shell}", given_words | {"_TYPER_COMPLETE_ARGS": line})
        assert answered is not None
        assert answered[1] in (0, 1)
        assert shell != "zsh" or answered[0].count("\n") <= 1 or "\n" in line


def test_every_option_is_suggested() -> None:
    """Each command is offered all of its options, each with a few words."""
    for command in COMMANDS:
        pairs = dict(suggest(["ompbind", command.name], "--").pairs)
        wanted = {n for o in OPTIONS if command.name in o.commands for n in o.names}
        assert wanted <= set(pairs)
        assert all(pairs.values())


# --- the real shells -----------------------------------------------------------------------------

# A key that writes the line as it stands to a file.
KEYS = {
    "bash": """bind -x '"\\C-xr": printf %s "$READLINE_LINE" > ~/line'""",
    "zsh": "keep() { print -rn -- \"$BUFFER\" > ~/line }; zle -N keep; bindkey '^Xr' keep",
}
RC = {"bash": ".bashrc", "zsh": ".zshrc"}


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest) -> str:
    """A shell that is installed here."""
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here: tools/setup-system test")
    return name


@pytest.fixture(scope="module")
def home(shell: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory with completion installed as a user does it, and a command to complete."""
    home = tmp_path_factory.mktemp("home")
    done = ompbind_run("--install-completion", shell, env=home_environment(home))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"installed completion for {shell} in {home}/")
    if shell in KEYS:
        with open(home / RC[shell], "a", encoding="utf-8") as file:
            file.write(f"\n{KEYS[shell]}\necho > ~/ready\n")
    (home / "bin").mkdir()
    (home / "bin" / "a-worker-of-mine").write_text("#!/bin/sh\n")
    (home / "bin" / "a-worker-of-mine").chmod(0o755)
    (home / "a-file-of-mine").touch()
    return home


def home_environment(home: Path) -> dict[str, str]:
    path = f"{Path(OMPBIND).parent}:{home}/bin:{os.environ['PATH']}"
    config = {"XDG_CONFIG_HOME": f"{home}/.config", "XDG_DATA_HOME": f"{home}/data"}
    return environment(HOME=str(home), PATH=path, TERM="xterm", ZDOTDIR=str(home), **config)


def press_tab(shell: str, home: Path, line: str) -> str:
    """The line after one TAB in an interactive shell, in the home directory."""
    if shell == "fish":
        done = subprocess.run(
            ["fish", "-c", "complete -C $argv[1]", line], env=home_environment(home), cwd=home,
            capture_output=True, text=True, timeout=TIMEOUT, check=True,
        )  # fmt: skip
        (only,) = {row.partition("\t")[0] for row in done.stdout.splitlines()}
        return f"{line.rpartition(' ')[0]} {only} "
    for name in ("line", "ready"):
        (home / name).unlink(missing_ok=True)
    ours, theirs = os.openpty()
    command = ["setsid", "-c", shell, "-i"]
    with subprocess.Popen(
        command, env=home_environment(home), cwd=home, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        try:
            read_until(ours, home / "ready")
            os.write(ours, f"{line}\t\x18r".encode())
            read_until(ours, home / "line")
        finally:
            os.close(ours)
            process.kill()
    return (home / "line").read_text()


def read_until(terminal: int, file: Path) -> None:
    """Read what the shell writes until the file has something in it."""
    end = time.monotonic() + TIMEOUT
    while not (file.exists() and file.stat().st_size):
        assert time.monotonic() < end, f"no {file.name}"
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 1 << 16)


@pytest.mark.skipif(sys.platform != "linux", reason="setsid makes the terminal the shell's")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ompbind ver", "ompbind verify "),
        ("ompbind run --numa-bind-n", "ompbind run --numa-bind-nodes "),
        ("ompbind run --places c", "ompbind run --places cores "),
        ("ompbind run --places=c", "ompbind run --places=cores "),
        ("ompbind run --smt a", "ompbind run --smt all "),
        ("ompbind run --fix torch-accelerator,fx",
         "ompbind run --fix torch-accelerator,fxgraph-pickle "),
        ("ompbind show --rank ", "ompbind show --rank 0 "),
        ("ompbind run --plan a-fi", "ompbind run --plan a-file-of-mine "),
        ("ompbind run --plan=a-fi", "ompbind run --plan=a-file-of-mine "),
        ("ompbind run -n 2 -- a-wor", "ompbind run -n 2 -- a-worker-of-mine "),
        ("ompbind run a-wor", "ompbind run a-worker-of-mine "),
        ("ompbind run -- ls a-fi", "ompbind run -- ls a-file-of-mine "),
    ],
)  # fmt: skip
def test_tab(shell: str, home: Path, line: str, wanted: str) -> None:
    """One TAB completes the line, in a shell that has just been started."""
    assert press_tab(shell, home, line) == wanted


def test_an_unknown_shell() -> None:
    """Only shells that there are scripts for can be named."""
    done = ompbind_run("--install-completion", "bsh")
    message = "--install-completion: 'bsh' is not a shell"
    assert (done.returncode, done.stderr) == (125, error(message, "did you mean bash?"))


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_the_named_shell_counts(option: str, tmp_path: Path) -> None:
    """Whatever the shell is that asks, and whatever SHELL says."""
    env = environment(HOME=str(tmp_path), SHELL="/bin/bash")
    done = ompbind_run(option, "fish", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    script = tmp_path / ".config/fish/completions/ompbind.fish"
    text = script.read_text() if option == "--install-completion" else done.stdout
    assert text.startswith("complete --command ompbind")
