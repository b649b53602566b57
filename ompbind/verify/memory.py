"""A process's memory against its plan: the policy, and the nodes of its pages. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.messages import format_size, label
from ompbind.plans import describe_policy
from ompbind.verify.report import Difference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ompbind.machine.processes import Memory, Process
    from ompbind.verify.expected import Expected
    from ompbind.verify.observation import Observation

# How kernels of any age write each of our policies.
KERNEL_WORDS = {
    "bind": ("bind",),
    "preferred": ("prefer", "prefer (many)"),
    "interleave": ("interleave",),
    "weighted-interleave": ("weighted interleave",),
    "local": ("local", "prefer"),
}
# Pages on the wrong node are ignored below this share of the memory, and below these bytes.
MIN_SHARE, MIN_BYTES = 0.01, 256 << 10
MIN_FILE_BYTES = 16 << 20  # of a file, below which it is no more than a library
MAX_FILES = 3  # that are named


def judge_memory(observation: Observation) -> Iterator[Difference | str]:
    """Yield differences and notes (str) about the policy and the pages of private memory; pages of
    files are where their first reader put them."""
    expected, memory = observation.expected, observation.process.memory
    if expected.mem == "none":
        return
    plan = describe_policy(expected.mem, expected.mems, balancing=expected.balancing)
    if memory is None:
        if dict(observation.process.unreadable).get("memory"):
            yield unreadable(observation.process, "memory", f"{plan} cannot be verified")
        return
    if not expected.rebound and not is_same_policy(memory.policy, expected):
        yield other_policy(observation, memory, plan)
    elif others := {policy: 0 for policy, _, _ in memory.private if policy != memory.policy}:
        for policy, _, size in memory.private:
            if policy in others:
                others[policy] += size
        sizes = ", ".join(f"{format_size(size)} {policy}" for policy, size in others.items())
        yield f"the program set another policy for some of its memory: {sizes}"
    if expected.mem != "local":
        yield from judge_pages(observation, memory, plan)
        yield from judge_files(observation.expected.mems, memory)


def judge_files(mems: CpuSet, memory: Memory) -> Iterator[str]:
    """Yield a note on each large file that lies on other nodes than the rank's memory: the first
    reader of a page has put it there, and all others read it from afar."""
    sizes: dict[str, tuple[int, int]] = {}
    for path, node, size in memory.mapped:
        total, wrong = sizes.get(path, (0, 0))
        sizes[path] = total + size, wrong + (size if node not in mems else 0)
    far = [(wrong, total, path) for path, (total, wrong) in sizes.items()
           if wrong >= max(MIN_FILE_BYTES, MIN_SHARE * total)]  # fmt: skip
    for wrong, total, path in sorted(far, reverse=True)[:MAX_FILES]:
        nodes = CpuSet(node for name, node, _ in memory.mapped if name == path and node not in mems)
        yield (
            f"{format_size(wrong)} of the file {path} ({wrong / total:.0%} of what is mapped) is "
            f"on {label('node', nodes)}, the rank's memory on {mems}: ompbind run --warm FILE puts "
            "it there"
        )


def judge_pages(observation: Observation, memory: Memory, plan: str) -> Iterator[Difference | str]:
    """Yield the difference, or the note, about pages on other nodes than the plan's."""
    mems = observation.expected.mems
    pages = [(node, size) for policy, node, size in memory.private if policy == memory.policy]
    total = sum(size for _, size in pages)
    misplaced = [(node, size) for node, size in pages if node not in mems]
    wrong = sum(size for _, size in misplaced)
    if wrong < MIN_BYTES or wrong < MIN_SHARE * total:
        return
    nodes = CpuSet(node for node, _ in misplaced)
    text = (
        f"{format_size(wrong)} of its memory ({wrong / total:.0%}) is on {label('node', nodes)}; "
        f"the plan says {plan}"
    )
    if observation.expected.mem == "preferred":
        full = "was" if len(mems) == 1 else "were"
        yield f"{text}: {label('node', mems)} {full} full, or the pages were migrated"
        return
    yield Difference(
        "memory",
        text,
        "the pages were migrated (migratepages, a cgroup's memory_migrate), or first touched "
        "under another policy",
        f"migratepages {observation.pid} {nodes} {mems} brings them back",
    )


def is_same_policy(text: str, expected: Expected) -> bool:
    """Whether the kernel's `bind=static:0` is the planned policy."""
    head, _, nodes = text.partition(":")
    word, equals, flags = head.partition("=")
    # Kernels before 6.12 write nothing after the = for it.
    balancing = bool(equals) and flags not in ("static", "relative")
    return (
        word in KERNEL_WORDS[expected.mem]
        and nodes == str(expected.mems)
        and balancing == expected.balancing
    )


def other_policy(observation: Observation, memory: Memory, plan: str) -> Difference:
    mems = observation.process.mems
    if mems is not None and not observation.expected.mems <= mems:
        cause = (
            "the process's cgroup no longer allows all nodes of the plan: it may use memory of "
            f"{mems}"
        )
        remedy = "return these nodes to the cgroup and restart it"
    else:
        cause = "the program set another policy itself (set_mempolicy, libnuma), or none was set"
        remedy = "look for numa_set_… and set_mempolicy in the program, or restart it"
    text = f"its memory policy is {memory.policy or 'unknown'}; the plan says {plan}"
    return Difference("policy", text, cause, remedy)


def unreadable(process: Process, part: str, consequence: str) -> Difference:
    """Return the difference for a part of a process that this user may not read."""
    reason = dict(process.unreadable).get(part, "it has exited")
    if part == "environment" and process.overwritten:
        return Difference(
            "unseen",
            f"it has written over its environment, so {consequence}",
            "setproctitle and the like put a process's new name there; neither its parents nor "
            "what it has started say which rank it is",
            "--plan FILE gives its plan; ompbind run --env SPT_NOENV=1 keeps setproctitle from it",
        )
    owner = "" if process.user is None else f"; the process belongs to user {process.user}"
    return Difference(
        "unseen",
        f"its {part} cannot be read ({reason}), so {consequence}",
        f"the kernel shows it only to the process's own user and to root{owner}",
        "run ompbind verify as that user or as root",
    )
