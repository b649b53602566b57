"""Help, laid out from the table of options in two columns, and the pages of the documentation.

No other package has a part in how it looks, and none is imported for it.
"""

from __future__ import annotations

import os

from ompbind import __version__
from ompbind.errors import OmpbindError, UsageError
from ompbind.messages import did_you_mean, quote, shows_colours, write_output
from ompbind.options.commands import OPTIONS, options_of
from ompbind.options.table import (
    COMPARED,
    MEASURED,
    OUTPUT,
    PANELS,
    RUNNING,
    WHERE,
    Option,
)
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NARROWEST, WIDEST, USUAL = 60, 100, 80  # columns
COLUMN = 26  # where an option's text begins
SHORT_COLUMN = 30  # the same in the short help
INDEX = "README.md"  # of the pages, which `ompbind help` has for itself
PAGES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs")


class Command(Record):
    """A command's help, but for its options. `more`: the last lines of its short help; `panels`:
    those whose options are in that, () for all."""

    name: str
    usage: str
    summary: str
    text: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]
    more: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()


COMMANDS = (
    Command(
        "run",
        "[OPTIONS] -- COMMAND [ARG]...",
        "Start COMMAND bound, as one rank or several",
        (
            "Everything after -- is the worker's own command line; nothing goes through a shell. "
            "One rank replaces ompbind itself, several are supervised.",
            "The exit status is the worker's, with several ranks the first failure's; 125: ompbind "
            "refused, 126: the command cannot be executed, 127: it was not found.",
        ),
        (
            ("ompbind run -- ./solver", "every allowed core"),
            ("ompbind run --per l3 -- ./solver", "a rank per L3 cache"),
            ("ompbind run --numa-bind-nodes 0 0 1 1 -- python w.py", "two ranks per node"),
            ("ompbind run -n 2 --template -- serve --port {8000+rank}", "a port for each rank"),
            ("ompbind run -n 4 -- ./a ::: --cores-per-rank 2 -- ./b", "two programs"),
        ),
        ("ompbind show takes the same options and prints the plan.",),
    ),
    Command(
        "show",
        "[OPTIONS] [-- COMMAND [ARG]...]",
        "Print the plan that run would execute, and start nothing",
        (),
        (
            ("ompbind show --per numa --mem bind", "a table"),
            ("ompbind show -n 4 --format json -- ./solver", "for a script, or for --plan"),
            ('eval "$(ompbind show -n 4 --rank 2 --format env)"', "the variables of one rank"),
            ("ompbind show --topology server.topo -n 8", "a plan for another machine"),
        ),
    ),
    Command(
        "topo",
        "[OPTIONS]",
        "Draw the machine, print it as JSON, or save it",
        (),
        (
            ("ompbind topo", "what this machine is made of"),
            ("ompbind topo --save server.topo", "for plans elsewhere and bug reports"),
            ("ompbind topo --topology server.topo", "a saved machine"),
        ),
    ),
    Command(
        "verify",
        "[OPTIONS] PID...",
        "Compare running workers with their plan",
        (
            "For each thread: its allowed cpus and the cpu it last ran on. For each process: its "
            "memory policy and its pages on each node. PID is a worker's, or that of an ompbind "
            "run or of a script around it, which stands for all its ranks. The processes that a "
            "rank has started are checked as well.",
            "The exit status is 0 when all is as planned and 1 when not; 125: no such process, or "
            "no worker of ompbind.",
        ),
        (
            ("ompbind verify 4711", "a worker, or its ompbind"),
            ("ompbind verify --plan plan.json 4711 4712", "against a saved plan"),
            ("ompbind verify --watch 4711", "again and again, until interrupted"),
            ("ompbind verify --repair 4711", "and bind again what has left its plan"),
        ),
    ),
    Command(
        "ps",
        "[OPTIONS]",
        "List the launches that hold cpus of this machine, and what is free",
        (
            "Launches of ompbind are known by their ranks' variables, those of others by their "
            "leases, and other programs by their masks: those that are bound to other cpus than "
            "the process that started them. Root sees all.",
        ),
        (
            ("ompbind ps", "who holds what"),
            ("ompbind ps --format json", "for a script"),
        ),
    ),
    Command(
        "rebind",
        "PID... [OPTIONS]",
        "Bind programs that run already",
        (
            "Each PID is a rank, in order, with all that it has started. Every thread is bound to "
            "the cpus of its rank, and the pages of its memory are moved to the nodes of these "
            "cpus, or to those of --mem-nodes; --mem none leaves pages where they are. Nothing is "
            "stopped for it. Options that say where ranks go are those of run; PIDs after a list "
            "follow --.",
            "What nobody can change from outside stays: variables, and the policy by which a "
            "program allocates memory. So threads with places of their own are left to OpenMP, "
            "unless there is --force.",
            "The exit status is 0 when all is as planned then and 1 when not; 125: refused, and "
            "nothing was changed.",
        ),
        (
            ("ompbind rebind 4711 --numa-bind --dry-run", "what would be changed"),
            ("ompbind rebind 4711 --numa-bind", "a program to one node, with its memory"),
            ("ompbind rebind 4711 4712 --per package", "two servers, each to a package"),
        ),
        ("The options of ompbind run that say where ranks go are taken, too.",),
        (OUTPUT, RUNNING, WHERE),
    ),
    Command(
        "doctor",
        "[OPTIONS] [-- COMMAND [ARG]...]",
        "Report what this machine allows and what costs performance",
        (
            "Each finding comes with its remedy. The system calls that bind are really tried, in a "
            "process of their own. With a command, the OpenMP runtimes that its files bring are "
            "reported; it is not started.",
            "The exit status is 1 where something prevents binding.",
        ),
        (
            ("ompbind doctor", "this machine, container or job"),
            ("ompbind doctor -- python -c 'import torch'", "and the OpenMP runtimes of torch"),
        ),
    ),
    Command(
        "compare",
        "[OPTIONS] -- COMMAND [ARG]...",
        "Find out which binding is best for COMMAND, and whether it matters",
        (
            "Every plan that is asked for, and the command without any binding, run once in each "
            "round, in random order, until the rounds show which is best, or --runs or --time is "
            "used up. Ctrl-C reports what has been measured until then.",
            "Options of the plan hold for all that are compared. The ranks' output is kept from "
            "the terminal, and their input is empty. The exit status is 0 when there is a result, "
            "1 when no run gave a figure; 125: ompbind refused.",
        ),
        (
            ("ompbind compare -- ./solver", "does it matter at all?"),
            ("ompbind compare --vary smt=1,all -- ./solver", "which of these is best?"),
            ("ompbind compare --vary auto -- ./solver", "what is best on this machine?"),
        ),
        ("The options of ompbind run that make a plan hold for all that are compared.",),
        (COMPARED, MEASURED, OUTPUT),
    ),
)
HELP_OPTIONS = (
    ("-h", "Show the options used most, on one screen"),
    ("--help", "Show all options"),
)
ROOT_OPTIONS = (
    ("-h, --help", "Show this text"),
    ("-V", "Print the version"),
    ("--version", "Print the version, and what ompbind runs on, for a report of a bug"),
    ("--install-completion [SHELL]", "Install completion for bash, zsh or fish"),
    ("--show-completion [SHELL]", "Print the shell's completion script"),
)
ROOT_TEXT = (
    "ompbind reads the topology of the machine and works out the cpus, OpenMP places and memory "
    "nodes of every worker (rank). show prints that plan, run executes it."
)
ROOT_EXAMPLES = (
    ("ompbind show -n 4", "the plan for four ranks"),
    ("ompbind run -n 4 -- python worker.py", "start them"),
)


def print_help(name: str = "", *, short: bool = False) -> int:
    """Print a command's help, the short one or all of it, or that of ompbind itself."""
    command = next((c for c in COMMANDS if c.name == name), None)
    layout = Layout(width=text_width(), bold=shows_colours(1))
    if command is None:
        lines = root_help(layout, short=short)
    else:
        lines = short_help(command, layout) if short else long_help(command, layout)
    write_output("".join(f"{line}\n" for line in lines))
    return 0


def version() -> str:
    return __version__


def print_topic(words: Sequence[str]) -> int:
    """Answer `ompbind help [COMMAND|OPTION|PAGE]`. Raises OmpbindError."""
    if len(words) > 1:
        raise UsageError("help takes one word", hint="ompbind help [COMMAND|OPTION|PAGE]")
    topic = words[0] if words else ""
    names = [c.name for c in COMMANDS]
    pages = find_pages()
    if topic in ("", "help", *names):
        print_help(topic)
        if topic not in names:
            write_output("".join(f"{line}\n" for line in page_list(pages)))
        elif topic in pages:
            write_output(f"\nThere is a page too: ompbind help {folder_and_name(pages[topic])}\n")
        return 0
    if topic.startswith("-"):
        return print_option(topic)
    path = pages.get(topic) or {folder_and_name(p): p for p in pages.values()}.get(topic)
    if path is None:
        if not pages:
            raise missing_pages()
        longer = [f"did you mean {name}?" for name in (*names, *pages) if name.startswith(topic)]
        hint = did_you_mean(topic, [*names, *pages]) or next(
            iter(longer), "ompbind help lists commands and pages"
        )
        raise UsageError(f"there is no command and no page {quote(topic)}", hint=hint)
    write_output(read_page(path))
    return 0


def print_option(name: str) -> int:
    """Print what the help of each command says of one option. Raises UsageError."""
    layout = Layout(width=text_width(), bold=shows_colours(1))
    name = name.partition("=")[0]
    lines = []
    for option in OPTIONS:
        if name in names_of(option):
            lines += [layout.heading(f"ompbind {', '.join(option.commands)}")]
            lines += layout.entry(write_names(option), option.help)
    if not lines:
        names = [n for o in OPTIONS for n in names_of(o)]
        raise UsageError(f"{quote(name)} is not an option", hint=did_you_mean(name, names))
    write_output("".join(f"{line}\n" for line in lines))
    return 0


# --- layout --------------------------------------------------------------------------------------


class Layout(Record):
    """How help is laid out: `width` columns, headings in bold or not."""

    width: int
    bold: bool

    def heading(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self.bold else text

    def usage(self, words: str) -> str:
        return f"{self.heading('Usage:')} {words}"

    def paragraph(self, text: str) -> list[str]:
        return fill(text, self.width, 0)

    def entry(self, left: str, right: str, column: int = COLUMN) -> list[str]:
        """Return two columns; what is too long for the left one stands on a line of its own."""
        lines = fill(right, self.width, column)
        if len(left) + 4 > column:
            return [f"  {left}", *lines]
        return [f"  {left}".ljust(column) + lines[0][column:], *lines[1:]]

    def entries(self, heading: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
        """Return a heading and a line or more for each pair."""
        return ["", self.heading(heading), *(ln for pair in pairs for ln in self.entry(*pair))]

    def examples(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """Return commands to paste, each after what it is for."""
        column = max(len(command) for command, _ in pairs) + 4
        if all(column + len(text) <= self.width for _, text in pairs):
            lines = [f"  {command}".ljust(column) + text for command, text in pairs]
        else:
            lines = [ln for c, text in pairs for ln in (f"  {c}", f"      {text}")]
        return ["", self.heading("Examples"), *lines]


def fill(text: str, width: int, indent: int) -> list[str]:
    """Return `text` in lines of at most `width` columns, each indented; a word is never divided."""
    lines = [""]
    for word in text.split():
        if lines[-1] and indent + len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return [" " * indent + line for line in lines]


def long_help(command: Command, layout: Layout) -> list[str]:
    """Return all of a command's help, with every option that it takes."""
    lines = [layout.usage(f"ompbind {command.name} {command.usage}"), ""]
    lines += layout.paragraph(f"{command.summary}.")
    for text in command.text:
        lines += ["", *layout.paragraph(text)]
    lines += layout.examples(command.examples)
    options = options_of(command.name)
    for panel in sorted({o.panel for o in options}, key=PANELS.index):
        rows = [(write_names(o), o.help) for o in options if o.panel == panel]
        lines += layout.entries(panel, rows)
    return lines + layout.entries("Help", HELP_OPTIONS)


def short_help(command: Command, layout: Layout) -> list[str]:
    """Return one screen: the options that most users need, a line for each."""
    lines = [layout.usage(f"ompbind {command.name} {command.usage}"), ""]
    lines += [f"{command.summary}.", ""]
    for option in options_of(command.name):
        if option.brief and (not command.panels or option.panel in command.panels):
            left = f"  {write_names(option)}"
            lines.append(f"{left.ljust(SHORT_COLUMN - 2)}  {option.brief}")
    if len(lines) + len(command.examples) < 20:
        lines += layout.examples(command.examples)
    return [*lines, "", *command.more, f"Everything else: ompbind {command.name} --help"]


def root_help(layout: Layout, *, short: bool) -> list[str]:
    """Return the help of ompbind itself; the short one fits one screen."""
    lines = [layout.usage("ompbind COMMAND [OPTIONS]..."), ""]
    lines += ["Start worker processes bound to the right cpus and memory."]
    lines += [] if short else ["", *layout.paragraph(ROOT_TEXT)]
    pairs = [(c.name, c.summary) for c in COMMANDS]
    pairs.append(("help", "Explain a command, an option or a page of the documentation"))
    lines += ["", layout.heading("Commands")]
    lines += [line for pair in pairs for line in layout.entry(*pair, column=12)]
    lines += ["", layout.heading("Options")]
    shown = ROOT_OPTIONS[:2] if short else ROOT_OPTIONS  # completion is set up once
    lines += [line for pair in shown for line in layout.entry(*pair, column=34)]
    lines += layout.examples(ROOT_EXAMPLES)
    return [*lines, "", "The options of a command: ompbind run -h"]


def write_names(option: Option) -> str:
    """Return an option as it is typed: `-n, --ranks N`, `--verify[=SECONDS]`."""
    names = ", ".join(sorted(names_of(option), key=lambda n: n.startswith("--")))
    space = "" if option.kind == "optional" or not option.value else " "
    return f"{names}{space}{option.value}"


def names_of(option: Option) -> list[str]:
    """Return every name that the option goes by."""
    return [*option.names, *([f"--no-{option.names[0][2:]}"] if option.no else [])]


def text_width() -> int:
    """Return how wide the text may be: as COLUMNS says, else as the terminal is."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isascii() and columns.isdigit() and len(columns) < 6 else 0
    if not width:
        try:
            width = os.get_terminal_size(1).columns
        except OSError:
            width = 0  # a pipe
    return min(max(width or USUAL, NARROWEST), WIDEST)


# --- the pages of the documentation --------------------------------------------------------------


def find_pages() -> dict[str, str]:
    """Return the path of each installed page by its name, in the order of tutorial, how-to,
    reference and explanation, and last those beside the index; empty where none are installed."""
    pages = {}
    for folder in ("tutorial", "how-to", "how-to/with", "reference", "explanation", ""):
        try:
            names = sorted(os.listdir(os.path.join(PAGES, folder)))
        except OSError:
            continue  # not installed: print_topic says so
        for name in names:
            if name.endswith(".md") and name != INDEX:
                pages[name.removesuffix(".md")] = os.path.join(PAGES, folder, name)
    return pages


def page_list(pages: dict[str, str]) -> list[str]:
    """Return the heading and a line for each page, with its title."""
    if not pages:
        return ["", missing_pages().message]
    layout = Layout(width=text_width(), bold=shows_colours(1))
    commands = {c.name for c in COMMANDS}
    rows = []
    for name, path in pages.items():
        title = read_page(path).partition("\n")[0].lstrip("# ")
        rows.append((folder_and_name(path) if name in commands else name, title))
    return layout.entries("Pages (ompbind help PAGE)", rows)


def folder_and_name(path: str) -> str:
    """Return a page's longer name: `how-to/verify`."""
    folder, name = os.path.split(path)
    return f"{os.path.basename(folder)}/{name.removesuffix('.md')}"


def read_page(path: str) -> str:
    """Return the text of a page. Raises OmpbindError."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as e:
        raise OmpbindError(f"{path}: {e.strerror}") from None


def missing_pages() -> OmpbindError:
    hint = "read them at https://github.com/ompbind/ompbind/tree/main/docs"
    return OmpbindError("the pages of the documentation are not installed", hint=hint)
