"""Which of an engine's ranks says what."""

from __future__ import annotations

from typing import Any

import pytest

from ompbind import launch, resolve
from ompbind.cli import run as command
from ompbind.plans import Caution, Inherited, Task
from tests.engines.test_fitting import plans_of


def said(monkeypatch: pytest.MonkeyPatch, task: Task, *args: str) -> list[tuple[str, str]]:
    """What `run` says of a plan with warnings and notes, for this rank."""
    lines: list[tuple[str, str]] = []
    plan = plans_of("", 2)[0].replace(
        task=task,
        cautions=(Caution("uneven", "uneven"), Caution("neighbours", "neighbours")),
        inherited=(Inherited("OMP_NUM_THREADS", "1", "overridden", "why"),),
    )

    def keep(kind: str, text: str, hint: str = "") -> None:
        lines.append((kind, text.partition(" ")[0].partition(":")[0]))

    def resolved(*_: Any, **__: Any) -> Any:
        return plan

    monkeypatch.setattr(command, "say", keep)
    monkeypatch.setattr(resolve, "resolve_plan", resolved)
    monkeypatch.setattr(launch, "run", lambda *_: 0)
    assert command.run([*args, "--", "true"]) == 0
    return lines


TASK = Task("slurm", "Slurm", 0, 4, 0, 2, note="widened", passed_over=(("MPICH", "why"),))
OVERRIDDEN = ("note", "OMP_NUM_THREADS=1")


def test_who_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes are the first rank's, warnings those of the first on each node, except about what only
    this rank meets; by hand each rank is alone."""
    uneven, neighbours = ("warning", "uneven"), ("warning", "neighbours")
    first = said(monkeypatch, TASK)
    assert first == [OVERRIDDEN, ("note", "widened"), uneven, neighbours]
    assert said(monkeypatch, TASK.replace(rank=2)) == [uneven, neighbours]
    assert said(monkeypatch, TASK.replace(rank=1, local_rank=1)) == [neighbours]
    by_hand = Task("hand", "--rank", 1, local_rank=1)
    assert said(monkeypatch, by_hand) == [uneven, neighbours]
    assert said(monkeypatch, Task()) == [OVERRIDDEN, uneven, neighbours]


def test_the_engine_is_named_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """-v says which it is, and which were passed over."""
    assert said(monkeypatch, TASK, "-v")[2:4] == [("note", "Slurm"), ("note", "MPICH")]
