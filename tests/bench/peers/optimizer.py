"""torch.optim with fused=True over separate tensors; one line of JSON.

    optimizer.py --optimizer sgd|adam|adamw --threads 1 --shapes '[[64, 3, 3, 3], …]' [--steps 10]
"""

import argparse
import json
import statistics
import time

import torch

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--optimizer", choices=["sgd", "adam", "adamw"], required=True)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--shapes", required=True)
parser.add_argument("--steps", type=int, default=10)
arguments = parser.parse_args()

torch.set_num_threads(arguments.threads)
parameters = []
for shape in json.loads(arguments.shapes):
    parameter = torch.zeros(shape)
    if parameter.dim() == 4:
        parameter = parameter.to(memory_format=torch.channels_last)
    parameter.requires_grad_()
    parameter.grad = torch.full_like(parameter, 1e-4)
    parameters.append(parameter)
if arguments.optimizer == "sgd":
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, fused=True)
else:
    kind = torch.optim.Adam if arguments.optimizer == "adam" else torch.optim.AdamW
    optimizer = kind(parameters, lr=1e-3, weight_decay=0, fused=True)

times = []
for i in range(arguments.steps + 3):
    start = time.perf_counter()
    optimizer.step()
    if i >= 3:
        times.append(1000 * (time.perf_counter() - start))
print(json.dumps({"samples": [statistics.median(times)], "torch": torch.__version__}))
