"""OpenMP: a rank's places to environment variables, and what an inherited environment means."""

from __future__ import annotations

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.cpuset import CpuSet

# Whatever a runtime prefers to OMP_PLACES, or lets narrow it. Source: the manuals of libgomp and of
# LLVM's and Intel's libomp; measured with all three.
REMOVED = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET", "KMP_PLACE_THREADS")

# The standard's names of places that --places has too; OMP_PLACES by explicit numbers is one
# machine's and one process's, so it is not passed on to several ranks.
PLACES_BY_NAME = {"threads": "threads", "cores": "cores", "ll_caches": "l3", "numa_domains": "numa"}

PROC_BINDS = ("close", "spread", "primary", "master", "true")


class Inherited(Record):
    """A variable found in the environment, what became of it ("respected", "overridden" or
    "removed"), and why."""

    name: str
    value: str
    action: str
    why: str


class Wishes(Record):
    """What the inherited environment asks for; None where it does not."""

    places: str | None
    proc_bind: str | None
    threads: str | None
    inherited: tuple[Inherited, ...]


def judge_environment(environ: Mapping[str, str], given: Mapping[str, str]) -> Wishes:
    """Decides for each OpenMP variable; `given` tells why a field ("places", "proc_bind",
    "threads") is settled already.

    A flag beats the environment, the environment beats a default, and what would defeat the plan
    is overridden or removed.
    """
    found: list[Inherited] = []
    wish: dict[str, str | None] = {"places": None, "proc_bind": None, "threads": None}

    def judge(name: str, key: str, value: str | None, why_not: str) -> None:
        if name not in environ:
            return
        if key in given:
            found.append(Inherited(name, environ[name], "overridden", given[key]))
        elif value is None:
            found.append(Inherited(name, environ[name], "overridden", why_not))
        else:
            wish[key] = value
            found.append(Inherited(name, environ[name], "respected", "as if given as an option"))

    for name in REMOVED:
        if name in environ:
            why = "a runtime would follow it instead of the plan's OMP_PLACES"
            found.append(Inherited(name, environ[name], "removed", why))
    places = PLACES_BY_NAME.get(environ.get("OMP_PLACES", "").strip().lower())
    judge("OMP_PLACES", "places", places, "the plan gives each rank its own places")
    judge("OMP_PROC_BIND", "proc_bind", parse_proc_bind(environ.get("OMP_PROC_BIND", "")),
          "it would leave threads unbound or is not a binding")  # fmt: skip
    judge("OMP_NUM_THREADS", "threads", parse_threads(environ.get("OMP_NUM_THREADS", "")),
          "it is not a number of threads")  # fmt: skip
    for name in ("OMP_THREAD_LIMIT", "OMP_DYNAMIC"):
        if name in environ:
            why = "it can make fewer threads than planned, never misplace one"
            found.append(Inherited(name, environ[name], "respected", why))
    return Wishes(inherited=tuple(found), **wish)


def parse_proc_bind(text: str) -> str | None:
    """`close`, or a list by nesting level as the standard allows, `spread,close`; else None."""
    words = [w.strip().lower() for w in text.split(",")]
    if not all(w in PROC_BINDS for w in words) or ("true" in words and len(words) > 1):
        return None
    return ",".join(words)


def parse_threads(text: str) -> str | None:
    """`4`, or a list by nesting level as the standard allows, `4,2`; else None."""
    words = [w.strip() for w in text.split(",")]
    good = all(w.isascii() and w.isdigit() and len(w) <= 5 and int(w) > 0 for w in words)
    return ",".join(words) if good else None


def make_environment(
    places: Sequence[CpuSet], proc_bind: str, threads: str
) -> tuple[tuple[str, str], ...]:
    """The standard variables. Places are explicit numbers, so that no runtime has to work the
    topology out again; never `{0-3}`, which is not a place of four cpus in OpenMP's syntax."""
    return (
        ("OMP_NUM_THREADS", threads),
        ("OMP_PLACES", ",".join("{" + ",".join(map(str, p)) + "}" for p in places)),
        ("OMP_PROC_BIND", proc_bind),
    )
