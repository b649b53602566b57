"""Try small changes in planner, launch and verify; each must make a test fail.

    python -m tests.mutants [--sample N] [--seed N] [--jobs N] [--again] [--list]
        [--quick] [--tests FILE]... [MODULE]...

A MODULE is a package or a file without its suffix: `planner`, `verify/judge`; without one, all. Of
each file `--sample N` tries N changes drawn by the seed. What was killed before stays so while the
function and its name are what they were (`--again`: is tried again), what survived is tried again;
so a run that was stopped goes on where it was. `--quick` runs only tests that start no processes
and take no second: a change may survive it which the others would kill. `--tests`: these files in
place of all about the package. Results are kept in tests/mutants/results.txt.

Each worker has a copy of the tree and a Python environment that runs it: mutmut's trampolines do
not reach the interpreters that most tests of launch start, and cosmic-ray changes the one checkout.
First the tests run once without a change, and what lines each one reaches is noted, also in the
processes that it starts; later only those are run that reach the line that was changed, those that
killed other changes of its function first. A test kills a change if it fails with it twice and then
passes without it, well within the time that is taken for a hang; any other failure says nothing, as
the machine may be busy. At the end a run says how many of the changes that it tried for the first
time were killed: what the tests notice of changes that they were not written for.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from functools import cache
from itertools import groupby
from pathlib import Path

from tests.mutants.mutations import Mutation, find_mutations
from tests.mutants.plugin import become_subreaper
from tests.mutants.tree import ROOT, Result, Tree, source_of

RESULTS = Path(__file__).with_name("results.txt")
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
PAUSE = 10  # seconds between two times that the results are written, in a module

RULES = (
    "What `make mutants` tried of the changes possible in planner, verify and launch, one on each",
    "line: the verdict, a digest of the function, the change, and the test that killed it.",
    "Wording is no behaviour: f-strings and what errors are made of are not changed, only whether",
    "and when something is said. Not run: the guest, the faults, and tests of other modules.",
    "Equivalent: alters no behaviour (equivalent.txt says why); these do not count in the share.",
    "",
)

# The tests that are about a package, beside those in the folder with its name.
TESTS: dict[str, tuple[str, ...]] = {
    "planner": (
        "devices/accelerators",
        "devices/nics",
        "engines/fitting",
        "openmp/places",
        "host/containers",
        "host/restrictions",
        "machine/measurement",
        "options/arguments",
        "render/sentences",
        "render/sharing",
    ),
    "verify": ("launch/role_threads", "memory/warming", "planner/roles"),
    "launch": (
        "machine/other_systems",
        "measuring/measuring",
        "memory/warming",
        "multiprocessing",
        "rebind/parts",
        "api",
    ),
}


def files_about(package: str) -> list[str]:
    """Return the paths of the tests that are about a package."""
    named = [path_of_tests(name) for name in TESTS[package]]
    paths = [*(ROOT / "tests" / package).glob("test_*.py"), *named]
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def path_of_tests(name: str) -> Path:
    folder, slash, stem = name.rpartition("/")
    return ROOT / f"tests/{folder}{slash}test_{stem}.py"


def find_modules(names: Sequence[str]) -> list[str]:
    """Return the modules that are meant, as "planner/division"."""
    files = [f for package in TESTS
             for f in sorted((ROOT / "ompbind" / package).glob("*.py"))]  # fmt: skip
    modules = [f"{file.parent.name}/{file.stem}" for file in files]
    chosen = [m for m in modules if not names or m in names or m.split("/")[0] in names]
    if not chosen:
        raise SystemExit(f"mutants: no such module: {' '.join(names)}")
    return chosen


def package_of(module: str) -> str:
    return module.split("/", maxsplit=1)[0]


@cache
def tree_of_worker(parent: Path) -> Tree:
    """Return the tree of this process, which is made once."""
    become_subreaper()
    return Tree(parent)


def record_in_worker(parent: Path, files: tuple[str, ...], file: str, path: Path) -> None:
    tree_of_worker(parent).record(files, file, path)


def try_in_worker(
    mutation: Mutation,
    likely: list[str],
    parent: Path,
    files: tuple[str, ...],
    records: list[Path],
    quick: bool,
) -> Result:
    return tree_of_worker(parent).try_one(mutation, files, records, likely, quick=quick)


def records_of(files: Sequence[str]) -> dict[str, Path]:
    """Return where is kept what the tests of each file do, while neither they nor the code or the
    tests' helpers change."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ompbind" / "mutants"
    cache.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha1()
    for path in sorted([*ROOT.glob("ompbind/**/*.py"), *ROOT.glob("tests/**/*.py")]):
        if not path.name.startswith("test_") and path.parent.name != "mutants":
            digest.update(path.read_bytes())
    paths = {}
    for file in files:
        of_file = digest.copy()
        of_file.update((ROOT / file).read_bytes())
        paths[file] = cache / f"{Path(file).stem}-{of_file.hexdigest()[:16]}.json"
    return paths


def record(pool: Executor, folder: Path, files: tuple[str, ...]) -> list[Path]:
    """Return where is written what the tests in these files do, which is found out where it is not
    known yet."""
    paths = records_of(files)
    runs = [pool.submit(record_in_worker, folder, files, file, path)
            for file, path in paths.items() if not path.exists()]  # fmt: skip
    for run in runs:
        run.result()
    for path in paths.values():
        for test, (_, _, passed, _) in json.loads(path.read_text()).items():
            if not passed:
                print(f"mutants: left out, as it fails without a change: {test}")
    return [*paths.values()]


def find_killers(results: Iterable[Result]) -> dict[str, list[str]]:
    """Return the tests that killed changes of each function, as "module:function", the ones that
    killed most first."""
    killers: dict[str, Counter[str]] = {}
    for result in results:
        if result.test:
            killers.setdefault(result.name.split(": ")[0], Counter())[result.test] += 1
    return {place: [test for test, _ in tests.most_common(8)] for place, tests in killers.items()}


def read_results() -> dict[str, Result]:
    """Return the results that are kept, by the mutation's name."""
    results = {}
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else ():
        if line and not line.startswith("#"):
            verdict, digest, name, test = (*line.split("\t"), "")[:4]
            results[name] = Result(verdict, digest, name, test)
    return results


def read_equivalent() -> dict[str, str]:
    """Return why the changes that alter no behaviour do not, by name."""
    reasons, reason = {}, ""
    for line in EQUIVALENT.read_text().splitlines() if EQUIVALENT.exists() else ():
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            reasons[line] = reason
    return reasons


def write_results(results: Iterable[Result], changes: Mapping[str, int]) -> None:
    """Write all results, headed by their numbers."""
    kept = sorted(results, key=lambda r: (r.name.split(":")[0], r.verdict, r.name))
    head = "".join(f"# {line}".rstrip() + "\n" for line in (*RULES, *make_table(kept, changes)))
    RESULTS.write_text(head + "".join("\t".join(filter(None, r)) + "\n" for r in kept))


def make_table(results: Iterable[Result], changes: Mapping[str, int]) -> list[str]:
    """Return the numbers of each module and package, as lines of text."""
    equivalent = read_equivalent()
    rows: dict[str, Counter[str]] = {}
    for module, number in changes.items():
        for name in (module, package_of(module)):
            rows.setdefault(name, Counter())["changes"] += number
    for result in results:
        module = result.name.split(":")[0]
        same = result.verdict == "survived" and result.name in equivalent
        for name in (module, package_of(module)):
            rows[name]["equivalent" if same else result.verdict] += 1
    columns = ("changes", "tried", "equivalent", "killed", "survived")
    lines = [" " * 20 + "".join(f"{column:>12}" for column in columns) + "   share"]
    for name, row in sorted(rows.items()):
        counted = row["killed"] + row["survived"]
        row["tried"] = counted + row["equivalent"]
        share = f"{row['killed'] / counted:8.1%}" if counted else ""
        lines.append(f"{name:20}" + "".join(f"{row[column]:12}" for column in columns) + share)
    return lines


def show(mutation: Mutation) -> str:
    """Return where a change is, what it is, and the line it is in."""
    path = source_of(mutation.module)
    line = path.read_text().splitlines()[mutation.line - 1].strip()
    return f"{path.relative_to(ROOT)}:{mutation.line}: {mutation.name}\n    {line}"


def choose(mutations: list[Mutation], count: int | None, seed: int) -> list[Mutation]:
    """Return the changes of a module that are to be tried, in the order of its lines."""
    if count is None or count >= len(mutations):
        return mutations
    drawn = random.Random(f"{seed} {mutations[0].module}").sample(range(len(mutations)), count)
    return [mutations[i] for i in sorted(drawn)]


def parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tests", action="append", metavar="FILE")
    parser.add_argument("module", nargs="*", metavar="MODULE")
    return parser.parse_args(args)


def main(args: Sequence[str]) -> int:
    options = parse(args)
    mutations = {m: find_mutations(m, source_of(m).read_bytes()) for m in find_modules([])}
    changes = {module: len(found) for module, found in mutations.items()}
    digests = {m.name: m.digest for found in mutations.values() for m in found}
    # What is no longer in the code is forgotten.
    results = {n: r for n, r in read_results().items() if digests.get(n) == r.digest}
    equivalent = read_equivalent()
    if unknown := sorted(equivalent.keys() - digests.keys()):
        print("mutants: equivalent.txt names what is not in the code:", *unknown, sep="\n    ")
    survived, written = 0, time.monotonic()
    first: dict[str, Counter[str]] = {}  # verdicts of what had not been tried before, by package
    with (
        tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as text,
        ProcessPoolExecutor(options.jobs) as pool,
    ):
        folder = Path(text)
        folder.chmod(0o755)
        for package, modules in groupby(find_modules(options.module), key=package_of):
            files = tuple(options.tests or files_about(package))
            records: list[Path] = []
            tries: dict[Future[Result], Mutation] = {}
            killers = find_killers(results.values())
            for module in modules:
                chosen = {m.name for m in choose(mutations[module], options.sample, options.seed)}
                lived = {n for n, r in results.items() if r.verdict == "survived"}
                lived -= equivalent.keys()
                to_try = [
                    m for m in mutations[module]
                    if (m.name in lived and (not options.quick or options.sample == 0))
                    or (m.name in chosen and (options.again or m.name not in results))
                ]  # fmt: skip
                if options.list:
                    print(*map(show, to_try), sep="\n")
                if options.list or not to_try:
                    continue
                records = records or record(pool, folder, files)
                asked = (folder, files, records, options.quick)
                tries |= {
                    pool.submit(try_in_worker, m, killers.get(m.place, []), *asked): m
                    for m in to_try
                }
            for future in as_completed(tries):
                mutation, result = tries[future], future.result()
                new = mutation.name not in results and mutation.name not in equivalent
                first.setdefault(package, Counter())[result.verdict] += new
                results[mutation.name] = result
                if time.monotonic() > written + PAUSE:
                    write_results(results.values(), changes)
                    written = time.monotonic()
                if result.verdict == "survived" and mutation.name not in equivalent:
                    survived += 1
                    print(show(mutation), flush=True)
    if not options.list:
        write_results(results.values(), changes)
        print(*make_table(results.values(), changes), sep="\n")
        for package, verdicts in first.items():
            print(f"{package}: killed {verdicts['killed']} of {verdicts.total()} at first sight")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
