"""Programs that start workers and bind them themselves: model servers, and other launchers.

What their workers inherit must not override what such a program gives them: OMP_PLACES wins over
the GOMP_CPU_AFFINITY of vLLM's workers, and OMP_NUM_THREADS over what torch's run_cpu would choose.
A command is recognised by its words alone; nothing is executed or imported.
"""

from __future__ import annotations

import os

from ompbind.record import Record
from ompbind.worker import is_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Launcher(Record):
    """A program that binds the workers that it starts. `programs`: the names of its files;
    `modules`: what Python runs with -m, these or what lies in them; `unless`: first arguments with
    which it starts no worker; `flags`: it binds only with one of these, () for always; `how`: what
    it does, in a few words."""

    name: str
    programs: tuple[str, ...]
    modules: tuple[str, ...]
    how: str
    unless: tuple[tuple[str, ...], ...] = ()
    flags: tuple[str, ...] = ()


# Sources: vLLM's OMPProcessManager (GOMP_CPU_AFFINITY, KMP_AFFINITY or OMP_PLACES for each CPU
# worker) and numa_utils (numactl for each GPU worker); SGLang's init_threads_binding and
# numa_utils; TensorRT-LLM's TLLM_NUMA_AWARE_WORKER_AFFINITY; torch.backends.xeon.run_cpu
# (KMP_AFFINITY or GOMP_CPU_AFFINITY, and OMP_NUM_THREADS only where there is none); DeepSpeed's
# launcher (numactl and OMP_NUM_THREADS for each rank); torch.distributed.run's --numa-binding.
LAUNCHERS = (
    Launcher(
        "vLLM", ("vllm",), ("vllm", "dynamo.vllm"), "binds its workers itself",
        unless=(("bench", "serve"), ("chat",), ("complete",), ("collect-env",), ("--version",),
                ("-v",), ("--help",), ("-h",)),
    ),
    Launcher("SGLang", ("sglang",), ("sglang", "dynamo.sglang"), "binds its workers itself",
             unless=(("version",), ("--help",), ("-h",))),
    Launcher("TensorRT-LLM", ("trtllm-serve", "trtllm-bench"), ("tensorrt_llm", "dynamo.trtllm"),
             "binds its workers near their GPUs itself"),
    Launcher("torch's run_cpu", ("ipexrun",),
             ("torch.backends.xeon.run_cpu", "intel_extension_for_pytorch.cpu.launch"),
             "binds its instances itself"),
    Launcher("DeepSpeed", ("deepspeed",), ("deepspeed.launcher.runner",),
             "binds its ranks itself (--bind_cores_to_rank)", flags=("--bind_cores_to_rank",)),
    Launcher("torchrun", ("torchrun",), ("torch.distributed.run",),
             "binds its workers itself (--numa-binding)",
             flags=("--numa-binding", "--numa_binding")),
)  # fmt: skip

# Programs that run the command among their arguments.
WRAPPERS = ("env", "numactl", "taskset", "nice", "nohup", "timeout", "time", "setsid", "stdbuf",
            "chrt", "ionice", "sudo", "uv", "uvx", "poetry", "pixi", "conda", "mamba", "micromamba",
            "hatch", "pdm", "catchsegv", "strace", "perf", "nsys", "tini", "dumb-init")  # fmt: skip


class Launch(Record):
    """A command that a launcher is. `program`: the file that is executed, Python or the launcher's
    script; `arguments`: what follows the launcher's name."""

    launcher: Launcher
    program: str
    arguments: tuple[str, ...]


def find_launch(command: Sequence[str]) -> Launch | None:
    """Return the launcher that a command starts, also behind `env`, `numactl` or `uv run`; None for
    any other command."""
    words = [*command]
    wrapped = False
    while words:
        name = program_name(words[0])
        if name in WRAPPERS:
            wrapped = True
            words.pop(0)
            continue
        found = match_python(words) if is_python(words[0]) else match_program(words)
        if found is not None or not wrapped or is_python(words[0]):
            return found
        words.pop(0)  # an argument of the wrapper's
    return None


def program_name(word: str) -> str:
    return os.path.basename(word).removesuffix(".exe")


def match_program(words: Sequence[str], python: str = "") -> Launch | None:
    """Return the launcher whose file the first word names. `python`: what executes it, if given."""
    for launcher in LAUNCHERS:
        if program_name(words[0]).removesuffix(".py") in launcher.programs:
            return make_launch(launcher, python or words[0], words[1:])
    return None


def match_python(words: Sequence[str]) -> Launch | None:
    """Return the launcher that Python runs with -m, or as a script."""
    rest = [*words[1:]]
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word in ("-W", "-X"):
            rest = rest[1:]
        elif word == "-c" or (word.startswith("-c") and not word.startswith("--")):
            return None
        elif word == "-m":
            return match_module(words[0], rest)
        elif word.startswith("-m"):
            return match_module(words[0], [word[2:], *rest])
    return match_program(rest, words[0]) if rest else None


def match_module(python: str, rest: Sequence[str]) -> Launch | None:
    if not rest:
        return None
    for launcher in LAUNCHERS:
        for module in launcher.modules:
            if rest[0] == module or rest[0].startswith(f"{module}."):
                return make_launch(launcher, python, rest[1:])
    return None


def make_launch(launcher: Launcher, program: str, arguments: Sequence[str]) -> Launch | None:
    """Return the launch; None if the launcher starts or binds no worker with these arguments."""
    if any(tuple(arguments[: len(words)]) == words for words in launcher.unless):
        return None
    given = {word.partition("=")[0] for word in arguments}
    if launcher.flags and not given.intersection(launcher.flags):
        return None
    return Launch(launcher, program, tuple(arguments))
