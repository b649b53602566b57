"""What can be asked, and the way from arguments to values: the request and settings of a command.

What is not on the way of each launch (keywords of Python, another tool's variables, the
conflicts between options, hints) is in modules beside this one; a file costs every start. What
only plans need is imported where one is asked for: `topo` and help make none.
"""

from __future__ import annotations

from ompbind.errors import ParseError, UsageError
from ompbind.messages import quote
from ompbind.options.table import LAUNCH
from ompbind.options.values import FENCE_HINT, is_word
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ompbind.engines import Found
    from ompbind.launch import Settings
    from ompbind.options.table import Option
    from ompbind.options.values import Values
    from ompbind.planner.request import Request, Serving
    from ompbind.plans import Inherited
    from ompbind.worker.environment import Variables

    Texts = dict[str, "str | bool | list[str]"]  # as typed, by the option's key


# Of each engine, a variable that all of its ranks have.
ENGINE_MARKERS = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "PALS_RANKID",
                  "MV2_COMM_WORLD_RANK", "FLUX_TASK_RANK", "JSM_NAMESPACE_RANK",
                  "TORCHELASTIC_RUN_ID")  # fmt: skip


class PlanOptions(Record):
    """What a plan is made from, besides the machine. `topology`: the path of another machine;
    `measured`: of a file that has what topo --measure found;
    `saved`: of a saved plan, for which the request has no more than the command, and
    `saved_variables`: whether that gets all variables of the plan; `from_env`: the tool whose
    variables the request follows; `serve`: the engine whose server's workers the request is for;
    `inherited`: what to do with an inherited restriction; `neighbours`: whether to look for other
    launches, None where neither way was asked for; `exclusive`: whether they may hold none of the
    plan's cpus, and `wait`: the seconds to wait for cpus that nobody holds, None for not at all;
    `variables`: what the workers' environment gets, None for nothing; `preload`: the names or paths
    of libraries to preload; `warm`: the files to read into memory before; `pools`: whether thread
    pools beside OpenMP's get as many threads, None for where a quota limits these; `huge_pages`:
    those of --huge-pages; `fixes`: their names, with commas; `fix_children`: whether they reach the
    workers' children, None for not asked for;
    `rank`: the only rank to start, a number or the variable that holds it and what that counts
    from; `engine`: the name of the engine, or `none`; `within`: what to plan under it; `found`: the
    engine's rank that this process is, None where nothing was looked for."""

    request: Request
    topology: str | None = None
    measured: str | None = None
    saved: str | None = None
    saved_variables: bool = False
    from_env: str | None = None
    serve: str | None = None
    inherited: str = "intersect"
    neighbours: bool | None = None
    exclusive: bool = False
    wait: float | None = None
    variables: Variables | None = None
    preload: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()
    pools: bool | None = None
    huge_pages: str = ""
    fixes: str | None = None
    fix_children: bool | None = None
    verbose: bool = False
    quiet: bool = False
    rank: int | tuple[str, int | None] | None = None
    engine: str | None = None
    within: str = ""
    found: Found | None = None


def read_arguments(args: Sequence[str], command: str) -> tuple[Values, list[str]]:
    """Return the values of a command's options, checked one by one and together, and the words that
    follow them. Raises UsageError, ParseError, PlanError."""
    options: Sequence[Option] = LAUNCH
    if command != "run":
        from ompbind.options.commands import options_of

        options = options_of(command)
    texts, rest = parse_arguments(args, options)
    return make_typed_values(texts, options, args), rest


def make_typed_values(texts: Texts, options: Sequence[Option], args: Sequence[str]) -> Values:
    """Return the values of options that were typed in a command line. Raises as make_values."""
    try:
        return make_values(texts, options)
    except ParseError as e:
        if e.hint == FENCE_HINT:
            from ompbind.options.foreign import hint_for_list, is_foreign_list

            text = str(e.data.get("text", ""))
            if "--" in args or is_foreign_list(text):  # the command is marked, or it is no command
                e.hint = hint_for_list(text)
        raise


def make_values(texts: Texts, options: Sequence[Option]) -> Values:
    """Return the values of options that were typed. Raises UsageError, ParseError, PlanError."""
    rows = {o.key: o for o in options}
    values: Values = {}
    for key, text in texts.items():
        parse = rows[key].parse
        values[key] = text if parse is None else parse(text, rows[key].names[0])
    if values:
        from ompbind.options.together import check_together

        check_together(values, options)
    return values


def make_plan_options(
    values: Values, command: Sequence[str], environ: Mapping[str, str]
) -> PlanOptions:
    """Return what a plan is made from. Raises OmpbindError."""
    names: dict[str, str] = {}
    notes: tuple[Inherited, ...] = ()
    serving: Serving | None = None
    if "from_env" in values or "serve" in values:
        from ompbind.options.servers import with_workers

        values, names, notes, serving = with_workers(values, command, environ)
    found = None
    if is_under_engine(values, environ):
        from ompbind.engines import find_rank

        found = find_rank(values.get("rank"), values.get("engine"), environ)
        if not found.user_threads:
            from ompbind.engines import explain_threads

            notes = (*notes, explain_threads(found, environ))
            environ = {k: v for k, v in environ.items() if k != notes[-1].name}
    if "plan" in values:
        from ompbind.planner.request import Request

        request = Request(command=tuple(command), **fields_of("request", values))
    else:
        request = make_request(values, command, environ, names)
    if notes or serving:
        inherited = (*notes, *request.inherited)
        request = request.replace(inherited=inherited, serving=serving)
    fields = fields_of("plan", values)
    if "threads" in values and "pools" not in values:
        fields["pools"] = request.omp == "all" or "omp" in values or None
    return PlanOptions(
        request=request, variables=make_variables(values), found=found, **fields,
    )  # fmt: skip


def is_under_engine(values: Values, environ: Mapping[str, str]) -> bool:
    """Whether an engine may have started this process, or options speak of one: only then is the
    package that knows engines loaded. Another machine has none of this one's."""
    if "rank" in values or values.get("engine", "none") != "none":
        return True
    elsewhere = "topology" in values or "hosts" in values
    return not elsewhere and any(name in environ for name in ENGINE_MARKERS)


def make_request(
    values: Values,
    command: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Request:
    """Return what is asked of a plan, by options and the inherited environment. `names`: what asks
    for a value that no option asks for, by the key of the option that it stands for."""
    from ompbind.openmp import judge_environment
    from ompbind.planner.request import Request

    given = {
        key: f"{(names or {}).get(key, '--' + key.replace('_', '-'))} is given" for key in values
    }
    if placing := next((o.key for o in rows_of(values) if o.places_ranks), None):
        given["place_list"] = given[placing]
    fields = fields_of("request", values)
    fields["omp"], fields["omp_why"] = choose_omp(values, command)
    inherited = judge_environment(environ or {}, given, fields["omp"])
    for name in ("places", "proc_bind", "threads"):
        wish = getattr(inherited, name)
        if wish is not None:
            fields[name] = wish
    if "places" in fields:
        fields["places_why"] = given.get("places", "OMP_PLACES is set")
    if "nodes" in fields:
        fields["numa_bind"] = True
    if (sizes := fields.get("cores_per_rank", ()))[1:]:
        fields.setdefault("ranks", len(sizes))
    return Request(
        limit=inherited.limit,
        place_list=inherited.place_list,
        inherited=inherited.inherited,
        command=tuple(command),
        **fields,
    )


def choose_omp(values: Values, command: Sequence[str]) -> tuple[str, str]:
    """Return which of OpenMP's variables are set, and why where the default is not the reason. A
    program that binds its workers itself is left to do so, unless an option is about OpenMP."""
    if "omp" in values:
        return values["omp"], "--omp is given"
    if "serve" in values:
        mode = "threads" if "threads" in values else "off"
        return mode, "the server binds its workers itself, by this plan"
    from ompbind.worker import may_bind_workers

    if not may_bind_workers(command) or "places" in values or "proc_bind" in values:
        return "all", ""
    from ompbind.worker.launchers import find_launch

    launch = find_launch(command)
    if launch is None:
        return "all", ""
    why = f"{launch.launcher.name} {launch.launcher.how}"
    return ("threads", f"{why}, and --threads is given") if "threads" in values else ("off", why)


def make_settings(values: Values) -> Settings:
    """Return how ranks are started, watched and ended."""
    from ompbind.launch import Settings

    watched = any(is_watched(row, values[row.key]) for row in rows_of(values))
    may_switch = "plan" not in values and values.get("binder", "auto") == "auto"
    return Settings(watched=watched, may_switch=may_switch, **fields_of("settings", values))


def is_watched(option: Option, value: object) -> bool:
    """Whether an option makes a single rank one that is watched over."""
    return option.watched if isinstance(option.watched, bool) else value in option.watched


def make_variables(values: Values) -> Variables | None:
    """Return what the workers' environment gets, None where nothing is asked for."""
    if not any(key in values for key in ("env", "env_file", "master_port", "master_addr")):
        return None
    from ompbind.worker.environment import Variables

    return Variables(fixes="fix" in values, **fields_of("variables", values))


def fields_of(record: str, values: Values) -> dict[str, Any]:
    """Return the fields of a record that these options give."""
    start = f"{record}."
    return {
        field[len(start) :]: values[row.key]
        for row in rows_of(values)
        for field in row.fields
        if field.startswith(start)
    }


def rows_of(values: Values) -> list[Option]:
    """Return the rows of these values; what only other commands take means nothing to a plan."""
    rows = {o.key: o for o in LAUNCH}
    return [rows[key] for key in values if key in rows]


# --- the parser of the command line --------------------------------------------------------------


def parse_arguments(args: Sequence[str], options: Sequence[Option]) -> tuple[Texts, list[str]]:
    """What was given by option key (a text; a bool for a flag; a list of texts for a list option),
    and the worker's command: all after `--`, or from the first argument that is no option's.

    A list option takes every value up to the next option or `--`. A repeated list option adds to
    itself, as does a value option with `adds` or `many`; any other takes its last value. Raises
    UsageError.
    """
    by_name = {name: o for o in options for name in o.names}
    by_name |= {f"--no-{o.names[0][2:]}": o for o in options if o.no}
    values: Texts = {}
    swallowed = False  # whether the last option was a list that took words for its values
    last: tuple[str, str | None, Option] | None = None  # as typed, with its value
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return values, rest
        if not looks_like_option(word):
            if last and word[:1].isdecimal() and not is_word(word.replace(".", "")):
                from ompbind.options.foreign import check_first_word

                check_first_word([word, *rest], *last, options)
            return values, [word, *rest]
        name, value = split_word(word, by_name)
        option = by_name.get(name)
        if option is None:
            if value is None and rest and not looks_like_option(rest[0]) and rest[0] != "--":
                value = rest[0]
            raise unknown_option(name, options, FENCE_HINT if swallowed else "", value or "")
        swallowed, last = False, (name, value, option)
        if option.kind == "flag":
            if value is not None:
                from ompbind.options.foreign import hint_for_flag

                hint = hint_for_flag(name, value, option, options)
                raise UsageError(
                    f"{name} takes no value, got {quote(value)}", hint=hint, option=name
                )
            values[option.key] = name in option.names
        elif option.kind == "optional":
            values[option.key] = value or ""
        elif option.kind == "value":
            names = {} if option.of_option else by_name
            if value is None and (not rest or rest[0] == "--" or is_name(rest[0], names)):
                raise UsageError(f"{name} needs a value", hint=hint_of(option), option=name)
            text = check_text(option, rest.pop(0) if value is None else value, option.names[0])
            last = (name, text, option)
            before = values.get(option.key)
            if option.many:
                values[option.key] = [*(before if isinstance(before, list) else ()), text]
            else:
                adds = option.adds and isinstance(before, str)
                values[option.key] = f"{before},{text}" if adds else text
        else:
            texts = [] if value is None else [value]
            while value is None and rest and not looks_like_option(rest[0]) and rest[0] != "--":
                texts.append(rest.pop(0))
            if not texts:
                raise UsageError(
                    f"{name} needs at least one value", hint=hint_of(option), option=name
                )
            swallowed = any(map(is_word, texts))
            earlier = values.get(option.key)
            values[option.key] = (earlier if isinstance(earlier, list) else []) + texts
    return values, []


def looks_like_option(word: str) -> bool:
    """-n and --ranks do; -1 is a (bad) number, and a lone - is a word."""
    return word.startswith("-") and word != "-" and not word[1:2].isdigit()


def is_name(word: str, by_name: dict[str, Option]) -> bool:
    """Whether this is an option where a value should be: `-n` or `--mem=bind` after --report. As a
    value such a word can be given after `=`."""
    return word in by_name or (word.startswith("--") and word.partition("=")[0] in by_name)


def split_word(word: str, by_name: dict[str, Option]) -> tuple[str, str | None]:
    """Return the option's name and the value in the same word: `--ranks=4` and `-n4` have one,
    `--ranks` and `-n` do not."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    name, value = word[:2], word[2:]
    if not value:
        return name, None
    if value[0].isalpha():  # another tool's: mpirun's -np, MPICH's -ppn
        name, equals, value = word.partition("=")
        return name, value if equals else None
    return name, value.removeprefix("=")


def check_text(option: Option, value: str, name: str) -> str:
    """Return a value that is one of the option's choices, if it has any; one that no parser will
    judge, as a path or a command, is not empty. Raises UsageError."""
    if not value and not option.choices and option.parse is None:
        raise UsageError(f"{name}: an empty value", hint=hint_of(option), option=name)
    if option.choices and value not in option.choices:
        from ompbind.options.foreign import hint_for_value

        raise UsageError(
            f"{name}: {quote(value)} is not one of {', '.join(option.choices)}",
            hint=hint_for_value(option, value),
            option=name,
        )
    return value


def hint_of(option: Option) -> str:
    return f"{option.names[0]} {option.value}"


def unknown_option(name: str, options: Sequence[Option], hint: str, value: str) -> UsageError:
    if not hint:
        from ompbind.options.foreign import hint_for_option

        hint = hint_for_option(name, options, value)
    return UsageError(f"{quote(name)} is not an option", hint=hint, option=name)
