"""PCs' processors: most cases, as the guest runs this machine's own programs."""

from __future__ import annotations

from tests.guest.cases.case import Boot, Case, Got, Rebinding, Spoiling
from tests.guest.cases.common import (
    ON_FOUR_NODES,
    moved_pages,
    narrow_mask,
    other_nodes_memory,
    shown_node,
)
from tests.guest.machine import Machine

# Two packages of two nodes of two cores of two threads. Cpus are numbered as on most servers: 0-7
# are the first threads of the cores in order, 8-15 the second ones, so that a node's cpus are no
# range, and cpus 0 and 1 are two cores. No two distances between nodes are alike that need not be.
MACHINE = Machine(
    packages=2,
    nodes=2,
    cores=2,
    threads=2,
    numbering="spread",
    distances=((10, 12, 21, 31), (12, 10, 24, 21), (21, 24, 10, 13), (31, 21, 13, 10)),
)
CASES = {
    **ON_FOUR_NODES,
    "no options": Case(
        "One rank on every core, one thread of each.",
        "",
        (Got("0-7", "0 1 2 3 4 5 6 7"),),
    ),
    "nodes 0 0 1 1": Case(
        "Two ranks on a node split its cores; memory comes from that node.",
        "--numa-bind-nodes 0 0 1 1",
        (
            Got("0", "0", "bind", "0", pages={"0": 1}),
            Got("1", "1", "bind", "0", pages={"0": 1}),
            Got("2", "2", "bind", "1", pages={"1": 1}),
            Got("3", "3", "bind", "1", pages={"1": 1}),
        ),
        touch=16,
    ),
    "nodes backwards": Case(
        "Ranks go to the nodes in the order named.",
        "--numa-bind-nodes 3,1",
        (
            Got("6-7", "6 7", "bind", "3", pages={"3": 1}),
            Got("2-3", "2 3", "bind", "1", pages={"1": 1}),
        ),
    ),
    "shared node": Case(
        "With --share both ranks on a node get the whole of it.",
        "--numa-bind-nodes 2 2 --share",
        (
            Got("4-5", "4 5", "bind", "2", pages={"2": 1}),
            Got("4-5", "4 5", "bind", "2", pages={"2": 1}),
        ),
    ),
    "each node, LLVM": Case(
        "The same with LLVM's OpenMP, and all hardware threads.",
        "--per numa --numa-bind --smt all",
        (
            Got("0-1,8-9", "0,8 1,9", "bind", "0", pages={"0": 1}),
            Got("2-3,10-11", "2,10 3,11", "bind", "1", pages={"1": 1}),
            Got("4-5,12-13", "4,12 5,13", "bind", "2", pages={"2": 1}),
            Got("6-7,14-15", "6,14 7,15", "bind", "3", pages={"3": 1}),
        ),
        runtime="libomp",
    ),
    "each package": Case(
        "A rank for each package.",
        "--per package",
        (Got("0-3", "0 1 2 3"), Got("4-7", "4 5 6 7")),
    ),
    "each cache": Case(
        "A rank for each last-level cache, here one to a node.",
        "--per l3",
        (Got("0-1", "0 1"), Got("2-3", "2 3"), Got("4-5", "4 5"), Got("6-7", "6 7")),
    ),
    "two": Case(
        "Two ranks alone divide the machine at its packages.",
        "-n 2",
        (Got("0-3", "0 1 2 3"), Got("4-7", "4 5 6 7")),
    ),
    "four, all threads": Case(
        "Four ranks divide it at its nodes; a place is a core with both its threads.",
        "-n 4 --smt all",
        (
            Got("0-1,8-9", "0,8 1,9"),
            Got("2-3,10-11", "2,10 3,11"),
            Got("4-5,12-13", "4,12 5,13"),
            Got("6-7,14-15", "6,14 7,15"),
        ),
    ),
    "places are threads": Case(
        "A place for each hardware thread; those of a core follow each other.",
        "--numa-bind-nodes 1 --smt all --places threads",
        (Got("2-3,10-11", "2 10 3 11", "bind", "1", pages={"1": 1}),),
    ),
    "places are nodes": Case(
        "A place for each node of a rank.",
        "-n 2 --places numa",
        (Got("0-3", "0-1 2-3"), Got("4-7", "4-5 6-7")),
    ),
    "one place": Case(
        "A single place holds all cpus, and every thread may use all of them.",
        "--numa-bind-nodes 3 --smt all --places one --threads 3",
        (
            Got(
                "6-7,14-15",
                "6-7,14-15",
                "bind",
                "3",
                threads="6-7,14-15 6-7,14-15 6-7,14-15",
                pages={"3": 1},
            ),
        ),
    ),
    "spread": Case(
        "Four threads spread over eight places take every other one.",
        "--proc-bind spread --threads 4",
        (Got("0-7", "0 1 2 3 4 5 6 7", threads="0 2 4 6"),),
    ),
    "threads not bound": Case(
        "With OMP_PROC_BIND=false every thread may use all of the rank's cpus, and no others.",
        "--numa-bind-nodes 3 --proc-bind false",
        (Got("6-7", "6-7", "bind", "3", threads="6-7 6-7", pages={"3": 1}),),
    ),
    "cpus and nodes": other_nodes_memory(
        "0-1 6,14",
        "1 3",
        (
            Got("0-1", "0 1", "bind", "1", pages={"1": 1}),
            Got("6,14", "6,14", "bind", "3", pages={"3": 1}),
        ),
        touch=4,
    ),
    "interleave": Case(
        "Pages go to all nodes of the rank's cpus in turn.",
        "--mem interleave",
        (
            Got(
                "0-7",
                "0 1 2 3 4 5 6 7",
                "interleave",
                "0-3",
                pages={"0": 0.25, "1": 0.25, "2": 0.25, "3": 0.25},
            ),
        ),
        touch=64,
    ),
    "preferred nodes": Case(
        "Memory comes from several preferred nodes: of each package, while these have some.",
        "-n 2 --mem preferred",
        (
            Got("0-3", "0 1 2 3", "preferred", "0-1"),
            Got("4-7", "4 5 6 7", "preferred", "2-3"),
        ),
    ),
    "a preferred pair elsewhere": Case(
        "Of several preferred nodes the kernel takes the one nearest to the cpus: 2 to node 0.",
        "--numa-bind-cpus 0-1 --mem preferred --mem-nodes 2-3",
        (Got("0-1", "0 1", "preferred", "2-3", pages={"2": 1}),),
        touch=16,
    ),
    "balanced": Case(
        "Pages may be migrated among a rank's nodes, and lie on no others.",
        "-n 2 --mem bind --mem-balancing",
        (Got("0-3", "0 1 2 3", "bind", "0-1"), Got("4-7", "4 5 6 7", "bind", "2-3")),
    ),
    "local": Case(
        "Memory comes from the node of the thread that touches it first.",
        "--numa-bind-nodes 3 2 --mem local",
        (
            Got("6-7", "6 7", "local", pages={"3": 1}),
            Got("4-5", "4 5", "local", pages={"2": 1}),
        ),
    ),
    "reserved and excluded": Case(
        "A core is kept free, another never used; the rest is divided as evenly as it goes.",
        "-n 2 --exclude 0,8 --reserve 1",
        (Got("1-3", "1 2 3"), Got("4-6", "4 5 6")),
    ),
    "narrow mask": narrow_mask(
        "1-3,9-11,12",
        (
            Got("1", "1", "bind", "0", pages={"0": 1}),
            Got("2-3", "2 3", "bind", "1", pages={"1": 1}),
            Got("12", "12", "bind", "2", pages={"2": 1}),
        ),
    ),
}

# Each --places with each --proc-bind and every hardware thread, for two ranks, with each runtime.
# Who binds the process makes no difference to them: CASES has both binders.
PLACES = ("threads", "cores", "l3", "numa", "one", "wide")
PROC_BINDS = ("close", "spread", "primary", "false")
MATRIX = {
    f"{places} {bind}": f"-n 2 --smt 2 --mem interleave --places {places} --proc-bind {bind}"
    for places in PLACES
    for bind in PROC_BINDS
}

# `numactl --show` as the worker: the options, and what its lines are to say.
SHOWN = {
    "bind": shown_node(2, "4 5"),
    "all threads": (
        "--numa-bind-nodes 1 --smt all",
        {"policy": "bind", "physcpubind": "2 3 10 11", "membind": "1"},
    ),
    "preferred": (
        "--numa-bind-nodes 3 --mem preferred",
        {"policy": "preferred", "preferred node": "3", "membind": "0 1 2 3"},
    ),
    "interleave": (
        "--mem interleave",
        {"policy": "interleave", "interleavemask": "0 1 2 3"},
    ),
}


# A package to each pair of nodes, cpus numbered round them: node 1 has cpus 4 and 12.
EIGHT_NODES = Machine(
    packages=4,
    nodes=2,
    cores=1,
    threads=2,
    numbering="interleaved",
    memory=(288,),
    speeds=(*[40000] * 6, 160000, 160000),
)
BY_NODE = ("0", "4", "1", "5", "2", "6", "3", "7")
EIGHT_CASES = {
    "each of eight nodes": Case(
        "A rank for each node, whatever its cpus are numbered.",
        "--per numa --numa-bind",
        tuple(Got(cpu, cpu, "bind", str(n), pages={str(n): 1}) for n, cpu in enumerate(BY_NODE)),
        touch=16,
    ),
    "eight, all threads": Case(
        "Eight ranks divide the machine at its nodes, both threads of each core.",
        "-n 8 --smt all --places threads",
        tuple(Got(f"{cpu},{int(cpu) + 8}", f"{cpu} {int(cpu) + 8}") for cpu in BY_NODE),
    ),
    "interleaved over eight": Case(
        "Pages go to all nodes in turn.",
        "--mem interleave",
        (
            Got(
                "0-7",
                "0 4 1 5 2 6 3 7",
                "interleave",
                "0-7",
                pages={str(n): 0.125 for n in range(8)},
            ),
        ),
        touch=64,
    ),
    "the nearest fast memory": Case(
        "By the firmware's table nodes 6 and 7 have HBM, for cpus of any node.",
        "--numa-bind-nodes 0 7 --mem-kind hbm",
        (
            Got("0", "0", "bind", "6", pages={"6": 1}),
            Got("7", "7", "bind", "7", pages={"7": 1}),
        ),
        touch=32,
    ),
    "each package of eight nodes": Case(
        "A rank for each package is on two nodes, and binds to both.",
        "--per package --mem bind",
        (
            Got("0,4", "0 4", "bind", "0-1"),
            Got("1,5", "1 5", "bind", "2-3"),
            Got("2,6", "2 6", "bind", "4-5"),
            Got("3,7", "3 7", "bind", "6-7"),
        ),
    ),
}

# Node 2 has no memory (node 3 is nearest), node 4 no cpus (node 1 is nearest), cpu 1 is offline.
UNEVEN = Machine(
    packages=2,
    nodes=2,
    cores=2,
    threads=1,
    memory_only=1,
    memory=(512, 384, 0, 384, 256),
    distances=(
        (10, 12, 21, 22, 40),
        (12, 10, 23, 24, 31),
        (21, 23, 10, 14, 42),
        (22, 24, 14, 10, 41),
        (40, 31, 42, 41, 10),
    ),
    offline=(1,),
    devices=(("ati-vga", 3), ("e1000", 1)),
)
UNEVEN_CASES = {
    "an offline cpu": Case("What is offline is not used.", "", (Got("0,2-7", "0 2 3 4 5 6 7"),)),
    "uneven nodes": Case(
        "A rank for each node that has cpus.",
        "--per numa",
        (Got("0", "0"), Got("2-3", "2 3"), Got("4-5", "4 5"), Got("6-7", "6 7")),
    ),
    "a node without memory": Case(
        "Memory comes from the nearest node that has some.",
        "--numa-bind-nodes 2",
        (Got("4-5", "4 5", "bind", "3", pages={"3": 1}),),
        touch=16,
    ),
    "memory of a node without cpus": Case(
        "Named cpus, and memory of the node that has nothing else.",
        "--numa-bind-cpus 6-7 --numa-bind-nodes 4",
        (Got("6-7", "6 7", "bind", "4", pages={"4": 1}),),
        touch=16,
    ),
    "two nodes, two of memory": Case(
        "A rank on two nodes, and each rank's memory where it is named.",
        "--numa-bind-nodes 0+1 3 --mem-nodes 0,4 3",
        (
            Got("0,2-3", "0 2 3", "bind", "0,4"),
            Got("6-7", "6 7", "bind", "3", pages={"3": 1}),
        ),
    ),
    "near a network card": Case(
        "The cores of the node that the card is on.",
        "--near 0000:62:01.0 --mem bind",
        (Got("2-3", "2 3", "bind", "1", pages={"1": 1}),),
    ),
}
CPU7 = "/sys/devices/system/cpu/cpu7/online"
RESERVED = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
UNEVEN_SCRIPTS = {
    "cpu offline": "$OMPBIND show --numa-bind-cpus 0-1",
    "node without cpus": "$OMPBIND show --numa-bind-nodes 4",
    "no driver": "$OMPBIND show --per gpu",
    "more than there is": "$OMPBIND run --numa-bind-nodes 3 --mem-need 3G -- echo started",
    "a newer kernel's policy": "$OMPBIND run --mem weighted-interleave --mem-nodes 0-1 -- echo x",
    "huge pages": f"""
        echo 32 >{RESERVED}
        $OMPBIND run --huge-pages 2M --numa-bind-nodes 3 -- echo started
        $OMPBIND run --huge-pages 2M --numa-bind-nodes 1 -- cat /proc/self/numa_maps | grep huge
        echo 0 >{RESERVED}""",
    "between plan and launch": f"""
        $OMPBIND show --numa-bind-cpus 6-7 --format json -- echo started >/tmp/plan &&
        $OMPBIND run --plan /tmp/plan
        echo 0 >{CPU7}
        $OMPBIND run --plan /tmp/plan
        echo "status $?"
        echo 1 >{CPU7}""",
}

# A file whose pages are put on node 0 first; `nodes` prints where they are, from outside.
WARM_SCRIPTS = {
    "warm files": """
        file=$(command -v qemu-system-x86_64)
        python=$(dirname $OMPBIND)/python
        nodes="$python -m tests.support.file_nodes $file"
        numactl --physcpubind=0 --membind=0 cat $file >/dev/null
        $nodes
        $OMPBIND run --numa-bind-nodes 2 --warm $file -- $nodes
        $nodes $OMPBIND run --numa-bind-nodes 3 --warm $file -- true
        $OMPBIND run --numa-bind-nodes 0 1 --warm $file -- true
        $nodes""",
}

SPOILED = {
    "pages moved": moved_pages(2, 1),
    "cpu offline": Spoiling(
        "--numa-bind-nodes 3",
        "set offline",
        "7",
        ("offline",),
        r"cpu 7 of the plan is offline, and 1 thread bound to no other",
    ),
    "cgroup shrunk": Spoiling(
        "--numa-bind-nodes 1",
        "shrink cgroup",
        "2-3 2",
        ("cgroup", "crowded"),
        r"no longer allows cpu 3 of the plan: its cpuset is 2",
    ),
}

# The longest first: two guests run at a time.
BOOTS = {
    "four nodes": Boot(
        "Two packages of two nodes, hardware threads.",
        MACHINE,
        CASES,
        SHOWN,
        SPOILED,
        Rebinding("4-5", 2, 1, "2-3"),
        measured=True,
        matrix=MATRIX,
        scripts=WARM_SCRIPTS,
    ),
    "eight nodes": Boot("Four packages of two nodes.", EIGHT_NODES, EIGHT_CASES),
    "uneven": Boot(
        "A node without cpus, one without memory, a cpu offline, devices on nodes.",
        UNEVEN,
        UNEVEN_CASES,
        scripts=UNEVEN_SCRIPTS,
    ),
}
