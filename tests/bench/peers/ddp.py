"""DistributedDataParallel with its best settings; one line of JSON from rank 0.

    torchrun --nproc-per-node 2 ddp.py --model resnet18 --batch 32 [--precision bf16] [--device cuda]
             [--compile default|reduce-overhead|max-autotune-no-cudagraphs] [--steps 10] [--warmup 5]

One batch that stays in memory is used in every step, so the peer pays for no loader. "first_step_at" is the
wall clock (time.time()) when the first step had been made; "samples" are milliseconds of the steps after the
warm-up.
"""

import argparse
import json
import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import models


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, required=True, help="samples per rank")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=5)
    return parser.parse_args()


def main():
    arguments = parse()
    on_gpu = arguments.device == "cuda"
    torch.manual_seed(1)
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    dist.init_process_group("nccl" if on_gpu else "gloo")

    images = torch.randn(arguments.batch, 3, arguments.image_size, arguments.image_size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, arguments.classes, (arguments.batch,), device=device)
    model = models.make(arguments.model, arguments.image_size, arguments.classes)
    model = model.to(device).to(memory_format=torch.channels_last)
    model = DistributedDataParallel(model, device_ids=[device.index] if on_gpu else None,
                                    gradient_as_bucket_view=True, static_graph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
    compiled = model
    if arguments.compile:
        compiled = torch.compile(model, mode=None if arguments.compile == "default" else arguments.compile)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(compiled(images), labels)
        loss.backward()
        optimizer.step()

    def finish():
        if on_gpu:
            torch.cuda.synchronize()

    step()
    finish()
    first_step_at = time.time()
    for _ in range(arguments.warmup - 1):
        step()
    finish()
    samples = []
    if on_gpu:
        # Many steps a sample: waiting for the device after each one would hold the peer up.
        for _ in range(arguments.steps):
            start = time.perf_counter()
            for _ in range(10):
                step()
            finish()
            samples.append(100 * (time.perf_counter() - start))
    else:
        for _ in range(arguments.steps):
            start = time.perf_counter()
            step()
            samples.append(1000 * (time.perf_counter() - start))
    if dist.get_rank() == 0:
        print(json.dumps({"samples": samples, "first_step_at": first_step_at, "torch": torch.__version__,
                          "ranks": dist.get_world_size(), "threads": torch.get_num_threads()}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
