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
    """One option. `names`: the long one first, then a short one, if any. `no`: the flag also comes
    as --no-…; `adds`: a repeated one adds to its value, with a comma; `many`: a repeated one makes
    a list of values; `commands`: who takes it."""

    names: tuple[str, ...]
    kind: Kind
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    commands: tuple[str, ...] = ("run", "show")
    panel: str = "Who runs where"
    no: bool = False
    adds: bool = False
    many: bool = False

    @property
    def key(self) -> str:
        return self.names[0][2:].replace("-", "_")


OPENMP = "OpenMP"
MEMORY = "Memory and binding"
LAUNCH = "Launch"
ENVIRONMENT = "Environment"
FIXES = "Worker-side fixes"
VERIFY = "Plan and processes"
OUTPUT = "Output"
ELSEWHERE = "Other machines, saved plans"

OPTIONS: tuple[Option, ...] = (
    Option(
        ("--ranks", "-n"),
        "value",
        "How many workers. Alone, it divides the machine by its own "
        "tree: packages before nodes before caches before cores.",
        "N",
    ),
    Option(
        ("--per",),
        "value",
        "One worker for each such thing; with -n, the workers are dealt over "
        "them in balanced blocks.",
        "THING",
        ("numa", "package", "l3", "core", "gpu"),
    ),
    Option(
        ("--distribution",),
        "value",
        "How the ranks are dealt over the things of --per: `block` puts neighbours together "
        "(default), `cyclic` goes round.",
        "HOW",
        ("block", "cyclic"),
    ),
    Option(
        ("--cores-per-rank",),
        "value",
        "Cores of each rank, the first of its part; with --per, ranks follow each other closely.",
        "N",
    ),
    Option(
        ("--numa-bind",),
        "flag",
        "Bind each rank's cpus and memory to one node: its GPU's where each visible GPU has a "
        "rank, else the nodes in order.",
    ),
    Option(
        ("--numa-bind-nodes",),
        "list",
        "Rank r goes to the r-th node named: 0 0 1 1, or "
        "0,0,1,1. Implies --numa-bind and the number of ranks.",
        "NODE...",
    ),
    Option(
        ("--numa-bind-cpus",),
        "list",
        "Rank r gets exactly the r-th cpu list: 0-3 4-7. With "
        "--numa-bind-nodes, the nodes are for memory.",
        "CPUS...",
    ),
    Option(
        ("--share",),
        "flag",
        "Ranks in the same domain all get the whole of it. Without it they split its cores evenly.",
    ),
    Option(
        ("--oversubscribe",),
        "flag",
        "Let ranks share cores, as evenly as can be, where there are more ranks than cores.",
    ),
    Option(
        ("--part",),
        "value",
        "Use only the I-th of N equal parts of the machine, cut as -n N cuts it: launches of "
        "different parts do not meet.",
        "I/N",
    ),
    Option(
        ("--near",),
        "value",
        "Use only the cores nearest to a device: eth0, mlx5_0, gpu0, or a PCI address.",
        "DEVICE",
    ),
    Option(
        ("--gpu-domain",),
        "value",
        "What counts as near a GPU: its node (default), its node's whole package, or one "
        "last-level cache of its node.",
        "THING",
        ("numa", "package", "l3"),
    ),
    Option(("--smt",), "value", "Hardware threads used of each core (default 1).", "N|all"),
    Option(
        ("--kind",),
        "value",
        "On a machine with several kinds of core: those that can do most, the others, or all "
        "(default), which ranks then get equal shares of.",
        "KIND",
        ("performance", "efficiency", "all"),
    ),
    Option(
        ("--reserve",),
        "value",
        "Cores kept free for other work, N of all ranks together (one at a time from the rank "
        "with the most cores, the last such rank first) or N of each.",
        "N[/rank]",
    ),
    Option(
        ("--role",),
        "value",
        "N cores of all ranks together, or of each, set aside under a name, as in kv=2; a worker "
        "finds their cpus in OMPBIND_ROLE_KV. May be repeated.",
        "NAME=N[/rank]",
        many=True,
    ),
    Option(("--exclude",), "value", "Cpus never to use, as in 0,8-9.", "CPUS"),
    Option(
        ("--places",),
        "value",
        "What an OpenMP place is; `one` is a single place that holds all the rank's cpus, `wide` "
        "one for each core, of which the first holds them all (default: cores for a compiled "
        "program with one OpenMP runtime, else one).",
        "WHAT",
        ("threads", "cores", "l3", "numa", "one", "wide"),
        panel=OPENMP,
    ),
    Option(
        ("--runtime",),
        "value",
        "The worker's OpenMP runtime, where its file does not tell (default auto).",
        "NAME",
        ("auto", "libgomp", "libomp", "libiomp5", "none"),
        panel=OPENMP,
    ),
    Option(
        ("--proc-bind",),
        "value",
        "OMP_PROC_BIND (default close).",
        "HOW",
        ("close", "spread", "primary", "true", "false"),
        panel=OPENMP,
    ),
    Option(
        ("--threads",), "value", "OMP_NUM_THREADS, when not one for each place.", "N", panel=OPENMP
    ),
    Option(
        ("--mem",),
        "value",
        "The memory policy (default bind with --numa-bind..., else none).",
        "POLICY",
        ("bind", "preferred", "interleave", "local", "none"),
        panel=MEMORY,
    ),
    Option(
        ("--binder",),
        "value",
        "How a binding is applied; auto: numactl where it is installed, "
        "else the same system calls without it.",
        "HOW",
        ("auto", "numactl", "native"),
        panel=MEMORY,
    ),
    Option(
        ("--inherited",),
        "value",
        "An affinity mask or memory policy that was narrowed before: plan inside it (default), "
        "refuse, or use the whole cpuset instead.",
        "WHAT",
        ("intersect", "error", "ignore"),
        panel=MEMORY,
    ),
    Option(
        ("--neighbours",),
        "flag",
        "Warn of other launches that hold cpus of this plan (default).",
        no=True,
    ),
    Option(
        ("--on-denied",),
        "value",
        "What to do when the kernel refuses a part of a binding (default error).",
        "WHAT",
        ("error", "degrade"),
        panel=MEMORY,
    ),
    Option(
        ("--topology",),
        "value",
        "Another machine: a directory that holds its sys and proc, a file of topo --save, or "
        "hwloc's XML. `run` refuses it.",
        "PATH",
        commands=("run", "show", "topo"),
        panel=ELSEWHERE,
    ),
    Option(
        ("--plan",), "value", "Use a plan saved with show --format json.", "FILE", panel=ELSEWHERE
    ),
    Option(
        ("--plan",),
        "value",
        "The plan that the processes are to keep, saved with show --format json; without it, what "
        "ompbind told each of them.",
        "FILE",
        commands=("verify",),
        panel=VERIFY,
    ),
    Option(
        ("--watch",),
        "optional",
        "Look again every so many seconds (default 2), until interrupted or all have ended.",
        "[=SECONDS]",
        commands=("verify",),
        panel=VERIFY,
    ),
    Option(
        ("--from-env",),
        "value",
        "Plan by another tool's environment variables: vllm reads VLLM_CPU_OMP_THREADS_BIND, "
        "VLLM_CPU_NUM_OF_RESERVED_CPU and CPU_VISIBLE_MEMORY_NODES as vLLM would.",
        "TOOL",
        ("vllm",),
        panel=ELSEWHERE,
    ),
    Option(
        ("--rank-env",),
        "flag",
        "Set RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE (default: with several ranks).",
        no=True,
        panel=LAUNCH,
    ),
    Option(
        ("--gpu-env",),
        "flag",
        "Each rank sees its own GPU only: sets CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES or "
        "ZE_AFFINITY_MASK.",
        panel=ENVIRONMENT,
    ),
    Option(
        ("--template",),
        "flag",
        "Fill in {rank}, {ranks}, {cpus}, {nodes} and arithmetic such as {8000+rank} in the "
        "worker's arguments; braces that are meant are doubled: {{ }}.",
        panel=LAUNCH,
    ),
    Option(
        ("--on-failure",),
        "value",
        "What a rank that fails means for the others: stop ends them (default), keep lets them go "
        "on. The status is the first failure's.",
        "WHAT",
        ("stop", "keep"),
        commands=("run",),
        panel=LAUNCH,
    ),
    Option(
        ("--grace",),
        "value",
        "How long ranks have to end after INT, and again after TERM, before KILL (default 10).",
        "SECONDS",
        commands=("run",),
        panel=LAUNCH,
    ),
    Option(
        ("--leave-children",),
        "flag",
        "Processes that ranks leave behind may go on. Without it they are ended, too.",
        commands=("run",),
        panel=LAUNCH,
    ),
    Option(
        ("--output",),
        "value",
        "Where ranks write: inherit, as it is (default for one rank); tag, each line behind its "
        "rank as in [3] (default for several); files, see --output-dir.",
        "HOW",
        ("inherit", "tag", "files"),
        commands=("run",),
        panel=LAUNCH,
    ),
    Option(
        ("--output-dir",),
        "value",
        "Ranks write to files there, rank-3.out and rank-3.err, which must not be there already.",
        "DIR",
        commands=("run",),
        panel=LAUNCH,
    ),
    Option(
        ("--overwrite",),
        "flag",
        "Replace the files of --output-dir that are there already.",
        commands=("run",),
        panel=LAUNCH,
    ),
    Option(
        ("--stdin",),
        "value",
        "Who reads standard input: a rank (default 0), all, each a copy of its own, or none.",
        "R|all|none",
        commands=("run",),
        panel=LAUNCH,
    ),
    Option(
        ("--env",),
        "value",
        "Set a variable for the workers, {rank} and arithmetic filled in; NAME alone takes its "
        "value from here. May be repeated.",
        "NAME[=VALUE]",
        panel=ENVIRONMENT,
        many=True,
    ),
    Option(
        ("--env-file",),
        "value",
        "Set the variables of a file of NAME=VALUE lines. May be repeated; --env wins.",
        "FILE",
        panel=ENVIRONMENT,
        many=True,
    ),
    Option(
        ("--master-port",),
        "value",
        "Set MASTER_PORT, MASTER_ADDR and what --rank-env sets, for torch.distributed; auto "
        "takes a free port.",
        "PORT|auto",
        panel=ENVIRONMENT,
    ),
    Option(
        ("--master-addr",),
        "value",
        "The address for MASTER_ADDR (default 127.0.0.1).",
        "ADDRESS",
        panel=ENVIRONMENT,
    ),
    Option(
        ("--verify",),
        "optional",
        "Look at the ranks, as ompbind verify does, once their threads are there, and at the "
        "latest after so many seconds (default 5); warn where they are not as planned.",
        "[=SECONDS]",
        commands=("run",),
        panel=LAUNCH,
    ),
    Option(
        ("--verify-strict",),
        "flag",
        "The same, and end the ranks where they are not as planned, with status 125.",
        commands=("run",),
        panel=LAUNCH,
    ),
    Option(
        ("--fix",),
        "value",
        "Let the worker's Python carry these fixes: names with commas, auto for all that it "
        "needs, list to see them, path.py:function for your own.",
        "NAME[,NAME]",
        panel=FIXES,
        adds=True,
    ),
    Option(
        ("--fix-children",),
        "flag",
        "Fixes reach the Python processes that the worker starts as well (default).",
        no=True,
        panel=FIXES,
    ),
    Option(
        ("--verbose", "-v"),
        "flag",
        "Say on standard error how each rank ended; each worker process logs what became of each "
        "fix.",
        panel=LAUNCH,
    ),
    Option(
        ("--format",),
        "value",
        "How to print it (default table).",
        "FORMAT",
        ("table", "json"),
        commands=("doctor",),
        panel=OUTPUT,
    ),
    Option(
        ("--explain",),
        "flag",
        "Tell in sentences how each rank came to what it has.",
        commands=("show",),
        panel=OUTPUT,
    ),
    Option(
        ("--format",),
        "value",
        "How to print it (default table).",
        "FORMAT",
        ("table", "json", "env", "argv"),
        commands=("show",),
        panel=OUTPUT,
    ),
    Option(
        ("--format",),
        "value",
        "How to print it (default table).",
        "FORMAT",
        ("table", "json"),
        commands=("topo", "verify"),
        panel=OUTPUT,
    ),
    Option(
        ("--save",),
        "value",
        "Write what was read to a small file that --topology takes on any machine.",
        "FILE",
        commands=("topo",),
        panel=OUTPUT,
    ),
    Option(
        ("--with-name",),
        "flag",
        "Keep the host's name in the saved file.",
        commands=("topo",),
        panel=OUTPUT,
    ),
    Option(
        ("--rank",),
        "value",
        "The rank that --format env or argv is for.",
        "R",
        commands=("show",),
        panel=OUTPUT,
    ),
)


def options_of(command: str) -> tuple[Option, ...]:
    return tuple(o for o in OPTIONS if command in o.commands)
