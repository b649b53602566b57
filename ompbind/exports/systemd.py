"""A rank as the lines of a systemd service."""

from __future__ import annotations

from ompbind.exports.export import (
    Export,
    describe,
    lost_memory,
    require_command,
    require_text,
)
from ompbind.messages import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.plans import Plan, RankPlan

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:/@{}")


def make_unit(plan: Plan, ranks: Sequence[RankPlan], find: Callable[[str], str]) -> Export:
    """Return the [Service] section of the only rank (systemd.exec(5)). Raises UsageError."""
    (rank,) = ranks
    require_command("systemd", ranks)
    require_text("systemd", ranks)
    host = f" on {plan.host.name}" if plan.host.name else ""
    lines = [one_line(f"# {describe(rank)}{host}, planned by ompbind"), "[Service]"]
    if rank.cpus:
        # The mask, which the program may change, and the cgroup's limit, which it may not.
        lines += [f"CPUAffinity={rank.cpus}", f"AllowedCPUs={rank.cpus}"]
    # systemd.exec(5) knows no weights, and prefers a single node.
    several = rank.mem == "preferred" and len(rank.mems) > 1
    lost = rank.mem == "weighted-interleave" or several
    if rank.mem != "none" and not lost:
        lines.append(f"NUMAPolicy={rank.mem}")
        lines += [f"NUMAMask={rank.mems}"] if rank.mems else []
    lines += [f"UnsetEnvironment={' '.join(rank.unset)}"] if rank.unset else []
    lines += [f"Environment={quote_word(f'{name}={value}')}" for name, value in rank.env]
    words = [find(rank.command[0]), *rank.command[1:]]
    lines.append(f"ExecStart={' '.join(quote_word(word, command=True) for word in words)}")
    losses = lost_memory(ranks, () if lost else (rank.mem,))
    return Export("".join(f"{line}\n" for line in lines), tuple(losses))


def quote_word(word: str, *, command: bool = False) -> str:
    """Return a word as a unit file has it: in quotes, with % and \\ escaped; in a command $, too
    (systemd.service(5), systemd.syntax(7))."""
    text = "".join(escape(c) for c in word).replace("%", "%%")
    text = text.replace("$", "$$") if command else text
    return text if word and PLAIN.issuperset(word) else f'"{text}"'


def escape(c: str) -> str:
    if c in '"\\':
        return f"\\{c}"
    if c.isprintable():
        return c
    return "".join(f"\\x{byte:02x}" for byte in c.encode())
