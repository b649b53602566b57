"""Collect what `doctor` judges: read the machine, try to bind in a child process, and examine a
command's files."""

from __future__ import annotations

import os

from ompbind.doctor.findings import Facts
from ompbind.host.kernel import read_settings
from ompbind.host.restrictions import find_restrictions
from ompbind.launch.binding import CALLS, probe_numactl, probe_system_calls
from ompbind.machine import linux_root, read_machine, running_system
from ompbind.machine.limits import read_surroundings
from ompbind.openmp import judge_environment
from ompbind.plans import Binding, Host, Plan, RankPlan
from ompbind.worker import find_program, find_python, require_program
from ompbind.worker.runtimes import guess_worker, merge, package_runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        numactl=find_program("numactl", environ) or "",
    )
    if linux := linux_root():
        surroundings = read_surroundings(linux, policy=True)
        restrictions = find_restrictions(surroundings, machine.topology, environ)
        facts = facts.replace(restrictions=restrictions)
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
    """Return the facts with the OpenMP runtimes that a command loads. Raises CommandError."""
    path = require_program(command[0], environ)
    worker = guess_worker(command, environ)
    facts = facts.replace(command=tuple(command), kind=worker.kind)
    packages: list[str] = []
    missing: list[str] = []
    runtimes: tuple[Runtime, ...] = worker.runtimes
    if find_python(command, environ):
        folders = list_folders(path, command, environ)
        for name in list_imports(path, command):
            for folder in folders:
                directory = os.path.join(folder, name)
                if os.path.isdir(directory):
                    packages.append(name)
                    runtimes = merge(runtimes, package_runtimes(directory, environ))
                    break
                if os.path.isfile(f"{directory}.py"):
                    break
            else:
                missing.append(name)
    return facts.replace(runtimes=runtimes, packages=tuple(packages), missing=tuple(missing))


def list_folders(path: str, command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the directories where a Python finds packages, as far as its files show."""
    prefixes = dict.fromkeys(os.path.dirname(os.path.dirname(p))
                             for p in (os.path.abspath(path), os.path.realpath(path)))  # fmt: skip
    folders = [p for p in environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    folders += [os.path.dirname(os.path.abspath(w)) for w in command[1:2] if w.endswith(".py")]
    folders.append(os.getcwd())
    for prefix in prefixes:
        for lib in ("lib", "lib64"):
            top = os.path.join(prefix, lib)
            names = sorted(os.listdir(top)) if os.path.isdir(top) else []
            for name in names:
                if name.startswith("python3"):
                    for last in ("site-packages", "dist-packages", ""):
                        folders.append(os.path.join(top, name, last))
    return [f for f in folders if os.path.isdir(f)]


def list_imports(path: str, command: Sequence[str]) -> list[str]:
    """Return the packages that a Python command's own code imports (of -c, -m or its script),
    without those of the standard library."""
    import ast
    import sys

    words = [*command]
    code = ""
    if "-c" in words[1:-1]:
        code = words[words.index("-c", 1) + 1]
    elif "-m" in words[1:-1]:
        code = f"import {words[words.index('-m', 1) + 1].partition('.')[0]}"
    else:
        script = next((w for w in words[1:] if not w.startswith("-")), "")
        script = script if script.endswith(".py") else path
        try:
            with open(script, encoding="utf-8") as file:
                code = file.read(1 << 20)
        except (OSError, UnicodeDecodeError):
            return []
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return []
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names[node.module.partition(".")[0]] = None
    return [n for n in names if n not in sys.stdlib_module_names and n != "__future__"]
