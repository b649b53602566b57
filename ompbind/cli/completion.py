"""What a shell's TAB is answered: commands, options, values, and the worker's own command.

The scripts that typer writes for bash, zsh and fish ask through variables; each shell gets its own
form of the same suggestions. What is not known here is left to the shell, which completes files.
"""

from __future__ import annotations

import os

from ompbind.cli.help import COMMANDS, find_pages, names_of
from ompbind.errors import OmpbindError
from ompbind.options.commands import options_of
from ompbind.options.table import Option
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WORKER_COMMANDS = ("run", "show", "doctor", "compare")
SHELLS = ("bash", "zsh", "fish")
ROOT = {
    "--help": "show the commands",
    "--version": "print the version",
    "--install-completion": "install completion for a shell",
    "--show-completion": "print a shell's completion script",
}


class Suggestions(Record):
    """What can stand at the cursor, each with a description or "".

    `head`: the part of the word before what is completed, as in `--places=` or `a,`; `begin`: the
    number of the word with which the worker's command begins, 0: it is not that; `files`: a file
    can stand there.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    head: str = ""
    begin: int = 0
    files: bool = False


def answer(instruction: str, environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the output and the exit status for what a shell asks; None: not one of ours."""
    verb, _, shell = instruction.partition("_")
    if verb != "complete" or shell not in SHELLS:
        return None
    try:
        if shell == "bash":
            return answer_bash(environ), 0
        words, last = split_line(environ.get("_TYPER_COMPLETE_ARGS", ""))
        matches = suggest(words, last)
        if shell == "zsh":
            return answer_zsh(matches), 0
        return answer_fish(matches, words, last, environ)
    except (OmpbindError, OSError, ValueError):  # a TAB is no place for a message
        return "", 1


# --- the three shells ----------------------------------------------------------------------------


def answer_bash(environ: Mapping[str, str]) -> str:
    """Return a suggestion a line; without one bash completes files.

    bash has divided the words at = and : as well, and replaces only the last part.
    """
    parts = environ.get("COMP_WORDS", "").split("\n")[: int(environ.get("COMP_CWORD", "0")) + 1]
    words: list[str] = []
    for number, part in enumerate(parts):
        if number and (is_break(part) or is_break(parts[number - 1])):
            words[-1] += part
        else:
            words.append(part)
    last = words.pop()
    kept = len(last) - (0 if is_break(parts[-1]) else len(parts[-1]))
    matches = suggest(words, last)
    if matches.begin == len(words):
        texts = commands_in_path(last)
    else:
        texts = [matches.head + value for value, _ in matches.pairs]
    return "".join(f"{text[kept:]}\n" for text in texts if text.startswith(last))


def is_break(part: str) -> bool:
    """Whether bash has made a word of its own of these = or : characters."""
    return bool(part) and not part.strip("=:")


def answer_zsh(matches: Suggestions) -> str:
    """Return a line of zsh's code, which the script evaluates. The worker's own words are completed
    as they are without ompbind."""
    if matches.begin:
        return f"shift {matches.begin} words; (( CURRENT -= {matches.begin} )); _normal\n"
    skip = f"compset -P {zsh_quote(pattern(matches.head))}; " if matches.head else ""
    if not matches.pairs:
        return f"{skip}_files\n" if matches.files else "_message 'nothing to complete'\n"
    texts = [
        value.replace("\\", "\\\\").replace(":", "\\:") + (f":{text}" if text else "")
        for value, text in matches.pairs
    ]
    option = "-o " if matches.pairs[0][0].startswith("-") else ""
    listed = " ".join(zsh_quote(text) for text in texts)
    more = "; _files" if matches.files else ""
    return (
        f"{skip}local -a ompbind_; ompbind_=({listed}); _describe {option}ompbind ompbind_{more}\n"
    )


def answer_fish(
    matches: Suggestions, words: Sequence[str], last: str, environ: Mapping[str, str]
) -> tuple[str, int]:
    """Return whole words, each with its description; the status says whether there are any: if not,
    fish completes files."""
    pairs = [(matches.head + value, text) for value, text in matches.pairs]
    if matches.begin == len(words):
        pairs = [(name, "command") for name in commands_in_path(last)]
    pairs = [(value, text) for value, text in pairs if value.startswith(last)]
    if environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return "", 0 if pairs else 1
    return "".join(f"{value}\t{text}\n" if text else f"{value}\n" for value, text in pairs), 0


def split_line(line: str) -> tuple[list[str], str]:
    """Return the words before the cursor and the one at it, without their quotes."""
    words, word, quoted = [], "", ""
    open_word = escaped = False
    for c in line:
        if escaped:
            word, escaped = word + c, False
        elif c == "\\" and quoted != "'":
            escaped = open_word = True
        elif quoted:
            quoted, word = ("", word) if c == quoted else (quoted, word + c)
        elif c in "'\"":
            quoted, open_word = c, True
        elif c.isspace():
            if open_word:
                words.append(word)
            word, open_word = "", False
        else:
            word, open_word = word + c, True
    return words, word


def pattern(text: str) -> str:
    """Return zsh's pattern for exactly this text."""
    return "".join(c if c.isalnum() or c in "-_=,./" else f"\\{c}" for c in text)


def zsh_quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- what can stand at the cursor ----------------------------------------------------------------


def suggest(words: Sequence[str], last: str) -> Suggestions:
    """Return what can stand for `last`, the word at the cursor, after `words`, of which the first
    is ompbind."""
    names = {c.name: c.summary for c in COMMANDS}
    if len(words) < 2:
        root = ROOT if last.startswith("-") else names | {"help": "explain a command or an option"}
        return Suggestions(pairs=tuple(root.items()))
    name, given = words[1], words[2:]
    if name == "help" and not given:
        return Suggestions(pairs=tuple((names | dict.fromkeys(find_pages(), "page")).items()))
    if name in ("--install-completion", "--show-completion") and not given:
        return Suggestions(pairs=tuple((shell, "") for shell in SHELLS))
    if name not in names:
        return Suggestions()
    options = {n: o for o in options_of(name) for n in names_of(o)}
    waiting: Option | None = None  # the option whose value comes next
    for number, word in enumerate(given, 2):
        if word == "--":
            return Suggestions(begin=number + 1) if name in WORKER_COMMANDS else Suggestions()
        if waiting is not None and waiting.kind == "value":
            waiting = None
        elif word.startswith("-") and len(word) > 1:
            option = options.get(word)
            waiting = option if option is not None and option.kind in ("value", "list") else None
        elif waiting is None and name in WORKER_COMMANDS:
            return Suggestions(begin=number)
    if waiting is not None and not (waiting.kind == "list" and last.startswith("-")):
        return values_of(waiting, last, "", words)
    start, equals, value = last.partition("=")
    if equals and start in options:
        return values_of(options[start], value, f"{start}=", words)
    if last.startswith("-") or name not in WORKER_COMMANDS:
        return Suggestions(pairs=described(options))
    if not last:
        return Suggestions(pairs=(*described(options), ("--", "the worker's command")))
    return Suggestions(begin=len(words))


def described(options: Mapping[str, Option]) -> tuple[tuple[str, str], ...]:
    """Return the options' names, each with a few words."""
    pairs = [
        (name, o.brief or o.help.partition(";")[0].partition(" (")[0])
        for name, o in options.items()
    ]
    return (*pairs, ("--help", "show all options"))


def values_of(option: Option, value: str, head: str, words: Sequence[str]) -> Suggestions:
    """Return the values that the option can have, after `head`."""
    if option.choices:
        return Suggestions(pairs=tuple((c, "") for c in option.choices), head=head)
    pairs: list[tuple[str, str]] = []
    for kind in option.suggest:
        pairs += look_up(kind, words) if kind.startswith("<") else [(kind, "")]
    if option.adds or option.kind == "list":
        before, comma, _ = value.rpartition(",")
        head += before + comma
    return Suggestions(pairs=tuple(pairs), head=head, files="<file>" in option.suggest)


def look_up(kind: str, words: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Return what there is of a kind on this machine, or in what was typed so far."""
    if kind == "<rank>":
        return [(str(rank), "") for rank in range(count_ranks(words))]
    if kind == "<fix>":
        from ompbind.fixes.registry import BUILT_IN, find_offered

        more = [("auto", "all that the worker needs"), ("list", "print the fixes")]
        return [*((name, "") for name in (*BUILT_IN, *find_offered())), *more]
    if kind == "<variable>":
        return [(name, "") for name in sorted(os.environ) if name.isidentifier()]
    if kind == "<file>":
        return []
    if kind == "<varied>":
        from ompbind.compare.variants import plan_rows

        return [(f"{o.names[0][2:]}=", o.brief) for o in plan_rows().values()]
    from ompbind.machine import read_machine

    machine = read_machine(find_value(words, "--topology"))
    topology, allowed = machine.topology, machine.allowed.cpus
    if kind == "<smt>":
        most = max((len(core & allowed) for core in topology.groups("core")), default=1)
        return [(str(threads), "") for threads in range(1, most + 1)]
    if kind == "<device>":
        from ompbind.devices.visible import make_visible

        gpus = make_visible(topology.devices, os.environ).gpus
        named = [(f"gpu{n}", gpu.device.pci) for n, gpu in enumerate(gpus)]
        named += [(name, f"{d.kind} {d.pci}") for d in topology.devices for name in d.names]
        return [*named, *((d.pci, d.kind) for d in topology.devices)]
    nodes = [n for n in topology.nodes if n.cpus & allowed]
    if kind == "<node>":
        return [(str(n.node), f"cpus {n.cpus & allowed}") for n in nodes]
    return [(str(n.cpus & allowed), f"node {n.node}") for n in nodes]


def find_value(words: Sequence[str], name: str) -> str | None:
    """Return the value that an option has among the words; None: it is not there."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return after
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def count_ranks(words: Sequence[str]) -> int:
    """Return how many ranks the plan has that the words before the cursor ask for."""
    from ompbind.options import make_plan_options, read_arguments
    from ompbind.resolve import resolve_plan

    given = list(words[2:-1] if words[-1] in ("--rank", "--stdin") else words[2:])
    values, command = read_arguments(given, words[1])
    environ = dict(os.environ)
    return len(resolve_plan(make_plan_options(values, command, environ), environ).ranks)


def commands_in_path(start: str) -> list[str]:
    """Return the programs in PATH whose names begin so; none for a path, which is a file."""
    names: set[str] = set()
    if "/" in start:
        return []
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        try:
            with os.scandir(folder or ".") as entries:
                names |= {e.name for e in entries if e.name.startswith(start) and is_program(e)}
        except OSError:
            continue  # a folder that is not there: as a shell does
    return sorted(names)


def is_program(entry: os.DirEntry[str]) -> bool:
    return not entry.is_dir() and os.access(entry.path, os.X_OK)
