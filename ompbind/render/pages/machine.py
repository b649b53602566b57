"""The page of a machine: its picture, its nodes and its devices."""

from __future__ import annotations

from ompbind.render.inventory import (
    describe_caches,
    describe_machine,
    list_exceptions,
    make_device_rows,
    make_distance_rows,
    make_node_rows,
)
from ompbind.render.measurement import CORES, READING, describe_cores, make_access_rows
from ompbind.render.pages.html import (
    make_page,
    write_figure,
    write_heading,
    write_paragraph,
    write_table,
)
from ompbind.render.picture import make_machine_picture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.measurement import Measurement
    from ompbind.machine.topology import Machine


def make_machine_page(machine: Machine) -> str:
    topology = machine.topology
    parts = [
        write_paragraph(machine.model),
        write_paragraph(describe_machine(machine), "soft"),
        write_paragraph(describe_caches(machine), "soft"),
        write_figure(make_machine_picture(machine, legend=False)),
    ]
    parts += [write_paragraph(f"{name} {text}") for name, text in list_exceptions(machine)]
    if topology.nodes and topology.numa:
        parts += [write_heading("NUMA nodes"), write_table(make_node_rows(machine))]
    if topology.nodes[1:] and topology.distances:
        rows = make_distance_rows(topology)
        parts += [write_heading("distances between nodes"), write_table(rows, rows.columns)]
    if topology.devices:
        parts += [write_heading("devices"), write_table(make_device_rows(topology))]
    if machine.measured is not None:
        parts += write_measured(machine.measured)
    return make_page(machine.name or "machine", parts)


def write_measured(measurement: Measurement) -> list[str]:
    parts = [write_heading(CORES)]
    parts += [write_paragraph(line) for line in describe_cores(measurement)]
    if measurement.accesses:
        rows = make_access_rows(measurement)
        parts += [write_heading(READING), write_table(rows), write_paragraph(rows.note, "soft")]
    return parts + [write_paragraph(f"note: {note}", "soft") for note in measurement.notes]
