"""Maps ranks by the user's own list of places: each gets consecutive places of OMP_PLACES."""

from __future__ import annotations

from ompbind.cpuset import union
from ompbind.messages import counted, label, plural
from ompbind.planner.cores import Core, group_cores, in_tree_order, levels_for
from ompbind.planner.division import blocks
from ompbind.planner.mapping import Mapped, Share, find_shared_cores

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Machine
    from ompbind.planner.request import Request


def without_unusable_list(machine: Machine, request: Request) -> Request:
    """Return the request without a list of places that ranks cannot be mapped by. It is then
    reported as any inherited variable that is overridden."""
    places = request.place_list or ()
    disallowed = union(places) - machine.allowed.cpus
    if disallowed:
        why = f"{label('cpu', disallowed)} of it may not be used here"
    elif (request.ranks or 1) > len(places) and not request.share:
        why = f"it has {counted(len(places), 'place')} for {request.ranks} ranks"
    else:
        return request
    inherited = tuple(
        i.replace(action="overridden", why=why) if i.name == "OMP_PLACES" else i
        for i in request.inherited
    )
    return request.replace(place_list=None, inherited=inherited)


def map_places(machine: Machine, request: Request) -> Mapped:
    """Map consecutive places to each rank, evenly; with --share all of them to each."""
    places, count = request.place_list or (), request.ranks or 1
    if request.share:
        return Mapped([make_share(machine, request, range(len(places)))] * count)
    shares = [make_share(machine, request, part) for part in blocks(range(len(places)), count)]
    return Mapped(shares, find_shared_cores(shares))


def make_share(machine: Machine, request: Request, part: Sequence[int]) -> Share:
    """Return the share of the rank that gets these places, given by their positions in the list."""
    places = tuple((request.place_list or ())[i] for i in part)
    groups = group_cores(machine, union(places))
    cores = in_tree_order((Core(cpus, cpus, cpu) for cpus, cpu in groups), levels_for(request))
    numbers = f"{part[0] + 1}-{part[-1] + 1}" if part[1:] else f"{part[0] + 1}"
    return Share(cores, f"{plural('place', len(part))} {numbers} of OMP_PLACES", places=places)
