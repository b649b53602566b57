"""A copy of the working tree in which changes are made, and the tests that run on it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.mutants.mutations import Mutation
from tests.mutants.plugin import PATIENCE, TRIES, end_children

ROOT = Path(__file__).parents[2]
QUICK = 0.5  # seconds of the processor, as they are counted while a test is watched
BUDGET = 5.0  # seconds of the processor for a change, where it is tried quickly
COLLECT_LIMIT = 300  # seconds that collecting the tests may take; each test has a limit (plugin.py)


class Result(NamedTuple):
    verdict: str  # "killed", "survived"
    digest: str
    name: str
    test: str  # what killed it


def source_of(module: str, root: Path = ROOT) -> Path:
    """Return the path of a module such as "planner/division"."""
    return root / "ompbind" / f"{module}.py"


class Tree:
    """A copy of the working tree with a Python environment whose `ompbind` runs the copy."""

    def __init__(self, parent: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=parent))
        self.folder.chmod(0o755)  # some tests run as another user
        self.root = self.folder / "tree"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if os.path.lexists(ROOT / name):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name, follow_symlinks=False)
        environment = self.folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        self.python = environment / "bin" / "python"
        packages = next(environment.glob("lib/python*/site-packages"))
        # Python reads no .pth file in a directory that one names: ompbind is that of the copy.
        installed = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "tree.pth").write_text("\n".join([str(self.root), *installed]))
        command = (ROOT / "scripts" / "ompbind").read_text().splitlines(keepends=True)
        script = environment / "bin" / "ompbind"
        script.write_text(f"#!{self.python}\n" + "".join(command[1:]))
        script.chmod(0o755)
        self.changes = 0
        self.server: Server | None = None
        self.sources: dict[str, bytes] = {}  # of the module that is changed, without the change
        self.records: Sequence[Path] = ()
        self.quick = False
        self.killers: dict[str, Counter[str]] = {}  # tests that killed other changes of a function

    def write(self, module: str, source: bytes) -> None:
        """Write a module; its time is always another one, which is what tells Python to compile."""
        path = source_of(module, self.root)
        path.write_bytes(source)
        self.changes += 1
        os.utime(path, (self.changes, self.changes))

    def serve(self, files: Sequence[str], records: Sequence[Path] = ()) -> Server:
        """Return a server of these test files that was started on the tree as it was."""
        if self.server is None or self.server.files != files or not self.server.is_alive():
            if self.server is not None:
                self.server.stop()
            self.server = Server(self, files)
            self.server.collect()  # before anything is changed
        if records and self.server.records != records:
            self.server.records = records
            self.server.tell(recorded=list(map(str, records)))
        return self.server

    def record(self, files: Sequence[str], file: str, path: Path) -> None:
        """Run one of the test files without a change and write what each test does."""
        packages = next((self.folder / "venv").glob("lib/python*/site-packages"))
        watch = packages / "mutants_lines.pth"
        shutil.copy(self.root / "tests/mutants/lines.py", packages / "mutants_lines.py")
        noted = self.folder / "lines"
        server = self.serve(files)  # the processes that it starts are watched, it watches itself
        start = (f"{self.root}/ompbind/", str(noted), 0)
        watch.write_text(f"import mutants_lines; mutants_lines.start(*{start!r})\n")
        written = self.folder / "record"
        try:
            answer = server.ask(record=file, path=str(written), noted=str(noted))
        finally:
            watch.unlink()
        if answer != "":
            raise SystemExit(f"mutants: {file} cannot be run: see {self.folder}/log")
        shutil.move(written, path)  # at once, for who comes while it is written

    def try_one(
        self,
        mutation: Mutation,
        files: Sequence[str],
        records: Sequence[Path],
        likely: Sequence[str],
        *,
        quick: bool,
    ) -> Result:
        """Run the tests with one change, first those that are likely to notice it. `quick`: only
        those that start no processes and take no second."""
        source = source_of(mutation.module, self.root).read_bytes()
        self.sources = {mutation.module: source}
        self.records, self.quick = records, quick
        server = self.serve(files, records)
        try:
            self.write(mutation.module, mutation.apply(source))
            likely = [*self.killers.get(mutation.place, Counter()), *likely]
            test = self.find_failure(server, mutation, mutation.module, likely)
            # What a class is made of, or closes over other variables: the tests import it anew.
            if test is None or not (test or mutation.inside):
                server = Server(self, files)
                server.tell(recorded=list(map(str, records)))
                test = self.find_failure(server, mutation, "", likely)
                server.stop()
        finally:
            self.write(mutation.module, source)
        if test:
            self.killers.setdefault(mutation.place, Counter())[test] += 1
        return Result("killed" if test else "survived", mutation.digest, mutation.name, test or "")

    def find_failure(
        self, server: Server, mutation: Mutation, module: str, likely: Sequence[str]
    ) -> str | None:
        """Return the first test that fails twice, as the plugin's answers do, and passes at once
        without the change: on a busy machine a test may fail or take long without one."""
        skip: list[str] = []
        asked: dict[str, Any] = {
            "module": module,
            "place": mutation.module,
            "lines": mutation.lines if mutation.inside else None,
            "first": likely,
            "longest": QUICK if self.quick else float("inf"),
            "budget": BUDGET if self.quick else float("inf"),
        }
        # The planner is pure: what starts processes shows no more of it.
        pure = self.quick or mutation.module.startswith("planner/")
        for started in (False,) if pure else (False, True):
            for _ in range(TRIES):
                test = server.ask(**asked, started=started, skip=skip)
                if test is None:
                    return None
                if test == "":
                    break
                if test.startswith("!") or test in ("died", "hung"):
                    return str(test).removeprefix("!")
                again = server.ask(**asked, started=started, skip=skip, only=test)
                if again != "" and self.passes(mutation.module, server, test):
                    return str(test)
                skip.append(str(test))
        return ""

    def passes(self, module: str, server: Server, test: str) -> bool:
        """Whether a test passes without the change, far from the time that would be a hang."""
        changed = source_of(module, self.root).read_bytes()
        self.write(module, self.sources[module])
        try:
            answer = self.serve(server.files, self.records).ask(
                module="", started=True, only=test, patience=PATIENCE / 2
            )
            return bool(answer == "")
        finally:
            self.write(module, changed)


class Server:
    """A process of pytest that has collected test files and runs them when asked (plugin.py)."""

    def __init__(self, tree: Tree, files: Sequence[str]) -> None:
        self.files = files
        self.records: Sequence[Path] = ()
        (requests, self.requests), (self.answers, answers) = os.pipe(), os.pipe()
        topologies = os.environ.get("OMPBIND_TOPOLOGIES") or str(ROOT / "../shared/topologies")
        environ = os.environ | {
            "OMPBIND_MUTANTS": f"{requests},{answers}",
            "OMPBIND_TOPOLOGIES": topologies,
            "PATH": f"{tree.python.parent}:{os.environ['PATH']}",
        }
        options = ["-q", "-p", "no:cacheprovider", "-p", "tests.mutants.plugin",
                   "--basetemp", str(tree.folder / "temp")]  # fmt: skip
        with (tree.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(tree.python), "-m", "pytest", *options, *files],
                cwd=tree.root, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                pass_fds=[requests, answers], start_new_session=True,
            )  # fmt: skip
        os.close(requests)
        os.close(answers)
        self.left = b""  # of answers
        self.problem: str | None = None  # why the tests cannot be collected; None: not known yet

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def collect(self) -> str:
        """Wait until the tests are collected; returns "hung" or "died" if they cannot be."""
        if self.problem is None:
            waiting = select.select([self.answers], [], [], COLLECT_LIMIT)[0]
            self.problem = str(self.read() or "") if waiting else "hung"
        return self.problem

    def ask(self, **request: Any) -> Any:
        """Return the answer; "hung" or "died" in place of a test if it cannot collect the tests."""
        if problem := self.collect():
            return problem
        return self.read() if self.tell(**request) else "died"

    def tell(self, **request: Any) -> bool:
        """Send a request; returns whether there was somebody to read it."""
        try:
            with os.fdopen(os.dup(self.requests), "w") as pipe:
                pipe.write(json.dumps(request) + "\n")
        except BrokenPipeError:
            return False
        return True

    def read(self) -> Any:
        while b"\n" not in self.left:
            data = os.read(self.answers, 1 << 20)
            if not data:
                return "died"
            self.left += data
        line, _, self.left = self.left.partition(b"\n")
        return json.loads(line)

    def stop(self) -> None:
        if self.requests < 0:
            return
        os.close(self.requests)
        os.close(self.answers)
        self.requests = -1
        self.process.kill()
        self.process.wait()
        end_children()
