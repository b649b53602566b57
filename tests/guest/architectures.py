"""The processors that a guest can have: what emulates each, and where its kernel and programs come
from."""

from __future__ import annotations

from typing import NamedTuple

# QEMU's threads. One for all cpus: with one each, cpus that spin would starve the one that they
# wait for. One for each: where nothing spins, and cpus are many.
ONE_THREAD = ("-accel", "tcg,thread=single")
A_THREAD_EACH = ("-accel", "tcg,thread=multi")

TESTED = ("amd64", "arm64")  # in every run of the tests; others when they are asked for


class Architecture(NamedTuple):
    """`name`: Debian's; `machine`: the kernel's; `qemu`: the program, and `board` its arguments;
    `share`: its device for folders; `console`: the kernel's name of the serial port; `package`: the
    kernel's; `page`: bytes; `dies`, `numa`: whether QEMU knows them; `device_tree`: whether the
    firmware's is changed to describe processors as the machine has them; `suite`: of Debian, if not
    the one that is used here; `port`: QEMU's arguments for a console in a file; `compiler`: of C
    with OpenMP; `order`: of bytes; `emulator`: the packages of a newer QEMU than Debian
    12's, which are unpacked, not installed."""

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
    suite: str = "{}"
    port: str = "-serial file:{}"
    compiler: str = "gcc"
    order: str = "little"
    emulator: tuple[str, ...] = ()

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
        # An AMD processor would not tell its dies. Where "rep movsb" is said to be fast (erms,
        # fsrm) it is used for every page and buffer; emulated, it takes a step for each byte.
        Architecture(
            "amd64",
            "x86_64",
            "qemu-system-x86_64",
            (
                *("-machine", "q35", *ONE_THREAD),
                *("-cpu", "max,vendor=GenuineIntel,-erms,-fsrm"),
            ),
            "ttyS0",
            share="virtio-9p-pci,bus=pcie.0",
            dies=True,
        ),
        Architecture(
            "arm64",
            "aarch64",
            "qemu-system-aarch64",
            ("-machine", "virt,gic-version=3", *ONE_THREAD, "-cpu", "cortex-a76"),
            "ttyAMA0",
            package="linux-image-arm64",
            device_tree=True,
            compiler="aarch64-linux-gnu-gcc",
        ),
        # Without the firmware of a real one, which takes 10 s.
        Architecture(
            "ppc64el",
            "ppc64le",
            "qemu-system-ppc64",
            (
                *("-machine", "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken"),
                *("-machine", "cap-ccf-assist=off"),
                *(*A_THREAD_EACH, "-cpu", "POWER10"),
            ),
            "hvc0",
            package="linux-image-powerpc64le",
            page=65536,
            compiler="powerpc64le-linux-gnu-gcc",
            emulator=("qemu-system-ppc", "qemu-system-data"),
        ),
        Architecture(
            "s390x",
            "s390x",
            "qemu-system-s390x",
            (
                *("-machine", "s390-ccw-virtio", *ONE_THREAD, "-cpu", "max"),
                *("-device", "virtio-serial-ccw"),
            ),
            "ttysclp0",
            package="linux-image-s390x",
            share="virtio-9p-ccw",
            numa=False,
            port="-chardev file,id=console,path={} -device sclpconsole,chardev=console",
            compiler="s390x-linux-gnu-gcc",
            order="big",
            emulator=("qemu-system-s390x", "qemu-system-data"),
        ),
        Architecture(
            "riscv64",
            "riscv64",
            "qemu-system-riscv64",
            ("-machine", "virt", *A_THREAD_EACH, "-cpu", "rv64"),
            "ttyS0",
            package="linux-image-riscv64",
            suite="trixie",
            compiler="riscv64-linux-gnu-gcc",
            emulator=("qemu-system-riscv", "qemu-system-data", "opensbi"),
        ),
    )
}

NATIVE = ARCHITECTURES["amd64"]
