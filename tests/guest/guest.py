"""Runs one command on a made-up machine: boots a kernel over this machine's files, or over those of
another architecture, which are read-only under an overlay, runs the command as root, and hands back
its output and exit status.

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

from tests.guest.architectures import NATIVE, Architecture
from tests.guest.devicetree import describe_cpus, make_blob, parse_tree
from tests.guest.image import Image, find_image, make_cpio
from tests.guest.machine import Machine, make_processor_table, make_qemu_arguments
from tests.guest.packages import GuestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Code is translated once for each address that it is mapped at: every process has the same ones.
KERNEL_ARGUMENTS = (
    "console={console} quiet panic=-1 nokaslr norandmaps mitigations=off no_timer_check "
    "random.trust_cpu=on"
)


class Outcome(NamedTuple):
    """`boot`, `seconds`: by the guest's clock, until the command and for the command."""

    status: int
    out: str
    err: str
    boot: float
    seconds: float


def why_not(architecture: Architecture = NATIVE) -> str:
    """Why no guest can be had here; "" when one can."""
    if architecture.is_native and platform.machine() != architecture.machine:
        return f"the guest is for x86-64, this is {platform.machine()}"
    if not architecture.emulator and not shutil.which(architecture.qemu):
        return (
            f"there is no {architecture.qemu}; `tools/setup-system {architecture.setup}` "
            "installs it"
        )
    try:
        find_image(architecture)
    except GuestError as e:
        return str(e)
    return ""


def why_no_boots(architecture: Architecture) -> str:
    """Why the boots of tests/guest/cases/ cannot be had here; "" when they can."""
    if reason := why_not(architecture):
        return reason
    needed = "numactl" if architecture.is_native else architecture.compiler
    if not shutil.which(needed):
        return f"there is no {needed}; `tools/setup-system {architecture.setup}` installs it"
    return ""


def run(
    machine: Machine,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 300,
    architecture: Architecture = NATIVE,
    folders: Sequence[Path] = (),
) -> Outcome:
    """Boots, runs, and powers off within `timeout` seconds. `env`: instead of PATH and HOME as
    they are here; `folders`: of this machine's, which a guest of another architecture has as well;
    a GuestError tells what went wrong before the command's own end."""
    if reason := why_not(architecture):
        raise GuestError(reason)
    image = find_image(architecture)
    with tempfile.TemporaryDirectory(prefix="ompbind-guest-") as name:
        folder = Path(name)
        job = folder / "job"
        job.mkdir()
        (job / "seconds").write_text(f"{timeout:.0f}\n")
        (job / "prepare").write_text(make_prepare_script(machine))
        (job / "command").write_text(make_command_script(command, env, cwd or Path.cwd()))
        (job / "folders").write_text("".join(f"folder{n} {f}\n" for n, f in enumerate(folders)))
        root = folder / "root"
        root.write_bytes(make_root(machine, image, architecture))
        arguments = image.emulator + make_arguments(machine, architecture)
        if architecture.device_tree:
            arguments += make_tree_arguments(machine, arguments, folder / "tree", timeout)
        arguments += ["-kernel", str(image.kernel), "-initrd", str(root)]
        arguments += ["-append", KERNEL_ARGUMENTS.format(console=architecture.console)]
        arguments += architecture.port.format(folder / "console").split()
        shares = {"host": image.files, "job": job}
        shares |= {f"folder{n}": path for n, path in enumerate(folders)}
        for tag, path in shares.items():
            arguments += make_share_arguments(tag, path, architecture.share)
        problem = boot(arguments, timeout)
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


def make_arguments(machine: Machine, architecture: Architecture) -> list[str]:
    """QEMU's for the machine."""
    arguments = ["-nodefaults", "-no-reboot", "-display", "none"]
    if architecture.is_native and os.environ.get("OMPBIND_GUEST_ACCEL") == "kvm":
        arguments += ["-machine", "q35", "-accel", "kvm", "-cpu", "host"]
    else:
        arguments += architecture.board
    return arguments + make_qemu_arguments(machine, dies=architecture.dies, numa=architecture.numa)


def make_tree_arguments(
    machine: Machine, arguments: Sequence[str], file: Path, timeout: float
) -> list[str]:
    """Those for a device tree with the machine's processors, which is written to a file. QEMU says
    what it would be."""
    if problem := boot([*arguments, "-machine", f"dumpdtb={file}"], timeout):
        raise GuestError(problem)
    root, reserved = parse_tree(file.read_bytes())
    describe_cpus(root, machine)
    file.write_bytes(make_blob(root, reserved))
    return ["-dtb", str(file)]


def make_share_arguments(tag: str, path: Path, device: str) -> list[str]:
    shared = f"local,id={tag},path={str(path).replace(',', ',,')},security_model=none"
    mode = "" if tag == "job" else ",readonly=on"
    arguments = ["-fsdev", f"{shared},multidevs=remap{mode}"]
    return [*arguments, "-device", f"{device},fsdev={tag},mount_tag={tag}"]


def make_root(machine: Machine, image: Image, architecture: Architecture) -> bytes:
    """The initramfs: archives one after another, a PC's processor table where the kernel looks."""
    table = make_processor_table(machine) if architecture.is_native else b""
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
