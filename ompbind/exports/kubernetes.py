"""A plan as pods of Kubernetes, as far as these express it."""

from __future__ import annotations

from ompbind.exports.export import (
    BOOKKEEPING,
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

INSIDE = "ompbind run in the container plans within the cpus that the kubelet has given it"
POLICIES = (
    "# The kubelet chooses the cpus. They are whole and the pod's alone with cpuManagerPolicy:\n"
    "# static, and on one node with topologyManagerPolicy: single-numa-node; for both a pod needs\n"
    "# requests = limits, of memory, too: fill in ${MEMORY}, as ${IMAGE} (envsubst does).\n"
)


def make_pods(plan: Plan, ranks: Sequence[RankPlan], find: Callable[[str], str]) -> Export:
    """Return a pod for each rank, with as many whole cpus as it has, for requests and limits: the
    Guaranteed class, which alone gets exclusive cpus. Which cpus is the kubelet's to decide, so
    variables that name cpus are left out. Raises UsageError."""
    require_text("k8s", ranks)
    text = introduce(plan, ranks)
    head = len(text)
    text += POLICIES
    named: dict[str, None] = {}  # variables that name cpus, in order
    for number, rank in enumerate(ranks):
        left = [name for name, _ in rank.env if names_cpus(name)]
        named |= dict.fromkeys(left)
        memory = str(rank.need) if rank.need else "${MEMORY}"
        amounts = {"cpu": str(len(rank.cpus)), "memory": memory}
        container: dict[str, Value] = {
            "name": "worker",
            "image": "${IMAGE}",
            "args": [literal(word) for word in rank.command],
            "env": [{"name": k, "value": literal(v)} for k, v in rank.env
                    if k not in (*left, *BOOKKEEPING)],
            "resources": {"requests": amounts, "limits": amounts} if rank.cpus else {},
        }  # fmt: skip
        pod: dict[str, Value] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": title(rank).lower().replace("_", "-")},
            "spec": {"restartPolicy": "Never", "containers": [container]},
        }
        text += "---\n" if number else ""
        text += f"# planned: {describe(rank)}\n{write_map(pod)}"
    losses = ["which cpus and node a rank gets", *lost_memory(ranks), *lost_devices(ranks)]
    losses += [f"variables that name cpus ({', '.join(named)})"] if named else []
    return Export(text, tuple(losses), INSIDE, head=head)


def names_cpus(name: str) -> bool:
    """Whether a planned variable's value has numbers of cpus."""
    return name == "OMP_PLACES" or name.startswith("OMPBIND_ROLE_")


def literal(text: str) -> str:
    """Return a text in which Kubernetes finds no $(VARIABLE)."""
    return text.replace("$", "$$")
