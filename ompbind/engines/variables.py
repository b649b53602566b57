"""What --master-port and --master-addr mean under an engine: the ranks of all nodes must find the
same address and port, and what torchrun has set stays."""

from __future__ import annotations

from ompbind.errors import ParseError, UsageError
from ompbind.hostlist import first_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.engines import Found
    from ompbind.plans import Plan
    from ompbind.worker.environment import Variables


def fit_variables(
    variables: Variables, found: Found, plan: Plan, environ: Mapping[str, str]
) -> Variables:
    """Return the variables with the address of the job's first node. Raises UsageError."""
    task, engine = found.task, found.engine
    if variables.master_port is None and variables.master_addr is None:
        return variables
    if engine is None:
        everybody = len(plan.ranks) == plan.numbers_of(plan.ranks[0]).size
        check_port(variables, "--rank starts one of several ranks", alone=everybody)
        return variables
    if engine.name == "torchrun":
        raise UsageError(
            "--master-port: torchrun has set MASTER_ADDR and MASTER_PORT for its ranks",
            hint="leave --master-port and --master-addr out",
            option="--master-port",
        )
    if task.rank is None or task.ranks is None:
        raise UsageError(
            f"--master-port: {task.label} does not say this rank's number among how many",
            hint="--rank R --ranks N gives them by hand",
            option="--master-port",
        )
    check_port(variables, f"{task.label} has started {task.ranks} ranks", alone=task.ranks == 1)
    if variables.master_addr is not None or task.nodes == 1:
        return variables
    return variables.replace(master_addr=find_master(found, environ))


def check_port(variables: Variables, why: str, *, alone: bool) -> None:
    """Raises UsageError for a port that each rank would choose by itself."""
    if variables.master_port == "auto" and not alone:
        raise UsageError(
            f"--master-port auto: {why}, and each would take another port",
            hint="name one that is free on the first node: --master-port 29500",
            option="--master-port",
        )


def find_master(found: Found, environ: Mapping[str, str]) -> str:
    """Return the first host of the job. Raises UsageError."""
    hosts = found.engine.hosts if found.engine else ()
    text = next((environ[name] for name in hosts if environ.get(name)), "")
    try:
        if text:
            return first_host(text)
        problem = f"{found.task.label} does not say which host is the first"
    except ParseError as e:
        problem = e.message
    raise UsageError(
        f"--master-port: {problem}", hint="--master-addr ADDRESS names it", option="--master-addr"
    )
