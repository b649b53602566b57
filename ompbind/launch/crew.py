"""Processes pinned to cpus each, which do what they are told to, one task after another: forks of
this one. `ompbind.measuring` has them measure."""

from __future__ import annotations

import os

from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError
from ompbind.launch.pipes import make_pipe, send, split_frames
from ompbind.launch.syscalls import Library, restore_signals, set_affinity, set_memory, signal
from ompbind.machine.free_memory import OOM_SCORE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # Does the named task with these numbers, and returns others.
    Perform = Callable[[str, list[float]], list[float]]


class TaskError(OmpbindError):
    """A process could not do a task: the kernel denies it, or there is no memory."""


class CrewEnded(TaskError):  # noqa: N818 - a state of the crew
    """A process has died: the crew can do nothing more."""


class Member:
    """One process: its pid and our ends of its pipes."""

    def __init__(self, pid: int, requests: int, answers: int) -> None:
        self.pid = pid
        self.requests = requests
        self.answers = answers


class Crew:
    """Processes by position. They end with this object, and with this process, however that ends.

    As a context manager: they are ended and reaped at the end of the block.
    """

    def __init__(self, cpus: Sequence[CpuSet], make_perform: Callable[[], Perform]) -> None:
        """`cpus`: what each is pinned to; `make_perform`: called in each, returns what does its
        tasks."""
        self.members: list[Member] = []
        self.library = Library()  # before forking: it takes time
        try:
            for each in cpus:
                self.members.append(self.start(each, make_perform))
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, cpus: CpuSet, make_perform: Callable[[], Perform]) -> Member:
        theirs, requests = make_pipe()
        answers, ours = make_pipe()
        pid = os.fork()
        if pid:
            os.close(theirs)
            os.close(ours)
            return Member(pid, requests, answers)
        try:  # nothing of the parent's may run here: no handler, no buffer is flushed
            restore_signals()
            self.library.die_with_parent(signal.SIGKILL)
            os.close(requests)
            os.close(answers)
            for other in self.members:  # or its pipe would not end while this process lives
                os.close(other.requests)
                os.close(other.answers)
            offer_to_killer()
            serve(cpus, make_perform, theirs, ours)
        finally:
            os._exit(0)

    def ask(self, positions: Sequence[int], name: str, *numbers: float) -> list[list[float]]:
        """Have processes do the same task at the same time; return what each returns. Raises
        TaskError; CrewEnded when one has died."""
        request = f"{' '.join([name, *map(repr, numbers)])}\n".encode()
        asked, answers, ended = [], [], None
        for position in positions:
            try:
                os.write(self.members[position].requests, request)
                asked.append(self.members[position])
            except OSError as e:
                ended = CrewEnded(f"a process has ended: {e.strerror}")
        for member in asked:  # all of them: an answer left unread would be the next task's
            try:
                answers.append(read_answer(member.answers))
            except CrewEnded as e:
                ended = e
        if ended is not None:
            raise ended
        for kind, *texts in answers:
            if kind != "done":
                raise TaskError(texts[0])
        return [[float(text) for text in texts] for _, *texts in answers]

    def end(self) -> None:
        """Kill and reap the processes."""
        for member in self.members:
            os.close(member.requests)
            os.close(member.answers)
            try:
                os.kill(member.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has exited, and the kernel has reaped it
                continue
        for member in self.members:
            try:
                os.waitpid(member.pid, 0)
            except ChildProcessError:  # where SIGCHLD is ignored, the kernel reaps
                continue
        self.members = []


def offer_to_killer() -> None:
    """Have the kernel end this process first where memory runs out: raising needs no privilege."""
    try:
        with open(OOM_SCORE, "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass


def read_answer(fd: int) -> tuple[str, ...]:
    """Return the next message of a pipe. Raises CrewEnded if it ends before."""
    data = b""
    while not (frames := split_frames(data)):
        more = os.read(fd, 65536)
        if not more:
            raise CrewEnded("a process has ended")
        data += more
    return tuple(text.decode() for text in split_frames(frames[0]))


def serve(cpus: CpuSet, make_perform: Callable[[], Perform], requests: int, answers: int) -> None:
    """Do the tasks that come through a pipe until it ends; answer each, or say why not."""
    perform: Perform | None = None
    with os.fdopen(requests, encoding="utf-8") as lines:
        for line in lines:
            name, *numbers = line.split()
            try:
                if perform is None:
                    set_affinity(cpus)
                    perform = make_perform()
                results = perform(name, [float(number) for number in numbers])
                send(answers, "done", *map(repr, results))
            except (OSError, MemoryError) as e:
                send(answers, "failed", getattr(e, "strerror", None) or "no memory")


class MemoryFrom:
    """Memory that is touched inside the block comes from a node; None: as it would otherwise.
    Entering raises OSError where the kernel denies that."""

    def __init__(self, node: int | None) -> None:
        self.node = node
        self.library: Library | None = None

    def __enter__(self) -> None:
        if self.node is not None:
            self.library = Library()
            set_memory("bind", CpuSet([self.node]), self.library)

    def __exit__(self, *_: object) -> None:
        if self.library is not None:
            self.library.memory(0, 0)
