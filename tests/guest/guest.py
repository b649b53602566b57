"""Runs one command on a made-up machine: boots a kernel over this machine's files, which are
read-only under an overlay, runs the command as root, and hands back its output and exit status.

The processor is emulated, one host thread for all cpus: placement can be judged there, speed and
races cannot.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.guest.image import GuestError, Image, find_image, make_cpio
from tests.guest.machine import Machine, make_processor_table, make_qemu_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QEMU = "qemu-system-x86_64"
# Code is translated once for each address that it is mapped at: every process has the same ones.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 nokaslr norandmaps mitigations=off no_timer_check "
    "random.trust_cpu=on"
)


class Outcome(NamedTuple):
    """`boot`, `seconds`: by the guest's clock, until the command and for the command."""

    status: int
    out: str
    err: str
    boot: float
    seconds: float


def why_not() -> str:
    """Why no guest can be had here; "" when one can."""
    if platform.machine() != "x86_64":
        return f"the guest is for x86-64, this is {platform.machine()}"
    if not shutil.which(QEMU):
        return f"there is no {QEMU}; `tools/setup-system test` installs it"
    try:
        find_image()
    except GuestError as e:
        return str(e)
    return ""


def why_no_boots() -> str:
    """Why the boots of tests/guest/cases.py cannot be had here; "" when they can."""
    if reason := why_not():
        return reason
    if not shutil.which("numactl"):
        return "there is no numactl; `tools/setup-system test` installs it"
    return ""


def run(
    machine: Machine,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 300,
) -> Outcome:
    """Boots, runs, and powers off within `timeout` seconds. `env`: instead of PATH and HOME as
    they are here; a GuestError tells what went wrong before the command's own end."""
    if reason := why_not():
        raise GuestError(reason)
    image = find_image()
    with tempfile.TemporaryDirectory(prefix="ompbind-guest-") as name:
        folder = Path(name)
        job = folder / "job"
        job.mkdir()
        (job / "seconds").write_text(f"{timeout:.0f}\n")
        (job / "prepare").write_text(make_prepare_script(machine))
        (job / "command").write_text(make_command_script(command, env, cwd or Path.cwd()))
        root = folder / "root"
        root.write_bytes(make_root(machine, image))
        problem = boot(
            make_arguments(machine, image.kernel, root, job, folder / "console"), timeout
        )
        if not (job / "status").exists():
            raise GuestError(f"{problem or 'the guest ended early'}\n{describe_end(folder)}")
        status, booted, ended = (job / "status").read_text().split()
        return Outcome(
            status=int(status),
            out=(job / "out").read_text(errors="replace"),
            err=(job / "err").read_text(errors="replace"),
            boot=float(booted),
            seconds=float(ended) - float(booted),
        )


def boot(arguments: Sequence[str], timeout: float) -> str:
    """Runs QEMU to its end. What went wrong, or ""."""
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the guest was ended after {timeout:g} s"
    return done.stderr.strip() if done.returncode else ""


def make_arguments(
    machine: Machine, kernel: Path, root: Path, job: Path, console: Path
) -> list[str]:
    """QEMU's. With a thread for each cpu, those that spin would starve the one they wait for."""
    arguments = [QEMU, "-nodefaults", "-no-reboot", "-display", "none", "-machine", "q35"]
    if os.environ.get("OMPBIND_GUEST_ACCEL") == "kvm":
        arguments += ["-accel", "kvm", "-cpu", "host"]
    else:  # an AMD processor would not tell its dies
        arguments += ["-accel", "tcg,thread=single", "-cpu", "max,vendor=GenuineIntel"]
    arguments += make_qemu_arguments(machine)
    arguments += ["-kernel", str(kernel), "-initrd", str(root), "-append", KERNEL_ARGUMENTS]
    arguments += ["-serial", f"file:{console}"]
    for tag, path, mode in (("host", "/", ",readonly=on"), ("job", str(job), "")):
        shared = f"local,id={tag},path={path.replace(',', ',,')},security_model=none"
        arguments += ["-fsdev", f"{shared},multidevs=remap{mode}"]
        arguments += ["-device", f"virtio-9p-pci,bus=pcie.0,fsdev={tag},mount_tag={tag}"]
    return arguments


def make_root(machine: Machine, image: Image) -> bytes:
    """The initramfs: archives one after the other, the processor table where the kernel looks."""
    table = make_processor_table(machine)
    early = make_cpio({"kernel/firmware/acpi/processors.aml": table}) if table else b""
    init = Path(__file__).with_name("init.sh").read_bytes()
    return early + image.root.read_bytes() + make_cpio({"init": init})


def make_prepare_script(machine: Machine) -> str:
    return "".join(
        f"echo 0 >/sys/devices/system/cpu/cpu{cpu}/online || fail 'cpu {cpu} stays online'\n"
        for cpu in machine.offline
    )


def make_command_script(command: Sequence[str], env: Mapping[str, str] | None, cwd: Path) -> str:
    if env is None:
        env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    variables = [f"{name}={value}" for name, value in env.items()]
    words = ["exec", "/usr/bin/env", "-i", *variables, *command]
    return f"cd {shlex.quote(str(cwd))} || exit 125\n{shlex.join(words)}\n"


def describe_end(folder: Path) -> str:
    """The last lines of what the guest left behind."""
    told = []
    for path in (folder / "console", folder / "job" / "out", folder / "job" / "err"):
        if path.exists() and (text := path.read_text(errors="replace").strip()):
            told.append(f"--- {path.name}:\n{text[-3000:]}")
    return "\n".join(told)
