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


class Selection(Record):
    """What a variable selects of numbered devices."""

    entries: tuple[tuple[str, int], ...] = ()  # as the user wrote it, and the device's number
    problem: str = ""  # what it names that does not exist; an empty list or -1 is no problem


def pick_cuda(text: str | None, uuids: Sequence[str], parts: Sequence[str] = ()) -> Selection:
    """Read CUDA_VISIBLE_DEVICES over GPUs with these UUIDs ("": not known) and the names of MIG
    parts, which are numbered after the GPUs.

    The first entry decides whether all are numbers, UUIDs or MIG names. The list ends before the
    first entry that names nothing; a device named twice hides all.
    """
    if text is None:
        return Selection(tuple((str(n), n) for n in range(len(uuids))))
    entries: list[tuple[str, int]] = []
    words = [w.strip() for w in text.split(",")]
    family = words[0][:4].upper()
    for word in words:
        if family == "MIG-":
            matches = [len(uuids) + n for n, name in enumerate(parts) if same_part(word, name)]
        elif family == "GPU-":
            is_uuid = word.upper().startswith(family)
            matches = [n for n, u in enumerate(uuids) if is_uuid and begins(u, word)]
        else:
            number = leading_number(word)
            matches = [number] if number is not None and 0 <= number < len(uuids) else []
            if not matches and (number is None or number < 0) and (not word or word[:1] == "-"):
                return Selection(tuple(entries))
        if len(matches) != 1:
            return Selection(tuple(entries), problem_of(word, matches, len(uuids), family))
        if matches[0] in [n for _, n in entries]:
            return Selection((), f"names the same GPU twice ({word}), which hides all of them")
        entries.append((word, matches[0]))
    return Selection(tuple(entries))


def pick_rocr(text: str | None, uuids: Sequence[str]) -> Selection:
    """Read ROCR_VISIBLE_DEVICES: numbers or the beginnings of UUIDs, mixed. It ends before the
    first entry that names nothing, or a device a second time."""
    if text is None:
        return Selection(tuple((str(n), n) for n in range(len(uuids))))
    entries: list[tuple[str, int]] = []
    for word in [w.strip() for w in text.split(",")] if text else []:
        if word[:1].upper() == "G":
            fits = 5 <= len(word) <= 20
            matches = [n for n, u in enumerate(uuids) if fits and begins(u, word)]
        else:
            number = any_base(word)
            matches = [number] if number is not None and 0 <= number < len(uuids) else []
            if number is not None and number < 0:
                break
        if len(matches) != 1:
            return Selection(
                tuple(entries), problem_of(word, matches, len(uuids), word[:4].upper())
            )
        if matches[0] in [n for _, n in entries]:
            return Selection(tuple(entries), f"names {word} a second time, where it ends")
        entries.append((word, matches[0]))
    return Selection(tuple(entries))


def pick_hip(text: str | None, uuids: Sequence[str]) -> Selection:
    """Read HIP_VISIBLE_DEVICES, or a variable that replaces it, over the GPUs that ROCr left. Empty
    is as not set; it ends before the first entry that names nothing; a repeated one is skipped."""
    if not text:
        return Selection(tuple((str(n), n) for n in range(len(uuids))))
    entries: list[tuple[str, int]] = []
    for word in text.split(","):
        if word.startswith("GPU-"):
            matches = [n for n, u in enumerate(uuids) if u and u.lower() == word.lower()]
        else:
            matches = [n for n in range(len(uuids)) if word == str(n)]
            if word.startswith("-"):
                break
        if not matches:
            return Selection(
                tuple(entries), problem_of(word, matches, len(uuids), word[:4].upper())
            )
        if matches[0] not in [n for _, n in entries]:
            entries.append((word, matches[0]))
    return Selection(tuple(entries))


def pick_level_zero(text: str | None, tiles: Sequence[int], *, flat: bool) -> Selection:
    """Read ZE_AFFINITY_MASK over GPUs with these numbers of tiles. A device is a tile when `flat`,
    else a GPU, of which `0.1` is a tile. It is a mask: the order stays the machine's. The numbers
    of the result are those of GPUs."""
    owner = [gpu for gpu, count in enumerate(tiles) for _ in range(count if flat else 1)]
    if text is None or text in ("", "default"):
        return Selection(tuple((str(n), gpu) for n, gpu in enumerate(owner)))
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
    return Selection(tuple(chosen[key] for key in sorted(chosen)), problem)


def problem_of(word: str, matches: Sequence[int], count: int, family: str) -> str:
    """Return what is wrong with an entry, in words that follow the variable's name."""
    shown = repr(word[:60])
    if family in ("GPU-", "MIG-") and word.upper().startswith(family):
        return f"names {shown}, which {'several GPUs begin with' if matches else 'no GPU has'}"
    there = f"0-{count - 1}" if count > 1 else "0" if count else "none"
    return f"names {shown}; devices there: {there}"


def begins(uuid: str, word: str) -> bool:
    return bool(uuid) and uuid.lower().startswith(word.lower())


def same_part(word: str, name: str) -> bool:
    """Return whether `word` is a MIG name, or the beginning of one that is a UUID."""
    return name.lower().startswith(word.lower()) and len(word) > len("MIG-")


def leading_number(word: str) -> int | None:
    """Return the number that C's strtol reads: `1gpu2` is 1. None: it does not begin with one."""
    sign, digits = (word[:1], word[1:]) if word[:1] in ("+", "-") else ("", word)
    end = next((n for n, c in enumerate(digits) if c not in "0123456789"), len(digits))
    if not 0 < end <= 18:
        return None
    return -int(digits[:end]) if sign == "-" else int(digits[:end])


def any_base(word: str) -> int | None:
    """Return the number that C's strtol with base 0 reads of a whole text: 12, 0xc, 014."""
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
