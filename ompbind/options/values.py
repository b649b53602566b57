"""The values of options: a parser for each kind of value.

A parser takes a text as it was typed, or what a Python program gave in its place (a number, a
CpuSet, a pair of name and value), and the name to use in messages. It returns the value that the
program works with; it raises UsageError or ParseError for one that cannot be, and TypeError for
one of a wrong type.
"""

from __future__ import annotations

from ompbind.cpuset import LIMIT, CpuSet, parse_range, parse_whole
from ompbind.errors import ParseError, UsageError
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ompbind.planner.request import Need, Pool

    Values = dict[str, Any]  # of the options that are given, by key
    Given = str | int | float | CpuSet  # one value: a text, or what a Python program gave
    Pair = tuple[str, Given]

FENCE_HINT = "put -- between the values and the worker's command"
LONGEST = 1e9  # seconds: what a timer of the system surely takes
UNLIMITED = 1 << 63  # a number that only its 64 bits limit


# --- numbers -------------------------------------------------------------------------------------


def parse_number(
    value: Given, name: str, least: int, most: int = LIMIT - 1, word: str = "", hint: str = ""
) -> int:
    """Return a whole number from `least` to `most`; the message has the `word` that may stand for
    one, if any. Raises UsageError."""
    number = value if isinstance(value, int) else parse_whole(text_of(value, name))
    if number is not None and least <= number <= most:
        return number
    either = f"is neither {word} nor" if word else "is not"
    raise UsageError(
        f"{name}: {written(value)} {either} a whole number from {least}"
        + (f" to {most}" if most < UNLIMITED else ""),
        hint=hint,
        option=name,
        text=str(value),
    )


def parse_count(value: Given, name: str) -> int:
    return parse_number(value, name, 1)


def parse_whole_count(value: Given, name: str) -> int:
    return parse_number(value, name, 0, UNLIMITED)


def parse_sizes(value: Given, name: str) -> tuple[int, ...]:
    """Return the numbers of `4` or `4,8,8`. Raises UsageError."""
    if isinstance(value, int):
        return (parse_number(value, name, 1),)
    return tuple(parse_number(part, name, 1) for part in text_of(value, name).split(","))


def parse_threads(value: Given, name: str) -> str:
    """Return the text of OMP_NUM_THREADS, or `cores`. Raises UsageError."""
    if value == "cores":
        return "cores"
    hint = f"leave {name} out for a thread for each place" if " " not in name else ""
    return str(parse_number(value, name, 1, word="cores", hint=hint))


def parse_smt(value: Given, name: str) -> int | None:
    """Return the number of hardware threads of a core, None for `all`. Raises UsageError."""
    hint = "1 uses one hardware thread of each core, all uses every one"
    return None if value == "all" else parse_number(value, name, 1, word="all", hint=hint)


def parse_part(value: Given, name: str) -> tuple[int, int]:
    """Return `1/2` as two numbers: the first of two parts; of `auto/2` the first is 0. Raises
    UsageError."""
    part, _, count = text_of(value, name).partition("/")
    numbers = 0 if part == "auto" else parse_whole(part) or -1, parse_whole(count)
    if numbers[1] is None or not 0 <= numbers[0] <= numbers[1] < LIMIT or not numbers[1]:
        raise UsageError(
            f"{name}: {written(value)} is not I/N with I from 1 to N, nor auto/N",
            hint="--part 1/2 and --part 2/2 are the halves of the machine",
            option=name,
            text=str(value),
        )
    return numbers[0], numbers[1]


def parse_seconds(value: Given, name: str) -> float:
    """Return the seconds of `0.5`, `90`, `90s`, `10m` or `2h`, 0 or more. Raises UsageError."""
    text = text_of(value, name)
    factor = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    text = text if factor is None else text[:-1]
    whole, point, fraction = text.partition(".")
    digits = whole + fraction
    good = digits.isascii() and digits.isdigit() and len(text) <= 20 and bool(fraction or not point)
    seconds = float(text) * (factor or 1) if good else 0.0
    if not good or seconds > LONGEST:
        raise UsageError(
            f"{name}: {written(value)} is not a number of seconds",
            hint="a number such as 10 or 0.5, or 10m or 2h",
            option=name,
        )
    return seconds


def parse_duration(value: Given, name: str) -> float:
    """Return seconds as `parse_seconds` does, more than 0. Raises UsageError."""
    seconds = parse_seconds(value, name)
    if not seconds:
        raise UsageError(f"{name}: {written(value)} is no time", hint="90, 10m or 2h", option=name)
    return seconds


def parse_timeout(value: Given, name: str) -> float:
    """Return the seconds of --verify, by default as many as it takes itself. Raises UsageError."""
    if value == "":
        from ompbind.verify.after_start import SECONDS

        return SECONDS
    return parse_seconds(value, name)


def parse_wait(value: Given, name: str) -> float:
    """Return the seconds of --wait, by default as long as it takes. Raises UsageError."""
    return float("inf") if value == "" else parse_seconds(value, name)


def parse_interval(value: Given, name: str) -> float:
    """Return the seconds between two reports, by default 2. Raises UsageError."""
    seconds = 2.0 if value == "" else parse_seconds(value, name)
    if seconds < 0.05:
        raise UsageError(f"{name}: {written(value)} is too often", hint="0.05 seconds or more")
    return seconds


def parse_port(value: Given, name: str) -> int | str:
    """Return `auto` or a port's number. Raises UsageError."""
    if value == "auto":
        return "auto"
    port = value if isinstance(value, int) else parse_whole(text_of(value, name))
    if port is None or not 0 < port < 65536:
        raise UsageError(
            f"{name}: {written(value)} is not a port from 1 to 65535",
            hint="auto takes one that is free",
            option=name,
        )
    return port


def parse_engine(value: Given, name: str) -> str:
    """Return an engine's name, or `none`. Raises UsageError."""
    from ompbind.engines import names

    text = text_of(value, name)
    if text not in (*names(), "none"):
        raise UsageError(
            f"{name}: {quote(text)} is not an engine that ompbind knows",
            hint=f"one of {', '.join(names())}; none for no engine",
            option=name,
        )
    return text


def parse_rank(value: Given, name: str) -> int | tuple[str, int | None]:
    """Return a rank's number, from 0; of `env:NAME-1` the variable and the number that it counts
    from, None where that is not said. Raises UsageError."""
    text = text_of(value, name)
    if text.startswith("env:"):
        variable, minus, first = text[4:].partition("-")
        start = parse_whole(first) if minus else None
        if variable.isascii() and variable.isidentifier() and (start is not None or not minus):
            return variable, start
    number = value if isinstance(value, int) else parse_whole(text)
    if number is not None and 0 <= number < LIMIT:
        return number
    raise UsageError(
        f"{name}: {written(value)} is neither a rank's number nor env:NAME",
        hint="--rank 0, --rank env:SLOT, or --rank env:SLOT-1 for a variable that counts from 1",
        option=name,
    )


def parse_stdin(value: Given, name: str) -> str:
    """Return a rank's number, as a text, `all` or `none`. Raises UsageError."""
    text = text_of(value, name)
    number = parse_whole(text)
    if text in ("all", "none"):
        return text
    if number is None:
        raise UsageError(
            f"{name}: {written(value)} is neither a rank's number nor all nor none",
            hint="--stdin 0 is the default",
            option=name,
        )
    return str(number)


# --- cores set aside -----------------------------------------------------------------------------


def parse_reserve(value: Given, name: str) -> Pool:
    """Return the pool of `2` or `2/rank`, which has no name. Raises UsageError."""
    return parse_pool("", value, name, 0)


def parse_need(value: Given, name: str) -> Need:
    """Return the memory of `40G` or `40G/rank`. Raises UsageError."""
    text = text_of(value, name)
    size, slash, each = text.partition("/")
    number = size.strip().upper().removesuffix("B").removesuffix("I")
    unit = {"K": 10, "M": 20, "G": 30, "T": 40}.get(number[-1:])
    whole, _, part = number[:-1].partition(".")
    plain = number.isascii() and whole.isdigit() and (part == "" or part.isdigit())
    if unit is None or not plain or len(number) > 12 or (slash and each != "rank"):
        raise UsageError(
            f"{name}: {written(value)} is not a size of memory",
            hint=f"a number and K, M, G or T: {name} 40G of all ranks together, 40G/rank of each",
            option=name,
            text=text,
        )
    need = int(float(f"{whole}.{part or 0}") * (1 << unit))
    if not need:
        raise UsageError(f"{name}: no memory", hint=f"leave {name} out", option=name)
    from ompbind.planner.request import Need

    return Need(need, per_rank=bool(slash))


def parse_free(value: Given, name: str) -> Pool:
    """Return the pool of `8` or `8/rank`, of at least one core. Raises UsageError."""
    return parse_pool("", value, name, 1)


def parse_pool(pool: str, value: Given, name: str, least: int) -> Pool:
    number, slash, each = text_of(value, name).partition("/")
    if slash and each != "rank":
        raise UsageError(
            f"{name}: {written(value)} is neither N nor N/rank",
            hint="N cores of all ranks together, or N/rank of each",
            option=name,
            text=str(value),
        )
    cores = parse_number(number if isinstance(value, str) else value, name, least)
    from ompbind.planner.request import Pool

    return Pool(pool, cores, per_rank=bool(slash))


def parse_roles(values: Sequence[Given | Pair], name: str) -> tuple[Pool, ...]:
    """Return the pools of `kv=2`, `kv=1/rank` or `io=2:pt_data*,nccl*` each, several also with
    commas. Raises UsageError."""
    pairs: list[tuple[str, Given, str]] = []  # a role, its cores, and how it was written
    for value in values:
        if isinstance(value, tuple):
            pairs.append((*value, f"{value[0]}={value[1]}"))
            continue
        for text in text_of(value, name).split(","):
            role, equals, cores = text.partition("=")
            if pairs and ":" in str(pairs[-1][1]) and not (equals and is_role(role)):
                last, wish, before = pairs.pop()  # one more name of its threads
                pairs.append((last, f"{wish},{text}", f"{before},{text}"))
            else:
                pairs.append((role if equals else "", cores, text))
    pools: dict[str, Pool] = {}
    for role, value, text in pairs:
        problem = hint = ""
        if not is_role(role):
            problem = f"{name}: {quote(text)} is not NAME=N or NAME=N/rank"
            hint = "a name has letters, digits and _ only, as in kv=2"
        elif role.upper() in pools:
            problem = f"{name}: {role} is named twice"
            hint = "one pool for each name; in OMPBIND_ROLE_... capitals and small letters are one"
        if problem:
            raise UsageError(problem, hint=hint, option=name, text=text)
        if isinstance(value, str) and ":" in value:
            from ompbind.options.patterns import parse_patterns

            cores, _, names = value.partition(":")
            patterns = parse_patterns(names, f"{name} {role}")
            pool = parse_pool(role, cores, f"{name} {role}", 1).replace(threads=patterns)
        else:
            pool = parse_pool(role, value, f"{name} {role}", 1)
        pools[role.upper()] = pool
    return tuple(pools.values())


def is_role(name: str) -> bool:
    return name.isascii() and name.replace("_", "a").isalnum()


# --- cpus and nodes ------------------------------------------------------------------------------


def parse_cpus(value: Given, name: str, rank: int | None = None) -> CpuSet:
    """Return a set of cpus, not empty; the message names the option and the rank. Raises
    ParseError."""
    try:
        if isinstance(value, CpuSet) and value:
            return value
        return CpuSet.parse_user(str(value))
    except ParseError as e:
        raise located(e, name, rank) from None


def parse_cpu_lists(values: Sequence[Given], name: str) -> tuple[CpuSet, ...]:
    """Return the cpus of each rank. Raises ParseError, UsageError."""
    need_values(values, name, "--numa-bind-cpus CPUS...")
    return tuple(parse_cpus(value, name, rank) for rank, value in enumerate(values))


def parse_nodes(values: Sequence[Given], name: str) -> tuple[CpuSet, ...]:
    """Return the nodes of each rank in the order given: `0 0 1 1`, `0,0,1,1` or `0-3`, and with
    several each `0+1 2+3`.

    Raises ParseError, UsageError.
    """
    need_values(values, name, "--numa-bind-nodes NODE...")
    nodes: list[CpuSet] = []
    for value in values:
        text = text_of(value, name)
        for part in text.split(","):
            try:
                if not text.strip():
                    hint = "write node numbers, as in 0 0 1 1"
                    raise ParseError("an empty list", hint=hint, text=text)
                ranges = [parse_range(one.strip(), text) for one in part.split("+")]
            except ParseError as e:
                raise located(e, name, len(nodes)) from None
            numbers = [n for first, last, step in ranges for n in range(first, last + 1, step)]
            nodes += [CpuSet(numbers)] if ranges[1:] else [CpuSet([n]) for n in numbers]
            if len(nodes) > LIMIT:
                raise ParseError(f"{name}: {quote(text)} names too many nodes", text=text)
    return tuple(nodes)


def parse_mem_nodes(values: Sequence[Given], name: str) -> tuple[CpuSet | str, ...]:
    """Return `all` or a set of nodes, not empty, for each value. Raises ParseError, UsageError."""
    need_values(values, name, "--mem-nodes NODES...")
    return tuple(
        "all" if value == "all" else parse_cpus(value, name, rank if values[1:] else None)
        for rank, value in enumerate(values)
    )


def need_values(values: Sequence[Given], name: str, hint: str) -> None:
    if not values:
        raise UsageError(f"{name} needs at least one value", hint=hint, option=name)


def is_word(text: str) -> bool:
    """Whether a list option's value is more likely the worker's command than a list of numbers."""
    return any(c not in "0123456789,-: " for c in text)


def located(error: ParseError, name: str, rank: int | None) -> ParseError:
    """Return the same error with the option and the rank that it is about."""
    where = name if rank is None else f"{name}, rank {rank}"
    hint, text = error.hint, str(error.data.get("text", ""))
    is_list = name.startswith(("--numa-bind", "--mem-nodes"))
    if is_list and is_word(text):
        hint = FENCE_HINT
    elif is_list and text.split()[1:]:
        hint = f"leave the quotes around {text.strip()} out"
        if name != "--numa-bind-nodes":
            hint += f", or write {','.join(text.split())} for one rank"
    elif name.startswith("--") and " " not in name and text.split()[1:] and not is_word(text):
        hint = f"{name} {','.join(text.split())}"
    return ParseError(f"{where}: {error.message}", hint=hint, rank=rank, **error.data)


# --- groups --------------------------------------------------------------------------------------


def parse_group(value: Given, name: str) -> str:
    """Return a group's name. Raises UsageError."""
    from ompbind.plans import is_group_name

    text = text_of(value, name)
    if not is_group_name(text):
        raise UsageError(
            f"{name}: {quote(text)} is not a group's name",
            hint="letters, digits, _ and -, a letter first, as in router-2",
            option=name,
        )
    return text


def parse_groups(value: Given, name: str) -> tuple[str, ...]:
    """Return the groups of `router,loader`. Raises UsageError."""
    return tuple(parse_group(part.strip(), name) for part in text_of(value, name).split(","))


def parse_ready(value: Given, name: str) -> str:
    """Return a condition's text, in which templates are still to be filled in. Raises
    UsageError."""
    text = text_of(value, name)
    if "{" not in text or text.startswith("line:"):
        from ompbind.launch.ready import parse_condition

        try:
            parse_condition(text)
        except ParseError as e:
            raise UsageError(f"{name}: {e.message}", hint=e.hint, option=name) from None
    return text


# --- texts ---------------------------------------------------------------------------------------


def parse_variables(
    values: Sequence[Given | Pair], name: str
) -> tuple[tuple[str, str | None], ...]:
    """Return the variables of `NAME=VALUE` each; the value of NAME alone is None. Raises
    UsageError."""
    variables: list[tuple[str, str | None]] = []
    for value in values:
        if isinstance(value, tuple):
            variable, text = value[0], text_of(value[1], name)
            variables.append((variable, text))
        else:
            variable, equals, text = text_of(value, name).partition("=")
            variables.append((variable, text if equals else None))
        if not (variable.isascii() and variable.isidentifier()):
            raise UsageError(
                f"{name}: {quote(variable)} is not a variable name",
                hint="write NAME=VALUE, the name in letters, digits and underscores",
                option=name,
            )
    return tuple(variables)


def parse_texts(values: Sequence[Given], name: str) -> tuple[str, ...]:
    """Return the names of files. Raises UsageError."""
    texts = tuple(text_of(value, name) for value in values)
    if not all(texts):
        hint = f"{name} FILE" if name.startswith("--") else ""
        raise UsageError(f"{name}: an empty name", hint=hint, option=name)
    return texts


def parse_preload(value: Given, name: str) -> tuple[str, ...]:
    """Return the libraries of `tcmalloc,/opt/libx.so`. Raises UsageError."""
    parts = tuple(part.strip() for part in text_of(value, name).split(","))
    if not all(parts):
        raise UsageError(
            f"{name}: {written(value)} has an empty name",
            hint="names or paths with commas, as in tcmalloc,iomp5",
            option=name,
        )
    return parts


def split_words(text: str, option: str, given: str = "") -> list[str]:
    """Return the words of a text that is quoted as for a shell, which is not started; `given`: what
    was typed, where the text is a part of it. Raises UsageError."""
    import shlex

    try:
        return shlex.split(text)
    except ValueError as e:
        problem = str(e).lower()
        raise UsageError(f"{option} {quote(given or text)}: {problem}",
                         hint="quote words as for a shell", option=option) from None  # fmt: skip


def parse_directory(value: Given, name: str) -> str:
    return parse_text(value, name, "an empty name", f"{name} DIR")


def parse_report(value: Given, name: str) -> str:
    """Return the name of a file. Raises UsageError."""
    file = parse_text(value, name, "an empty name", f"{name} FILE")
    if file == "-":
        raise UsageError(
            f"{name} -: standard output belongs to the ranks",
            hint=f"{name} FILE, or {name} /dev/stderr",
            option=name,
        )
    return file


def parse_address(value: Given, name: str) -> str:
    return parse_text(value, name, "an empty address", "127.0.0.1 is this machine")


def parse_text(value: Given, name: str, problem: str, hint: str) -> str:
    """Return a text that is not empty. Raises UsageError."""
    text = text_of(value, name)
    if not text:
        raise UsageError(f"{name}: {problem}", hint=hint, option=name)
    return text


def text_of(value: object, name: str) -> str:
    """Return a value as a text. Raises TypeError for what is neither a text nor a number."""
    if not isinstance(value, str | int | float):
        raise TypeError(f"{name}: {value!r} is of the wrong type")
    return str(value)


def written(value: Given) -> str:
    """Return a value for a message, a text in quotes."""
    return quote(value) if isinstance(value, str) else str(value)
