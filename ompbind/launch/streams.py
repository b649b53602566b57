"""Where the ranks' standard streams lead."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.launch.loop import Loop
    from ompbind.launch.start import Start


class Inherited:
    """They are ompbind's own: nothing is passed on."""

    def connect(self, starts: Sequence[Start]) -> list[Start]:
        """Before forking: the ranks with the descriptors that become theirs."""
        return list(starts)

    def watch(self, loop: Loop) -> None:
        """After all are forked: the ranks' ends are closed here, and ours are watched."""

    def finish(self, done: Callable[[], None]) -> None:
        """After all ranks have ended: passes on what is left, then calls `done`."""
        done()
