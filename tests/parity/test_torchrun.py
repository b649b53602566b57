"""torchrun's --numa-binding: PyTorch's own code as the judge, on made-up machines with GPUs.

It reads fixed paths of the running machine and asks the driver for the GPUs; here its module is
loaded by itself, reads the made-up tree, and is told the GPUs' addresses.
"""

from __future__ import annotations

import builtins
import importlib.util
import os
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from tests.parity.plans import cpus_of, plan_for
from tests.support.needs import unavailable
from tests.support.trees import Pci, Shape, make_files, write_tree

NVIDIA = "030200"
# Two packages with two nodes each, two caches in each node: an EPYC in NPS2, halved.
FOUR_NODES = Shape(packages=2, nodes=4, cores=32, threads=2, l3s=8, numbering="halves")
ONE_NODE = Shape(packages=1, nodes=1, cores=8, threads=2, l3s=2, numbering="pairs")


def with_gpus(shape: Shape, *nodes: int) -> Shape:
    """The machine with a GPU on each of `nodes`, in the order of their addresses."""
    gpus = tuple(
        Pci(f"0000:{0x10 + 16 * n:02x}:00.0", NVIDIA, node) for n, node in enumerate(nodes)
    )
    return replace(shape, devices=gpus)


MACHINES = {
    "a GPU for each node": with_gpus(FOUR_NODES, 0, 1, 2, 3),
    "two for each node": with_gpus(FOUR_NODES, 0, 0, 1, 1, 2, 2, 3, 3),
    "three on two nodes, unordered": with_gpus(FOUR_NODES, 3, 0, 3),
    "one node": with_gpus(ONE_NODE, 0, 0, 0),
    "no node said": with_gpus(ONE_NODE, -1, -1),
}
OURS = {
    "node": "--per gpu --share --smt all",
    "exclusive": "--per gpu --smt all",
    "socket": "--per gpu --share --gpu-domain package --smt all",
    "core-complex": "--per gpu --share --gpu-domain l3 --smt all",
}


@pytest.fixture
def binding(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch's module of NUMA binding, alone: torch itself takes a second to import."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        unavailable("torch is not installed")
    path = Path(found.origin).with_name("numa") / "binding.py"
    if not path.exists():
        unavailable(f"torch has no {path.name}")
    torch = types.ModuleType("torch")
    utils = types.ModuleType("torch._utils_internal")
    utils.signpost_event = lambda **_: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils_internal", utils)
    spec = importlib.util.spec_from_file_location("numa_binding_of_torch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def judge(
    binding: Any, monkeypatch: pytest.MonkeyPatch, tree: Path, shape: Shape, mode: str
) -> list[str]:
    """The cpus that torchrun gives each local rank."""
    addresses = [d.pci for d in shape.devices]

    def properties(gpu: int) -> Any:
        domain, bus, rest = addresses[gpu].split(":")
        device = rest.partition(".")[0]
        return types.SimpleNamespace(
            pci_domain_id=int(domain, 16), pci_bus_id=int(bus, 16), pci_device_id=int(device, 16)
        )

    binding.torch.cuda = types.SimpleNamespace(
        device_count=lambda: len(addresses), get_device_properties=properties
    )
    real_open, real_list = builtins.open, os.listdir
    online = CpuSet.parse_kernel((tree / "sys/devices/system/cpu/online").read_text())

    def inside(path: Any) -> Any:
        return f"{tree}{path}" if str(path).startswith("/sys/") else path

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", lambda path, *a, **k: real_open(inside(path), *a, **k))
        patch.setattr(os, "listdir", lambda path=".": real_list(inside(path)))
        patch.setattr(os, "sched_getaffinity", lambda _: set(online))
        options = binding.NumaOptions(affinity_mode=binding.AffinityMode(mode))
        return [
            str(CpuSet(binding._get_logical_cpus_to_bind_to(gpu_index=n, numa_options=options)))
            for n in range(len(addresses))
        ]


@pytest.mark.parametrize("mode", OURS)
@pytest.mark.parametrize("name", MACHINES)
def test_ranks_get_the_cpus_that_torchrun_gives_them(
    binding: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, mode: str
) -> None:
    """Local rank n by cuda:n, all its node's cpus, an even part, its package's, or one cache."""
    shape = MACHINES[name]
    nodes = f"0-{shape.nodes - 1}\n"
    write_tree(make_files(shape) | {"sys/devices/system/node/possible": nodes}, tmp_path)
    theirs = judge(binding, monkeypatch, tmp_path, shape, mode)
    ours = cpus_of(plan_for(tmp_path, f"{OURS[mode]} --binder native"))
    assert ours == theirs
