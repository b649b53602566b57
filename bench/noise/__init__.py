"""Recordings of noise: how long one and the same program took, run after run, on a real machine.

Each `.txt` file here is one recording: in lines that begin with `#` the program, the machine and
what else it was doing, then the seconds of each run, in order. bench/experiments.py draws
experiments from them. To record on another machine:

    python -m bench.noise loops 2000 >bench/noise/loops-NAME.txt
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def read_noise(name: str) -> list[float]:
    """Return the seconds of each run of a recording, in order."""
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [float(line) for line in lines if not line.startswith("#")]


def list_recordings() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.txt"))
