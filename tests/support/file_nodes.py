"""Where the pages of a file are in memory, by the kernel's own count of a mapping of it:

    python -m tests.support.file_nodes FILE [COMMAND...]

prints the pages of each node as JSON, after the command, if any, which runs while the file is
mapped. It knows nothing of ompbind.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys


def main(path: str, *command: str) -> None:
    with open(path, "rb") as file:
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        with mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ):
            if command:
                subprocess.run(command, check=True)
            print(json.dumps(count_pages(os.path.realpath(path))), flush=True)


def count_pages(path: str) -> dict[str, int]:
    pages: dict[str, int] = {}
    with open("/proc/self/numa_maps", encoding="utf-8") as maps:
        for line in maps:
            words = dict(word.partition("=")[::2] for word in line.split())
            if words.get("file") == path:
                for name, value in words.items():
                    if name[:1] == "N" and name[1:].isdigit():
                        pages[name[1:]] = pages.get(name[1:], 0) + int(value)
    return pages


if __name__ == "__main__":
    main(*sys.argv[1:])
