"""--huge-pages: the variables by which each allocator takes memory in huge pages, and why it could
not.

Sources: the manual of the GNU C library (tunables), jemalloc(3), mimalloc's and gperftools' pages
on their environment. Each row was tried: with glibc 2.36, jemalloc 5.3, mimalloc 2.0 and 3.4, and
tcmalloc of gperftools 2.10.
"""

from __future__ import annotations

import os

from ompbind.errors import PlanError, UsageError
from ompbind.host.huge_pages import (
    GIVE_ALWAYS,
    GIVE_ON_REQUEST,
    RESERVE_ON_NODE,
    find_writable,
    read_huge_pages,
)
from ompbind.messages import label, quote
from ompbind.plans import PRELOAD_VARIABLE, Inherited, split_preload
from ompbind.record import Record
from ompbind.worker.elf import walk_needed
from ompbind.worker.libraries import Finder, name_allocator
from ompbind.worker.versions import read_versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.host.huge_pages import HugePages
    from ompbind.machine.roots import Root
    from ompbind.plans import Plan, RankPlan

TRANSPARENT, RESERVED = "thp", "2M"
C_LIBRARY = ""
GLIBC = "libc.so.6"
OLDEST_GLIBC = "GLIBC_2.35"  # the first version with the tunable
HUGETLBFS = "{mount}"


class Setting(Record):
    """A variable. `separator`: what divides its entries, "" where it has one value; `key`: how the
    entry begins that says the same, which a user may have set."""

    name: str
    value: str
    separator: str = ""
    key: str = ""


MIMALLOC = (
    Setting("MIMALLOC_ALLOW_LARGE_OS_PAGES", "1"),
    Setting("MIMALLOC_LARGE_OS_PAGES", "1"),  # before version 2.1
)
# What tells an allocator, by kind; () for one that needs none where the kernel always gives them,
# and cannot ask for them elsewhere; None: it cannot take them.
SETTINGS: dict[str, dict[str, tuple[Setting, ...] | None]] = {
    TRANSPARENT: {
        C_LIBRARY: (
            Setting("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", ":", "glibc.malloc.hugetlb="),
        ),
        "jemalloc": (Setting("MALLOC_CONF", "thp:always", ",", "thp:"),),
        "mimalloc": MIMALLOC,
        "tcmalloc": (),
    },
    RESERVED: {
        C_LIBRARY: (
            Setting("GLIBC_TUNABLES", "glibc.malloc.hugetlb=2097152", ":", "glibc.malloc.hugetlb="),
        ),
        "jemalloc": None,
        "mimalloc": MIMALLOC,
        "tcmalloc": (Setting("TCMALLOC_MEMFS_MALLOC_PATH", f"{HUGETLBFS}/ompbind"),),
    },
}


def add_huge_pages(
    plan: Plan, kind: str, environ: Mapping[str, str], root: Root | None = None
) -> Plan:
    """Return the plan whose ranks' allocators take huge pages. `kind`: TRANSPARENT or RESERVED;
    `root`: this machine's, None where the plan is for another one, of which nothing is known.
    Raises UsageError or PlanError where the kernel or an allocator does not have them."""
    pages = None if root is None else read_huge_pages(root)
    finder = Finder(plan.command, environ)
    if pages is not None:
        check_kernel(plan, kind, pages)
    ranks, notes = [], {}
    for rank in plan.ranks:
        env = dict(rank.env)
        allocator = find_allocator(rank, environ, finder)
        settings = SETTINGS[kind][allocator]
        if settings is None:
            raise UsageError(
                f"--huge-pages {kind}: {allocator} does not take reserved pages",
                hint="--huge-pages thp, or --preload mimalloc",
            )
        if pages is not None:
            check_allocator(kind, allocator, pages, finder)
        for setting in settings:
            before = env.get(setting.name, environ.get(setting.name, ""))
            if keeps(setting, before):
                if setting.name in environ and setting.name not in env:
                    why = "it says already whether memory is in huge pages"
                    notes[setting.name] = Inherited(setting.name, before, "respected", why)
                continue
            value = setting.value
            if HUGETLBFS in value:
                if pages is None:
                    raise UsageError(
                        f"--huge-pages {kind}: {allocator} takes reserved pages from a hugetlbfs, "
                        "and where the other machine has one is not known",
                        hint=f"--env {setting.name}=DIRECTORY/ompbind says where; or --preload "
                        "mimalloc, which needs none",
                    )
                value = value.replace(HUGETLBFS, find_writable(pages.mounts))
            env[setting.name] = setting.separator.join(filter(None, (before, value)))
        ranks.append(rank.replace(env=tuple(env.items())))
    inherited = (*plan.inherited, *notes.values())
    return plan.replace(ranks=tuple(ranks), huge_pages=kind, inherited=inherited)


def keeps(setting: Setting, before: str) -> bool:
    """Whether a variable's value says the same thing, or another, already."""
    if not setting.separator:
        return bool(before)
    return any(part.startswith(setting.key) for part in before.split(setting.separator))


def find_allocator(rank: RankPlan, environ: Mapping[str, str], finder: Finder) -> str:
    """Return the allocator of a rank: the first that is preloaded, or one that the program needs,
    else C_LIBRARY."""
    text = dict(rank.env).get(PRELOAD_VARIABLE, environ.get(PRELOAD_VARIABLE, ""))
    files = [os.path.basename(path) for path in split_preload(text)]
    if finder.program is not None:
        files += [name for name, _ in walk_needed([finder.program.path], finder.linker, ())]
    return next(filter(None, map(name_allocator, files)), C_LIBRARY)


def check_kernel(plan: Plan, kind: str, pages: HugePages) -> None:
    """Raises UsageError or PlanError where the kernel gives no such pages."""
    if kind == TRANSPARENT:
        if pages.transparent in (None, "never"):
            state = "has none" if pages.transparent is None else "has them switched off (never)"
            raise UsageError(
                f"--huge-pages thp: transparent huge pages: this kernel {state}",
                hint=GIVE_ON_REQUEST if pages.transparent else "",
            )  # fmt: skip
        return
    if not pages.reserved:
        if pages.reserved is None:
            raise UsageError("--huge-pages 2M: this kernel has no pages of 2 MiB")
        raise UsageError(
            "--huge-pages 2M: no page of 2 MiB is reserved and free",
            hint="as root: sysctl vm.nr_hugepages=N; or --huge-pages thp, which needs none",
        )
    by_node = dict(pages.by_node)
    for rank in plan.ranks:
        free = sum(by_node.get(node, 0) for node in rank.mems)
        if rank.mem == "bind" and by_node and not free + pages.on_demand:
            nodes = {node: count for node, count in by_node.items() if count}
            others = ", ".join(f"node {node} has {count}" for node, count in nodes.items())
            raise PlanError(
                f"--huge-pages 2M: rank {rank.name}: no page of 2 MiB is free on "
                f"{label('node', rank.mems)}, to which its memory is bound",
                hint=f"{others}; {RESERVE_ON_NODE}",
                rank=rank.number,
            )


def check_allocator(kind: str, allocator: str, pages: HugePages, finder: Finder) -> None:
    """Raises UsageError where an allocator cannot have the pages that the kernel gives."""
    if allocator == "tcmalloc" and kind == TRANSPARENT and pages.transparent != "always":
        raise UsageError(
            "--huge-pages thp: tcmalloc does not ask for transparent huge pages, and this kernel "
            f"gives them on request only ({pages.transparent})",
            hint=f"--preload jemalloc or mimalloc; {GIVE_ALWAYS}",
        )
    if allocator == "tcmalloc" and kind == RESERVED and not find_writable(pages.mounts):
        raise UsageError(
            "--huge-pages 2M: tcmalloc takes reserved pages from a hugetlbfs of 2 MiB pages only, "
            "and none is mounted where you may write",
            hint="as root: mount -t hugetlbfs -o pagesize=2M,mode=1777 none /mnt/huge",
        )
    program = finder.program
    if allocator == C_LIBRARY and program is not None and program.dynamic:
        path = dict(walk_needed([program.path], finder.linker, ())).get(GLIBC, "")
        library = finder.linker.read(path) if path else None
        defined = read_versions(library).defined if library else frozenset()
        if OLDEST_GLIBC not in defined:
            name = quote(os.path.basename(program.path))
            problem = "is older than 2.35" if library else "is not GNU's"
            raise UsageError(
                f"--huge-pages {kind}: the C library of {name} {problem}, and takes no huge pages",
                hint="--preload jemalloc or mimalloc",
            )


def is_planned(name: str, value: str) -> bool:
    """Whether a variable has exactly what a plan gives it."""
    every = [s for kinds in SETTINGS.values() for row in kinds.values() for s in row or ()]
    return any(s.name == name and s.value == value for s in every if HUGETLBFS not in s.value)
