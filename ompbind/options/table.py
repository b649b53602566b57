"""The options, one row each: what can be typed, what it means, what it goes with.

The parser of the command line, the help, the shell completion, the keywords of the Python API and
the conflicts between options are all made from these rows. Here are those of a launch, which say
what a plan and its ranks are like; the options that other commands have besides are in `reports`
and `comparison`, which no launch imports, and `commands` has all of them.
"""

from __future__ import annotations

from ompbind.options.values import (
    parse_address,
    parse_count,
    parse_cpu_lists,
    parse_cpus,
    parse_directory,
    parse_engine,
    parse_free,
    parse_group,
    parse_groups,
    parse_mem_nodes,
    parse_need,
    parse_nodes,
    parse_part,
    parse_port,
    parse_preload,
    parse_rank,
    parse_ready,
    parse_report,
    parse_reserve,
    parse_roles,
    parse_seconds,
    parse_sizes,
    parse_smt,
    parse_stdin,
    parse_texts,
    parse_threads,
    parse_timeout,
    parse_variables,
    parse_wait,
)
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    # A list takes all values up to the next option; an optional value follows = only.
    Kind = Literal["flag", "value", "optional", "list"]


RANKS = "How many ranks"
WHERE = "Where they run"
OPENMP = "OpenMP"
MEMORY = "Memory"
VARIABLES = "GPUs and the ranks' variables"
RUNNING = "Running"
COMPARED = "What to compare"
MEASURED = "What to measure, and how long"
OUTPUT = "What to print"
ELSEWHERE = "Other machines and saved plans"
GROUPS = "Several commands"
ENGINES = "Under Slurm, MPI and other engines"
RARE = "Rarely needed"
PANELS = (COMPARED, MEASURED, RANKS, WHERE, OPENMP, MEMORY, VARIABLES, GROUPS, RUNNING, OUTPUT,
          ELSEWHERE, ENGINES, RARE)  # in the order of help, man page and site  # fmt: skip


class Rule(Record):
    """A relation of an option to others. `terms`: an option's key each, or key=value for one value
    only. `message`, `hint`: {name} is the option, {option} the option with its value, {other} the
    other one. The rule applies to the values `when` of the option, () for all, and only `beside` a
    term that holds, "" for always."""

    terms: tuple[str, ...]
    message: str
    hint: str = "leave one of them out"
    when: tuple[str, ...] = ()
    beside: str = ""


class Option(Record):
    """One option.

    How it is typed. `names`: the long one first, then a short one, if any. `help`: a sentence in
    the imperative, without a full stop; `brief`: a few words for the short help, "" where it is not
    there. `metavar`: what its value is called, where it is not one of `choices`, or these are too
    many to be listed. `commands`: those that take it. `no`: the flag also comes as --no-…; `adds`:
    a repeated one adds to its value, with a comma; `many`: a repeated one makes a list of values.
    `of_option`: its value begins with the name of an option, so one in its place is not taken for
    the next option. `suggest`: what completion offers as a value where there are no choices: words,
    and in angle brackets a kind of thing to look up.

    What it means. `parse`: makes its value, None where that is the text; `fields`: where the value
    goes, as record.field; `keyword_of`: the functions of the Python API that take it as a keyword.

    What it goes with. `excludes`: rules broken by any of their terms; `needs`: rules broken by the
    absence of all their terms; `yields_to`: the options beside which it has no effect, which is
    then reported; `on_saved_plan`: whether it goes with --plan; `places_ranks`: whether it says
    which cpus ranks get, so that a list of places in the environment does not; `watched`: whether
    (or with which values) a single rank is watched over as well.
    """

    names: tuple[str, ...]
    kind: Kind
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    commands: tuple[str, ...] = ("run", "show", "compare")
    panel: str = RANKS
    no: bool = False
    adds: bool = False
    many: bool = False
    of_option: bool = False
    suggest: tuple[str, ...] = ()
    brief: str = ""
    parse: Callable[[Any, str], Any] | None = None
    fields: tuple[str, ...] = ()
    keyword_of: tuple[str, ...] = ("plan",)
    excludes: tuple[Rule, ...] = ()
    needs: tuple[Rule, ...] = ()
    yields_to: tuple[str, ...] = ()
    on_saved_plan: bool = False
    places_ranks: bool = False
    watched: bool | tuple[object, ...] = False

    @property
    def key(self) -> str:
        return self.names[0][2:].replace("-", "_")

    @property
    def value(self) -> str:
        """What is to be typed for its value: `N`, `block|cyclic`; "" for a flag."""
        return self.metavar or "|".join(self.choices)


# The commands with the options that say where ranks go: also of what runs already.
PLACING = ("run", "show", "compare", "rebind")

WITH_POLICY = Rule(
    ("mem", "numa_bind", "numa_bind_nodes"),
    "{name} is for a memory policy, and none is set",
    "--mem bind, preferred or interleave",
)
NODES_TWICE = Rule(
    ("numa_bind_nodes",),
    "{name} and --numa-bind-nodes beside --numa-bind-cpus both name nodes for memory",
    beside="numa_bind_cpus",
)

LAUNCH: tuple[Option, ...] = (
    # --- how many ranks
    Option(
        ("--ranks", "-n"),
        "value",
        "Start N ranks; alone, divide the machine in N by its own tree: inside nodes, as "
        "equally as possible, then along caches",
        "N",
        commands=PLACING,
        brief="N ranks; alone, the machine divided in N",
        parse=parse_count,
        fields=("request.ranks",),
    ),
    Option(
        ("--per",),
        "value",
        "Start one rank for each of these: numa, package, l3, core, gpu, accel (other "
        "accelerators), nic; or die, cluster, l2, book, drawer; with -n, map the N ranks to them "
        "in balanced blocks",
        "numa|package|l3|core|gpu|...",
        commands=PLACING,
        choices=(
            *("numa", "package", "l3", "core", "gpu", "accel", "nic"),
            *("die", "cluster", "l2", "book", "drawer"),  # seldom wanted
        ),
        brief="one rank for each",
        fields=("request.per",),
        excludes=(
            Rule(
                ("numa_bind_nodes", "numa_bind_cpus"),
                "{option} and a list of nodes or cpus both say where ranks go",
            ),
        ),
        places_ranks=True,
    ),
    Option(
        ("--cores-per-rank",),
        "value",
        "Give each rank N cores, the first of its part; with --per, ranks follow one another "
        "without gaps; or a number for each rank, as in 4,8,8",
        "N[,N...]",
        commands=PLACING,
        parse=parse_sizes,
        fields=("request.cores_per_rank",),
        excludes=(
            Rule(
                ("reserve", "role"),
                "{name} says how many cores a rank gets; {other} would take from them",
                "leave one of them out: cores that no rank gets stay free",
            ),
            Rule(
                ("share",), "--share gives each rank a whole domain, {name} only some cores of it"
            ),
        ),
        places_ranks=True,
    ),
    Option(
        ("--balance",),
        "value",
        "Divide the machine for -n N so that no rank spans nodes that it need not, whatever their "
        "sizes (local, default), or equally, across nodes where that does not come out even",
        commands=PLACING,
        choices=("local", "equal"),
        fields=("request.balance",),
        excludes=(
            Rule(
                ("per", "numa_bind", "numa_bind_nodes", "numa_bind_cpus", "share"),
                "{option} divides the machine, {other} does not",
            ),
            Rule(("cores_per_rank",), "{option} and {other} both say how many cores a rank gets"),
        ),
        needs=(Rule(("ranks",), "{option} is for dividing the machine", "-n N divides it"),),
        places_ranks=True,
    ),
    Option(
        ("--leave-over",),
        "flag",
        "With --balance equal, give each rank as many cores, inside a node or of whole nodes, and "
        "leave the others free",
        commands=PLACING,
        fields=("request.leave_over",),
        excludes=(
            Rule(
                ("reserve", "role"),
                "{name} leaves cores free; {other} says how many as well",
            ),
        ),
        needs=(Rule(("balance=equal",), "{name} is for equal ranks", "--balance equal"),),
        places_ranks=True,
    ),
    Option(
        ("--distribution",),
        "value",
        "Map ranks to what --per names in consecutive blocks (default) or cyclically; spread: map "
        "few ranks to things that lie far apart, as to one node of each package",
        commands=PLACING,
        choices=("block", "cyclic", "spread"),
        fields=("request.distribution",),
        excludes=(
            Rule(
                ("numa_bind_nodes", "numa_bind_cpus"),
                "{option} and a list of nodes or cpus both say where ranks go",
                when=("cyclic", "spread"),
            ),
            Rule(
                ("per=gpu", "per=accel", "per=nic"),
                "{option} is for nodes, packages, caches and cores; {other} takes devices in order",
                when=("spread",),
            ),
        ),
        needs=(
            Rule(
                ("per", "numa_bind"),
                "{option} maps ranks to what --per names, and --per is not given",
                "--per numa, --per package, ...",
                when=("cyclic", "spread"),
            ),
        ),
        places_ranks=True,
    ),
    Option(
        ("--share",),
        "flag",
        "Give all ranks of one node, package or cache the whole of it (default: they split its "
        "cores)",
        commands=PLACING,
        fields=("request.share",),
    ),
    Option(
        ("--oversubscribe",),
        "flag",
        "Let ranks share cores, as evenly as possible, where there are more ranks than cores",
        commands=PLACING,
        fields=("request.oversubscribe",),
        places_ranks=True,
    ),
    Option(
        ("--rank",),
        "value",
        "Start rank R only, from 0, of the ranks that are planned; env:NAME takes it from a "
        "variable, env:NAME-1 from one that counts from 1",
        "R",
        commands=("run",),
        panel=ENGINES,
        suggest=("<rank>", "env:"),
        brief="start rank R only of those planned",
        parse=parse_rank,
        fields=("plan.rank",),
        excludes=(Rule(("engine",), "{name} gives the rank by hand, {other} by an engine"),),
        on_saved_plan=True,
    ),
    Option(
        ("--engine",),
        "value",
        "Name the engine that has started this rank: slurm, openmpi, mpich, intelmpi, mvapich, "
        "prrte, pals, flux, jsrun, torchrun or none (default: the innermost that is seen)",
        "NAME",
        panel=ENGINES,
        suggest=(
            "slurm",
            "openmpi",
            "mpich",
            "intelmpi",
            "mvapich",
            "prrte",
            "pals",
            "flux",
            "jsrun",
            "torchrun",
            "none",
        ),
        parse=parse_engine,
        fields=("plan.engine",),
        on_saved_plan=True,
    ),
    Option(
        ("--within",),
        "value",
        "Plan within the mask that the engine has given this rank (task), or over all that it has "
        "on this node (node)",
        choices=("task", "node"),
        panel=ENGINES,
        fields=("plan.within",),
    ),
    # --- where they run
    Option(
        ("--numa-bind",),
        "flag",
        "Bind each rank's cpus and memory to one node: its GPU's node where every visible GPU has "
        "a rank, else the nodes in order",
        commands=PLACING,
        panel=WHERE,
        brief="each rank on one node, its memory too",
        fields=("request.numa_bind",),
        places_ranks=True,
    ),
    Option(
        ("--numa-bind-nodes",),
        "list",
        "Bind rank r to the r-th node, as in 0 0 1 1 or 0,0,1,1, or to several, as in 0+1 2+3; "
        "implies --numa-bind and the number of ranks",
        "NODE...",
        commands=PLACING,
        panel=WHERE,
        suggest=("<node>",),
        brief="rank r on the r-th node, as in 0 0 1 1",
        parse=parse_nodes,
        fields=("request.nodes",),
        excludes=(
            Rule(
                ("mem=none", "mem=local"),
                "{name} names the memory of --numa-bind-cpus, {other} is for no node",
                beside="numa_bind_cpus",
            ),
        ),
        places_ranks=True,
    ),
    Option(
        ("--numa-bind-cpus",),
        "list",
        "Bind rank r to exactly the r-th list of cpus, as in 0-3 4-7; with --numa-bind-nodes, the "
        "nodes are for memory",
        "CPUS...",
        commands=PLACING,
        panel=WHERE,
        suggest=("<cpus>",),
        brief="rank r on the r-th list, as in 0-3 4-7",
        parse=parse_cpu_lists,
        fields=("request.cpus",),
        excludes=(
            Rule(
                (
                    "smt",
                    "reserve",
                    "role",
                    "exclude",
                    "exclude_cpus",
                    "part",
                    "kind",
                    "oversubscribe",
                    "cores_per_rank",
                ),
                "{name} names exactly the cpus to use; {other} would change them",
                "leave {other} out",
            ),
        ),
        places_ranks=True,
    ),
    Option(
        ("--smt",),
        "value",
        "Use N hardware threads of each core, or all (default 1)",
        "N|all",
        commands=PLACING,
        panel=WHERE,
        suggest=("all", "<smt>"),
        brief="hardware threads used of each core",
        parse=parse_smt,
        fields=("request.smt",),
        places_ranks=True,
    ),
    Option(
        ("--reserve",),
        "value",
        "Keep N cores free for other work, taken one at a time from the rank with the most "
        "cores, the last such rank first; or N cores of each rank",
        "N[/rank]",
        commands=PLACING,
        panel=WHERE,
        brief="cores kept free for other work",
        parse=parse_reserve,
        fields=("request.reserve",),
        places_ranks=True,
    ),
    Option(
        ("--exclude",),
        "value",
        "Never use these cpus, as in 0,8-9; with one hardware thread of each core, their whole "
        "cores stay out; may be repeated",
        "CPUS",
        commands=PLACING,
        panel=WHERE,
        adds=True,
        suggest=("<cpus>",),
        brief="cpus never used, nor their cores, as in 0,8",
        parse=parse_cpus,
        fields=("request.exclude",),
        places_ranks=True,
    ),
    Option(
        ("--exclude-cpus",),
        "value",
        "Never use these cpus; other hardware threads of their cores may be used in their place; "
        "may be repeated",
        "CPUS",
        commands=PLACING,
        panel=RARE,
        adds=True,
        suggest=("<cpus>",),
        parse=parse_cpus,
        fields=("request.exclude_cpus",),
        places_ranks=True,
    ),
    Option(
        ("--role",),
        "value",
        "Set N cores aside under a name, of all ranks together or of each; with kv=2, the worker "
        "finds their cpus in OMPBIND_ROLE_KV; with io=2:pt_data*,nccl*, threads with such names "
        "are put there when they appear; may be repeated",
        "NAME=N[/rank][:THREADS]",
        commands=PLACING,
        panel=WHERE,
        many=True,
        parse=parse_roles,
        fields=("request.roles",),
        places_ranks=True,
    ),
    Option(
        ("--part",),
        "value",
        "Use only the I-th of N equal parts of the machine, divided as by -n N, so that launches "
        "in different parts share no core; auto/N takes one that no other such launch has",
        "I/N",
        commands=PLACING,
        panel=WHERE,
        parse=parse_part,
        fields=("request.part",),
        places_ranks=True,
    ),
    Option(
        ("--free",),
        "value",
        "Use N cores that no other launch holds, as close together as they are free, or N for each "
        "rank, and hold them until the ranks have exited",
        "N[/rank]",
        panel=WHERE,
        parse=parse_free,
        fields=("request.free",),
        keyword_of=(),
        excludes=(
            Rule(
                ("numa_bind_nodes", "numa_bind_cpus", "part"),
                "{name} and {other} both say which cores to use",
            ),
        ),
        places_ranks=True,
    ),
    Option(
        ("--exclusive",),
        "flag",
        "Refuse to start where another launch holds a core of the plan",
        commands=("run", "compare"),
        panel=WHERE,
        fields=("plan.exclusive",),
        keyword_of=("run",),
        on_saved_plan=True,
    ),
    Option(
        ("--wait",),
        "optional",
        "Wait in turn, if need be for no more than so many seconds, until cores for --free, "
        "--exclusive or --part auto/N are free",
        "[=SECONDS]",
        commands=("run", "compare"),
        panel=WHERE,
        parse=parse_wait,
        fields=("plan.wait",),
        keyword_of=("run",),
        needs=(
            Rule(
                ("free", "exclusive", "part"),
                "{name} is for cores that nobody else may hold, and none are asked for",
                "--free N, --exclusive or --part auto/N",
            ),
        ),
        on_saved_plan=True,
    ),
    Option(
        ("--near",),
        "value",
        "Use only the cores nearest to a device: eth0, mlx5_0, gpu0 or a PCI address",
        "DEVICE",
        commands=PLACING,
        panel=WHERE,
        suggest=("<device>",),
        fields=("request.near",),
        excludes=(
            Rule(
                ("numa_bind_nodes", "numa_bind_cpus"),
                "{name} and a list of nodes or cpus both say where ranks go",
            ),
            Rule(("per=gpu", "per=accel", "per=nic"), "{name} and {other} both say where ranks go"),
        ),
        places_ranks=True,
    ),
    Option(
        ("--gpu-domain",),
        "value",
        "Count as near a GPU: its node (default), its package, or one last-level cache of its node",
        commands=PLACING,
        choices=("numa", "package", "l3"),
        panel=WHERE,
        fields=("request.gpu_domain",),
        excludes=(
            Rule(
                ("numa_bind",),
                "{option} is on several nodes, --numa-bind for one",
                when=("package",),
            ),
        ),
        needs=(
            Rule(("per=gpu", "per=accel"), "{option} is for ranks by GPU", "--per gpu makes them"),
        ),
    ),
    Option(
        ("--kind",),
        "value",
        "Use only the most capable cores of a hybrid machine, only the others, those that were "
        "measured as the fastest (see --measured), or all, of which ranks get equal shares "
        "(default)",
        commands=PLACING,
        choices=("performance", "efficiency", "fastest", "all"),
        panel=WHERE,
        fields=("request.kind",),
        places_ranks=True,
    ),
    # --- OpenMP
    Option(
        ("--places",),
        "value",
        "Choose what an OpenMP place is; one: a single place with all the rank's cpus; wide: a "
        "place for each core, the first with all cpus (default: cores for a compiled program "
        "with one OpenMP runtime, else one)",
        choices=("threads", "cores", "l3", "numa", "one", "wide"),
        panel=OPENMP,
        brief="what an OpenMP place is",
        fields=("request.places",),
    ),
    Option(
        ("--threads",),
        "value",
        "Set OMP_NUM_THREADS, to cores: as many as the rank has cores, whatever its places are "
        "(default: one for each place, or for each cpu of a single place)",
        "N|cores",
        panel=OPENMP,
        brief="OpenMP threads of each rank",
        parse=parse_threads,
        fields=("request.threads",),
    ),
    Option(
        ("--pools",),
        "flag",
        "Give other thread pools as many threads as OpenMP: Numba, Polars, Rayon, Go, Java, Julia, "
        "llama.cpp, Python's os.cpu_count; a variable that you have set stays (default: with "
        "--threads, and under a cgroup's cpu quota)",
        no=True,
        panel=OPENMP,
        fields=("plan.pools",),
        excludes=(
            Rule(
                ("omp=off",),
                "{option} needs a number of threads, and {other} plans none",
                "--omp threads plans it",
                when=("True",),
            ),
        ),
    ),
    Option(
        ("--proc-bind",),
        "value",
        "Set OMP_PROC_BIND (default close)",
        choices=("close", "spread", "primary", "true", "false"),
        panel=OPENMP,
        fields=("request.proc_bind",),
    ),
    Option(
        ("--runtime",),
        "value",
        "Name the worker's OpenMP runtime where its file does not show it (default auto)",
        choices=("auto", "libgomp", "libomp", "libiomp5", "none"),
        panel=OPENMP,
        fields=("request.runtime",),
        excludes=(
            Rule(
                ("places", "proc_bind=false"),
                "{option} is for choosing --places, and {other} leaves no choice",
                when=("libgomp", "libomp", "libiomp5", "none"),
            ),
        ),
    ),
    Option(
        ("--omp",),
        "value",
        "Set all of OpenMP's variables, only the number of threads, or none, and leave the others "
        "as they are, as numactl and taskset do (default: all; off for a command that binds its "
        "workers itself, as vllm serve does)",
        choices=("all", "threads", "off"),
        panel=OPENMP,
        fields=("request.omp",),
        excludes=(
            Rule(
                ("places", "proc_bind", "runtime"),
                "{option} leaves places to others, and {other} is about them",
                when=("threads", "off"),
            ),
            Rule(
                ("threads",),
                "{option} does not set OMP_NUM_THREADS, and {other} does",
                "--omp threads sets it alone",
                when=("off",),
            ),
        ),
    ),
    # --- memory
    Option(
        ("--mem",),
        "value",
        "Set the memory policy: bind, preferred, interleave, weighted-interleave, local or none "
        "(default: bind with --numa-bind and --numa-bind-nodes, else none)",
        "POLICY",
        commands=PLACING,
        choices=("bind", "preferred", "interleave", "weighted-interleave", "local", "none"),
        panel=MEMORY,
        brief="memory policy",
        fields=("request.mem",),
    ),
    Option(
        ("--mem-nodes",),
        "list",
        "Take rank r's memory from the r-th nodes, as in 0,4 1,5, or that of all ranks from the "
        "only ones, wherever their cpus are; all: from each node that has memory",
        "NODES...",
        commands=PLACING,
        panel=MEMORY,
        suggest=("all", "<node>"),
        parse=parse_mem_nodes,
        fields=("request.mem_nodes",),
        excludes=(
            Rule(("mem=none", "mem=local"), "{name} names nodes, {other} is for no node"),
            NODES_TWICE,
        ),
        needs=(WITH_POLICY,),
    ),
    Option(
        ("--mem-kind",),
        "value",
        "Take each rank's memory from the nearest node of this kind: hbm, dram, or cxl for what is "
        "slower",
        commands=PLACING,
        choices=("hbm", "dram", "cxl"),
        panel=MEMORY,
        fields=("request.mem_kind",),
        excludes=(
            Rule(("mem=none", "mem=local"), "{name} is for nodes, {other} is for no node"),
            Rule(("mem_nodes",), "{name} and {other} both say which nodes"),
            NODES_TWICE,
        ),
        needs=(WITH_POLICY,),
    ),
    Option(
        ("--mem-need",),
        "value",
        "Start nothing unless this much memory is free or reclaimable, on the ranks' nodes and in "
        "the cgroup: of all ranks together, or of each",
        "SIZE[/rank]",
        panel=MEMORY,
        suggest=("40G", "40G/rank"),
        parse=parse_need,
        fields=("request.mem_need",),
    ),
    Option(
        ("--mem-balancing",),
        "flag",
        "Let the kernel migrate pages among the nodes of --mem bind, to the threads that use them",
        panel=MEMORY,
        fields=("request.mem_balancing",),
        excludes=(
            Rule(
                (
                    "mem=preferred",
                    "mem=interleave",
                    "mem=weighted-interleave",
                    "mem=local",
                    "mem=none",
                ),
                "{name} is for --mem bind, not for {other}",
            ),
            Rule(("serve",), "{name} is for ranks; {other} lets a server bind its workers"),
        ),
        needs=(
            Rule(
                ("mem", "numa_bind", "numa_bind_nodes"),
                "{name} is for a memory policy, and none is set",
                "--mem bind",
            ),
        ),
    ),
    Option(
        ("--huge-pages",),
        "value",
        "Have the ranks' allocator take transparent huge pages (thp), or reserved ones of 2 MiB "
        "(2M): the C library's, jemalloc, mimalloc and, where it can, tcmalloc",
        choices=("thp", "2M"),
        panel=MEMORY,
        fields=("plan.huge_pages",),
    ),
    Option(
        ("--warm",),
        "list",
        "Read these files into memory before the ranks start, onto the node of the ranks or "
        "interleaved over their nodes; pages that lie elsewhere and nobody uses are dropped and "
        "read again; with {rank}, each rank's own",
        "FILE...",
        commands=("run", "show"),
        panel=MEMORY,
        suggest=("<file>",),
        parse=parse_texts,
        fields=("plan.warm",),
        excludes=(
            Rule(
                ("topology",),
                "{name} is for files of this machine, {other} is another",
                "leave {other} out",
            ),
        ),
        on_saved_plan=True,
    ),
    # --- GPUs and the ranks' variables
    Option(
        ("--gpu-env",),
        "flag",
        "Let each rank see its own GPU or accelerator only: set CUDA_VISIBLE_DEVICES, "
        "ROCR_VISIBLE_DEVICES, ZE_AFFINITY_MASK, ASCEND_RT_VISIBLE_DEVICES, HLS_MODULE_ID or "
        "NEURON_RT_VISIBLE_CORES",
        panel=VARIABLES,
        fields=("request.gpu_env",),
        places_ranks=True,
    ),
    Option(
        ("--nic-env",),
        "flag",
        "Name each rank its nearest network card, those that are equally near in turn: set "
        "UCX_NET_DEVICES, NCCL_IB_HCA and libfabric's FI_... for it, except where they are set",
        panel=VARIABLES,
        fields=("request.nic_env",),
    ),
    Option(
        ("--env",),
        "value",
        "Set a variable for the workers, with {rank} and arithmetic filled in; NAME alone takes "
        "the value from here; may be repeated",
        "NAME[=VALUE]",
        panel=VARIABLES,
        many=True,
        suggest=("<variable>",),
        brief="a variable for the workers",
        parse=parse_variables,
        fields=("variables.assignments",),
        on_saved_plan=True,
    ),
    Option(
        ("--env-file",),
        "value",
        "Set the variables of a file of NAME=VALUE lines, - for standard input; may be repeated; "
        "--env wins",
        "FILE",
        panel=VARIABLES,
        many=True,
        suggest=("<file>",),
        parse=parse_texts,
        fields=("variables.files",),
        on_saved_plan=True,
    ),
    Option(
        ("--preload",),
        "value",
        "Load these libraries before all others: tcmalloc, jemalloc, mimalloc or iomp5 from where "
        "they are installed, or a file; several with commas, in front of those of LD_PRELOAD",
        "NAME|PATH[,...]",
        panel=VARIABLES,
        adds=True,
        suggest=("tcmalloc", "jemalloc", "mimalloc", "iomp5", "<file>"),
        parse=parse_preload,
        fields=("plan.preload",),
        on_saved_plan=True,
    ),
    Option(
        ("--rank-env",),
        "flag",
        "Set RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE (default: with several ranks)",
        no=True,
        panel=VARIABLES,
        fields=("request.rank_env", "variables.rank_env"),
    ),
    Option(
        ("--master-port",),
        "value",
        "Set MASTER_PORT, MASTER_ADDR and what --rank-env sets, for torch.distributed; auto takes "
        "a free port",
        "PORT|auto",
        panel=VARIABLES,
        suggest=("auto",),
        parse=parse_port,
        fields=("variables.master_port",),
        on_saved_plan=True,
    ),
    Option(
        ("--master-addr",),
        "value",
        "Set MASTER_ADDR (default 127.0.0.1)",
        "ADDRESS",
        panel=VARIABLES,
        parse=parse_address,
        fields=("variables.master_addr",),
        on_saved_plan=True,
    ),
    Option(
        ("--template",),
        "flag",
        "Fill in {rank}, {ranks}, {cpus}, {nodes} and arithmetic such as {8000+rank} in the "
        "worker's arguments; write {{ and }} for literal braces",
        panel=VARIABLES,
        fields=("request.template",),
    ),
    # --- several commands
    Option(
        ("--file",),
        "value",
        "Start the groups of ranks that a TOML file describes, each with a command and options of "
        "its own; in one line they are divided by ::: as in -n 4 -- a ::: -n 1 -- b",
        "FILE",
        commands=("run", "show"),
        panel=GROUPS,
        suggest=("<file>",),
        keyword_of=(),
    ),
    Option(
        ("--group",),
        "value",
        "Name the group of this command, beside others (default: as its program)",
        "NAME",
        commands=("run", "show"),
        panel=GROUPS,
        parse=parse_group,
        fields=("request.group",),
        keyword_of=(),
    ),
    Option(
        ("--after",),
        "value",
        "Start this group when these are ready, and end it before them; may be repeated",
        "GROUP",
        commands=("run", "show"),
        panel=GROUPS,
        adds=True,
        parse=parse_groups,
        keyword_of=(),
    ),
    Option(
        ("--ready",),
        "value",
        "Take this group for ready when a port answers, a page is there, a line is written "
        "(line:REGEX) or its ranks have exited (exit); {rank} is filled in (default: at once)",
        "PORT|URL|line:REGEX|exit",
        commands=("run", "show"),
        panel=GROUPS,
        suggest=("http://127.0.0.1:", "line:", "exit"),
        parse=parse_ready,
        keyword_of=(),
    ),
    Option(
        ("--background",),
        "flag",
        "End this group when all others have exited; how it ends then is no failure",
        commands=("run", "show"),
        panel=GROUPS,
        keyword_of=(),
    ),
    # --- running
    Option(
        ("--output",),
        "value",
        "Leave the ranks' output as it is (inherit, default for one rank), put the rank before "
        "each line as in [3] (tag, default for several), or write files, see --output-dir",
        choices=("inherit", "tag", "files"),
        commands=("run",),
        panel=RUNNING,
        fields=("settings.output",),
        keyword_of=("run",),
        excludes=(
            Rule(
                ("output_dir",),
                "{option} and --output-dir both say where output goes",
                when=("inherit", "tag"),
            ),
            Rule(
                ("leave_children",),
                "{option} and {other}: nobody passes on what processes write that outlive ompbind, "
                "and their next write would kill them",
                "use --output inherit, the default with --leave-children, or --output-dir DIR",
                when=("tag",),
            ),
        ),
        needs=(
            Rule(
                ("output_dir",),
                "{option} needs a directory to write them to",
                "--output-dir DIR names the directory",
                when=("files",),
            ),
        ),
        on_saved_plan=True,
        watched=("tag",),
    ),
    Option(
        ("--output-dir",),
        "value",
        "Write each rank's output to files there, as rank-3.out and rank-3.err, which must not "
        "exist yet",
        "DIR",
        commands=("run",),
        panel=RUNNING,
        suggest=("<file>",),
        brief="write each rank's output to files there",
        parse=parse_directory,
        fields=("settings.output_dir",),
        keyword_of=("run",),
        on_saved_plan=True,
    ),
    Option(
        ("--overwrite",),
        "flag",
        "Replace existing files of --output-dir",
        commands=("run",),
        panel=RUNNING,
        fields=("settings.overwrite",),
        keyword_of=("run",),
        needs=(Rule(("output_dir",), "{name} has no effect without --output-dir", "leave it out"),),
        on_saved_plan=True,
    ),
    Option(
        ("--stdin",),
        "value",
        "Give standard input to rank R (default 0), to all, a copy each, or to none",
        "R|all|none",
        commands=("run",),
        panel=RUNNING,
        suggest=("all", "none", "<rank>"),
        parse=parse_stdin,
        fields=("settings.stdin",),
        keyword_of=("run",),
        on_saved_plan=True,
    ),
    Option(
        ("--on-failure",),
        "value",
        "Stop the other ranks when one fails (default), or keep them running; the exit status is "
        "the first failure's",
        choices=("stop", "keep"),
        commands=("run",),
        panel=RUNNING,
        fields=("settings.on_failure",),
        keyword_of=("run",),
        on_saved_plan=True,
    ),
    Option(
        ("--grace",),
        "value",
        "Wait so long for ranks to exit after INT, and again after TERM, before KILL (default 10)",
        "SECONDS",
        commands=("run",),
        panel=RUNNING,
        parse=parse_seconds,
        fields=("settings.grace",),
        keyword_of=("run",),
        on_saved_plan=True,
        watched=True,
    ),
    Option(
        ("--verify",),
        "optional",
        "Check the ranks as ompbind verify does, once their threads have started, at the latest "
        "after so many seconds (default 5), and warn where they are not as planned",
        "[=SECONDS]",
        commands=("run",),
        panel=RUNNING,
        brief="check that the ranks are bound as planned",
        parse=parse_timeout,
        fields=("settings.verify",),
        keyword_of=("run",),
        on_saved_plan=True,
        watched=True,
    ),
    Option(
        ("--verify-strict",),
        "flag",
        "Check them so, and end the ranks with status 125 where they are not as planned",
        commands=("run",),
        panel=RUNNING,
        fields=("settings.verify_strict",),
        keyword_of=("run",),
        on_saved_plan=True,
        watched=True,
    ),
    Option(
        ("--report-bindings",),
        "flag",
        "Report what each rank is bound to when it starts, a line each, with its cores marked",
        commands=("run",),
        panel=RUNNING,
        fields=("settings.report_bindings",),
        keyword_of=("run",),
        on_saved_plan=True,
    ),
    Option(
        ("--report",),
        "value",
        "Write what each rank has used to a file when all have exited, as JSON: cpu time, time "
        "waited for a cpu, switches, migrations, throttling, memory on other nodes, swap; in its "
        "name %N is the host's name, %r the first rank's number",
        "FILE",
        commands=("run",),
        panel=RUNNING,
        suggest=("<file>",),
        parse=parse_report,
        fields=("settings.report",),
        keyword_of=("run",),
        on_saved_plan=True,
        watched=True,
    ),
    Option(
        ("--quiet", "-q"),
        "flag",
        "Report errors only: no notes and no warnings",
        commands=("run",),
        panel=RUNNING,
        fields=("plan.quiet", "settings.quiet"),
        keyword_of=("run",),
        excludes=(Rule(("verbose",), "{name} reports less, {other} more"),),
        on_saved_plan=True,
    ),
    Option(
        ("--verbose", "-v"),
        "flag",
        "Report what each rank is bound to, how it exited and what it has used, and in each worker "
        "what became of each --fix",
        commands=("run", "show"),
        panel=RUNNING,
        brief="report on ranks: bindings, exits, what they used",
        fields=("plan.verbose", "settings.verbose"),
        keyword_of=("plan", "run"),
        on_saved_plan=True,
        watched=True,
    ),
    # --- other machines, saved plans
    Option(
        ("--topology",),
        "value",
        "Use another machine: a file of topo --save or --format json, hwloc's XML, an archive of "
        "hwloc-gather-topology, a directory that holds its sys and proc, - for one of these on "
        "standard input, or hwloc's notation, as in 'package:2 core:8 pu:2'; run refuses it",
        "PATH",
        commands=("run", "show", "topo"),
        panel=ELSEWHERE,
        suggest=("<file>",),
        fields=("plan.topology",),
    ),
    Option(
        ("--measured",),
        "value",
        "Plan by what ompbind topo --measure found on this machine: a file of its --save or "
        "--format json",
        "FILE",
        commands=PLACING,
        panel=WHERE,
        suggest=("<file>",),
        fields=("plan.measured",),
    ),
    Option(
        ("--plan",),
        "value",
        "Use a plan saved with show --format json; - is standard input",
        "FILE",
        commands=PLACING,
        panel=ELSEWHERE,
        suggest=("<file>",),
        fields=("plan.saved",),
        keyword_of=(),
        on_saved_plan=True,
    ),
    Option(
        ("--plan-env",),
        "flag",
        "Give a command of yours all variables of the saved plan, also those that are not about "
        "binding and may decide which code it loads",
        panel=ELSEWHERE,
        fields=("plan.saved_variables",),
        keyword_of=(),
        needs=(
            Rule(
                ("plan",),
                "{option} has no effect without --plan",
                "--env NAME=VALUE gives the workers a variable",
            ),
        ),
        on_saved_plan=True,
    ),
    Option(
        ("--from-env",),
        "value",
        "Plan by another tool's environment variables: vllm reads VLLM_CPU_OMP_THREADS_BIND, "
        "VLLM_CPU_NUM_OF_RESERVED_CPU and CPU_VISIBLE_MEMORY_NODES as vLLM does",
        choices=("vllm",),
        panel=ELSEWHERE,
        fields=("plan.from_env",),
        yields_to=("per", "numa_bind", "numa_bind_nodes", "numa_bind_cpus", "share", "near"),
        places_ranks=True,
    ),
    Option(
        ("--serve",),
        "value",
        "Start one server and hand it the plan of the workers that it starts, in its own words; "
        "the ranks of all other options are these workers, as many as its command asks for (auto: "
        "the engine is seen by the command)",
        choices=("auto", "vllm", "sglang"),
        panel=WHERE,
        brief="one server, which binds its workers by the plan",
        fields=("plan.serve",),
        excludes=(
            Rule(
                ("places", "proc_bind", "runtime", "omp=all", "omp=threads"),
                "{name} leaves OpenMP's variables to the server, and {other} is about them",
                "leave {other} out; --threads N sets OMP_NUM_THREADS for the server's engine",
            ),
            Rule(
                ("mem=preferred", "mem=interleave", "mem=weighted-interleave", "mem=local"),
                "{name}: the server binds the memory of each worker to one node, {other} is "
                "something else",
                "leave {other} out",
            ),
            Rule(("gpu_env", "nic_env"), "{name} starts one process, and {other} is for several"),
        ),
        places_ranks=True,
    ),
    # --- rarely needed
    Option(
        ("--binder",),
        "value",
        "Bind with numactl, or with the same system calls without it; auto: numactl where it is "
        "installed (default)",
        choices=("auto", "numactl", "native"),
        panel=RARE,
        fields=("request.binder",),
    ),
    Option(
        ("--inherited",),
        "value",
        "Plan inside an inherited affinity mask or memory policy (intersect, default), refuse it, "
        "or ignore it and use the whole cpuset",
        commands=PLACING,
        choices=("intersect", "error", "ignore"),
        panel=RARE,
        fields=("plan.inherited",),
    ),
    Option(
        ("--on-denied",),
        "value",
        "Refuse (default) or leave out the part when the kernel denies a part of a binding",
        choices=("error", "degrade"),
        panel=RARE,
        fields=("request.on_denied", "settings.on_denied"),
        keyword_of=("run",),
        on_saved_plan=True,
    ),
    Option(
        ("--neighbours",),
        "flag",
        "Warn about other launches that hold cores of this plan (default)",
        commands=("run", "show"),
        no=True,
        panel=RARE,
        fields=("plan.neighbours",),
        excludes=(
            Rule(
                ("topology",),
                "{option} looks at the launches of this machine, --topology is another",
                when=("True",),
            ),
        ),
        on_saved_plan=True,
    ),
    Option(
        ("--supervise",),
        "flag",
        "Supervise a single rank as several are: nothing that it started is left, whatever ends it "
        "(default for programs that start and bind workers, such as vllm serve)",
        commands=("run",),
        no=True,
        panel=RARE,
        excludes=(
            Rule(
                (
                    *("verbose", "report", "grace", "verify", "verify_strict", "leave_children"),
                    "output=tag",
                ),
                "{option} lets a rank replace ompbind, {other} needs a supervisor",
                when=("False",),
            ),
        ),
        fields=("settings.supervise",),
        keyword_of=(),
        on_saved_plan=True,
        watched=(True,),
    ),
    Option(
        ("--leave-children",),
        "flag",
        "Let processes that ranks leave behind go on (default: they are ended); implies --output "
        "inherit",
        commands=("run",),
        panel=RARE,
        fields=("settings.leave_children",),
        keyword_of=("run",),
        on_saved_plan=True,
        watched=True,
    ),
    Option(
        ("--fix",),
        "value",
        "Apply these fixes in the worker's Python: names with commas, auto for all that it needs, "
        "path.py:function for one of yours; list prints them",
        "NAME[,NAME]",
        panel=RARE,
        adds=True,
        suggest=("<fix>",),
        fields=("plan.fixes",),
        on_saved_plan=True,
    ),
    Option(
        ("--fix-children",),
        "flag",
        "Apply them in the Python processes that the worker starts, too (default)",
        no=True,
        panel=RARE,
        fields=("plan.fix_children",),
        needs=(
            Rule(
                ("fix",),
                "{option} has no effect without --fix",
                "ompbind run --fix list prints the fixes",
            ),
        ),
        on_saved_plan=True,
    ),
)

# The options that only launches of several commands take, which `groups` is loaded for.
GROUP_OPTIONS = tuple(o.key for o in LAUNCH if o.panel == GROUPS)
