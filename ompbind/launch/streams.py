"""The standard streams of each rank: ompbind's own, pipes to and from ompbind, or files."""

from __future__ import annotations

import os

from ompbind.colours import coloured
from ompbind.errors import OmpbindError, UsageError
from ompbind.launch.pipes import make_pipe, move_up
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ompbind.launch.loop import Loop
    from ompbind.launch.output import Sink
    from ompbind.launch.rank import Settings, Start
    from ompbind.launch.stdin import Feed

    Three = tuple[int | None, int | None, int | None]  # None: shared with ompbind

NAMES = ("out", "err")
SPARE = 32  # descriptors that the supervisor needs besides those of its ranks
BATCH = 16  # ranks whose ends are open at once, so that they can be forked one after another
EACH = 4  # descriptors that such a rank needs: three streams and a lease


class Streams:
    """The streams of all ranks: `connect` them while ranks are started, `watch` the pipes, `finish`
    what is left in them, and `close` in any case."""

    def __init__(
        self, settings: Settings, count: int, environ: Mapping[str, str], first: int = 0
    ) -> None:
        """`first`: what the first rank is called in tags and the names of files. Raises
        UsageError."""
        self.tagged = is_tagged(settings, count)
        self.batch = 1  # how many ranks can be connected at once
        self._count, self._first = count, first
        self.names: Sequence[str] = ()  # what ranks are called, where not by their numbers
        # By rank: makes what gets all that a stream of the rank is read from.
        self.watchers: dict[int, Callable[[], Callable[[bytes], None]]] = {}
        self._environ = environ
        self._stdin = settings.stdin or "0"
        if self._stdin.isdigit() and int(self._stdin) >= count:
            hint = f"ranks: 0-{count - 1}" if count > 1 else "the only rank is 0"
            raise UsageError(f"--stdin {self._stdin}: there is no such rank", hint=hint)
        self._directory, self._overwrite = settings.output_dir, settings.overwrite
        # The ranks' files, by path. They stay open until all ranks run: in somebody else's
        # directory the same name may be another file by then.
        self._files: dict[str, int] = {}
        self._theirs: list[int] = []  # what the ranks that are being started inherit
        # Pipes that ranks write to: rank, our end, the standard streams that they stand for.
        self._outputs: list[tuple[int, int, tuple[int, ...]]] = []
        self._inputs: list[int] = []  # pipes that ranks read from: our ends
        self._sinks: list[Sink] = []
        self._feed: Feed | None = None

    def prepare(self, used: int) -> tuple[int, int] | None:
        """Make room for the ranks' streams, and their files, if they write to such. Return this
        process's former limits of open files where `make_room` has raised them. Raises
        OmpbindError."""
        limits = self.make_room(used)
        self._make_files()
        return limits

    def make_room(self, used: int) -> tuple[int, int] | None:
        """Raise this process's soft limit of open files to the hard one where its ends of the
        ranks' pipes, or their files, need that; return the former limits then. `used`: how many are
        open.

        Programs may rely on the soft limit (select takes no descriptor above 1023), so the ranks
        get the former limits back. Raises OmpbindError.
        """
        each = len(group_streams()) if self.tagged else len(NAMES) if self._directory else 0
        each += self._stdin == "all" and self._count > 1
        wanted = used + self._count * each + SPARE
        if wanted <= (limit := os.sysconf("SC_OPEN_MAX")):
            self.batch = min(1 + (limit - wanted) // EACH, BATCH)
            return None
        import resource

        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        hard = limits[1]
        if hard != resource.RLIM_INFINITY and wanted > hard:
            rank = max(0, hard - used - SPARE) // each
            redirected = self.tagged or self._directory
            way_out = "--output inherit" if redirected else "another --stdin"
            raise OmpbindError(
                f"rank {rank}: no descriptors are left for its streams: ompbind may open {hard} "
                f"files, and {self._count} ranks need {wanted}",
                hint=f"raise the hard limit (ulimit -Hn {wanted}), or use {way_out}",
                rank=rank,
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        unlimited = hard == resource.RLIM_INFINITY
        self.batch = BATCH if unlimited else min(1 + (hard - wanted) // EACH, BATCH)
        return limits

    def connect(self, batches: Iterable[Sequence[Start]]) -> Iterator[list[Start]]:
        """Yield each batch of starts with the descriptors that become their streams. They stay open
        until the next is taken: fork the ranks before that. Raises OSError."""
        self._close_pipes()  # of a first attempt, when a binding was denied
        for starts in batches:
            yield [self._connect(start) for start in starts]
            self._close_theirs()

    def _connect(self, start: Start) -> Start:
        stdin, stdout, stderr = self._open(start.rank.rank)
        return start.replace(stdin=stdin, stdout=stdout, stderr=stderr)

    def connect_alone(self, start: Start) -> Start:
        """Return the start of the only rank, which this process becomes. Raises OSError,
        UsageError."""
        self._make_files()
        return self._connect(start)

    def watch(self, loop: Loop) -> None:
        """Let the loop carry what ranks write and read."""
        self._close_theirs()
        self._close_files()
        if self._outputs:
            from ompbind.launch.output import Source

            colour = not self._plain and not self._environ.get("NO_COLOR")
            for rank, fd, group in self._outputs:
                sink = self._find_sink(loop, group)
                make = Source
                if sink.terminal:
                    from ompbind.launch.terminal import TerminalSource

                    make = TerminalSource
                tags = make_tags(
                    self._first + rank, colour=colour and sink.terminal, name=self._name(rank)
                )
                source = make(fd, *tags, sink)
                if rank in self.watchers:
                    source.watcher = self.watchers[rank]()
        if self._inputs:
            from ompbind.launch.stdin import Feed

            self._feed = Feed(loop)
            for fd in self._inputs:
                self._feed.add(fd)
        self._outputs, self._inputs = [], []

    def finish(self, done: Callable[[], object]) -> None:
        """After all ranks have exited: take what is left in their pipes, and call `done` when it is
        written. Other processes that still hold a rank's streams are not waited for."""
        if self._feed:
            self._feed.close()
        sinks = list(self._sinks)
        left = list(sinks)

        def one_done(sink: Sink) -> None:
            left.remove(sink)
            if not left:
                done()

        for sink in sinks:
            sink.finish(lambda sink=sink: one_done(sink))  # type: ignore[misc]
        if not sinks:
            done()

    def say(self, loop: Loop, text: str) -> None:
        """Write a message to standard error, between two lines of ranks. What cannot be written now
        is kept, and written when the loop finds that it can."""
        sinks = [sink for sink in self._sinks if 2 in sink.stands_for]
        if sinks or is_open(2):
            sink = sinks[0] if sinks else self._find_sink(loop, (2,))
            sink.end_line()
            sink.put([text.encode("utf-8", "surrogateescape")])

    def flush(self, done: Callable[[], object]) -> None:
        """Call `done` when all messages are written."""
        sinks = [sink for sink in self._sinks if 2 in sink.stands_for]
        if sinks:
            sinks[0].finish(done)
        else:
            done()

    def end(self) -> list[str]:
        """End an unfinished line on standard error, for messages to follow. Return why output could
        not be written, except that its reader has gone."""
        problems = []
        for sink in self._sinks:
            if 2 in sink.stands_for:
                sink.end_line()
            if sink.error and not isinstance(sink.error, BrokenPipeError):
                name = "standard output" if 1 in sink.stands_for else "standard error"
                reason = sink.error.strerror or str(sink.error)
                problems.append(f"{name} cannot be written: {reason}")
        return problems

    def close(self) -> None:
        """Close all that is still open."""
        self._close_files()
        self._close_pipes()

    def _close_pipes(self) -> None:
        self._close_theirs()
        for fd in (*(fd for _, fd, _ in self._outputs), *self._inputs):
            os.close(fd)
        if self._feed:
            self._feed.close()
        for sink in self._sinks:
            sink.close()
        self._outputs, self._inputs, self._sinks, self._feed = [], [], [], None

    def _open(self, rank: int) -> Three:
        """Open a rank's standard input, output and error."""
        stdin: int | None = None
        if self._stdin == "all":
            stdin = self._pipe_in() if self._count > 1 else None
        elif self._stdin != str(rank):
            stdin = self._keep(os.open(os.devnull, os.O_RDONLY))
        if self._directory:
            paths = [path_of(self._directory, self._file_name(rank), name) for name in NAMES]
            out, err = (self._files[path] for path in paths)
            return stdin, out, err
        if not self.tagged:
            return stdin, None, None
        groups = group_streams()
        pipes = {group: self._pipe_out(rank, group) for group in groups}
        by_stream = {fd: pipe for group, pipe in pipes.items() for fd in group}
        return stdin, by_stream.get(1), by_stream.get(2)

    @property
    def _plain(self) -> bool:
        return self._environ.get("TERM", "").lower() in ("dumb", "unknown")

    def _find_sink(self, loop: Loop, group: tuple[int, ...]) -> Sink:
        """Return the sink of one of our streams, or of both where they are the same file."""
        for sink in self._sinks:
            if sink.stands_for == group:
                return sink
        from ompbind.launch.output import Sink

        self._sinks.append(Sink(loop, group, plain=self._plain))
        return self._sinks[-1]

    def _make_files(self) -> None:
        if self._directory:
            names = [self._file_name(rank) for rank in range(self._count)]
            self._files = make_files(self._directory, names, overwrite=self._overwrite)

    def _name(self, rank: int) -> str:
        """Return what a rank is called."""
        return self.names[rank] if self.names else str(self._first + rank)

    def _file_name(self, rank: int) -> str:
        """Return the beginning of the names of a rank's files."""
        name = self._name(rank)
        return name.replace(".", "-") if self.names else f"rank-{name}"

    def _close_files(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files = {}

    def _close_theirs(self) -> None:
        for fd in self._theirs:
            os.close(fd)
        self._theirs = []

    def _pipe_out(self, rank: int, group: tuple[int, ...]) -> int:
        """Return the rank's end of a pipe that it writes to."""
        ours, theirs = make_pipe()
        self._outputs.append((rank, ours, group))
        return self._keep(theirs)

    def _pipe_in(self) -> int:
        """Return the rank's end of a pipe that it reads from."""
        theirs, ours = make_pipe()
        self._inputs.append(ours)
        return self._keep(theirs)

    def _keep(self, fd: int) -> int:
        """Return a descriptor above 2 for what a rank inherits; it is closed after the fork."""
        self._theirs.append(move_up(fd))
        return self._theirs[-1]


def is_tagged(settings: Settings, count: int) -> bool:
    """Whether lines go through ompbind and get tags: by default with several ranks, unless their
    processes may outlive ompbind, which could not write to its pipes any more."""
    if settings.output or settings.output_dir:
        return settings.output == "tag"
    return count > 1 and not settings.leave_children


def make_tags(rank: int, *, colour: bool, name: str = "") -> tuple[bytes, bytes]:
    """Return the prefix of a line, and that of the rest of a line that was cut. `name`: what the
    rank is called, by default its number."""
    tag = f"[{name or rank}]"
    tag = coloured(tag, rank) if colour else tag
    return f"{tag} ".encode(), f"{tag}+".encode()


def group_streams() -> list[tuple[int, ...]]:
    """Return (1,) and (2,), or (1, 2) where standard output and error are the same file: a rank
    then has one pipe for both, which keeps their order. Closed ones are left out."""
    streams = [fd for fd in (1, 2) if is_open(fd)]
    if streams[1:] and os.path.samestat(os.fstat(1), os.fstat(2)):
        return [(1, 2)]
    return [(fd,) for fd in streams]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# --- files ---------------------------------------------------------------------------------------


def path_of(directory: str, rank: str, stream: str) -> str:
    """Return the path of a rank's file, as rank-3.out or worker-3.err."""
    return os.path.join(directory, f"{rank}.{stream}")


def make_files(directory: str, ranks: Iterable[str], *, overwrite: bool) -> dict[str, int]:
    """Create the files of these ranks, empty: all or none. Return their descriptors, by path.
    Raises UsageError."""
    paths = [path_of(directory, rank, name) for rank in ranks for name in NAMES]
    made: list[str] = []
    files: dict[str, int] = {}
    path = directory
    try:
        os.makedirs(directory, exist_ok=True)
        existing = [path for path in paths if os.path.lexists(path)]
        if existing and not overwrite:
            others = f" (and {len(existing) - 1} more)" if existing[1:] else ""
            raise UsageError(
                f"--output-dir: {quote(existing[0], 400)} already exists{others}",
                hint="name another directory; --overwrite replaces such files",
            )
        for path in paths:
            files[path] = open_file(path, os.O_CREAT | (0 if overwrite else os.O_EXCL))
            made += [] if path in existing else [path]
            os.truncate(files[path], 0)
    except OSError as e:
        for fd in files.values():
            os.close(fd)
        for path_made in made:
            os.unlink(path_made)
        raise UsageError(f"--output-dir: {quote(path, 400)}: {e.strerror}") from None
    return files


def open_file(path: str, flags: int = 0) -> int:
    """Open a regular file for appending, above descriptor 2; follow no link and wait for no reader
    of a FIFO: the directory may belong to somebody else. Raises OSError."""
    if os.path.islink(path):
        raise OSError(0, "is a symbolic link")
    flags |= os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = move_up(os.open(path, flags, 0o666))
    if os.fstat(fd).st_mode & 0o170000 != 0o100000:  # S_IFMT, S_IFREG
        os.close(fd)
        raise OSError(0, "is not a regular file")
    os.set_blocking(fd, True)
    return fd
