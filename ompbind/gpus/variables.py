"""Which GPUs the variables of CUDA, ROCm and Level Zero leave visible, and in which order. Pure.

Sources: the CUDA programming guide (environment variables), NVIDIA's MIG user guide; ROCm's "GPU
isolation techniques", and where it is silent the sources of ROCr and HIP; the Level Zero
specification (affinity mask, device hierarchy), and where it is silent those of Intel's driver.
"""

from __future__ import annotations

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Picked(Record):
    """What a variable selects of numbered devices. `entries`: each one's text as the user wrote it
    and the device's number; `problem`: what it names that is not there, or "". An intended end, an
    empty list or -1, is no problem."""

    entries: tuple[tuple[str, int], ...] = ()
    problem: str = ""


def pick_cuda(text: str | None, uuids: Sequence[str], parts: Sequence[str] = ()) -> Picked:
    """CUDA_VISIBLE_DEVICES over GPUs with these UUIDs ("": not known) and the names of MIG parts,
    which are numbered after the GPUs.

    The first entry tells whether all are numbers, UUIDs or MIG names. The list ends before the
    first entry that names nothing; a device named twice hides all.
    """
    if text is None:
        return Picked(tuple((str(n), n) for n in range(len(uuids))))
    entries: list[tuple[str, int]] = []
    words = [w.strip() for w in text.split(",")]
    family = words[0][:4].upper()
    for word in words:
        if family == "MIG-":
            found = [len(uuids) + n for n, name in enumerate(parts) if same_part(word, name)]
        elif family == "GPU-":
            named = word.upper().startswith(family)
            found = [n for n, u in enumerate(uuids) if named and begins(u, word)]
        else:
            number = leading_number(word)
            found = [number] if number is not None and 0 <= number < len(uuids) else []
            if not found and (number is None or number < 0) and (not word or word[:1] == "-"):
                return Picked(tuple(entries))
        if len(found) != 1:
            return Picked(tuple(entries), problem_of(word, found, len(uuids), family))
        if found[0] in [n for _, n in entries]:
            return Picked((), f"names the same GPU twice ({word}), which hides all of them")
        entries.append((word, found[0]))
    return Picked(tuple(entries))


def pick_rocr(text: str | None, uuids: Sequence[str]) -> Picked:
    """ROCR_VISIBLE_DEVICES: numbers or the beginnings of UUIDs, mixed as one likes. It ends before
    the first entry that names nothing, or a device a second time."""
    if text is None:
        return Picked(tuple((str(n), n) for n in range(len(uuids))))
    entries: list[tuple[str, int]] = []
    for word in [w.strip() for w in text.split(",")] if text else []:
        if word[:1].upper() == "G":
            fits = 5 <= len(word) <= 20
            found = [n for n, u in enumerate(uuids) if fits and begins(u, word)]
        else:
            number = any_base(word)
            found = [number] if number is not None and 0 <= number < len(uuids) else []
            if number is not None and number < 0:
                break
        if len(found) != 1:
            return Picked(tuple(entries), problem_of(word, found, len(uuids), word[:4].upper()))
        if found[0] in [n for _, n in entries]:
            return Picked(tuple(entries), f"names {word} a second time, where it ends")
        entries.append((word, found[0]))
    return Picked(tuple(entries))


def pick_hip(text: str | None, uuids: Sequence[str]) -> Picked:
    """HIP_VISIBLE_DEVICES, or what stands in for it, over the GPUs that ROCr left. Empty is as not
    set; it ends before the first entry that names nothing; one named again is passed over."""
    if not text:
        return Picked(tuple((str(n), n) for n in range(len(uuids))))
    entries: list[tuple[str, int]] = []
    for word in text.split(","):
        if word.startswith("GPU-"):
            found = [n for n, u in enumerate(uuids) if u and u.lower() == word.lower()]
        else:
            found = [n for n in range(len(uuids)) if word == str(n)]
            if word.startswith("-"):
                break
        if not found:
            return Picked(tuple(entries), problem_of(word, found, len(uuids), word[:4].upper()))
        if found[0] not in [n for _, n in entries]:
            entries.append((word, found[0]))
    return Picked(tuple(entries))


def pick_level_zero(text: str | None, tiles: Sequence[int], *, flat: bool) -> Picked:
    """ZE_AFFINITY_MASK over GPUs of so many tiles. A device is a tile when `flat`, else a GPU, of
    which `0.1` is a tile. It is a mask: the order stays the machine's. Numbers of the result are
    those of GPUs."""
    owner = [gpu for gpu, count in enumerate(tiles) for _ in range(count if flat else 1)]
    if text is None or text in ("", "default"):
        return Picked(tuple((str(n), gpu) for n, gpu in enumerate(owner)))
    chosen: dict[tuple[int, int], tuple[str, int]] = {}
    problem = ""
    for word in [w.strip() for w in text.split(",")]:
        first, dot, second = word.partition(".")
        number, tile = plain_number(first), plain_number(second) if dot else -1
        known = number is not None and tile is not None and number < len(owner)
        if not known or (dot and (flat or tile >= tiles[owner[number]])):  # type: ignore[operator,index]
            problem = problem or problem_of(word, [], len(owner), "")
        elif number is not None and tile is not None:
            chosen[number, tile] = (word, owner[number])
    return Picked(tuple(chosen[key] for key in sorted(chosen)), problem)


def problem_of(word: str, found: Sequence[int], count: int, family: str) -> str:
    """What is wrong with an entry, in words that follow the variable's name."""
    shown = repr(word[:60])
    if family in ("GPU-", "MIG-") and word.upper().startswith(family):
        return f"names {shown}, which {'several GPUs begin with' if found else 'no GPU has'}"
    there = f"0-{count - 1}" if count > 1 else "0" if count else "none"
    return f"names {shown}; devices there: {there}"


def begins(uuid: str, word: str) -> bool:
    return bool(uuid) and uuid.lower().startswith(word.lower())


def same_part(word: str, name: str) -> bool:
    """Whether a MIG name is meant: as it is, or the beginning of one that is a UUID."""
    return name.lower().startswith(word.lower()) and len(word) > len("MIG-")


def leading_number(word: str) -> int | None:
    """As C's strtol reads it: `1gpu2` is 1. None: it begins with no number."""
    sign, digits = (word[:1], word[1:]) if word[:1] in ("+", "-") else ("", word)
    end = next((n for n, c in enumerate(digits) if c not in "0123456789"), len(digits))
    if not 0 < end <= 18:
        return None
    return -int(digits[:end]) if sign == "-" else int(digits[:end])


def any_base(word: str) -> int | None:
    """As C's strtol with base 0 reads a whole text: 12, 0xc, 014."""
    sign, digits = (word[:1], word[1:]) if word[:1] in ("+", "-") else ("", word)
    base = 16 if digits[:2].lower() == "0x" else 8 if digits[:1] == "0" else 10
    if not digits.isascii() or not digits.isalnum() or len(digits) > 18:
        return None
    try:
        number = int(digits, base)
    except ValueError:
        return None
    return -number if sign == "-" else number


def plain_number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 9 else None
