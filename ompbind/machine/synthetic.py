"""Read hwloc's synthetic notation: `package:2 node:2 l3:4 core:8 pu:2`, a machine in one line.

From left to right each level divides every part of the one before it. In brackets after a level:
`(indexes=…)` numbers its objects, `(memory=16GB)` is the size of each node. A node in square
brackets, as in `package:2 [numa(memory=16GB)] core:8 pu:2`, is attached to each part of the level
before it. Source: hwloc's manual, "Synthetic topologies"; tests compare with lstopo.
"""

from __future__ import annotations

import re

from ompbind.cpuset import LIMIT, CpuSet
from ompbind.errors import TopologyError
from ompbind.machine.topology import Allowed, Cpu, Machine, Node, Topology
from ompbind.messages import quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

HINT = "hwloc's notation is as in 'package:2 numa:2 l3:4 core:8 pu:2'"
MOST_LEVELS = 127

# Types, and how few of their letters may be typed, as in hwloc_type_sscanf. A group, and a cache of
# the first level, divide a machine without being a level of ours.
TYPES = {"package": 2, "socket": 2, "numanode": 2, "node": 2, "die": 2, "core": 2, "group": 2,
         "pu": 2}  # fmt: skip
LEVELS = {"package": "package", "die": "die", "l3": "l3", "l2": "l2", "core": "core"}
# The levels of counts without types, and what is added to them as there are more.
PLAIN = {
    1: "pu", 2: "numa pu", 3: "package numa pu", 4: "package numa core pu",
    5: "package numa l2 core pu", 6: "package numa l2 l1 core pu",
    7: "package numa l3 l2 l1 core pu", 8: "package numa l3 l2 l1 l1i core pu",
}  # fmt: skip

LEVEL = re.compile(r"(?:([A-Za-z][A-Za-z0-9]*):)?(\d+)(\([^()]*\))?(?=[ \[]|$)")
ATTACHED = re.compile(r"\[([A-Za-z]+)(?::\d+)?(\([^()]*\))?\]")
SIZE = re.compile(r"(\d+)(?:([kmgt])(i?)b)?", re.IGNORECASE)


class Part(Record):
    """A level, or nodes that are attached to one."""

    kind: str
    width: int  # how many there are on the machine
    indexes: str = ""  # how they are numbered, as it is written; "": in their order
    memory: int | None = None  # the bytes of each node; None: not given


def is_synthetic(text: str) -> bool:
    """Whether a text that names no file can be a machine in this notation."""
    first = text.lstrip()[:1]
    has_form = ":" in text or not text.strip("0123456789 ") or text.startswith("(")
    return has_form and "/" not in text and (first.isalnum() or first in ("(", "["))


def parse_synthetic(text: str) -> Machine:
    """Return the machine. The sizes of its nodes are unknown where no memory= says them. Raises
    TopologyError."""
    levels, attached = parse_parts(text)
    count = levels[-1].width
    numbers = number_parts(levels[-1], levels)
    groups: dict[str, Sequence[int]] = {}
    for level in levels:
        if level.kind in LEVELS:
            groups[level.kind] = [n * level.width // count for n in range(count)]
    nodes = make_nodes(levels, attached, numbers)
    order = sorted(range(count), key=numbers.__getitem__)
    dense = {kind: renumber([group[n] for n in order]) for kind, group in groups.items()}
    node_of: dict[int, int] = {}
    left = CpuSet(numbers)
    for position, node in enumerate(nodes):  # a cpu is on the lowest of its nodes
        near, mine = node.cpus, node.cpus & left
        left -= mine
        node_of |= dict.fromkeys(mine, node.node)
        first = CpuSet() if mine or len(near) == count else CpuSet(node_of[c] for c in near)
        nodes[position] = node.replace(cpus=mine, initiators=first)
    cpus = tuple(
        Cpu(
            numbers[n],
            node=node_of.get(numbers[n]),
            **{LEVELS[kind]: group[position] for kind, group in dense.items()},
        )
        for position, n in enumerate(order)
    )
    everything = CpuSet(numbers)
    topology = Topology(cpus=cpus, nodes=tuple(nodes), possible=everything)
    return Machine(topology, Allowed(everything, topology.node_numbers))


def parse_parts(text: str) -> tuple[list[Part], list[tuple[int, Part]]]:
    """Return the levels, the machine first and hardware threads last, and the attached nodes, each
    with the number of the level that they are attached to. Raises TopologyError."""
    words, machine = text.strip(), Part("machine", 1)
    if words.startswith("("):
        attributes, bracket, words = words[1:].partition(")")
        if not bracket:
            refuse(f"{quote(text)}: a ( without )")
        machine = parse_attributes(machine, attributes)
    levels, attached = [machine], list[tuple[int, Part]]()
    while words := words.lstrip(" "):
        if match := ATTACHED.match(words):
            if read_type(match[1]) != "numa":
                refuse(f"{quote(match[0])}: only nodes can stand in []")
            node = Part("numa", levels[-1].width)
            node = parse_attributes(node, (match[2] or "()")[1:-1])
            attached.append((len(levels) - 1, node))
        elif match := LEVEL.match(words):
            kind = read_type(match[1]) if match[1] else ""
            width = levels[-1].width * int(match[2][:9])
            if not 0 < width < LIMIT:
                refuse(f"{quote(match[0])}: a machine has from 1 to {LIMIT - 1} of these")
            level = Part(kind, width)
            levels.append(parse_attributes(level, (match[3] or "()")[1:-1]))
        else:
            refuse(f"{quote(words, 30)} is not a level")
        words = words[match.end() :]
        if len(levels) > MOST_LEVELS:
            refuse("more levels than any machine has")
    return check_levels(text, levels, attached), attached


def check_levels(text: str, levels: list[Part], attached: Sequence[tuple[int, Part]]) -> list[Part]:
    """Return the levels, each with its kind. Raises TopologyError where they are no machine's."""
    kinds = [level.kind for level in levels[1:]]
    if not kinds:
        refuse(f"{quote(text)} has no level")
    if not any(kinds):
        plain = PLAIN.get(len(kinds), PLAIN[8]).split()
        kinds = ["group"] * (len(kinds) - len(plain)) + plain
        if attached and "numa" in kinds:
            refuse(f"{quote(text)}: name the levels beside nodes in []")
    elif not kinds[-1]:
        kinds[-1] = "pu"
    if "" in kinds:
        refuse(f"{quote(text)} has levels with a name and without one")
    if kinds[-1] != "pu":
        refuse(f"{quote(text)} does not end with the hardware threads of a core, as in pu:2")
    for kind in set(kinds) - {"group", "l1", "l1i"}:
        if kinds.count(kind) > 1:
            refuse(f"{quote(text)} has two levels of {kind}")
    if attached and "numa" in kinds:
        refuse(f"{quote(text)} has nodes as a level and in []")
    named = [level.replace(kind=kind) for level, kind in zip(levels[1:], kinds, strict=True)]
    return [levels[0], *named]


def read_type(word: str) -> str:
    """Return the kind of a level by its name, of which the first letters are enough; caches are
    `l3`, `l2` or, for all that are no level of ours, `l1`. Raises TopologyError."""
    lower = word.lower()
    if cache := re.fullmatch(r"l(\d)([ud]?)(i?)(?:cache)?", lower):
        level = f"l{cache[1]}"
        return level if level in LEVELS and not cache[3] else "l1"
    for name, least in TYPES.items():
        plain = lower.rstrip("0123456789") if name == "group" else lower
        if len(plain) >= least and name.startswith(plain):
            return {"socket": "package", "node": "numa", "numanode": "numa"}.get(name, name)
    return refuse(f"{quote(word)} is not a level: package, numa, die, l3, l2, core, pu, group")


def parse_attributes(part: Part, text: str) -> Part:
    """Return a part with what stands in its brackets. Raises TopologyError."""
    for word in text.split(" "):
        name, _, value = word.partition("=")
        if name == "indexes" and value:
            part = part.replace(indexes=value)
        elif name == "memory" and part.kind in ("numa", "machine", "package", "die", "group"):
            part = part.replace(memory=parse_size(value))
        elif name in ("memory", "size", "memorysidecachesize"):
            parse_size(value)  # of a cache: no plan depends on it
        elif word:
            refuse(f"{quote(word)} is not an attribute: indexes=, memory=, size=")
    return part


def parse_size(text: str) -> int:
    """Return a number of bytes: `17179869184`, `16GB`, `16GiB`. Raises TopologyError."""
    match = SIZE.fullmatch(text[:40])
    if not match:
        refuse(f"{quote(text)} is not a size, as in 16GB")
    power = " kmgt".index((match[2] or " ").lower())
    size: int = int(match[1][:20]) * (1024 if match[3] else 1000) ** power
    return size


def number_parts(part: Part, levels: Sequence[Part]) -> list[int]:
    """Return the number of each of a level's objects, in their order. Raises TopologyError."""
    text, count = part.indexes, part.width
    if not text:
        return list(range(count))
    if not text.strip("0123456789,"):
        numbers = [int(n[:9] or "-1") for n in text.split(",")]
    else:
        loops = read_loops(text, part, levels)
        numbers, factor = [0] * count, 1
        for step, times in loops:
            for n in range(count):
                numbers[n] += n // step % times * factor
            factor *= times
    good = len(numbers) == count == len(set(numbers)) and all(0 <= n < LIMIT for n in numbers)
    if not good:
        refuse(f"indexes={quote(text)} does not number {count} objects, each differently")
    return numbers


def read_loops(text: str, part: Part, levels: Sequence[Part]) -> list[tuple[int, int]]:
    """Return the loops of `2*3:1*2`, or of levels such as `package:core`: step and repetitions, the
    one that changes fastest first. Raises TopologyError."""
    widths = [(level.kind, level.width) for level in levels if level.width <= part.width]
    loops = []
    if text[:1].isdigit():
        for word in text.split(":"):
            match = re.fullmatch(r"(\d{1,9})\*(\d{1,9})", word)
            if not match or not int(match[1]) or not int(match[2]):
                refuse(f"indexes={quote(text)}: {quote(word)} is not a loop, as in 2*4")
            loops.append((int(match[1]), int(match[2])))
    else:
        kinds = [read_type(word) for word in text.split(":")]
        depth = {kind: n for n, (kind, _) in enumerate(widths) if kind != part.kind}
        if len(set(kinds)) < len(kinds) or not set(kinds) <= set(depth):
            refuse(f"indexes={quote(text)}: name levels above this one, each once")
        for kind in kinds:
            above = max((depth[k] for k in kinds if depth[k] < depth[kind]), default=0)
            width = widths[depth[kind]][1]
            loops.append((part.width // width, width // widths[above][1]))
    product = 1
    for _, times in loops:
        product *= times
    missing = part.width // product if product <= part.width else 0
    if missing > 1 and min(step for step, _ in loops) == missing:
        loops.append((1, missing))
    return loops


def make_nodes(
    levels: Sequence[Part], attached: Sequence[tuple[int, Part]], numbers: Sequence[int]
) -> list[Node]:
    """Return the nodes by their numbers, each with all cpus below it. Raises TopologyError."""
    level = next((level for level in levels if level.kind == "numa"), None)
    # Position among the nodes of a machine, as hwloc makes them: what is deeper comes first.
    extents: list[tuple[int, int, int | None]] = []  # first thread's position, threads, memory
    count = len(numbers)
    if level:
        each = count // level.width
        extents = [(n * each, each, level.memory) for n in range(level.width)]
        order = number_parts(level, levels)
    elif attached:
        ends = []
        for place, (depth, node) in enumerate(attached):
            each = count // node.width
            for n in range(node.width):
                ends.append(((n + 1) * each, -depth, place, (n * each, each, node.memory)))
        extents = [entry for *_, entry in sorted(ends, key=lambda end: end[:3])]
        given = next((node.indexes for _, node in attached if node.indexes), "")
        order = number_parts(Part("numa", len(extents), given), levels)
    else:
        extents, order = [(0, count, levels[0].memory)], [0]
    nodes = [
        Node(number, CpuSet(numbers[start : start + each]), memory)
        for number, (start, each, memory) in zip(order, extents, strict=True)
    ]
    return sorted(nodes, key=lambda node: node.node)


def renumber(groups: Sequence[int]) -> list[int]:
    """Return group numbers in the order in which they first come."""
    seen: dict[int, int] = {}
    return [seen.setdefault(group, len(seen)) for group in groups]


def refuse(problem: str) -> NoReturn:
    raise TopologyError(problem, hint=HINT)
