"""The user's own list of places, dealt out: one part to each rank."""

from __future__ import annotations

from ompbind.cpuset import union
from ompbind.messages import counted, label, plural
from ompbind.planner.cores import Core, group_cores, in_tree_order, levels_for
from ompbind.planner.division import blocks
from ompbind.planner.mapping import Share
from ompbind.plans import Caution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.topology import Machine
    from ompbind.planner.request import Request


def settle_places(machine: Machine, request: Request) -> Request:
    """Without the list where it cannot be dealt out: that is told as with any inherited variable
    that is overridden."""
    places = request.place_list
    if places is None:
        return request
    stray = union(places) - machine.allowed.cpus
    if stray:
        why = f"{label('cpu', stray)} of it may not be used here"
    elif (request.ranks or 1) > len(places) and not request.share:
        why = f"it has {counted(len(places), 'place')} for {request.ranks} ranks"
    else:
        return request
    inherited = tuple(
        i.replace(action="overridden", why=why) if i.name == "OMP_PLACES" else i
        for i in request.inherited
    )
    return request.replace(place_list=None, inherited=inherited)


def deal_places(machine: Machine, request: Request, warnings: list[Caution]) -> list[Share]:
    """Consecutive places to each rank, evenly; with --share all of them to each."""
    places = request.place_list or ()
    count = request.ranks or 1
    parts = [range(len(places))] * count if request.share else blocks(range(len(places)), count)
    shares: list[Share] = []
    owner: dict[int, int] = {}
    for rank, part in enumerate(parts):
        if request.share and shares:
            shares.append(shares[0])
            continue
        own = tuple(places[i] for i in part)
        groups = group_cores(machine, union(own))
        cores = in_tree_order(
            (Core(cpus, cpus, traits) for cpus, traits in groups), levels_for(request)
        )
        which = f"{part[0] + 1}-{part[-1] + 1}" if part[1:] else f"{part[0] + 1}"
        why = f"{plural('place', len(part))} {which} of OMP_PLACES"
        shares.append(Share(cores, why, places=own))
        for core in cores:
            if core.traits.core is not None and owner.setdefault(core.traits.core, rank) != rank:
                other = owner[core.traits.core]
                warnings.append(
                    Caution(
                        "shared-core",
                        f"ranks {other} and {rank} have hardware threads of one core "
                        "(slower: give each whole cores)",
                    )
                )
    return shares
