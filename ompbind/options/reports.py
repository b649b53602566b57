"""The options of the commands that report: `show`, `topo`, `verify`, `doctor`, `ps` and `rebind`.

They say what is printed and where to, and nothing of a plan; a launch has none of them.
"""

from __future__ import annotations

from ompbind.options.table import ELSEWHERE, OUTPUT, RUNNING, Option, Rule
from ompbind.options.values import parse_interval

# Values of show's --format: forms of ompbind's own, and those of other tools (exports.FORMATS).
FORMS = ("table", "json", "env", "argv")
EXPORTS = ("srun", "rankfile", "systemd", "docker", "compose", "k8s", "taskset", "sh")

REPORTS: tuple[Option, ...] = (
    Option(
        ("--format",),
        "value",
        "Print a table (default), json, env (a rank's environment for a shell), argv (the ranks' "
        "commands), or the plan for another tool: srun, rankfile (Open MPI), systemd, docker, "
        "compose, k8s, taskset, or sh, a script that needs no ompbind",
        "FORMAT",
        choices=(*FORMS, *EXPORTS),
        commands=("show",),
        panel=OUTPUT,
        brief="how to print the plan",
        excludes=(
            Rule(
                ("warm",),
                "{other} is done by ompbind, {option} is for another tool",
                "leave {other} out",
                when=EXPORTS,
            ),
        ),
        keyword_of=(),
        on_saved_plan=True,
    ),
    Option(
        ("--rank",),
        "value",
        "Print the command of rank R, with --format env its environment",
        "R",
        commands=("show",),
        panel=OUTPUT,
        suggest=("<rank>",),
        keyword_of=(),
        excludes=(
            Rule(
                ("format=json", "format=srun", "format=rankfile"), "{name} has no effect on {other}"
            ),
        ),
        on_saved_plan=True,
    ),
    Option(
        ("--svg",),
        "value",
        "Draw the plan into a file, as vector graphics for a page, a paper or a slide; - is "
        "standard output",
        "FILE",
        commands=("show",),
        panel=OUTPUT,
        suggest=("<file>",),
        brief="draw a picture into a file",
        keyword_of=(),
        excludes=(
            Rule(("format",), "{name} draws a picture; {other} would have no effect"),
            Rule(("hosts",), "{name} draws one machine, {other} names many"),
            Rule(("rank",), "{name} draws all ranks; {other} would have no effect"),
            Rule(("explain",), "a picture explains nothing in sentences", "leave {other} out"),
        ),
        on_saved_plan=True,
    ),
    Option(
        ("--svg",),
        "value",
        "Draw the machine into a file, as vector graphics for a page, a paper or a slide; - is "
        "standard output",
        "FILE",
        commands=("topo",),
        panel=OUTPUT,
        suggest=("<file>",),
        brief="draw a picture into a file",
        keyword_of=(),
        excludes=(Rule(("format", "save"), "{name} draws a picture; {other} does something else"),),
    ),
    Option(
        ("--html",),
        "value",
        "Write a page into a file: the picture, the tables and what explains them; - is standard "
        "output",
        "FILE",
        commands=("show",),
        panel=OUTPUT,
        suggest=("<file>",),
        keyword_of=(),
        excludes=(
            Rule(("format",), "{name} writes a page; {other} would have no effect"),
            Rule(("hosts",), "{name} is about one machine, {other} names many"),
            Rule(("rank",), "{name} has all ranks; {other} would have no effect"),
            Rule(("svg",), "{name} has the picture that {other} draws"),
        ),
        on_saved_plan=True,
    ),
    Option(
        ("--html",),
        "value",
        "Write a page into a file: the picture, nodes, distances and devices; - is standard output",
        "FILE",
        commands=("topo",),
        panel=OUTPUT,
        suggest=("<file>",),
        brief="write a page with the picture and tables",
        keyword_of=(),
        excludes=(
            Rule(("format", "save"), "{name} writes a page; {other} does something else"),
            Rule(("svg",), "{name} has the picture that {other} draws"),
        ),
    ),
    Option(
        ("--html",),
        "value",
        "Write a page into a file: pictures of the plan and of what the processes have, beside "
        "each other, with the differences marked; - is standard output",
        "FILE",
        commands=("verify",),
        panel=OUTPUT,
        suggest=("<file>",),
        brief="write a page with plan and reality",
        keyword_of=(),
        excludes=(
            Rule(("format",), "{name} writes a page; {other} would have no effect"),
            Rule(("watch",), "{name} writes one page, {other} looks again and again"),
        ),
    ),
    Option(
        ("--explain",),
        "flag",
        "Explain in sentences how each rank came to its cpus and memory",
        commands=("show",),
        panel=OUTPUT,
        brief="explain the plan in sentences",
        keyword_of=(),
        excludes=(
            Rule(
                tuple(f"format={form}" for form in ("env", "argv", *EXPORTS)),
                "{option} does not go with {other}",
                "table or json",
            ),
        ),
        on_saved_plan=True,
    ),
    Option(
        ("--repair",),
        "flag",
        "Where threads or pages have left their plan, bind and move them as it says, print what "
        "was done, and check again",
        commands=("verify",),
        panel=RUNNING,
        brief="bind again what has left its plan",
        keyword_of=(),
        excludes=(Rule(("watch",), "{name} looks and repairs once, {other} again and again"),),
    ),
    Option(
        ("--watch",),
        "optional",
        "Check again every so many seconds (default 2), until interrupted or all have exited",
        "[=SECONDS]",
        commands=("verify",),
        panel=OUTPUT,
        brief="check again and again, every 2 seconds",
        parse=parse_interval,
        keyword_of=(),
    ),
    Option(
        ("--format",),
        "value",
        "Print a table (default) or JSON",
        choices=("table", "json"),
        commands=("topo", "verify", "doctor", "ps", "rebind"),
        panel=OUTPUT,
        brief="how to print it",
        keyword_of=(),
        on_saved_plan=True,
    ),
    Option(
        ("--dry-run",),
        "flag",
        "Print the plan and what would be changed of each process, and change nothing",
        commands=("rebind",),
        panel=OUTPUT,
        keyword_of=(),
        on_saved_plan=True,
    ),
    Option(
        ("--force",),
        "flag",
        "Rebind threads that hold places of their own, as OpenMP's do, to all cpus of their rank, "
        "and take cores that other launches hold",
        commands=("rebind",),
        panel=RUNNING,
        brief="rebind threads with places of their own, too",
        keyword_of=(),
        on_saved_plan=True,
    ),
    Option(
        ("--measure",),
        "flag",
        "Measure the speed of each core, alone and together, and bandwidth and latency between "
        "nodes: takes seconds, and should have the machine for itself",
        commands=("topo",),
        panel=OUTPUT,
        brief="measure cores and memory, in seconds",
        keyword_of=(),
        excludes=(
            Rule(("topology",), "{name} measures this machine, and {other} names another one"),
            Rule(
                ("svg",), "a picture has no figures, so {name} would have no effect", "use --html"
            ),
        ),
    ),
    Option(
        ("--save",),
        "value",
        "Write the machine to a small file that --topology takes on any machine; %N in its name is "
        "the host's name, - is standard output",
        "FILE",
        commands=("topo",),
        panel=OUTPUT,
        suggest=("<file>",),
        brief="write it to a file for --topology",
        keyword_of=(),
        excludes=(Rule(("format",), "{name} prints nothing; {other} would have no effect"),),
    ),
    Option(
        ("--with-name",),
        "flag",
        "Keep the host's name in the saved file",
        commands=("topo",),
        panel=OUTPUT,
        brief="keep the host's name in that file",
        keyword_of=(),
        needs=(Rule(("save",), "{name} has no effect without --save", "leave it out"),),
    ),
    Option(
        ("--hosts",),
        "value",
        "Plan a job on these hosts: a list such as n[001-010,17], or a file (- for standard "
        "input) with a list on each line and, if you like, their kind's snapshot after it; "
        "--topology is then one machine for all, or a directory with a snapshot of each host under "
        "its name",
        "FILE|HOSTLIST",
        commands=("show",),
        panel=ELSEWHERE,
        suggest=("<file>",),
        brief="plan a whole job on these hosts",
        keyword_of=(),
        excludes=(
            Rule(("warm",), "{other} is for files of this machine, {name} names many"),
            Rule(("from_env",), "{other} follows the variables of one machine, {name} names many"),
            Rule(
                tuple(f"format={form}" for form in EXPORTS),
                "{other} is for one machine, {name} names many",
                "plan for one host of a kind: srun's masks hold on each node that is alike",
            ),
            Rule(
                ("engine", "within"),
                "{other} is about the engine that has started this process, {name} about others",
                "leave {other} out",
            ),
        ),
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
        keyword_of=(),
    ),
)
