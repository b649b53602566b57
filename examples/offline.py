"""vLLM without a server, each process a worker: tensor parallel over all ranks, on CPUs.

    ompbind run --from-env vllm -n 2 --master-port auto -- python examples/offline.py MODEL

With this executor vLLM starts no process and binds none; ompbind, as torchrun would, starts one for
each worker, binds it, and tells it of the others.
"""

from __future__ import annotations

import os
import sys

from vllm import LLM, SamplingParams


def main() -> None:
    model, *prompts = sys.argv[1:]
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    llm = LLM(
        model,
        tensor_parallel_size=size,
        distributed_executor_backend="external_launcher",
        load_format=os.environ.get("LOAD_FORMAT", "auto"),
        enforce_eager=True,
        max_model_len=256,
        seed=0,  # all workers must draw the same tokens
    )
    outputs = llm.generate(prompts or ["One, two,"], SamplingParams(temperature=0, max_tokens=8))
    cpus = sorted(os.sched_getaffinity(0))
    for output in outputs:
        print(f"rank {rank} of {size} on cpus {cpus}: {output.outputs[0].token_ids}", flush=True)


if __name__ == "__main__":
    main()
