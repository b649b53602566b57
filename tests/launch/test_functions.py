"""Functions of launch by themselves, with the system calls they make in place of the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from ompbind import errors, launch
from ompbind.cpuset import CpuSet
from ompbind.launch import (
    binding,
    descendants,
    outcome,
    output,
    parent,
    pipes,
    popen,
    portable,
    rank,
    supervisor,
    syscalls,
    warm,
)
from ompbind.launch import streams as streams_module
from ompbind.launch.binding import Refusal
from ompbind.launch.outcome import Ended
from ompbind.launch.rank import Settings, Start
from ompbind.launch.syscalls import Library, signal
from ompbind.plans import Binding, RankPlan
from tests.support.calls import Calls, noting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind runs workers on Linux")

THIS = 4242  # the pid of this process, where a test makes one up


class ExitedError(Exception):
    """In place of os._exit."""


def make_rank(number: int = 0, **more: Any) -> RankPlan:
    fields: dict[str, Any] = {
        "binding": Binding(CpuSet([number]), "bind", CpuSet([0])),
        "places": (),
        "nodes": CpuSet([0]),
        "env": (),
        "unset": (),
        "command": ("true",),
    }
    return RankPlan(number, **(fields | more))


def make_start(number: int = 0, **more: Any) -> Start:
    return Start(make_rank(number), "/bin/true", ("true", "x"), {b"A": b"1"}, **more)


def raises(*error: Any) -> Callable[..., NoReturn]:
    """Return a function that raises this OSError."""

    def call(*_: object, **__: object) -> NoReturn:
        raise OSError(*error)

    return call


def make_launch(calls: Calls) -> Any:
    """A launch of which only the lease is noted."""
    plan, settings = SimpleNamespace(ranks=()), Settings(output="inherit")
    return SimpleNamespace(drop_lease=noting(calls, "drop"), plan=plan, settings=settings)


# --- syscalls ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "name"),
    [(9, " (KILL)"), (6, " (ABRT)"), (17, " (CHLD)"), (29, " (IO)"), (2, " (INT)"),
     (34, " (RTMIN)"), (64, " (RTMAX)"), (40, ""), (0, "")],
)  # fmt: skip
def test_signals_have_names(number: int, name: str) -> None:
    """Linux' usual one where there are several; a number without a name stays one."""
    assert syscalls.name_signal(number) == f"signal {number}{name}"


def test_what_the_kernel_took_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the process that is bound; fewer cpus are an error."""
    calls: Calls = []
    monkeypatch.setattr(os, "sched_setaffinity", noting(calls, "set"))
    monkeypatch.setattr(os, "sched_getaffinity", noting(calls, "get", {0, 1}))
    syscalls.set_affinity(CpuSet([0, 1]))
    assert calls == [("set", 0, CpuSet([0, 1])), ("get", 0)]
    with pytest.raises(OSError, match="of cpus 0-2 the kernel took only 0-1") as caught:
        syscalls.set_affinity(CpuSet([0, 1, 2]), 7)
    assert caught.value.errno == errno.EINVAL
    assert calls[2:] == [("set", 7, CpuSet([0, 1, 2])), ("get", 7)]


@pytest.mark.parametrize(
    ("mem", "got", "fine"),
    [
        ("bind", (2, CpuSet([1])), True),
        ("bind", (0x8002, CpuSet([1])), True),
        ("bind", (0x4002, CpuSet([1])), True),
        ("bind", (0x2002, CpuSet([1])), True),
        ("bind", (0x1002, CpuSet([1])), False),
        ("bind", (2, CpuSet([0])), False),
        ("bind", (3, CpuSet([1])), False),
        ("interleave", (3, CpuSet([1])), True),
        ("preferred", (1, CpuSet([1])), True),
        ("local", (1, CpuSet()), True),
        ("none", (0, CpuSet([1])), True),
        ("none", (1, CpuSet([1])), False),
    ],
)
def test_the_memory_policy_is_read_back(mem: str, got: tuple[int, CpuSet], fine: bool) -> None:
    """The kernel's flags do not count, nor what it calls local; another policy is an error."""
    calls: Calls = []
    library: Any = SimpleNamespace(memory=noting(calls, "memory", got))
    if fine:
        syscalls.set_memory(mem, CpuSet([1]), library)
    else:
        with pytest.raises(OSError, match="the kernel made mode") as caught:
            syscalls.set_memory(mem, CpuSet([1]), library)
        assert caught.value.errno == errno.EINVAL
    mode = {"none": 0, "preferred": 1, "bind": 2, "interleave": 3, "local": 4}[mem]
    assert calls == [("memory", 0, mode, CpuSet([1])), ("memory", 1)]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    """The C library on a usual machine."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    return Library()


def test_set_mempolicys_arguments(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number, the mode, the nodes' bits and how many; without nodes none."""
    calls: Calls = []
    monkeypatch.setattr(library, "_call", noting(calls, "call"))
    assert library.memory(0, 2, CpuSet([0, 65, 1023])) == (2, CpuSet([0, 65, 1023]))
    _, function, number, mode, mask, length = calls.pop()
    assert function is library._syscall
    assert (number.value, mode.value, length.value) == (238, 2, 1025)
    assert list(mask) == [1, 2, *[0] * 13, 1 << 63]
    assert library.memory(0, 4) == (4, CpuSet())
    _, _, number, mode, mask, length = calls.pop()
    assert (number.value, mode.value, mask, length.value) == (238, 4, None, 0)
    assert library.memory(0)[0] == 0
    assert calls.pop()[3].value == 0


def test_get_mempolicys_arguments(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel writes the mode, an int, and the nodes' bits."""

    def call(function: Any, number: Any, mode: Any, mask: Any, length: Any, *rest: Any) -> None:
        assert function is library._syscall
        assert (number.value, length.value) == (239, 1025)
        assert [word.value for word in rest] == [0, 0]
        assert list(mask) == [0] * 16
        mode[0] = 0xDEAD_0000_0003
        mask[0], mask[1], mask[15] = 5, 2, 1

    monkeypatch.setattr(library, "_call", call)
    wide = library.memory(1)
    assert wide == (3, CpuSet([0, 2, 65, 960]))


def test_the_policy_of_this_thread_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Calls = []
    made = SimpleNamespace(memory=noting(calls, "memory", (2, CpuSet([1]))))
    monkeypatch.setattr(syscalls, "Library", lambda: made)
    assert syscalls.read_memory() == (2, CpuSet([1]))
    assert calls == [("memory", 1)]
    syscalls.set_memory("bind", CpuSet([1]))
    assert calls[1:] == [("memory", 0, 2, CpuSet([1])), ("memory", 1)]


def test_an_unknown_machine_has_no_memory_policy(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if its kernel had no such call: the numbers differ from machine to machine."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="vax"))
    with pytest.raises(OSError, match="not known on vax") as caught:
        library.memory(1)
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.parametrize(
    ("machine", "wide", "setting", "getting"),
    [
        ("x86_64", True, 238, 239),
        ("x86_64", False, 276, 275),  # a program of i386
        ("i686", False, 276, 275),
        ("i586", False, 276, 275),
        ("aarch64", True, 237, 236),
        ("aarch64", False, 321, 320),  # a program of arm
        ("armv7l", False, 321, 320),
        ("armv8l", False, 321, 320),
        ("ppc64", True, 261, 260),
        ("ppc64le", True, 261, 260),
        ("s390x", True, 270, 269),
        ("riscv64", True, 237, 236),
        ("loongarch64", True, 237, 236),
        ("sparc64", True, 305, 304),
    ],
)
def test_system_calls_have_the_kernels_numbers(
    machine: str,
    wide: bool,
    setting: int,
    getting: int,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in its tables: arch/*/tools/syscall.tbl, and scripts/syscall.tbl for new machines."""
    numbers: list[int] = []
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(syscalls, "sys", SimpleNamespace(
        maxsize=2**63 - 1 if wide else 2**31 - 1, byteorder=sys.byteorder
    ))  # fmt: skip
    monkeypatch.setattr(library, "_call", lambda _, number, *rest: numbers.append(number.value))
    library.memory(0)
    library.memory(1)
    assert numbers == [setting, getting]


def test_a_call_that_fails(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything but 0 is one; the C library's errno says why."""
    monkeypatch.setattr(library, "_errno", lambda: errno.EPERM)
    library._call(lambda *args: len(args) - 2, 1, 2)
    for result in (-1, 1):
        with pytest.raises(PermissionError) as caught:
            library._call(lambda result=result: result)
        assert (caught.value.errno, caught.value.strerror) == (1, os.strerror(1))


def test_prctls_arguments(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """All five; where there is no prctl, nothing is called."""
    calls: Calls = []
    result = 0
    monkeypatch.setattr(library, "_call", noting(calls, "call"))
    prepared = SimpleNamespace(prctl=lambda *words: noting(calls, "prctl", result)("", *words))
    monkeypatch.setattr(library, "_prepared", prepared)
    library.die_with_parent(15)
    library.adopt()
    numbers = [[1, 15, 0, 0, 0], [36, 1, 0, 0, 0]]
    assert [[c[0], *(a.value for a in c[2:])] for c in calls] == [["prctl", *n] for n in numbers]
    result = -1
    library.adopt()
    assert calls[3][:2] == ("call", library._prctl)  # again, for the error
    assert calls[3][2:] == calls[2][2:]
    monkeypatch.setattr(library, "_prctl", None)
    library.adopt()
    assert len(calls) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="its system calls are Linux's")
def test_why_a_call_failed(library: Library) -> None:
    """As the C library says it: no signal has this number."""
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)) as caught:
        library.die_with_parent(9999)
    assert caught.value.errno == errno.EINVAL


def test_a_system_without_prctl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is called, whatever the C library has under that name."""
    monkeypatch.setattr(syscalls, "sys", SimpleNamespace(platform="freebsd14"))
    library = Library()
    monkeypatch.setattr(library, "_call", raises("never"))
    assert library.prepare_death(signal.SIGKILL) == []
    library.die_with_parent(signal.SIGKILL)
    library.adopt()
    library.rename("name", "words", (0, 0))


@pytest.mark.parametrize(
    ("line", "size", "stands"),
    [
        ("ompbind", 9, b"ompbind\0\0."),
        ("ompbind", 8, b"ompbind\0.."),
        ("ompbind", 5, b"ompb\0....."),  # cut, with a byte 0 at its end
        ("ompbind", 1, b"\0........."),
        ("ompbind", 0, b".........."),
    ],
)
def test_another_name_and_command_line(
    line: str, size: int, stands: bytes, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is written where the old one stands, and no byte behind it."""
    calls: Calls = []
    monkeypatch.setattr(library, "_call", noting(calls, "call"))
    memory = ctypes.create_string_buffer(b"." * 10, 10)
    if size:
        memory[size - 1] = b"\0"
    start = ctypes.addressof(memory)
    library.rename("main", line, (start, start + size))
    assert memory.raw == stands
    ((_, function, option, name, *rest),) = calls
    assert (function, option.value, name) == (library._prctl, 15, b"main")
    assert [word.value for word in rest] == [0, 0, 0]


def test_calls_are_prepared_with_their_arguments(library: Library) -> None:
    """So that a child need only make them."""
    prepared: Any = library.prepare_death(signal.SIGTERM)
    ((call, words),) = prepared
    assert call is library._prepared.prctl
    assert [word.value for word in words] == [1, signal.SIGTERM, 0, 0, 0]
    assert library.prepare_move(5, 2) == (library._prepared.dup2, (5, 2))
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        call, words = library.prepare_mask([signal.SIGUSR1, signal.SIGCHLD])
        assert call(*words) == 0
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR1, signal.SIGCHLD}
        call, words = library.prepare_mask([])
        assert call(*words) == 0
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def test_a_program_is_prepared_with_its_words(library: Library) -> None:
    """Each list ends in NULL; what C cannot express is left to Python."""
    env = {b"A": b"1", b"B": b"x=y"}
    prepared = library.prepare_exec("/bin/true", ["true", "-x"], env)
    assert prepared is not None
    call, (path, argv, variables) = prepared
    assert (call, path) == (library._prepared.execve, b"/bin/true")
    assert list(argv) == [b"true", b"-x", None]  # type: ignore[call-overload]
    assert list(variables) == [b"A=1", b"B=x=y", None]  # type: ignore[call-overload]
    for words, odd in (
        (["true", "a\0b"], {}),
        (["true"], {b"A": b"a\0b"}),
        (["true"], {b"A=B": b"1"}),
        (["true"], {b"": b"1"}),
    ):
        assert library.prepare_exec("/bin/true", words, env | odd) is None


@pytest.mark.parametrize("handled", [True, False])
def test_pythons_signals_are_restored(handled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """PIPE, XFSZ, and INT if Python handles it; an ignored INT stays so."""
    handler, calls = object(), Calls()
    fake = SimpleNamespace(
        SIGINT=2, SIGPIPE=13, SIGXFSZ=25, SIG_DFL=0, default_int_handler=handler,
        getsignal=lambda _: handler if handled else 1, signal=noting(calls, "signal"),
    )  # fmt: skip
    monkeypatch.setattr(syscalls, "signal", fake)
    syscalls.restore_signals()
    ends = [("signal", 13, 0), ("signal", 25, 0)]
    assert calls == ([("signal", 2, 0)] if handled else []) + ends
    calls.clear()
    del fake.SIGXFSZ
    syscalls.restore_signals()
    assert calls[-1] == ends[0]


def test_signals_to_one_or_to_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is gone, or another user's, is no error."""
    calls: Calls = []
    monkeypatch.setattr(os, "kill", noting(calls, "kill"))
    monkeypatch.setattr(os, "killpg", noting(calls, "killpg"))
    syscalls.send_to(5, 15)
    syscalls.send_to(6, 2, group=True)
    assert calls == [("kill", 5, 15), ("killpg", 6, 2)]
    monkeypatch.setattr(os, "kill", raises(errno.ESRCH, "gone"))
    syscalls.send_to(5, 15)


# --- pipes ---------------------------------------------------------------------------------------


def test_descriptors_above_the_standard_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The low ones that were in between are closed, and a high one stays."""
    calls: Calls = []
    numbers: Iterator[int] = iter([1, 2, 3])
    monkeypatch.setattr(os, "dup", lambda _: next(numbers))
    monkeypatch.setattr(os, "close", noting(calls, "close"))
    assert pipes.move_up(0) == 3
    kept = pipes.move_up(3)
    monkeypatch.undo()
    assert (kept, calls) == (3, [("close", 0), ("close", 1), ("close", 2)])


def test_an_empty_message_that_was_cut() -> None:
    """Before its colon came, it is not there."""
    assert pipes.parse_messages(b"0") == []
    assert pipes.parse_messages(b"0:") == [()]
    assert pipes.parse_messages(b"2:0:0") == [("",)]


def test_a_pipe_that_takes_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the message is written after it."""
    written: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        written.append(data[:3])
        return len(written[-1])

    monkeypatch.setattr(os, "write", write)
    pipes.send(99, "ab", "c")
    monkeypatch.undo()
    assert b"".join(written) == b"7:2:ab1:c"


def test_reading_all_closes() -> None:
    """When the end came, and not before."""
    reader, writer = os.pipe()
    os.write(writer, b"x" * 1000)
    os.close(writer)
    assert pipes.read_all(reader) == b"x" * 1000
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)


@pytest.mark.parametrize("value", [None, 0, -3, True, "", "int 3", "none", "a b"])
def test_values_come_through(value: object) -> None:
    """None and numbers as what they are, all else as text."""
    assert pipes.parse_marked(pipes.mark_type(value)) == value


# --- outcome -------------------------------------------------------------------------------------


def ended(number: int, code: int, **more: Any) -> Ended:
    return Ended(make_start(number), 100 + number, code, 12.34, 3 << 20, **more)


def test_how_a_rank_ended() -> None:
    """In one line, with the status that a shell reports."""
    assert ended(3, 0).status == 0
    assert ended(3, 7).status == 7
    assert ended(3, -9).status == 137
    assert ended(3, 1).rank == 3
    line = outcome.make_line(ended(3, -9, remark="core dumped"))
    start = "rank 3 (pid 103) ended by signal 9 (KILL) (core dumped) after 12.3 s, peak memory "
    assert line == f"{start}3.0 MiB"
    assert outcome.make_line(ended(0, 0)).startswith("rank 0 (pid 100) ended with status 0 after ")


@pytest.mark.parametrize(
    ("code", "due"),
    [(0, True), (-15, True), (143, True), (-9, False), (137, False), (15, False), (1, False),
     (128, False), (-1, False)],
)  # fmt: skip
def test_whose_fault_an_end_was(code: int, due: bool) -> None:
    """The signal's that was sent, or its status; a success is nobody's."""
    assert outcome.is_due_to(code, frozenset([15])) is due


def test_many_ends_are_two_lines() -> None:
    """Those that were ended and those that failed meanwhile; one rank is named."""
    sent = frozenset([15])
    why = "because rank 1 had failed"
    three = [ended(0, -15), ended(2, 143), ended(3, -15)]
    ends = "3 ranks were ended because rank 1 had failed: 2 by signal 15 (TERM), 1 with status 143"
    failed = "2 ranks exited meanwhile: 2 with status 1"
    assert outcome.make_summaries([], sent, why) == []
    assert outcome.make_summaries(three, sent, why) == [ends]
    both = [*three, ended(4, 1), ended(5, 1)]
    assert outcome.make_summaries(both, sent, why) == [ends, failed]
    assert outcome.make_summaries([ended(4, 1)], sent, why) == [
        "rank 4 exited meanwhile: with status 1"
    ]
    assert outcome.make_summaries([ended(6, -15)], sent, why) == [
        "rank 6 was ended because rank 1 had failed: by signal 15 (TERM)"
    ]


# --- descendants ---------------------------------------------------------------------------------


def test_descendants_without_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever those started is left out as well."""
    this = 7  # as /proc numbers this process
    parents = {11: this, 12: 11, 13: this, 14: 13, 15: 14, 99: 1}
    monkeypatch.setattr(descendants, "read_parents", lambda _: parents)
    monkeypatch.setattr(descendants, "read_numbers", lambda *_: (this, 2))
    assert descendants.list_children() == [11, 13]
    assert descendants.list_descendants() == {n: p for n, p in parents.items() if n != 99}
    assert descendants.list_descendants([13]) == {11: this, 12: 11}
    assert descendants.list_descendants([14, 50]) == {11: this, 12: 11, 13: this}


def test_a_system_that_lists_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nothing is mounted at /proc: nobody is known, and nobody gets a signal."""
    monkeypatch.setattr(descendants, "read_parents", lambda _: {})
    monkeypatch.setattr(descendants, "read_numbers", lambda *_: ())
    assert descendants.list_descendants() == {}
    assert descendants.list_children() == []
    assert descendants.send_to_descendants(9) == []


@pytest.mark.parametrize(
    ("parent_now", "sent"), [(7, True), (THIS, True), (8, False), (None, False)]
)
@pytest.mark.parametrize("fd", [50, None])
def test_signals_only_to_who_is_still_ours(
    parent_now: int | None, sent: bool, fd: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child of whom it was, or ours by now; its descriptor is closed in any case."""
    calls: Calls = []
    monkeypatch.setattr(descendants, "open_process", noting(calls, "open", fd))
    monkeypatch.setattr(descendants, "read_parent", lambda _, pid: parent_now)
    monkeypatch.setattr(descendants, "send_through", noting(calls, "send"))
    monkeypatch.setattr(os, "close", noting(calls, "close"))
    descendants.send_to_descendant(5, 7, (15, 18), (THIS,))
    monkeypatch.setattr(descendants, "send_through", raises(errno.EPERM, "no"))
    descendants.send_to_descendant(6, 7, (15,), (THIS,))
    monkeypatch.undo()
    close = [("close", fd)] if fd else []
    sends = [("send", fd, 5, 15), ("send", fd, 5, 18)] if sent else []
    assert calls == [("open", 5), *sends, *close, ("open", 6), *close]


def test_every_descendant_gets_every_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """And their pids are returned."""
    calls: Calls = []
    monkeypatch.setattr(descendants, "list_descendants", noting(calls, "list", {5: 7, 6: 5}))
    monkeypatch.setattr(descendants, "send_to_descendant", noting(calls, "send"))
    assert descendants.send_to_descendants(15, 18, without=[9]) == [5, 6]
    ours = (os.getpid(),)
    sends = [("send", 5, 7, (15, 18), ours), ("send", 6, 5, (15, 18), ours)]
    assert calls == [("list", [9]), *sends]


def test_the_numbers_of_an_outer_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals go to the number that a process has here; not to one that has exited meanwhile, or
    that is not in this namespace."""
    numbers: dict[Any, list[tuple[int, ...]]]
    numbers = {5: [(5, 50)] * 2, 6: [(6, 60), ()], 7: [(7,)], 8: [(8, 80, 3)] * 2}
    sent: Calls = []
    monkeypatch.setattr(descendants, "open_process", lambda _: None)
    monkeypatch.setattr(descendants, "read_parent", lambda *_: 4)
    monkeypatch.setattr(descendants, "read_numbers", lambda _, pid: numbers[pid].pop(0))
    monkeypatch.setattr(descendants, "send_through", noting(sent, "send"))
    for pid in (5, 6, 7, 8):
        descendants.send_to_descendant(pid, 4, (15,), (3, 30))
    assert sent == [("send", None, 50, 15), ("send", None, 80, 15)]


def test_a_process_has_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where the system has none, nor where it refuses."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", lambda pid: pid + 1, raising=False)
        fake = SimpleNamespace(pidfd_send_signal=None)
        patch.setattr(descendants, "signal", fake)
        assert descendants.open_process(5) == 6
        patch.setattr(os, "pidfd_open", raises(errno.ENOSYS, "none"))
        assert descendants.open_process(5) is None
        patch.setattr(os, "pidfd_open", lambda pid: pid + 1)
        del fake.pidfd_send_signal
        assert descendants.open_process(5) is None
        patch.delattr(os, "pidfd_open")
        fake.pidfd_send_signal = None
        assert descendants.open_process(5) is None


@pytest.mark.parametrize(
    ("error", "killed"), [(None, False), (errno.EPERM, True), (errno.ENOSYS, True)]
)
def test_through_the_descriptor_or_to_the_pid(
    error: int | None, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pid where there is no descriptor, or the call is denied."""
    calls: Calls = []
    through = raises(error, "no") if error else noting(calls, "through")
    monkeypatch.setattr(descendants, "signal", SimpleNamespace(pidfd_send_signal=through))
    monkeypatch.setattr(os, "kill", noting(calls, "kill"))
    descendants.send_through(50, 5, 15)
    descendants.send_through(None, 6, 9)
    first = ("kill", 5, 15) if killed else ("through", 50, 15)
    assert calls == [first, ("kill", 6, 9)]


def test_a_process_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other one gets its signal."""
    fake = SimpleNamespace(pidfd_send_signal=raises(errno.ESRCH, "gone"))
    monkeypatch.setattr(descendants, "signal", fake)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("sent to the pid"))
    with pytest.raises(ProcessLookupError):
        descendants.send_through(50, 5, 15)


def test_the_end_of_descendants_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again until none is left, or so many seconds have passed."""
    now, calls, rounds = [100.0], Calls(), [[5, 6], [5, 6], [6], []]
    clock = SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s)
    )
    monkeypatch.setattr(descendants, "time", clock)
    monkeypatch.setattr(descendants, "reap", noting(calls, "reap"))

    def send(*args: Any, without: Any) -> list[int]:
        calls.append((*args, without))
        return rounds.pop(0)

    monkeypatch.setattr(descendants, "send_to_descendants", send)
    assert descendants.end_descendants([3]) == []
    assert calls == [(9, [3]), ("reap",)] * 4
    assert now[0] == pytest.approx(100.06)
    monkeypatch.setattr(descendants, "send_to_descendants", lambda *_, without: [6])
    assert descendants.end_descendants(patience=1.0) == [6]
    assert now[0] == pytest.approx(101.06, abs=0.05)
    assert descendants.end_descendants() == [6]
    assert now[0] == pytest.approx(106.06, abs=0.1)


def test_all_that_has_exited_is_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a child still runs, or there is none."""
    exits: list[int | None] = [5, 6, 0]
    asked: Calls = []

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        asked.append((pid, options))
        child = exits.pop(0)
        if child is None:
            raise ChildProcessError
        return child, 0

    monkeypatch.setattr(os, "waitpid", waitpid)
    descendants.reap()
    assert (exits, asked) == ([], [(-1, os.WNOHANG)] * 3)
    exits = [7, None]
    descendants.reap()
    assert exits == []


# --- rank ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stdin", "reader", "redirects"),
    [("", 0, False), ("0", 0, False), ("3", 3, True), ("all", None, False), ("none", None, True)],
)
def test_who_reads_standard_input(stdin: str, reader: int | None, redirects: bool) -> None:
    """Rank 0 by default; files are other streams as well."""
    settings = Settings(stdin=stdin)
    assert (settings.reader, settings.redirects) == (reader, redirects)
    assert Settings(output_dir="x", stdin=stdin).redirects


def test_defaults_of_a_launch() -> None:
    """What ompbind does unless it is asked for something else."""
    settings = Settings()
    assert (settings.on_denied, settings.on_failure, settings.grace) == ("error", "stop", 10.0)
    flags = (settings.watched, settings.may_switch, settings.leave_children, settings.overwrite,
             settings.verbose, settings.verify_strict, settings.quiet,
             settings.report_bindings)  # fmt: skip
    assert flags == (False,) * 8
    assert (settings.verify, settings.prove) == (None, None)


def test_redirected_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each becomes its standard stream; descriptor 0 is one as any."""
    assert make_start().moves == ()
    calls: Calls = []
    monkeypatch.setattr(os, "dup2", noting(calls, "dup2"))
    for n, name in enumerate(("stdin", "stdout", "stderr")):
        start = make_start(**{name: 0})
        assert start.moves == ((0, n),)
        rank.redirect(start)
        assert calls.pop() == ("dup2", 0, n)
        assert calls == []


@pytest.mark.parametrize("binder", ["native", "numactl"])
def test_programs_are_looked_up_once(binder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each command and PATH that ranks have, and numactl where it binds."""
    calls: Calls = []

    def require(name: str, environ: dict[str, str]) -> str:
        calls.append((name, environ["PATH"], environ["A"]))
        return f"{environ['PATH']}/{name}"

    monkeypatch.setattr(rank, "require_program", require)
    ranks = [make_rank(0), make_rank(1), make_rank(2, env=(("PATH", "/own"),)),
             make_rank(3, command=("other",))]  # fmt: skip
    plan: Any = SimpleNamespace(ranks=ranks, binder=binder)
    programs = rank.find_programs(plan, {"PATH": "/bin", "A": "1"})
    numactl = [("numactl", "/bin", "1")] * (binder == "numactl")
    assert programs == {
        ("true", None): "/bin/true", ("true", "/own"): "/own/true", ("other", None): "/bin/other",
    } | {(name, None): f"/bin/{name}" for name, _, _ in numactl}  # fmt: skip
    assert calls == [*numactl, ("true", "/bin", "1"), ("true", "/own", "1"),
                     ("other", "/bin", "1")]  # fmt: skip


@pytest.mark.parametrize("binder", ["native", "numactl"])
def test_starts(binder: str) -> None:
    """Of the worker itself or of numactl; a rank's variables win over what is unset."""
    bound = Binding(CpuSet([2]), binder=binder)
    one = make_rank(0, binding=bound, env=(("A", "2"), ("B", "\udcff")), unset=("A", "C", "no"))
    two = make_rank(1, binding=Binding(binder=binder))
    plan: Any = SimpleNamespace(ranks=[one, two], binder=binder)
    programs: Any = {("true", None): "/x/true", ("numactl", None): "/bin/numactl"}
    environ = {"A": "1", "C": "3", "D": "4"}
    starts = rank.make_starts(plan, environ, programs)
    assert rank.Launch(plan, environ, programs, Settings()).make_starts() == starts
    assert starts[0].env == {b"A": b"2", b"B": b"\xff", b"D": b"4"}
    assert starts[1].env == {b"A": b"1", b"C": b"3", b"D": b"4"}
    through = ("/bin/numactl", ("numactl", "--physcpubind=2", "true"))
    paths = [(start.path, start.argv) for start in starts]
    assert paths[0] == (through if binder == "numactl" else ("/x/true", ("true",)))
    assert paths[1] == ("/x/true", ("true",))
    assert rank.make_environ(one, environ) == {"A": "2", "B": "\udcff", "D": "4"}


def test_a_launch_lets_its_cpus_go() -> None:
    """Where it holds them."""
    calls: Calls = []
    plan: Any = "plan"
    lease: Any = SimpleNamespace(close=noting(calls, "close"))
    for held in (lease, None):
        rank.Launch(plan, {}, {}, Settings(), held).drop_lease()
    assert calls == [("close",)]


@pytest.mark.parametrize(
    ("mem", "nodes", "balancing", "mode"),
    [
        ("preferred", "0,2", False, 5),  # MPOL_PREFERRED_MANY
        ("weighted-interleave", "0-1", False, 6),
        ("bind", "0-1", True, 0x2002),  # with MPOL_F_NUMA_BALANCING
    ],
)
def test_policies_of_recent_kernels(mem: str, nodes: str, balancing: bool, mode: int) -> None:
    """Their numbers of the kernel's mempolicy.h; one that it takes without the flag is an error."""
    mems = CpuSet.parse_kernel(nodes)
    calls: Calls = []
    library: Any = SimpleNamespace(memory=noting(calls, "memory", (mode, mems)))
    syscalls.set_memory(mem, mems, library, balancing=balancing)
    assert calls == [("memory", 0, mode, mems), ("memory", 1)]
    library = SimpleNamespace(memory=noting(calls, "memory", ({5: 1, 6: 3}.get(mode, 2), mems)))
    with pytest.raises(OSError, match="the kernel made mode"):
        syscalls.set_memory(mem, mems, library, balancing=balancing)


def test_buffers_are_written_if_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has no stream where a descriptor was closed."""
    calls: Calls = []
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(flush=noting(calls, "out")))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(flush=noting(calls, "err")))
    rank.flush()
    monkeypatch.setattr(sys, "stdout", None)
    rank.flush()
    monkeypatch.undo()
    assert calls == [("out",), ("err",), ("err",)]


@pytest.mark.parametrize(("stderr", "copy"), [(None, 20), (7, 20), (7, 0)])
def test_a_worker_that_cannot_be_executed(
    stderr: int | None, copy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is reported on the standard error that ompbind had."""
    calls: Calls = []
    monkeypatch.setattr(rank, "flush", noting(calls, "flush"))
    monkeypatch.setattr(rank, "restore_signals", noting(calls, "restore"))
    monkeypatch.setattr(os, "dup", noting(calls, "dup", copy))
    monkeypatch.setattr(os, "dup2", noting(calls, "dup2"))
    monkeypatch.setattr(os, "execve", raises(errno.ENOEXEC, "no program"))
    start = make_start(stderr=stderr)
    with pytest.raises(errors.CommandError) as caught:
        rank.execute(start)
    monkeypatch.undo()
    assert caught.value.status == 126
    assert caught.value.message == "rank 0: 'true' cannot be executed: no program"
    moved = [("dup", 2), ("dup2", 7, 2), ("dup2", copy, 2)] if stderr else []
    assert calls == [("flush",), ("restore",), *moved]


@pytest.mark.parametrize("on_denied", ["error", "degrade"])
def test_the_only_rank_whose_binding_is_denied(
    on_denied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not started, or started without that part."""
    calls: Calls = []
    refusals = [Refusal(0, "cpus", "no"), Refusal(0, "memory", "never")]
    monkeypatch.setattr(rank, "try_binding", noting(calls, "try", refusals))
    planned, said = make_start().rank, list[str]()
    if on_denied == "error":
        with pytest.raises(errors.DeniedError, match="refuses to bind cpus 0"):
            rank.bind(planned, on_denied, said.append)
        assert said == []
    else:
        bound = rank.bind(planned, on_denied, said.append)
        assert ["cpus unbound" in said[0], "memory unbound" in said[1]] == [True, True]
        assert (bound.cpus, bound.mem) == (CpuSet(), "none")
    assert calls == [("try", 0, planned.binding)]


@pytest.mark.parametrize("orphan", [False, True])
def test_dying_with_the_parent(orphan: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with one that died before the kernel was asked."""
    calls: Calls = []
    monkeypatch.setattr(
        rank, "Library", lambda: SimpleNamespace(die_with_parent=noting(calls, "die"))
    )
    monkeypatch.setattr(os, "getppid", lambda: 1 if orphan else 50)
    monkeypatch.setattr(os, "kill", noting(calls, "kill"))
    rank.die_with(50)
    monkeypatch.undo()
    assert calls == [("die", 15)] + ([("kill", os.getpid(), 15)] if orphan else [])


# --- binding -------------------------------------------------------------------------------------


def test_what_is_denied_of_a_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part for itself, in the system's words; what is not asked for is not tried."""
    calls: Calls = []
    monkeypatch.setattr(syscalls, "set_affinity", noting(calls, "cpus"))
    monkeypatch.setattr(syscalls, "set_memory", noting(calls, "memory"))
    both = Binding(CpuSet([1]), "bind", CpuSet([0]))
    assert binding.try_binding(2, both) == []
    memory = ("memory", "bind", CpuSet([0]), None, ("balancing", False))
    assert calls == [("cpus", CpuSet([1])), memory]
    assert binding.try_binding(2, Binding()) == []
    assert len(calls) == 2
    monkeypatch.setattr(syscalls, "set_affinity", raises(errno.EPERM, "no"))
    monkeypatch.setattr(syscalls, "set_memory", raises("never"))
    assert binding.try_binding(2, both) == [Refusal(2, "cpus", "no"), Refusal(2, "memory", "never")]
    monkeypatch.setattr(syscalls, "set_affinity", raises("odd"))
    monkeypatch.setattr(syscalls, "set_memory", raises(errno.EPERM, "no"))
    assert binding.try_binding(2, both) == [Refusal(2, "cpus", "odd"), Refusal(2, "memory", "no")]


def test_inherited_restrictions_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask always, the memory policy if there is one; what is denied is an error."""
    calls: Calls = []
    policy = [0]
    monkeypatch.setattr(syscalls, "set_affinity", noting(calls, "cpus"))
    monkeypatch.setattr(syscalls, "read_memory", lambda: (policy[0], CpuSet()))
    monkeypatch.setattr(
        syscalls, "Library", lambda: SimpleNamespace(memory=noting(calls, "memory"))
    )
    binding.reset_inherited(CpuSet([0, 1]))
    assert calls == [("cpus", CpuSet([0, 1]))]
    policy[0] = 3
    binding.reset_inherited(CpuSet([0, 1]))
    assert calls[2:] == [("memory", 0, 0)]
    monkeypatch.setattr(syscalls, "read_memory", raises(errno.ENOSYS, "no such call"))
    binding.reset_inherited(CpuSet([0, 1]))
    monkeypatch.setattr(syscalls, "read_memory", raises(errno.EPERM, "no"))
    with pytest.raises(errors.DeniedError, match="policy cannot be reset: no") as caught:
        binding.reset_inherited(CpuSet([0, 1]))
    assert caught.value.data == {"part": "memory", "rank": 0}
    monkeypatch.setattr(syscalls, "set_affinity", raises(errno.EPERM, "never"))
    with pytest.raises(errors.DeniedError, match="cannot be widened to 0-1: never") as caught:
        binding.reset_inherited(CpuSet([0, 1]))
    assert caught.value.data == {"part": "cpus", "rank": 0}


@pytest.mark.parametrize(
    ("binder", "ranks", "numactl", "kernel", "result"),
    [
        ("none", 2, "no", True, []),
        ("native", 2, "no", True, ["cpus"]),
        ("native", 1, "no", False, []),
        ("numactl", 1, None, True, []),
        ("numactl", 2, None, True, ["cpus"]),
        ("numactl", 2, None, False, []),
        ("numactl", 1, "no", True, ["cpus"]),
        ("numactl", 1, "no", False, ["numactl"]),
    ],
)
def test_how_a_plan_is_tried(
    binder: str,
    ranks: int,
    numactl: str | None,
    kernel: bool,
    result: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By numactl where it binds, and by system calls for what it cannot tell."""
    refusals = [Refusal(5, "cpus", "no")] if kernel else []
    monkeypatch.setattr(binding, "probe_numactl", lambda *_: numactl)
    monkeypatch.setattr(binding, "probe_system_calls", lambda _: refusals)
    plan: Any = SimpleNamespace(binder=binder, ranks=[make_rank(5 + n) for n in range(ranks)])
    refused = binding.probe(plan, {})
    assert [r.part for r in refused] == result
    assert all((r.rank, r.reason) == (5, "no") for r in refused)


def test_each_binding_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, by the first rank that has it."""

    def try_binding(number: int, bound: Binding) -> list[Refusal]:
        return [Refusal(number, "cpus", str(bound.cpus)), Refusal(number, "memory", "no")]

    monkeypatch.setattr(binding, "try_binding", try_binding)
    same = Binding(CpuSet([4]))
    plan: Any = SimpleNamespace(
        ranks=[make_rank(3, binding=same), make_rank(4, binding=same), make_rank(5)]
    )
    assert [(r.rank, r.part, r.reason) for r in binding.probe_system_calls(plan)] == [
        (3, "cpus", "4"), (3, "memory", "no"), (5, "cpus", "5"), (5, "memory", "no"),
    ]  # fmt: skip
    monkeypatch.setattr(binding, "try_binding", lambda *_: os.kill(os.getpid(), 9))
    with pytest.raises(errors.DeniedError, match="was killed") as caught:
        binding.probe_system_calls(plan)
    assert caught.value.data == {"part": "cpus", "rank": 0}


def test_the_process_that_tries_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports what is denied, and exits; not with success where it could not try. It never goes on
    as its parent would."""
    calls: Calls = []
    refusals = [Refusal(5, "cpus", "no")]

    def leave(status: int) -> NoReturn:
        calls.append(("leave", status != 0))
        raise ExitedError

    def go() -> Calls:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe", lambda: (20, 21))
            patch.setattr(os, "fork", lambda: 0)
            patch.setattr(os, "close", noting(calls, "close"))
            patch.setattr(os, "_exit", leave)
            with pytest.raises(ExitedError):
                binding.probe_system_calls(plan)
        return calls

    monkeypatch.setattr(pipes, "send", noting(calls, "send"))
    monkeypatch.setattr(binding, "try_binding", lambda *_: refusals)
    plan: Any = SimpleNamespace(ranks=[make_rank(5)])
    assert go()[:3] == [("close", 20), ("send", 21, "5", "cpus", "no"), ("leave", False)]
    calls.clear()
    monkeypatch.setattr(binding, "try_binding", raises(errno.ENOMEM, "no memory"))
    assert go() == [("close", 20), ("leave", True)]


@pytest.mark.parametrize("status", [0, 9, 256])
def test_who_waits_for_bindings_to_be_tried(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gets what the process has reported, unless that has not come to its end."""
    calls: Calls = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", lambda: (20, 21))
        patch.setattr(os, "fork", lambda: 50)
        patch.setattr(os, "close", noting(calls, "close"))
        patch.setattr(os, "waitpid", noting(calls, "wait", (50, status)))
        patch.setattr(pipes, "receive", noting(calls, "receive", [("3", "cpus", "no")]))
        plan: Any = SimpleNamespace(ranks=[make_rank(3)])
        if status:
            with pytest.raises(errors.DeniedError, match="was killed"):
                binding.probe_system_calls(plan)
        else:
            assert binding.probe_system_calls(plan) == [Refusal(3, "cpus", "no")]
    assert calls == [("close", 21), ("receive", 20), ("wait", 50, 0)]


SHOWN = "policy: bind\nphyscpubind: 0 1 \nmembind: 0 \n"


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (0, SHOWN, None),
        (0, "", None),
        (0, SHOWN.replace("0 1", "0"), "asked for physcpubind 0-1, it bound to 0"),
        (0, SHOWN.replace("membind: 0", "membind: 0 1"), "asked for membind 0, it bound to 0 1"),
        (1, "first\nsecond\nlibnuma: last\n", "libnuma: last"),
        (3, "\n", "exit status 3"),
    ],
)
def test_what_numactl_says(
    status: int, text: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must bind all cpus and nodes, as its own --show tells."""
    calls: Calls = []
    monkeypatch.setattr(binding, "require_program", lambda *_: "/bin/numactl")
    monkeypatch.setattr(binding, "capture", noting(calls, "run", (status, text)))
    plan: Any = SimpleNamespace(ranks=[make_rank(0), make_rank(1)])
    assert binding.probe_numactl(plan, {"A": "1"}) == reason
    argv = ("numactl", "--physcpubind=0-1", "--membind=0", "/bin/numactl", "--show")
    assert calls == [("run", "/bin/numactl", argv, {"A": "1"})]


def test_numactl_is_tried_for_each_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One preferred node of several ranks' is enough, and only bind is compared; nothing to bind is
    not tried."""
    calls: Calls = []
    monkeypatch.setattr(binding, "require_program", lambda *_: "/bin/numactl")
    monkeypatch.setattr(binding, "capture", noting(calls, "run", (0, "membind: 0 1")))
    nodes = CpuSet([0, 1])
    bound = [
        Binding(),
        Binding(CpuSet([3]), "preferred", nodes),
        Binding(CpuSet([4]), "bind", nodes),
        Binding(CpuSet([5]), "bind", nodes, balancing=True),
    ]
    plan: Any = SimpleNamespace(ranks=[make_rank(n, binding=b) for n, b in enumerate(bound)])
    assert binding.probe_numactl(plan, {}) is None
    assert [call[2][1:-2] for call in calls] == [
        ("--physcpubind=3", "--preferred-many=0-1"),
        ("--physcpubind=4", "--membind=0-1"),
        ("--physcpubind=5", "--balancing", "--membind=0-1"),
    ]
    for mem, mems, words in (
        ("preferred", ([0], [1]), "--preferred=0"),
        ("preferred", ([0], [0, 1]), "--preferred-many=0-1"),
        ("bind", ([0], [1]), "--membind=0-1"),
    ):
        ones = [Binding(CpuSet([n]), mem, CpuSet(of)) for n, of in enumerate(mems)]
        plan = SimpleNamespace(ranks=[make_rank(n, binding=b) for n, b in enumerate(ones)])
        assert binding.probe_numactl(plan, {}) is None
        assert calls[-1][2][1:-2] == ("--physcpubind=0-1", words)


@pytest.mark.parametrize(
    ("options", "release", "message", "hint"),
    [
        (("preferred", "0-1", False), "5.14.0-503.el9.x86_64",
         "preferred 0-1: Linux 5.15 has it, this is 5.14.0-503.el9.x86_64",
         "--mem preferred of a single node"),
        (("weighted-interleave", "0-1", False), "6.8.12", "Linux 6.9 has it, this is 6.8.12",
         "--mem interleave takes as much of each node"),
        (("bind", "0-1", True), "5.4", "bind 0-1 with balancing: Linux 5.12 has it, this is 5.4",
         "leave --mem-balancing out"),
        (("bind", "0-1", True), "6.1.0", "", "--mem none does not ask"),
        (("bind", "0-1", True), "5.11.0+", "Linux 5.12 has it, this is 5.11.0+", "leave"),
        (("bind", "0-1", True), "5.12.0-1", "", "--mem none does not ask"),
        (("weighted-interleave", "0-1", False), "6.10.3", "", "--mem none does not ask"),
        (("bind", "0-1", False), "5.4", "", "--mem none does not ask"),
        (("preferred", "0", False), "5.4", "", "--mem none does not ask"),
        (("preferred", "0-1", False), "odd", "", "--mem none does not ask"),
    ],
)  # fmt: skip
def test_a_kernel_that_lacks_a_policy(
    options: tuple[str, str, bool],
    release: str,
    message: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is named, with the first that has the policy; else the kernel's own word counts."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    mem, nodes, balancing = options
    bound = Binding(CpuSet([3]), mem, CpuSet.parse_kernel(nodes), balancing=balancing)
    error = binding.make_denied(make_rank(0, binding=bound), Refusal(0, "memory", "Invalid"))
    assert error.message.endswith(message or "(set_mempolicy: Invalid)")
    assert error.message.startswith("rank 0: this kernel is too old for memory: ") is bool(message)
    assert hint in error.hint
    cpus = binding.make_denied(make_rank(0, binding=bound), Refusal(0, "cpus", "Invalid"))
    assert cpus.message.endswith("refuses to bind cpus 3 (sched_setaffinity: Invalid)")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kernel", [True, False])
def test_libnuma_does_not_decide_what_the_kernel_has(
    kernel: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would silently prefer a single node: the system call is tried first."""
    refusals = [] if kernel else [Refusal(0, "memory", "Invalid argument")]
    monkeypatch.setattr(binding, "probe_system_calls", lambda _: refusals)
    monkeypatch.setattr(binding, "probe_numactl", lambda *_: None)
    bound = Binding(CpuSet([3]), "preferred", CpuSet([0, 1]), "numactl")
    ranks = [make_rank(0, binding=bound), make_rank(1)][:count]
    plan: Any = SimpleNamespace(binder="numactl", ranks=ranks)
    assert binding.probe(plan, {}) == refusals


def test_numactl_that_was_found_is_the_one_that_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not looked up again."""
    calls: Calls = []
    monkeypatch.setattr(binding, "capture", noting(calls, "run", (0, "")))
    plan: Any = SimpleNamespace(binder="numactl", ranks=[make_rank(0)])
    assert binding.probe(plan, {"PATH": ""}, "/own/numactl") == []
    assert [call[1] for call in calls] == ["/own/numactl"]


def test_what_a_program_writes_is_captured() -> None:
    """On both streams, with its status, in English."""
    script = 'echo "$A $LC_ALL"; echo err >&2; exit 3'
    status, text = binding.capture("/bin/sh", ("sh", "-c", script), {"A": "b", "LC_ALL": "de"})
    assert (status, text) == (3, "b C\nerr\n")


def test_how_a_program_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of its streams are one pipe, of which this process keeps no end for writing; what is no
    text is replaced."""
    calls: Calls = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", lambda: (20, 21))
        patch.setattr(os, "posix_spawn", noting(calls, "spawn", 50))
        patch.setattr(os, "close", noting(calls, "close"))
        patch.setattr(pipes, "read_all", noting(calls, "read", b"a\xff"))
        patch.setattr(os, "waitpid", noting(calls, "wait", (50, 3 << 8)))
        assert binding.capture("/x/p", ("p", "a"), {"A": "b", "LC_ALL": "de"}) == (3, "a\ufffd")
    streams = [(os.POSIX_SPAWN_DUP2, 21, 1), (os.POSIX_SPAWN_DUP2, 21, 2)]
    env = {"A": "b", "LC_ALL": "C"}
    spawned = ("spawn", "/x/p", ("p", "a"), env, ("file_actions", streams))
    assert calls == [spawned, ("close", 21), ("read", 20), ("wait", 50, 0)]


def test_denied_parts_are_left_out() -> None:
    """Each is reported once, by the first rank of which it was denied."""
    from ompbind.planner import make_plan
    from tests.support.machines import MACHINES, make_asked

    plan = make_plan(MACHINES["server"], make_asked(["-n", "2", "--mem", "bind"]))
    refusals = [Refusal(1, "memory", "no"), Refusal(0, "memory", "never"), Refusal(1, "cpus", "no")]
    said: list[str] = []
    assert binding.apply_on_denied(plan, [], "error", said.append) is plan
    with pytest.raises(errors.DeniedError, match=r"rank 1: .* bind memory: bind .*: no\)"):
        binding.apply_on_denied(plan, refusals, "error", said.append)
    assert said == []
    left = binding.apply_on_denied(plan, refusals, "degrade", said.append)
    assert ["; continuing with cpus unbound" in said[0], "rank 1: " in said[1]] == [True, True]
    assert len(said) == 2
    assert [(r.cpus, r.mem) for r in left.ranks] == [(CpuSet(), "none")] * 2
    switched = binding.apply_on_denied(plan, [Refusal(0, "numactl", "x")], "degrade", said.append)
    assert said[2].startswith("numactl cannot bind as planned: x; continuing with the same system")
    assert [r.binding.binder for r in switched.ranks] == ["native"] * 2


@pytest.mark.parametrize(
    ("part", "hints"),
    [("numactl", ["--binder native"]), ("cpus", ["--on-denied degrade"]),
     ("memory", ["--on-denied degrade", "--mem none"])],
)  # fmt: skip
def test_what_to_do_where_a_binding_is_denied(part: str, hints: list[str]) -> None:
    """Only what helps with that part."""
    error = binding.make_denied(make_rank(3), Refusal(3, part, "no"))
    named = [h for h in ("--binder native", "--on-denied degrade", "--mem none") if h in error.hint]
    assert (named, error.data) == (hints, {"rank": 3, "part": part})


# --- parent --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exits", "status"),
    [([(0, 0)], None), ([(7, 256)], 256), ([(5, 9), (7, 0)], 0), ([(5, 9), (0, 0)], None),
     ([(5, 9), None], None), ([(7, 3), (5, 9)], 3)],
)  # fmt: skip
def test_the_supervisors_exit_among_others(
    exits: list[tuple[int, int] | None], status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other children, which came with the process, are reaped as well."""
    left = list(exits)

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        assert (pid, options) == (-1, os.WNOHANG)
        result = left.pop(0)
        if result is None:
            raise ChildProcessError
        return result

    monkeypatch.setattr(os, "waitpid", waitpid)
    assert parent.reap(7) == status


@pytest.mark.parametrize(
    ("session", "group", "job"), [(1, 6, True), (1, 5, False), (2, 6, False), (2, 5, False)]
)
def test_a_shell_that_can_continue(
    session: int, group: int, job: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is the parent, in the same session and in another group."""
    monkeypatch.setattr(os, "getppid", lambda: 50)
    monkeypatch.setattr(os, "getpgrp", lambda: 5)
    monkeypatch.setattr(os, "getsid", lambda pid: session if pid else 1)
    monkeypatch.setattr(os, "getpgid", lambda pid: group)
    assert parent.is_job() is job
    monkeypatch.setattr(os, "getsid", raises(errno.EPERM, "no"))
    assert parent.is_job() is False


CHLD, TSTP, CONT, HUP, TERM, STOP = 17, 20, 18, 1, 15, 19


@pytest.mark.parametrize(
    ("received", "terminals", "job", "calls"),
    [
        ((TERM, False), [True], True, [("write", bytes([TERM, 0])), ("kill", 7, CONT)]),
        ((TERM, True), [True], True, [("write", bytes([TERM, 1])), ("kill", 7, CONT)]),
        ((TERM, True), [True], False, [("write", bytes([TERM, 1])), ("kill", 7, CONT)]),
        ((CONT, False), [True], True, [("write", bytes([CONT, 0]))]),
        ((TSTP, True), [True], True, [("write", bytes([TSTP, 1])), ("kill", THIS, STOP)]),
        ((TSTP, True), [True], False, []),
        ((TSTP, False), [True], False, [("write", bytes([TSTP, 0])), ("kill", THIS, STOP)]),
        ((HUP, False), [True, True], True, [("write", bytes([HUP, 0])), ("kill", 7, CONT)]),
        ((HUP, False), [True, False], True, [("write", bytes([HUP, 1])), ("kill", 7, CONT)]),
        ((HUP, False), [False, False], True, [("write", bytes([HUP, 0])), ("kill", 7, CONT)]),
        ((TERM, False), [True, False], True, [("write", bytes([TERM, 0])), ("kill", 7, CONT)]),
    ],
)
def test_signals_are_passed_on(
    received: tuple[int, bool],
    terminals: list[bool],
    job: bool,
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With whether the terminal sent them; who is stopped is woken, and stops where a shell can
    continue it."""
    signals = [received, (CHLD, False), (CHLD, False)]
    statuses, has_terminal = [None, 3 << 8], iter(terminals)
    noted: Calls = []
    monkeypatch.setattr(os, "getpid", lambda: THIS)
    monkeypatch.setattr(parent, "wait_signal", lambda _: signals.pop(0))
    monkeypatch.setattr(parent, "reap", lambda _: statuses.pop(0))
    monkeypatch.setattr(parent, "has_terminal", lambda: next(has_terminal))
    monkeypatch.setattr(parent, "is_job", lambda: job)
    monkeypatch.setattr(os, "write", lambda fd, data: noted.append(("write", data)))
    monkeypatch.setattr(os, "kill", noting(noted, "kill"))
    status = parent.wait_for(7, 9, {TERM})
    monkeypatch.undo()
    assert (status, noted, signals, statuses) == (3, calls, [], [])


def test_a_supervisor_that_hears_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gets no signals while it exits, and nothing is stopped."""
    signals = [(TSTP, False), (TERM, False), (CHLD, False)]
    noted: Calls = []
    monkeypatch.setattr(parent, "wait_signal", lambda _: signals.pop(0))
    monkeypatch.setattr(parent, "reap", lambda _: 9)
    monkeypatch.setattr(parent, "has_terminal", lambda: False)
    monkeypatch.setattr(os, "write", raises(errno.EPIPE, "gone"))
    monkeypatch.setattr(os, "kill", noting(noted, "kill"))
    status = parent.wait_for(7, 9, {TERM})
    monkeypatch.undo()
    assert (status, noted) == (-9, [])


@pytest.mark.parametrize(
    ("number", "code", "terminal"),
    [(2, 128, True), (2, 0, False), (2, -6, False), (CHLD, 1, False), (2, 1, True)],
)
def test_who_sent_a_signal(
    number: int, code: int, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel, on behalf of the terminal, but for the end of a child."""
    info = SimpleNamespace(si_signo=number, si_code=code)
    fake = SimpleNamespace(SIGCHLD=CHLD, sigwaitinfo=lambda _: info)
    monkeypatch.setattr(parent, "signal", fake)
    assert parent.wait_signal({2}) == (number, terminal)


@pytest.mark.parametrize("at_terminal", [True, False])
def test_who_sent_a_signal_where_the_system_does_not_say(
    at_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal may have sent what its keys send."""
    fake = SimpleNamespace(SIGINT=2, SIGQUIT=3, SIGTSTP=20)
    monkeypatch.setattr(parent, "signal", fake)
    monkeypatch.setattr(os, "isatty", lambda fd: at_terminal and fd == 0)
    for number, key in ((2, True), (3, True), (20, True), (15, False)):
        fake.sigwait = lambda _, number=number: number
        assert parent.wait_signal({2}) == (number, key and at_terminal)


def test_a_supervisor_that_was_killed() -> None:
    """Its status is the signal's; who could not be ended is named."""
    error = parent.make_killed("supervisor", 9, [])
    text = "the supervisor was killed by signal 9 (KILL): all ranks were ended"
    assert (error.message, error.status) == (text, 137)
    error = parent.make_killed("watcher", 15, [5, 6])
    assert error.message.startswith("the watcher was killed by signal 15 (TERM): ")
    assert error.message.endswith("all ranks were ended; these processes cannot be ended: 5, 6")


def test_children_that_came_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of these; without any child nothing is read."""
    monkeypatch.setattr(os, "waitid", lambda *_: None)
    monkeypatch.setattr(descendants, "list_children", lambda: [5, 7])
    assert parent.list_children() == [5, 7]

    def none(*_: object) -> NoReturn:
        raise ChildProcessError

    monkeypatch.setattr(os, "waitid", none)
    assert parent.list_children() == []


@pytest.mark.parametrize(
    ("raised", "status", "text"),
    [
        (None, 3, None),
        (errors.DeniedError("no"), 125, "no"),
        (errors.CommandError("none", found=False), 127, "none"),
        (OSError(errno.EMFILE, "too many"), 125, "the system refused: [Errno 24] too many"),
        (ValueError("odd"), 125, "internal error: ValueError('odd')"),
    ],
)
def test_what_a_supervisor_reports(
    raised: Exception | None, status: int, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status, or what kept its ranks from starting."""
    import gc

    def run() -> int:
        assert not gc.isenabled()
        if raised:
            raise raised
        return 3

    def leave(number: int) -> NoReturn:
        raise ExitedError(number)

    made: Calls = []
    monkeypatch.setattr(parent, "Supervisor", noting(made, "made", SimpleNamespace(run=run)))
    monkeypatch.setattr(parent, "flush", noting(made, "flush"))
    monkeypatch.setattr(os, "_exit", leave)
    reader, writer = os.pipe()
    nothing: Any = None
    try:
        with pytest.raises(ExitedError, match=f"^{status}$"):
            parent.become_supervisor(nothing, nothing, 5, writer, frozenset([2]))
    finally:
        monkeypatch.undo()
        gc.enable()
    os.close(writer)
    assert made == [("made", None, None, 5, frozenset([2])), ("flush",)]
    assert [pipes.parse_error(m).message for m in pipes.receive(reader)] == ([text] if text else [])


@pytest.mark.parametrize("outcome", ["killed", "refused", "ended"])
def test_the_user_s_process_and_its_pipes(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None stays open, whatever became of the supervisor; the mask is what it was."""
    made: list[int] = []
    calls: Calls = []
    make_pipe = pipes.make_pipe

    def note_pipe() -> tuple[int, int]:
        pair = make_pipe()
        made.extend(pair)
        return pair

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    handler = signal.getsignal(CHLD)
    monkeypatch.setattr(parent, "Library", lambda: SimpleNamespace(adopt=noting(calls, "adopt")))
    monkeypatch.setattr(parent, "list_children", lambda: [5])
    monkeypatch.setattr(parent, "make_pipe", note_pipe)
    monkeypatch.setattr(os, "fork", lambda: 77)
    monkeypatch.setattr(parent, "end_descendants", noting(calls, "end", [6]))

    def wait(pid: int, control: int, awaited: set[int]) -> int:
        assert (pid, control) == (77, made[1])
        assert {1, 2, 15, 17, 20} <= awaited
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert awaited | {signal.SIGTTOU} <= blocked
        os.kill(os.getpid(), signal.SIGCONT)  # too late
        return -9 if outcome == "killed" else 4

    monkeypatch.setattr(parent, "wait_for", wait)
    a_launch = make_launch(calls)
    receive = pipes.receive

    def receive_error(fd: int) -> list[tuple[str, ...]]:
        assert receive(fd) == []
        return [("error", "DeniedError", "125", "no right", "")] * (outcome == "refused")

    monkeypatch.setattr(parent, "receive", receive_error)
    try:
        if outcome == "killed":
            with pytest.raises(errors.OmpbindError, match="cannot be ended: 6"):
                parent.run_supervised(a_launch)
        elif outcome == "refused":
            with pytest.raises(errors.DeniedError, match="no right"):
                parent.run_supervised(a_launch)
        else:
            assert parent.run_supervised(a_launch) == 4
    finally:
        signal.signal(CHLD, handler)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert calls == [("adopt",), ("drop",)] + ([("end", [5])] if outcome == "killed" else [])
    for fd in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_signal_that_another_thread_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not waited for: it was pending when this thread looked, and is so no more."""
    pending = [{18}, set()]
    monkeypatch.setattr(signal, "sigpending", lambda: pending.pop(0))

    def fail(*_: object) -> NoReturn:
        raise AssertionError("waits")

    handler = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        parent.drop_pending({18})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert pending == []


def test_the_supervisor_has_its_ends_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would not see that the process which the user started has exited; its parent is the
    watcher, which adopts before it forks."""
    made: list[int] = []
    calls: Calls = []
    make_pipe = pipes.make_pipe

    def note_pipe() -> tuple[int, int]:
        pair = make_pipe()
        made.extend(pair)
        return pair

    def become(*args: Any) -> NoReturn:
        assert args[:2] == (a_launch, library)
        assert args[2:4] == (made[0], made[3])
        for fd in (made[1], made[2]):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
        raise ExitedError

    library = SimpleNamespace(
        adopt=noting(calls, "adopt"), die_with_parent=noting(calls, "die_with_parent")
    )
    handler = signal.getsignal(CHLD)
    monkeypatch.setattr(parent, "Library", lambda: library)
    monkeypatch.setattr(parent, "list_children", list)
    monkeypatch.setattr(parent, "make_pipe", note_pipe)
    monkeypatch.setattr(parent, "become_supervisor", become)
    monkeypatch.setattr(parent, "end_descendants", noting(calls, "end"))
    monkeypatch.setattr(parent, "exit_child", raises_exited)
    monkeypatch.setattr(os, "fork", noting(calls, "fork", 0))
    a_launch = make_launch(calls)
    try:
        with pytest.raises(ExitedError):
            parent.run_supervised(a_launch)
    finally:
        signal.signal(CHLD, handler)
    assert calls[:5] == [
        ("adopt",), ("fork",), ("die_with_parent", signal.SIGCONT), ("adopt",), ("fork",)
    ]  # fmt: skip
    for fd in (made[0], made[3]):
        os.close(fd)


def raises_exited(*_: object) -> NoReturn:
    raise ExitedError


@pytest.mark.parametrize(
    ("status", "exit_status", "text"),
    [
        (0, 0, None),
        (7, 7, None),
        (-9, 137, "the supervisor was killed by signal 9 (KILL): all ranks were ended; "
                  "these processes cannot be ended: 6"),
        (OSError(errno.EAGAIN, "full"), 125, "the system refused: [Errno 11] full"),
    ],
)  # fmt: skip
def test_what_a_watcher_does(
    status: int | OSError, exit_status: int, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It exits with the supervisor's status; if that was killed, it ends what is left, and says
    so."""
    calls: Calls = []

    def fork() -> int:
        if isinstance(status, OSError):
            raise status
        return 7

    def leave(number: int) -> NoReturn:
        raise ExitedError(number)

    names = ("die_with_parent", "adopt", "rename")
    library: Any = SimpleNamespace(**{name: noting(calls, name) for name in names})
    monkeypatch.setattr(parent, "watch", noting(calls, "watch", status))
    monkeypatch.setattr(parent, "end_descendants", noting(calls, "end", [6]))
    monkeypatch.setattr(parent, "read_argument_place", lambda _: (10, 20))
    monkeypatch.setattr(parent, "flush", noting(calls, "flush"))
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(os, "getppid", lambda: 5)
    monkeypatch.setattr(os, "setpgid", noting(calls, "setpgid"))
    monkeypatch.setattr(os, "_exit", leave)
    reader, writer = os.pipe()
    control, other = os.pipe()
    a_launch = make_launch(calls)
    with pytest.raises(ExitedError, match=f"^{exit_status}$"):
        parent.become_watcher(a_launch, library, control, writer, frozenset())
    monkeypatch.undo()
    begun: Calls = [("die_with_parent", signal.SIGCONT), ("adopt",)]
    title = "rank-watcher: ends the ranks of 5 if that is killed"
    watched: Calls = [
        ("drop",),
        ("setpgid", 0, 0),
        ("rename", "rank-watcher", title, (10, 20)),
        ("watch", 7),
    ]
    if not isinstance(status, OSError):
        begun += watched
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(control)
    else:
        os.close(control)
    os.close(writer)
    os.close(other)
    assert calls == [*begun, *([("end",)] if text else []), ("flush",)]
    assert [pipes.parse_error(m).message for m in pipes.receive(reader)] == ([text] if text else [])


def test_a_watcher_lets_the_supervisor_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it gets CONT, which the kernel sends at the end of the process that the user started;
    it waits for the supervisor's end."""
    signals, statuses = [CHLD, signal.SIGCONT], [None, None, 9]
    calls: Calls = []
    monkeypatch.setattr("_signal.sigwait", lambda _: signals.pop(0))
    monkeypatch.setattr("_signal.pthread_sigmask", noting(calls, "mask"))
    monkeypatch.setattr(parent, "reap", lambda _: statuses.pop(0))
    monkeypatch.setattr(os, "kill", noting(calls, "kill"))
    status = parent.watch(7)
    monkeypatch.undo()
    assert (status, signals, statuses) == (-9, [], [])
    assert calls == [
        ("mask", signal.SIG_BLOCK, {CHLD, signal.SIGCONT}),
        ("kill", 7, signal.SIGCONT),
    ]


def test_a_session_with_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is one whose terminal can be opened; that does not take it over."""
    calls: Calls = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "ctermid", lambda: "/dev/tty")
        patch.setattr(os, "open", noting(calls, "open", 50))
        patch.setattr(os, "close", noting(calls, "close"))
        assert parent.has_terminal() is True
        patch.setattr(os, "open", raises(errno.ENXIO, "none"))
        assert parent.has_terminal() is False
    assert calls == [("open", "/dev/tty", os.O_RDONLY | os.O_NOCTTY), ("close", 50)]


# --- popen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("preexec_fn", print, True), ("preexec_fn", None, False),
        ("shell", True, True), ("shell", False, False),
        ("executable", "x", True), ("executable", None, False),
        ("close_fds", False, True), ("close_fds", True, False),
        ("restore_signals", False, True), ("restore_signals", True, False),
        ("cwd", "/", False),
    ],
)  # fmt: skip
def test_arguments_that_a_rank_cannot_have(
    name: str, value: object, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the values that mean nothing special."""
    calls: Calls = []
    monkeypatch.setattr(popen, "spawn", noting(calls, "spawn"))
    monkeypatch.setattr(popen, "check_binder", lambda ranks, *, can_bind: ranks[0].cpus)
    plan: Any = SimpleNamespace(binder="none")
    more: Any = {name: value}
    if refused:
        with pytest.raises(errors.UsageError, match=name) as caught:
            popen.start_rank(plan, make_rank(2), ["x"], {"A": "1"}, **more)
        assert caught.value.hint
        assert calls == []
    else:
        popen.start_rank(plan, make_rank(2), ["x"], {"A": "1"}, **more)
        assert calls == [("spawn", 2, ["x"], {"A": "1"}, more)]
    with pytest.raises(errors.UsageError, match="on_denied: 'x'"):
        popen.start_rank(plan, make_rank(2), ["x"], {}, on_denied="x")


def test_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cannot follow a plan that binds."""
    monkeypatch.delattr(os, "sched_setaffinity")
    plan: Any = SimpleNamespace(binder="native")
    with pytest.raises(errors.UsageError, match=r"the plan binds \(native\)"):
        popen.start_rank(plan, make_rank(), ["x"], {})


class Process:
    """In place of a process that was started."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.calls: Calls = []
        self.args: list[str] = []
        self.hangs = hangs

    def wait(self, timeout: float | None = None) -> int:
        import subprocess

        self.calls.append(("wait", timeout))
        if self.hangs and timeout is not None:
            raise subprocess.TimeoutExpired("x", timeout)
        return 3

    def kill(self) -> None:
        self.calls.append(("kill",))

    def terminate(self) -> None:
        self.calls.append(("terminate",))

    def __enter__(self) -> None:
        self.calls.append(("enter",))

    def __exit__(self, *_: object) -> None:
        self.calls.append(("exit",))


@pytest.mark.parametrize("hangs", [True, False])
def test_a_supervising_process_is_ended(hangs: bool) -> None:
    """By TERM, which it passes on, if it does not exit in time."""
    process: Any = Process(hangs=hangs)
    popen.end(process, 2.0)
    after = [("terminate",), ("wait", None)] if hangs else []
    assert process.calls == [("wait", 2.0), *after]


def test_who_waits_no_more_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second interrupt ends everything at once."""

    def interrupted(timeout: float | None = None) -> int:
        raise KeyboardInterrupt

    process: Any = Process()
    monkeypatch.setattr(process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        popen.end(process, 2.0)
    assert process.calls == [("kill",)]


def test_what_a_started_process_reports() -> None:
    """Its warnings in their order, and its error or its status."""
    reader, writer = os.pipe()
    pipes.send(writer, "begun")
    pipes.send(writer, "warning", "one")
    pipes.send(writer, "warning", "two")
    pipes.send_error(writer, errors.CommandError("no", found=False))
    os.close(writer)
    report = popen.read_report(reader)
    assert (report.begun, report.warnings, report.status) == (True, ("one", "two"), 127)
    assert report.error is not None
    process: Any = Process()
    assert popen.find_error(process, report) is report.error
    assert process.calls == []
    reader, writer = os.pipe()
    pipes.send(writer, "status", "7")
    os.close(writer)
    report = popen.read_report(reader)
    assert (report.begun, report.status, report.error) == (False, 7, None)
    error = popen.find_error(process, report)
    assert error is not None
    assert error.data == {"status": 3}


@pytest.mark.parametrize("warned", [True, False])
def test_a_rank_that_was_started(warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is the worker's process; a warning that is an error ends it, and so does its own."""
    process = Process()
    report = popen.ChildReport(begun=True, warnings=("odd",) if warned else ())
    monkeypatch.setattr(popen, "start_python", lambda *_: (process, 9))
    monkeypatch.setattr(popen, "read_report", lambda _: report)
    plan: Any = SimpleNamespace(binder="native")
    if warned:
        with pytest.warns(RuntimeWarning, match="odd"):
            started: Any = popen.start_rank(plan, make_rank(), ["x"], {})
        assert started is process
        monkeypatch.setattr(popen, "read_report", raises(errno.EIO, "no"))
        with pytest.raises(OSError, match="no"):
            popen.start_rank(plan, make_rank(), ["x"], {})
        assert process.calls == [("kill",), ("enter",), ("exit",)]
        return
    started = popen.start_rank(plan, make_rank(), ["x"], {})
    assert started is process
    assert (process.args, process.calls) == (["x"], [])
    report = report.replace(error=errors.DeniedError("denied"))
    with pytest.raises(errors.DeniedError, match="denied"):
        popen.start_rank(plan, make_rank(), ["x"], {})
    assert process.calls == [("enter",), ("exit",)]


@pytest.mark.parametrize(
    ("reported", "exited", "status"),
    [(None, 5, 5), (None, 0, 0), (None, -9, 137), (7, 0, 7), (0, 3, 0)],
)
def test_the_status_of_a_launch(
    reported: int | None, exited: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was reported, else as a shell gives it; elsewhere nothing is supervised."""
    process: Any = Process()
    monkeypatch.setattr(process, "wait", lambda timeout=None: exited)
    report = popen.ChildReport(begun=True, status=reported)
    words: list[Any] = []

    def start(module: str, given: list[str], *_: object) -> Any:
        words.extend([module, *given])
        with os.fdopen(os.dup(int(given[1])), "rb") as file:
            words.append(file.read())
        return process, 9

    monkeypatch.setattr(popen, "start_python", start)
    monkeypatch.setattr(popen, "read_report", lambda _: report)
    assert popen.supervise("pl\udcffan", "settings", ["x", "y"], {}, {}) == status
    pid = str(os.getpid())
    assert words[:2] == ["ompbind.cli.child", pid]
    assert words[3:] == ["settings", "x", "y", b"pl\xffan"]
    assert process.calls == [("enter",), ("exit",)]
    report = popen.ChildReport(begun=True, error=errors.PlanError("no"))
    with pytest.raises(errors.PlanError):
        popen.supervise("plan", "settings", [], {}, {})
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        with pytest.raises(errors.UsageError, match="supervised"):
            popen.supervise("plan", "settings", [], {}, {})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x")])
def test_whatever_ends_the_waiting(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the ranks, at once unless the terminal has interrupted them as well."""
    calls: Calls = []
    process: Any = Process()

    def read(_: int) -> NoReturn:
        raise error

    monkeypatch.setattr(popen, "start_python", lambda *_: (process, 9))
    monkeypatch.setattr(popen, "read_report", read)
    monkeypatch.setattr(popen, "end", noting(calls, "end"))
    with pytest.raises(type(error)):
        popen.supervise("plan", "settings", [], {}, {})
    patience = popen.PATIENCE if isinstance(error, KeyboardInterrupt) else 0
    assert calls == [("end", process, patience)]


def test_the_python_that_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is isolated, and writes its compiled files where this one does."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    assert popen.make_flags() == ["-I", "-S", "-X", "utf8"]
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", "/x")
    assert popen.make_flags()[4:] == ["-B", "-X", "pycache_prefix=/x"]


@pytest.mark.parametrize("fails", [True, False])
def test_the_pipe_of_what_is_started(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is passed on and closed here; ours stays only where something was started."""
    calls: Calls = []
    monkeypatch.setattr(popen, "make_pipe", lambda: (20, 21))
    spawn = raises(errno.EIO, "no") if fails else noting(calls, "spawn", "process")
    monkeypatch.setattr(popen, "spawn", spawn)
    monkeypatch.setattr(os, "close", noting(calls, "close"))
    more: Any = {"pass_fds": (5,), "cwd": "/"}
    try:
        if fails:
            with pytest.raises(OSError, match="no"):
                popen.start_python("a.b", ["w"], {}, 1, more)
        else:
            started: Any = popen.start_python("a.b", ["w"], {"LC_CTYPE": "C"}, 1, more)
            assert started == ("process", 20)
    finally:
        monkeypatch.undo()
    assert calls[1 - fails :] == [("close", 20), ("close", 21)][not fails :]
    if not fails:
        _, number, command, env, passed = calls[0]
        assert (number, env, passed) == (1, {"LC_CTYPE": "C"}, {"pass_fds": (5, 21), "cwd": "/"})
        directory = str(Path(popen.__file__).parents[2])
        assert command[-4:] == [directory, "21", "=C", "w"]
        assert "from a.b import main" in command[-5]


def test_no_python_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program that was frozen into one file, or that embeds Python."""
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(errors.UsageError, match="no Python interpreter"):
        popen.start_python("a.b", [], {}, 1, {})
    monkeypatch.setattr(sys, "executable", "/x")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(errors.UsageError, match="no Python interpreter"):
        popen.start_python("a.b", [], {}, 1, {})


@pytest.mark.parametrize(
    ("number", "error", "status", "text"),
    [
        (3, FileNotFoundError(2, "none", "x"), 127, "rank 3: its process cannot be started: none"),
        (None, PermissionError(13, "no", "x"), 126, "the process cannot be started: no"),
        (0, OSError(11, "later"), 126, "rank 0: its process cannot be started: later"),
        (0, FileNotFoundError(2, "none", "/cwd"), None, ""),
    ],
)
def test_a_process_that_cannot_be_started(
    number: int | None,
    error: OSError,
    status: int | None,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Is the command's fault unless another file is named."""
    import subprocess

    def start(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises((errors.CommandError, FileNotFoundError)) as caught:
        popen.spawn(number, ["x"], {}, {})
    if status is None:
        assert caught.value is error
    else:
        assert isinstance(caught.value, errors.CommandError)
        assert (caught.value.status, caught.value.message) == (status, text)
        assert caught.value.data == {"rank": number, "errno": error.errno}


# --- output and streams --------------------------------------------------------------------------


def test_what_was_written_is_dropped() -> None:
    """Whole pieces, and the part of one."""
    pieces: list[bytes | memoryview] = [b"abc", b"", b"de", b"f"]

    def drop(count: int) -> list[bytes]:
        return [bytes(piece) for piece in output.drop_bytes(pieces, count)]

    assert drop(0) == [b"abc", b"", b"de", b"f"]
    assert drop(2) == [b"c", b"", b"de", b"f"]
    assert drop(3) == [b"de", b"f"]
    assert drop(4) == [b"e", b"f"]
    assert drop(5) == [b"f"]
    assert drop(6) == []


@pytest.mark.parametrize(
    ("mode", "terminal", "result"),
    [(0o010000, False, (50, os.writev)), (0o020000, True, (50, os.writev)),
     (0o020000, False, (1, os.writev)), (0o140000, False, (1, output.send_some)),
     (0o100000, False, (1, os.writev)), (0o100000, True, (1, os.writev))],
)  # fmt: skip
def test_a_stream_is_opened_again_where_it_may_block(
    mode: int, terminal: bool, result: tuple[int, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipes and terminals; a socket is asked not to block, and a file never does."""
    calls: Calls = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda _: SimpleNamespace(st_mode=mode))
        patch.setattr(os, "isatty", lambda _: terminal)
        patch.setattr(os, "open", noting(calls, "open", 50))
        opened = output.open_again(1)
    assert opened == result
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    assert calls == ([("open", "/dev/fd/1", flags)] if result[0] == 50 else [])


@pytest.mark.parametrize("controls", [True, False])
def test_a_stream_that_cannot_be_opened_again(
    controls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's terminal, as after su, can be opened if it is that of the session; anything
    else is asked each time whether it takes some bytes."""
    opened: list[str] = []

    def open_terminal(path: str, flags: int) -> int:
        opened.append(path)
        assert flags & os.O_NONBLOCK
        if path.startswith("/dev/fd"):
            raise PermissionError
        return 60

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda _: SimpleNamespace(st_mode=0o020000))
        patch.setattr(os, "isatty", lambda _: True)
        patch.setattr(os, "open", open_terminal)
        patch.setattr(os, "tcgetpgrp", (lambda _: 5) if controls else raises(errno.ENOTTY, "no"))
        result = output.open_again(1)
    assert result == ((60, os.writev) if controls else (1, output.write_some))
    assert opened == ["/dev/fd/1", os.ctermid()][: 1 + controls]


def test_writing_where_it_may_block() -> None:
    """To a pipe or socket that takes no more, whatever little it takes at once."""
    for ours, theirs in (os.pipe(), make_socket_pair()):
        write = output.send_some if stat.S_ISSOCK(os.fstat(theirs).st_mode) else output.write_some
        written = 0
        try:
            while written < 1 << 22:
                written += write(theirs, [b"x" * 10_000, b"y"])
        except BlockingIOError:
            pass
        assert 0 < written < 1 << 21
        got = 0
        while got < written:
            got += len(os.read(ours, 65536))
        assert write(theirs, [b"z"]) == 1
        os.close(ours)
        os.close(theirs)


def make_socket_pair() -> tuple[int, int]:
    """Two ends of a stream, the second with the smallest buffer that the kernel makes."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize(
    ("settings", "count", "tagged"),
    [(Settings(), 1, False), (Settings(), 2, True), (Settings(output="tag"), 1, True),
     (Settings(output="inherit"), 2, False), (Settings(output_dir="x"), 2, False)],
)  # fmt: skip
def test_whose_lines_get_tags(settings: Settings, count: int, tagged: bool) -> None:
    """By default those of several ranks."""
    assert streams_module.is_tagged(settings, count) is tagged


def test_the_only_rank_shares_standard_input() -> None:
    """Even where all are to read it; several get a pipe each, and a rank that reads none gets
    nothing."""
    alone = streams_module.Streams(Settings(stdin="all"), 1, {})
    assert alone._open(0) == (None, None, None)
    streams = streams_module.Streams(Settings(stdin="all", output="inherit"), 2, {})
    reader, *rest = streams._open(1)
    assert reader is not None
    assert rest == [None, None]
    assert len(streams._inputs) == 1
    streams.close()
    second = streams_module.Streams(Settings(stdin="1", output="inherit"), 2, {})
    assert second._open(1) == (None, None, None)
    nothing = second._open(0)[0]
    assert nothing is not None
    assert os.path.samestat(os.fstat(nothing), os.stat(os.devnull))
    second.close()


def test_a_rank_that_is_not_there_reads_nothing() -> None:
    """Which there are, is in the hint."""
    for count, hint in ((1, "the only rank is 0"), (2, "ranks: 0-1")):
        streams_module.Streams(Settings(stdin=str(count - 1)), count, {})
        with pytest.raises(errors.UsageError, match="there is no such rank") as caught:
            streams_module.Streams(Settings(stdin=str(count)), count, {})
        assert caught.value.hint == hint


def test_messages_are_waited_for() -> None:
    """Where there are any on standard error."""
    calls: Calls = []
    streams = streams_module.Streams(Settings(), 1, {})
    streams.flush(noting(calls, "done"))
    assert calls == [("done",)]
    for n, group in enumerate(((1,), (2,))):
        sink: Any = SimpleNamespace(stands_for=group, finish=noting(calls, f"finish {n}"))
        streams._sinks.append(sink)
    calls.clear()
    streams.flush(print)
    assert calls == [("finish 1", print)]


@pytest.mark.parametrize("opened", [True, False])
def test_messages_go_to_standard_error(opened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the end of a rank's line there; nowhere if it is closed."""
    calls: Calls = []
    made = SimpleNamespace(
        stands_for=(2,), end_line=noting(calls, "end line"), put=noting(calls, "put")
    )
    streams = streams_module.Streams(Settings(), 1, {})
    monkeypatch.setattr(streams_module, "is_open", lambda fd: fd == 2 and opened)
    monkeypatch.setattr(streams, "_find_sink", noting(calls, "find", made))
    other: Any = SimpleNamespace(stands_for=(1,))
    streams._sinks.append(other)
    loop: Any = "loop"
    streams.say(loop, "a\udcff")
    written = [("end line",), ("put", [b"a\xff"])]
    assert calls == ([("find", "loop", (2,)), *written] if opened else [])
    calls.clear()
    both: Any = made
    both.stands_for = (1, 2)
    streams._sinks.append(both)
    streams.say(loop, "a\udcff")
    assert calls == written


def test_what_a_stop_means() -> None:
    """By the signal that stopped the rank, with what to do about it."""
    text, hint = outcome.describe_stop(3, "3", 50, 21)
    assert text.startswith("rank 3 is stopped by signal 21 (TTIN): it reads the terminal")
    assert hint == "--stdin 3 lets it read"
    text, hint = outcome.describe_stop(3, "3", 50, 22)
    assert text.startswith("rank 3 is stopped by signal 22 (TTOU): it writes to the terminal")
    assert hint.startswith("--stdin 3 gives it the terminal")
    stopped = ("rank 3 is stopped by signal 19 (STOP)", "kill -CONT 50 lets it go on")
    assert outcome.describe_stop(3, "3", 50, 19) == stopped


def test_tags() -> None:
    """In the rank's colour on a terminal."""
    assert streams_module.make_tags(3, colour=False) == (b"[3] ", b"[3]+")
    first, rest = streams_module.make_tags(3, colour=True)
    assert first.startswith(b"\x1b[")
    assert first.endswith(b"m ")
    assert rest.endswith(b"m+")


@pytest.mark.parametrize(
    ("environ", "terminal", "colour"),
    [({}, True, True), ({}, False, False), ({"NO_COLOR": "1"}, True, False),
     ({"NO_COLOR": ""}, True, True), ({"TERM": "Dumb"}, True, False),
     ({"TERM": "unknown"}, True, False), ({"TERM": "xterm"}, True, True)],
)  # fmt: skip
def test_whose_tags_have_colours(
    environ: dict[str, str], terminal: bool, colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those on a terminal that knows them, unless somebody wants none."""
    calls: Calls = []
    sink = SimpleNamespace(terminal=terminal, stands_for=(1, 2))
    monkeypatch.setattr(output, "Sink", noting(calls, "sink", sink))
    monkeypatch.setattr("ompbind.launch.terminal.TerminalSource", noting(calls, "source"))
    monkeypatch.setattr(output, "Source", noting(calls, "source"))
    streams = streams_module.Streams(Settings(output="tag"), 2, environ)
    streams._outputs = [(0, 50, (1, 2)), (3, 51, (1, 2))]
    loop: Any = None
    streams.watch(loop)
    plain = environ.get("TERM", "") in ("Dumb", "unknown")
    assert calls[0] == ("sink", None, (1, 2), ("plain", plain))
    tags = [(n, *streams_module.make_tags(n, colour=colour)) for n in (0, 3)]
    assert calls[1:] == [("source", 50 + bool(n), *both, sink) for n, *both in tags]
    assert streams._outputs == []


@pytest.mark.parametrize(
    ("more", "count", "each"),
    [({"output": "tag"}, 3, 2), ({"output": "tag", "stdin": "all"}, 3, 3),
     ({"output": "inherit", "stdin": "all"}, 2, 1), ({"output": "tag", "stdin": "all"}, 1, 2),
     ({"output_dir": "x"}, 3, 2)],
)  # fmt: skip
def test_room_for_the_ranks_pipes(
    more: dict[str, Any], count: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that each rank needs, and some to spare; the soft limit only if it must be."""
    wanted = 10 + count * each + streams_module.SPARE
    monkeypatch.setattr(streams_module, "group_streams", lambda: [(1,), (2,)])
    streams = streams_module.Streams(Settings(**more), count, {})
    calls: Calls = []
    limits = [5, 1000]
    resource = SimpleNamespace(
        RLIMIT_NOFILE=7, RLIM_INFINITY=-1, getrlimit=lambda _: tuple(limits),
        setrlimit=noting(calls, "set"),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "resource", resource)
    monkeypatch.setattr(os, "sysconf", lambda _: wanted)
    assert streams.make_room(10) is None
    assert (calls, streams.batch) == ([], 1)
    for more_room, batch in ((3, 1), (4, 2), (59, 15), (1000, 16)):
        monkeypatch.setattr(os, "sysconf", lambda _, room=more_room: wanted + room)
        assert streams.make_room(10) is None
        assert streams.batch == batch
    monkeypatch.setattr(os, "sysconf", lambda _: wanted - 1)
    for hard, batch in ((1000, 16), (wanted, 1), (wanted + 4, 2), (-1, 16)):
        limits[1] = hard
        assert streams.make_room(10) == (5, hard)
        assert streams.batch == batch
        assert calls.pop() == ("set", 7, (hard, hard))
    limits[1] = wanted - 1
    with pytest.raises(errors.OmpbindError, match=f"{count} ranks need {wanted}") as caught:
        streams.make_room(10)
    assert caught.value.data == {"rank": count - 1}
    assert ("--output inherit" in caught.value.hint) is (more.get("output") != "inherit")
    limits[1] = 3
    with pytest.raises(errors.OmpbindError) as caught:
        streams.make_room(10)
    assert caught.value.data == {"rank": 0}


def test_all_files_of_ranks_are_made_or_none(tmp_path: Path) -> None:
    """Those that were there are not lost where another cannot be opened; else they are empty."""
    for name in ("rank-0.out", "rank-1.out"):
        (tmp_path / name).write_text("old")
    (tmp_path / "rank-1.err").mkdir()
    with pytest.raises(errors.UsageError, match=r"rank-1\.err"):
        streams_module.make_files(str(tmp_path), ["rank-0", "rank-1"], overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rank-0.out", "rank-1.err", "rank-1.out"]
    (tmp_path / "rank-1.err").rmdir()
    with pytest.raises(errors.UsageError, match=r"rank-0.out' already exists \(and 1 more\)"):
        streams_module.make_files(str(tmp_path), ["rank-0", "rank-1"], overwrite=False)
    files = streams_module.make_files(str(tmp_path), ["rank-0", "rank-1"], overwrite=True)
    names = [f"rank-{n}.{name}" for n in range(2) for name in ("out", "err")]
    assert list(files) == [str(tmp_path / name) for name in names]
    assert [(tmp_path / name).read_text() for name in names] == [""] * 4
    for fd in files.values():
        os.close(fd)
    more = streams_module.make_files(str(tmp_path / "a" / "b"), ["rank-7"], overwrite=False)
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["rank-7.err", "rank-7.out"]
    for fd in more.values():
        os.write(fd, b"x")
        os.close(fd)


# --- run -----------------------------------------------------------------------------------------


class Ways:
    """The ways in which a plan is run, each noted and not gone."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: Calls = []
        self.refusals: list[Refusal] = []
        self.can_lease = True
        patch.setattr(launch, "signal", SimpleNamespace(SIGCHLD=17, SIG_DFL=0, signal=self.signal))
        patch.setattr(launch, "find_programs", lambda *_: {})
        patch.setattr(launch, "reset_inherited", noting(self.calls, "reset"))
        patch.setattr(launch, "probe", lambda *_: self.refusals)
        patch.setattr(launch, "apply_on_denied", self.apply)
        patch.setattr(launch, "make_starts", lambda *_: ["start", "second"])
        patch.setattr(launch, "bind", self.bind)
        patch.setattr(launch, "execute", noting(self.calls, "execute", 2))
        patch.setattr(parent, "run_supervised", lambda _: self.calls.append(("supervise",)))
        patch.setattr(portable, "run_portably", noting(self.calls, "portably", 4))
        patch.setattr(streams_module, "Streams", self.make_streams)
        patch.setattr(warm, "warm_files", noting(self.calls, "warm", ["warmed"]))
        patch.setattr(launch, "Lease", SimpleNamespace(open=self.open_lease))

    def signal(self, *args: int) -> None:
        self.calls.append(("signal", *args))

    def apply(self, plan: Any, refusals: Any, on_denied: str, say: Any) -> Any:
        self.calls.append(("apply", on_denied))
        return plan

    def bind(self, rank: Any, on_denied: str, say: Any) -> Any:
        self.calls.append(("bind", on_denied, say))
        return rank.rebind(Binding())

    def make_streams(self, settings: Settings, count: int, environ: object, first: int) -> Any:
        return SimpleNamespace(connect_alone=noting(self.calls, "connect", f"{count} of {first}"))

    def make_lease(self) -> Any:
        notes = {name: noting(self.calls, name) for name in ("make_inheritable", "hold")}
        return SimpleNamespace(**notes)

    def open_lease(self) -> Any:
        self.calls.append(("open",))
        return self.make_lease() if self.can_lease else None

    def run(self, ranks: int = 1, binder: str = "native", **more: Any) -> Calls:
        reset = more.pop("reset", False)
        plan: Any = SimpleNamespace(
            ranks=[make_rank(n) for n in range(ranks)], binder=binder, reset_inherited=reset,
            host=SimpleNamespace(allowed=CpuSet([5])), groups=more.pop("groups", ()),
            names_threads=more.pop("names_threads", False), warm=more.pop("warm", ()),
            held_by=lambda rank: rank.cpus | CpuSet([7]),
        )  # fmt: skip
        plan.replace = lambda **changes: SimpleNamespace(**(vars(plan) | changes))
        lease = self.make_lease() if more.pop("leased", True) else None
        self.calls.clear()
        launch.run(plan, {}, print, Settings(**more), lease)
        assert self.calls.pop(0) == ("signal", 17, 0)
        return self.calls


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


def test_how_a_plan_is_run(ways: Ways) -> None:
    """One rank becomes this process, unless it is watched; several are supervised."""
    bound = [("make_inheritable",), ("bind", "error", print), ("execute", "start")]
    assert ways.run() == bound
    assert ways.run(on_denied="degrade")[1] == ("bind", "degrade", print)
    assert ways.run(binder="none") == [("apply", "error"), ("execute", "start")]
    assert ways.run(reset=True)[0] == ("reset", CpuSet([5]))
    assert ways.run(2) == [("supervise",)]
    assert ways.run(2, "numactl") == [("apply", "error"), ("supervise",)]
    assert ways.run(watched=True) == [("supervise",)]
    assert ways.run(names_threads=True) == [("supervise",)]
    connected = [("connect", "start"), *bound[:2], ("execute", "1 of 0")]
    assert ways.run(output_dir="x") == connected
    assert ways.run(stdin="none") == connected


def test_ranks_hold_their_cpus(ways: Ways) -> None:
    """By the lease that is given, or one of their own; where they are not bound, or where there is
    none to be had, they run without."""
    hold: Calls = [("open",), ("hold", CpuSet([0, 1, 7]))]
    assert ways.run(2, leased=False) == [*hold, ("supervise",)]
    alone = ways.run(leased=False)
    assert alone[:3] == [("open",), ("hold", CpuSet([0, 7])), ("make_inheritable",)]
    assert ways.run(leased=False, binder="none") == [("apply", "error"), ("execute", "start")]
    ways.can_lease = False
    assert ways.run(2, leased=False) == [("open",), ("supervise",)]
    assert ways.run(leased=False)[:2] == [("open",), ("bind", "error", print)]


def test_files_are_warmed_before_ranks_start(ways: Ways) -> None:
    """And what has become of them is reported where somebody shows it."""
    warming: Any = SimpleNamespace(finish=noting(ways.calls, "finish"))
    warmed = ("warm", ("file",), "degrade", print)
    calls = ways.run(2, warm=("file",), on_denied="degrade", warming=warming)
    assert calls == [(*warmed, warming), ("finish", ["warmed"]), ("supervise",)]
    assert ways.run(2, warm=("file",), on_denied="degrade") == [(*warmed, None), ("supervise",)]
    assert ways.run(2, warming=warming) == [("supervise",)]


def test_a_rank_alone_is_announced_as_it_is_bound(
    ways: Ways, capsys: pytest.CaptureFixture[str]
) -> None:
    """After it is bound, so that what was denied is not reported as bound."""
    calls = ways.run(announce=lambda plan: [f"rank 0: {plan.ranks[0].cpus!s:>4}"])
    assert [call[0] for call in calls] == ["make_inheritable", "bind", "execute"]
    assert capsys.readouterr().err == "ompbind: rank 0:     \n"
    ways.run(binder="none", announce=lambda plan: [f"rank 0: {plan.ranks[0].cpus}"])
    assert capsys.readouterr().err == "ompbind: rank 0: 0\n"


def test_a_system_whose_children_send_no_signal(
    ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none to be set; the rank runs all the same."""
    monkeypatch.setattr(launch, "signal", SimpleNamespace())
    plan: Any = SimpleNamespace(
        ranks=[make_rank(0)],
        binder="none",
        reset_inherited=False,
        warm=(),
        replace=lambda **_: plan,
        names_threads=False,
    )
    launch.run(plan, {}, print, Settings())
    assert ways.calls == [("apply", "error"), ("execute", "start")]


@pytest.mark.parametrize(
    ("cpus", "mems", "refused"),
    [([0], [], True), ([], [0], True), ([0], [1], True), ([], [], False)],
)
def test_ranks_that_nothing_would_bind(cpus: list[int], mems: list[int], refused: bool) -> None:
    """Are refused where that is possible, if one of them has cpus or memory nodes."""
    free = make_rank(0, binding=Binding(CpuSet(), "none", CpuSet()))
    bound = make_rank(1, binding=Binding(CpuSet(cpus), "bind", CpuSet(mems)))
    binding.check_binder((free, bound), can_bind=False)
    if refused:
        with pytest.raises(errors.PlanError, match="its binder is none"):
            binding.check_binder((free, bound), can_bind=True)
    else:
        binding.check_binder((free, bound), can_bind=True)


def test_a_numactl_that_may_be_replaced(ways: Ways) -> None:
    """Is, where it alone is what does not work."""
    own, kernel = Refusal(0, "numactl", "no"), Refusal(0, "cpus", "no")
    for refusals, may_switch, on_denied in (
        ([own], True, "degrade"), ([own], False, "error"), ([kernel], True, "error"),
        ([own, kernel], True, "error"), ([], True, "error"),
    ):  # fmt: skip
        ways.refusals = refusals
        assert ways.run(1, "numactl", may_switch=may_switch)[0] == ("apply", on_denied)


def test_a_system_without_fork(
    ways: Ways, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Starts ranks as it can, and watches and redirects none."""
    with monkeypatch.context() as patch:
        patch.delattr(os, "fork")
        announced = ways.run(2, announce=lambda plan: [f"{len(plan.ranks)} ranks"])
        assert announced == [("portably", ["start", "second"])]
        assert capsys.readouterr().err == "ompbind: 2 ranks\n"
        more: dict[str, Any]
        for more in (
            {"watched": True}, {"output_dir": "x"}, {"stdin": "none"}, {"groups": ("a",)},
        ):  # fmt: skip
            with pytest.raises(errors.UsageError, match="has no fork"):
                ways.run(**more)


def test_no_command_to_run(ways: Ways) -> None:
    """Is an error, even of one rank."""
    plan: Any = SimpleNamespace(ranks=[make_rank(0), make_rank(1, command=())])
    with pytest.raises(errors.UsageError, match="no command to run"):
        launch.run(plan, {}, print, Settings())
    assert ways.calls == []


# --- supervisor ----------------------------------------------------------------------------------


def test_the_stop_ladder() -> None:
    """From any first signal to TERM, and from that to KILL."""
    ladder = supervisor.Ladder()
    steps = []
    for _ in range(3):
        ladder = ladder.escalate(2)
        steps.append(ladder.last)
    assert steps == [2, 15, 9]
    assert supervisor.Ladder().escalate().last == 15
    assert supervisor.Ladder(last=9).escalate().last == 9


def test_a_request_repeated_at_once_is_one() -> None:
    """Another signal, or the same one later, goes a step further."""
    first = supervisor.Ladder().request(2, 100.0)
    assert (first.last, first.requested, first.since) == (2, 2, 100.0)
    assert first.request(2, 100.0 + supervisor.REPEAT - 0.01) is first
    assert first.request(2, 100.0 + supervisor.REPEAT).last == 15
    assert first.request(15, 100.0).last == 15
    assert [supervisor.Ladder().request(n, 5.0).last for n in (1, 15, 14, 40)] == [1, 15, 15, 15]


def test_which_signals_end() -> None:
    """Requests, timers, limits, and the realtime signals; not those that are passed on."""
    numbers = supervisor.ending_signals()
    named = {"INT", "TERM", "ALRM", "VTALRM", "PROF", "XCPU", "IO", "PWR", "STKFLT"}
    assert {n for n in numbers if n < 32} == {getattr(signal, f"SIG{n}", 16) for n in named}
    assert {n for n in numbers if n >= 32} == set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))


def test_a_part_that_is_denied() -> None:
    """In the system's words, or in the error's."""
    start = make_start(3)
    assert supervisor.try_part(start, "cpus", lambda *args: None, 1, 2) == []
    assert supervisor.try_part(start, "cpus", raises(1, "no"), 1) == [Refusal(3, "cpus", "no")]
    assert supervisor.try_part(start, "memory", raises("odd")) == [Refusal(3, "memory", "odd")]


def test_stopped_before_anything_ran() -> None:
    """Has the signal's status."""
    error = supervisor.StoppedError(15)
    assert (error.status, str(error)) == (143, "stopped by signal 15 (TERM) before any rank ran")
