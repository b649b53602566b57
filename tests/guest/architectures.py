"""The processors that a guest can have: what emulates each, and where its kernel and programs come
from."""

from __future__ import annotations

from typing import NamedTuple

TESTED = ("amd64", "arm64")  # in every run of the tests; others when they are asked for


class Architecture(NamedTuple):
    """`name`: Debian's; `machine`: the kernel's; `qemu`: the program, and `board` its arguments;
    `share`: its device for folders; `console`: the kernel's name of the serial port; `package`: the
    kernel's; `page`: bytes; `dies`, `numa`: whether QEMU knows them; `device_tree`: whether the
    firmware's is changed to describe processors as the machine has them; `suite`: of Debian, if not
    the one that is used here; `port`: QEMU's arguments for a console in a file; `compiler`: of C
    with OpenMP; `order`: of bytes."""

    name: str
    machine: str
    qemu: str
    board: tuple[str, ...]
    console: str
    share: str = "virtio-9p-pci"
    package: str = ""
    page: int = 4096
    dies: bool = False
    numa: bool = True
    device_tree: bool = False
    suite: str = ""
    port: str = "-serial file:{}"
    compiler: str = "gcc"
    order: str = "little"

    @property
    def is_native(self) -> bool:
        """Whether it runs this machine's own programs."""
        return self.name == "amd64"

    @property
    def setup(self) -> str:
        """What tools/setup-system is asked for."""
        return "test" if self.name in TESTED else f"guest-{self.name}"


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        # With a thread for each cpu, those that spin would starve the one they wait for. An AMD
        # processor would not tell its dies.
        Architecture(
            "amd64",
            "x86_64",
            "qemu-system-x86_64",
            ("-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "max,vendor=GenuineIntel"),
            "ttyS0",
            share="virtio-9p-pci,bus=pcie.0",
            dies=True,
        ),
        Architecture(
            "arm64",
            "aarch64",
            "qemu-system-aarch64",
            ("-machine", "virt,gic-version=3", "-accel", "tcg,thread=single", "-cpu", "cortex-a76"),
            "ttyAMA0",
            package="linux-image-arm64",
            device_tree=True,
            compiler="aarch64-linux-gnu-gcc",
        ),
    )
}

NATIVE = ARCHITECTURES["amd64"]
