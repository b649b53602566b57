"""Collect what `doctor` judges: read the machine, try to bind in a child process, and examine a
command's files."""

from __future__ import annotations

from ompbind.doctor.allocator import find_allocator
from ompbind.doctor.findings import WORKER_BINDING, Facts
from ompbind.doctor.packages import find_packages
from ompbind.doctor.pools import find_pool
from ompbind.engines import find_rank
from ompbind.host.kernel import read_settings
from ompbind.host.restrictions import find_restrictions
from ompbind.launch.binding import CALLS, probe_numactl, probe_system_calls
from ompbind.machine import linux_root, read_machine, running_system
from ompbind.machine.surroundings import read_surroundings
from ompbind.openmp import judge_environment
from ompbind.plans import Binding, Host, Plan, RankPlan
from ompbind.worker import find_program, find_python, require_program
from ompbind.worker.launchers import find_launch
from ompbind.worker.runtimes import guess_worker, merge, package_runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.doctor.packages import Package
    from ompbind.machine.topology import Machine
    from ompbind.worker.runtimes import Runtime


def gather(command: Sequence[str], environ: Mapping[str, str]) -> Facts:
    """Return the facts about this machine, and about a command. Raises OmpbindError."""
    machine = read_machine(devices=False)
    _, root = running_system()
    facts = Facts(
        machine=machine,
        settings=read_settings(root, machine.allowed.cpus),
        variables=judge_environment(environ, {}).inherited,
        worker_binding=tuple((n, environ[n]) for n in WORKER_BINDING if environ.get(n)),
        numactl=find_program("numactl", environ) or "",
    )
    if linux := linux_root():
        facts = facts.replace(task=find_rank(None, None, environ).task)
        surroundings = read_surroundings(linux, policy=True)
        restrictions = find_restrictions(surroundings, machine.topology, environ)
        quota, online = machine.allowed.quota, machine.topology.online
        pool = find_pool(surroundings, online, quota, environ)
        facts = facts.replace(restrictions=restrictions, pool=pool)
    if machine.can_bind:
        facts = try_binding(facts, environ)
    return with_command(facts, command, environ) if command else facts


def try_binding(facts: Facts, environ: Mapping[str, str]) -> Facts:
    """Return the facts with what was denied when binding to everything that is allowed."""
    plan = plan_of_all(facts.machine)
    denied = tuple((CALLS[r.part], r.reason) for r in probe_system_calls(plan))
    problem = ""
    if facts.numactl and facts.machine.topology.numa and not denied:
        problem = probe_numactl(plan, environ) or ""
    elif facts.numactl and not facts.machine.topology.numa:
        problem = "the kernel has no NUMA"
    return facts.replace(denied=denied, numactl_problem=problem)


def plan_of_all(machine: Machine) -> Plan:
    """Return a plan of one rank on everything that is allowed, its memory bound."""
    cpus, nodes = machine.allowed.cpus, machine.allowed.nodes
    numa = machine.topology.numa and bool(nodes)
    mem, mems = ("bind", nodes) if numa else ("none", type(nodes)())
    rank = RankPlan(
        rank=0, binding=Binding(cpus, mem, mems, "numactl" if numa else "native"), places=(cpus,),
        nodes=machine.topology.nodes_of(cpus), env=(), unset=(), command=(),
    )  # fmt: skip
    host = Host(machine.name, machine.topology.online, cpus, machine.topology.node_numbers)
    return Plan(host, (rank,))


def with_command(facts: Facts, command: Sequence[str], environ: Mapping[str, str]) -> Facts:
    """Return the facts with the OpenMP runtimes and the allocator that a command loads. Raises
    CommandError."""
    path = require_program(command[0], environ)
    launch = find_launch(command)
    facts = facts.replace(command=tuple(command), server=launch.launcher.name if launch else "")
    if launch is not None and launch.program in command[1:]:  # behind env, numactl and the like
        command = command[command.index(launch.program, 1) :]
        path = find_program(command[0], environ) or path
    worker = guess_worker(command, environ)
    runtimes: tuple[Runtime, ...] = worker.runtimes
    packages: list[Package] = []
    missing: list[str] = []
    if find_python(command, environ):
        packages, missing = find_packages(path, command, environ)
        for package in packages:
            brought = package_runtimes(package.directory, environ)
            if package.by:
                brought = tuple(r.replace(via=describe(r, package)) for r in brought)
            runtimes = merge(runtimes, brought)
    return facts.replace(
        kind=worker.kind,
        runtimes=runtimes,
        packages=tuple(p.name for p in packages if not p.by),
        required=sum(bool(p.by) for p in packages),
        missing=tuple(missing),
        allocator=find_allocator(command, environ),
    )


def describe(runtime: Runtime, package: Package) -> str:
    """Return what asks for a runtime of a required package."""
    text = f"{package.name}, which {package.by} requires"
    return f"{runtime.via} of {text}" if runtime.via else text
