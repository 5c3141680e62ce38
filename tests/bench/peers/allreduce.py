"""gloo's all-reduce of one float tensor; one line of JSON from rank 0, a sample per round.

    torchrun --nproc-per-node 2 allreduce.py [--megabytes 25] [--calls 20]
"""

import argparse
import json
import statistics
import time

import torch
import torch.distributed as dist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--megabytes", type=float, default=25)
parser.add_argument("--calls", type=int, default=20)
arguments = parser.parse_args()

torch.set_num_threads(1)
dist.init_process_group("gloo")
tensor = torch.zeros(int(arguments.megabytes * 1e6 / 4))
for _ in range(3):
    dist.all_reduce(tensor)
times = []
for _ in range(arguments.calls):
    start = time.perf_counter()
    dist.all_reduce(tensor)
    times.append(1000 * (time.perf_counter() - start))
if dist.get_rank() == 0:
    print(json.dumps({"samples": [statistics.median(times)], "torch": torch.__version__}), flush=True)
dist.destroy_process_group()
