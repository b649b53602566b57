"""What the kernel's small files hold: lists, masks, numbers, and numbered names."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import ParseError, TopologyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ompbind.machine.roots import Root


def read_list(root: Root, path: str) -> CpuSet | None:
    """A list such as `0-3,8`; None when it is absent. Raises TopologyError for garbage."""
    text = root.read(path)
    try:
        return None if text is None else CpuSet.parse_kernel(text)
    except ParseError as e:
        raise garbage(path, e) from None


def read_unless_garbage(root: Root, path: str) -> CpuSet:
    """A list that only advises: absent and garbage are the empty set.

    `nohz_full` holds "(null)" on kernels that support it but were not told to use it.
    """
    try:
        return CpuSet.parse_kernel(root.read(path) or "")
    except ParseError:
        return CpuSet()


def read_mask(root: Root, path: str) -> CpuSet | None:
    """A mask, or the list beside it; None when neither is there. Raises TopologyError."""
    text = root.read(path)
    try:
        if text is not None:
            return CpuSet.parse_mask(text)
    except ParseError as e:
        raise garbage(path, e) from None
    return read_list(root, f"{path}_list")


def garbage(path: str, error: ParseError) -> TopologyError:
    hint = "the machine's files are damaged; ompbind does not guess its topology"
    return TopologyError(f"{path}: {error.message}", hint=hint, path=path)


def read_int(root: Root, path: str) -> int | None:
    """A whole number; None when it is absent or anything else."""
    text = (root.read(path) or "").strip()
    value = parse_whole(text.removeprefix("-"))
    return -value if value is not None and text.startswith("-") else value


def numbered(names: Iterable[str], prefix: str) -> list[int]:
    """12 of `cpu12`, for every name of that form."""
    parts = (name[len(prefix) :] for name in names if name.startswith(prefix))
    return sorted(int(p) for p in parts if p.isascii() and p.isdigit() and len(p) < 6)
