"""Plans, and other results of ours, from JSON: fields are read by type, unknown ones ignored."""

from __future__ import annotations

from ompbind.cpuset import LIMIT, CpuSet, parse_whole
from ompbind.errors import ParseError
from ompbind.messages import quote
from ompbind.plans import (
    BINDERS,
    OMP_MODES,
    POLICIES,
    POOL_MODES,
    SCHEMA,
    TASK_NUMBERS,
    TASK_TEXTS,
    WARM_POLICIES,
    Binding,
    Caution,
    Group,
    Host,
    Inherited,
    Numbers,
    Plan,
    RankPlan,
    Role,
    Server,
    ServerWorker,
    Task,
    ThreadPool,
    WarmFile,
    is_group_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def parse_plan(text: str) -> Plan:
    """Return the plan in a JSON text; unknown fields are ignored. Raises ParseError."""
    top = read_object(text, "plan", SCHEMA)
    host = Reader(top.get("host", dict), "host")
    quota = host.get("quota", (int, float, type(None)), None)
    if quota is not None and not 0 < quota < LIMIT:
        raise ParseError("host.quota is not a number of cpus", text="")
    binder = top.one_of("binder", BINDERS, "numactl")
    task, sizes = read_task(top.get("engine", (dict, type(None)), None))
    ranks = tuple(
        read_rank(Reader(r, f"ranks[{i}]"), binder, sizes)
        for i, r in enumerate(top.get("ranks", list))
    )
    if not ranks or [r.rank for r in ranks] != list(range(len(ranks))):
        raise ParseError("ranks are not numbered from 0", text="")
    groups = read_groups(top)
    ranks = join_groups(ranks, groups)
    narrowed = read_inherited(top, "narrowed")
    widened = any(i.action == "widened" for i in narrowed)  # before there was "reset_inherited"
    return Plan(
        host=Host(host.get("name", str), host.cpus("cpus"), host.cpus("allowed"),
                  host.cpus("nodes"), None if quota is None else float(quota)),
        ranks=ranks,
        reserved=top.cpus("reserved", ""),
        roles=tuple(
            Role(r.get("name", str), r.cpus("cpus"), r.cpus("ranks"), r.texts("threads", []))
            for r in (Reader(r, f"roles[{n}]") for n, r in enumerate(top.get("roles", list, [])))
        ),
        unused=top.cpus("unused", ""),
        part=top.get("part", str, ""),
        others=top.cpus("others", ""),
        excluded=top.cpus("excluded", ""),
        cautions=read_cautions(top),
        inherited=read_inherited(top, "inherited"),
        narrowed=narrowed,
        reset_inherited=top.get("reset_inherited", bool, widened),
        command=top.texts("command", []),
        template=top.get("template", bool, False),
        places_why=top.get("places_why", str, ""),
        omp=top.one_of("omp", OMP_MODES, "all"),
        omp_why=top.get("omp_why", str, ""),
        server=read_server(top),
        task=task,
        groups=groups,
        warm=read_warm(top),
        pools=read_pools(top),
        huge_pages=top.one_of("huge_pages", ("", "thp", "2M"), ""),
    )  # fmt: skip


def read_groups(plan: Reader) -> tuple[Group, ...]:
    readers = [Reader(g, f"groups[{n}]") for n, g in enumerate(plan.get("groups", list, []))]
    return tuple(
        Group(g.get("name", str), g.cpus("ranks"), g.texts("command", []),
              g.get("template", bool, False), g.texts("after", []), g.texts("ready", []),
              g.get("background", bool, False))
        for g in readers
    )  # fmt: skip


def join_groups(ranks: tuple[RankPlan, ...], groups: Sequence[Group]) -> tuple[RankPlan, ...]:
    """Return the ranks with their numbers in their groups, each of which has ranks that follow one
    another. Raises ParseError for ranks that are in no group or in two."""
    if not groups:
        return ranks
    numbered = [(g, n, rank) for g in groups for n, rank in enumerate(g.ranks)]
    if [rank for *_, rank in numbered] != list(range(len(ranks))):
        raise ParseError("groups: not each rank is in one group, in their order", part="groups")
    for g in groups:
        if not is_group_name(g.name):
            raise ParseError(f"groups: {quote(g.name)} is not a group's name", part="groups")
    if len({g.name for g in groups}) < len(groups):
        raise ParseError("groups: a name is there twice", part="groups")
    return tuple(
        r.replace(group=g.name, group_numbers=Numbers(n, len(g.ranks), n, len(g.ranks)))
        for r, (g, n, _) in zip(ranks, numbered, strict=True)
    )


def read_pools(plan: Reader) -> tuple[ThreadPool, ...]:
    readers = [Reader(p, f"pools[{n}]") for n, p in enumerate(plan.get("pools", list, []))]
    return tuple(
        ThreadPool(p.get("name", str), p.one_of("how", POOL_MODES), p.get("variable", str, ""))
        for p in readers
    )


def read_server(plan: Reader) -> Server | None:
    data = plan.get("server", (dict, type(None)), None)
    if data is None:
        return None
    server = Reader(data, "server")
    readers = [Reader(w, f"server.workers[{n}]") for n, w in enumerate(server.get("workers", list))]
    workers = tuple(
        ServerWorker(w.get("worker", int), w.cpus("cpus"), w.cpus("nodes"),
                     w.one_of("mem", POLICIES), w.cpus("mems"), w.texts("gpus", []),
                     w.get("why", str, ""))
        for w in readers
    )  # fmt: skip
    return Server(server.get("engine", str), server.get("name", str), server.get("version", str),
                  workers, server.cpus("rest"), server.get("variable", str, ""),
                  server.texts("words", []))  # fmt: skip


def read_warm(plan: Reader) -> tuple[WarmFile, ...]:
    files = []
    for n, data in enumerate(plan.get("warm", list, [])):
        f = Reader(data, f"warm[{n}]")
        file = WarmFile(
            f.get("file", str), f.get("bytes", int), f.one_of("mem", WARM_POLICIES), f.cpus("mems")
        )
        if (file.mem == "none") == bool(file.mems):
            raise ParseError(f"{f.where}: mem {file.mem!r} does not go with its mems", text="")
        if not is_argument(file.path) or file.bytes < 0:
            raise ParseError(f"{f.where} is no file with a size", text="")
        files.append(file)
    return tuple(files)


def read_inherited(plan: Reader, key: str) -> tuple[Inherited, ...]:
    readers = [Reader(i, f"{key}[{n}]") for n, i in enumerate(plan.get(key, list, []))]
    fields = ("name", "value", "action", "why")
    return tuple(Inherited(*(i.get(field, str) for field in fields)) for i in readers)


def read_cautions(plan: Reader) -> tuple[Caution, ...]:
    """Return the warnings, with their kinds and hints if the plan lists as many of these."""
    texts = plan.texts("warnings", [])
    none = ("",) * len(texts)
    kinds, hints = plan.texts("warning_kinds", []), plan.texts("warning_hints", [])
    kinds, hints = (given if len(given) == len(texts) else none for given in (kinds, hints))
    return tuple(map(Caution, kinds, texts, hints))


def read_task(data: dict[str, Any] | None) -> tuple[Task, tuple[int, int] | None]:
    """Return the task in a plan's JSON, and the numbers of ranks in the job and on this node; None
    where the plan has all ranks."""
    if data is None:
        return Task(), None
    engine = Reader(data, "engine")
    number = (int, type(None))
    rows = (Reader(r, "engine.passed_over") for r in engine.get("passed_over", list, []))
    task = Task(
        engine=engine.get("name", str, ""),
        passed_over=tuple((row.get("name", str), row.get("why", str)) for row in rows),
        **{field: engine.get(field, str, "") for field in TASK_TEXTS},
        **{field: engine.get(field, number, None) for field in TASK_NUMBERS},
    )
    sizes = engine.get("world_size", int, 1), engine.get("local_world_size", int, 1)
    return task, sizes if task else None


def read_rank(rank: Reader, binder: str, sizes: tuple[int, int] | None) -> RankPlan:
    env = rank.get("env", dict)
    if not all(is_argument(text) for pair in env.items() for text in pair):
        raise ParseError(f"{rank.where}.env is not an object of texts", text="")
    for name in (*env, *rank.texts("unset")):
        if not name.isascii() or not name.isidentifier():  # a shell would execute others
            raise ParseError(f"{rank.where}: {quote(name)} is no variable's name", text=name)
    places = tuple(rank.parse(p, "places") for p in rank.texts("places"))
    mem, mems = rank.one_of("mem", POLICIES), rank.cpus("mems")
    if (mem in ("none", "local")) == bool(mems):
        raise ParseError(f"{rank.where}: mem {mem!r} does not go with mems {str(mems)!r}", text="")
    balancing = rank.get("mem_balancing", bool, False)
    if balancing and mem != "bind":
        raise ParseError(f"{rank.where}: mem_balancing does not go with mem {mem!r}", text="")
    binding = Binding(rank.cpus("cpus"), mem, mems, binder, balancing)
    argv = rank.texts("argv")
    try:
        command = binding.parse_argv(argv)
    except ParseError as e:
        raise ParseError(f"{rank.where}: {e.message}", part="argv") from None
    number = rank.get("rank", int)
    numbers = None
    if sizes is not None:
        numbers = Numbers(rank.get("global_rank", int, number), sizes[0],
                          rank.get("local_rank", int, number), sizes[1])  # fmt: skip
    return RankPlan(
        rank=number,
        numbers=numbers,
        binding=binding,
        places=places,
        nodes=rank.cpus("nodes"),
        env=tuple(env.items()),
        unset=rank.texts("unset"),
        command=command,
        gpus=rank.texts("gpus", []),
        accels=rank.texts("accels", []),
        nics=rank.texts("nics", []),
        nics_why=rank.get("nics_why", str, ""),
        why=rank.get("why", str, ""),
        why_shared=rank.get("why_shared", str, ""),
        weights=read_weights(rank),
        mem_why=rank.get("mem_why", str, ""),
        need=read_need(rank),
    )


def read_need(rank: Reader) -> int:
    """Return the bytes that a rank needs. Raises ParseError."""
    need: int = rank.get("mem_need_bytes", int, 0)
    if not 0 <= need < 1 << 60:
        raise ParseError(f"{rank.where}.mem_need_bytes is out of range", part="mem_need_bytes")
    return need


def read_weights(rank: Reader) -> tuple[tuple[int, int], ...]:
    """Return the weights of a rank's nodes. Raises ParseError."""
    weights = rank.get("mem_weights", dict, {})
    pairs = [(parse_whole(node), weight) for node, weight in weights.items()]
    if not all(
        node is not None and isinstance(weight, int) and 0 < weight < 256 for node, weight in pairs
    ):
        raise ParseError(f"{rank.where}.mem_weights are not weights by node", part="mem_weights")
    return tuple((node, weight) for node, weight in pairs if node is not None)


def is_argument(value: object) -> bool:
    """Whether it can be an argument or a variable: a text without NUL that can be encoded."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


MISSING = object()


def read_object(text: str, name: str, schema: int) -> Reader:
    """Return the object that a JSON text is, of this schema. Raises ParseError."""
    import json

    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ParseError(f"not JSON: {e}", text=text[:60]) from None
    top = Reader(data, name)
    if top.get("schema", int) != schema:
        raise ParseError(f"schema {quote(str(data['schema']))} is not known, {schema} is", text="")
    return top


class Reader:
    """A JSON object whose fields are read by type. Errors name the field."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, dict):
            raise ParseError(f"{where} is not an object", text=str(data)[:60])
        self.data = data
        self.where = where

    def get(self, key: str, kind: Any, default: object = MISSING) -> Any:
        value = self.data.get(key, default)
        if value is MISSING:
            raise ParseError(f"{self.where} lacks {key!r}", part=key)
        if value is not default and not isinstance(value, kind):
            got = quote(str(value), 40)
            raise ParseError(f"{self.where}.{key}: {got} is of the wrong type", part=key)
        if kind is int and isinstance(value, bool):
            raise ParseError(f"{self.where}.{key} is not a number", part=key)
        return value

    def texts(self, key: str, default: object = MISSING) -> tuple[str, ...]:
        values = self.get(key, list, default)
        if not all(is_argument(v) for v in values):
            raise ParseError(f"{self.where}.{key} is not a list of texts", part=key)
        return tuple(values)

    def cpus(self, key: str, default: object = MISSING) -> CpuSet:
        return self.parse(self.get(key, str, default), key)

    def parse(self, text: str, key: str) -> CpuSet:
        try:
            return CpuSet.parse_kernel(text)
        except ParseError as e:
            raise ParseError(f"{self.where}.{key}: {e.message}", part=key) from None

    def one_of(self, key: str, choices: tuple[str, ...], default: object = MISSING) -> str:
        value: str = self.get(key, str, default)
        if value not in choices:
            problem = f"{self.where}.{key}: {quote(value)} is not one of {', '.join(choices)}"
            raise ParseError(problem, part=key)
        return value
