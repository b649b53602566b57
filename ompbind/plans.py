"""A plan: what every rank gets. Frozen values, to JSON and back."""

from __future__ import annotations

from ompbind import numactl
from ompbind.cpuset import LIMIT, CpuSet
from ompbind.errors import ParseError
from ompbind.messages import quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

SCHEMA = 1
POLICIES = ("bind", "preferred", "interleave", "local", "none")
BINDERS = ("numactl", "native", "none")


class Host(Record):
    """The machine a plan was made for. `quota`: the cgroup's, in cpus' worth of time, or None."""

    name: str
    cpus: CpuSet
    allowed: CpuSet
    nodes: CpuSet
    quota: float | None = None


class Role(Record):
    """Cpus set aside under a name, for these ranks' own use."""

    name: str
    cpus: CpuSet
    ranks: CpuSet

    @property
    def variable(self) -> str:
        return f"OMPBIND_ROLE_{self.name.upper()}"


class Inherited(Record):
    """Something this process inherited: an environment variable, or a restriction such as its
    affinity mask. `action`: what became of it, "respected", "overridden", "removed" or "widened";
    `why`: the reason, in a few words."""

    name: str
    value: str
    action: str
    why: str


class RankPlan(Record):
    """One worker. `places` in OpenMP's order; `nodes` those of its cpus; `mems` the nodes of its
    memory policy; `argv` exactly what is executed; `why` in a few words."""

    rank: int
    cpus: CpuSet
    places: tuple[CpuSet, ...]
    nodes: CpuSet
    mem: str
    mems: CpuSet
    env: tuple[tuple[str, str], ...]
    unset: tuple[str, ...]
    argv: tuple[str, ...]
    gpus: tuple[str, ...] = ()
    why: str = ""

    def worker(self, binder: str) -> tuple[str, ...]:
        """The worker's own command, without numactl's part."""
        binding = numactl.make_binding(binder, self.cpus, self.mem, self.mems)
        worker = self.argv[len(binding) :]
        return worker[1:] if binding and worker[:1] == ("--",) else worker


class Caution(Record):
    """A warning that goes with a plan: its kind, a word that programs may test, and its text.

    The kinds: "exclude", "no-binding", "no-cores", "no-numa", "uneven", "oversubscribed",
    "threads", "quota", "isolated", "shared-core", "memory", "gpu", "numa-balancing", "neighbours",
    "fix"; "" in a plan saved before there were kinds.
    """

    kind: str
    text: str


class Plan(Record):
    """All ranks, and what is said about them. `unused`: allowed cpus of cores that no rank got;
    `part` ("1/2") is that of the machine, `others` the cpus of the other parts;
    `places_why`: what a place is, and what settled that; `narrowed`: what was narrowed before;
    `command`: the worker's, as the user gave it, without binding and unfilled."""

    host: Host
    ranks: tuple[RankPlan, ...]
    binder: str
    reserved: CpuSet = CpuSet()
    roles: tuple[Role, ...] = ()
    unused: CpuSet = CpuSet()
    part: str = ""
    others: CpuSet = CpuSet()
    cautions: tuple[Caution, ...] = ()
    inherited: tuple[Inherited, ...] = ()
    command: tuple[str, ...] = ()
    template: bool = False
    places_why: str = ""
    narrowed: tuple[Inherited, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The texts of the plan's warnings."""
        return tuple(caution.text for caution in self.cautions)

    def to_json(self, explanation: Sequence[str] = ()) -> str:
        """The contract's object, as text that ends in a newline."""
        import json

        told = {"explanation": list(explanation)} if explanation else {}
        return json.dumps(self.to_dict() | told, indent=1) + "\n"

    def to_dict(self) -> dict[str, Any]:
        host = self.host
        return {
            "schema": SCHEMA,
            "host": {
                "name": host.name,
                "cpus": str(host.cpus),
                "allowed": str(host.allowed),
                "nodes": str(host.nodes),
                "quota": host.quota,
            },
            "ranks": [
                {
                    "rank": r.rank,
                    "cpus": str(r.cpus),
                    "places": [str(p) for p in r.places],
                    "nodes": str(r.nodes),
                    "mem": r.mem,
                    "mems": str(r.mems),
                    "gpus": list(r.gpus),
                    "env": dict(r.env),
                    "unset": list(r.unset),
                    "argv": list(r.argv),
                    "why": r.why,
                }
                for r in self.ranks
            ],
            "places_why": self.places_why,
            "binder": self.binder,
            "reserved": str(self.reserved),
            "roles": [
                {"name": r.name, "cpus": str(r.cpus), "ranks": str(r.ranks)} for r in self.roles
            ],
            "unused": str(self.unused),
            "part": self.part,
            "others": str(self.others),
            "warnings": list(self.warnings),
            "warning_kinds": [caution.kind for caution in self.cautions],
            "inherited": [
                {"name": i.name, "value": i.value, "action": i.action, "why": i.why}
                for i in self.inherited
            ],
            "narrowed": [
                {"name": i.name, "value": i.value, "action": i.action, "why": i.why}
                for i in self.narrowed
            ],
            "command": list(self.command),
            "template": self.template,
        }


def parse_plan(text: str) -> Plan:
    """A plan from its JSON; fields it does not know are ignored. Raises ParseError."""
    import json

    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ParseError(f"not JSON: {e}", text=text[:60]) from None
    top = Reader(data, "plan")
    if top.get("schema", int) != SCHEMA:
        raise ParseError(f"schema {quote(str(data['schema']))} is not known, {SCHEMA} is", text="")
    host = Reader(top.get("host", dict), "host")
    quota = host.get("quota", (int, float, type(None)), None)
    if quota is not None and not 0 < quota < LIMIT:
        raise ParseError("host.quota is not a number of cpus", text="")
    ranks = tuple(read_rank(Reader(r, f"ranks[{i}]")) for i, r in enumerate(top.get("ranks", list)))
    if not ranks or [r.rank for r in ranks] != list(range(len(ranks))):
        raise ParseError("ranks are not numbered from 0", text="")
    inherited = [Reader(i, f"inherited[{n}]") for n, i in enumerate(top.get("inherited", list, []))]
    narrowed = [Reader(i, f"narrowed[{n}]") for n, i in enumerate(top.get("narrowed", list, []))]
    return Plan(
        host=Host(host.get("name", str), host.cpus("cpus"), host.cpus("allowed"),
                  host.cpus("nodes"), None if quota is None else float(quota)),
        ranks=ranks,
        binder=top.one_of("binder", BINDERS, "numactl"),
        reserved=top.cpus("reserved", ""),
        roles=tuple(
            Role(r.get("name", str), r.cpus("cpus"), r.cpus("ranks"))
            for r in (Reader(r, f"roles[{n}]") for n, r in enumerate(top.get("roles", list, [])))
        ),
        unused=top.cpus("unused", ""),
        part=top.get("part", str, ""),
        others=top.cpus("others", ""),
        cautions=read_cautions(top),
        inherited=tuple(
            Inherited(i.get("name", str), i.get("value", str), i.get("action", str),
                      i.get("why", str))
            for i in inherited
        ),
        narrowed=tuple(
            Inherited(i.get("name", str), i.get("value", str), i.get("action", str),
                      i.get("why", str))
            for i in narrowed
        ),
        command=top.texts("command", []),
        template=top.get("template", bool, False),
        places_why=top.get("places_why", str, ""),
    )  # fmt: skip


def read_cautions(plan: Reader) -> tuple[Caution, ...]:
    """The warnings, each with its kind where the plan lists as many kinds."""
    texts, kinds = plan.texts("warnings", []), plan.texts("warning_kinds", [])
    if len(kinds) != len(texts):
        kinds = ("",) * len(texts)
    return tuple(map(Caution, kinds, texts))


def read_rank(rank: Reader) -> RankPlan:
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
    return RankPlan(
        rank=rank.get("rank", int),
        cpus=rank.cpus("cpus"),
        places=places,
        nodes=rank.cpus("nodes"),
        mem=mem,
        mems=mems,
        env=tuple(env.items()),
        unset=rank.texts("unset"),
        argv=rank.texts("argv"),
        gpus=rank.texts("gpus", []),
        why=rank.get("why", str, ""),
    )


def is_argument(value: object) -> bool:
    """Whether a process can be given it: a text without NUL whose every character has bytes."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


MISSING = object()


class Reader:
    """A JSON object whose fields are asked for by type; what is wrong names its place."""

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
