"""`ompbind ps`: which launches hold which cpus, and what is free."""

from __future__ import annotations

import time

from ompbind.cpuset import union
from ompbind.errors import UsageError
from ompbind.messages import quote, write_output
from ompbind.options import read_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.host.launches import Launch, Survey


def ps(args: Sequence[str]) -> int:
    """Carry out `ompbind ps`; return the exit status. Raises OmpbindError."""
    from ompbind.machine import living_root, read_machine

    values, extra = read_arguments(args, "ps")
    if extra:
        raise UsageError(f"ps takes no {quote(extra[0])}", hint="ompbind ps --help")
    root = living_root()
    machine = read_machine(devices=False)
    from ompbind.host.launches import survey

    result = survey(root, machine)
    if values.get("format", "table") == "json":
        write_output(to_json(result))
    else:
        from ompbind.render import make_text
        from ompbind.render.launches import draw_survey

        write_output(make_text(draw_survey(result, time.time())))
    return 0


def to_json(result: Survey) -> str:
    """Return the documented JSON object, as text that ends in a newline."""
    import json

    topology = result.machine.topology
    free = result.free
    data = {
        "schema": 1,
        "host": {
            "name": result.machine.name,
            "cpus": str(topology.online),
            "allowed": str(result.machine.allowed.cpus),
            "nodes": str(topology.node_numbers),
        },
        "launches": [launch_to_dict(launch) for launch in result.launches],
        "free": {
            "cores": len(free),
            "cpus": str(union(free)),
            "bound": str(result.bound),
        },
        "hidden": result.hidden,
    }
    return json.dumps(data, indent=1) + "\n"


def launch_to_dict(launch: Launch) -> dict[str, object]:
    since = None
    if launch.since is not None:
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(launch.since))
    return {
        "pid": launch.pid or None,
        "user": launch.user,
        "command": list(launch.command),
        "by": launch.by,
        "since": since,
        "cpus": str(launch.cpus),
        "nodes": str(launch.nodes),
        "ranks": [
            {"rank": m.rank, "pid": m.pid or None, "cpus": str(m.cpus), "nodes": str(m.nodes)}
            for m in launch.members
        ],
    }
