"""The rows of PERFORMANCE that need a GPU: R5, R6 and R8 there. One GPU, so no figure contains communication."""

import re
import shutil
import statistics
import subprocess
import time

from cpu_rows import bench_peer, made_first_step, train
from harness import CannotMeasure, Row, gpus

CASES = [  # model, image size, samples, steps of a measurement
    ("resnet18", 32, 64, 300),
    ("resnet18", 32, 512, 200),
    ("resnet50", 224, 64, 100),
]
WARMUP = 50
COMPILE_MODES = ["default", "reduce-overhead", "max-autotune-no-cudagraphs"]


def run_yaml(bench, model, image_size, batch, steps, every="0s"):
    text = f"""name: bench-{model}
seed: 1
resources: {{ranks: 1}}
data: {{kind: shapes, image_size: {image_size}, train_samples: {max(4 * batch, 2048)}, eval_samples: 2}}
model: {{name: {model}}}
training: {{duration: {steps}st, batch_size_per_rank: {batch}, precision: bf16, eval_every: 0s, log_every_steps: 10}}
optimizer: {{name: sgd, learning_rate: 0.001, momentum: 0.9}}
checkpoint: {{every: {every}, keep_best: 0}}
"""
    path = bench.work / f"gpu-{model}-{image_size}-{batch}-{every}.yaml"
    path.write_text(text)
    bench.run([bench.program("lockstep"), "config", "check", path])  # A model that is not there ends the row here.
    return path


def peer_command(bench, model, image_size, batch, steps, mode):
    command = bench.torchrun(1, "ddp.py", "--device", "cuda", "--precision", "bf16", "--model", model, "--batch", str(batch),
                             "--image-size", str(image_size), "--warmup", str(WARMUP), "--steps", str(steps // 10))
    return [*command, "--compile", mode] if mode else command


def per_step(result):
    return statistics.median(result["samples"]) / 10  # A sample is ten steps.


def against(bench, rows, peer_name, target, modes):
    for model, image_size, batch, steps in CASES:
        if bench.quick:
            steps = 20
        row = Row(rows, f"step on one GPU, bf16, {model} {image_size} px, batch {batch}", peer_name, target(model, batch),
                  note="one rank: no communication in either figure")
        try:
            require_gpu()
            config_file = run_yaml(bench, model, image_size, batch, WARMUP + steps)
            contenders = {"ours": lambda: statistics.median(train(bench, config_file, 1, WARMUP))}
            for mode in modes:
                command = peer_command(bench, model, image_size, batch, steps, mode)
                contenders[mode] = lambda command=command: per_step(bench.run_peer(command, timeout=1800))
            samples = bench.in_turns(contenders)
            # The best of the peer's modes is the peer.
            best = min(modes, key=lambda mode: statistics.median(samples[mode]))
            row.peer_name += f" ({best})" if best else ""
            yield row.measured(samples["ours"], samples[best])
        except CannotMeasure as why:
            yield row.not_measured(str(why))


def require_gpu():
    if not gpus():
        raise CannotMeasure("no NVIDIA GPU here")


def r5(bench):
    return list(against(bench, "R5", "eager DDP", lambda model, batch: 1.5 if model == "resnet18" and batch <= 64 else 1.0,
                        [""]))


def r6(bench):
    rows = list(against(bench, "R6", "compiled DDP", lambda model, batch: 1.0, COMPILE_MODES))
    model, image_size, batch, _ = CASES[0]
    row = Row("R6", f"cold start to first step, {model}, batch {batch}", "compiled DDP", 10)
    try:
        require_gpu()
        config_file = run_yaml(bench, model, image_size, batch, 30)
        samples = bench.in_turns({"ours": lambda: first_step(bench, config_file),
                                  "peer": lambda: peer_first_step(bench, model, image_size, batch)})
        rows.append(row.measured(samples["ours"], samples["peer"], "s"))
    except CannotMeasure as why:
        rows.append(row.not_measured(str(why)))
    return rows


def first_step(bench, config_file):
    """From mpirun to the first step; the run goes on to its end, 29 steps later."""
    run_dir = bench.work / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    command = bench.mpirun(1, str(bench.program("lockstep-trainer")), str(config_file), "--run-dir", str(run_dir),
                           "--no-coordinator")
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not made_first_step(run_dir / "attempt-1/board"):
        if process.poll() is not None:
            raise CannotMeasure(f"the trainer ended with {process.returncode} before its first step")
        time.sleep(0.002)
    seconds = time.monotonic() - start
    process.wait()
    return seconds


def peer_first_step(bench, model, image_size, batch):
    """With an empty compiler cache: cold means cold."""
    environment = dict(bench.torch_python().environment)
    cache = bench.work / "inductor"
    shutil.rmtree(cache, ignore_errors=True)
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    environment["TRITON_CACHE_DIR"] = str(cache / "triton")
    command = peer_command(bench, model, image_size, batch, 10, "default")
    start = time.time()
    return bench.run_json(command, timeout=1800, env=environment)["first_step_at"] - start


def r8(bench):
    """The trainer's own word on its stalls, against torch.save of the same model on the GPU."""
    row = Row("R8", "checkpoint of ResNet-18 and its momentum on the GPU: stall", "torch.save", 10)
    try:
        require_gpu()
        config_file = run_yaml(bench, "resnet18", 32, 512, 300, every="50st")
        folder = bench.work / "checkpoints"
        folder.mkdir(exist_ok=True)
        peer = [*bench.torch_python().command, bench_peer("save.py"), "--device", "cuda", "--folder", folder, "--rounds", "4"]
        samples = bench.in_turns({"ours": lambda: stalls(bench, config_file),
                                  "peer": lambda: bench.run_peer(peer)["samples"]})
        return [row.measured(samples["ours"], samples["peer"])]
    except CannotMeasure as why:
        return [row.not_measured(str(why))]


def stalls(bench, config_file):
    run_dir = bench.work / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    text = bench.run(bench.mpirun(1, bench.program("lockstep-trainer"), config_file, "--run-dir", run_dir, "--no-coordinator"))
    shutil.rmtree(run_dir, ignore_errors=True)
    found = [float(value) for value in re.findall(r"stood still for ([0-9.]+) ms", text)]
    if len(found) < 3:
        raise CannotMeasure("the trainer reported no checkpoints")
    return found[1:]  # The first has its memory to find.


ROWS = {"R5": r5, "R6": r6, "R8": r8}
