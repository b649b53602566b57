"""Which standard streams each rank gets: ours, pipes that we read and write, files."""

from __future__ import annotations

import os

from ompbind.colours import coloured
from ompbind.errors import UsageError
from ompbind.launch.pipes import make_pipe, move_up
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ompbind.launch.loop import Loop
    from ompbind.launch.output import Sink
    from ompbind.launch.rank import Settings, Start
    from ompbind.launch.stdin import Feed

    Three = tuple[int | None, int | None, int | None]  # None: ours, as it is

NAMES = ("out", "err")


class Streams:
    """The streams of all ranks: `connect` them while ranks are started, `watch` what goes through
    our hands, `finish` that, and `close` in any case."""

    def __init__(self, settings: Settings, count: int, environ: Mapping[str, str]) -> None:
        """Raises UsageError where the ranks' files cannot be made."""
        self.tagged = is_tagged(settings, count)
        self._count = count
        self._environ = environ
        self._stdin = settings.stdin or "0"
        if self._stdin.isdigit() and int(self._stdin) >= count:
            hint = f"ranks: 0-{count - 1}" if count > 1 else "the only rank is 0"
            raise UsageError(f"--stdin {self._stdin}: there is no such rank", hint=hint)
        self._directory = settings.output_dir
        if self._directory:
            make_files(self._directory, count, overwrite=settings.overwrite)
        self._theirs: list[int] = []  # what the rank that is being started inherits
        self._outputs: list[tuple[int, int, tuple[int, ...]]] = []  # rank, pipe, ours it stands for
        self._inputs: list[int] = []  # pipes that ranks read from, our ends
        self._sinks: list[Sink] = []
        self._feed: Feed | None = None

    def connect(self, starts: Iterable[Start]) -> Iterator[Start]:
        """Each rank with the descriptors that become its streams. They are open until the next is
        asked for: by then it must have been forked. Raises OSError."""
        self.close()  # what was for ranks that have not come to run
        for start in starts:
            stdin, stdout, stderr = self._open(start.rank.rank)
            yield start.replace(stdin=stdin, stdout=stdout, stderr=stderr)
            self._close_theirs()

    def connect_alone(self, start: Start) -> Start:
        """The only rank, which this process becomes. Raises OSError."""
        stdin, stdout, stderr = self._open(start.rank.rank)
        return start.replace(stdin=stdin, stdout=stdout, stderr=stderr)

    def watch(self, loop: Loop) -> None:
        """From now on the loop carries what ranks write and read."""
        self._close_theirs()
        if self._outputs:
            from ompbind.launch.output import Sink, Source

            plain = self._environ.get("TERM", "").lower() in ("dumb", "unknown")
            colour = not plain and not self._environ.get("NO_COLOR")
            groups = dict.fromkeys(group for _, _, group in self._outputs)
            sinks = {group: Sink(loop, group, plain=plain) for group in groups}
            for rank, fd, group in self._outputs:
                sink = sinks[group]
                Source(fd, *make_tags(rank, colour=colour and sink.terminal), sink)
            self._sinks = list(sinks.values())
        if self._inputs:
            from ompbind.launch.stdin import Feed

            self._feed = Feed(loop)
            for fd in self._inputs:
                self._feed.add(fd)
        self._outputs, self._inputs = [], []

    def finish(self, done: Callable[[], object]) -> None:
        """After the ranks have ended: takes what is left in their pipes, and calls `done` when all
        is written. Whoever else still holds a rank's streams is not waited for."""
        if self._feed:
            self._feed.close()
        left = list(self._sinks)

        def one_done(sink: Sink) -> None:
            left.remove(sink)
            if not left:
                done()

        for sink in self._sinks:
            sink.finish(lambda sink=sink: one_done(sink))  # type: ignore[misc]
        if not self._sinks:
            done()

    def say(self, text: str) -> bool:
        """Writes a message where ranks' lines go to our standard error, between two of them; False:
        they do not pass through our hands."""
        for sink in self._sinks:
            if 2 in sink.stands_for and not sink.trouble:
                sink.end_line()
                sink.put([text.encode("utf-8", "surrogateescape")])
                return True
        return False

    def end(self) -> list[str]:
        """Ends an unfinished line on our standard error, for messages to follow; what kept output
        from being written, but for a reader that has gone."""
        troubles = []
        for sink in self._sinks:
            if 2 in sink.stands_for:
                sink.end_line()
            if sink.trouble and not isinstance(sink.trouble, BrokenPipeError):
                name = "standard output" if 1 in sink.stands_for else "standard error"
                reason = sink.trouble.strerror or str(sink.trouble)
                troubles.append(f"{name} cannot be written: {reason}")
        return troubles

    def close(self) -> None:
        """Forgets all that is still open."""
        self._close_theirs()
        for fd in (*(fd for _, fd, _ in self._outputs), *self._inputs):
            os.close(fd)
        if self._feed:
            self._feed.close()
        for sink in self._sinks:
            sink.close()
        self._outputs, self._inputs, self._sinks, self._feed = [], [], [], None

    def _open(self, rank: int) -> Three:
        """A rank's standard input, output and error."""
        stdin: int | None = None
        if self._stdin == "all":
            stdin = self._pipe_in() if self._count > 1 else None
        elif self._stdin != str(rank):
            stdin = self._keep(os.open(os.devnull, os.O_RDONLY))
        if self._directory:
            out, err = (self._keep(open_file(self._directory, rank, name)) for name in NAMES)
            return stdin, out, err
        if not self.tagged:
            return stdin, None, None
        groups = group_streams()
        pipes = {group: self._pipe_out(rank, group) for group in groups}
        by_stream = {fd: pipe for group, pipe in pipes.items() for fd in group}
        return stdin, by_stream.get(1), by_stream.get(2)

    def _close_theirs(self) -> None:
        for fd in self._theirs:
            os.close(fd)
        self._theirs = []

    def _pipe_out(self, rank: int, group: tuple[int, ...]) -> int:
        """A pipe that the rank writes to: its end."""
        ours, theirs = make_pipe()
        self._outputs.append((rank, ours, group))
        return self._keep(theirs)

    def _pipe_in(self) -> int:
        """A pipe that the rank reads from: its end."""
        theirs, ours = make_pipe()
        self._inputs.append(ours)
        return self._keep(theirs)

    def _keep(self, fd: int) -> int:
        """Remembers to close what a rank inherits; its number is none of a standard stream's."""
        self._theirs.append(move_up(fd))
        return self._theirs[-1]


def is_tagged(settings: Settings, count: int) -> bool:
    """Whether lines go through our hands: by default with several ranks."""
    return settings.output == "tag" or (
        not settings.output and not settings.output_dir and count > 1
    )


def make_tags(rank: int, *, colour: bool) -> tuple[bytes, bytes]:
    """What stands before a line, and before the rest of one that was ended too early."""
    tag = f"[{rank}]"
    tag = coloured(tag, rank) if colour else tag
    return f"{tag} ".encode(), f"{tag}+".encode()


def group_streams() -> list[tuple[int, ...]]:
    """Our standard output and error, each by itself, or together where they are the same file: a
    rank then gets a single pipe for both, which keeps their order. Closed ones are left out."""
    there = [fd for fd in (1, 2) if is_open(fd)]
    if there[1:] and os.path.samestat(os.fstat(1), os.fstat(2)):
        return [(1, 2)]
    return [(fd,) for fd in there]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# --- files ---------------------------------------------------------------------------------------


def path_of(directory: str, rank: int, name: str) -> str:
    return os.path.join(directory, f"rank-{rank}.{name}")


def make_files(directory: str, count: int, *, overwrite: bool) -> None:
    """Every rank's files, empty, all or none. Raises UsageError."""
    paths = [path_of(directory, rank, name) for rank in range(count) for name in NAMES]
    made: list[str] = []
    path = directory
    try:
        os.makedirs(directory, exist_ok=True)
        there = [path for path in paths if os.path.lexists(path)]
        if there and not overwrite:
            others = f" (and {len(there) - 1} more)" if there[1:] else ""
            raise UsageError(
                f"--output-dir: {quote(there[0], 400)} is there already{others}",
                hint="name another directory; --overwrite replaces such files",
            )
        how = os.O_TRUNC if overwrite else os.O_EXCL
        for path in paths:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o666))
            made += [] if path in there else [path]
    except OSError as e:
        for path_made in made:
            os.unlink(path_made)
        raise UsageError(f"--output-dir: {quote(path, 400)}: {e.strerror}") from None


def open_file(directory: str, rank: int, name: str) -> int:
    return os.open(path_of(directory, rank, name), os.O_WRONLY | os.O_APPEND)
