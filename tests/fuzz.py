"""Coverage-guided fuzzing of every parser of foreign text, with atheris (`pip install atheris`):

    python -m tests.fuzz [TARGET] -max_total_time=60

What it finds goes into the tests as a case. A parser ends with a value or with its own error of one
line; anything else, and anything slow, is a finding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["ompbind"]):
    from ompbind import cpuset, openmp, plan_json
    from ompbind.errors import OmpbindError
    from ompbind.machine import hwloc, read_system, snapshot, synthetic, topology_json
    from ompbind.machine import limits as procfs
    from ompbind.machine.roots import SnapshotRoot
    from ompbind.options import make_request, read_arguments


def lists(text: str) -> None:
    for parse in (
        cpuset.CpuSet.parse_kernel,
        cpuset.CpuSet.parse_user,
        cpuset.CpuSet.parse_mask,
        hwloc.parse_bitmap,
    ):
        try:
            found = parse(text)
        except OmpbindError as e:
            assert "\n" not in e.message
        else:
            assert cpuset.CpuSet.parse_kernel(str(found)) == found


def proc(text: str) -> None:
    procfs.parse_mountinfo(text)
    procfs.parse_mounts(text)
    procfs.parse_cgroups(text)
    procfs.parse_cpuset_path(text)
    procfs.parse_cpu_max(text)
    procfs.parse_memory_bytes(text)
    procfs.parse_stat_cpus(text)
    procfs.parse_status(text, "Cpus_allowed")


def tree(text: str) -> None:
    """The text as several files of a machine, a file for each paragraph."""
    names = ["online", "cpu0/topology/core_cpus", "cpu1/topology/package_cpus", "cpu0/cpu_capacity"]
    files = {f"sys/devices/system/cpu/{n}": p for n, p in zip(names, text.split("\n\n"))}  # noqa: B905
    read_system("linux", SnapshotRoot(files, {}, {})).to_json()


def line(text: str) -> None:
    synthetic.parse_synthetic(text).to_json()


def exported_json(text: str) -> None:
    topology_json.parse_json(text.encode("utf-8", "surrogatepass")).to_json()


def xml(text: str) -> None:
    hwloc.parse_xml(text.encode("utf-8", "surrogatepass")).to_json()


def saved(text: str) -> None:
    system, root = snapshot.parse_text(text.encode("utf-8", "surrogatepass"))
    read_system(system, root).to_json()


def saved_plan(text: str) -> None:
    found = plan_json.parse_plan(text)
    assert plan_json.parse_plan(found.to_json()) == found


def command_line(text: str) -> None:
    values, command = read_arguments(text.split("\n"), "run")
    make_request(values, command, {"OMP_PLACES": text, "OMP_NUM_THREADS": text})
    openmp.parse_proc_bind(text)


TARGETS: dict[str, Callable[[str], None]] = {
    f.__name__: f
    for f in (lists, proc, tree, line, exported_json, xml, saved, saved_plan, command_line)
}


def main() -> None:
    chosen = [a for a in sys.argv[1:] if a in TARGETS] or list(TARGETS)
    arguments_left = [a for a in sys.argv if a not in TARGETS]

    def one_input(data: bytes) -> None:
        # The first byte chooses among the targets, the rest is the text.
        target = TARGETS[chosen[data[0] % len(chosen)]] if data else lists
        text = data[1:].decode("utf-8", "surrogateescape")
        try:
            target(text)
        except OmpbindError as e:
            assert "\n" not in e.message, e.message

    atheris.Setup(arguments_left, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
