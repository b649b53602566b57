"""Servers that tests start: the stand-in, and vLLM where `make test-serving` asks for it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.serving.environment import environment_folder, is_set_up, model_folder
from tests.support.commands import environment
from tests.support.needs import REPOSITORY
from tests.support.running import Running, talk

STAND_IN = REPOSITORY / "tests" / "support" / "bin"
# Set by `make test-serving`: the tests run with the real vLLM as well.
REAL = "OMPBIND_TEST_SERVING"
KINDS = ("stand-in", "vllm") if os.environ.get(REAL) else ("stand-in",)
SECONDS = {"stand-in": 60.0, "vllm": 400.0}  # until a server must be ready


def command_of(kind: str, *args: str, size: str = "tiny") -> list[str]:
    """The command of a server of this kind; `vllm` is found in PATH (see `variables_of`)."""
    if kind == "stand-in":
        return ["vllm", "serve", "tiny", *args]
    small = ["--load-format", "dummy", "--enforce-eager", "--max-model-len", "256",
             "--max-num-seqs", "8", "--served-model-name", "tiny"]  # fmt: skip
    return ["vllm", "serve", str(model_folder(size)), *small, *args]


def variables_of(kind: str, **more: str) -> dict[str, str]:
    """The environment of a server of this kind: nothing of vLLM's is set that is not in `more`."""
    if kind == "vllm" and not is_set_up():
        raise AssertionError("there is no vLLM here: `make test-serving` installs it")
    folder = STAND_IN if kind == "stand-in" else environment_folder() / "bin"
    env = {k: v for k, v in environment().items() if not k.startswith(("VLLM_", "LD_"))}
    env["PATH"] = os.pathsep.join([str(folder), str(Path(sys.executable).parent), env["PATH"]])
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return env | offline | more


@contextlib.contextmanager
def running(kind: str, command: Sequence[str], *ports: int, **variables: str) -> Iterator[Running]:
    """A command that starts servers of a kind, once they answer on these ports."""
    started = Running(command, variables_of(kind, **variables), SECONDS[kind])
    try:
        started.wait_until_ready(*ports)
        yield started
    finally:
        started.end()


def complete(port: int) -> str:
    """Return the text of a completion, which a server must give."""
    body = {"model": "tiny", "prompt": "One, two,", "max_tokens": 8, "temperature": 0}
    status, _, text = talk(port, "/v1/completions", body)
    assert status == 200, text
    return str(json.loads(text)["choices"][0]["text"])
