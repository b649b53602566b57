"""The options of the command line, as data: the launch path's parser, the help, the shell
completion and the documentation are all made from this one table."""

from __future__ import annotations

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    # A list takes all values up to the next option; an optional value follows = only.
    Kind = Literal["flag", "value", "optional", "list"]


class Option(Record):
    """One option.

    `names`: the long one first, then a short one, if any. `help`: a sentence in the imperative,
    without a full stop; `brief`: a few words for the short help, "" where it is not there.
    `metavar`: what its value is called, where it is not one of `choices`. `commands`: those that
    take it. `no`: the flag also comes as --no-…; `adds`: a repeated one adds to its value, with a
    comma; `many`: a repeated one makes a list of values. `suggest`: what completion offers as a
    value where there are no choices: words, and in angle brackets a kind of thing to look up.
    """

    names: tuple[str, ...]
    kind: Kind
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    commands: tuple[str, ...] = ("run", "show")
    panel: str = "How many ranks"
    no: bool = False
    adds: bool = False
    many: bool = False
    suggest: tuple[str, ...] = ()
    brief: str = ""

    @property
    def key(self) -> str:
        return self.names[0][2:].replace("-", "_")

    @property
    def value(self) -> str:
        """What is to be typed for its value: `N`, `block|cyclic`; "" for a flag."""
        return self.metavar or "|".join(self.choices)


WHERE = "Where they run"
OPENMP = "OpenMP"
MEMORY = "Memory"
VARIABLES = "GPUs and the ranks' variables"
RUNNING = "Running"
OUTPUT = "What to print"
ELSEWHERE = "Other machines and saved plans"
RARE = "Rarely needed"

OPTIONS: tuple[Option, ...] = (
    # --- how many ranks
    Option(
        ("--ranks", "-n"),
        "value",
        "Start N ranks; alone, divide the machine in N by its own tree: packages before nodes "
        "before caches before cores",
        "N",
        brief="N ranks; alone, the machine divided in N",
    ),
    Option(
        ("--per",),
        "value",
        "Start one rank for each of these; with -n, map the N ranks to them in balanced blocks",
        choices=("numa", "package", "l3", "core", "gpu"),
        brief="one rank for each",
    ),
    Option(
        ("--cores-per-rank",),
        "value",
        "Give each rank N cores, the first of its part; with --per, ranks follow one another "
        "without gaps",
        "N",
    ),
    Option(
        ("--distribution",),
        "value",
        "Map ranks to what --per names in consecutive blocks (default) or cyclically",
        choices=("block", "cyclic"),
    ),
    Option(
        ("--share",),
        "flag",
        "Give all ranks of one node, package or cache the whole of it (default: they split its "
        "cores)",
    ),
    Option(
        ("--oversubscribe",),
        "flag",
        "Let ranks share cores, as evenly as possible, where there are more ranks than cores",
    ),
    # --- where they run
    Option(
        ("--numa-bind",),
        "flag",
        "Bind each rank's cpus and memory to one node: its GPU's node where every visible GPU has "
        "a rank, else the nodes in order",
        panel=WHERE,
        brief="each rank on one node, its memory too",
    ),
    Option(
        ("--numa-bind-nodes",),
        "list",
        "Bind rank r to the r-th node, as in 0 0 1 1 or 0,0,1,1; implies --numa-bind and the "
        "number of ranks",
        "NODE...",
        panel=WHERE,
        suggest=("<node>",),
        brief="rank r on the r-th node, as in 0 0 1 1",
    ),
    Option(
        ("--numa-bind-cpus",),
        "list",
        "Bind rank r to exactly the r-th list of cpus, as in 0-3 4-7; with --numa-bind-nodes, the "
        "nodes are for memory",
        "CPUS...",
        panel=WHERE,
        suggest=("<cpus>",),
        brief="rank r on the r-th list, as in 0-3 4-7",
    ),
    Option(
        ("--smt",),
        "value",
        "Use N hardware threads of each core, or all (default 1)",
        "N|all",
        panel=WHERE,
        suggest=("all", "<smt>"),
        brief="hardware threads used of each core",
    ),
    Option(
        ("--reserve",),
        "value",
        "Keep N cores free for other work, taken one at a time from the rank with the most "
        "cores, the last such rank first; or N cores of each rank",
        "N[/rank]",
        panel=WHERE,
        brief="cores kept free for other work",
    ),
    Option(
        ("--exclude",),
        "value",
        "Never use these cpus, as in 0,8-9",
        "CPUS",
        panel=WHERE,
        brief="cpus never used, as in 0,8-9",
    ),
    Option(
        ("--role",),
        "value",
        "Set N cores aside under a name, of all ranks together or of each; with kv=2, the worker "
        "finds their cpus in OMPBIND_ROLE_KV; may be repeated",
        "NAME=N[/rank]",
        panel=WHERE,
        many=True,
    ),
    Option(
        ("--part",),
        "value",
        "Use only the I-th of N equal parts of the machine, divided as by -n N, so that launches "
        "in different parts share no core",
        "I/N",
        panel=WHERE,
    ),
    Option(
        ("--near",),
        "value",
        "Use only the cores nearest to a device: eth0, mlx5_0, gpu0 or a PCI address",
        "DEVICE",
        panel=WHERE,
        suggest=("<device>",),
    ),
    Option(
        ("--gpu-domain",),
        "value",
        "Count as near a GPU: its node (default), its package, or one last-level cache of its node",
        choices=("numa", "package", "l3"),
        panel=WHERE,
    ),
    Option(
        ("--kind",),
        "value",
        "Use only the most capable cores of a hybrid machine, only the others, or all, of which "
        "ranks get equal shares (default)",
        choices=("performance", "efficiency", "all"),
        panel=WHERE,
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
    ),
    Option(
        ("--threads",),
        "value",
        "Set OMP_NUM_THREADS (default: one for each place, or for each cpu of a single place)",
        "N",
        panel=OPENMP,
        brief="OpenMP threads of each rank",
    ),
    Option(
        ("--proc-bind",),
        "value",
        "Set OMP_PROC_BIND (default close)",
        choices=("close", "spread", "primary", "true", "false"),
        panel=OPENMP,
    ),
    Option(
        ("--runtime",),
        "value",
        "Name the worker's OpenMP runtime where its file does not show it (default auto)",
        choices=("auto", "libgomp", "libomp", "libiomp5", "none"),
        panel=OPENMP,
    ),
    # --- memory
    Option(
        ("--mem",),
        "value",
        "Set the memory policy (default: bind with --numa-bind..., else none)",
        choices=("bind", "preferred", "interleave", "local", "none"),
        panel=MEMORY,
        brief="memory policy",
    ),
    # --- GPUs and the ranks' variables
    Option(
        ("--gpu-env",),
        "flag",
        "Let each rank see its own GPU only: set CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES or "
        "ZE_AFFINITY_MASK",
        panel=VARIABLES,
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
    ),
    Option(
        ("--env-file",),
        "value",
        "Set the variables of a file of NAME=VALUE lines; may be repeated; --env wins",
        "FILE",
        panel=VARIABLES,
        many=True,
        suggest=("<file>",),
    ),
    Option(
        ("--rank-env",),
        "flag",
        "Set RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE (default: with several ranks)",
        no=True,
        panel=VARIABLES,
    ),
    Option(
        ("--master-port",),
        "value",
        "Set MASTER_PORT, MASTER_ADDR and what --rank-env sets, for torch.distributed; auto takes "
        "a free port",
        "PORT|auto",
        panel=VARIABLES,
        suggest=("auto",),
    ),
    Option(
        ("--master-addr",),
        "value",
        "Set MASTER_ADDR (default 127.0.0.1)",
        "ADDRESS",
        panel=VARIABLES,
    ),
    Option(
        ("--template",),
        "flag",
        "Fill in {rank}, {ranks}, {cpus}, {nodes} and arithmetic such as {8000+rank} in the "
        "worker's arguments; write {{ and }} for literal braces",
        panel=VARIABLES,
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
    ),
    Option(
        ("--overwrite",),
        "flag",
        "Replace existing files of --output-dir",
        commands=("run",),
        panel=RUNNING,
    ),
    Option(
        ("--stdin",),
        "value",
        "Give standard input to rank R (default 0), to all, a copy each, or to none",
        "R|all|none",
        commands=("run",),
        panel=RUNNING,
        suggest=("all", "none", "<rank>"),
    ),
    Option(
        ("--on-failure",),
        "value",
        "Stop the other ranks when one fails (default), or keep them running; the exit status is "
        "the first failure's",
        choices=("stop", "keep"),
        commands=("run",),
        panel=RUNNING,
    ),
    Option(
        ("--grace",),
        "value",
        "Wait so long for ranks to exit after INT, and again after TERM, before KILL (default 10)",
        "SECONDS",
        commands=("run",),
        panel=RUNNING,
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
    ),
    Option(
        ("--verify-strict",),
        "flag",
        "Check them so, and end the ranks with status 125 where they are not as planned",
        commands=("run",),
        panel=RUNNING,
    ),
    Option(
        ("--verbose", "-v"),
        "flag",
        "Report how each rank exited, and in each worker what became of each --fix",
        panel=RUNNING,
        brief="report how each rank exited",
    ),
    # --- what to print
    Option(
        ("--format",),
        "value",
        "Print a table (default), the plan as JSON, a rank's environment for a shell, or the "
        "ranks' commands",
        choices=("table", "json", "env", "argv"),
        commands=("show",),
        panel=OUTPUT,
        brief="how to print the plan",
    ),
    Option(
        ("--rank",),
        "value",
        "Print the command of rank R, with --format env its environment",
        "R",
        commands=("show",),
        panel=OUTPUT,
        suggest=("<rank>",),
        brief="the rank whose command or environment is printed",
    ),
    Option(
        ("--explain",),
        "flag",
        "Explain in sentences how each rank came to its cpus and memory",
        commands=("show",),
        panel=OUTPUT,
        brief="explain the plan in sentences",
    ),
    Option(
        ("--watch",),
        "optional",
        "Check again every so many seconds (default 2), until interrupted or all have exited",
        "[=SECONDS]",
        commands=("verify",),
        panel=OUTPUT,
        brief="check again and again, every 2 seconds",
    ),
    Option(
        ("--format",),
        "value",
        "Print a table (default) or JSON",
        choices=("table", "json"),
        commands=("topo", "verify", "doctor"),
        panel=OUTPUT,
        brief="how to print it",
    ),
    Option(
        ("--save",),
        "value",
        "Write the machine to a small file that --topology takes on any machine",
        "FILE",
        commands=("topo",),
        panel=OUTPUT,
        suggest=("<file>",),
        brief="write it to a file for --topology",
    ),
    Option(
        ("--with-name",),
        "flag",
        "Keep the host's name in the saved file",
        commands=("topo",),
        panel=OUTPUT,
        brief="keep the host's name in that file",
    ),
    # --- other machines, saved plans
    Option(
        ("--topology",),
        "value",
        "Use another machine: a file of topo --save, hwloc's XML, or a directory that holds its "
        "sys and proc; run refuses it",
        "PATH",
        commands=("run", "show", "topo"),
        panel=ELSEWHERE,
        suggest=("<file>",),
    ),
    Option(
        ("--plan",),
        "value",
        "Use a plan saved with show --format json",
        "FILE",
        panel=ELSEWHERE,
        suggest=("<file>",),
    ),
    Option(
        ("--plan",),
        "value",
        "Compare with a plan saved with show --format json (default: with the plan that ompbind "
        "wrote into each worker's environment)",
        "FILE",
        commands=("verify",),
        panel=ELSEWHERE,
        suggest=("<file>",),
        brief="compare with a plan saved as JSON",
    ),
    Option(
        ("--from-env",),
        "value",
        "Plan by another tool's environment variables: vllm reads VLLM_CPU_OMP_THREADS_BIND, "
        "VLLM_CPU_NUM_OF_RESERVED_CPU and CPU_VISIBLE_MEMORY_NODES as vLLM does",
        choices=("vllm",),
        panel=ELSEWHERE,
    ),
    # --- rarely needed
    Option(
        ("--binder",),
        "value",
        "Bind with numactl, or with the same system calls without it; auto: numactl where it is "
        "installed (default)",
        choices=("auto", "numactl", "native"),
        panel=RARE,
    ),
    Option(
        ("--inherited",),
        "value",
        "Plan inside an inherited affinity mask or memory policy (intersect, default), refuse it, "
        "or ignore it and use the whole cpuset",
        choices=("intersect", "error", "ignore"),
        panel=RARE,
    ),
    Option(
        ("--on-denied",),
        "value",
        "Refuse (default) or leave out the part when the kernel denies a part of a binding",
        choices=("error", "degrade"),
        panel=RARE,
    ),
    Option(
        ("--neighbours",),
        "flag",
        "Warn about other launches that hold cpus of this plan (default)",
        no=True,
        panel=RARE,
    ),
    Option(
        ("--leave-children",),
        "flag",
        "Let processes that ranks leave behind go on (default: they are ended)",
        commands=("run",),
        panel=RARE,
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
    ),
    Option(
        ("--fix-children",),
        "flag",
        "Apply them in the Python processes that the worker starts, too (default)",
        no=True,
        panel=RARE,
    ),
)


def options_of(command: str) -> tuple[Option, ...]:
    return tuple(o for o in OPTIONS if command in o.commands)
