"""OMPBIND_OPTIONS: options of a site or project, below those of the command line."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from ompbind.cli import main
from tests.support.commands import OMPBIND, environment, error, ompbind_run

SERVER = "examples/server.topo"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMPBIND_RANK", raising=False)


def show(capfd: Capture, *args: str) -> dict[str, Any]:
    """The plan as JSON for the server."""
    status = main(["show", "--topology", SERVER, "--format", "json", *args, "--", "./solver"])
    out, err = capfd.readouterr()
    assert (status, err) == (0, "")
    plan: dict[str, Any] = json.loads(out)
    return plan


def refusal(capfd: Capture, *args: str) -> str:
    """What standard error says of a command line that is refused."""
    assert main(list(args)) == 125
    out, err = capfd.readouterr()
    assert out == ""
    return err


@pytest.mark.parametrize(
    ("defaults", "args", "same_as"),
    [
        ("-n 4 --smt all", "", "-n 4 --smt all"),
        ("-n 4 --smt all", "-n 2", "-n 2 --smt all"),
        ("--places=one --exclude 0,8", "--exclude 1", "--places one --exclude 1"),
        ("--numa-bind-nodes 0 1", "--numa-bind-nodes 2", "--numa-bind-nodes 2"),
        ("--env 'A=b c' --env D=e", "", "--env 'A=b c' --env D=e"),
        ("--env A=b", "--env D=e", "--env D=e"),
        ("--no-rank-env -n 2", "--rank-env", "-n 2 --rank-env"),
        ("-q --output tag --verify -n 2", "", "-n 2"),  # run's only
        ("", "-n 3", "-n 3"),
    ],
)
def test_the_command_line_wins(
    defaults: str, args: str, same_as: str, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """Each option that is not typed is that of the variable; a typed one replaces it whole."""
    wanted = show(capfd, *shlex.split(same_as))
    monkeypatch.setenv("OMPBIND_OPTIONS", defaults)
    plan = show(capfd, *shlex.split(args))
    if defaults:
        note = plan["inherited"].pop(0)
        assert (note["name"], note["value"], note["action"]) == (
            "OMPBIND_OPTIONS", defaults, "respected",
        )  # fmt: skip
        assert note["why"].startswith("as if typed before the options of the command line")
    assert plan == wanted


def test_run_follows_it() -> None:
    """`run` starts what `show` shows; a rank's own ompbind does not count the options again."""
    env = environment(OMPBIND_OPTIONS="-q --no-neighbours --env SITE=yes --rank-env")
    inner = f'echo "$SITE $RANK"; {OMPBIND} show --format env | grep SITE; exit 0'
    done = ompbind_run("run", "--", "sh", "-c", inner, env=env)
    assert (done.stdout, done.stderr) == ("yes 0\n", "")


def test_a_saved_plan_takes_what_goes_with_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """Beside --plan, options that say where ranks go are those of the plan."""
    plan = show(capfd, "-n", "2")
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    monkeypatch.setenv("OMPBIND_OPTIONS", "-n 4 --per numa --env A=b")
    assert main(["show", "--plan", str(file), "--format", "json"]) == 0
    ranks = json.loads(capfd.readouterr().out)["ranks"]
    assert len(ranks) == 2
    assert ranks[0]["env"]["A"] == "b"


@pytest.mark.parametrize(
    ("defaults", "args", "message", "hint"),
    [
        ("--nosuch", "", "OMPBIND_OPTIONS: '--nosuch' is not an option",
         "the worker's own options follow its command; see ompbind run --help"),
        ("-np 4", "", "OMPBIND_OPTIONS: '-np' is not an option", "use -n 4"),
        ("-n 4 prog", "", "OMPBIND_OPTIONS: 'prog' is not an option", "it has options only"),
        ("-n 4 --", "", "OMPBIND_OPTIONS: -- is not an option", "it has options only"),
        ("-n '4", "", "OMPBIND_OPTIONS \"-n '4\": no closing quotation",
         "quote words as for a shell"),
        ("-n x", "", "--ranks: 'x' is not a whole number from 1 to 65535",
         "--ranks comes from OMPBIND_OPTIONS='-n x'"),
        ("--share --smt 2", "--cores-per-rank 2",
         "--share gives each rank a whole domain, --cores-per-rank only some cores of it",
         "leave one of them out; --share comes from OMPBIND_OPTIONS='--share --smt 2'"),
        ("--reserve 60000 -n 2", "-n 2", "--reserve 60000 would leave ranks without a core",
         "at most 30 can be reserved with this many ranks; --reserve comes from "
         "OMPBIND_OPTIONS='--reserve 60000 -n 2'"),
        ("-n 2", "--smt 9", "--smt 9: no core has that many allowed hardware threads",
         "--smt 2 or --smt all"),
    ],
)  # fmt: skip
def test_refusals(
    defaults: str, args: str, message: str, hint: str, monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
) -> None:  # fmt: skip
    """An error says that an option comes from the variable where nobody has typed it."""
    monkeypatch.setenv("OMPBIND_OPTIONS", defaults)
    assert refusal(capfd, "show", "--topology", SERVER, *args.split()) == error(message, hint)


def test_show_tells(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    """The table names the variable, its options, and what the command line has itself."""
    monkeypatch.setenv("OMPBIND_OPTIONS", "-n 4 --smt all")
    assert main(["show", "--topology", SERVER, "-n", "2"]) == 0
    lines = capfd.readouterr().out.splitlines()
    line = next(ln for ln in lines if ln.startswith("OMPBIND_OPTIONS"))
    assert "OMPBIND_OPTIONS=-n 4 --smt all  respected" in line
    assert line.endswith("which has --ranks itself")
    monkeypatch.setenv("OMPBIND_RANK", "0")
    assert main(["show", "--topology", SERVER]) == 0
    assert "the launch that this is a rank of had it" in capfd.readouterr().out


def test_other_commands_do_not_read_it(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    """It is for run and show."""
    monkeypatch.setenv("OMPBIND_OPTIONS", "--nosuch")
    assert main(["topo", "--topology", SERVER]) == 0
    capfd.readouterr()
