"""The hosts of a job: a list in Slurm's notation, or a file with such a list on each line."""

from __future__ import annotations

import os

from ompbind.errors import ParseError, TopologyError, UsageError
from ompbind.hostlist import LIMIT, parse_hostlist
from ompbind.machine.description import read_file
from ompbind.messages import quote
from ompbind.record import Record

HINT = "a line is HOSTS or HOSTS SNAPSHOT, as in n[001-100] big.topo"


class Host(Record):
    """A host, and the path that describes its kind of machine; None: the line names none."""

    name: str
    kind: str | None = None


def read_hosts(text: str) -> tuple[Host, ...]:
    """Return the hosts of --hosts in their order: those of a file, where `text` is the path of one,
    else those of the list. Raises UsageError, ParseError."""
    if "/" in text or text == "-" or os.path.isfile(text):
        hosts = read_host_file(text)
    else:
        try:
            hosts = [Host(name) for name in parse_hostlist(text)]
        except ParseError as e:
            raise ParseError(f"--hosts: {e.message}", hint=e.hint, **e.data) from None
    check_repetition(hosts)
    return tuple(hosts)


def read_host_file(path: str) -> list[Host]:
    """Return the hosts of a file: on each line a list of hosts and, for its kind, the path of a
    snapshot, relative to the file. Blank lines and what follows a # are left out."""
    name = f"--hosts {quote(path, 400)}"
    try:
        text = os.fsdecode(read_file(path))
    except TopologyError as e:
        raise UsageError(f"{name}: {e.message}") from None
    hosts: list[Host] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split(maxsplit=1)
        if not words:
            continue
        kind = words[1].rstrip() if words[1:] else None
        if kind is not None:
            kind = os.path.join(os.path.dirname(path), kind)
        try:
            hosts += [Host(host, kind) for host in parse_hostlist(words[0])]
        except ParseError as e:
            raise ParseError(f"{name}, line {number}: {e.message}", hint=HINT, **e.data) from None
        if len(hosts) > LIMIT:
            raise UsageError(f"{name}: more than {LIMIT} hosts")
    if not hosts:
        raise UsageError(f"{name} names no host", hint=HINT)
    return hosts


def check_repetition(hosts: list[Host]) -> None:
    """Raises UsageError where a host is named twice: a job has one ompbind on each."""
    names = set()
    for host in hosts:
        if host.name in names:
            raise UsageError(f"--hosts names {host.name} twice", hint="name each host once")
        names.add(host.name)
