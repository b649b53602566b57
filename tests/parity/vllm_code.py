"""vLLM's own code for CPU workers, run on any machine: its OMPProcessManager, with what it asks the
system replaced by answers for that machine.

The code is that of an installed vLLM, or of a wheel that was unpacked; nothing of it is here. Only
two of its files are executed, which need neither torch nor a model.
"""

from __future__ import annotations

import enum
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from ompbind.machine.topology import Machine
from tests.serving.environment import environment_folder, is_set_up

# The directory that holds the package `vllm`; else the environment of `make test-serving` is taken.
VARIABLE = "OMPBIND_VLLM"
MACHINES = {"x86": "x86_64", "arm": "aarch64", "power": "ppc64le", "s390": "s390x",
            "riscv": "riscv64"}  # fmt: skip


class Arch(enum.Enum):
    X86, ARM, POWERPC, S390X, RISCV = range(5)


ARCHES = dict(
    zip(MACHINES, (Arch.X86, Arch.ARM, Arch.POWERPC, Arch.S390X, Arch.RISCV), strict=True)
)


def find_vllm() -> Path | None:
    """The directory of vLLM's package, if there is one."""
    if given := os.environ.get(VARIABLE):
        return Path(given, "vllm")
    found = environment_folder().glob("lib/python3*/site-packages/vllm") if is_set_up() else ()
    return next(iter(found), None)


class ProcessManager:
    """vLLM's OMPProcessManager, loaded once, and asked about machines."""

    def __init__(self, package: Path) -> None:
        self.arch = Arch.X86
        platform = SimpleNamespace(is_cpu=lambda: True, get_cpu_architecture=lambda: self.arch)
        self.envs = module("vllm.envs")
        stubs = {
            "vllm": module("vllm", envs=self.envs),
            "vllm.envs": self.envs,
            "vllm.logger": module("vllm.logger", init_logger=logging.getLogger),
            "vllm.platforms": module("vllm.platforms", CpuArchEnum=Arch,
                                     current_platform=platform),
            "vllm.utils": module("vllm.utils"),
            "regex": re,
            "psutil": module("psutil"),
        }  # fmt: skip
        with modules(stubs):
            name = "vllm.utils.cpu_resource_utils"
            self.resources = load(name, package / "utils/cpu_resource_utils.py")
            sys.modules["vllm.utils"].cpu_resource_utils = self.resources  # type: ignore[attr-defined]
            self.processes = load(
                "vllm.utils.ompmultiprocessing", package / "utils/ompmultiprocessing.py"
            )
            self.numa = load("vllm.utils.numa_utils", package / "utils/numa_utils.py")
        logging.getLogger("vllm").setLevel(logging.CRITICAL)

    def divide(
        self, machine: Machine, family: str, environ: Mapping[str, str], workers: int,
        *, kv_transfer: bool = False,
    ) -> tuple[list[list[int]], list[int]]:  # fmt: skip
        """Return each worker's cpus and those reserved. Raises AssertionError as vLLM does."""
        self.arch = ARCHES[family]
        allowed = set(machine.allowed.cpus)
        fake_os = SimpleNamespace(
            environ=dict(environ), getenv=dict(environ).get, path=os.path, getpid=os.getpid,
            sched_getaffinity=lambda pid: allowed, cpu_count=lambda: len(machine.topology.online),
        )  # fmt: skip
        having = [n.node for n in machine.topology.nodes
                  if n.node in machine.allowed.nodes and n.memory_bytes != 0]  # fmt: skip
        output = lscpu(machine, family)
        self.resources.__dict__.update(
            os=fake_os,
            platform=SimpleNamespace(machine=lambda: MACHINES[family]),
            subprocess=SimpleNamespace(check_output=lambda *args, **options: output),
            get_memory_affinity=lambda: having or [0],
        )
        self.resources._synthesize_cpu_list.cache_clear()  # of the machine before
        self.processes.os = fake_os  # type: ignore[attr-defined]
        reserved = environ.get("VLLM_CPU_NUM_OF_RESERVED_CPU")
        self.envs.__dict__.update(
            VLLM_CPU_NUM_OF_RESERVED_CPU=None if reserved is None else int(reserved),
            VLLM_CPU_OMP_THREADS_BIND=environ.get("VLLM_CPU_OMP_THREADS_BIND", "auto"),
        )
        parallel = SimpleNamespace(
            local_world_size=workers, data_parallel_rank_local=0, _api_process_count=1
        )
        config = SimpleNamespace(parallel_config=parallel, kv_transfer_config=kv_transfer)
        manager = self.processes.OMPProcessManager(config)
        return manager.cpu_lists, manager.reserved_cpu_list

    def numactl_of(self, worker: int, nodes: list[int], cpus: list[str] | None) -> str:
        """Return the options with which vLLM starts a GPU worker under numactl."""
        parallel = SimpleNamespace(
            numa_bind_nodes=nodes, numa_bind_cpus=cpus, distributed_executor_backend="mp",
            data_parallel_backend="mp", nnodes_within_dp=1, data_parallel_rank_local=0,
            data_parallel_index=0, pipeline_parallel_size=1, tensor_parallel_size=len(nodes),
        )  # fmt: skip
        return str(self.numa._get_numactl_worker_args(parallel, worker))

    def priority_cpus(self, tree: Path, nodes: list[int]) -> list[int]:
        """Return the cpus of priority cores on a machine's nodes, [] where vLLM sees none."""

        def place(path: object) -> Path:
            return tree / str(path).lstrip("/")

        self.numa._pct_sku_config.cache_clear()
        self.numa.__dict__.update(
            Path=place,
            _PROC_CPUINFO_PATH=place("/proc/cpuinfo"),
            _PCT_HIGHEST_PERF_PATH=place("/sys/devices/system/cpu/cpu0/acpi_cppc/highest_perf"),
        )
        with modules({"vllm.utils": module("vllm.utils"),
                      "vllm.utils.cpu_resource_utils": self.resources}):  # fmt: skip
            return list(self.numa._maybe_get_pct_cpu_binding(nodes) or [])


def lscpu(machine: Machine, family: str) -> str:
    """What `lscpu --json --extended` prints of a machine's online cpus; `-` is printed bare."""
    rows = []
    for c in machine.topology.cpus:
        fields: dict[str, int | None] = {"cpu": c.cpu, "core": c.core, "node": c.node}
        if family == "s390":
            fields |= {"socket": c.package, "book": c.book}
        texts = [f'"{k}": {"-" if v is None else v}' for k, v in fields.items()]
        rows.append("{" + ", ".join(texts) + "}")
    return '{"cpus": [\n' + ",\n".join(rows) + "\n]}"


def module(name: str, **attributes: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(attributes)
    return made


@contextmanager
def modules(replaced: Mapping[str, ModuleType]) -> Iterator[None]:
    """These modules instead of those that there are, while code is loaded."""
    before = dict(sys.modules)
    sys.modules.update(replaced)
    try:
        yield
    finally:
        for name in {*sys.modules} - {*before}:
            del sys.modules[name]
        sys.modules.update(before)


def load(name: str, path: Path) -> ModuleType:
    """Execute a file as a module of that name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded
