"""What this machine, container or job allows, and what spoils performance: facts to findings; pure.

The remedies' sources: numactl(8), the kernel's admin-guide, and what docs/ of ours measured.
"""

from __future__ import annotations

from ompbind.messages import counted
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ompbind.host.kernel import Conditions
    from ompbind.machine.topology import Machine
    from ompbind.plans import Inherited
    from ompbind.worker.runtimes import Runtime

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"


class Facts(Record):
    """What was found. `refused`: the system calls that were tried in vain, and why; `numactl`: its
    path ("": not installed), `numactl_said`: what it said against binding; `command`: what the
    runtimes are those of, `packages` the imported ones that were looked into; `unread`: imported
    ones that were not found."""

    machine: Machine
    conditions: Conditions
    narrowed: tuple[Inherited, ...] = ()
    variables: tuple[Inherited, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    numactl: str = ""
    numactl_said: str = ""
    command: tuple[str, ...] = ()
    kind: str = ""
    runtimes: tuple[Runtime, ...] = ()
    packages: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


class Finding(Record):
    """`about` what, "ok", "note", "warning" or "problem" (it prevents binding), and a remedy."""

    about: str
    status: str
    found: str
    remedy: str = ""


def examine(facts: Facts) -> list[Finding]:
    """All findings, in the order in which they matter to a launch."""
    parts: tuple[Callable[[Facts], list[Finding]], ...] = (
        judge_calls, judge_numactl, judge_allowed, judge_kernel, judge_system, judge_variables,
        judge_runtimes,
    )  # fmt: skip
    return [finding for judge in parts for finding in judge(facts)]


def prevents(findings: list[Finding]) -> bool:
    """Whether something prevents binding."""
    return any(f.status == PROBLEM for f in findings)


def to_json(findings: list[Finding]) -> str:
    """The findings as an object, as text that ends in a newline."""
    import json

    told = [
        {"about": f.about, "status": f.status, "found": f.found, "remedy": f.remedy}
        for f in findings
    ]
    data = {"schema": 1, "binds": not prevents(findings), "findings": told}
    return json.dumps(data, indent=1) + "\n"


def judge_calls(facts: Facts) -> list[Finding]:
    if not facts.machine.can_bind:
        return [Finding("binding", PROBLEM, "this system binds no process to cpus or memory",
                        "the OpenMP variables of a plan still reach the workers")]  # fmt: skip
    refused = dict(facts.refused)
    findings = []
    remedies = {
        "sched_setaffinity": "allow it in the container's seccomp profile, or "
        "--on-denied degrade, which leaves cpus unbound",
        "set_mempolicy": "allow it in the container's seccomp profile (docker: --cap-add "
        "SYS_NICE), or --mem none, or --on-denied degrade",
    }
    for call, remedy in remedies.items():
        if call == "set_mempolicy" and not facts.machine.topology.numa:
            found = "this kernel has no NUMA: there is no memory policy to set"
            findings.append(Finding(call, NOTE, found))
        elif call in refused:
            findings.append(Finding(call, PROBLEM, f"refused: {refused[call]}", remedy))
        else:
            findings.append(Finding(call, OK, "permitted: tried in a process of its own"))
    return findings


def judge_numactl(facts: Facts) -> list[Finding]:
    if not facts.numactl:
        remedy = "nothing need be done: the same system calls are made without it"
        return [Finding("numactl", NOTE, "not installed", remedy)]
    if facts.refused:
        return [Finding("numactl", NOTE, f"{facts.numactl}; not tried, as the kernel refuses")]
    if facts.numactl_said:
        found = f"{facts.numactl} does not bind here: {facts.numactl_said}"
        return [Finding("numactl", WARNING, found, "--binder native binds without it")]
    return [Finding("numactl", OK, f"{facts.numactl} binds")]


def judge_allowed(facts: Facts) -> list[Finding]:
    topology, allowed = facts.machine.topology, facts.machine.allowed
    cpus = f"{allowed.cpus}, {len(allowed.cpus)} of {len(topology.online)}"
    findings = [Finding("allowed cpus", OK if allowed.cpus else PROBLEM, cpus)]
    for n in facts.narrowed:
        remedy = "start ompbind without it, or --inherited ignore"
        if n.name in ("cpuset", "memory nodes"):
            remedy = "whoever made the cgroup decides; plans stay inside"
        findings.append(Finding(n.name, NOTE, f"{n.value} is left, by {n.why}", remedy))
    if allowed.quota is not None:
        short = allowed.quota < len(allowed.cpus)
        found = f"{allowed.quota:g} cpus' worth of time for {len(allowed.cpus)} allowed cpus"
        remedy = "threads follow the quota; raise it (cpu.max, docker --cpus), or fewer ranks"
        findings.append(Finding("cpu quota", WARNING if short else OK, found, remedy * short))
    if all(c.core is None for c in topology.cpus[1:]) and topology.cpus[1:]:
        findings.append(Finding("cores", WARNING, "which cpus share a core is hidden",
                                "let the container see it (/sys is hidden)"))  # fmt: skip
    if topology.isolated:
        used = topology.isolated & allowed.cpus
        found = f"{topology.isolated}; plans may use {used or 'none'} of them"
        remedy = f"--exclude {used}, unless they are meant for these workers" if used else ""
        findings.append(Finding("isolated cpus", WARNING if used else OK, found, remedy))
    if topology.offline:
        remedy = "chcpu --enable puts them on, where that is not meant"
        findings.append(Finding("offline cpus", NOTE, str(topology.offline), remedy))
    return findings


def judge_kernel(facts: Facts) -> list[Finding]:
    c, several = facts.conditions, len(facts.machine.topology.nodes) > 1
    findings = []
    if c.numa_balancing is not None:
        on = c.numa_balancing not in ("0", "") and several
        remedy = "--numa-bind or --mem bind; or sysctl kernel.numa_balancing=0"
        found = f"kernel.numa_balancing={c.numa_balancing}"
        found += ": pages of ranks without a memory policy are moved about" if on else ""
        findings.append(Finding("NUMA balancing", WARNING if on else OK, found, remedy * on))
    if c.zone_reclaim is not None:
        on = c.zone_reclaim not in ("0", "") and several
        found = f"vm.zone_reclaim_mode={c.zone_reclaim}"
        found += ": caches are dropped before another node's memory is used" if on else ""
        remedy = "sysctl vm.zone_reclaim_mode=0, unless all data are local"
        findings.append(Finding("zone reclaim", WARNING if on else OK, found, remedy * on))
    if c.huge_pages is not None:
        never = c.huge_pages == "never"
        remedy = "madvise in transparent_hugepage/enabled, for large arrays"
        findings.append(
            Finding("transparent huge pages", NOTE if never else OK, c.huge_pages, remedy * never)
        )
    return findings


def judge_system(facts: Facts) -> list[Finding]:
    c = facts.conditions
    findings = []
    if c.smt is not None:
        threads = facts.machine.topology.groups("core")
        most = max((len(core) for core in threads), default=1)
        found = f"{c.smt}; {counted(most, 'hardware thread')} a core"
        findings.append(Finding("SMT", OK, found + ("; plans use one" if most > 1 else "")))
    if c.governors:
        slow = [g for g in c.governors if g in ("powersave", "conservative", "ondemand")]
        remedy = "cpupower frequency-set -g performance (powersave is fine with intel_pstate)"
        found = ", ".join(c.governors)
        findings.append(Finding("CPU governor", NOTE if slow else OK, found, remedy * bool(slow)))
    if c.irqbalance:
        remedy = "IRQBALANCE_BANNED_CPULIST for the workers' cpus, with --reserve for the rest"
        found = "runs: it may move interrupts onto the workers' cpus"
        findings.append(Finding("irqbalance", NOTE, found, remedy))
    return findings


def judge_variables(facts: Facts) -> list[Finding]:
    findings = []
    for v in facts.variables:
        bad = v.action != "respected"
        remedy = f"unset {v.name}; ompbind run has it {v.action}" if bad else ""
        found = f"{v.name}={v.value}: {v.why}"
        findings.append(Finding("environment", WARNING if bad else NOTE, found, remedy))
    return findings or [Finding("environment", OK, "no OpenMP variable that defeats a plan")]


def judge_runtimes(facts: Facts) -> list[Finding]:
    if not facts.command:
        return []
    where = f" and of {', '.join(facts.packages)}" if facts.packages else ""
    findings = []
    for r in facts.runtimes:
        via = f", through {r.via}" if r.via else ""
        findings.append(Finding("OpenMP runtime", OK, f"{r.name}: {r.path or 'not found'}{via}"))
    if not facts.runtimes:
        findings.append(Finding("OpenMP runtime", NOTE, f"none among the files of it{where}"))
    if len(facts.runtimes) > 1:
        found = f"{len(facts.runtimes)} in one process: the first binds the main thread, the next "
        remedy = "--places one (the default for Python) survives it; or one runtime, by LD_PRELOAD"
        findings.append(Finding("OpenMP runtimes", WARNING, found + "sees one cpu", remedy))
    if facts.unread:
        found = f"not found without starting it: {', '.join(facts.unread)}"
        findings.append(Finding("imports", NOTE, found))
    return findings
