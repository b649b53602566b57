"""Read the JSON of `ompbind topo`, which has all that a plan depends on but the host's name."""

from __future__ import annotations

import json

from ompbind.cpuset import LIMIT, CpuSet
from ompbind.errors import ParseError, TopologyError
from ompbind.machine.measurement import make_measurement
from ompbind.machine.topology import (
    LEVELS,
    Allowed,
    Cache,
    Cpu,
    Device,
    Machine,
    Node,
    Port,
    Topology,
)
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

SCHEMA = 1
MAX_CONTAINERS = 1_000_000  # lists and objects: Python's take much more room than their text
CACHES = tuple(f"L{level}{kind}" for level in range(1, 6) for kind in ("", "d", "i"))
PORT_STATES = (True, False, None)
HINT = "ompbind topo --format json writes it"


def parse_json(data: bytes) -> Machine:
    """Return the machine. Raises TopologyError."""
    if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        refuse("more lists and objects than any machine has")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as e:
        refuse(f"{e}")
    if not isinstance(content, dict) or "cpus" not in content:
        hint = "--plan takes a plan" if isinstance(content, dict) and "ranks" in content else HINT
        raise TopologyError("this JSON is not a machine's", hint=hint)
    if content.get("schema") != SCHEMA:
        raise TopologyError("the JSON has a newer format", hint="update ompbind")
    try:
        return make_machine(content)
    except ParseError as e:
        refuse(e.message)
    except (KeyError, TypeError) as e:
        refuse(f"{type(e).__name__} {e}" if isinstance(e, TypeError) else f"{e} is missing")


def make_machine(content: dict[str, Any]) -> Machine:
    cpus = tuple(make_cpu(row) for row in get_rows(content, "cpus"))
    numbers = [c.cpu for c in cpus]
    if not numbers or numbers != sorted(set(numbers)):
        refuse("cpus must be there, each once, in ascending order")
    online = CpuSet(numbers)
    nodes = tuple(
        Node(
            get_number(row, "node"),
            get_set(row, "cpus") & online,
            None if row["memory_bytes"] is None else get_number(row, "memory_bytes", 1 << 60),
            get_set({"initiators": "", **row}, "initiators"),
            get_kind(row),
            None if row.get("weight") is None else get_number(row, "weight", 256),
        )
        for row in get_rows(content, "nodes")
    )
    places = [n.node for n in nodes]
    if places != sorted(set(places)):
        refuse("nodes must be there once each, in ascending order")
    distances = tuple(tuple(row) for row in content["distances"])
    whole = all(isinstance(d, int) for row in distances for d in row)
    if distances and ([len(row) for row in distances] != [len(nodes)] * len(nodes) or not whole):
        refuse("distances must be a number for each pair of nodes")
    topology = Topology(
        cpus=cpus,
        nodes=nodes,
        distances=distances,
        devices=tuple(make_device(row, online) for row in get_rows(content, "devices")),
        possible=get_set(content, "possible") | online,
        offline=get_set(content, "offline") - online,
        isolated=get_set(content, "isolated"),
        nohz_full=get_set(content, "nohz_full"),
        numa=content["numa"] is True,
    )
    allowed = content["allowed"]
    quota = allowed["quota"]
    if quota is not None and (not isinstance(quota, int | float) or not quota > 0):
        refuse(f"quota {quote(str(quota))} is not a number of cpus")
    nodes_allowed = get_set(allowed, "nodes") & topology.node_numbers
    content = {"model": "", "caches": [], **content}  # absent in the JSON of earlier versions
    model = content["model"]
    if not isinstance(model, str):
        refuse("model is no text")
    return Machine(
        topology,
        Allowed(get_set(allowed, "cpus") & online, nodes_allowed, quota),
        model=model,
        caches=tuple(make_cache(row, online) for row in get_rows(content, "caches")),
        measured=None if content.get("measured") is None else make_measurement(content["measured"]),
    )


def make_cache(row: dict[str, Any], online: CpuSet) -> Cache:
    name = row["name"]
    if name not in CACHES:
        refuse(f"{quote(str(name))} is not a cache")
    return Cache(name, get_number(row, "bytes", 1 << 60), get_set(row, "cpus") & online)


def make_cpu(row: dict[str, Any]) -> Cpu:
    groups = {
        level: None if row.get(level) is None else get_number(row, level)
        for level in (*LEVELS, "capacity")
    }
    return Cpu(get_number(row, "cpu"), **groups)


def make_device(row: dict[str, Any], online: CpuSet) -> Device:
    texts = [row[key] for key in ("kind", "pci", "vendor", "model")]
    names, driver = row["names"], row["driver"]
    # Absent in earlier versions:
    row = {"bridges": [], "ports": [], "virtual": False, "memory_node": None, **row}
    bridges = row["bridges"]
    if not all(isinstance(text, str) for text in (*texts, *names, *bridges, driver or "")):
        refuse("a device has a value that is no text")
    kind, pci, vendor, model = texts
    node, memory_node = (
        None if row[key] is None else get_number(row, key) for key in ("node", "memory_node")
    )
    return Device(kind, pci, node, get_set(row, "cpus") & online, vendor, model, tuple(names),
                  driver, virtual=row["virtual"] is True, hidden=row["hidden"] is True,
                  memory_node=memory_node, bridges=tuple(bridges),
                  ports=tuple(map(make_port, get_rows(row, "ports"))))  # fmt: skip


def make_port(row: dict[str, Any]) -> Port:
    name, kind, up = row["name"], row["kind"], row["up"]
    if not isinstance(name, str) or kind not in ("rdma", "cxi", "net") or up not in PORT_STATES:
        refuse(f"{quote(str(row))} is not a port of a network card")
    return Port(name, kind, up, get_number(row, "rate", 1 << 40))


def get_rows(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects. Raises TopologyError."""
    rows = content[key]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        refuse(f"{key} is not a list of objects")
    return rows


def get_kind(row: dict[str, Any]) -> str:
    """Return the kind of a node's memory, "" where it is not there. Raises TopologyError."""
    kind = row.get("kind", "")
    if kind not in ("", "hbm", "dram", "cxl"):
        refuse(f"{quote(str(kind))} is no kind of memory")
    return str(kind)


def get_set(content: dict[str, Any], key: str) -> CpuSet:
    """Return a set of numbers. Raises ParseError, TopologyError."""
    text = content[key]
    if not isinstance(text, str):
        refuse(f"{key} is not a list of numbers in a text")
    return CpuSet.parse_kernel(text)


def get_number(content: dict[str, Any], key: str, limit: int = LIMIT) -> int:
    """Return a whole number below the limit. Raises TopologyError."""
    number = content[key]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < limit:
        refuse(f"{key} {quote(str(number))} is out of range")
    return number


def refuse(problem: str) -> NoReturn:
    raise TopologyError(f"the machine's JSON is damaged: {problem}", hint=HINT)
