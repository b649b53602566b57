"""OpenMP's variables: those of a rank's places and threads, and those inherited from outside."""

from __future__ import annotations

from ompbind.errors import ParseError
from ompbind.plans import Inherited
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.cpuset import CpuSet

# What a runtime prefers to OMP_PLACES, or restricts it by. Source: the manuals of libgomp and of
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


class InheritedSettings(Record):
    """What the inherited environment asks for; None where it does not."""

    places: str | None
    proc_bind: str | None
    threads: str | None
    place_list: tuple[CpuSet, ...] | None
    limit: int | None  # the largest number of threads
    inherited: tuple[Inherited, ...]


def judge_environment(
    environ: Mapping[str, str], given: Mapping[str, str], omp: str = "all"
) -> InheritedSettings:
    """Decide for each OpenMP variable whether it is respected, overridden or removed.

    `given`: why a field ("places", "place_list", "proc_bind", "threads") is decided already; `omp`:
    which variables the plan sets: those that it leaves alone are not judged. A flag beats the
    environment, the environment beats a default, and what would override the plan is itself
    overridden or removed.
    """
    if omp != "all":
        judged = ("OMP_NUM_THREADS", *LIMITS) if omp == "threads" else ()
        environ = {name: environ[name] for name in judged if name in environ}
    inherited: list[Inherited] = []
    settings: dict[str, str | None] = {"places": None, "proc_bind": None, "threads": None}

    def add(name: str, action: str, why: str) -> None:
        inherited.append(Inherited(name, environ[name], action, why))

    def judge(name: str, key: str, value: str | None, why_not: str) -> None:
        if name not in environ:
            return
        if key in given:
            add(name, "overridden", given[key])
        elif value is None:
            add(name, "overridden", why_not)
        else:
            settings[key] = value
            add(name, "respected", "as if given as an option")

    for name in REMOVED:
        if name in environ:
            add(name, "removed", "a runtime would follow it instead of the plan's OMP_PLACES")
    text = environ.get("OMP_PLACES", "")
    places = PLACES_BY_NAME.get(text.strip().lower())
    place_list, why_not = (None, "") if places else judge_list(text, given)
    if place_list and "places" not in given:
        add("OMP_PLACES", "respected", "its places are distributed, one part to each rank")
    else:
        judge("OMP_PLACES", "places", places, why_not)
        place_list = None
    judge("OMP_PROC_BIND", "proc_bind", parse_proc_bind(environ.get("OMP_PROC_BIND", "")),
          "it would leave threads unbound or is not a binding")  # fmt: skip
    judge("OMP_NUM_THREADS", "threads", parse_threads(environ.get("OMP_NUM_THREADS", "")),
          "it is not a number of threads")  # fmt: skip
    limit = None
    for name in LIMITS:
        if name not in environ:
            continue
        if "threads" in given:
            add(name, "removed", given["threads"])
            continue
        why = "it can change the number of threads, never misplace one"
        if name == "OMP_THREAD_LIMIT" and (number := parse_threads(environ[name])):
            limit = int(number) if number.isdigit() else None
            why = "no more threads are planned"
        add(name, "respected", why)
    return InheritedSettings(
        inherited=tuple(inherited), limit=limit, place_list=place_list, **settings
    )


def judge_list(text: str, given: Mapping[str, str]) -> tuple[tuple[CpuSet, ...] | None, str]:
    """Return a list of places by which ranks can be mapped, or None and why there is none."""
    if "place_list" in given:
        return None, given["place_list"]
    if text.strip()[:1] not in tuple("{!0123456789"):  # a name
        return None, "the plan gives each rank its own places"
    try:
        from ompbind.openmp.places import parse_places

        return parse_places(text), ""
    except ParseError as e:
        return None, f"it is not a list of places: {e.message}"


def parse_proc_bind(text: str) -> str | None:
    """Return `close`, or a list by nesting level, `spread,close`; None for what is neither."""
    words = [w.strip().lower() for w in text.split(",")]
    if not all(w in PROC_BINDS for w in words) or ("true" in words and len(words) > 1):
        return None
    return ",".join(words)


def parse_threads(text: str) -> str | None:
    """Return `4`, or a list by nesting level, `4,2`; None for what is neither."""
    words = [w.strip() for w in text.split(",")]
    good = all(w.isascii() and w.isdigit() and len(w) <= 5 and int(w) > 0 for w in words)
    return ",".join(words) if good else None


def make_environment(
    places: Sequence[CpuSet], proc_bind: str, threads: str, cores: int | None = None
) -> tuple[tuple[str, str], ...]:
    """Return the standard variables. `cores`: the number of the rank's cores, None where unknown;
    without `places` or with `threads` "" the variables of these are left out.

    Places are explicit numbers, so that no runtime has to work the topology out again; never
    `{0-3}`, which is not a place of four cpus in OpenMP's syntax. `primary` is written by its old
    name: torch's libgomp does not know the new one, and all know the old.
    """
    env = [("OMP_NUM_THREADS", threads)] if threads else []
    if places:
        text = ",".join("{" + ",".join(map(str, p)) + "}" for p in places)
        env += [("OMP_PLACES", text), ("OMP_PROC_BIND", proc_bind.replace("primary", "master"))]
    if threads and cores is not None and int(threads.partition(",")[0]) > cores:
        env.append(("MKL_DYNAMIC", "FALSE"))  # else MKL, and torch with it, makes one for each core
    return tuple(env)


def limited(threads: str, limit: int | None) -> str:
    """Return OMP_NUM_THREADS under OMP_THREAD_LIMIT: LLVM's and Intel's runtimes warn of more."""
    first, comma, rest = threads.partition(",")
    return threads if limit is None else f"{min(int(first), limit)}{comma}{rest}"


def choose_places(
    kind: str, runtimes: Sequence[str], name: str, runtime: str | None = None
) -> tuple[str, str]:
    """Return what a place is for a worker where nobody said so, and why. `kind` and `runtimes`:
    what the worker is (see `worker.runtimes`); `name`: its program; `runtime`: what --runtime says.

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
        names = ", ".join(runtimes)
        return (
            "one",
            f"{name} has several OpenMP runtimes ({names}): each would bind all its threads",
        )
    if runtimes and kind == "wrapper":
        return (
            "one",
            f"{name} needs no OpenMP runtime; {runtimes[0]} is preloaded for what it starts",
        )
    if runtimes:
        return "cores", f"{name} is a compiled program with one OpenMP runtime, {runtimes[0]}"
    if not name:
        return "one", "no command is named; for a compiled OpenMP program it is cores"
    if kind == "compiled":
        return "one", f"{name} is a compiled program without an OpenMP runtime that can be seen"
    return "one", f"what {name} is cannot be seen; --runtime says which OpenMP it has"
