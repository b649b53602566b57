"""The system calls behind a launch: sched_setaffinity with a check of what the kernel took, those
that Python has no function for (set_mempolicy, get_mempolicy, prctl), and signals.

The C library has no wrapper for memory policies, so they are called by number. Sources:
set_mempolicy(2), prctl(2), the kernel's syscall tables.

`signal` is the C module: Python's own wraps it in enums, which takes a third of the whole start-up.
Every module of this package takes it from here.
"""

from __future__ import annotations

import errno
import os
import sys

from ompbind.cpuset import CpuSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    # A function of the C library that returns a negative number if it fails, and its arguments.
    PreparedCall = tuple[Callable[..., int], tuple[object, ...]]
else:
    import _signal as signal

__all__ = [
    "Library",
    "name_signal",
    "read_memory",
    "restore_signals",
    "send_to",
    "set_affinity",
    "set_memory",
    "signal",
]

# set_mempolicy and get_mempolicy by machine (as uname says it) and whether pointers have 64 bits.
NUMBERS = {
    ("x86_64", True): (238, 239),
    ("x86_64", False): (276, 275),
    ("i686", False): (276, 275),
    ("i586", False): (276, 275),
    ("aarch64", True): (237, 236),
    ("aarch64", False): (321, 320),
    ("armv7l", False): (321, 320),
    ("armv8l", False): (321, 320),
    ("ppc64le", True): (261, 260),
    ("ppc64", True): (261, 260),
    ("s390x", True): (270, 269),
    ("riscv64", True): (237, 236),
    ("loongarch64", True): (237, 236),
    ("sparc64", True): (305, 304),
}

MODES = {"none": 0, "preferred": 1, "bind": 2, "interleave": 3, "local": 4,
         "weighted-interleave": 6}  # fmt: skip
PREFERRED_MANY = 5  # several preferred nodes
BALANCING = 0x2000  # MPOL_F_NUMA_BALANCING
NODES = 1024  # as many as any kernel has
MODE_FLAGS = 0xC000 | BALANCING  # with MPOL_F_STATIC_NODES and _RELATIVE_NODES

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36


def set_affinity(cpus: CpuSet, pid: int = 0) -> None:
    """Bind a process's first thread, by default the calling thread. Raises OSError, also when the
    kernel silently takes fewer cpus."""
    os.sched_setaffinity(pid, cpus)
    if (got := CpuSet(os.sched_getaffinity(pid))) != cpus:
        raise OSError(errno.EINVAL, f"of cpus {cpus} the kernel took only {got}")


def set_memory(
    mem: str, mems: CpuSet, library: Library | None = None, *, balancing: bool = False
) -> None:
    """Set the calling thread's memory policy and read it back. Raises OSError."""
    library = library or Library()
    mode = PREFERRED_MANY if mem == "preferred" and len(mems) > 1 else MODES[mem]
    mode |= BALANCING if balancing else 0
    library.memory(0, mode, mems)
    got_mode, got = library.memory(1)
    # The kernel may report "local" as "preferred" without nodes, and the reverse: both are first
    # touch.
    ignored = MODE_FLAGS & ~mode
    if (got_mode & ~ignored, got) != (mode, mems) and mem != "local":
        raise OSError(errno.EINVAL, f"of {mem} {mems} the kernel made mode {got_mode}, nodes {got}")


def read_memory() -> tuple[int, CpuSet]:
    """Return the calling thread's memory policy, as mode and nodes. Raises OSError."""
    return Library().memory(1)


class Library:
    """The C library, for calls that Python has no function for; loaded once, before forking."""

    def __init__(self) -> None:
        import ctypes  # slow: needed for several ranks, and for memory without numactl

        library = ctypes.CDLL(None, use_errno=True)
        self._word, self._long = ctypes.c_ulong, ctypes.c_long
        self._bits = 8 * ctypes.sizeof(ctypes.c_ulong)
        self._words = ctypes.c_ulong * (NODES // self._bits)
        self._errno = ctypes.get_errno
        self._move = ctypes.memmove
        self._text = ctypes.c_char_p
        self._prepared = ctypes.PyDLL(None)  # keeps the interpreter, and no errno
        self._syscall = library.syscall
        self._syscall.restype = ctypes.c_long
        self._prctl = library.prctl if sys.platform == "linux" else None

    def memory(self, which: int, mode: int = 0, mems: CpuSet | None = None) -> tuple[int, CpuSet]:
        """Call set_mempolicy (`which` 0) or get_mempolicy (1), and return mode and nodes.

        Raises OSError.
        """
        number = NUMBERS.get((os.uname().machine, sys.maxsize > 2**32))
        if number is None:
            raise OSError(errno.ENOSYS, f"memory policy is not known on {os.uname().machine}")
        bits, ones = self._bits, (1 << self._bits) - 1
        mems = mems or CpuSet()
        mask = self._words(*(mems.mask >> at & ones for at in range(0, NODES, bits)))
        length = self._word(NODES + 1)  # the kernel takes one bit less than it is given
        if which == 0:
            pointer, length = (mask, length) if mems else (None, self._word(0))
            self._call(self._syscall, self._long(number[0]), self._long(mode), pointer, length)
            return mode, mems
        got = self._words()  # its first bytes are the int that the kernel writes
        null = self._word(0)
        self._call(self._syscall, self._long(number[1]), got, mask, length, null, null)
        mode = int.from_bytes(bytes(got)[:4], sys.byteorder)
        return mode, CpuSet.from_mask(sum(word << n * bits for n, word in enumerate(mask)))

    def die_with_parent(self, number: int) -> None:
        """Ask the kernel to send this signal to the calling process when its parent exits. Exec
        keeps that, except for a program with privileges of its own. Does nothing where there is no
        such call. Raises OSError."""
        self._control(PR_SET_PDEATHSIG, number)

    # What a forked child calls is prepared by its parent: with the arguments made, a call copies a
    # third of the pages that it would copy otherwise, and none for the error that it does not keep.

    def prepare_death(self, number: int) -> list[PreparedCall]:
        """Return the call of `die_with_parent`; none where there is no such call."""
        return self._prepare_control(PR_SET_PDEATHSIG, number)

    def prepare_mask(self, blocked: Collection[int]) -> PreparedCall:
        """Return the call that makes these signals the blocked ones."""
        mask = self._words()  # 128 bytes: no system has more
        self._prepared.sigemptyset(mask)
        for number in blocked:
            self._prepared.sigaddset(mask, number)
        return self._prepared.sigprocmask, (int(signal.SIG_SETMASK), mask, None)

    def prepare_move(self, fd: int, number: int) -> PreparedCall:
        """Return the call that makes a descriptor another number, as `os.dup2` does."""
        return self._prepared.dup2, (fd, number)

    def prepare_exec(
        self, path: str, argv: Sequence[str], env: Mapping[bytes, bytes]
    ) -> PreparedCall | None:
        """Return the call that executes a program; None for words and variables that C cannot
        express, and for odd names: `os.execve` knows which are errors."""
        try:
            words = [os.fsencode(word) for word in (path, *argv)]
        except UnicodeEncodeError:  # the locale has no such character
            return None
        variables = [name + b"=" + value for name, value in env.items()]
        if b"\0" in b"".join(words + variables) or b"=" in b"".join(env) or b"" in env:
            return None
        arrays = [(self._text * (len(each) + 1))(*each) for each in (words[1:], variables)]
        return self._prepared.execve, (words[0], *arrays)  # the arrays' last words stay NULL

    def adopt(self) -> None:
        """Make the calling process the parent of its descendants that lose theirs. Does nothing
        where there is no such call. Raises OSError."""
        self._control(PR_SET_CHILD_SUBREAPER, 1)

    def rename(self, name: str, command_line: str, place: tuple[int, int]) -> None:
        """Give the calling process another name and command line, as ps and pkill see them. Does
        nothing where there is no such call. Raises OSError.

        `place`: the addresses at which the command line begins and ends; a longer one is cut.
        """
        if self._prctl is None:
            return
        null = self._word(0)
        self._call(self._prctl, self._long(PR_SET_NAME), name.encode(), null, null, null)
        start, end = place
        if end > start:  # the last byte stays 0, or the kernel would read on in the environment
            length = end - start - 1
            text = command_line.encode()[:length].ljust(length, b"\0")
            self._move(start, text, length)

    def _control(self, option: int, value: int) -> None:
        for call, arguments in self._prepare_control(option, value):
            if call(*arguments) < 0:
                self._call(self._prctl, *arguments)  # again, for the error

    def _prepare_control(self, option: int, value: int) -> list[PreparedCall]:
        """Return a call of prctl; none where there is no such call."""
        if self._prctl is None:
            return []
        null = self._word(0)
        return [(self._prepared.prctl, (self._long(option), self._word(value), null, null, null))]

    def _call(self, function: Any, *args: object) -> None:
        if function(*args) != 0:
            code = self._errno()
            raise OSError(code, os.strerror(code))


def name_signal(number: int) -> str:
    """Return a signal's number and name: `signal 9 (KILL)`."""
    names = [n for n in dir(signal) if n.startswith("SIG") and n[3:4].isalpha()]
    for name in sorted(names):
        if getattr(signal, name) == number and name not in ("SIGCLD", "SIGPOLL", "SIGIOT"):
            return f"signal {number} ({name[3:]})"
    return f"signal {number}"


def restore_signals() -> None:
    """Undo what Python changed at its start: it ignores PIPE and XFSZ, and handles INT."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def send_to(pid: int, number: int, *, group: bool = False) -> None:
    """Send a signal to a child that has not been reaped, or to its whole process group."""
    try:
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except OSError:
        pass  # it runs as another user now, or its group is gone
