"""The command line's parser: what it reads, what it leaves to the worker, what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from ompbind.cli.group import make_app
from ompbind.errors import OmpbindError, UsageError
from ompbind.options import parse_arguments, read_arguments
from ompbind.options.commands import OPTIONS, options_of
from ompbind.options.table import Option

if TYPE_CHECKING:
    from ompbind.options import Texts

COMMANDS = sorted({name for option in OPTIONS for name in option.commands})


def parse(*args: str) -> tuple[Texts, list[str]]:
    return parse_arguments(args, options_of("show"))


@pytest.mark.parametrize(
    ("args", "values", "command"),
    [
        # values: apart, joined, short
        (["--ranks", "4"], {"ranks": "4"}, []),
        (["--ranks=4"], {"ranks": "4"}, []),
        (["-n", "4"], {"ranks": "4"}, []),
        (["-n4"], {"ranks": "4"}, []),
        (["-n=4"], {"ranks": "4"}, []),
        (["--exclude="], {"exclude": ""}, []),
        (["--exclude", ""], {"exclude": ""}, []),
        (["--plan", "a=b"], {"plan": "a=b"}, []),
        (["--plan=a=b"], {"plan": "a=b"}, []),
        (["--plan", "-"], {"plan": "-"}, []),
        # a value is whatever follows, so that -1 reaches the check of numbers
        (["--ranks", "-1"], {"ranks": "-1"}, []),
        (["--plan=--share"], {"plan": "--share"}, []),
        # repeated: the last one counts, a list grows
        (["-n", "4", "--ranks", "5"], {"ranks": "5"}, []),
        (["--share", "--share"], {"share": True}, []),
        (["--numa-bind-nodes", "0", "--numa-bind-nodes", "1", "1"],
         {"numa_bind_nodes": ["0", "1", "1"]}, []),
        (["--numa-bind-nodes=0,1", "--share", "--numa-bind-nodes", "2"],
         {"numa_bind_nodes": ["0,1", "2"], "share": True}, []),
        # a list goes up to the next option or --
        (["--numa-bind-nodes", "0", "0", "1", "1", "--", "cmd"],
         {"numa_bind_nodes": ["0", "0", "1", "1"]}, ["cmd"]),
        (["--numa-bind-nodes", "0", "1", "-n", "2", "cmd"],
         {"numa_bind_nodes": ["0", "1"], "ranks": "2"}, ["cmd"]),
        (["--numa-bind-cpus", "0-3", "4-7", "--numa-bind-nodes", "0", "1"],
         {"numa_bind_cpus": ["0-3", "4-7"], "numa_bind_nodes": ["0", "1"]}, []),
        (["--numa-bind-nodes", "0", "python", "w.py"],
         {"numa_bind_nodes": ["0", "python", "w.py"]}, []),
        # joined with =, a list option takes that one value, and the command may follow
        (["--numa-bind-nodes=0,0", "cmd"], {"numa_bind_nodes": ["0,0"]}, ["cmd"]),
        # negative numbers and a lone dash are values, to be refused where they are read
        (["--numa-bind-nodes", "-1", "--", "cmd"], {"numa_bind_nodes": ["-1"]}, ["cmd"]),
        (["--numa-bind-nodes", "0", "-", "--", "cmd"], {"numa_bind_nodes": ["0", "-"]}, ["cmd"]),
        (["--numa-bind-cpus", "", "--", "cmd"], {"numa_bind_cpus": [""]}, ["cmd"]),
        # flags
        (["--env", "A=1", "--env=B=2 3", "x"], {"env": ["A=1", "B=2 3"]}, ["x"]),
        (["--share", "--numa-bind", "--template"],
         {"share": True, "numa_bind": True, "template": True}, []),
        (["--rank-env"], {"rank_env": True}, []),
        (["--no-rank-env"], {"rank_env": False}, []),
        (["--no-rank-env", "--rank-env"], {"rank_env": True}, []),
        # where the command starts
        ([], {}, []),
        (["--"], {}, []),
        (["cmd", "--ranks", "4"], {}, ["cmd", "--ranks", "4"]),
        (["--share", "cmd", "--", "x"], {"share": True}, ["cmd", "--", "x"]),
        (["--", "cmd", "--", "--ranks"], {}, ["cmd", "--", "--ranks"]),
        (["--", "--ranks", "3"], {}, ["--ranks", "3"]),
        (["--", "-x"], {}, ["-x"]),
        (["-n", "2", "--", "--", "x"], {"ranks": "2"}, ["--", "x"]),
        (["", "x"], {}, ["", "x"]),
        (["-", "x"], {}, ["-", "x"]),
        (["-1"], {}, ["-1"]),
        # the worker's own options, even when they are spelled like ours
        (["--numa-bind-nodes", "0", "--", "cmd", "--numa-bind-nodes", "5", "6"],
         {"numa_bind_nodes": ["0"]}, ["cmd", "--numa-bind-nodes", "5", "6"]),
        (["--share", "cmd", "-n4", "--help"], {"share": True}, ["cmd", "-n4", "--help"]),
    ],
)  # fmt: skip
def test_reads(args: list[str], values: dict[str, object], command: list[str]) -> None:
    """These arguments mean this."""
    assert parse(*args) == (values, command)


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["--rankz", "3"], "'--rankz' is not an option", "did you mean --rank?"),
        (["--numa-bind-cpus=0-3", "4-7", "--", "./w"],
         "--numa-bind-cpus= takes one value, and '4-7' follows it",
         "--numa-bind-cpus 0-3 4-7 ... -- COMMAND"),
        (["--numa-bind-nodes=0", "1", "./w"],
         "--numa-bind-nodes= takes one value, and '1' follows it",
         "--numa-bind-nodes 0 1 ... -- COMMAND"),
        (["--rankz=3"], "'--rankz' is not an option", "did you mean --rank?"),
        (["--numa-bind-node", "0"], "'--numa-bind-node' is not an option",
         "did you mean --numa-bind-nodes?"),
        (["--no-share"], "'--no-share' is not an option", "did you mean --share?"),
        (["--qqq", "cmd"], "'--qqq' is not an option",
         "the worker's own options follow its command; see ompbind show --help"),
        (["--a\nb"], "'--a\\nb' is not an option",
         "the worker's own options follow its command; see ompbind show --help"),
        (["--rank", "--x"], None, None),
        (["--ranks"], "--ranks needs a value", "--ranks N"),
        (["-n"], "-n needs a value", "--ranks N"),
        (["-n", "--", "cmd"], "-n needs a value", "--ranks N"),
        (["--near", "-n", "2"], "--near needs a value", "--near DEVICE"),
        (["--near", "--mem=bind"], "--near needs a value", "--near DEVICE"),
        (["--places"], "--places needs a value",
         "--places threads|cores|l3|numa|one|wide"),
        (["--places", "core"], "--places: 'core' is not one of threads, cores, l3, numa, one, wide",
         "did you mean cores?"),
        (["--places="], "--places: '' is not one of threads, cores, l3, numa, one, wide", ""),
        (["--per", "Ω"], "--per: 'Ω' is not one of numa, package, l3, core, gpu, accel, nic, "
         "die, cluster, l2, book, drawer", ""),
        (["--near="], "--near: an empty value", "--near DEVICE"),
        (["--topology", ""], "--topology: an empty value", "--topology PATH"),
        (["--share=1"], "--share takes no value, got '1'", "leave the value out: --share"),
        (["--numa-bind=0,1"], "--numa-bind takes no value, got '0,1'", "--numa-bind-nodes 0,1"),
        (["--no-rank-env=1"], "--no-rank-env takes no value, got '1'",
         "leave the value out: --no-rank-env"),
        (["--no-pools=false"], "--no-pools takes no value, got 'false'", "--pools"),
        (["--numa-bind=no"], "--numa-bind takes no value, got 'no'", "leave --numa-bind out"),
        (["--pools=no"], "--pools takes no value, got 'no'", "--no-pools"),
        (["--numa-bind", "0", "1", "--", "w"], "--numa-bind takes no value, and '0' follows it",
         "--numa-bind-nodes 0 1"),
        (["-n", "2", "3", "--", "w"], "-n takes one value, and '3' follows it", "leave 3 out"),
        (["--cores-per-rank", "2", "3", "4", "--", "w"],
         "--cores-per-rank takes one value, and '3' follows it", "--cores-per-rank 2,3,4"),
        (["--exclude=0", "8", "--", "w"], "--exclude takes one value, and '8' follows it",
         "--exclude 0,8"),
        (["--numa-bind-nodes"], "--numa-bind-nodes needs at least one value",
         "--numa-bind-nodes NODE..."),
        (["--numa-bind-nodes", "--", "cmd"], "--numa-bind-nodes needs at least one value",
         "--numa-bind-nodes NODE..."),
        (["--numa-bind-cpus", "--share"], "--numa-bind-cpus needs at least one value",
         "--numa-bind-cpus CPUS..."),
    ],
)  # fmt: skip
def test_refuses(args: list[str], message: str | None, hint: str | None) -> None:
    """What is wrong is said with the option's name, and the nearest right one."""
    if message is None:  # --rank takes any value, an option's name only after =
        assert parse(*args)[0] == {"rank": "--x"}
        assert parse("--rank=--share")[0] == {"rank": "--share"}
        return
    with pytest.raises(UsageError) as e:
        parse(*args)
    assert (e.value.message, e.value.hint) == (message, hint)
    assert e.value.status == 125


@pytest.mark.parametrize("short", ["-x", "-xn4", "-N", "-é"])
def test_unknown_short_options_are_refused(short: str) -> None:
    """A short option that nobody knows is no command, and joined values do not hide it."""
    with pytest.raises(UsageError, match="is not an option"):
        parse(short)


def test_a_varied_option_may_have_its_dashes() -> None:
    """The value of --vary is the name of an option, with its values."""
    values, command = parse_arguments(["--vary", "--smt=1,all", "--", "w"], options_of("compare"))
    assert (values["vary"], command) == (["--smt=1,all"], ["w"])


def test_an_optional_value_follows_an_equals_sign() -> None:
    """The word after --watch is never its value."""
    options = options_of("verify")
    assert parse_arguments(["--watch", "7"], options) == ({"watch": ""}, ["7"])
    assert parse_arguments(["--watch=3", "7"], options) == ({"watch": "3"}, ["7"])


def test_commands_take_their_own_options_only() -> None:
    """--format is for show; run does not know it."""
    with pytest.raises(UsageError, match="'--format' is not an option"):
        parse_arguments(["--format", "json"], options_of("run"))


WORD = st.text(
    st.characters(codec="utf-8") | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
)
OURS = st.sampled_from(
    [[], ["-n", "4"], ["--share"], ["--numa-bind-nodes", "0", "1"], ["--per=numa", "--template"]]
)


@given(OURS, st.lists(WORD | st.sampled_from(["--", "-n", "--ranks", "--help", "", "-1"])))
def test_the_worker_keeps_its_arguments(ours: list[str], worker: list[str]) -> None:
    """All that follows the first -- comes out as it went in, and changes nothing before it."""
    alone, none = parse(*ours)
    assert none == []
    assert parse(*ours, "--", *worker) == (alone, worker)


@given(
    st.lists(WORD | st.sampled_from(["--", "-n", "--ranks", "--share", "--numa-bind-cpus", "1"]))
)
def test_garbage_is_read_or_refused(args: list[str]) -> None:
    """Any arguments are either read, none lost after the command's start, or a UsageError."""
    try:
        _, command = parse(*args)
    except UsageError:
        return
    assert args[len(args) - len(command) :] == command


# --- one table, two readers ----------------------------------------------------------------------


def typer_options(command: str) -> dict[str, Any]:
    """What typer knows, by key."""
    group: Any = get_command(make_app())
    known = group.commands[command].params
    return {p.name: p for p in known if p.param_type_name == "option" and p.name != "help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_typer_and_our_parser_know_the_same_options(command: str) -> None:
    """Both readers are made from one table: the same names, kinds and keys."""
    known = typer_options(command)
    assert set(known) == {o.key for o in options_of(command)}
    for option in options_of(command):
        theirs = known[option.key]
        assert set(theirs.opts) == set(option.names)
        assert theirs.secondary_opts == ([f"--no-{option.names[0][2:]}"] if option.no else [])
        assert theirs.is_flag == (option.kind == "flag")
        assert theirs.multiple == (option.kind == "list" or option.many)


@pytest.mark.parametrize("command", COMMANDS)
def test_our_parser_reads_every_option(command: str) -> None:
    """Each option of a command is read under its every name; others' are refused."""
    own = options_of(command)
    for option in own:
        value = {"value": [*option.choices, "1"][:1], "list": ["1"]}.get(option.kind, [])
        wanted = {"flag": True, "list": ["1"]}.get(option.kind, "".join(value))
        wanted = [wanted] if option.many else wanted
        for name in option.names:
            read = parse_arguments([name, *value, "--", "cmd"], own)
            assert read == ({option.key: wanted}, ["cmd"])
    for name in {n for o in OPTIONS for n in o.names} - {n for o in own for n in o.names}:
        with pytest.raises(UsageError):
            parse_arguments([name, "1", "--", "cmd"], own)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda o: f"{o.commands[0]}-{o.key}")
def test_every_option_is_explained(option: Option) -> None:
    """An option has a help text without a full stop, and what takes a value names it."""
    assert option.help[0].isupper()
    assert not option.help.endswith(".")
    assert (option.kind == "flag") == (option.value == "")
    if option.choices and option.metavar:  # too many to be listed, or too long for a line of help
        assert len(option.choices) > 10 or len("|".join(option.choices)) > 55
    assert option.commands
    assert option.names[0].startswith("--")


@pytest.mark.parametrize(
    "option",
    [o for o in OPTIONS if o.kind in ("value", "list")],
    ids=lambda o: f"{o.commands[0]}-{o.key}",
)
def test_no_option_takes_an_empty_value(option: Option) -> None:
    """An unset variable of a script is refused where it was typed, not where it would be used: an
    empty name of a file would be an error after all has been measured."""
    with pytest.raises(OmpbindError) as e:
        read_arguments([option.names[0], "", "--", "cmd"], option.commands[0])
    assert e.value.message.startswith((f"{option.names[0]}: ", f"{option.names[0]}, rank 0: "))


def test_a_number_after_an_option_whose_value_may_be_left_out() -> None:
    """It is meant as the value, where the command follows after --, and is no command."""
    run = options_of("run")
    with pytest.raises(UsageError, match=r"^--wait takes its value after =, and '5' follows") as e:
        parse_arguments(["--wait", "5", "--", "w"], run)
    assert e.value.hint == "--wait=5"
    assert parse_arguments(["--wait", "env", "--", "w"], run) == ({"wait": ""}, ["env", "--", "w"])
    assert parse_arguments(["--wait=5", "7", "--", "w"], run)[1] == ["7", "--", "w"]
