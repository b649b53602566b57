"""What ranks write, tagged: nothing lost, nothing torn or mixed, whoever is slow or has gone."""

from __future__ import annotations

import fcntl
import os
import select
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.launch.loop import Loop
from ompbind.launch.output import LONGEST, PAUSE, Sink, Source
from ompbind.launch.terminal import TerminalSource
from tests.support.screen import read_screen

DEADLINE = 30.0  # seconds, against hanging


class Stage:
    """A sink over a pipe or a terminal, with sources over pipes; `wrote` is what came out."""

    def __init__(self, ranks: int, *, terminal: bool = False, colour: bool = False) -> None:
        self.loop = Loop()
        if terminal:
            self.reader, self.own = os.openpty()
            tty.setraw(self.own, termios.TCSANOW)
        else:
            self.reader, self.own = os.pipe()
        self.sink = Sink(self.loop, (self.own,), plain=False)
        self.pipes: list[int] = []
        self.sources: list[Source] = []
        for rank in range(ranks):
            ours, theirs = os.pipe()
            tag = f"\x1b[36m[{rank}]\x1b[0m" if colour else f"[{rank}]"
            make = TerminalSource if terminal else Source
            self.sources.append(make(ours, f"{tag} ".encode(), f"{tag}+".encode(), self.sink))
            self.pipes.append(theirs)
        os.set_blocking(self.reader, False)

    def write(self, rank: int, data: bytes) -> None:
        """The rank writes, and it is taken at once."""
        os.write(self.pipes[rank], data)
        self.sources[rank].read()

    def turn(self, seconds: float) -> None:
        """Lets the loop run for a while."""
        self.loop.after(seconds, self.loop.stop)
        self.loop.run()

    def wrote(self) -> bytes:
        """What has come out since the last time."""
        data = b""
        with suppress(BlockingIOError, OSError):
            while more := os.read(self.reader, 1 << 20):
                data += more
        return data

    def close(self) -> None:
        self.sink.close()
        for fd in (*self.pipes, self.reader, self.own):
            with suppress(OSError):
                os.close(fd)


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    """Makes stages, and clears them away."""
    made: list[Stage] = []

    def make(*args: int, **options: bool) -> Stage:
        made.append(Stage(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_many_small_pieces(tmp_path: Path) -> None:
    """A line of 400,000 small pieces is written in a fraction of the time in which they are taken:
    signals and other ranks do not wait for it."""
    reader, writer = os.pipe()
    fd = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)
    sink = Sink(Loop(), (fd,), plain=False)
    source = Source(reader, b"[0] ", b"[0]+", sink)
    begin = time.process_time()
    for _ in range(400_000):
        os.write(writer, b"..")
        source.read()
    taken = time.process_time()
    os.write(writer, b"\n")
    source.read()
    written = time.process_time()
    assert written - taken < (taken - begin) / 4
    assert (tmp_path / "output").read_bytes() == b"[0] " + b"." * 800_000 + b"\n"
    sink.close()
    os.close(writer)
    os.close(fd)


Make = Callable[..., Stage]


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writes", "out"),
    [
        ([(3, b"one\n")], b"[3] one\n"),
        ([(0, b"one\ntwo\n\nfour\n")], b"[0] one\n[0] two\n[0] \n[0] four\n"),
        ([(0, b"one\ntw"), (1, b"uno\n"), (0, b"o\n")], b"[0] one\n[1] uno\n[0] two\n"),
        ([(0, b"o"), (0, b"n"), (1, b"u"), (0, b"e\n"), (1, b"no\n")], b"[0] one\n[1] uno\n"),
        ([(0, b"\xff\x00\xc3\n\xc3")], b"[0] \xff\x00\xc3\n"),
        ([(0, b"dos\r\nline\r\n")], b"[0] dos\r\n[0] line\r\n"),
        ([(0, b"dos\r"), (1, b"x\n"), (0, b"\nline\r"), (0, b"\n")],
         b"[1] x\n[0] dos\r\n[0] line\r\n"),
        ([(0, b"10%\r20%\r30%\n")], b"[0] 10%\r[0] 20%\r[0] 30%\n"),
        ([(0, b"10%\r"), (0, b"20%\r"), (0, b"30%\r")], b"[0] 10%\r[0] 20%\r"),
        ([(0, b"\r10%"), (0, b"\r20%"), (0, b"\n")], b"[0] \r[0] 10%\r[0] 20%\n"),
        ([(0, b"a\r[0] \nb\n")], b"[0] a\r[0] [0] \n[0] b\n"),
        ([(0, b"a\r\r\nb\n\r\n")], b"[0] a\r[0] \r\n[0] b\n[0] \r\n"),
    ],
)  # fmt: skip
def test_lines(stage: Make, writes: list[tuple[int, bytes]], out: bytes) -> None:
    """A tag in front of each line and after each carriage return; unfinished lines wait."""
    s = stage(4)
    for rank, data in writes:
        s.write(rank, data)
    assert s.wrote() == out


def test_colour_and_terminal(stage: Make) -> None:
    """On a terminal, what a carriage return goes back over is erased."""
    s = stage(1, terminal=True, colour=True)
    s.write(0, b"long\rx\n")
    tag = b"\x1b[36m[0]\x1b[0m "
    assert s.wrote() == tag + b"long\r\x1b[K" + tag + b"x\n"


def test_unfinished_line_at_the_end(stage: Make) -> None:
    """A last line without its end comes out, and gets one only where another line follows."""
    s = stage(2)
    s.write(0, b"first\nlast")
    s.write(1, b"also last")
    os.close(s.pipes[0])
    s.sources[0].read()
    assert s.wrote() == b"[0] first\n[0] last"
    os.close(s.pipes[1])
    s.sources[1].read()
    assert s.wrote() == b"\n[1] also last"
    s.sink.end_line()
    assert s.wrote() == b"\n"
    s.sink.end_line()
    assert s.wrote() == b""


def test_long_lines(stage: Make) -> None:
    """A line longer than what is held back goes on where it was, as long as no other line comes
    between; then it is ended, and its rest stands behind a mark. Nothing is lost."""
    assert LONGEST == 1 << 20
    s = stage(2)
    kept: list[bytes] = []
    chunk = b"x" * 60_000
    for _ in range(LONGEST // len(chunk) + 1):
        assert s.wrote() == b""
        s.write(0, chunk)
        kept.append(chunk)
    assert s.sink.unfinished is s.sources[0]
    out = read_until(s, lambda out: len(out) == 4 + len(b"".join(kept)))
    assert out == b"[0] " + b"".join(kept)
    s.write(0, b"y\nz\n")
    assert s.wrote() == b"y\n[0] z\n"
    for _ in range(LONGEST // len(chunk) + 1):
        s.write(0, chunk)
    read_until(s, lambda out: len(out) == 4 + len(b"".join(kept)))
    s.write(1, b"other\n")
    s.write(0, b"rest\nnext\n")
    assert s.wrote() == b"\n[1] other\n[0]+rest\n[0] next\n"


def read_until(stage: Stage, enough: Callable[[bytes], bool]) -> bytes:
    """What comes out while the loop runs."""
    out = b""
    end = time.monotonic() + DEADLINE
    while not enough(out):
        assert time.monotonic() < end, f"only {len(out)} bytes"
        stage.turn(0.01)
        out += stage.wrote()
    return out


def test_questions(stage: Make) -> None:
    """On a terminal an unfinished line is shown after a moment, as it may be a question; it goes on
    where it was, or is ended where another rank's line comes first."""
    s = stage(2, terminal=True)
    s.write(0, b"name? ")
    assert s.wrote() == b""
    assert read_until(s, bool) == b"[0] name? "
    s.write(0, b"you\n")
    assert s.wrote() == b"you\n"
    s.write(0, b"age? ")
    read_until(s, bool)
    s.write(1, b"hello\n")
    s.write(0, b"7\n")
    s.write(1, b"bye\n")
    s.write(0, b"bye\n")
    assert s.wrote() == b"\n[1] hello\n[0]+7\n[1] bye\n[0] bye\n"


FIRST = (b"\r 1%", b"\r 5%", b"\r100%", b"\n")  # as tqdm writes its states
LAST = (b" 1%\r", b" 5%\r", b"100%\r", b"\n")


@pytest.mark.parametrize("states", [FIRST, LAST], ids=["first", "last"])
@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_take_turns(stage: Make, states: Sequence[bytes], shown: bool) -> None:
    """In one line of a terminal, whether a carriage return stands before each state or after it,
    and however often they are shown; the last state of each stays as a line, behind its tag."""
    s = stage(3, terminal=True)
    out = b""
    for state in states:
        for rank in (0, 1):
            s.write(rank, state.replace(b"%", b"% of a long line" if rank == 0 else b"%"))
            if shown:
                s.sink._show()
        out += s.wrote()
        assert len(read_screen(out)) == (3 if state == b"\n" else 1)
    assert read_screen(out) == [b"[0] 100% of a long line", b"[1] 100%", b""]


def test_a_progress_bar_gives_way_and_comes_back(stage: Make) -> None:
    """Another rank's line or question, and ompbind's messages, take its place; it is shown again
    with its next state, or its rest, or when its rank exits."""
    s = stage(3, terminal=True)
    s.write(0, b"\r10%")
    s.sink._show()
    s.write(1, b"a line\n")
    out = s.wrote()
    assert read_screen(out) == [b"[1] a line", b""]
    s.sink._show()
    assert s.wrote() == b""  # nothing new
    s.write(0, b" and more")
    s.sink._show()
    out += s.wrote()
    assert read_screen(out) == [b"[1] a line", b"[0] 10% and more"]
    s.sink.end_line()
    s.sink.put([b"a message\n"])
    s.write(1, b"really? ")
    s.sink._show()
    s.write(0, b"\r20%\r30%")
    s.sink._show()
    os.close(s.pipes[0])
    s.sources[0].read()
    s.write(1, b"yes\n")
    out += s.wrote()
    lines = [b"[1] a line", b"a message", b"[1] really?", b"[0] 30%", b"[1]+yes", b""]
    assert read_screen(out) == lines


def test_bars_that_do_not_move_wake_nobody(stage: Make) -> None:
    """Each is shown once, one at a time, and then nothing more is done."""
    s = stage(3, terminal=True)
    for rank in range(3):
        s.write(rank, b"\r%d0%%" % rank)
    for rank in range(3):
        s.sink._show()
        assert read_screen(s.wrote())[-1] == b"[%d] %d0%%" % (rank, rank)
    s.sink._show()
    assert s.sink.shown == []
    assert s.wrote() == b""


SHOW = b""  # in place of what a rank writes: what is held back is shown
OVER = b"\r\x1b[K[0] "  # starts a line of rank 0 over


@pytest.mark.parametrize(
    ("writes", "wrote"),
    [
        ([b"\r10%", SHOW, b"\r20%", SHOW, b"\n"], b"[0] 10%" + OVER + b"20%\n"),
        ([b"10%\r", SHOW, b"20%\r", SHOW, b"\n"], b"[0] 10%\r" + OVER + b"20%\r\n"),
        ([b"\r10%", SHOW, b"\rdone\n"], b"[0] 10%" + OVER + b"done\n"),
        ([b"\r10%", SHOW, b"\r20%", b"\n"], b"[0] 10%" + OVER + b"20%\n"),
        ([b"10%\r", SHOW, b"done\n"], b"[0] 10%\r" + OVER + b"done\n"),
        ([b"10%\r", SHOW, b"\n", b"x", SHOW], b"[0] 10%\r\n[0] x"),
        ([b"\r10%", b" of it", SHOW, b" or", SHOW, b" so\n"], b"[0] 10% of it or so\n"),
        ([b"a\r", b"\n", b"b\r\n"], b"[0] a\r\n[0] b\r\n"),
        ([b"a\nb\r5%", SHOW, b"\n"], b"[0] a\n[0] 5%\n"),
        ([b"a\rb\nc\rd\n"], b"[0] a" + OVER + b"b\n[0] c" + OVER + b"d\n"),
        ([b"a", b"b", SHOW, b"c", SHOW, SHOW, b"\n"], b"[0] abc\n"),
        ([b"\r1%", b"\r2%", SHOW], b"[0] 2%"),
        ([b"\r1%\r2%\r", SHOW, b"3%", SHOW], b"[0] 2%\r" + OVER + b"3%"),
        ([b"1%\r", b"2%"], b"[0] 2%"),
        ([b"\r1%", b" so far\n"], b"[0] 1% so far\n"),
        ([b"1%", SHOW, b"\r", SHOW], b"[0] 1%\r"),
        ([b"1%\r", SHOW, b"\n\n"], b"[0] 1%\r\n[0] \n"),
        ([b"a\n"], b"[0] a\n"),
    ],
)
def test_a_line_of_one_rank_on_a_terminal(stage: Make, writes: list[bytes], wrote: bytes) -> None:
    """Byte for byte: its tag stands before each line, and again where one starts over. What is held
    back is written when the rank exits, and nothing where all was."""
    s = stage(1, terminal=True)
    for data in writes:
        if data:
            s.write(0, data)
        else:
            s.sink._show()
    os.close(s.pipes[0])
    s.sources[0].read()
    assert s.wrote() == wrote
    assert s.sources[0].closed
    assert s.sink.sources == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([b"1%\r", SHOW, b"\r22%", SHOW], b"22%\n"),  # as it was shown last
        ([b"\r1%", SHOW, b"\r2%"], b"2%\n"),  # what was not shown yet is in its place
        ([b"1%\r", SHOW, b"5%"], b"5%\n"),  # also where the return came before
        ([b"\r1%", SHOW, b" of all"], b"1% of all\n"),  # or goes on from it
    ],
)
def test_what_is_left_of_a_bar_that_gave_way(
    stage: Make, before: Sequence[bytes], after: bytes
) -> None:
    """Its last state, once, when its line ends behind that of another rank."""
    s = stage(2, terminal=True)
    for data in before:
        s.write(0, data) if data else s.sink._show()
    s.wrote()
    s.write(1, b"line\n")
    assert s.wrote() == b"\r\x1b[K[1] line\n"
    s.write(0, b"\n")
    assert s.wrote() == b"[0] " + after


def test_a_return_alone_is_no_state_of_a_bar(stage: Make) -> None:
    """What it followed is still there at the end."""
    s = stage(2, terminal=True)
    for data in (b"50%\r", SHOW, b"\r"):
        s.write(0, data) if data else s.sink._show()
    s.write(1, b"line\n")
    s.wrote()
    os.close(s.pipes[0])
    s.sources[0].read()
    assert b"50%" in s.wrote()


def test_a_question_behind_a_bar_is_cut(stage: Make) -> None:
    """And not erased, as the bar would be that has become a line."""
    s = stage(2, terminal=True)
    for data in (b"\r1%", b"\nsure? ", SHOW):
        s.write(0, data) if data else s.sink._show()
    s.write(1, b"line\n")
    assert s.wrote() == b"[0] 1%\n[0] sure? \n[1] line\n"


def test_a_bar_is_held_again_as_it_is(stage: Make) -> None:
    """Without what an earlier line of its rank had; a bar of a rank that exited is a line."""
    s = stage(2, terminal=True)
    for data in (b"10%\r", SHOW, b"\n", b"5%\r", SHOW):
        s.write(0, data) if data else s.sink._show()
    assert s.wrote() == b"[0] 10%\r\n[0] 5%\r"
    s.write(1, b"line\n")
    assert s.wrote() == b"\r\x1b[K[1] line\n"
    s.write(0, b"\n")
    assert s.wrote() == b"[0] 5%\r\n"
    s.write(0, b"\r7%")
    s.sink._show()
    os.close(s.pipes[0])
    s.sources[0].read()
    s.write(1, b"line\n")
    assert s.wrote() == b"[0] 7%\n[1] line\n"


def test_a_terminal_that_cannot_erase(stage: Make) -> None:
    """A line that gives way is ended there, and its next state has the tag of a new one."""
    s = stage(1, terminal=True)
    s.sink.ansi = False
    ours, theirs = os.pipe()
    s.pipes.append(theirs)
    s.sources.append(TerminalSource(ours, b"[1] ", b"[1]+", s.sink))
    for data in (b"\r10%", SHOW, b"\r20%", SHOW):
        s.write(1, data) if data else s.sink._show()
    assert s.wrote() == b"[1] 10%\r[1] 20%"
    s.write(0, b"line\n")
    s.write(1, b" more")
    s.sink._show()
    assert s.wrote() == b"\n[0] line\n[1]+ more"
    s.write(0, b"line\n")
    s.write(1, b"\r30%\n")
    assert s.wrote() == b"\n[0] line\n[1]+\r[1] 30%\n"


def test_a_long_line_on_a_terminal(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown as far as it goes, and not held back any more."""
    s = stage(1, terminal=True)
    source = s.sources[0]
    put: list[bytes | memoryview] = []
    monkeypatch.setattr(s.sink, "put", put.extend)
    source._take(b"x" * (LONGEST - 1))
    assert (put, len(source._held)) == ([], LONGEST - 1)
    source._take(b"y")
    assert put == [b"[0] ", b"x" * (LONGEST - 1) + b"y"]
    assert not source._held


def test_an_unfinished_line_is_shown_after_a_tenth_of_a_second(stage: Make) -> None:
    """Unless its rank's stream was closed meanwhile, or all of it was shown."""
    assert PAUSE == 0.1
    s = stage(2, terminal=True)
    s.write(0, b"whole\n")
    assert (s.wrote(), s.sink.shown) == (b"[0] whole\n", [])  # nothing is left to be shown
    s.write(0, b"gone")
    s.write(1, b"here")
    s.sources[0].close()
    s.sink._show()
    assert s.wrote() == b"[1] here"
    s.sink.show_soon(s.sources[0])
    s.sink._show()
    assert s.wrote() == b""


def test_what_is_closed_has_nothing_to_read(stage: Make) -> None:
    """Also while something is in its pipe."""
    for terminal in (False, True):
        s = stage(1, terminal=terminal)
        os.write(s.pipes[0], b"late\n")
        s.sources[0].close()
        assert s.sources[0].read() is False
        assert s.wrote() == b""


def test_nothing_wakes_up_for_an_unfinished_line_elsewhere(stage: Make) -> None:
    """Where no terminal is, an unfinished line waits without a timer for its end."""
    s = stage(1)
    s.write(0, b"unfinished")
    s.turn(0.3)
    assert s.wrote() == b""


# --- any writes ----------------------------------------------------------------------------------

WRITES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(st.binary(min_size=1, max_size=12),
                  st.text("ab\n\r[0] ", min_size=1, max_size=12).map(str.encode)),
    ),
    max_size=20,
)  # fmt: skip


SHOWS = st.lists(
    st.tuples(st.integers(0, 2), st.text("ab\n\r", max_size=6).map(str.encode)), max_size=20
)


@given(SHOWS)
def test_nothing_is_lost_on_a_terminal(writes: list[tuple[int, bytes]]) -> None:
    """The last state of each finished line is on the screen behind its rank's tag, in order,
    whenever lines are shown (a rank that writes nothing) and whoever comes between."""
    s = Stage(3, terminal=True)
    try:
        for rank, data in writes:
            if data:
                s.write(rank, data)
            else:
                s.sink._show()
        for rank in range(3):
            os.close(s.pipes[rank])
            s.sources[rank].read()
        screen = read_screen(s.wrote())
    finally:
        s.close()
    for rank in range(3):
        lines: list[bytes] = []
        for line in screen:
            if line.startswith(b"[%d]+" % rank):
                lines[-1] += line[4:]
            elif line.startswith(b"[%d]" % rank):
                lines.append(line[4:])
        whole = b"".join(data for r, data in writes if r == rank)
        left = iter(lines)
        for line in whole.split(b"\n")[:-1]:
            state = line.removesuffix(b"\r").rpartition(b"\r")[2]
            assert state in left, (state, lines)


@given(WRITES, st.booleans())
def test_nothing_is_lost_or_mixed(writes: list[tuple[int, bytes]], finish: bool) -> None:
    """However ranks cut what they write, each line comes out once, whole, behind its rank's tag,
    and the lines of a rank in their order."""
    s = Stage(3)
    try:
        for rank, data in writes:
            s.write(rank, data)
        if finish:
            done: list[bool] = []
            s.sink.finish(lambda: done.append(True))
            assert done == [True]
        else:
            for rank in range(3):
                os.close(s.pipes[rank])
                s.sources[rank].read()
        out = s.wrote()
    finally:
        s.close()
    told: list[bytes] = [b"", b"", b""]
    lines = split_lines(out)
    for n, line in enumerate(lines):
        assert line[:1] == b"["
        assert line[2:4] == b"] "
        rank = int(line[1:2])
        told[rank] += line[4:]
        later = [other for other in lines[n + 1 :] if other[1:2] == line[1:2]]
        if not later:  # its last line may have been ended for another's
            wrote = b"".join(data for r, data in writes if r == rank)
            assert told[rank] in (wrote, wrote + b"\n")
    for rank in range(3):
        if not any(line[1:2] == str(rank).encode() for line in lines):
            assert not any(r == rank for r, _ in writes)


def split_lines(data: bytes) -> list[bytes]:
    """At each line feed and each carriage return that none follows."""
    lines = [b""]
    for n in range(len(data)):
        char = data[n : n + 1]
        lines[-1] += char
        if char == b"\n" or (char == b"\r" and data[n + 1 : n + 2] != b"\n"):
            lines.append(b"")
    return lines if lines[-1] else lines[:-1]


# --- readers -------------------------------------------------------------------------------------


def test_slow_reader(stage: Make) -> None:
    """While the reader does not read, nothing is taken from the ranks, memory stays bounded, and
    then all of it comes out, every line whole."""
    s = stage(4)
    counts = [0] * 4

    def produce(rank: int) -> None:
        block = b"".join(b"%d %d %s\n" % (rank, n, b"x" * (n % 200)) for n in range(2000))
        for _ in range(10):
            left = block
            while left:
                left = left[os.write(s.pipes[rank], left) :]
            counts[rank] += 1
        os.close(s.pipes[rank])

    threads = [threading.Thread(target=produce, args=(r,), daemon=True) for r in range(4)]
    for thread in threads:
        thread.start()
    s.turn(0.5)
    assert sum(counts) < 8  # the pipes are full: the ranks wait
    assert sum(map(len, s.sink._pending)) < 1 << 20
    assert all(thread.is_alive() for thread in threads)
    out = read_until(s, lambda _: not s.sink.sources and not s.sink._pending) + s.wrote()
    lines = out.decode().splitlines()
    assert len(lines) == 4 * 10 * 2000
    for rank in range(4):
        mine = [line for line in lines if line.startswith(f"[{rank}] ")]
        assert mine == [f"[{rank}] {rank} {n} {'x' * (n % 200)}" for n in range(2000)] * 10


def test_reader_that_has_gone(stage: Make) -> None:
    """When nobody reads any more, the ranks get a broken pipe at their next write."""
    s = stage(2)
    os.close(s.reader)
    s.write(0, b"lost\n")
    assert isinstance(s.sink.error, BrokenPipeError)
    for rank in (0, 1):
        with pytest.raises(BrokenPipeError):
            os.write(s.pipes[rank], b"more")
    done: list[bool] = []
    s.sink.finish(lambda: done.append(True))
    assert done == [True]


def test_reader_that_goes_while_it_is_waited_for(stage: Make) -> None:
    """The same when output was waiting to be read."""
    s = stage(1)
    for _ in range(3):
        os.write(s.pipes[0], b"x" * 40_000 + b"\n")
        s.sources[0].read()
    assert s.sink._pending
    os.close(s.reader)
    s.turn(0.05)
    assert isinstance(s.sink.error, BrokenPipeError)
    with pytest.raises(BrokenPipeError):
        os.write(s.pipes[0], b"more")


def test_our_own_stream_stays_as_it_is(stage: Make) -> None:
    """The stream that we share with others is not made to not block."""
    s = stage(1)
    assert os.get_blocking(s.own)
    assert not os.get_blocking(s.sink.fd)


def test_finish_waits_for_a_slow_reader(stage: Make) -> None:
    """At the end all that ranks have left in their pipes is written before it is done; whoever
    still holds a pipe is not waited for."""
    s = stage(2)
    fcntl.fcntl(s.own, fcntl.F_SETPIPE_SZ, 4096)
    for rank in (0, 1):
        os.write(s.pipes[rank], b"%d\n" % rank * 20_000)
    done: list[bool] = []
    s.sink.finish(lambda: done.append(True))
    assert done == []
    out = read_until(s, lambda _: bool(done)) + s.wrote()
    assert out == b"[0] 0\n" * 20_000 + b"[1] 1\n" * 20_000
    with pytest.raises(BrokenPipeError):
        os.write(s.pipes[0], b"too late")


def test_what_was_opened_is_closed(stage: Make) -> None:
    """Of our own stream, the second descriptor only."""
    s = stage(1)
    second, source = s.sink.fd, s.sources[0].fd
    assert second != s.own
    s.sink.close()
    for fd in (second, source):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    os.fstat(s.own)
    s.sink.fd = s.own  # for the end of the test, which closes it again


def test_a_stream_that_cannot_be_opened_again(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's pipe cannot be opened again: only what surely does not block is written."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("ompbind.launch.output.os.open", refuse)
        s = stage(1)
    assert s.sink.fd == s.own
    sent = b"".join(b"%d\n" % n for n in range(10_000))
    os.write(s.pipes[0], sent)
    s.turn(0.2)  # nobody reads: it must not hang here
    assert select.select([], [s.own], [], 0)[1] == []
    out = read_until(s, lambda out: out.endswith(b" 9999\n"))
    assert out == b"".join(b"[0] %d\n" % n for n in range(10_000))


def test_a_full_stream_that_cannot_be_opened_again(
    stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be full before anything was written here, as others write to it: then the first
    message waits, too."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("ompbind.launch.output.os.open", refuse)
        s = stage(0)
    os.set_blocking(s.own, False)
    with suppress(BlockingIOError):
        while True:
            os.write(s.own, b"x" * 4096)
    os.set_blocking(s.own, True)
    blocked = threading.Timer(5, lambda: os.read(s.reader, 1 << 20))  # so that it ends in any case
    blocked.start()
    before = time.monotonic()
    s.sink.put([b"message\n"])
    assert time.monotonic() - before < 4
    blocked.cancel()
    out = read_until(s, lambda out: out.endswith(b"message\n"))
    assert set(out.removesuffix(b"message\n")) == {ord("x")}
