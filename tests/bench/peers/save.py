"""torch.save of a model and its optimizer between two steps, as a training script does it; one line of JSON.

    save.py --folder DIR [--model resnet18] [--device cuda] [--rounds 3]

"samples": milliseconds that the step loop stands still. The file is not synced to the disk: most scripts do not.
"""

import argparse
import json
import os
import time

import torch

import models

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--folder", required=True)
parser.add_argument("--model", default="resnet18")
parser.add_argument("--image-size", type=int, default=32)
parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
parser.add_argument("--rounds", type=int, default=3)
arguments = parser.parse_args()

torch.set_num_threads(1)
model = models.make(arguments.model, arguments.image_size, 10).to(arguments.device, memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
for parameter in model.parameters():
    parameter.grad = torch.zeros_like(parameter)
optimizer.step()
path = os.path.join(arguments.folder, "peer.pt")
samples = []
for i in range(arguments.rounds + 1):
    if arguments.device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    if i > 0:
        samples.append(1000 * (time.perf_counter() - start))
size = os.path.getsize(path)
os.remove(path)
print(json.dumps({"samples": samples, "bytes": size, "torch": torch.__version__}))
