"""torchvision's way from JPEG files to tensors, on one core. One line of JSON: milliseconds per picture.

    pictures.py --folder FOLDER --what decode|pipeline --how pil|tensor [--rounds 5] [--batches 4] [--batch 64]

decode: bytes in memory to RGB, by Pillow or torchvision.io.decode_jpeg. pipeline: ImageFolder and a DataLoader with one
worker; pil: the usual transforms on Pillow's pictures; tensor: decode_jpeg and transforms.v2 on uint8 tensors.
"""

import argparse
import io
import json
import pathlib
import time

import torch
import torchvision
from PIL import Image
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def decode(arguments):
    files = sorted(pathlib.Path(arguments.folder, "train").rglob("*.jpg"))
    if arguments.how == "pil":
        pictures = [path.read_bytes() for path in files]
        one = lambda data: Image.open(io.BytesIO(data)).convert("RGB")
    else:
        pictures = [read_file(str(path)) for path in files]
        one = lambda data: decode_jpeg(data, mode=ImageReadMode.RGB)
    samples = []
    for turn in range(arguments.rounds + 1):
        start = time.perf_counter()
        for data in pictures:
            one(data)
        if turn:  # The first is the warm-up.
            samples.append(1000 * (time.perf_counter() - start) / len(pictures))
    return samples


def read_tensor(path):
    return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)


def pipeline(arguments):
    if arguments.how == "pil":
        steps = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(),
                                    transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        data = torchvision.datasets.ImageFolder(str(pathlib.Path(arguments.folder, "train")), steps)
    else:
        steps = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(),
                            v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
        data = torchvision.datasets.ImageFolder(str(pathlib.Path(arguments.folder, "train")), steps, loader=read_tensor)
    depth = 4
    count = arguments.batch * (2 * depth + arguments.rounds * arguments.batches)
    sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=count)
    loader = iter(torch.utils.data.DataLoader(data, batch_size=arguments.batch, sampler=sampler, num_workers=1,
                                              prefetch_factor=depth, drop_last=True))
    for _ in range(depth):  # So that the queue is as full at the end of a round as at its beginning.
        next(loader)
    samples = []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        for _ in range(arguments.batches):
            next(loader)
        samples.append(1000 * (time.perf_counter() - start) / (arguments.batches * arguments.batch))
    return samples


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--what", choices=("decode", "pipeline"), required=True)
    parser.add_argument("--how", choices=("pil", "tensor"), required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    samples = decode(arguments) if arguments.what == "decode" else pipeline(arguments)
    print(json.dumps({"samples": samples, "torchvision": torchvision.__version__}))


if __name__ == "__main__":
    main()
