"""What ranks read and write, seen from outside: `run` with --output, --output-dir and --stdin."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ompbind.errors import UsageError
from ompbind.host import DESCRIPTOR
from ompbind.launch.rank import Settings
from ompbind.launch.streams import Streams, group_streams, make_files
from ompbind.launch.supervisor import REPEAT
from tests.support.recorder import (
    alive,
    all_children,
    name_of,
    record,
    recorder,
    wait_for,
    wait_until_asleep,
)
from tests.support.screen import read_screen

Limited = Callable[..., subprocess.CompletedProcess[bytes]]
Run = Callable[..., subprocess.CompletedProcess[bytes]]
TWO = ["-n", "2", "--share", "--binder", "native"]


@pytest.fixture
def run(ompbind: str, plain_environ: dict[str, str], tmp_path: Path) -> Run:
    """Runs ompbind with arguments and standard input, in a directory of its own."""

    def call(*args: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [ompbind, "run", *args],
            input=stdin,
            capture_output=True,
            env=plain_environ | env,
            cwd=tmp_path,
            timeout=60,
        )

    return call


@pytest.fixture
def run_limited(ompbind: str, plain_environ: dict[str, str], tmp_path: Path) -> Limited:
    """Runs ompbind with a soft and a hard limit of open files, and with arguments."""

    def call(soft: str, hard: str, *args: str) -> subprocess.CompletedProcess[bytes]:
        script = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
        return subprocess.run(
            ["sh", "-c", script, "sh", ompbind, "run", *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=plain_environ,
            cwd=tmp_path,
            timeout=60,
        )

    return call


def lines(data: bytes) -> list[bytes]:
    return sorted(data.splitlines(keepends=True))


def sh(script: str) -> list[str]:
    return ["--", "sh", "-c", script]


# --- modes ---------------------------------------------------------------------------------------


def test_several_ranks_are_tagged(run: Run) -> None:
    """Each line of several ranks stands behind its rank, each stream in its own."""
    done = run(*TWO, *sh('echo "out $RANK"; echo "err $RANK" >&2'))
    assert done.returncode == 0
    assert lines(done.stdout) == [b"[0] out 0\n", b"[1] out 1\n"]
    assert lines(done.stderr) == [b"[0] err 0\n", b"[1] err 1\n"]


def test_inherit(run: Run) -> None:
    """With inherit, and for a single rank, what ranks write is what comes out."""
    assert lines(run(*TWO, "--output", "inherit", *sh("echo x")).stdout) == [b"x\n", b"x\n"]
    assert run(*sh("echo x")).stdout == b"x\n"


def test_one_tagged_rank(run: Run) -> None:
    """A single rank is tagged on request; its status is still its own."""
    done = run("--output", "tag", *sh("echo x; printf y; exit 7"))
    assert (done.stdout, done.returncode) == (b"[0] x\n[0] y", 7)


def test_streams_that_are_one(ompbind: str, plain_environ: dict[str, str]) -> None:
    """Where output and error are the same, a rank's lines keep their order."""
    script = "i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); echo $i >&2; i=$((i+1)); done"
    out = subprocess.run(
        [ompbind, "run", *TWO, *sh(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=plain_environ,
        timeout=60,
    ).stdout
    for rank in (b"[0] ", b"[1] "):
        mine = [int(line[4:]) for line in out.splitlines() if line.startswith(rank)]
        assert mine == list(range(200))


def test_much(run: Run) -> None:
    """Nothing is lost or torn of many lines of several ranks; what is unusual stays as it is."""
    script = "for i in range(20000): print(os.environ['RANK'], i, 'x' * (i % 99))"
    done = run("-n", "4", "--share", "--", sys.executable, "-c", f"import os\n{script}")
    assert done.returncode == 0
    out = done.stdout.decode().splitlines()
    for rank in range(4):
        mine = [line for line in out if line.startswith(f"[{rank}] ")]
        assert mine == [f"[{rank}] {rank} {i} {'x' * (i % 99)}" for i in range(20000)]
    assert len(out) == 80000


def test_ranks_have_their_streams_only(run: Run) -> None:
    """No rank inherits another's pipes, or ompbind's own descriptors but that of its lease."""
    done = run(*TWO, "--stdin", "all", "--", sys.executable, "-c",
               "import os; print(sorted(os.listdir('/proc/self/fd')))")  # fmt: skip
    wanted = ["0", "1", "2", str(DESCRIPTOR), "3"]
    assert lines(done.stdout) == [f"[{n}] {wanted}\n".encode() for n in range(2)]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("args", [[], ["--stdin", "all"], ["--output-dir", "logs"]])
def test_closed_streams(
    ompbind: str, plain_environ: dict[str, str], tmp_path: Path, closed: str, args: list[str]
) -> None:
    """Streams that are closed here do no harm: the others work, and the ranks run."""
    worker = "import os, sys; open(os.environ['RANK'], 'w'); os.write(1, b'x') if 1 in open_ else 0"
    worker = f"import os; open_ = os.listdir('/proc/self/fd'); {worker}"
    script = f'exec "$@" {closed}'
    command = [ompbind, "run", *TWO, *args, "--", sys.executable, "-c", worker]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        capture_output=True,
        env=plain_environ,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert {"0", "1"} <= set(os.listdir(tmp_path))


@pytest.mark.parametrize("args", [[], ["--output", "inherit", "--stdin", "all"]])
def test_many_ranks_and_few_descriptors(run_limited: Limited, args: list[str]) -> None:
    """A soft limit of open files that is too low for the ranks' pipes is raised for ompbind; the
    ranks keep it."""
    done = run_limited("64", "4096", "-n", "70", "--share", *args, *sh("ulimit -Sn; ulimit -Hn"))
    assert done.stderr == b""
    assert done.returncode == 0
    values = sorted(line.split()[-1] for line in done.stdout.splitlines())
    assert values == [b"4096"] * 70 + [b"64"] * 70


@pytest.mark.parametrize(
    ("args", "way_out"),
    [([], "--output inherit"), (["--output", "inherit", "--stdin", "all"], "another --stdin")],
)
def test_too_few_descriptors(
    run_limited: Limited, tmp_path: Path, args: list[str], way_out: str
) -> None:
    """Where the hard limit is too low as well, the error names a rank and what is needed, and no
    rank has run; as many as are named can be started."""
    done = run_limited("64", "64", "-n", "70", "--share", *args, *sh("touch ran"))
    assert done.returncode == 125
    error, hint = done.stderr.decode().splitlines()
    found = re.fullmatch(
        r"ompbind: error: rank (\d+): no descriptors are left for its streams: ompbind may open 64 "
        r"files, and 70 ranks need (\d+)",
        error,
    )
    assert found
    assert hint == f"hint: raise the hard limit (ulimit -Hn {found[2]}), or use {way_out}"
    assert not (tmp_path / "ran").exists()
    for limit, ranks in (("64", found[1]), (found[2], "70")):
        done = run_limited(limit, limit, "-n", ranks, "--share", *args, *sh("true"))
        assert (done.returncode, done.stderr) == (0, b"")


# --- readers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["tag", "inherit"])
def test_reader_that_goes(ompbind: str, plain_environ: dict[str, str], output: str) -> None:
    """`| head` ends ranks that write on, by SIGPIPE, as without ompbind in between."""
    with subprocess.Popen(
        [ompbind, "run", *TWO, "--output", output, "--", "yes"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=plain_environ,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b"y\n")
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE


def test_reader_that_does_not_read(ompbind: str, plain_environ: dict[str, str]) -> None:
    """While nobody reads, ompbind still hears signals and ends."""
    with subprocess.Popen(
        [ompbind, "run", *TWO, "--", "yes"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=plain_environ,
    ) as process:
        assert process.stdout is not None
        wait_for(lambda: len(all_children(process.pid)) == 4)  # watcher, supervisor, ranks
        ranks = all_children(process.pid)[2:]
        wait_for(lambda: all(name_of(pid) == "yes" for pid in ranks))
        wait_until_asleep([process.pid, *all_children(process.pid)])  # all pipes are full
        process.terminate()
        wait_for(lambda: not any(alive(pid) for pid in ranks))
        assert process.stdout.read().count(b"y\n") > 1000
        assert process.wait(30) == 128 + signal.SIGTERM


def test_reader_that_does_not_read_and_ranks_that_are_killed(
    tmp_path: Path, ompbind: str, plain_environ: dict[str, str]
) -> None:
    """The third INT kills ranks that ignore the first two; then ompbind exits soon, although what
    they wrote has not been read."""
    code = 'test $OMPBIND_RANK = 0 && exec "$@"; trap "" INT TERM; exec yes'
    worker = ["sh", "-c", code, "sh", *recorder(tmp_path, "stubborn")]
    with subprocess.Popen(
        [ompbind, "run", *TWO, "--grace", "600", "--", *worker],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=plain_environ,
    ) as process:
        wait_for(lambda: len(record(tmp_path, 0)) == 2)
        wait_for(lambda: len(all_children(process.pid)) == 4)
        ranks = all_children(process.pid)[2:]
        wait_for(lambda: name_of(ranks[1]) == "yes")
        wait_until_asleep([process.pid, *all_children(process.pid)])  # all pipes are full
        process.send_signal(signal.SIGINT)
        wait_for(lambda: record(tmp_path, 0)[2:] == ["2"])
        time.sleep(REPEAT)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: record(tmp_path, 0)[2:] == ["2", "15"])
        time.sleep(REPEAT)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGKILL
        assert not any(alive(pid) for pid in ranks)


@pytest.mark.parametrize("output", ["inherit", "tag"])
@pytest.mark.parametrize("end", ["read", "TERM", "KILL"])
def test_messages_that_nobody_reads(
    output: str, end: str, tmp_path: Path, ompbind: str, plain_environ: dict[str, str]
) -> None:
    """While standard error is full and nobody reads it, a failed rank still ends the others,
    signals are still heard, and nothing stays behind; a reader who comes late gets all messages."""
    os.mkfifo(tmp_path / "go")
    code = f"test $OMPBIND_RANK = 0 || exec yes >&2; read line < {tmp_path}/go; exit 3"
    process = subprocess.Popen(
        [ompbind, "run", *TWO, "--output", output, "--", "sh", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=plain_environ,
    )
    with process:
        assert process.stderr is not None
        wait_for(lambda: len(all_children(process.pid)) == 4)
        _, supervisor, *ranks = all_children(process.pid)
        try:
            wait_for(lambda: name_of(ranks[1]) == "yes")
            wait_until_asleep([process.pid, supervisor, *ranks])  # the pipe is full
            (tmp_path / "go").write_text("\n")
            wait_for(lambda: not any(alive(pid) for pid in ranks), 20)
            if end == "read":
                written = process.stderr.read().splitlines()
                last, summary = (line for line in written if line.startswith(b"ompbind: "))
                assert last.startswith(b"ompbind: rank 0 (pid ")
                assert summary.startswith(b"ompbind: rank 1 was ended because rank 0 had failed")
                assert process.wait(20) == 3
            else:
                process.send_signal(getattr(signal, f"SIG{end}"))
                assert process.wait(20) == (3 if end == "TERM" else -9)
            wait_for(lambda: not alive(supervisor), 20)
        finally:
            for pid in (process.pid, supervisor, *ranks):
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)


def test_full_disk(ompbind: str, plain_environ: dict[str, str]) -> None:
    """When output cannot be written, that is said, and the ranks feel it."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [ompbind, "run", *TWO, "--", "yes"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            env=plain_environ,
            timeout=60,
        )
    assert done.returncode == 128 + signal.SIGPIPE
    assert b"standard output cannot be written: No space left on device" in done.stderr


def test_a_rank_leaves_a_process_behind(run: Run) -> None:
    """A process that still holds a rank's output does not keep ompbind from ending."""
    start = time.monotonic()
    done = run(*TWO, *sh("sleep 50 & echo started"))
    assert lines(done.stdout) == [b"[0] started\n", b"[1] started\n"]
    assert time.monotonic() - start < 40


# --- a terminal ----------------------------------------------------------------------------------


def on_terminal(command: list[str], env: dict[str, str], answer: bytes = b"") -> bytes:
    """What a command writes on a terminal of its own; `answer` follows the first question mark."""
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.execve(command[0], command, env)
        finally:
            os._exit(127)
    out = b""
    try:
        while data := os.read(fd, 65536):
            out += data
            if answer and b"? " in out:
                os.write(fd, answer)
                answer = b""
    except OSError:  # the terminal's last user has gone
        pass
    finally:
        os.close(fd)
        os.waitpid(pid, 0)
    return out


def test_colours(ompbind: str, plain_environ: dict[str, str]) -> None:
    """On a terminal the tags are coloured, unless NO_COLOR is set or the terminal is a dumb one."""
    command = [ompbind, "run", *TWO, *sh("echo x")]
    env = {k: v for k, v in plain_environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    told = on_terminal(command, env)
    assert sorted(told.splitlines()) == [b"\x1b[35m[1]\x1b[0m x", b"\x1b[36m[0]\x1b[0m x"]
    for more in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        told = on_terminal(command, env | more)
        assert sorted(told.splitlines()) == [b"[0] x", b"[1] x"]


def test_question_on_a_terminal(ompbind: str, plain_environ: dict[str, str]) -> None:
    """A question without a line's end is seen, and rank 0 reads the answer."""
    script = 'if [ $RANK = 0 ]; then printf "name? "; read name; echo "hello $name"; fi'
    command = [ompbind, "run", *TWO, *sh(script)]
    told = on_terminal(command, plain_environ | {"NO_COLOR": "1"}, b"you\n")
    assert told.startswith(b"[0] name? ")
    assert b"hello you" in told


BAR = r"""
import os, sys
before, after = ("\r", "") if sys.argv[1] == "first" else ("", "\r")
for n in range(0, 101, 20):
    blanks = " " * 20 * (os.environ["OMPBIND_RANK"] == "0")
    sys.stderr.write("%s%3d%%%s%s" % (before, n, blanks, after))
    sys.stderr.flush()
sys.stderr.write("\n")
"""
RICH = """
from rich.progress import track
for n in track(range(5)):
    pass
"""


@pytest.mark.parametrize("code", [[BAR, "first"], [BAR, "last"], [RICH]], ids=lambda c: c[-1][:5])
def test_progress_bars_on_a_terminal(
    code: list[str], ompbind: str, plain_environ: dict[str, str]
) -> None:
    """Of each of several ranks one line stays, the last state; with tqdm's way and another, and
    with rich."""
    command = [ompbind, "run", "-n", "3", "--share", "--", sys.executable, "-c", *code]
    written = on_terminal(command, plain_environ | {"TERM": "xterm", "NO_COLOR": "1"})
    *lines, last = read_screen(written.replace(b"\r\n", b"\n"))
    assert last == b""
    assert sorted(line[:4] for line in lines) == [b"[0] ", b"[1] ", b"[2] "]
    assert all(b"100%" in line for line in lines)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_files(run: Run, tmp_path: Path, ranks: int) -> None:
    """One file for each rank and stream, in a directory that is made; nothing comes out here."""
    args = ["-n", str(ranks), "--share", "--rank-env", "--output-dir", "a/b"]
    done = run(*args, *sh('echo "out $RANK"; echo "err $RANK" >&2'))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    told = {path.name: path.read_text() for path in (tmp_path / "a/b").iterdir()}
    wanted = {f"rank-{r}.{s}": f"{s} {r}\n" for r in range(ranks) for s in ("out", "err")}
    assert told == wanted


def test_files_are_not_overwritten(run: Run, tmp_path: Path) -> None:
    """A file that is there is an error before anything starts; --overwrite replaces it."""
    (tmp_path / "logs").mkdir()
    for name in ("rank-0.err", "rank-1.out"):
        (tmp_path / "logs" / name).write_text("precious")
    done = run(*TWO, "--output-dir", "logs", *sh("touch started"))
    assert done.returncode == 125
    assert done.stderr.decode() == (
        "ompbind: error: --output-dir: 'logs/rank-0.err' already exists (and 1 more)\n"
        "hint: name another directory; --overwrite replaces such files\n"
    )
    assert sorted(os.listdir(tmp_path / "logs")) == ["rank-0.err", "rank-1.out"]
    assert not (tmp_path / "started").exists()
    assert run(*TWO, "--output-dir", "logs", "--overwrite", *sh("echo x")).returncode == 0
    assert (tmp_path / "logs" / "rank-0.err").read_text() == ""
    assert (tmp_path / "logs" / "rank-1.out").read_text() == "x\n"


def test_files_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    """A directory that cannot be had is one error; files made before it was known are gone."""
    (tmp_path / "file").touch()
    done = run(*TWO, "--output-dir", "file", *sh("touch started"))
    assert done.returncode == 125
    assert done.stderr == b"ompbind: error: --output-dir: 'file': File exists\n"
    (tmp_path / "logs" / "rank-1.out").mkdir(parents=True)
    done = run(*TWO, "--output-dir", "logs", "--overwrite", *sh("touch started"))
    assert done.returncode == 125
    assert done.stderr == b"ompbind: error: --output-dir: 'logs/rank-1.out': Is a directory\n"
    assert os.listdir(tmp_path / "logs") == ["rank-1.out"]
    assert not (tmp_path / "started").exists()


def test_files_are_made_exclusively(tmp_path: Path) -> None:
    """Even a link that leads nowhere is not written through unasked."""
    (tmp_path / "rank-0.out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="already exists"):
        make_files(str(tmp_path), ["rank-0"], overwrite=False)
    assert not (tmp_path / "elsewhere").exists()


def test_overwriting_takes_regular_files_only(run: Run, tmp_path: Path) -> None:
    """A link is not followed, a FIFO not waited for; what a link leads to stays as it was."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (tmp_path / "precious").write_text("precious")
    (logs / "rank-1.out").symlink_to(tmp_path / "precious")
    args = (*TWO, "--output-dir", "logs", "--overwrite", *sh("touch started"))
    done = run(*args)
    assert done.returncode == 125
    assert done.stderr == b"ompbind: error: --output-dir: 'logs/rank-1.out': is a symbolic link\n"
    assert (tmp_path / "precious").read_text() == "precious"
    (logs / "rank-1.out").unlink()
    os.mkfifo(logs / "rank-1.out")
    done = run(*args)
    assert done.returncode == 125
    assert done.stderr.startswith(b"ompbind: error: --output-dir: 'logs/rank-1.out': ")
    reader = os.open(logs / "rank-1.out", os.O_RDONLY | os.O_NONBLOCK)
    done = run(*args)
    os.close(reader)
    assert b"'logs/rank-1.out': is not a regular file\n" in done.stderr
    assert not (tmp_path / "started").exists()


def test_a_file_that_was_replaced_is_not_written(tmp_path: Path) -> None:
    """Where the directory belongs to somebody else, between making the files and starting: ranks
    write to what was made, whatever has its name now."""
    (tmp_path / "precious").write_text("precious")
    settings = Settings(output_dir=str(tmp_path / "logs"))
    path = tmp_path / "logs/rank-0.out"
    for replace in (path.symlink_to, path.hardlink_to):
        streams = Streams(settings, 1, {})
        streams.prepare(3)
        made = os.stat(path)
        path.rename(tmp_path / "moved")
        replace(tmp_path / "precious")
        _, out, err = streams._open(0)
        assert out is not None
        assert err is not None
        assert os.path.samestat(os.fstat(out), made)
        os.write(out, b"from the rank")
        streams.close()
        for fd in (out, err):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
        assert (tmp_path / "moved").read_text() == "from the rank"
        shutil.rmtree(tmp_path / "logs")
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["--output", "files"], "--output files needs a directory to write them to",
         "--output-dir DIR names the directory"),
        (["--output", "tag", "--output-dir", "x"],
         "--output tag and --output-dir both say where output goes", "leave one of them out"),
        (["--output-dir", ""], "--output-dir: an empty name", "--output-dir DIR"),
        (["--overwrite"], "--overwrite has no effect without --output-dir", "leave it out"),
        (["--stdin", "x"], "--stdin: 'x' is neither a rank's number nor all nor none",
         "--stdin 0 is the default"),
        (["--stdin", "2"], "--stdin 2: there is no such rank", "ranks: 0-1"),
    ],
)  # fmt: skip
def test_refused(run: Run, tmp_path: Path, args: list[str], error: str, hint: str) -> None:
    """What cannot be meant is one line and a hint, and nothing starts."""
    done = run(*TWO, *args, *sh("touch started"))
    assert done.returncode == 125
    assert done.stderr.decode() == f"ompbind: error: {error}\nhint: {hint}\n"
    assert not (tmp_path / "started").exists()


# --- standard input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], [b"[0] hello", b"[1] "]),
        (["--stdin", "0"], [b"[0] hello", b"[1] "]),
        (["--stdin", "1"], [b"[0] ", b"[1] hello"]),
        (["--stdin", "all"], [b"[0] hello", b"[1] hello"]),
        (["--stdin", "none"], [b"[0] ", b"[1] "]),
    ],
)
def test_who_reads(run: Run, args: list[str], told: list[bytes]) -> None:
    """Rank 0 reads standard input, or who is named; the others find it empty."""
    done = run(*TWO, *args, *sh('echo "$(cat)"'), stdin=b"hello\n")
    assert (sorted(done.stdout.splitlines()), done.returncode) == (told, 0)


@pytest.mark.parametrize(("args", "told"), [(["--stdin", "all"], b"hello\n"),
                                            (["--stdin", "none"], b"")])  # fmt: skip
def test_one_rank_reads(run: Run, args: list[str], told: bytes) -> None:
    """A single rank has all of standard input, or none."""
    assert run(*args, "--", "cat", stdin=b"hello\n").stdout == told


def test_one_rank_is_rank_0(run: Run, tmp_path: Path) -> None:
    """It can be named as the one that reads, also where its output goes to files."""
    logs = tmp_path / "logs"
    done = run("--stdin", "0", "--output-dir", str(logs), "--", "cat", stdin=b"hello\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"".join(p.read_bytes() for p in logs.rglob("*") if p.is_file()) == b"hello\n"


def test_much_input(run: Run) -> None:
    """Every rank gets all of a long input, also while they read at different speeds."""
    script = "sleep 0.$((RANK * 2)); cksum"
    data = os.urandom(3_000_000)
    wanted = subprocess.run(["cksum"], input=data, capture_output=True).stdout
    done = run(*TWO, "--stdin", "all", *sh(script), stdin=data)
    assert lines(done.stdout) == [b"[0] " + wanted, b"[1] " + wanted]


def test_a_rank_that_reads_no_more(run: Run) -> None:
    """A rank that has read enough does not keep the others from the rest."""
    script = 'if [ "$RANK" = 0 ]; then head -c 5; else wc -c; fi'
    done = run(*TWO, "--stdin", "all", *sh(script), stdin=b"x" * 1_000_000)
    assert sorted(done.stdout.split(b"[")) == [b"", b"0] xxxxx", b"1] 1000000\n"] or (
        b"1000000" in done.stdout and b"xxxxx" in done.stdout
    )
    assert done.returncode == 0


# --- parts ---------------------------------------------------------------------------------------


def test_streams_are_grouped() -> None:
    """Output and error are one where they lead to the same file."""
    ours, theirs = os.pipe()
    saved = [os.dup(1), os.dup(2)]
    try:
        os.dup2(theirs, 1)
        assert group_streams() == [(1,), (2,)]
        os.dup2(theirs, 2)
        assert group_streams() == [(1, 2)]
    finally:
        for fd, own in enumerate(saved, 1):
            os.dup2(own, fd)
        for fd in (ours, theirs, *saved):
            os.close(fd)
