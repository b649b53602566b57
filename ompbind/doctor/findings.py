"""Judge facts: what this machine, container or job allows, and what reduces performance. Pure.

Sources of the remedies: numactl(8), the kernel's admin-guide, and the measurements in docs/.
"""

from __future__ import annotations

from ompbind.doctor.pools import EXCLUSIVE, SHARED
from ompbind.host.restrictions import RESETTABLE
from ompbind.messages import counted
from ompbind.plans import Task, describe_numbers
from ompbind.record import Record
from ompbind.worker.libraries import LIBRARIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ompbind.doctor.allocator import Allocator
    from ompbind.host.kernel import KernelSettings
    from ompbind.machine.topology import Machine
    from ompbind.plans import Inherited
    from ompbind.worker.runtimes import Runtime

# The variables by which servers bind their CPU workers.
WORKER_BINDING = {"VLLM_CPU_OMP_THREADS_BIND": "vLLM", "SGLANG_CPU_OMP_THREADS_BIND": "SGLang"}

# Of the kernel's words for SMT those that would be misread.
SMT = {"notimplemented": "this kernel cannot switch it", "notsupported": "the cpus have none"}

# Packages whose pools follow OMP_NUM_THREADS, and the fix that lets them divide it.
POOLS = {"joblib": "joblib-threads", "sklearn": "joblib-threads", "distributed": "dask-threads",
         "dask": "dask-threads"}  # fmt: skip
OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"


class Facts(Record):
    """What is known about this machine, and about a command."""

    machine: Machine
    settings: KernelSettings
    restrictions: tuple[Inherited, ...] = ()
    variables: tuple[Inherited, ...] = ()
    denied: tuple[tuple[str, str], ...] = ()  # (system call, reason) of those that were tried
    numactl: str = ""  # its path; "": not installed
    numactl_problem: str = ""  # why it does not bind
    # Variables by which servers bind their CPU workers, with their values.
    worker_binding: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    server: str = ""  # what it is called if it starts and binds workers of its own
    kind: str = ""  # of the command, as in worker.runtimes
    runtimes: tuple[Runtime, ...] = ()  # the OpenMP runtimes of the command
    packages: tuple[str, ...] = ()  # imported by the command, and examined
    required: int = 0  # the number of packages that those require, examined too
    allocator: Allocator | None = None  # of the command
    missing: tuple[str, ...] = ()  # imported by the command, but not found
    task: Task = Task()  # the engine's rank that this process is
    pool: str = ""  # of a container of Kubernetes, as in `pools`


class Finding(Record):
    """A judgement, and what to do about it."""

    about: str
    status: str  # "ok", "note", "warning", or "problem", which prevents binding
    text: str
    remedy: str = ""


def examine(facts: Facts) -> list[Finding]:
    """Return all findings, in the order in which they matter to a launch."""
    parts: tuple[Callable[[Facts], list[Finding]], ...] = (
        judge_calls, judge_numactl, judge_allowed, judge_kernel, judge_system, judge_variables,
        judge_worker_binding, judge_runtimes, judge_allocator,
        judge_pool_processes, judge_pool, judge_engine,
    )  # fmt: skip
    return [finding for judge in parts for finding in judge(facts)]


def prevents(findings: list[Finding]) -> bool:
    """Whether something prevents binding."""
    return any(f.status == PROBLEM for f in findings)


def to_json(findings: list[Finding]) -> str:
    """Return the findings as a JSON object that ends in a newline."""
    import json

    rows = [
        {"about": f.about, "status": f.status, "found": f.text, "remedy": f.remedy}
        for f in findings
    ]
    data = {"schema": 1, "binds": not prevents(findings), "findings": rows}
    return json.dumps(data, indent=1) + "\n"


def judge_pool(facts: Facts) -> list[Finding]:
    if facts.pool == EXCLUSIVE:
        return [Finding("Kubernetes", OK, "this container has cpus of its own")]
    if facts.pool != SHARED:
        return []
    text = (
        "this container is in the shared pool: other containers run on its cpus, and the kubelet "
        "may take some away at any time"
    )
    remedy = (
        "run one rank without narrowing it (no --cores-per-rank, no --part); the static CPU "
        "manager policy, the Guaranteed class and whole cpus give a container cpus of its own"
    )
    return [Finding("Kubernetes", WARNING, text, remedy)]


def judge_pool_processes(facts: Facts) -> list[Finding]:
    packages = [name for name in POOLS if name in facts.packages]
    return [
        Finding("pool", NOTE, f"{name}'s processes would each have all OpenMP threads of the rank",
                f"--fix {POOLS[name]}, or --threads 1")
        for name in packages
    ]  # fmt: skip


def judge_engine(facts: Facts) -> list[Finding]:
    task = facts.task
    passed_over = "; ".join(f"{name} is passed over: {why}" for name, why in task.passed_over)
    if not task:
        return [Finding("engine", OK, passed_over)] if passed_over else []
    text = f"{task.label}, {describe_numbers(task)}: {task.by}"
    return [Finding("engine", OK, "; ".join(filter(None, (text, passed_over))))]


def judge_calls(facts: Facts) -> list[Finding]:
    if not facts.machine.can_bind:
        return [Finding("binding", PROBLEM, "this system cannot bind processes to cpus or memory",
                        "none; workers still get the OpenMP variables of a plan")]  # fmt: skip
    denied = dict(facts.denied)
    findings = []
    remedies = {
        "sched_setaffinity": "allow it in the container's seccomp profile, or use "
        "--on-denied degrade, which leaves ranks unbound",
        "set_mempolicy": "allow it in the container's seccomp profile (docker: --cap-add "
        "SYS_NICE), or use --mem none or --on-denied degrade",
    }
    for call, remedy in remedies.items():
        if call == "set_mempolicy" and not facts.machine.topology.numa:
            text = "this kernel has no NUMA, so there is no memory policy to set"
            findings.append(Finding(call, NOTE, text))
        elif call in denied:
            findings.append(Finding(call, PROBLEM, f"denied: {denied[call]}", remedy))
        else:
            findings.append(Finding(call, OK, "permitted: tried in a child process"))
    return findings


def judge_numactl(facts: Facts) -> list[Finding]:
    if not facts.numactl:
        remedy = "none needed: the same system calls are made without it"
        return [Finding("numactl", NOTE, "not installed", remedy)]
    if facts.denied:
        return [
            Finding("numactl", NOTE, f"{facts.numactl}; not tried, as the kernel denies binding")
        ]
    if facts.numactl_problem:
        text = f"{facts.numactl} does not bind here: {facts.numactl_problem}"
        return [Finding("numactl", WARNING, text, "--binder native binds without it")]
    return [Finding("numactl", OK, f"{facts.numactl} binds")]


def judge_allowed(facts: Facts) -> list[Finding]:
    topology, allowed = facts.machine.topology, facts.machine.allowed
    cpus = f"{allowed.cpus}, {len(allowed.cpus)} of {len(topology.online)}"
    findings = [Finding("allowed cpus", OK if allowed.cpus else PROBLEM, cpus)]
    for r in facts.restrictions:
        remedy = "start ompbind without it, or use --inherited ignore"
        if r.name not in RESETTABLE:
            remedy = "change the cgroup; plans stay within it"
        findings.append(Finding(r.name, NOTE, f"restricted to {r.value}, by {r.why}", remedy))
    if allowed.quota is not None:
        short = allowed.quota < len(allowed.cpus)
        text = f"{allowed.quota:g} cpus' worth of time for {len(allowed.cpus)} allowed cpus"
        remedy = (
            "raise the quota (cpu.max, docker --cpus) or use fewer ranks; threads are limited to it"
        )
        findings.append(Finding("cpu quota", WARNING if short else OK, text, remedy * short))
    if all(c.core is None for c in topology.cpus[1:]) and topology.cpus[1:]:
        findings.append(Finding("cores", WARNING, "the system hides which cpus share a core",
                                "let the container see its sys"))  # fmt: skip
    if topology.isolated:
        used = topology.isolated & allowed.cpus
        text = f"{topology.isolated}; plans may use {used or 'none'} of them"
        remedy = f"--exclude {used}, unless they are for these workers" if used else ""
        findings.append(Finding("isolated cpus", WARNING if used else OK, text, remedy))
    if topology.offline:
        remedy = "if unintended, chcpu --enable brings them online"
        findings.append(Finding("offline cpus", NOTE, str(topology.offline), remedy))
    return findings


def judge_kernel(facts: Facts) -> list[Finding]:
    settings, several = facts.settings, len(facts.machine.topology.nodes) > 1
    findings = []
    if settings.numa_balancing is not None:
        on = settings.numa_balancing not in ("0", "") and several
        remedy = "use --numa-bind or --mem bind, or sysctl kernel.numa_balancing=0"
        text = f"kernel.numa_balancing={settings.numa_balancing}"
        text += ": pages of ranks without a memory policy are migrated" if on else ""
        findings.append(Finding("NUMA balancing", WARNING if on else OK, text, remedy * on))
    if settings.zone_reclaim is not None:
        on = settings.zone_reclaim not in ("0", "") and several
        text = f"vm.zone_reclaim_mode={settings.zone_reclaim}"
        text += ": caches are dropped before memory of another node is used" if on else ""
        remedy = "sysctl vm.zone_reclaim_mode=0, unless all data is local"
        findings.append(Finding("zone reclaim", WARNING if on else OK, text, remedy * on))
    if settings.huge_pages is not None:
        never = settings.huge_pages == "never"
        remedy = "for large arrays, set madvise in transparent_hugepage/enabled"
        findings.append(
            Finding(
                "transparent huge pages", NOTE if never else OK, settings.huge_pages, remedy * never
            )
        )
    return findings


def judge_system(facts: Facts) -> list[Finding]:
    settings = facts.settings
    findings = []
    if settings.smt is not None:
        threads = facts.machine.topology.groups("core")
        count = max((len(core) for core in threads), default=1)
        text = f"{SMT.get(settings.smt, settings.smt)}; {counted(count, 'hardware thread')} a core"
        findings.append(Finding("SMT", OK, text + ("; plans use one" if count > 1 else "")))
    if settings.governors:
        slow = [g for g in settings.governors if g in ("powersave", "conservative", "ondemand")]
        remedy = "cpupower frequency-set -g performance (powersave is fine with intel_pstate)"
        text = ", ".join(settings.governors)
        findings.append(Finding("CPU governor", NOTE if slow else OK, text, remedy * bool(slow)))
    if settings.irqbalance:
        remedy = (
            "set IRQBALANCE_BANNED_CPULIST to the workers' cpus, and --reserve cores for the rest"
        )
        text = "running: it may move interrupts to the workers' cpus"
        findings.append(Finding("irqbalance", NOTE, text, remedy))
    return findings


def judge_variables(facts: Facts) -> list[Finding]:
    findings = []
    for v in facts.variables:
        bad = v.action != "respected"
        remedy = f"unset {v.name}; with ompbind run it is {v.action}" if bad else ""
        text = f"{v.name}={v.value}: {v.why}"
        findings.append(Finding("environment", WARNING if bad else NOTE, text, remedy))
    return findings or [Finding("environment", OK, "no OpenMP variable that overrides a plan")]


def judge_worker_binding(facts: Facts) -> list[Finding]:
    """Return notes on variables that bind the workers of a server, not the server."""
    findings = []
    for name, value in facts.worker_binding:
        if not facts.command or facts.server:
            who = facts.server or WORKER_BINDING[name]
            text = f"{name}={value}: {who} binds its workers by it"
            remedy = "ompbind run leaves that to it"
        else:
            text = f"{name}={value}: if the command binds workers by it, a plan's OpenMP variables "
            text += "override that"
            remedy = "--omp off leaves OpenMP's variables alone"
        if name.startswith("VLLM_"):
            remedy += "; --from-env vllm plans by it instead"
        findings.append(Finding("workers' binding", NOTE, text, remedy))
    return findings


def judge_runtimes(facts: Facts) -> list[Finding]:
    if not facts.command:
        return []
    packages = f" and those of {', '.join(facts.packages)}" if facts.packages else ""
    if facts.required:
        packages += f", with {counted(facts.required, 'package')} required"
    findings = []
    for r in facts.runtimes:
        via = f", through {r.via}" if r.via else ""
        findings.append(Finding("OpenMP runtime", OK, f"{r.name}: {r.path or 'not found'}{via}"))
    if not facts.runtimes:
        findings.append(Finding("OpenMP runtime", NOTE, f"none among its files{packages}"))
    if len(facts.runtimes) > 1:
        text = f"{len(facts.runtimes)} in one process: the first binds the main thread, the next "
        remedy = "use --places one (the default for Python), or one runtime only, by LD_PRELOAD"
        status = WARNING
        if facts.server:
            status, remedy = NOTE, f"none needed: ompbind run sets no places for {facts.server}"
        findings.append(Finding("OpenMP runtimes", status, text + "sees one cpu", remedy))
    if facts.missing:
        text = f"not found without starting it: {', '.join(facts.missing)}"
        findings.append(Finding("imports", NOTE, text))
    return findings


def judge_allocator(facts: Facts) -> list[Finding]:
    """Return what is known of a command's allocator: the C library's shares arenas between threads,
    which costs servers and Python programs that allocate much."""
    allocator = facts.allocator
    if allocator is None:
        return []
    name = allocator.name
    if allocator.problem:
        text = f"{name} by LD_PRELOAD: {allocator.path} {allocator.problem}, and is ignored"
        remedy = f"--preload {name} finds one, and refuses what would not load"
        return [Finding("allocator", WARNING, text, remedy)]
    if name:
        how = " by LD_PRELOAD" if allocator.preloaded else ", which the program needs"
        return [Finding("allocator", OK, f"{name}{how}: {allocator.path}")]
    if allocator.hidden:
        text = "its own or the C library's: the program is statically linked"
        return [Finding("allocator", NOTE, text)]
    text = "the C library's"
    if facts.kind != "python":
        return [Finding("allocator", OK, text)]
    if allocator.available:
        text += f"; tcmalloc is here: {allocator.available}"
        remedy = "--preload tcmalloc for a server on cpus"
    else:
        text += "; tcmalloc is not installed"
        remedy = f"for a server on cpus: {LIBRARIES['tcmalloc'].hint}; then --preload tcmalloc"
    return [Finding("allocator", NOTE if facts.server else OK, text, remedy * bool(facts.server))]
