"""Moving pages: the system call and its arguments. What it is used for is in tests/rebind."""

from __future__ import annotations

import errno
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from ompbind.launch import running
from ompbind.launch.running import Moved, PageMover
from ompbind.machine.regions import Region

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind moves pages on Linux")


@pytest.mark.parametrize(
    ("machine", "wide", "number"),
    [
        ("x86_64", True, 279),
        ("x86_64", False, 317),  # a program of i386
        ("i686", False, 317),
        ("i586", False, 317),
        ("aarch64", True, 239),
        ("aarch64", False, 344),  # a program of arm
        ("armv7l", False, 344),
        ("armv8l", False, 344),
        ("ppc64", True, 301),
        ("ppc64le", True, 301),
        ("s390x", True, 310),
        ("riscv64", True, 239),
        ("loongarch64", True, 239),
        ("sparc64", True, 307),
    ],
)
def test_move_pages_has_the_kernels_number(
    machine: str, wide: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in its tables: arch/*/tools/syscall.tbl, and scripts/syscall.tbl for new machines."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    bits = SimpleNamespace(maxsize=2**63 - 1 if wide else 2**31 - 1)
    monkeypatch.setattr(running, "sys", bits)
    mover: Any = PageMover()
    called: list[int] = []

    def call(number: Any, *_: Any) -> int:
        called.append(number.value)
        return 0

    monkeypatch.setattr(mover, "_syscall", call)
    mover.call(9, [0x1000])
    assert called == [number]


def test_an_unknown_machine_moves_no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if its kernel had no such call: the numbers differ from machine to machine."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="vax"))
    with pytest.raises(OSError, match="not known on vax") as caught:
        PageMover()
    assert caught.value.errno == errno.ENOSYS


class Kernel:
    """Takes calls, and answers each of some pages with a status, the others not at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *statuses: int, result: int = 0) -> None:
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
        self.mover: Any = PageMover()
        self.statuses, self.result = statuses, result
        self.calls: list[tuple[Any, ...]] = []
        monkeypatch.setattr(self.mover, "_syscall", self.answer)
        monkeypatch.setattr(self.mover, "_errno", lambda: errno.EPERM)

    def answer(
        self, number: Any, pid: Any, count: Any, pages: Any, nodes: Any, status: Any, flags: Any
    ) -> int:
        wanted = None if nodes is None else list(nodes)
        self.calls.append((pid.value, count.value, list(pages), wanted, flags.value))
        for n, value in enumerate(self.statuses):
            status[n] = value
        return self.result


def test_pages_are_located(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nodes nothing is moved; of a page that the kernel does not answer for, there is
    none."""
    kernel = Kernel(monkeypatch, 0, -errno.EFAULT)
    addresses = [0x7F00_0000_1000, 0x2000, 0x3000]
    assert kernel.mover.call(9, addresses) == [0, -errno.EFAULT, -errno.ENOENT]
    assert kernel.calls == [(9, 3, addresses, None, 0)]


@pytest.mark.parametrize("result", [0, 1, 2])
def test_pages_are_moved(result: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each to its node, those that no other process maps; more than 0 is how many could not be,
    and of a page that the kernel does not answer for, it is not known."""
    kernel = Kernel(monkeypatch, 3, result=result)
    assert kernel.mover.call(9, [0x1000, 0x2000], [3, 0]) == [3, -errno.EBUSY]
    assert kernel.calls == [(9, 2, [0x1000, 0x2000], [3, 0], 2)]  # MPOL_MF_MOVE


def test_a_call_that_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """For another user's process, in the C library's words."""
    kernel = Kernel(monkeypatch, result=-1)
    with pytest.raises(PermissionError) as caught:
        kernel.mover.call(9, [0x1000])
    assert caught.value.strerror == os.strerror(errno.EPERM)


@pytest.mark.parametrize(
    ("places", "results", "after", "moved"),
    [
        ([1, 0, 1], [0, 0], [0, 0], Moved(2 * 4096)),
        # The kernel says why; where it gives a node, the page has come back since.
        ([1, 0, 1], [-errno.ENOMEM, 0], [1, 0], Moved(4096, 4096, errno.ENOMEM)),
        ([1, 0, 1], [0, 0], [0, 1], Moved(4096, 4096, errno.EBUSY)),
        # It is not there any more: neither moved nor left.
        ([1, 0, 1], [0, 0], [-errno.ENOENT, 0], Moved(4096)),
        ([0, -errno.ENOENT, 0], None, None, Moved()),
    ],
)
def test_what_has_become_of_pages(
    places: list[int],
    results: list[int] | None,
    after: list[int] | None,
    moved: Moved,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What counts is where they are afterwards."""
    kernel = Kernel(monkeypatch)
    answers = [answer for answer in (places, results, after) if answer is not None]
    asked: list[tuple[Any, ...]] = []

    def call(*args: Any) -> list[int]:
        asked.append(args)
        return answers.pop(0)

    monkeypatch.setattr(kernel.mover, "call", call)
    region = Region(4096, "default", False, False, 4096, ((0, 1), (1, 2)), 4 * 4096)
    assert kernel.mover.move_region(9, region, CpuSet([0])) == moved
    assert answers == []
    assert [list(args[1]) for args in asked[1:]] == [[4096, 3 * 4096]] * (len(asked) - 1)


def test_a_mask_is_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the kernel's silent refusals are errors there, too."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(running, "set_affinity", lambda *args: calls.append(args))
    running.set_mask(7, CpuSet([2]))
    assert calls == [(CpuSet([2]), 7)]
