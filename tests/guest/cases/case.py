"""What a case is, and a boot: a machine with what is run on it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.guest.machine import Machine

BINDERS = ("native", "numactl")
RUNTIMES = ("libgomp", "libomp", "libiomp5")


class Got(NamedTuple):
    """What a rank is to get: cpus, places in order, memory policy and its nodes. `threads`: the
    cpus of each thread, when they are not just the places in order; `pages`: the share that each
    node holds of what it touches, where that is settled."""

    cpus: str
    places: str
    mem: str = "none"
    mems: str = ""
    threads: str = ""
    pages: dict[str, float] | None = None


class Case(NamedTuple):
    """`touch`: MiB that each rank writes to; `mask`: what the launcher itself may use; `runtime`:
    the OpenMP library of the worker; `offline`: cpus that are so meanwhile."""

    why: str
    options: str
    ranks: tuple[Got, ...]
    touch: int = 4
    mask: str = ""
    runtime: str = "libgomp"
    offline: str = ""


class Refusal(NamedTuple):
    """What `show` refuses while these cpus are offline, with words of its error and of its hint.
    `saved`: `run` refuses it, with a plan that was saved before they were."""

    why: str
    options: str
    error: str
    hint: str
    offline: str = ""
    saved: bool = False


class Spoiling(NamedTuple):
    """Workers that are spoiled after their start: how (tests/guest/spoiled.py), the kinds of
    difference that verify is to find, and words of what it says."""

    options: str
    action: str
    arguments: str
    kinds: tuple[str, ...]
    words: str


class Rebinding(NamedTuple):
    """A program that runs on a node's cpus and goes to another node."""

    first: str
    old_node: int
    new_node: int
    cpus: str


class Boot(NamedTuple):
    """A machine and what is run on it. `shown`: `numactl --show` as the worker, the options and
    what its lines are to say; `measured`: whether memory is measured; `matrix`: options to run with
    every runtime; `scripts`: what a shell runs, for tests of their own; `stopped`: signals that end
    a launch, and the exit status that it then has (-N: ended by signal N)."""

    why: str
    machine: Machine
    cases: Mapping[str, Case]
    shown: Mapping[str, tuple[str, dict[str, str]]] = MappingProxyType({})
    spoiled: Mapping[str, Spoiling] = MappingProxyType({})
    rebound: Rebinding | None = None
    measured: bool = False
    matrix: Mapping[str, str] = MappingProxyType({})
    scripts: Mapping[str, str] = MappingProxyType({})
    stopped: Mapping[str, int] = MappingProxyType({})
    refused: Mapping[str, Refusal] = MappingProxyType({})
    binders: tuple[str, ...] = BINDERS
    architecture: str = "amd64"
