"""The file that a worker's command names, found as execvp would, and why it cannot be executed."""

from __future__ import annotations

import os
import sys

from ompbind.errors import CommandError
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# A word of every command that `worker.launchers` knows has one of these in it.
LAUNCHER_NAMES = ("vllm", "sglang", "trtllm", "tensorrt_llm", "run_cpu", "ipexrun",
                  "intel_extension", "deepspeed", "torchrun", "torch.distributed")  # fmt: skip


def may_bind_workers(command: Sequence[str]) -> bool:
    """Whether to ask `worker.launchers`, which no other launch needs, about a command."""
    return any(name in word for word in command for name in LAUNCHER_NAMES)


def find_program(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the path of an executable file in PATH, or `name` if it has a slash; or None."""
    if os.name == "nt":  # where a command may omit the extension
        import shutil

        return shutil.which(name, path=environ.get("PATH"))
    for path in candidates(name, environ):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def candidates(name: str, environ: Mapping[str, str]) -> list[str]:
    if not name:
        return []
    if os.sep in name:
        return [name]
    directories = environ.get("PATH", os.defpath).split(os.pathsep)
    return [os.path.join(d or os.curdir, name) for d in directories]


def find_python(command: Sequence[str], environ: Mapping[str, str]) -> Sequence[str] | None:
    """Return the part of a command that is Python with its options: the command, or the words in
    the first line of its script; None if it is not Python. Empty for a command that does not exist:
    starting it will fail with the reason."""
    if is_python(command[0]):
        return command
    path = find_program(command[0], environ)
    return () if path is None else read_python(command, path)


def read_python(command: Sequence[str], path: str) -> Sequence[str] | None:
    """Return the same of a command whose file is known."""
    if is_python(os.path.realpath(path)):
        return command
    try:
        with open(path, "rb", buffering=0) as file:
            lines = os.fsdecode(file.read(1024)).split("\n")
    except OSError:
        return None
    if not lines[0].startswith("#!"):
        return None
    words = lines[0][2:].split()
    if words and os.path.basename(words[0]) == "env":
        words = words[1:]
        while words and (words[0].startswith("-") or "=" in words[0]):
            words.pop(0)
    elif lines[1:] and lines[1].startswith("'''exec' "):  # by pip, if the path is too long for #!
        words = lines[1].removeprefix("'''exec' ").replace('"', "").split()
    return words if words and is_python(words[0]) else None


def is_python(program: str) -> bool:
    """Whether a file has a name such as python, python3.12, python3.13t or pypy3."""
    name = os.path.basename(program).removesuffix(".exe")
    rest = name.removeprefix("python").removeprefix("pypy")
    return rest != name and all(c in "0123456789.td" for c in rest)


def require_program(name: str, environ: Mapping[str, str]) -> str:
    """Return the path to execute for a command. Raises CommandError, with exit status 127 if it is
    not found, 126 if it is not executable."""
    path = find_program(name, environ)
    if path is None:
        existing = [p for p in candidates(name, environ) if os.path.lexists(p)]
        if not existing:
            from ompbind.worker.missing import hint_for_missing

            place = "" if os.sep in name else " in PATH"
            hint = hint_for_missing(name, lambda n: find_program(n, environ) is not None)
            raise CommandError(f"command not found{place}: {quote(name)}", found=False, hint=hint)
        problem, hint = "is a directory", ""
        if not os.path.isdir(existing[0]):
            problem, hint = "is not executable", f"chmod +x {existing[0]}, or name its interpreter"
        raise CommandError(f"command {problem}: {quote(existing[0])}", found=True, hint=hint)
    if os.name != "nt":
        check_format(path)
    return path


def check_format(path: str) -> None:
    """Raises CommandError for what the kernel cannot execute: a script without `#!` or without its
    interpreter, a damaged binary, another machine's binary.

    execvp, which numactl uses, would hand these to a shell; ompbind never uses one.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(256)
    except OSError:
        return  # an executable need not be readable
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        if not words or not os.access(words[0], os.X_OK):
            interpreter = os.fsdecode(words[0]) if words else ""
            raise CommandError(
                f"command {quote(path)}: its interpreter {quote(interpreter)} cannot be executed",
                found=True,
                hint="fix the #! line",
            )
    elif head.startswith(b"\x7fELF"):
        check_elf(path, head)
    elif b"\0" not in head[:64]:  # text: no binary format looks like that
        raise CommandError(
            f"command {quote(path)} is neither a program nor a script with a #! line",
            found=True,
            hint="name its interpreter: -- sh SCRIPT",
        )


# Machine numbers in ELF files, by the processors that can execute them: 64-bit and 32-bit programs
# of one kind.
FAMILIES = ((62, 3), (183, 40), (21, 20), (22,), (243,))


def check_elf(path: str, head: bytes) -> None:
    """Raises CommandError for a binary with a damaged header, or of another machine than Python's:
    numactl's execvp would hand it to a shell.

    If emulators are registered with the kernel (binfmt_misc), they may execute another machine's.
    Source: elf(5).
    """
    with open(sys.executable, "rb", buffering=0) as file:
        python = file.read(20)
    if len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
        problem, hint = "is damaged: its ELF header is invalid", "reinstall it"
    elif python.startswith(b"\x7fELF") and not is_executable_here(head, python, os.uname().machine):
        if has_emulators():
            return
        problem, hint = "is built for another kind of processor", "install the one for this machine"
    else:
        return
    raise CommandError(f"command {quote(path)} {problem}", found=True, hint=hint)


def is_executable_here(head: bytes, python: bytes, machine: str) -> bool:
    """Whether the kernel that runs a Python executes another binary, by the heads of both. It must
    be of the same byte order and family. `machine`: uname's, which tells whether a 32-bit Python
    runs under a 64-bit kernel."""
    ours, theirs = machine_of(python), machine_of(head)
    family = next((numbers for numbers in FAMILIES if ours in numbers), (ours,))
    if theirs not in family or head[5] != python[5]:
        return False
    return head[4] <= python[4] or "64" in machine or machine == "s390x"


def machine_of(head: bytes) -> int:
    return int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")


def has_emulators() -> bool:
    from ompbind.machine.limits import read_emulators
    from ompbind.machine.roots import DirectoryRoot

    return bool(read_emulators(DirectoryRoot("/")))
