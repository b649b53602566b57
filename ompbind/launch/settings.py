"""How ranks are started, watched and ended: the options of `run` that are not the plan's."""

from __future__ import annotations

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ompbind.plans import Plan

    Prove = Callable[[Plan, Mapping[int, int]], float | None]  # pids by rank


class Settings(Record):
    """`watched`: also a single rank is. `may_switch`: a numactl that does not work here is no
    refusal, the same system calls are made without it. `grace`: seconds from each step of the stop
    ladder to the next. `output` and `stdin`: what --output and --stdin say, "" the default;
    `output_dir`: where ranks' files go, "" nowhere. `prove`: is called with the plan and the pids
    of the ranks that live when all have executed, and again after the seconds that it returns; what
    it raises ends them all."""

    on_denied: str = "error"
    watched: bool = False
    may_switch: bool = False
    grace: float = 10.0
    on_failure: str = "stop"
    leave_children: bool = False
    output: str = ""
    output_dir: str = ""
    overwrite: bool = False
    stdin: str = ""
    verbose: bool = False
    prove: Prove | None = None

    @property
    def reader(self) -> int | None:
        """The rank that reads our standard input itself."""
        return None if self.stdin in ("all", "none") else int(self.stdin or 0)

    @property
    def redirects(self) -> bool:
        """Whether a single rank has other streams than ours."""
        return bool(self.output_dir) or self.stdin not in ("", "0", "all")
