"""OpenMP: a rank's places to environment variables, and what an inherited environment means."""

from __future__ import annotations

from ompbind.errors import ParseError
from ompbind.plans import Inherited
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.cpuset import CpuSet

# Whatever a runtime prefers to OMP_PLACES, or lets narrow it. Source: the manuals of libgomp and of
# LLVM's and Intel's libomp; measured with all three. KMP_HIDDEN_HELPER_AFFINITY=none unbinds all
# threads of Intel's 2026.2.
REMOVED = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HIDDEN_HELPER_AFFINITY", "KMP_HW_SUBSET",
           "KMP_PLACE_THREADS")  # fmt: skip

# What makes a runtime, or MKL and torch with it, start fewer threads (or others) than
# OMP_NUM_THREADS says.
LIMITS = ("OMP_THREAD_LIMIT", "OMP_DYNAMIC", "KMP_DEVICE_THREAD_LIMIT", "KMP_ALL_THREADS",
          "MKL_NUM_THREADS", "MKL_DYNAMIC")  # fmt: skip

# The standard's names of places that --places has too; OMP_PLACES by explicit numbers is one
# machine's and one process's, so it is not passed on to several ranks.
PLACES_BY_NAME = {"threads": "threads", "cores": "cores", "ll_caches": "l3", "numa_domains": "numa"}

PROC_BINDS = ("close", "spread", "primary", "master", "true")


class Wishes(Record):
    """What the inherited environment asks for; None where it does not. `limit`: no more threads
    than that."""

    places: str | None
    proc_bind: str | None
    threads: str | None
    place_list: tuple[CpuSet, ...] | None
    limit: int | None
    inherited: tuple[Inherited, ...]


def judge_environment(environ: Mapping[str, str], given: Mapping[str, str]) -> Wishes:
    """Decides for each OpenMP variable; `given` tells why a field ("places", "place_list",
    "proc_bind", "threads") is settled already.

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
    own, why_not = (None, "") if places else judge_list(environ.get("OMP_PLACES", ""), given)
    if own and "places" not in given:
        why = "its places are dealt out, one part to each rank"
        found.append(Inherited("OMP_PLACES", environ["OMP_PLACES"], "respected", why))
    else:
        judge("OMP_PLACES", "places", places, why_not)
    judge("OMP_PROC_BIND", "proc_bind", parse_proc_bind(environ.get("OMP_PROC_BIND", "")),
          "it would leave threads unbound or is not a binding")  # fmt: skip
    judge("OMP_NUM_THREADS", "threads", parse_threads(environ.get("OMP_NUM_THREADS", "")),
          "it is not a number of threads")  # fmt: skip
    limit = None
    for name in LIMITS:
        if name not in environ:
            continue
        if "threads" in given:
            found.append(Inherited(name, environ[name], "removed", given["threads"]))
            continue
        why = "it can change the number of threads, never misplace one"
        if name == "OMP_THREAD_LIMIT" and (text := parse_threads(environ[name])):
            limit = int(text) if text.isdigit() else None
            why = "no more threads are planned"
        found.append(Inherited(name, environ[name], "respected", why))
    own = None if "places" in given else own
    return Wishes(inherited=tuple(found), limit=limit, place_list=own, **wish)


def judge_list(text: str, given: Mapping[str, str]) -> tuple[tuple[CpuSet, ...] | None, str]:
    """A list of places that can be dealt out, or None and why not."""
    if "place_list" in given:
        return None, given["place_list"]
    if text.strip()[:1] not in tuple("{!0123456789"):  # a name
        return None, "the plan gives each rank its own places"
    try:
        from ompbind.openmp.places import parse_places

        return parse_places(text), ""
    except ParseError as e:
        return None, f"it is no list of places: {e.message}"


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
    places: Sequence[CpuSet], proc_bind: str, threads: str, cores: int | None = None
) -> tuple[tuple[str, str], ...]:
    """The standard variables, for a rank of so many `cores` (None: not known). Places are explicit
    numbers, so that no runtime has to work the topology out again; never `{0-3}`, which is not a
    place of four cpus in OpenMP's syntax. `primary` is written by its old name: torch's libgomp
    does not know the new one, and all know the old."""
    env = [
        ("OMP_NUM_THREADS", threads),
        ("OMP_PLACES", ",".join("{" + ",".join(map(str, p)) + "}" for p in places)),
        ("OMP_PROC_BIND", proc_bind.replace("primary", "master")),
    ]
    if cores is not None and int(threads.partition(",")[0]) > cores:
        env.append(("MKL_DYNAMIC", "FALSE"))  # else MKL, and torch with it, makes one for each core
    return tuple(env)


def limited(threads: str, limit: int | None) -> str:
    """OMP_NUM_THREADS under OMP_THREAD_LIMIT: LLVM's and Intel's runtimes warn of more."""
    first, comma, rest = threads.partition(",")
    return threads if limit is None else f"{min(int(first), limit)}{comma}{rest}"


def choose_places(
    kind: str, runtimes: Sequence[str], name: str, runtime: str | None = None
) -> tuple[str, str]:
    """What a place is for a worker where nobody said so, and why. `kind` and `runtimes`: what the
    worker is (see `runtime`); `name`: its program; `runtime`: what --runtime says.

    With a place for each core a runtime binds the program's main thread to the first one, and
    whatever starts from there inherits that. A compiled OpenMP program is made for it; Python
    code is not, nor is a second runtime. docs/explanation/openmp.md has the measurements.
    """
    if kind == "python":
        return "one", f"{name} is Python: with more places, its main thread would keep only one"
    if runtime == "none":
        return "one", "--runtime none"
    if runtime is not None:
        return "cores", f"--runtime {runtime}"
    if len(runtimes) > 1:
        told = ", ".join(runtimes)
        return (
            "one",
            f"{name} has several OpenMP runtimes ({told}): each would bind all its threads",
        )
    if runtimes:
        return "cores", f"{name} is a compiled program with one OpenMP runtime, {runtimes[0]}"
    if not name:
        return "one", "no command is named; for a compiled OpenMP program it is cores"
    if kind == "compiled":
        return "one", f"{name} is a compiled program without an OpenMP runtime that can be seen"
    return "one", f"it cannot be told what {name} is; --runtime says which OpenMP it has"
