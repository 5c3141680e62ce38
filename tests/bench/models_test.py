"""What a run leaves behind, opened by programs that are not ours: ONNX Runtime and torchvision.

Tiny runs of several networks are trained with the real trainer; every exported ONNX file must pass ONNX's checker and say
from raw pixels what the checkpoint says (scripts/check-onnx), and exported weights must load into torchvision's network
with strict names and say the same. Needs the packages of peers/models-requirements.txt; SKIPPED (77) where pip cannot
install them.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("LOCKSTEP_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
BINARIES = pathlib.Path(os.environ["LOCKSTEP_BINARY_DIR"]).resolve()
sys.path.insert(0, str(SOURCE / "tests/bench"))
sys.dont_write_bytecode = True

import harness  # noqa: E402
import torch_python  # noqa: E402

TRAINER = BINARIES / "bin/lockstep-trainer"
RUNS = {
    "cnn": ("cnn, cnn: {blocks: [{filters: 8, pool: max}, {filters: 8, pool: average, activation: gelu}, "
            "{filters: 8, batch_norm: false, activation: leaky_relu}], dense: [16]}", 24),
    "cnn-global": ("cnn, cnn: {blocks: [{filters: 8, activation: silu, stride: 2}, {filters: 12, activation: tanh}], "
                   "global_pool: true}", 32),
    "resnet18": ("resnet18, stem: imagenet", 72),
    "resnet50": ("resnet50", 32),
    "vgg11-bn": ("vgg11_bn", 64),
    "mobilenet": ("mobilenet_v2", 64),
    "inception": ("inception_v3", 299),
}

LOAD = """
import json, sys
import numpy, torch, torchvision
from safetensors.torch import load_file
weights, card, check = sys.argv[1:4]
network = torchvision.models.resnet18(num_classes=len(json.load(open(card))["classes"]))
network.load_state_dict(load_file(weights), strict=True)
network.eval()
p = json.load(open(card))["preprocessing"]
case = json.load(open(check))["pictures"][-1]  # Of the network's own size: no resize.
assert (case["width"], case["height"]) == (p["width"], p["height"])
y, x, c = numpy.meshgrid(range(case["height"]), range(case["width"]), range(3), indexing="ij")
pixels = ((5 * x + 3 * y + 40 * c + 9 * ((x * y) % 7)) % 256).astype(numpy.float64)
pixels = (pixels / 255 - numpy.array(p["mean"])) / numpy.array(p["std"])
with torch.no_grad():
    logits = network(torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32))[0].numpy()
wanted = numpy.array(case["logits"])
difference = float(numpy.abs(logits - wanted).max() / max(1.0, numpy.abs(wanted).max()))
print("difference", difference)
sys.exit(0 if difference <= 1e-4 else 1)
"""


def run(*command, environment=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def train(folder, name, model, size):
    config = folder / f"{name}.yaml"
    config.write_text(f"name: {name}\nseed: 3\nresources: {{ranks: 1, device: cpu}}\n"
                      f"data: {{kind: shapes, image_size: {size}, train_samples: 16, eval_samples: 8}}\n"
                      f"model: {{name: {model}}}\n"
                      "training: {duration: 2st, global_batch_size: 4, eval_every: 2st}\n"
                      "optimizer: {name: sgd, learning_rate: 0.01}\ncheckpoint: {every: 2st}\n")
    run(TRAINER, config, "--run-dir", folder / name, "--no-coordinator")
    return folder / name


def main():
    try:
        python = torch_python.prepare_models()
    except harness.CannotMeasure as reason:
        print(f"SKIPPED: {reason}")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = []
        for run_name, (model, size) in RUNS.items():
            run_dir = train(folder, run_name, model, size)
            for extra, suffix in (([], ""), (["--fp16"], "-fp16")):
                if suffix and run_name not in ("cnn", "resnet18"):
                    continue
                files.append(folder / f"{run_name}{suffix}.onnx")
                run(TRAINER, "export", run_dir, "--format", "onnx", "--out", files[-1], *extra)
        print(run(*python.command, SOURCE / "scripts/check-onnx", *files, environment=python.environment))

        weights = folder / "resnet18.safetensors"
        run(TRAINER, "export", folder / "resnet18", "--out", weights)
        print(run(*python.command, "-c", LOAD, weights, folder / "resnet18.card.json", folder / "resnet18.check.json",
                  environment=python.environment))
        # The checkpoint's own file opens as it is, too.
        checkpoint = sorted((folder / "resnet18/checkpoints").glob("step-*"))[-1]
        run(*python.command, "-c", LOAD, checkpoint / "weights.safetensors", folder / "resnet18.card.json",
            folder / "resnet18.check.json", environment=python.environment)
        damaged = json.loads((folder / "cnn.check.json").read_text())
        damaged["pictures"][0]["logits"][0] += 1
        (folder / "cnn.check.json").write_text(json.dumps(damaged))
        different = subprocess.run([*python.command, SOURCE / "scripts/check-onnx", folder / "cnn.onnx"],
                                   capture_output=True, text=True, env=python.environment)
        assert different.returncode == 1 and "NOT the same" in different.stdout, different


if __name__ == "__main__":
    main()
