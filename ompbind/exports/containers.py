"""A plan as containers: commands of docker (podman takes the same), services of compose."""

from __future__ import annotations

import shlex

from ompbind.exports.export import (
    Export,
    describe,
    introduce,
    lost_devices,
    lost_memory,
    require_text,
    title,
)
from ompbind.exports.yaml import write_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.exports.yaml import Value
    from ompbind.plans import Plan, RankPlan


def make_docker(plan: Plan, ranks: Sequence[RankPlan], find: Callable[[str], str]) -> Export:
    """Return a line for each rank, which a shell takes; $IMAGE is for the reader to set.

    A cpuset is stricter than a mask: what the container starts cannot leave it. Nodes are limited
    where memory is bound to them.
    """
    text = ""
    for rank in ranks:
        words = ["docker", "run"]
        words += [f"--cpuset-cpus={rank.cpus}"] if rank.cpus else []
        words += [f"--cpuset-mems={rank.mems}"] if rank.mem == "bind" else []
        for name, value in rank.env:
            words += ["-e", f"{name}={value}"]
        text += f'{shlex.join(words)} "${{IMAGE:?names the image}}"'
        text += f" {shlex.join(rank.command)}\n" if rank.command else "\n"
    losses = lost_memory(ranks, ["bind"]) + lost_devices(ranks)
    return Export(text, tuple(losses), hint_at_inside(losses), comment=False)


def make_compose(plan: Plan, ranks: Sequence[RankPlan], find: Callable[[str], str]) -> Export:
    """Return a compose file with a service for each rank; $IMAGE is for the reader to set. Raises
    UsageError."""
    require_text("compose", ranks)
    text = introduce(plan, ranks)
    head = len(text)
    text += "services:\n"
    for rank in ranks:
        text += f"  # {describe(rank)}\n  {title(rank)}:\n"
        service: dict[str, Value] = {
            "image": "${IMAGE:?names the image}",
            **({"cpuset": str(rank.cpus)} if rank.cpus else {}),
            "environment": {name: literal(value) for name, value in rank.env},
            "command": [literal(word) for word in rank.command],
        }
        text += write_map(service, 4)
    losses = lost_memory(ranks) + lost_devices(ranks)
    return Export(text, tuple(losses), hint_at_inside(losses), head=head)


def literal(text: str) -> str:
    """Return a text in which compose finds no variable."""
    return text.replace("$", "$$")


def hint_at_inside(losses: Sequence[str]) -> str:
    """Return how a container gets what its options do not give."""
    if any(loss.startswith("memory") for loss in losses):
        return "ompbind run in the container sets memory policies, with --cap-add SYS_NICE"
    return "--gpus, or deploy.resources in compose, gives a container devices"
