"""Who holds which cpus, drawn: a table of launches, the machine's map, and what is free."""

from __future__ import annotations

from ompbind.colours import colour_of
from ompbind.cpuset import union
from ompbind.messages import counted, cut, label
from ompbind.render.escape import escape, quote_word
from ompbind.render.lists import list_pieces, short_list
from ompbind.render.owners import Owners
from ompbind.render.plan import RANK_MARKS, PlanMap
from ompbind.render.table import Table
from ompbind.render.text import Group, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.host.launches import Launch, Survey
    from ompbind.render.text import Drawing

MAX_COMMAND = 60  # characters of a command
# What kinds of cpus are called here; the ranks are launches.
NAMES = {"rank": "launch", "shared": "several", "not used": "free", "reserved": "on a held core"}


def make_holders(survey: Survey) -> Owners:
    """Return which launch has each cpu, by number."""
    numbers: dict[int, set[int]] = {}
    for number, launch in enumerate(survey.launches):
        for cpu in launch.cpus:
            numbers.setdefault(cpu, set()).add(number)
    allowed = survey.machine.allowed.cpus
    return Owners(
        numbers, allowed, others=(("reserved", allowed - union(survey.free)),), names=NAMES
    )


def draw_survey(survey: Survey, now: float) -> Drawing:
    """Draw what is held. `now`: the time, in seconds since 1970."""
    survey = escape(survey)
    parts: list[Drawing] = []
    if survey.launches:
        parts += [launch_table(survey, now), Text()]
    machine = survey.machine
    parts += [PlanMap(machine.topology.online, machine, make_holders(survey), {}), Text()]
    parts += [Text(line) for line in list_free(survey)]
    return Group(*parts)


def launch_table(survey: Survey, now: float) -> Table:
    """Return a row for each launch, with the sign that it has in the map."""
    table = Table(heading="bold", edge=False)
    columns = ("", "pid", "user", "ranks", "cpus", "nodes", "since", "known by", "command")
    for name in columns:
        table.add_column(name, right=name in ("pid", "ranks", "since"))
    for number, launch in enumerate(survey.launches):
        ranks = len(launch.members) if launch.by == "variables" else 0
        table.add_row(
            Text(RANK_MARKS[number % len(RANK_MARKS)], style=colour_of(number)),
            str(launch.pid or "-"),
            launch.user or "-",
            str(ranks or "-"),
            list_pieces(short_list(launch.cpus)),
            str(launch.nodes) or "-",
            "-" if launch.since is None else describe_age(max(0.0, now - launch.since)),
            launch.by,
            describe_command(launch),
        )
    return table


def describe_command(launch: Launch) -> str:
    """Return a command as a shell takes it, cut where it is long; - where it cannot be seen."""
    return cut(" ".join(map(quote_word, launch.command)), MAX_COMMAND) or "-"


def describe_age(seconds: float) -> str:
    """Return a time in its two largest units: `3 s`, `12 min`, `2 h 05 min`, `3 d 4 h`."""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60:02} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def list_free(survey: Survey) -> list[str]:
    """Return lines about what nobody holds, and about what cannot be seen."""
    free = survey.free
    text = counted(len(free), "core")
    cpus = union(free)
    lines = [f"free: {text}, {label('cpu', cpus)}" if cpus else "free: no core"]
    if survey.bound:
        lines.append(f"bound to free cpus: other programs, {label('cpu', survey.bound)}")
    if survey.hidden:
        count = counted(survey.hidden, "process")
        lines.append(f"not seen: the variables of {count}, by which a rank is known")
    return lines
