#!/usr/bin/python3
"""Every model against torchvision's: the same weights give the same logits, and weights travel both ways.

    parity_test.py [--only MODEL,…] [--write-golden]

Weights and pictures are computed by a recipe (recipe.h) on both sides. For each model torchvision's logits are compared
with ours after loading its state dict from safetensors, from .pth and, for some, from .pth of the older format; then a
file of ours is loaded into torchvision with strict=True. --write-golden writes torchvision's logits to golden.json,
which golden_test.cc compares with where torchvision is not installed.

Runs itself in the bench environment (tests/bench/torch_python.py); exit 77 where that is not installed and
LOCKSTEP_INSTALL_BENCH is not 1.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = pathlib.Path(__file__).with_name("golden.json")
BINARY = pathlib.Path(os.environ.get("LOCKSTEP_BINARY_DIR", ROOT / "build/cpu"))
PARITY = BINARY / "tests/trainer/models/trainer_models_parity"
TOLERANCE = 1e-4  # Of the largest logit.
CLASSES = 10
RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
VGGS = [f"vgg{depth}{norm}" for norm in ("", "_bn") for depth in (11, 13, 16, 19)]
# Model, pixels, weight of the auxiliary loss (that head needs 299 pixels).
SMALL = [(name, 64, 0) for name in RESNETS] + [(name, 32, 0) for name in VGGS]
SMALL += [("inception_v3", 75, 0), ("mobilenet_v2", 64, 0)]
FULL = [("resnet50", 224, 0), ("inception_v3", 299, 0.4), ("vgg16", 224, 0)]
OLD_FORMAT = {"resnet18", "vgg11_bn", "mobilenet_v2"}


def enter_environment():
    """Starts this script again with torchvision, or says why not."""
    sys.path.insert(0, str(ROOT / "tests/bench"))
    import torch_python
    from harness import CannotMeasure

    name = torch_python.hashlib.sha256(torch_python.MODEL_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    installed = (torch_python.cache_folder() / "bench-python" / name).exists()
    if not installed and os.environ.get("LOCKSTEP_INSTALL_BENCH") != "1":
        print("SKIPPED: torchvision is not installed; LOCKSTEP_INSTALL_BENCH=1 installs it from PyPI")
        sys.exit(77)
    try:
        python = torch_python.prepare_models()
    except CannotMeasure as problem:
        print(f"SKIPPED: no Python with torch: {problem}")
        sys.exit(77)
    environment = dict(python.environment, LOCKSTEP_IN_BENCH="1", OMP_NUM_THREADS="2")
    command = [*python.command, __file__, *sys.argv[1:]]
    os.execve(command[0], command, environment)


def seed(name):
    value = 2166136261
    for byte in name.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def fill(name, shape, center, scale):
    import numpy
    import torch

    count = int(numpy.prod(shape, dtype=numpy.int64))
    x = numpy.arange(count, dtype=numpy.uint32) * numpy.uint32(2654435761) + numpy.uint32(seed(name))
    x ^= x >> numpy.uint32(16)
    x *= numpy.uint32(0x85EBCA6B)
    x ^= x >> numpy.uint32(13)
    x *= numpy.uint32(0xC2B2AE35)
    x ^= x >> numpy.uint32(16)
    values = (x >> numpy.uint32(8)).astype(numpy.float64) / 16777216.0 - 0.5
    return torch.from_numpy((center + scale * values).astype(numpy.float32)).reshape(tuple(shape))


def fill_model(model):
    state = model.state_dict()
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            center, scale = 0.0, (24.0 / (tensor.numel() / tensor.shape[0])) ** 0.5
        elif name.endswith(".running_var"):
            center, scale = 1.0, 1.0
        elif name.endswith(".weight"):
            center, scale = 0.6, 0.4
        else:
            center, scale = 0.0, 0.4
        tensor.copy_(fill(name, tensor.shape, center, scale))
    return state


def torchvision_model(name, auxiliary):
    import torchvision

    options = {"aux_logits": auxiliary > 0, "init_weights": False} if name == "inception_v3" else {}
    if name.startswith("vgg"):
        options = {"init_weights": False}
    return getattr(torchvision.models, name)(num_classes=CLASSES, **options).eval()


def ours(name, pixels, auxiliary, verb, path):
    done = subprocess.run([PARITY, name, str(pixels), str(CLASSES), str(auxiliary), verb, path], capture_output=True,
                          text=True)
    if done.returncode != 0:
        raise AssertionError(f"{name}: {verb} {path}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def difference(expected, actual):
    largest = max(abs(value) for row in expected for value in row)
    assert largest > 0 and largest < 1e6, f"logits of {largest} test nothing"
    return max(abs(a - b) for x, y in zip(expected, actual, strict=True) for a, b in zip(x, y, strict=True)) / largest


def check(name, pixels, auxiliary, folder):
    """Returns torchvision's logits."""
    import safetensors.torch
    import torch

    torch.set_grad_enabled(False)
    model = torchvision_model(name, auxiliary)
    state = fill_model(model)
    expected = model(fill("pictures", (2, 3, pixels, pixels), 0.0, 4.0)).tolist()
    files = [folder / "weights.safetensors", folder / "weights.pth"]
    safetensors.torch.save_file(state, files[0])
    torch.save(state, files[1])
    if name in OLD_FORMAT:
        files.append(folder / "old.pth")
        torch.save(state, files[-1], _use_new_zipfile_serialization=False)
        files.append(folder / "checkpoint.pt")
        prefixed = {f"module.{key}": value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
                    for key, value in state.items()}
        torch.save({"state_dict": prefixed, "epoch": 3, "best": 0.5, "name": "x"}, files[-1])
    worst = 0.0
    for path in files:
        apart = difference(expected, ours(name, pixels, auxiliary, "load", path))
        worst = max(worst, apart)
        assert apart <= TOLERANCE, f"{name}, {pixels} px, {path.name}: logits differ by {apart:.1e} of the largest"
    back = folder / "ours.safetensors"
    ours(name, pixels, auxiliary, "save", back)
    other = torchvision_model(name, auxiliary)
    other.load_state_dict(safetensors.torch.load_file(back), strict=True)
    returned = difference(expected, other(fill("pictures", (2, 3, pixels, pixels), 0.0, 4.0)).tolist())
    assert returned <= 1e-6, f"{name}: our file gives torchvision other logits, by {returned:.1e}"
    print(f"{name:14} {pixels:4} px  {len(files)} files  largest difference {worst:.1e}  ours in torchvision: strict",
          flush=True)
    return expected


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--write-golden", action="store_true")
    arguments = parser.parse_args()
    if os.environ.get("LOCKSTEP_IN_BENCH") != "1":
        enter_environment()
    only = {name for name in arguments.only.split(",") if name}
    golden = []
    for name, pixels, auxiliary in SMALL + ([] if arguments.write_golden else FULL):
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            logits = check(name, pixels, auxiliary, pathlib.Path(folder))
        golden.append({"model": name, "pixels": pixels, "classes": CLASSES, "logits": logits})
    if arguments.write_golden:
        GOLDEN.write_text("[\n" + ",\n".join(json.dumps(row) for row in golden) + "\n]\n")


if __name__ == "__main__":
    main()
