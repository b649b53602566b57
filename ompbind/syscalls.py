"""The system calls behind a binding: sched_setaffinity, set_mempolicy, get_mempolicy.

Memory policy has no wrapper in the C library, so it is called by number. Sources: set_mempolicy(2),
the kernel's syscall tables.
"""

from __future__ import annotations

import errno
import os
import sys

from ompbind.cpuset import CpuSet

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

MODES = {"none": 0, "preferred": 1, "bind": 2, "interleave": 3, "local": 4}
MODE_FLAGS = 0xE000  # MPOL_F_STATIC_NODES, _RELATIVE_NODES and _NUMA_BALANCING


def set_affinity(cpus: CpuSet) -> None:
    """Binds the calling thread. Raises OSError, also when the kernel silently took fewer cpus."""
    os.sched_setaffinity(0, cpus)
    if (got := CpuSet(os.sched_getaffinity(0))) != cpus:
        raise OSError(errno.EINVAL, f"of cpus {cpus} the kernel took only {got}")


def set_memory(mem: str, mems: CpuSet) -> None:
    """Sets the calling thread's memory policy and reads it back. Raises OSError."""
    mode = MODES[mem]
    call_memory(0, mode, mems)
    got_mode, got = read_memory()
    # The kernel reports "preferred" without nodes for what was asked as "local", and may the other
    # way round: both are first touch.
    if (got_mode & ~MODE_FLAGS, got) != (mode, mems) and mem != "local":
        raise OSError(errno.EINVAL, f"of {mem} {mems} the kernel made mode {got_mode}, nodes {got}")


def read_memory() -> tuple[int, CpuSet]:
    """The calling thread's memory policy: mode and nodes. Raises OSError."""
    return call_memory(1, 0, CpuSet())


def call_memory(which: int, mode: int, mems: CpuSet) -> tuple[int, CpuSet]:
    """set_mempolicy (which 0) or get_mempolicy (1); both answer mode and nodes."""
    import ctypes

    number = NUMBERS.get((os.uname().machine, sys.maxsize > 2**32))
    if number is None:
        raise OSError(errno.ENOSYS, f"memory policy is not known on {os.uname().machine}")
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    words = 1024 // bits  # the most nodes that any kernel has: get_mempolicy refuses fewer
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    mask = (ctypes.c_ulong * words)()
    for w in range(words):
        mask[w] = mems.mask >> w * bits & (1 << bits) - 1
    length = ctypes.c_ulong(words * bits + 1)  # the kernel takes one bit less than it is told
    got = ctypes.c_int(mode)
    if which == 0:
        pointer = ctypes.byref(mask) if mems else None
        done = syscall(ctypes.c_long(number[0]), ctypes.c_long(mode), pointer,
                       length if mems else ctypes.c_ulong(0))  # fmt: skip
    else:
        done = syscall(ctypes.c_long(number[1]), ctypes.byref(got), ctypes.byref(mask), length,
                       ctypes.c_void_p(None), ctypes.c_ulong(0))  # fmt: skip
    if done != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    value = sum(word << w * bits for w, word in enumerate(mask))
    return got.value, CpuSet.from_mask(value)
