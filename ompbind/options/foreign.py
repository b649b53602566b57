"""The options of other tools and their names here, and the commands that take an option.

Only read for the hint of an error.
"""

from __future__ import annotations

from ompbind.messages import did_you_mean
from ompbind.options.table import OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.options.table import Option

PLANNING = ("run", "show", "")  # "": from the Python API
WORKERS = "the worker's own options follow its command; see ompbind --help"

# From numactl, mpirun, srun, torchrun, hwloc-bind, taskset and the like.
NAMES = {
    "-np": "-n N",
    "-N": "--numa-bind-nodes NODE...",
    "-c": "--numa-bind-cpus CPUS... or --cores-per-rank N",
    "-C": "--numa-bind-cpus CPUS...",
    "-m": "--mem bind, with --numa-bind-nodes NODE...",
    "-i": "--mem interleave",
    "-t": "--threads N",
    "-x": "--env NAME=VALUE",
    "--bind-to": "--per numa|package|l3|core, which binds each rank to one of them",
    "--bind-to-core": "--per core",
    "--bind-to-socket": "--per package",
    "--cores": "--cores-per-rank N",
    "--cores-per-socket": "--cores-per-rank N with --per package",
    "--core-list": "--numa-bind-cpus CPUS...",
    "--cpu-bind": "--numa-bind-cpus CPUS... or --per core",
    "--cpu-list": "--numa-bind-cpus CPUS...",
    "--cpubind": "--numa-bind-nodes NODE...",
    "--cpunodebind": "--numa-bind-nodes NODE...",
    "--cpus": "--numa-bind-cpus CPUS...",
    "--cpus-per-rank": "--cores-per-rank N",
    "--cpus-per-task": "--cores-per-rank N",
    "--cpuset": "--numa-bind-cpus CPUS...",
    "--distribute": "--distribution block|cyclic|spread",
    "--dry-run": "ompbind show, which takes the same options",
    "--export": "--env NAME[=VALUE]",
    "--gpu-bind": "--per gpu --gpu-env",
    "--gpus-per-task": "--per gpu --gpu-env",
    "--hint": "--smt 1 or --smt all",
    "--interleave": "--mem interleave",
    "--json": "--format json, an option of ompbind show, topo, verify and doctor",
    "--label": "--output tag",
    "--localalloc": "--mem local",
    "--map-by": "--per numa|package|l3|core",
    "--mem-bind": "--mem bind",
    "--membind": "--mem bind, with --numa-bind-nodes NODE...",
    "--node": "--numa-bind-nodes NODE...",
    "--nodes": "--numa-bind-nodes NODE...",
    "--nprocs": "-n N",
    "--nproc-per-node": "-n N",
    "--nproc_per_node": "-n N",
    "--ntasks": "-n N",
    "--ntasks-per-node": "-n N",
    "--ntasks-per-socket": "--per package, with -n N",
    "--num-processes": "-n N",
    "--output-filename": "--output-dir DIR",
    "--physcpubind": "--numa-bind-cpus CPUS...",
    "--policy": "--mem bind|preferred|interleave|local|none",
    "--preferred": "--mem preferred, with --numa-bind-nodes NODE...",
    "--print": "ompbind show, which takes the same options",
    "--processes": "-n N",
    "--report-bindings": "ompbind show before, or --verify",
    "--show": "ompbind show, which takes the same options",
    "--tag-output": "--output tag",
    "--tasks-per-node": "-n N",
    "--threads-per-core": "--smt N",
    "--use-hwthread-cpus": "--smt all",
    "--cpu-set": "--numa-bind-cpus CPUS...",
    "--of": "--format json, or --save FILE",
    "--output-format": "--format json, or --save FILE",
    "--pid": "ompbind verify PID...",
    # a server's, which belong behind --
    "--tensor-parallel-size": "--serve vllm, which finds it in the command",
    "--tp": "--serve sglang, which finds it in the command",
    "--server": "--serve vllm|sglang|auto",
    # ompbind's own, before a command
    "--version": "ompbind --version",
    "-V": "ompbind --version",
    "--install-completion": "ompbind --install-completion",
    "--show-completion": "ompbind --show-completion",
}

# Words for the value of an option.
VALUES = {
    ("--per", "socket"): "package",
    ("--per", "sockets"): "package",
    ("--per", "node"): "numa",
    ("--per", "nodes"): "numa",
    ("--per", "l3cache"): "l3",
    ("--per", "llc"): "l3",
    ("--per", "device"): "gpu",
    ("--places", "ll_caches"): "l3",
    ("--places", "numa_domains"): "numa",
    ("--places", "hwthreads"): "threads",
    ("--proc-bind", "master"): "primary",
    ("--mem", "membind"): "bind",
    ("--mem", "default"): "none",
    ("--mem", "localalloc"): "local",
    ("--distribution", "cyclical"): "cyclic",
    ("--gpu-domain", "socket"): "package",
    ("--gpu-domain", "node"): "numa",
}


def hint_for_option(name: str, options: Sequence[Option]) -> str:
    """Return the hint for an option that the command with these options does not have."""
    command = command_of(options)
    by_name = {n: o for o in options for n in o.names}
    if others := commands_with(name):
        return f"{name} is an option of {others}"
    meant = NAMES.get(name, "")
    fits = command in PLANNING or meant.startswith("ompbind ") or meant.split(" ")[0] in by_name
    if meant and fits:
        return f"use {meant}"
    if hint := did_you_mean(name, (*by_name, "--help")):
        return hint
    return WORKERS if command in PLANNING else f"see ompbind {command} --help"


def hint_for_value(option: Option, value: str) -> str:
    """Return the hint for a value that is not one of the option's choices."""
    lower = value.lower()
    meant = lower if lower in option.choices else VALUES.get((option.names[0], lower))
    return f"did you mean {meant}?" if meant else did_you_mean(value, option.choices)


def hint_for_root(name: str) -> str:
    """Return the hint for an option that stands before any command; "" where there is none."""
    others = commands_with(name)
    return f"{name} is an option of {others}" if others else ""


def command_of(options: Sequence[Option]) -> str:
    """Return the command that has these options; "" when it cannot be told."""
    common = set.intersection(*(set(o.commands) for o in options)) if options else set()
    return common.pop() if len(common) == 1 else ""


def commands_with(name: str) -> str:
    """Return the commands that have an option of this name: `ompbind show and topo`, or ""."""
    names = [c for o in OPTIONS if name in o.names for c in o.commands]
    names = list(dict.fromkeys(names))
    if not names:
        return ""
    return f"ompbind {' and '.join([', '.join(names[:-1])] * bool(names[1:]) + names[-1:])}"
