"""What is said of a process beside its plan: by made-up observations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet, union
from ompbind.machine.processes import HugePages, Memory, Process, Thread
from ompbind.messages import format_size
from ompbind.verify.expected import Expected, NamedThreads
from ompbind.verify.judge import judge
from ompbind.verify.report import MAX_INDENTED_THREADS, ProcessReport, Repair, Report
from ompbind.verify.threads import abbreviate

ONLINE = CpuSet.parse_kernel("0-7")
PID = 100


def planned(
    places: str = "0 1 2 3", *, threads: int | None = None, bind: str = "close", mem: str = "none"
) -> Expected:
    """A rank by its places, and all else from them."""
    sets = tuple(CpuSet.parse_kernel(p) for p in places.split())
    text, _, mems = mem.partition(":")
    policy, _, flag = text.partition("=")
    return Expected(0, union(sets), () if bind == "false" else sets, bind, threads or len(sets),
                    policy, CpuSet.parse_kernel(mems), balancing=bool(flag))  # fmt: skip


def seen(masks: str, **more: Any) -> Process:
    """A process with a thread for each mask, numbered from PID on, the main thread first."""
    threads = tuple(
        Thread(PID + n, "worker", "S", CpuSet.parse_kernel(mask), None)
        for n, mask in enumerate(masks.split())
    )
    fields: dict[str, Any] = {
        "name": "worker",
        "environ": (),
        "libraries": ("libc.so.6", "libgomp.so.1"),
    }
    return Process(PID, 1, 7, threads=threads, **(fields | more))


def make_fixed(mask: str, tid: int = PID + 4) -> Thread:
    """A thread that the kernel has made and lets nobody bind."""
    return Thread(tid, "iou-sqp-100", "S", CpuSet.parse_kernel(mask), None, fixed=True)


def kinds(checked: ProcessReport) -> list[str]:
    return [d.kind for d in checked.differences]


def messages(checked: ProcessReport) -> str:
    """All that is said about it: notes, differences, causes and remedies."""
    differences = (f"{d.text}\n{d.cause}\n{d.remedy}" for d in checked.differences)
    return "\n".join([*checked.notes, *differences])


# what was seen, planned, online cpus, the kinds of differences, and a word of what is said
CASES: dict[str, tuple[Process, Expected, str, list[str], str]] = {
    "each thread in its place": (seen("0 1 2 3"), planned(), "0-7", [], ""),
    "the kernel names cpus that could come": (
        seen("0,8-63 1,8-63 2,8-63 3,8-63"), planned(), "0-7", [], ""),
    "a pool of other threads inside the rank's cpus": (
        seen("0 1 2 3 0-3 0-3"), planned(), "0-7", [], "2 threads without a place"),
    "a smaller team than planned": (
        seen("0 1 2"), planned(), "0-7", [], "3 of 4 OpenMP threads exist"),
    "only the main thread yet": (
        seen("0"), planned(), "0-7", [], "whatever it starts inherits that"),
    "no OpenMP at all": (
        seen("0-3 0-3", libraries=()), planned(), "0-7", [], "no OpenMP runtime is loaded"),
    "a runtime that binds when it first needs its threads": (
        seen("0-3", libraries=("libomp.so.5",)), planned(), "0-7", [], "cannot be identified"),
    "one thread wandered": (
        seen("0 0-3 2 3"), planned(), "0-7", ["wandered"], "or ompbind verify --repair"),
    "one thread wandered among others of the program's own": (
        seen("0 1 0-3 3 0-3 0-3"), planned(), "0-7", ["wandered"], "thread 102 may run"),
    "the main thread was set free": (
        seen("0-3 1 2 3"), planned(), "0-7", ["wandered"], "the main thread may run on cpus 0-3"),
    "one thread outside": (
        seen("0 1-7 2 3"), planned(), "0-7", ["outside"], "thread 101 may run on cpus 1-7"),
    "one thread outside, and too few for the places": (
        seen("0 1-7"), planned(), "0-7", ["outside"], "thread 101 may run on cpus 1-7"),
    "one thread outside, and one of the program's own": (
        seen("0 1-7 2 3 0-3"), planned(), "0-7", ["outside"], "1 thread without a place"),
    "all threads outside": (
        seen("0-7 0-7 0-7 0-7"), planned(), "0-7", ["changed"], "or ompbind verify --repair"),
    "a runtime that follows its own variable": (
        seen("4 5 6 7", environ=(("GOMP_CPU_AFFINITY", "4-7"),)), planned(), "0-7",
        ["outside"] * 4, "GOMP_CPU_AFFINITY=4-7 in its environment"),
    "a library that binds its threads by the machine's cores": (
        seen("0-3 0-3 7", libraries=("onnxruntime_pybind11_state.cpython-311.so",)),
        planned("0-3"), "0-7", ["outside"], "ONNX Runtime, which binds its threads to the "
        "machine's cores by default\nset SessionOptions.intra_op_num_threads in the program"),
    "all threads elsewhere, of which a library would bind its own": (
        seen("4-7 4-7", libraries=("onnxruntime_pybind11_state.cpython-311.so",)),
        planned("0-3"), "0-7", ["changed"], "the mask was changed after the start"),
    "a part of the plan in a cgroup that has nothing of it": (
        seen("0-1", cpuset=CpuSet([4])), planned("0-3", threads=1), "0-7", ["cgroup", "changed"],
        "the main thread may run only on cpus 0-1 of 0-3"),
    "no thread in a place though libgomp is there": (
        seen("0-3 0-3 0-3 0-3"), planned(), "0-7", ["wandered"], "no thread is bound to a place"),
    "the main thread and what it started": (
        seen("0 0 0 1 2 3"), planned(), "0-7", ["caught"], "--places one"),
    "two threads on another place": (
        seen("0 1 1 2 3"), planned(), "0-7", ["crowded"], "2 threads are bound to place {1}"),
    "two runtimes": (
        seen("0 1 1 2 3", libraries=("libgomp-a.so", "libiomp5.so")), planned(), "0-7",
        ["crowded"], "two OpenMP runtimes, each with a team of its own (libgomp-a.so, "
        "libiomp5.so), or masks that were changed later\n"),
    "a runtime that offloads": (
        seen("0 1 1 2 3", libraries=("libgomp-plugin-nvptx.so.1", "libgomp.so.1")), planned(),
        "0-7", ["crowded"], "a second team of OpenMP threads (nested regions, or regions entered "
        "by several threads), or masks that were changed later\n"),
    "a runtime whose helper threads are told to go elsewhere": (
        seen("4 5 6 7", environ=(("KMP_HIDDEN_HELPER_AFFINITY", "none"),)), planned(), "0-7",
        ["outside"] * 4, "KMP_HIDDEN_HELPER_AFFINITY=none in its environment"),
    "a worker that its server has bound": (
        seen("1 1", environ=(("GOMP_CPU_AFFINITY", "1 2"),)), planned("0-3"), "0-7", ["changed"],
        "only on cpu 1 of 0-3"),
    "a worker whose server's binding is overridden": (
        seen("0-3 0-3", environ=(("GOMP_CPU_AFFINITY", "1 2"),)), planned("0-3"), "0-7",
        ["environment"], "--omp off"),
    "a worker bound by what is no list": (
        seen("0-3 0-3", environ=(("GOMP_CPU_AFFINITY", "none"),)), planned("0-3"), "0-7", [], ""),
    "as many on each place as planned": (
        seen("0 1 0 1"), planned("0 1", threads=4), "0-7", [], "4 threads for 2 cpus"),
    "all on the first place, as planned": (
        seen("0 0 0 0"), planned(bind="primary"), "0-7", [], ""),
    "a cpu went offline": (
        seen("0 1 2 0-2,4-7"), planned(), "0-2,4-7", ["offline", "outside"],
        "the kernel had to widen the mask: cpu 3 of the plan is offline"),
    "a cpu went offline whose thread sleeps": (
        seen("0 1 2 3"), planned(), "0-2,4-7", ["offline"], "and 1 thread bound to no other"),
    "a cpu went offline whose thread had others": (
        seen("0-1 2-3"), planned("0-1 2-3"), "0-2,4-7", ["offline"], "--exclude 3"),
    "a cgroup that shrank": (
        seen("0 1 0-1 0-1", cpuset=CpuSet([0, 1])), planned(), "0-7", ["cgroup", "wandered"],
        "no longer allows cpus 2-3"),
    "a cgroup that shrank under one place for all": (
        seen("0-1 0-1", cpuset=CpuSet([0, 1])), planned("0-3", threads=2), "0-7", ["cgroup"], ""),
    "a cgroup that is larger": (
        seen("0 1 2 3", cpuset=CpuSet(range(64))), planned(), "0-7", [], ""),
    "a cgroup that shrank to the main thread's place": (
        seen("0 0 0 0", cpuset=CpuSet([0])), planned(), "0-7", ["cgroup", "crowded"],
        "restart it within the remaining cpus"),
    "fewer threads than planned, none in a place though libgomp is there": (
        seen("0-3 0-3"), planned(), "0-7", ["wandered"], "no thread is bound to a place"),
    "one place for all": (seen("0-3 0-3 0-3"), planned("0-3", threads=3), "0-7", [], ""),
    "one place for all, narrowed": (
        seen("1 1 1"), planned("0-3", threads=3), "0-7", ["changed"], "only on cpu 1 of 0-3"),
    "one place for all, a thread of the program's narrowed": (
        seen("0-3 0-3 2"), planned("0-3", threads=3), "0-7", [], "restricted by the program"),
    "a wide first place": (
        seen("0-3 1 2 3 0-3"), planned("0-3 1 2 3"), "0-7", [], "1 thread without a place"),
    "a wide first place, and a thread that wandered": (
        seen("0-3 1 0-3 3"), planned("0-3 1 2 3"), "0-7", ["wandered"], "thread 102 may run"),
    "a wide first place, and a narrowed main thread": (
        seen("0 1 2 3"), planned("0-3 1 2 3"), "0-7", ["wandered"], "place {0-3} is empty"),
    "not to be bound": (seen("0-3 0-3"), planned(bind="false"), "0-7", [], ""),
    "not to be bound, and outside": (
        seen("0-3 0-7"), planned(bind="false"), "0-7", ["outside"], "thread 101"),
    "a main thread that has ended": (
        seen("0 1 2 3").replace(pid=99), planned(), "0-7", [], ""),
    "another environment than the plan's": (
        seen("0 1 2 3", environ=(("OMP_NUM_THREADS", "8"),)),
        planned().replace(env=(("OMP_NUM_THREADS", "4"),)), "0-7", ["environment"],
        "OMP_NUM_THREADS is 8 in its environment; the plan says 4"),
    "ended": (seen(""), planned(), "0-7", ["ended"], "worker has exited"),
    "ended, and nobody knows its name": (
        seen("", name=""), planned(), "0-7", ["ended"], "the process has exited"),
    "half the team wandered": (
        seen("0 0-3 0-3 3"), planned(), "0-7", ["wandered"],
        "threads 101, 102 may run on cpus 0-3, while places {1} {2} are empty"),
    "more than half the team wandered": (
        seen("0 0-3 0-2 0-3"), planned(), "0-7", [],
        "1 of 4 OpenMP threads exists: the main thread, on cpu 0"),
    "all but one that is not the main thread": (
        seen("0-3 1"), planned(), "0-7", [], "1 of 4 OpenMP threads exists\n"),
    "one thread wandered, the only one with a narrower mask": (
        seen("0 0-3 0-1 2 3"), planned(), "0-7", ["wandered"],
        "thread 102 may run on cpus 0-1, while place {1} is empty"),
    "one thread wandered, but nobody knows which": (
        seen("0 0-3 0-3 2 3"), planned(), "0-7", [], "3 of 4 OpenMP threads exist\n"),
    "one thread wandered, beside others that were started before and after": (
        seen("0-3 0-3 0 0-3 2 3 0-3").replace(pid=99), planned(), "0-7", ["wandered"],
        "thread 103 may run"),
    "the main thread wandered, beside others that were started after": (
        seen("0-3 1 2 3 0-3 0-3"), planned(), "0-7", ["wandered"],
        "the main thread may run on cpus 0-3, while place {0} is empty"),
    "the main thread wandered, and why": (
        seen("0-3 1 2 3"), planned(), "0-7", ["wandered"],
        "the main thread's mask was reset after OpenMP had bound it"),
    "the main thread wandered, and what to do": (
        seen("0-3 1 2 3"), planned(), "0-7", ["wandered"],
        "restart it with --places one if the main thread needs all cpus\n"),
    "another thread wandered, and why": (
        seen("0 0-3 2 3"), planned(), "0-7", ["wandered"],
        "its mask was changed after OpenMP had bound it"),
    "one of two threads wandered": (
        seen("0 0-1"), planned("0 1"), "0-7", ["wandered"], "thread 101 may run"),
    "neither of two threads in a place": (
        seen("0-1 0-1"), planned("0 1"), "0-7", ["wandered"], "no thread is bound to a place"),
    "one thread outside, and two of the program's own": (
        seen("0 1-7 2 3 0-3 0-3"), planned(), "0-7", ["outside"], "2 threads without a place"),
    "two threads wandered to different cpus": (
        seen("0 0-1 0-2 3"), planned(), "0-7", ["wandered"], "may run on cpus 0-1 0-2, while"),
    "a cgroup that shrank, and threads that wandered for it": (
        seen("0-1 1 0-1 0-1", cpuset=CpuSet([0, 1])), planned(), "0-7", ["cgroup"],
        "3 threads without a place"),
    "the main thread wandered as a cpu went offline": (
        seen("1-3 1 2 3"), planned(), "1-7", ["offline", "wandered"],
        "the kernel had to change the mask: cpu 0 of the plan is offline"),
    "cpus went offline": (
        seen("0 1 2-7 2-7"), planned(), "0-1,4-7", ["offline", "outside"],
        "cpus 2-3 of the plan are offline\n"),
    "a thread in a role's cpus": (
        seen("0 1 2 3 5 5-6"), planned().replace(roles=(CpuSet([5, 6]), CpuSet([7]))), "0-7", [],
        ""),
    "a thread in the cpus of two roles": (
        seen("0 1 2 3 5,7"), planned().replace(roles=(CpuSet([5, 6]), CpuSet([7]))), "0-7",
        ["outside"], "thread 104 may run on cpus 5,7; the plan says 0-3"),
    "threads outside with different masks": (
        seen("0 1-7 1-7 4"), planned(), "0-7", ["outside", "outside"],
        "threads 101, 102 may run on cpus 1-7"),
    "two places for one thread": (
        seen("0-1"), planned("0 1", threads=1), "0-7", [], "0 of 1 OpenMP threads exist\n"),
    "a team of unknown size": (
        seen("0 1 2"), planned().replace(threads=None), "0-7", [], "3 of 4 OpenMP threads exist"),
    "all threads set to one place": (
        seen("0 0 0 0"), planned(), "0-7", ["caught"], "or all masks were set to it later"),
    "all threads set to one place, or bound to none": (
        seen("0 0 0-3"), planned(), "0-7", ["caught"], "or all masks were set to it later"),
    "all threads set to one place that is not the main thread's": (
        seen("0-3 2 2 2"), planned(), "0-7", ["crowded"],
        "3 threads are bound to place {2}; the plan puts 1 there: threads 101, 102, 103"),
    "a thread too many, where places are shared": (
        seen("0 1 0 1 1"), planned("0 1", threads=3), "0-7", ["crowded"],
        "3 threads are bound to place {1}; the plan puts 2 there"),
    "as many on each place as planned, though it does not divide": (
        seen("0 1 1"), planned("0 1", threads=3), "0-7", [], "3 threads for 2 cpus"),
    "all on the first place, one more than planned": (
        seen("0 0 0"), planned("0 1", threads=2, bind="master"), "0-7", ["caught"], ""),
    "a runtime that binds early, its threads unbound": (
        seen("0-3 0-3 0-3 0-3", libraries=("libomp.so.5",)), planned(), "0-7", ["wandered"],
        "although libomp.so.5 is loaded"),
    "a runtime that binds early, and too few threads": (
        seen("0-3 0-3 0-3", libraries=("libomp.so.5",)), planned(), "0-7", [],
        "cannot be identified: none is bound to a place\n"),
    "as many threads as planned, without a runtime": (
        seen("0-3 0-3 0-3 0-3", libraries=()), planned(), "0-7", [],
        "none is bound to a place, and no OpenMP runtime is loaded"),
    "threads that have exited": (
        seen("0 1 2 3").replace(threads=(*seen("0 1 2").threads,
                                         Thread(PID + 3, "worker", "S", CpuSet(), None))),
        planned(), "0-2,4-7", ["offline"], "cpu 3 of the plan is offline\n"),
    "a thread of the program's own that it has narrowed": (
        seen("0-3 0-3 1-2", libraries=()), planned(bind="false"), "0-7", [],
        "thread 102 may run only on cpus 1-2 of 0-3: restricted by the program itself, or later"),
    "a thread of the kernel's elsewhere": (
        seen("0 1 2 3").replace(threads=(*seen("0 1 2 3").threads, make_fixed("7"))),
        planned(), "0-7", [],
        "thread 104 may run on cpu 7: the kernel has made it, and lets nobody bind it"),
    "one thread wandered, and one of the kernel's is elsewhere": (
        seen("0 0-3 2 3").replace(threads=(*seen("0 0-3 2 3").threads, make_fixed("7"))),
        planned(), "0-7", ["wandered"], "thread 104 may run on cpu 7: the kernel has made it"),
    "a thread of the kernel's in a place": (
        seen("0 1 2 3").replace(threads=(*seen("0 1 2 3").threads, make_fixed("2"))),
        planned(), "0-7", [], ""),
    "a thread of the kernel's beside those without places": (
        seen("0-3 0-3").replace(threads=(*seen("0-3 0-3").threads, make_fixed("1", 102))),
        planned(bind="false"), "0-7", [], ""),
    "every thread but the kernel's elsewhere": (
        seen("4-7 4-7").replace(threads=(*seen("4-7 4-7").threads, make_fixed("0", 102))),
        planned(bind="false"), "0-7", ["changed"], "every thread may run on cpus 4-7"),
    "a narrowed main thread and others": (
        seen("2 2 1"), planned(bind="false"), "0-7", ["changed"],
        "thread 102 may run only on cpu 1 of 0-3: restricted"),
    "narrow only because its cgroup is": (
        seen("0-1 0-1", cpuset=CpuSet([0, 1, 6])), planned(bind="false"), "0-7", ["cgroup"],
        "plan within 0-1"),
    "a cgroup without any cpu of the plan": (
        seen("6 6", cpuset=CpuSet([6])), planned(bind="false"), "0-7", ["cgroup", "changed"],
        "plan within 6"),
    "a variable that is missing": (
        seen("0 1 2 3", environ=(("A", "8"),)),
        planned().replace(env=(("OMP_NUM_THREADS", "4"), ("A", "8"))), "0-7", ["environment"],
        "OMP_NUM_THREADS is not set in its environment; the plan says 4"),
    "variables that are not to be seen": (
        seen("0 1 2 3", environ=(), overwritten=True),
        planned().replace(env=(("OMP_NUM_THREADS", "4"),)), "0-7", ["changed"] * 1,
        "known by its launch"),
    "a server's binding that is overridden, of part of the threads": (
        seen("0-3 1", environ=(("GOMP_CPU_AFFINITY", "1,2"),)), planned("0-3"), "0-7",
        ["environment"], "GOMP_CPU_AFFINITY=1,2 in its environment has no effect: it may run on"
        " cpus 0-3"),
    "a server's binding that another runtime does not read": (
        seen("0-3 0-3", environ=(("GOMP_CPU_AFFINITY", "1 2"),), libraries=("libomp.so",)),
        planned("0-3"), "0-7", [], ""),
    "a server's binding that one of two runtimes reads": (
        seen("0-3 0-3", environ=(("GOMP_CPU_AFFINITY", "1 2"),),
             libraries=("libgomp.so.1", "libomp.so")), planned("0-3"), "0-7", ["environment"], ""),
    "a server's binding that is wider": (
        seen("0-3 0-3", environ=(("GOMP_CPU_AFFINITY", "0-5"),)), planned("0-3"), "0-7", [], ""),
    "a server's binding that is empty": (
        seen("0-3 0-3", environ=(("GOMP_CPU_AFFINITY", ""),)), planned("0-3"), "0-7", [], ""),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_threads_are_judged(name: str) -> None:
    """Each situation is called what it is, with its cause and its remedy."""
    process, expected, online, wanted, word = CASES[name]
    checked = judge(process, expected, CpuSet.parse_kernel(online))
    assert kinds(checked) == wanted, messages(checked)
    assert word in messages(checked) + "\n"


def memory(policy: str, *own: tuple[int, int], mib: int = 64, others: Any = ()) -> Process:
    """A process in its places whose memory lies so: (node, percent)…"""
    pages = tuple((policy, node, (mib << 20) * share // 100) for node, share in own)
    return seen("0 1 2 3", memory=Memory(policy, (*pages, *others), ((0, 1 << 20),)),
                mems=CpuSet([0, 1]))  # fmt: skip


MEMORY: dict[str, tuple[Process, str, list[str], str]] = {
    "bound": (memory("bind:0", (0, 100)), "bind:0", [], ""),
    "bound with a flag": (memory("bind=static:0", (0, 100)), "bind:0", [], ""),
    "a page or two elsewhere": (memory("bind:0", (0, 100), (1, 0)), "bind:0", [], ""),
    "on the wrong node": (
        memory("bind:0", (0, 25), (1, 75)), "bind:0", ["memory"], "48.0 MiB of its memory (75%)"),
    "another policy": (memory("default", (0, 100)), "bind:0", ["policy"], "is default"),
    "another policy, though it may use the plan's nodes": (
        memory("default", (0, 100)), "bind:0", ["policy"], "look for numa_set"),
    "the cgroup lost a node": (
        memory("bind:0-1", (0, 100)), "bind:0-2", ["policy"], "it may use memory of 0-1"),
    "preferred": (memory("prefer:1", (1, 100)), "preferred:1", [], ""),
    "preferred, in newer words": (memory("prefer (many):1", (1, 100)), "preferred:1", [], ""),
    "preferred nodes": (memory("prefer (many):0-1", (0, 50), (1, 50)), "preferred:0-1", [], ""),
    "preferred nodes, and full": (
        memory("prefer (many):0-1", (0, 50), (2, 50)), "preferred:0-1", [], "0-1 were full"),
    "one of the preferred nodes": (
        memory("prefer:0", (0, 100)), "preferred:0-1", ["policy"], "its memory policy is prefer:0"),
    "interleaved by weight": (
        memory("weighted interleave:0-1", (0, 90), (1, 10)), "weighted-interleave:0-1", [], ""),
    "interleaved without the weights": (
        memory("interleave:0-1", (0, 50), (1, 50)), "weighted-interleave:0-1", ["policy"],
        "the plan says weighted-interleave 0-1"),
    "balanced": (memory("bind=balancing:0-1", (0, 100)), "bind=balancing:0-1", [], ""),
    "balanced, as older kernels write it": (
        memory("bind=:0-1", (0, 100)), "bind=balancing:0-1", [], ""),
    "not balanced": (
        memory("bind:0-1", (0, 100)), "bind=balancing:0-1", ["policy"],
        "the plan says bind 0-1 with balancing"),
    "balanced, not planned": (
        memory("bind=static|balancing:0", (0, 100)), "bind:0", ["policy"], "the plan says bind 0"),
    "preferred, and full": (
        memory("prefer:1", (0, 50), (1, 50)), "preferred:1", [], "was full"),
    "on the wrong node, just enough": (
        memory("bind:0", (0, 75), (1, 25), mib=1), "bind:0", ["memory"],
        "256 KiB of its memory (25%)"),
    "on the wrong node, too little": (
        seen("0 1 2 3", memory=Memory("bind:0", (("bind:0", 1, (256 << 10) - 1),))), "bind:0",
        [], ""),
    "on the wrong node, of much": (
        seen("0 1 2 3", memory=Memory("bind:0", (("bind:0", 0, 1 << 30), ("bind:0", 1, 1 << 20)))),
        "bind:0", [], ""),
    "on the wrong node, a hundredth": (
        seen("0 1 2 3", memory=Memory("bind:0", (("bind:0", 0, 99 << 20), ("bind:0", 1, 1 << 20)))),
        "bind:0", ["memory"], "1.0 MiB of its memory (1%)"),
    "interleaved": (memory("interleave:0-1", (0, 50), (1, 50)), "interleave:0-1", [], ""),
    "local": (memory("local", (0, 50), (1, 50)), "local", [], ""),
    "local, in older words": (memory("prefer", (0, 50), (1, 50)), "local", [], ""),
    "nothing planned": (memory("interleave:0-1", (0, 50), (1, 50)), "none", [], ""),
    "memory with a policy of its own": (
        memory("bind:0", (0, 100), others=(("interleave:0-1", 1, 64 << 20),)), "bind:0", [],
        "another policy for some of its memory: 64.0 MiB interleave:0-1"),
    "gone meanwhile": (seen("0 1 2 3"), "bind:0", [], ""),
    "bound to more nodes than planned": (
        memory("bind:0-1", (0, 100)), "bind:0", ["policy"], "its memory policy is bind:0-1"),
    "another policy for the planned nodes": (
        memory("interleave:0", (0, 100)), "bind:0", ["policy"], "policy is interleave:0"),
    "a few bytes with another policy": (
        memory("bind:0", (0, 100), others=(("default", 0, 1535),)), "bind:0", [],
        f"for some of its memory: {format_size(1535)} default\n"),
    "no policy to be seen": (memory("", (0, 100)), "bind:0", ["policy"], "policy is unknown"),
    "local in other words": (memory("prefer", (1, 100)), "local", [], ""),
    "preferred in place of local": (memory("prefer:0", (0, 100)), "local", ["policy"], ""),
    "local in place of preferred": (memory("prefer", (0, 100)), "preferred:0", ["policy"], ""),
    "interleaved in other words": (
        memory("interleave=relative:0-1", (0, 100)), "interleave:0-1", [], ""),
    "another policy, and nobody knows the cgroup's nodes": (
        memory("default", (0, 100)).replace(mems=None), "bind:0-2", ["policy"], "numa_set"),
    "on two wrong nodes": (
        memory("bind:0", (0, 50), (2, 25), (1, 25)), "bind:0", ["memory"],
        "32.0 MiB of its memory (50%) is on nodes 1-2; the plan says bind 0"),
    "to be brought back": (
        memory("bind:0", (0, 50), (2, 25), (1, 25)), "bind:0", ["memory"],
        "migratepages 100 1-2 0 brings them back"),
    "of which another policy is not counted": (
        memory("bind:0", (0, 50), (1, 50), others=(("default", 1, 64 << 20),)), "bind:0",
        ["memory"], "32.0 MiB of its memory (50%)"),
    "memory with several other policies": (
        memory("bind:0", (0, 100), others=(("default", 1, 64 << 20), ("local", 0, 1 << 20),
                                           ("default", 0, 64 << 20))), "bind:0", [],
        "for some of its memory: 128 MiB default, 1.0 MiB local\n"),
    "preferred, the pages elsewhere are of another policy": (
        memory("prefer:1", (1, 100), others=(("default", 0, 64 << 20),)), "preferred:1", [],
        "64.0 MiB default\n"),
    "local, some of it with another policy": (
        memory("local", (0, 100), others=(("bind:1", 1, 64 << 20),)), "local", [], "64.0 MiB bind"),
    "not to be seen": (
        seen("0 1 2 3", unreadable=(("memory", "Permission denied"),), user=7), "bind:0",
        ["unseen"], "the process belongs to user 7"),
    "not to be seen, nobody knows of whom": (
        seen("0 1 2 3", unreadable=(("memory", "Permission denied"),)), "bind:0",
        ["unseen"], "only to the process's own user and to root\n"),
    "not to be seen, of a program that has renamed itself": (
        seen("0 1 2 3", unreadable=(("memory", "Permission denied"),), overwritten=True), "bind:0",
        ["changed", "unseen"], "only to the process's own user and to root\n"),
    "not to be seen, and nothing planned": (
        seen("0 1 2 3", unreadable=(("memory", "Permission denied"),)), "none", [], ""),
}  # fmt: skip


@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_judged(name: str) -> None:
    """The policy in all its spellings, and the pages by node."""
    process, mem, wanted, word = MEMORY[name]
    checked = judge(process, planned(mem=mem), ONLINE)
    assert kinds(checked) == wanted, messages(checked)
    assert word in messages(checked) + "\n"
    if not word:
        assert not checked.notes


def test_without_environment_and_plan_nothing_can_be_told() -> None:
    """Another user's process is no failure of the rest, but it is not called good either."""
    process = seen("0", environ=None, unreadable=(("environment", "Permission denied"),), user=5)
    checked = judge(process, None, ONLINE)
    assert kinds(checked) == ["unseen"]
    assert "Permission denied" in checked.differences[0].text


def test_a_process_that_a_rank_started_from_a_bound_main_thread_is_caught() -> None:
    """A data loader that inherits one cpu is the main-thread trap; one with places of its own, or
    with all cpus, is fine."""
    own = judge(seen("0 1 2 3"), planned(), ONLINE)
    for masks, wanted in (("0", ["caught"]), ("0 0 0", ["caught"]), ("0 1 2 3", []), ("0-3", []),
                          ("1", [])):  # fmt: skip
        child = judge(seen(masks, libraries=()).replace(pid=200), planned(), ONLINE, own)
        assert kinds(child) == wanted, masks
        assert child.parent == PID
    process = seen("0 0", libraries=())
    fixed = process.replace(pid=200, threads=(*process.threads, make_fixed("0-3")))
    assert kinds(judge(fixed, planned(), ONLINE, own)) == ["caught"]


def test_what_is_observed_is_noted() -> None:
    """More threads than cpus, a thread elsewhere, several runtimes: worth a note, no difference."""

    def notes(process: Process) -> str:
        checked = judge(process, planned(), ONLINE)
        assert not checked.differences
        return "; ".join(checked.notes)

    good = seen("0 1 2 3")
    assert notes(good) == ""
    more = seen("0 1 2 3 0-3")
    busy = more.replace(threads=tuple(t.replace(state="R") for t in more.threads[:2])
                        + more.threads[2:])  # fmt: skip
    assert notes(busy).endswith("; 5 threads for 4 cpus, 2 of them running now")
    first, *rest = good.threads
    assert notes(good.replace(threads=(first.replace(last=3), *rest))) == ""
    away = notes(good.replace(threads=(first.replace(last=5), *rest)))
    assert away == "the main thread last ran elsewhere, before the mask was set"
    both = notes(seen("0 1 2 3", libraries=("libgomp.so.1", "libiomp5.so")))
    assert both == "2 OpenMP runtimes are loaded: libgomp.so.1, libiomp5.so"
    asked = (("LD_PRELOAD", "/x/libmimalloc.so.2:libjemalloc.so.2"),)
    assert notes(good.replace(environ=asked, libraries=("libgomp.so.1", "libmimalloc.so.2.0"))) == (
        "jemalloc is not loaded, although LD_PRELOAD names libjemalloc.so.2: that would not load, "
        "or the program is statically linked"
    )
    two = ("libgomp.so.1", "libjemalloc.so.2", "libmimalloc.so.2.0")
    assert notes(good.replace(environ=asked, libraries=two)) == (
        "2 allocators are loaded: libjemalloc.so.2, libmimalloc.so.2.0"
    )


@pytest.mark.parametrize(
    ("masks", "expected", "notes"),
    [
        ("0 0-3 2 3", planned(), []),
        ("0 1 0-3 3 0-3", planned(), ["5 threads for", "1 thread without a place"]),
        ("0 1 2 3 0-3", planned(), ["5 threads for", "1 thread without a place"]),
        ("0 1-7 2 3", planned(), []),
        ("0 1-7", planned(), []),
        ("0-3 0-3", planned(), []),
        ("0", planned(), ["1 of 4 OpenMP threads exists"]),
        ("0 0-3", planned(), ["1 of 4 OpenMP threads exists", "1 thread without a place"]),
        ("0-3 0-3 2", planned("0-3"), ["thread 102 may run only on cpu 2 of 0-3"]),
        ("0 0 0 0", planned("0 1", bind="primary"), ["4 threads for 2 cpus"]),
    ],
)
def test_notes_are_these_and_no_others(masks: str, expected: Expected, notes: list[str]) -> None:
    """What is a difference is not noted as well."""
    said = judge(seen(masks), expected, ONLINE).notes
    assert len(said) == len(notes), said
    assert all(any(note.startswith(text) for note in said) for text in notes), said


@pytest.mark.parametrize(
    ("masks", "fixed", "expected", "notes"),
    [
        ("0 1 2 3", "0-3", planned(), ("5 threads for 4 cpus, 0 of them running now",)),
        ("0-3 0-3", "1", planned(bind="false"), ()),
    ],
)
def test_a_thread_of_the_kernels_is_no_matter_inside_the_ranks_cpus(
    masks: str, fixed: str, expected: Expected, notes: tuple[str, ...]
) -> None:
    """Neither that it has no place, nor that it has fewer cpus, nor what it is called."""
    process = seen(masks)
    process = process.replace(threads=(*process.threads, make_fixed(fixed)))
    role = (NamedThreads("io", ("iou-*",), CpuSet([5])),)
    checked = judge(process, expected.replace(named=role), ONLINE)
    assert (checked.notes, checked.differences) == (notes, ())


def test_a_team_is_not_called_small_where_cpus_are_lost() -> None:
    """That is what is wrong with it."""
    checked = judge(seen("0 1"), planned(), CpuSet.parse_kernel("0-2,4-7"))
    assert (kinds(checked), checked.notes) == (["offline"], ())


def test_a_thread_that_exited_is_in_no_place() -> None:
    """Nor loose; it may have been one of the team."""
    gone = Thread(PID + 50, "worker", "S", CpuSet(), None)
    for masks in ("0 1 2", "0 1", "0"):
        process = seen(masks)
        process = process.replace(threads=(*process.threads, gone))
        assert judge(process, planned(), ONLINE).notes == ()


def test_a_main_thread_is_caught_early_or_late() -> None:
    """All masks were set later, if no thread is in another place."""
    for masks, later in (("0 0 0 1 2 3", False), ("0 0 0", True), ("0 0 0-3", True)):
        (difference,) = judge(seen(masks), planned(), ONLINE).differences
        assert difference.kind == "caught"
        assert difference.cause.endswith("(taskset -a)") is later


def test_a_small_team_is_noted() -> None:
    """With the trap that a bound main thread is to what it starts; nothing of those without a
    place where none has one."""

    def notes(masks: str) -> tuple[str, ...]:
        return judge(seen(masks), planned(), ONLINE).notes

    assert notes("0 1") == ("2 of 4 OpenMP threads exist",)
    (alone,) = notes("0")
    assert alone.startswith("1 of 4 OpenMP threads exists: the main thread, on cpu 0; ")
    assert notes("0-3 0-3 0-3 0-3") == ()


def test_a_report_is_indented_by_one() -> None:
    """As all JSON that ompbind writes, unless there is very much of it."""
    lines = Report((), ONLINE).to_json().splitlines()
    assert lines[1] == ' "schema": 1,'


def test_long_lists_are_abbreviated() -> None:
    """Four words are shown; of five the first three, the last, and how many there are."""
    assert abbreviate(list("abcd")) == "a b c d"
    assert abbreviate(list("abcde")) == "a b c … e (5)"


def test_threads_are_numbered_by_their_places() -> None:
    """Also where all have the same; None for a thread with another mask."""
    assert judge(seen("0 2 0-1"), planned("0 1 2"), ONLINE).places == (0, 2, None)
    assert judge(seen("0-3 1"), planned("0-3", threads=2), ONLINE).places == (0, None)
    wide = planned("0-3 1 2 3")
    assert judge(seen("0-3 1 2 3 0-3"), wide, ONLINE).places == (0, 1, 2, 3, None)
    assert judge(seen("1 1"), planned("0 1 2 1"), ONLINE).places == (1, 1)
    gone = seen("0").replace(threads=(Thread(PID, "worker", "S", CpuSet(), None),))
    assert judge(gone, planned("0 1"), CpuSet([0])).places == (None,)
    assert judge(seen("0 1"), planned(), ONLINE).parent == 0


def test_a_thread_outside_is_not_said_to_have_run_elsewhere() -> None:
    """That is what is wrong with it; nor is a cpu of the rank's elsewhere."""
    process = seen("0 5 2 3")
    threads = tuple(t.replace(last=5 - n) for n, t in enumerate(process.threads))
    checked = judge(process.replace(threads=(threads[0].replace(last=0), *threads[1:])), planned(),
                    ONLINE)  # fmt: skip
    assert (kinds(checked), checked.notes) == (["outside"], ())


def test_a_process_that_a_rank_started_and_that_exited_is_no_difference() -> None:
    """The rank itself is, if it exited."""
    rank = judge(seen(""), planned(), ONLINE)
    assert kinds(rank) == ["ended"]
    child = judge(seen("").replace(pid=200), planned(), ONLINE, rank)
    assert (child.parent, kinds(child)) == (PID, [])
    assert kinds(judge(seen("0").replace(pid=200), planned(), ONLINE, rank)) == []


def test_who_is_caught_with_the_main_thread() -> None:
    """A process whose threads all sit in its place, if there are others; not one that has it by its
    own plan, or that sits in a place while the main thread has all cpus."""

    def child(masks: str, expected: Expected, main: str) -> list[str]:
        rank = judge(seen(f"{main} 1 2 3"), planned(), ONLINE)
        return kinds(judge(seen(masks, libraries=()).replace(pid=200), expected, ONLINE, rank))

    assert child("0 0", planned(), "0") == ["caught"]
    assert child("0", planned("0 1"), "0") == ["caught"]
    assert child("0 1", planned(), "0") == []
    assert child("0", planned(), "0-3") == []
    assert child("0-3", planned(), "0-3") == []
    assert child("0", planned("0").replace(cpus=CpuSet([0, 1])), "0") == []
    assert child("4", planned(), "4") == ["changed"]


def test_children_are_said_to_be_theirs() -> None:
    """A child that renamed itself names the rank's process; it is not judged by places."""
    rank = judge(seen("0 1 2 3"), planned(), ONLINE)
    child = judge(seen("1-2 1-2", overwritten=True).replace(pid=200), planned(), ONLINE, rank)
    assert kinds(child) == []
    assert "threads 200" not in messages(child)
    assert "restricted by the program itself, or later" in child.notes[0]
    assert f"started by pid {PID}; OpenMP's" in child.notes[1]
    assert json.loads(Report((child,), ONLINE).to_json())["processes"][0]["started_by"] == PID


@pytest.mark.parametrize(
    ("masks", "expected", "threads"),
    [
        ("0 0-3 2 3", planned(), [101]),
        ("0 0 1 2 3", planned(), [100, 101]),
        ("0 1 1 2 3", planned(), [101, 102]),
        ("0-3 0-3 0-3 0-3", planned(), [100, 101, 102, 103]),
        ("0-7 0-7 1", planned(bind="false"), [100, 101]),
        ("1 1 0-3", planned(bind="false"), [100, 101]),
    ],
)
def test_a_difference_names_its_threads(masks: str, expected: Expected, threads: list[int]) -> None:
    """Those that it is about, for programs."""
    (difference,) = judge(seen(masks), expected, ONLINE).differences
    assert list(difference.threads) == threads


def test_a_servers_binding_is_judged_by_the_main_thread() -> None:
    variable = (("GOMP_CPU_AFFINITY", "1 2"),)
    (difference,) = judge(seen("0-3 1", environ=variable), planned("0-3"), ONLINE).differences
    assert difference.threads == (PID,)
    assert judge(seen("1 0-3", environ=variable), planned("0-3"), ONLINE).differences[0].kind == (
        "changed"
    )


def test_a_rank_is_called_by_its_number() -> None:
    """Among all ranks of its job, where that is another than on this machine."""
    names = [judge(seen("0"), e, ONLINE).name for e in (planned(), planned().replace(number=8))]
    assert names == ["rank 0, pid 100", "rank 8, pid 100"]
    assert judge(seen(""), None, ONLINE).name == "pid 100"
    assert ProcessReport(seen(""), None) == ProcessReport(seen(""), None, 0, (), (), (), (), ())


def test_a_report_is_summed_up() -> None:
    one = judge(seen("0"), planned(), ONLINE)
    two = judge(seen("0 1"), planned(), ONLINE)
    assert Report((one,), ONLINE).summary == "1 process, 1 thread"
    assert Report((one, two), ONLINE).summary == "2 processes, 3 threads"
    bad = judge(seen("0-7"), planned(), ONLINE)
    assert [Report(p, ONLINE).holds for p in ((), (one, two), (one, bad))] == [True, True, False]
    assert Report((), ONLINE).to_json(indent=None).count("\n") == 1


def test_what_cannot_be_seen_is_not_judged() -> None:
    """Neither the environment of another user's process nor the mask of a thread that exited."""
    expected = planned().replace(env=(("OMP_NUM_THREADS", "4"),))
    assert kinds(judge(seen("0 1 2 3", environ=None), expected, ONLINE)) == []
    exited = seen("0 1 2 3").replace(
        threads=(*seen("0 1 2").threads, Thread(PID + 3, "worker", "S", CpuSet(), None))
    )
    checked = judge(exited, planned(), CpuSet.parse_kernel("0-2,4-7"))
    assert "bound to no other" not in messages(checked)


def test_many_threads_are_named_by_the_first() -> None:
    """Four by their numbers; of more three, and how many more there are."""
    four = messages(judge(seen("0-3 0-7 0-7 0-7 0-7"), planned(bind="false"), ONLINE))
    assert "threads 101, 102, 103, 104 may run" in four
    five = messages(judge(seen("0-3 0-7 0-7 0-7 0-7 0-7"), planned(bind="false"), ONLINE))
    assert "threads 101, 102, 103 and 2 more may run" in five


@pytest.mark.parametrize(
    ("masks", "start"),
    [
        ("0-3 0-7 0-3", "thread 101 may run on cpus 0-7"),
        ("0-3 0-7 0-7", "threads 101, 102 may run"),
        ("0-7 0-3 0-7", "the main thread and thread 102 may run"),
        ("0-7 0-3 0-3", "the main thread may run"),
        ("0-7 0-7 0-7", "every thread may run"),
    ],
)
def test_threads_are_named(masks: str, start: str) -> None:
    """The main thread as such, the others by their ids."""
    (difference,) = judge(seen(masks), planned(bind="false"), ONLINE).differences
    assert difference.text.startswith(start)


def test_masks_are_repaired_in_all_threads() -> None:
    """By a command that knows their places and the cpus of roles, which taskset does not."""
    role = (NamedThreads("io", ("pt_*",), CpuSet([5])),)
    for expected, masks in (
        (planned(bind="false"), "0-7 0-7 0-7"),
        (planned(bind="false"), "0-3 0-7 0-7"),
        (planned(bind="false").replace(named=role), "0-7 0-7"),
        (planned(), "0 1-7 2 3 1-7"),
    ):
        differences = judge(seen(masks), expected, ONLINE).differences
        assert differences
        assert {d.remedy for d in differences} == {"restart it, or ompbind verify --repair"}


def test_what_a_report_tells_programs() -> None:
    """Every field of the JSON; each node's memory in bytes, whatever its policy."""
    pages = (("bind:0", 1, 7), ("bind:0", 0, 5), ("default", 0, 11 << 10))
    process = seen("0 4", memory=Memory("bind:0", pages, ((1, 3),)), cpuset=CpuSet([0, 1, 4]))
    report = Report((judge(process, planned("0 1", mem="bind:0"), ONLINE),), ONLINE)
    told = json.loads(report.to_json())
    (one,) = told.pop("processes")
    assert told == {"schema": 1, "holds": False, "online": "0-7"}
    (difference,) = one.pop("differences")
    assert sorted(difference) == ["cause", "kind", "remedy", "text", "threads"]
    assert (difference["kind"], difference["threads"]) == ("outside", [101])
    assert one.pop("notes") == [
        "the program set another policy for some of its memory: 11 KiB default"
    ]
    assert one == {
        "pid": PID,
        "rank": 0,
        "started_by": None,
        "name": "worker",
        "holds": False,
        "planned": {"cpus": "0-1", "places": ["0", "1"], "threads": 2, "mem": "bind", "mems": "0"},
        "threads": [
            {"tid": 100, "name": "worker", "state": "S", "cpus": "0", "last_cpu": None,
             "place": 0, "openmp": True},
            {"tid": 101, "name": "worker", "state": "S", "cpus": "4", "last_cpu": None,
             "place": None, "openmp": None},
        ],
        "runtimes": ["libgomp.so.1"],
        "allocators": [],
        "cpuset": "0-1,4",
        "memory": {"policy": "bind:0", "bytes": {"0": 11269, "1": 7},
                   "file_bytes": {"1": 3}},
        "huge_pages": None,
        "unseen": [],
    }  # fmt: skip
    huge = process.replace(huge_pages=HugePages(2 << 20, 4 << 20))
    (one,) = Report((judge(huge, planned("0 1"), ONLINE),), ONLINE).to_dict()["processes"]
    assert one["huge_pages"] == {"transparent": 2 << 20, "reserved": 4 << 20}
    assert "group" not in one
    assert list(one["memory"]["bytes"]) == ["0", "1"]
    repair = Repair(PID, 0, "threads", "bound", done=True)
    told = Report((), ONLINE, time="now", repairs=(repair,)).to_dict()
    assert (told["time"], told["repairs"]) == ("now", [dict(vars(repair))])
    grouped = planned("0 1", mem="bind=balancing:0").replace(group="prefill")
    moved = judge(process, grouped, ONLINE)
    assert moved.name == "rank 0 (prefill), pid 100"
    (one,) = Report((moved,), ONLINE).to_dict()["processes"]
    assert (one["group"], one["planned"]["mem_balancing"]) == ("prefill", True)
    bare = judge(seen("0", environ=None, unreadable=(("environment", "no"),)), None, ONLINE)
    (one,) = json.loads(Report((bare,), ONLINE).to_json())["processes"]
    assert [one[name] for name in ("rank", "planned", "memory", "cpuset")] == [None] * 4
    assert one["unseen"] == [{"what": "environment", "why": "no"}]


@pytest.mark.parametrize(("count", "lines"), [(MAX_INDENTED_THREADS, True),
                                              (MAX_INDENTED_THREADS + 1, False)])  # fmt: skip
def test_thousands_of_threads_are_on_one_line(count: int, lines: bool) -> None:
    """As many lines as the JSON of ten thousand threads has are of no use to anybody."""
    thread = Thread(1, "w", "S", CpuSet([0]), None)
    none = (None,) * count
    report = ProcessReport(seen("").replace(threads=(thread,) * count), None, places=none,
                           openmp=none)  # fmt: skip
    assert (Report((report,), ONLINE).to_json().count("\n") > 1) == lines
    assert MAX_INDENTED_THREADS == 1000


def test_who_is_openmp_is_told_where_it_can_be() -> None:
    """By the places; not where all threads may use the same cpus, or too many share a place."""

    def told(masks: str, expected: Expected) -> list[bool | None]:
        return list(judge(seen(masks), expected, ONLINE).openmp)

    assert told("0 1 2 3 0-3", planned()) == [True] * 4 + [False]
    assert told("0 1 2 3 3-7", planned()) == [True] * 4 + [False]  # outside the rank, too
    assert told("0 1 0-3", planned()) == [True, True, None]
    assert told("0-3 0-3", planned("0-3", threads=2)) == [None, None]
    alone = planned(bind="false").replace(threads=None)
    assert told("0-3 0-3", alone) == [None, None]
    assert told("0 0 1 2 3", planned()) == [None, None, True, True, True]


# --- properties ----------------------------------------------------------------------------------

MASKS = st.sets(st.integers(0, 9), min_size=1).map(CpuSet)
PLACES = st.lists(st.integers(0, 7), min_size=1, max_size=6, unique=True)


@given(PLACES, st.sampled_from(["close", "spread", "true"]), st.integers(1, 3), MASKS)
def test_a_rank_that_is_as_planned_holds(
    cpus: list[int], bind: str, each: int, absent: CpuSet
) -> None:
    """Threads in their places hold, however many to a place, and whatever cpus could come."""
    expected = planned(" ".join(map(str, cpus)), bind=bind, threads=each * len(cpus))
    more = absent - ONLINE
    masks = " ".join(str(CpuSet([c]) | more) for c in cpus * each)
    checked = judge(seen(masks), expected, ONLINE)
    assert not checked.differences


@given(st.lists(MASKS, max_size=6), PLACES, st.sampled_from(["close", "false", "primary"]),
       st.none() | MASKS, MASKS)  # fmt: skip
def test_anything_is_judged(
    masks: list[CpuSet], cpus: list[int], bind: str, cpuset: CpuSet | None, online: CpuSet
) -> None:
    """Whatever is seen, there is a report, each thread outside is named, and JSON tells as much."""
    process = seen(" ".join(map(str, masks)), cpuset=cpuset)
    expected = planned(" ".join(map(str, cpus)), bind=bind)
    checked = judge(process, expected, online)
    told = json.loads(Report((checked,), online).to_json())
    assert told["holds"] == (not checked.differences)
    assert [t["cpus"] for t in told["processes"][0]["threads"]] == [str(m & online) for m in masks]
    named = {t for d in checked.differences for t in d.threads}
    outside = {PID + n for n, mask in enumerate(masks) if not mask & online <= expected.cpus}
    assert outside <= named
    for d in checked.differences:
        assert "None" not in d.remedy
        assert d.text
        assert d.cause
        assert d.remedy


def test_a_variable_of_before_is_nothing_about_a_rebound_rank() -> None:
    """It was bound anew while it ran, which no variable of its environment can say."""
    process = seen("1 1", environ=(("GOMP_CPU_AFFINITY", "2"),))
    for rebound in (False, True):
        checked = judge(process, planned("0-3").replace(rebound=rebound), ONLINE)
        assert ("has no effect" in messages(checked)) is not rebound


def test_a_thread_without_a_cpu_that_is_online_ran_nowhere_else() -> None:
    """Where it last ran went offline with its mask."""
    process = seen("0 1 2 9")
    *others, last = process.threads
    process = process.replace(threads=(*others, last.replace(last=9)))
    assert "last ran elsewhere" not in messages(judge(process, planned(), ONLINE))


def test_only_allocators_are_missed_among_preloaded_libraries() -> None:
    """Another library may be named as well."""
    for name, missed in (("libother.so", False), ("libtcmalloc.so.4", True)):
        process = seen("0 1 2 3", environ=(("LD_PRELOAD", f"/usr/lib/{name}"),))
        assert ("is not loaded" in messages(judge(process, planned(), ONLINE))) is missed


def test_threads_with_fewer_cpus_are_each_named() -> None:
    """Where no thread has a place; one whose cpus are all offline has not fewer, but none."""
    checked = judge(seen("0-3 0-1 2-3 9"), planned(bind="false"), ONLINE)
    assert "thread 101 may run only on cpus 0-1 of 0-3" in messages(checked)
    assert "thread 102 may run only on cpus 2-3 of 0-3" in messages(checked)
    assert "thread 103 may run only" not in messages(checked)


def test_master_is_primary() -> None:
    """As OpenMP called it before: all threads in the first one's place."""
    checked = {
        bind: judge(seen("0 0 0 0"), planned(bind=bind), ONLINE)
        for bind in ("primary", "master", "close")
    }
    assert messages(checked["master"]) == messages(checked["primary"])
    assert kinds(checked["master"]) == []
    assert kinds(checked["close"]) != []


@pytest.mark.parametrize(("size", "count", "named"), [(16 << 20, 1, 1), ((16 << 20) - 1, 1, 0),
                                                      (16 << 20, 4, 3)])  # fmt: skip
def test_large_files_elsewhere_are_named(size: int, count: int, named: int) -> None:
    """From 16 MiB, three at most, those with the most elsewhere first."""
    mapped = tuple((f"/model-{n}", 1, size + n) for n in range(count))
    checked = judge(
        seen("0 1 2 3", memory=Memory("bind:0", mapped=mapped)), planned(mem="bind:0"), ONLINE
    )
    assert [n.split()[5] for n in checked.notes] == [
        f"/model-{n}" for n in reversed(range(count - named, count))
    ]


def test_it_is_said_where_a_large_file_lies() -> None:
    """Each with its own nodes and its own share; a hundredth of it is the least that is named."""
    block = 16 << 20
    mapped = (
        *(("/a", 0, 3 * block), ("/a", 1, block), ("/b", 2, block)),
        *(("/just", 0, 99 * block), ("/just", 1, block)),
        *(("/less", 0, 100 * block), ("/less", 1, block)),
        *(("/small", 0, 4096), ("/small", 1, block - 1)),
    )
    checked = judge(
        seen("0 1 2 3", memory=Memory("bind:0", mapped=mapped)), planned(mem="bind:0"), ONLINE
    )
    assert sorted(note.split(", the rank's")[0] for note in checked.notes) == [
        "16.0 MiB of the file /a (25% of what is mapped) is on node 1",
        "16.0 MiB of the file /b (100% of what is mapped) is on node 2",
        "16.0 MiB of the file /just (1% of what is mapped) is on node 1",
    ]


def test_a_rebound_rank_keeps_its_policy() -> None:
    """Its memory was moved, which no policy says."""
    process = seen("0 1 2 3", memory=Memory("default", (("default", 0, 1 << 30),)))
    for rebound, expected in ((False, ["policy"]), (True, [])):
        checked = judge(process, planned(mem="bind:0").replace(rebound=rebound), ONLINE)
        assert kinds(checked)[:1] == expected
