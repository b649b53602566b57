"""On a machine with an NVIDIA GPU, ompbind against nvidia-smi and NVML as they are there. `make
test-gpu` runs these tests and fails where there is none; elsewhere they skip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import NoReturn

import pytest

from ompbind.cpuset import CpuSet
from ompbind.devices.nvml import read_nvml
from ompbind.machine import read_machine
from tests.support.needs import REPOSITORY, unavailable

WANTED = "OMPBIND_TEST_GPU"  # set by `make test-gpu`
# What each worker sees: its rank, how many GPUs torch finds, and nvidia-smi's UUIDs of its own.
SEEN = """
import os, subprocess
visible = os.environ["CUDA_VISIBLE_DEVICES"]
try:
    import torch
    count = torch.cuda.device_count() if torch.version.cuda else 1
except ImportError:
    count = 1
ask = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader", "-i", visible]
uuids = subprocess.run(ask, capture_output=True, text=True).stdout.split()
print(os.environ["OMPBIND_RANK"], count, *uuids)
"""


def refuse(reason: str) -> NoReturn:
    """Skip a test where there is no GPU; fail it where `make test-gpu` has asked for one."""
    if WANTED in os.environ:
        pytest.fail(f"no NVIDIA GPU here: {reason}")
    pytest.skip(f"no NVIDIA GPU here: {reason}")


def query_gpus(*fields: str) -> list[list[str]]:
    """Return nvidia-smi's fields of each GPU, in its order."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        refuse("there is no nvidia-smi")
    if done.returncode != 0 or not done.stdout.strip():
        refuse(f"nvidia-smi says {done.stdout.strip()[:80]!r}")
    return [[f.strip() for f in line.split(",")] for line in done.stdout.splitlines()]


def ompbind(*args: str) -> str:
    """Run this tree's command, which need not be installed, to its end; return what it prints."""
    env = {k: v for k, v in os.environ.items() if "VISIBLE_DEVICES" not in k}
    path = os.pathsep.join(filter(None, (str(REPOSITORY), env.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "ompbind", *args],
        env=env | {"PYTHONPATH": path},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ranks_are_near_their_gpus() -> None:
    """The ranks' GPUs are nvidia-smi's in its order, near the cpus that the kernel's files name;
    each worker sees its own, as nvidia-smi and torch say from inside."""
    gpus = query_gpus("pci.bus_id", "uuid")
    plan = json.loads(ompbind("show", "--per", "gpu", "--format", "json", "--", "true"))
    assert len(plan["ranks"]) == len(gpus)
    devices = json.loads(ompbind("topo", "--format", "json"))["devices"]
    allowed = CpuSet.parse_kernel(plan["host"]["allowed"])
    for rank, (address, _) in zip(plan["ranks"], gpus, strict=True):
        pci = address.lower().removeprefix("0000")
        assert pci in rank["why"]
        (device,) = [d for d in devices if d["pci"] == pci]
        near = CpuSet.parse_kernel(device["cpus"]) & allowed
        assert not near or CpuSet.parse_kernel(rank["cpus"]) <= near
    words = ["--per", "gpu", "--gpu-env", "--output", "inherit", "--", sys.executable, "-c", SEEN]
    assert sorted(ompbind("run", *words).splitlines()) == sorted(
        f"{n} 1 {uuid}" for n, (_, uuid) in enumerate(gpus)
    )


def test_nvml_and_files_agree() -> None:
    """NVML and the kernel's files know the same GPUs and UUIDs."""
    gpus = query_gpus("uuid")
    try:
        import pynvml
    except ImportError:
        unavailable("nvidia-ml-py is not installed: pip install 'ompbind[nvidia]'")
    devices = read_machine().topology.devices
    asked, _ = read_nvml(pynvml)
    assert asked is not None
    assert [g.uuid for g in asked] == [uuid for (uuid,) in gpus]
    known = {d.pci: d.uuid for d in devices if d.uuid}
    for nvml in asked:
        assert known.get(nvml.pci, nvml.uuid) == nvml.uuid
        assert any(d.pci == nvml.pci for d in devices)
