"""The options of the plan, from texts to a Request."""

from __future__ import annotations

from ompbind.cpuset import LIMIT, CpuSet, parse_range, parse_whole
from ompbind.errors import ParseError, UsageError
from ompbind.messages import quote
from ompbind.openmp import judge_environment
from ompbind.options.parse import FENCE_HINT, is_word
from ompbind.planner.request import Pool, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.options.parse import Values
    from ompbind.worker.environment import Variables


# Options that say which cpus ranks get: a list of places in the environment would say otherwise.
SAYS_WHERE = ("per", "numa_bind", "numa_bind_nodes", "numa_bind_cpus", "smt", "reserve", "role",
              "exclude", "part", "kind", "oversubscribe", "cores_per_rank", "distribution", "near",
              "gpu_env", "from_env")  # fmt: skip


def make_request(
    values: Values, command: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Request:
    """From the parsed arguments and the inherited environment. Raises UsageError, ParseError."""
    given = {k: f"--{k.replace('_', '-')} is given" for k in values}
    if where := next((key for key in values if key in SAYS_WHERE), None):
        given["place_list"] = given[where]
    wishes = judge_environment(environ or {}, given)
    text = {k: v for k, v in values.items() if isinstance(v, str)}
    lists = {k: v for k, v in values.items() if isinstance(v, list)}
    environment = {"places": "OMP_PLACES", "proc_bind": "OMP_PROC_BIND"}
    environment["threads"] = "OMP_NUM_THREADS"
    wished = {k: getattr(wishes, k) for k in environment if getattr(wishes, k) is not None}
    field = {"numa_bind_nodes": "nodes", "numa_bind_cpus": "cpus"}
    sources = {k: environment[k] for k in wished} | {field.get(k, k): "flag" for k in values}

    def number(key: str, least: int) -> int:
        return parse_count(text[key], "--" + key.replace("_", "-"), least)

    asked: dict[str, object] = dict(wished)
    for key in (
        "per",
        "kind",
        "places",
        "proc_bind",
        "mem",
        "binder",
        "distribution",
        "near",
        "gpu_domain",
    ):
        if key in text:
            asked[key] = text[key]
    if text.get("runtime", "auto") != "auto":
        asked["runtime"] = text["runtime"]
    if "places" in sources:
        flag = sources["places"] == "flag"
        asked["places_why"] = "--places is given" if flag else "OMP_PLACES is set"
    for key in ("numa_bind", "share", "oversubscribe", "rank_env", "template", "gpu_env"):
        if key in values:
            asked[key] = values[key]
    if "ranks" in text:
        asked["ranks"] = number("ranks", 1)
    if "on_denied" in text:
        asked["degrade"] = text["on_denied"] == "degrade"
    if "cores_per_rank" in text:
        asked["cores_per_rank"] = number("cores_per_rank", 1)
    if "reserve" in text:
        asked["reserve"] = parse_pool("", text["reserve"], "--reserve", 0)
    if "part" in text:
        asked["part"] = parse_part(text["part"])
    if "role" in lists:
        asked["roles"] = parse_roles(lists["role"])
    if "threads" in text:
        asked["threads"] = str(number("threads", 1))
    if "smt" in text:
        asked["smt"] = None if text["smt"] == "all" else number("smt", 1)
    if "exclude" in text:
        asked["exclude"] = parse_cpus(text["exclude"], "--exclude")
    if "numa_bind_nodes" in lists:
        asked["nodes"] = parse_nodes(lists["numa_bind_nodes"], "--numa-bind-nodes")
        asked["numa_bind"] = True
    if "numa_bind_cpus" in lists:
        name = "--numa-bind-cpus"
        asked["cpus"] = tuple(
            parse_cpus(t, name, rank) for rank, t in enumerate(lists["numa_bind_cpus"])
        )
    return Request(
        **asked,  # type: ignore[arg-type]  # each was converted above
        limit=wishes.limit,
        place_list=wishes.place_list,
        inherited=wishes.inherited,
        sources=tuple(sorted(sources.items())),
        command=tuple(command),
    )


def parse_count(text: str, name: str, least: int) -> int:
    """A whole number from `least` on. Raises UsageError."""
    number = parse_whole(text)
    if number is not None and least <= number < LIMIT:
        return number
    raise UsageError(
        f"{name}: {quote(text)} is not a whole number from {least} to {LIMIT - 1}",
        option=name,
        text=text,
    )


def parse_pool(name: str, text: str, option: str, least: int) -> Pool:
    """`2` or `2/rank`. Raises UsageError."""
    number, slash, each = text.partition("/")
    if slash and each != "rank":
        raise UsageError(
            f"{option}: {quote(text)} is neither N nor N/rank",
            hint="N cores of all ranks together, or N/rank of each",
            option=option,
            text=text,
        )
    return Pool(name, parse_count(number, option, least), per_rank=bool(slash))


def parse_roles(texts: Sequence[str]) -> tuple[Pool, ...]:
    """`kv=2` or `kv=1/rank` each, several also with commas. Raises UsageError."""
    pools: dict[str, Pool] = {}
    for text in (part for t in texts for part in t.split(",")):
        name, equals, cores = text.partition("=")
        problem = hint = ""
        if not equals or not is_role(name):
            problem = f"--role: {quote(text)} is not NAME=N or NAME=N/rank"
            hint = "a name has letters, digits and _ only, as in kv=2"
        elif name.upper() in pools:
            problem = f"--role: {name} is named twice"
            hint = "one pool for each name; in OMPBIND_ROLE_... capitals and small letters are one"
        if problem:
            raise UsageError(problem, hint=hint, option="--role", text=text)
        pools[name.upper()] = parse_pool(name, cores, f"--role {name}", 1)
    return tuple(pools.values())


def is_role(name: str) -> bool:
    return name.isascii() and name.replace("_", "a").isalnum()


def parse_part(text: str) -> tuple[int, int]:
    """`1/2`: the first of two parts. Raises UsageError."""
    part, _, count = text.partition("/")
    numbers = parse_whole(part), parse_whole(count)
    if numbers[0] is None or numbers[1] is None or not 0 < numbers[0] <= numbers[1] < LIMIT:
        raise UsageError(
            f"--part: {quote(text)} is not I/N with I from 1 to N",
            hint="--part 1/2 and --part 2/2 are the halves of the machine",
            option="--part",
            text=text,
        )
    return numbers[0], numbers[1]


def parse_cpus(text: str, name: str, rank: int | None = None) -> CpuSet:
    """A user's cpu list; the message names the option and the rank. Raises ParseError."""
    try:
        return CpuSet.parse_user(text)
    except ParseError as e:
        raise located(e, name, rank) from None


def parse_nodes(texts: Sequence[str], name: str) -> tuple[int, ...]:
    """Node numbers in the order given, one for each rank: `0 0 1 1`, `0,0,1,1` or `0-3`.

    Raises ParseError.
    """
    nodes: list[int] = []
    for text in texts:
        for part in text.split(","):
            try:
                if not text.strip():
                    hint = "write node numbers, as in 0 0 1 1"
                    raise ParseError("an empty list", hint=hint, text=text)
                first, last, step = parse_range(part.strip(), text)
            except ParseError as e:
                raise located(e, name, len(nodes)) from None
            nodes += range(first, last + 1, step)
            if len(nodes) > LIMIT:
                raise ParseError(f"{name}: {quote(text)} names too many nodes", text=text)
    return tuple(nodes)


def located(error: ParseError, name: str, rank: int | None) -> ParseError:
    """The same error, with the option and the rank it came from."""
    where = name if rank is None else f"{name}, rank {rank}"
    hint = error.hint
    if name.startswith("--numa-bind") and is_word(str(error.data.get("text", ""))):
        hint = FENCE_HINT
    return ParseError(f"{where}: {error.message}", hint=hint, rank=rank, **error.data)


def make_variables(values: Values) -> Variables | None:
    """From the parsed arguments; None where no variable is asked for. Raises UsageError."""
    if not any(key in values for key in ("env", "env_file", "master_port", "master_addr")):
        return None
    from ompbind.worker.environment import Variables

    port, address = values.get("master_port"), values.get("master_addr")
    if address == "":
        raise UsageError("--master-addr: an empty address", hint="127.0.0.1 is this machine")
    rank_env, texts, files = (values.get(key) for key in ("rank_env", "env", "env_file"))
    return Variables(
        texts=tuple(texts) if isinstance(texts, list) else (),
        files=tuple(files) if isinstance(files, list) else (),
        master_port=parse_port(port) if isinstance(port, str) else None,
        master_addr=address if isinstance(address, str) else None,
        rank_env=rank_env if isinstance(rank_env, bool) else None,
        fixes="fix" in values,
    )


def parse_port(text: str) -> int | str:
    """Return `auto` or a port's number. Raises UsageError."""
    port = parse_whole(text)
    if text == "auto":
        return text
    if port is None or not 0 < port < 65536:
        raise UsageError(
            f"--master-port: {quote(text)} is not a port from 1 to 65535",
            hint="auto takes one that is free",
        )
    return port
