"""Options beside one another: those that contradict each other, and those without effect."""

from __future__ import annotations

import pytest

from ompbind.errors import PlanError, UsageError
from ompbind.launch import Settings
from ompbind.options import PlanOptions, make_settings, read_arguments
from ompbind.options.commands import OPTIONS, options_of
from ompbind.options.keywords import in_keywords, name_keywords
from ompbind.options.table import LAUNCH, Option
from ompbind.options.values import parse_seconds, parse_whole_count
from ompbind.planner.request import Request
from ompbind.record import Record
from ompbind.worker.environment import Variables

RECORDS: dict[str, type[Record]] = {
    "request": Request,
    "settings": Settings,
    "variables": Variables,
    "plan": PlanOptions,
}


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        ("-n 2 --gpu-domain package", "--gpu-domain package is for ranks by GPU",
         "--per gpu makes them"),
        ("--gpu-domain numa", "--gpu-domain numa is for ranks by GPU", "--per gpu makes them"),
        ("--numa-bind-nodes 0 1 --distribution cyclic",
         "--distribution cyclic and a list of nodes or cpus both say where ranks go",
         "leave one of them out"),
        ("--numa-bind-cpus 0-3 --numa-bind --distribution cyclic",
         "--distribution cyclic and a list of nodes or cpus both say where ranks go",
         "leave one of them out"),
        ("--per numa -n 4 --share --cores-per-rank 1",
         "--share gives each rank a whole domain, --cores-per-rank only some cores of it",
         "leave one of them out"),
        ("--numa-bind-cpus 0-3 --numa-bind-nodes 0 --mem none",
         "--numa-bind-nodes names the memory of --numa-bind-cpus, --mem none is for no node",
         "leave one of them out"),
        ("--runtime libgomp --places one",
         "--runtime libgomp is for choosing --places, and --places leaves no choice",
         "leave one of them out"),
        ("--neighbours --topology x",
         "--neighbours looks at the launches of this machine, --topology is another",
         "leave one of them out"),
    ],
)  # fmt: skip
def test_no_option_is_ignored_in_silence(args: str, message: str, hint: str) -> None:
    """An option that another one leaves without effect is refused."""
    with pytest.raises(PlanError) as e:
        read_arguments(args.split(), "show")
    assert (e.value.message, e.value.hint, e.value.status) == (message, hint, 125)


@pytest.mark.parametrize(
    "args",
    [
        "--per gpu --gpu-domain package",
        "--per numa --distribution cyclic",
        "--numa-bind -n 4 --distribution cyclic",
        "--numa-bind-nodes 0 1 --distribution block",
        "--cores-per-rank 2 --reserve 0",
        "--numa-bind-cpus 0-3 --numa-bind-nodes 0 --mem bind",
        "--no-neighbours --topology x",
        "--share --oversubscribe",
        "--fix a --no-fix-children",
        "--runtime auto --places one",
    ],
)
def test_what_goes_together(args: str) -> None:
    """Options that only look as if they contradicted each other."""
    read_arguments(args.split(), "show")


# What stands beside a group's request.
GROUPED = ("file", "after", "ready", "background")


def option_id(option: Option) -> str:
    return f"{option.commands[0]}-{option.key}"


@pytest.mark.parametrize("option", OPTIONS, ids=option_id)
def test_every_field_exists(option: Option) -> None:
    """What an option gives is a field of a record; what no record takes, a command reads."""
    for field in option.fields:
        record, _, name = field.partition(".")
        assert name in RECORDS[record]._fields
    launched = {"run", "show"} & set(option.commands)
    if not option.fields:
        assert not launched or option.key in (
            "format", "rank", "explain", "hosts", "svg", "html", *GROUPED
        )  # fmt: skip


def test_a_launch_reads_its_own_rows() -> None:
    """The table of launches has each option of `run`, and what others have means nothing to a plan:
    so a launch is made from that table alone."""
    assert options_of("run") == LAUNCH
    for option in OPTIONS[len(LAUNCH) :]:
        assert not any((option.fields, option.keyword_of, option.places_ranks, option.watched))


def test_every_field_has_its_option() -> None:
    """The records hold nothing that cannot be asked for, but what is found out about the machine,
    the command and the environment."""
    given = {field for option in OPTIONS for field in option.fields}
    found = {"request.places_why", "request.omp_why", "request.place_list", "request.limit",
             "request.visible", "request.cards", "request.inherited", "request.command",
             "request.serving", "request.world", "request.by_thread", "request.only", "plan.found",
             "settings.watched", "settings.warming", "settings.may_switch", "settings.prove",
             "settings.announce", "variables.fixes", "variables.read",
             "plan.request", "plan.variables"}  # fmt: skip
    known = {f"{key}.{name}" for key, record in RECORDS.items() for name in record._fields}
    assert known == given | found


@pytest.mark.parametrize("option", OPTIONS, ids=option_id)
def test_rules_name_options(option: Option) -> None:
    """The terms of rules are options of the same command, with values that they have."""
    for command in option.commands:
        others = {o.key: o for o in OPTIONS if command in o.commands}
        rules = [*option.excludes, *option.needs]
        for term in [t for rule in rules for t in (*rule.terms, rule.beside) if t]:
            key, equals, value = term.partition("=")
            assert key in others
            assert not equals or value in others[key].choices
        for rule in rules:
            choices = option.choices or ("True", "False")
            assert set(rule.when) <= set(choices)
        assert set(option.yields_to) <= set(others)


@pytest.mark.parametrize("option", OPTIONS, ids=option_id)
def test_only_some_options_fit_a_saved_plan(option: Option) -> None:
    """The others are refused beside --plan."""
    if not {"run", "show"} & set(option.commands) or option.key == "plan":
        return
    words = {"flag": [], "optional": [], "list": ["0"]}.get(option.kind, [*option.choices, "1"][:1])
    named = {"env": ["A=1"], "part": ["1/2"], "role": ["kv=1"], "engine": ["slurm"],
             "group": ["a"], "after": ["a"], "mem_need": ["1G"]}  # fmt: skip
    words = named.get(option.key, words)
    more = {"overwrite": ["--output-dir", "x"], "fix_children": ["--fix", "x"],
            "wait": ["--exclusive"]}  # fmt: skip
    args = ["--plan", "saved.json", option.names[0], *words, *more.get(option.key, [])]
    if option.on_saved_plan:
        read_arguments(args, option.commands[0])
        return
    with pytest.raises(UsageError, match=f"^{option.names[0]} has no effect on a saved plan$"):
        read_arguments(args, option.commands[0])


@pytest.mark.parametrize(
    ("args", "watched"),
    [
        ("", False),
        ("--output inherit", False),
        ("--output tag", True),
        ("--grace 1", True),
        ("--leave-children", True),
        ("--verbose", True),
        ("--report x", True),
        ("--report-bindings", False),
        ("--quiet", False),
        ("--verify", True),
        ("--verify=3", True),
        ("--verify-strict", True),
        ("--on-failure keep", False),
        ("--output-dir x", False),
    ],
)
def test_which_options_keep_a_parent(args: str, watched: bool) -> None:
    """A single rank replaces this process, unless something is to be done when it exits."""
    values, _ = read_arguments(args.split(), "run")
    assert make_settings(values).watched == watched


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("--ranks: 0 is too few", "ranks: 0 is too few"),
        ("--per gpu: no GPU was found", 'per="gpu": no GPU was found'),
        ("--no-rank-env and --numa-bind, or (--numa-bind-nodes)",
         "rank_env=False and numa_bind, or (numa_bind_nodes)"),
        ("at most 3 there, or -n 3", "at most 3 there, or ranks=3"),
        ("with --cores-per-rank 2; see ompbind show --places cores",
         "with cores_per_rank=2; see ompbind show --places cores"),
        ("ompbind run --fix list prints them; --fix auto",
         "ompbind run --fix list prints them; fix auto"),
        ("numactl --membind=0 fails", "numactl --membind=0 fails"),
        ("--mem none binds cpus only", 'mem="none" binds cpus only'),
        ("--plan 'x.json': not UTF-8 text", "plan 'x.json': not UTF-8 text"),
        ("no option here", "no option here"),
    ],
)  # fmt: skip
def test_messages_name_keywords(text: str, keywords: str) -> None:
    """In Python an option is its keyword; command lines in messages stay as they are."""
    assert name_keywords(text) == keywords


def test_a_flag_in_a_hint_is_a_keyword_to_give() -> None:
    """What to write, not what was written."""
    error = in_keywords(UsageError("no room", hint="--share lets ranks overlap", option="--share"))
    assert (error.message, error.hint) == ("no room", "share=True lets ranks overlap")
    assert (str(error), error.data) == ("no room", {"option": "share"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("0.5", 0.5), ("90", 90.0), ("10s", 10.0), ("1.5m", 90.0), ("2h", 7200.0)],
)
def test_seconds_may_have_a_unit(text: str, seconds: float) -> None:
    """With --grace, --wait and --verify as with compare's times."""
    assert parse_seconds(text, "--grace") == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1e3m", "10 m", "1ms", "1d", "2H", "9" * 20 + "h"]
)
def test_no_number_of_seconds(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number of seconds"):
        parse_seconds(text, "--grace")


def test_a_number_without_a_limit_names_none() -> None:
    """What 64 bits hold is nobody's business."""
    with pytest.raises(UsageError) as raised:
        parse_whole_count("-1", "--warmup")
    assert raised.value.message == "--warmup: '-1' is not a whole number from 0"
    assert parse_whole_count(str(1 << 40), "--seed") == 1 << 40
