"""Runs a command where the kernel refuses some system calls, as a container's profile may.

    python tests/support/deny.py EPERM set_mempolicy,sched_setaffinity -- COMMAND [ARG]...

A seccomp filter answers the named calls with the named error; all others, get_mempolicy too, work
as ever. The filter outlives exec and is inherited by children. Sources: seccomp(2), prctl(2),
linux/audit.h, the kernel's syscall tables. x86-64 and aarch64; exits with 77 where it cannot be
installed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

CANNOT = 77

# By machine: the AUDIT_ARCH number, and the calls' numbers.
ARCHITECTURES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (0xC000003E, {"set_mempolicy": 238, "mbind": 237, "sched_setaffinity": 203,
                            "pidfd_open": 434, "pidfd_send_signal": 424}),
    "aarch64": (0xC00000B7, {"set_mempolicy": 237, "mbind": 235, "sched_setaffinity": 122,
                             "pidfd_open": 434, "pidfd_send_signal": 424}),
}  # fmt: skip

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def make_filter(arch: int, numbers: list[int], error: int) -> bytes:
    """The program: another architecture's calls and all but `numbers` are allowed."""
    count = len(numbers)
    steps = [
        (LOAD, 0, 0, 4),  # seccomp_data.arch
        (JUMP_IF_EQUAL, 0, count + 1, arch),  # another: to the ALLOW
        (LOAD, 0, 0, 0),  # seccomp_data.nr
        *((JUMP_IF_EQUAL, count - i, 0, number) for i, number in enumerate(numbers)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERRNO | error),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def install(program: bytes) -> None:
    """Holds this process, and what comes after it, to the filter. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program)
    head = struct.pack("HL", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    unsigned = ctypes.c_ulong
    for args in (
        (PR_SET_NO_NEW_PRIVS, unsigned(1), unsigned(0), unsigned(0), unsigned(0)),
        (PR_SET_SECCOMP, unsigned(SECCOMP_MODE_FILTER), ctypes.c_char_p(head), unsigned(0),
         unsigned(0)),
    ):  # fmt: skip
        if libc.prctl(*args) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(args: list[str]) -> None:
    name, calls, fence, *command = args
    if fence != "--" or platform.machine() not in ARCHITECTURES:
        sys.exit(CANNOT)
    arch, numbers = ARCHITECTURES[platform.machine()]
    try:
        program = make_filter(arch, [numbers[c] for c in calls.split(",")], getattr(errno, name))
        install(program)
    except OSError as e:
        print(f"no seccomp filter: {e}", file=sys.stderr)
        sys.exit(CANNOT)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
