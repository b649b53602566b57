"""Which lines of ompbind a process runs: noted by a trace function, in this process and its forks.

`start(folder, path)` notes the lines of the files in a folder, each once: those of this process in
`seen`, those of its forks in the file at `path`, a line of text for each. A Python that is started
does the same if its site-packages hold this file as mutants_lines.py and mutants_lines.pth beside
it (tree.py). It imports next to nothing, as it is loaded by the processes that are observed.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Tracer = Callable[[FrameType, str, object], "Tracer | None"]

seen: "set[tuple[str, int]]" = set()


def start(folder: str, path: str, recorder: int) -> None:
    """Note lines from now on. `recorder`: the process that reads `seen`; others write to `path`."""
    known = set()  # of a process that is not the recorder
    # As they are now: a test may put others in their place.
    getpid, open_file, write, close = os.getpid, os.open, os.write, os.close

    def enter(frame: "FrameType", event: str, argument: object) -> "Tracer | None":
        code = frame.f_code
        if not code.co_filename.startswith(folder):
            return None
        note(code.co_filename, code.co_firstlineno)
        return trace

    def trace(frame: "FrameType", event: str, argument: object) -> "Tracer | None":
        if event == "line":
            note(frame.f_code.co_filename, frame.f_lineno)
        return trace

    def note(name: str, line: int) -> None:
        place = name, line
        if place in seen:
            return
        if getpid() == recorder:
            seen.add(place)
        elif place not in known:
            known.add(place)
            try:
                file = open_file(path, os.O_WRONLY | os.O_APPEND)
            except OSError:
                return  # a process that may open nothing, or in another tree of files
            write(file, f"{name}\t{line}\n".encode())
            close(file)

    sys.settrace(enter)


def stop() -> None:
    sys.settrace(None)
