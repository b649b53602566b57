"""What a file that describes a machine is, by how its bytes begin."""

from __future__ import annotations

# The header of a file in a tar archive, and the place in it of what all kinds but the oldest have.
TAR_BLOCK, TAR_MAGIC = 512, slice(257, 262)


def is_gzip(data: bytes) -> bool:
    """Whether the bytes begin as those of a file that is packed with gzip."""
    return data[:2] == b"\x1f\x8b"


def is_bzip2(data: bytes) -> bool:
    """Whether the bytes begin as those of a file that is packed with bzip2."""
    return data[:3] == b"BZh"


def is_archive(data: bytes) -> bool:
    """Whether the bytes are a tar archive, perhaps compressed with gzip or bzip2. Snapshots are
    told from it without tarfile, bz2 and lzma, whose import takes longer than reading one."""
    if is_bzip2(data):
        return True  # nothing else that describes a machine is
    if is_gzip(data):
        import zlib

        try:
            data = zlib.decompressobj(31).decompress(data, TAR_BLOCK)
        except zlib.error:
            return False  # damaged: what reads it says how
    return data[TAR_MAGIC] == b"ustar"
