"""Measured launches: figures, files, time limits, and that nothing is left when interrupted."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ompbind.compare.variants import make_grid, make_variants
from ompbind.launch.trial import MESSAGES, Interruption, Trial, catch_signals, run_trial
from ompbind.plans import Plan

if TYPE_CHECKING:
    from ompbind.options import Texts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks are bound on Linux")


def make_plans(command: list[str], ranks: int = 1) -> list[Plan]:
    """The unbound plan and the bound one."""
    common: Texts = {"ranks": str(ranks), "oversubscribe": True} if ranks > 1 else {}
    environ = {"PATH": os.environ["PATH"], "OMPBIND_NEIGHBOURS": "no"}
    variants, _ = make_variants(make_grid([]), common, command, environ)
    return [v.plan for v in variants]


def run(plan: Plan, folder: Path, **settings: float) -> Trial:
    environ = {"PATH": os.environ["PATH"], "KEPT": "yes"}
    return run_trial(plan, environ, str(folder), **settings)  # type: ignore[arg-type]


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_bound_and_unbound(tmp_path: Path) -> None:
    """Ranks get the environment and an empty input, a bound one its mask and variables, an unbound
    one neither; their output is in files and what they used is measured."""
    script = 'grep -h Cpus_allowed_list /proc/self/status; echo "$KEPT $OMP_NUM_THREADS"; cat'
    unbound, bound = make_plans([*shell(script)])
    for plan, name in ((unbound, "unbound"), (bound, "bound")):
        folder = tmp_path / name
        folder.mkdir()
        trial = run(plan, folder)
        assert (trial.status, trial.timed_out) == (0, False)
        assert [rank["elapsed_seconds"] > 0 for rank in trial.ranks] == [True]
        assert trial.ranks[0]["peak_memory_bytes"] > 100_000
        mask, variables = (folder / "rank-0.out").read_text().splitlines()
        if plan is bound:
            assert mask.split()[1] == str(bound.ranks[0].cpus)
            assert variables == f"yes {dict(bound.ranks[0].env)['OMP_NUM_THREADS']}"
        else:
            assert variables == f"yes {os.environ.get('OMP_NUM_THREADS', '')}".rstrip() + (
                " " if "OMP_NUM_THREADS" not in os.environ else ""
            )


def test_failures(tmp_path: Path) -> None:
    """The status is the first failure's; what ranks and ompbind wrote is in files."""
    _, plan = make_plans(shell("echo oops >&2; exit 3"), ranks=2)
    trial = run(plan, tmp_path)
    assert trial.status == 3
    assert (tmp_path / "rank-0.err").read_text() in ("oops\n", "")
    assert "with status 3" in (tmp_path / MESSAGES).read_text()


def test_refusals(tmp_path: Path) -> None:
    """A command that cannot be executed is a failed run with ompbind's own words."""
    script = tmp_path / "script"
    script.write_text("#!/nowhere/at/all\n")
    script.chmod(0o755)
    _, plan = make_plans(["true"])
    rank = plan.ranks[0].replace(command=(str(script),))
    trial = run(plan.replace(ranks=(rank,)), tmp_path)
    assert trial.status == 126
    assert "cannot be executed" in (tmp_path / MESSAGES).read_text()


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_time_limit(tmp_path: Path) -> None:
    """What takes longer is ended, with all that it has started."""
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; sleep 1000"
    unbound, _ = make_plans(shell(script))
    trial = run(unbound, tmp_path, timeout=0.5)
    assert trial.timed_out
    assert trial.status == 128 + signal.SIGTERM
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_interruptions(tmp_path: Path) -> None:
    """An exception, as from Ctrl-C, ends the ranks and all that they have started, and goes on."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"trap '' HUP; sleep 1000 & echo $! $$ > {tmp_path}/pids; echo > {fifo}; sleep 1000"
    _, plan = make_plans(shell(script))
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def tick() -> None:
        if os.read(reader, 1):  # the ranks run
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a script
        catch_signals()
        with pytest.raises(Interruption) as e:
            run_trial(plan, dict(os.environ), str(tmp_path), tick=tick)
        assert e.value.number == signal.SIGTERM
    finally:
        os.close(reader)
        for number, handler in zip((2, 15, 1), handlers, strict=True):
            signal.signal(number, handler)
    for pid in (tmp_path / "pids").read_text().split():
        assert not is_alive(int(pid))
