"""What ranks share, in words."""

from __future__ import annotations

from ompbind.cpuset import label_numbers, union
from ompbind.messages import counted, label
from ompbind.planner.sharing import CPU, MEMORY, find_sharing, list_holders, order_levels
from ompbind.render.outline import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Machine, Topology
    from ompbind.planner.sharing import Sharing
    from ompbind.plans import Plan

MOST = 3  # sets of ranks that are written out


def describe_sharing(plan: Plan, machine: Machine | None) -> list[str]:
    """Return a line on what the ranks share; none where that is nothing, or not known."""
    clauses = [] if machine is None else make_clauses(plan, machine.topology)
    if not clauses:
        return []
    (who, parts), *rest = clauses
    first = f"all {make_noun(plan)}s" if who == "all" else f"{make_noun(plan)}s {who}"
    more = (f"all share {parts}" if who == "all" else f"{who} {parts}" for who, parts in rest)
    return ["; ".join([f"{first} share {parts}", *more])]


def explain_sharing(plan: Plan, machine: Machine | None) -> list[str]:
    """Return the same as a sentence for each level, with numbers, for an explanation; of ranks that
    share nothing, that they do."""
    if machine is None or not list_holders(plan)[1:]:
        return []
    noun = make_noun(plan)
    sentences = [
        f"{f'All {noun}s' if who == 'all' else f'{noun.capitalize()}s {who}'} share {parts}."
        for who, parts in make_clauses(plan, machine.topology, numbered=True)
    ]
    return sentences or [f"The {noun}s share no {list_levels(machine.topology)}."]


def make_noun(plan: Plan) -> str:
    return "rank" if plan.server is None else "worker"


def make_clauses(
    plan: Plan, topology: Topology, *, numbered: bool = False
) -> list[tuple[str, str]]:
    """Return who shares which parts of the machine: `("0-1 and 2-3", "an L3 each")`, the smallest
    parts first. `numbered`: with the numbers of parts of which there are few."""
    names = {holder.number: holder.number for holder in list_holders(plan)}
    if plan.server is None:
        names = {r.rank: r.number for r in plan.ranks}
    kinds: dict[tuple[str, int], list[Sharing]] = {}
    for sharing in find_sharing(plan, topology):
        count = 0 if sharing.level == CPU else len(sharing.numbers)
        kinds.setdefault((sharing.level, count), []).append(sharing)
    clauses = []
    for (level, count), entries in kinds.items():
        sets = [[names[n] for n in entry.ranks] for entry in entries]
        who = "all" if len(sets[0]) == len(names) else join_sets(sets)
        parts = name_parts(level, count, entries, topology)
        if numbered and level != CPU and len(entries) <= MOST:
            noun = "node" if level == MEMORY else NAMES.get(level, level)
            parts += f" ({label(noun, union(entry.numbers for entry in entries))})"
        clauses.append((who, parts))
    return clauses


def name_parts(level: str, count: int, entries: Sequence[Sharing], topology: Topology) -> str:
    """Return what each of these sets of ranks shares, `count` parts of the machine at a level."""
    each = " each" if entries[1:] else ""
    if level == CPU:
        return "the same cpus" if each else label("cpu", entries[0].numbers)
    if level == MEMORY:
        if not topology.nodes[1:]:
            return "the machine's memory"
        if count > 1:
            return f"the memory of {count} nodes{each}"
        alike = topology.groups("node") == topology.groups("package")
        return f"a {'package' if alike else 'node'}'s memory{each}"
    noun = NAMES.get(level, level)
    article = "an" if noun in ("L2", "L3") else "a"
    return f"{article} {noun}{each}" if count == 1 else f"{counted(count, noun)}{each}"


def list_levels(topology: Topology) -> str:
    """Return the levels at which ranks could have met: `core, L3 or memory`."""
    levels = ("core", "l2", "l3", "node", "package")
    known = [NAMES.get(lv, lv) for lv in levels if lv in order_levels(topology)]
    known = ["memory" if name == "node" else name for name in known] or ["cpu"]
    return " or ".join([", ".join(known[:-1]), known[-1]] if known[1:] else known)


def join_sets(sets: Sequence[Sequence[int]]) -> str:
    """Return sets of ranks: `0-1 and 2-3`, `0-1, 2-3 … 62-63`."""
    texts = [label_numbers("", ranks).split()[-1] for ranks in sets]
    if len(texts) == 1:
        return texts[0]
    texts = [text.replace(",", "+") for text in texts]
    if len(texts) > MOST:
        return f"{', '.join(texts[: 1 if '+' in texts[1] else 2])} … {texts[-1]}"
    return f"{', '.join(texts[:-1])} and {texts[-1]}"
