"""A training program that adds up the ranks' numbers with gloo, and says where it may run.

train.py FOLDER
"""

import json
import os
import sys

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1])
dist.all_reduce(total)
told = {
    "sum": int(total),
    "size": dist.get_world_size(),
    "threads": torch.get_num_threads(),
    "cpus": sorted(os.sched_getaffinity(0)),
    "node": os.environ.get("SLURMD_NODENAME", ""),
}
with open(os.path.join(sys.argv[1], f"{dist.get_rank()}.json"), "w") as file:
    json.dump(told, file)
dist.destroy_process_group()
