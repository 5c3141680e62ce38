"""The rows of PERFORMANCE that need no GPU: each function measures one and gives its lines of the table."""

import json
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import time

from harness import PEERS, CannotMeasure, Row, has_bf16_units

RANKS = 2


def run_yaml(bench, model, precision="fp32", batch=32, steps=20, ranks=RANKS, threads=1, log_every=1, extra=""):
    """A run of the bench: CIFAR-10's format from generated files, no evaluation or checkpoint until the end."""
    models = {
        "resnet18": "{name: resnet18}",
        "small-cnn": "{name: cnn, cnn: {blocks: [{filters: 32, pool: max}, {filters: 64, pool: max}, "
                     "{filters: 128, pool: max}], dense: [256]}}",
        "mlp": "{name: cnn, cnn: {dense: [4096, 4096]}}",
    }
    text = f"""name: bench-{model}
seed: 1
resources: {{ranks: {ranks}, threads_per_rank: {threads}}}
data: {{kind: cifar10, path: {cifar(bench)}, eval_samples: 2, augment: {{flip: horizontal, crop_padding: 4}}}}
model: {models[model]}
training: {{duration: {steps}st, batch_size_per_rank: {batch}, precision: {precision}, eval_every: 0s, log_every_steps: {log_every}}}
optimizer: {{name: sgd, learning_rate: 0.001, momentum: 0.9}}
checkpoint: {{every: 0s, keep_best: 0}}
{extra}"""
    path = bench.work / f"{model}-{precision}-{batch}-{steps}-{threads}.yaml"
    path.write_text(text)
    return path


def cifar(bench):
    """A folder with files of CIFAR-10's format and random pictures: reading costs what it costs, nothing is learnt."""
    folder = bench.work / "cifar-10-batches-bin"
    if not (folder / "test_batch.bin").exists():
        folder.mkdir(exist_ok=True)
        record = 3073
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            data = bytearray(os.urandom(record * 10000))
            data[::record] = bytes(label % 10 for label in data[::record])
            part = folder / f"{name}.part"
            part.write_bytes(data)
            part.rename(folder / name)
    return folder


def train(bench, config_file, ranks, warmup):
    """Milliseconds of each step after the warm-up, from the trainer's own metrics.jsonl."""
    run_dir = bench.work / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    bench.run(bench.mpirun(ranks, bench.program("lockstep-trainer"), config_file, "--run-dir", run_dir, "--no-coordinator"))
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    at = [(row["step"], row["seconds"]) for row in rows if row["kind"] == "step" and row["step"] >= warmup]
    shutil.rmtree(run_dir, ignore_errors=True)
    if len(at) < 3:
        raise CannotMeasure(f"{config_file.name} logged too few steps")
    return [1000 * (after - before) / (b - a) for (a, before), (b, after) in zip(at, at[1:])]


def r1(bench):
    what = "all-reduce of 25 MB, 2 ranks"
    rows = [Row("R1", what, "MPI_Allreduce", 3.5), Row("R1", what, "gloo", 8),
            Row("R1", what, "two threads of one process", 1.15, at_most=True)]
    calls = "5" if bench.quick else "20"
    ours = bench.mpirun(RANKS, bench.program("bench-allreduce"), "--rounds", "3", "--calls", calls)
    mine, mpi, bound, gloo = [], [], [], []
    reason = ""
    for _ in range(bench.rounds):
        samples = bench.run_json(ours)["samples"]
        mine += samples["ours"]
        mpi += samples["mpi"]
        bound += samples["bound"]
        try:
            if not reason:
                gloo += bench.run_peer(bench.torchrun(RANKS, "allreduce.py", "--calls", calls))["samples"]
        except CannotMeasure as why:
            reason = str(why)
    rows[0].measured(mine, mpi)
    rows[2].measured(mine, bound)
    if reason:
        rows[1].not_measured(reason)
    else:
        # One sample of gloo stands against each round of three of ours.
        rows[1].measured([statistics.median(mine[i:i + 3]) for i in range(0, len(mine), 3)], gloo)
    return rows


def r2(bench):
    rows = []
    targets = {"sgd": 1.9, "adam": 5, "adamw": 5}
    for threads in (1, 2):
        for optimizer, target in targets.items():
            what = f"{optimizer} step, 11.2 M parameters, {threads} thread{'s' if threads > 1 else ''}"
            torch, fused = Row("R2", what, "torch::optim", target), Row("R2", what, "Python fused=True", 1.0)
            steps = "3" if bench.quick else "10"
            program = [bench.program("bench-optimizer"), "--optimizer", optimizer, "--threads", threads, "--rounds", "2",
                       "--steps", steps]
            environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
            all_samples, peer, reason = {}, [], ""
            for _ in range(bench.rounds):
                result = bench.run_json(program, env=environment)
                for name, values in result["samples"].items():
                    all_samples.setdefault(name, []).extend(values)
                try:
                    if not reason:
                        peer += bench.run_peer([*bench.torch_python().command, bench_peer("optimizer.py"), "--optimizer",
                                                optimizer, "--threads", threads, "--steps", steps, "--shapes",
                                                json.dumps(result["shapes"])])["samples"]
                except CannotMeasure as why:
                    reason = str(why)
            mine = all_samples["ours"]
            rows.append(torch.measured(mine, all_samples["torch"]))
            if reason:
                rows.append(fused.not_measured(reason))
            else:
                rows.append(fused.measured([statistics.median(mine[i:i + 2]) for i in range(0, len(mine), 2)], peer))
            if "bound" in all_samples:
                rows.append(Row("R2", what, "moving 5 floats a parameter", 1.15, at_most=True)
                            .measured(mine, all_samples["bound"]))
    return rows


def bench_peer(name):
    return pathlib.Path(__file__).parent / "peers" / name


def step_samples(bench, config_file, change, blocks, steps, *arguments, ranks=RANKS):
    return bench.run_json(bench.mpirun(ranks, bench.program("bench-step"), config_file, "--change", change, "--blocks",
                                       blocks, "--steps", steps, *arguments), timeout=1800)["samples"]


def r3(bench):
    row = Row("R3", "step of ResNet-18, 2 ranks, 32 pictures each: bf16", "fp32", 1.7 if has_bf16_units() else None,
              note="" if has_bf16_units() else "this CPU has no bf16 units")
    samples = step_samples(bench, run_yaml(bench, "resnet18"), "precision", "2" if bench.quick else "5", "3")
    return [row.measured(samples["on"], samples["off"])]


R4_CASES = [  # model, precision, samples per rank, target, steps after the warm-up of 5
    ("resnet18", "fp32", 32, 1.07, 6),
    ("resnet18", "bf16", 32, 1.12, 8),
    ("mlp", "fp32", 1, 2.0, 60),  # Bound by communication: 29 M gradients for one picture.
    ("mlp", "fp32", 8, 2.0, 40),
    ("small-cnn", "fp32", 32, 1.3, 100),
]


def r4(bench):
    rows, warmup = [], 5
    for model, precision, batch, target, steps in R4_CASES:
        if bench.quick:
            steps = min(steps, 6)
        row = Row("R4", f"whole step, 2 ranks x {batch}: {model} {precision}", "DDP + gloo", target)
        config_file = run_yaml(bench, model, precision, batch, steps + warmup)
        try:
            peer = bench.torchrun(RANKS, "ddp.py", "--model", model, "--precision", precision, "--batch", str(batch),
                                  "--warmup", str(warmup), "--steps", str(steps))
            samples = bench.in_turns({
                "ours": lambda: statistics.median(train(bench, config_file, RANKS, warmup)),
                "peer": lambda: statistics.median(bench.run_peer(peer)["samples"]),
            })
            rows.append(row.measured(samples["ours"], samples["peer"]))
        except CannotMeasure as why:
            rows.append(row.not_measured(str(why)))
    return rows


def r8(bench):
    what = "checkpoint of ResNet-18 and its momentum, 90 MB"
    rows = [Row("R8", f"{what}: stall", "torch.save", 10), Row("R8", f"{what}: stall", "memcpy of the bytes", 1.2, at_most=True),
            Row("R8", f"{what}: stall of the first", "memcpy of the bytes", None, at_most=True),
            Row("R8", "step of ResNet-18 without a write against with one under way", "without", 0.98)]
    folder = bench.work / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    ours = [bench.program("bench-checkpoint"), "--folder", folder, "--rounds", "3"]
    mine, copy, first, peer, reason = [], [], [], [], ""
    for _ in range(bench.rounds):
        samples = bench.run_json(ours)["samples"]
        mine += samples["ours"]
        copy += samples["copy"]
        first += samples["first"]
        shutil.rmtree(folder)
        folder.mkdir()
        try:
            if not reason:
                peer += bench.run_peer([*bench.torch_python().command, bench_peer("save.py"), "--folder", folder,
                                        "--rounds", "3"])["samples"]
        except CannotMeasure as why:
            reason = str(why)
    if reason:
        rows[0].not_measured(reason)
    else:
        rows[0].measured(mine, peer)
    rows[1].measured(mine, copy)
    rows[2].measured(first, copy[::3])
    steps = step_samples(bench, run_yaml(bench, "resnet18"), "checkpoint", "2" if bench.quick else "5", "4", "--folder", folder)
    rows[3].measured(steps["on"], steps["off"])
    shutil.rmtree(folder, ignore_errors=True)
    return rows


class Daemon:
    """A coordinator of the bench's own."""

    def __init__(self, bench):
        self.bench = bench
        self.state = bench.work / "state"
        shutil.rmtree(self.state, ignore_errors=True)
        self.socket = bench.work / "d.sock"
        command = [bench.program("lockstepd"), "--state-dir", self.state, "--socket", self.socket, "--set",
                   "metrics_address=127.0.0.1:0", "--set", f"slots={RANKS}", "--set", "oversubscribe=true"]
        if os.geteuid() == 0:
            command.append("--allow-root-mpirun")
        self.log = open(bench.work / "daemon.log", "w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                        start_new_session=True)
        deadline = time.monotonic() + 30
        while self.cli("daemon", "status").returncode != 0:
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.close()
                raise CannotMeasure(f"lockstepd did not start: {(bench.work / 'daemon.log').read_text()[-300:]}")
            time.sleep(0.05)

    def cli(self, *arguments):
        return subprocess.run([str(self.bench.program("lockstep")), "--socket", str(self.socket), *map(str, arguments)],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)

    def first_step_seconds(self, config_file):
        """From the submit until every rank has made its first step; then the run is killed."""
        start = time.monotonic()
        submitted = self.cli("submit", config_file, "-o", "json")
        if submitted.returncode != 0:
            raise CannotMeasure(f"submit: {submitted.stderr.strip()}")
        run = json.loads(submitted.stdout)["id"]
        board = self.state / "runs" / run / "attempt-1/board"
        while not made_first_step(board):
            if time.monotonic() - start > 120:
                raise CannotMeasure("no first step within 120 s")
            time.sleep(0.002)
        seconds = time.monotonic() - start
        self.cli("kill", run)
        self.cli("wait", run)
        return seconds

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.state, ignore_errors=True)


def made_first_step(board):
    """Reads the rank board (config/rank_board.cc): a line of 64 bytes ahead, then one a rank: pid, start, step."""
    try:
        data = board.read_bytes()
    except OSError:
        return False
    slots = [struct.unpack_from("<qQq", data, offset) for offset in range(64, len(data) - 63, 64)]
    return bool(slots) and all(pid != 0 and step >= 1 for pid, _, step in slots)


def torchrun_first_step(bench, model, batch):
    command = bench.torchrun(RANKS, "ddp.py", "--model", model, "--batch", str(batch), "--warmup", "1", "--steps", "1")
    start = time.time()
    return bench.run_peer(command)["first_step_at"] - start


def r10(bench):
    """Both sides see the same files, on one thread each, in turns. The peer's faster way counts."""
    folder = bench.work / "jpegs"
    program = bench.program("bench-pictures")
    if not folder.exists():
        part = folder.with_name(f"jpegs.part-{os.getpid()}")
        bench.run([program, "--make", part, "--count", "512"])
        part.rename(folder)
    python = None
    rows = []
    for what, name, target in (("decode", "JPEG of 500x375 in memory to RGB", 1.0),
                               ("pipeline", "JPEG files to batches: decode, random resized crop 224, flip, normalize", 1.5)):
        ways = {"pil": "torchvision, Pillow", "tensor": "torchvision.io and tensors"}
        row = {way: Row("R10", name, text, target, note="") for way, text in ways.items()}
        rows += row.values()
        ours = [program, "--folder", folder, "--rounds", "1" if bench.quick else "3", "--batches", "4"]
        contenders = {"ours": lambda: bench.run_json(ours + (["--decode"] if what == "decode" else []))["samples"]["ours"]}
        try:
            if python is None:
                python = torchvision_python(bench)
            for way in ways:
                command = [*python.command, bench_peer("pictures.py"), "--folder", folder, "--what", what, "--how", way,
                           "--rounds", "1" if bench.quick else "3", "--batches", "4"]
                contenders[way] = lambda command=command: bench.run_json(command, env=python.environment)["samples"]
            samples = bench.in_turns(contenders)
            for way in ways:
                row[way].measured(samples["ours"], samples[way])
        except CannotMeasure as why:
            for way in ways:
                row[way].not_measured(str(why))
    return rows


def torchvision_python(bench):
    import torch_python

    return torch_python.with_packages(bench.torch_python(), PEERS / "torchvision-requirements.txt")


def r11(bench):
    rows = []
    daemon = Daemon(bench)
    try:
        for model, batch in (("small-cnn", 32), ("resnet18", 32)):
            row = Row("R11", f"submit to first step, {model}, 2 ranks", "torchrun to first step", 5)
            bench.commands.append(f"lockstep submit {model}.yaml, until every rank's first step is on the rank board")
            config_file = run_yaml(bench, model, batch=batch, steps=100000)
            try:
                samples = bench.in_turns({"ours": lambda: daemon.first_step_seconds(config_file),
                                          "peer": lambda: torchrun_first_step(bench, model, batch)})
                rows.append(row.measured(samples["ours"], samples["peer"], "s"))
            except CannotMeasure as why:
                rows.append(row.not_measured(str(why)))
    finally:
        daemon.close()
    return rows


def r13(bench):
    rows = []
    for model, steps in (("resnet18", 3), ("small-cnn", 40)):
        row = Row("R13", f"step of {model}, 2 ranks x 32: loader on", "same tensors reused", 1.02, at_most=True)
        samples = step_samples(bench, run_yaml(bench, model), "loader", "2" if bench.quick else "7", str(steps))
        rows.append(row.measured(samples["on"], samples["off"]))
    return rows


def r12(bench):
    """Epochs of the head over cached features against epochs through the frozen ResNet-50."""
    pictures, batch = (32, 8) if bench.quick else (96, 16)
    row = Row("R12", f"epoch of a head over cached features, 2 ranks, {pictures} pictures of 224 px", "through the frozen ResNet-50", 50)

    def epochs(cache, count):
        path = bench.work / f"features-{cache}.yaml"
        path.write_text(f"""name: bench-features
seed: 1
resources: {{ranks: {RANKS}, threads_per_rank: 1}}
data: {{kind: shapes, image_size: 224, train_samples: {pictures}, eval_samples: 2, cache_folder: {bench.work / "features"}}}
model: {{name: resnet50, freeze: backbone, feature_cache: {cache}}}
training: {{duration: {count}ep, global_batch_size: {batch}, eval_every: 0s, log_every_steps: 1}}
optimizer: {{name: adamw, learning_rate: 0.001}}
checkpoint: {{every: 0s, keep_best: 0}}
""")
        run_dir = bench.work / "run"
        shutil.rmtree(run_dir, ignore_errors=True)
        bench.run(bench.mpirun(RANKS, bench.program("lockstep-trainer"), path, "--run-dir", run_dir, "--no-coordinator"))
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        shutil.rmtree(run_dir, ignore_errors=True)
        # A step's row is written when the step after it is done, so times are those of whole steps. The first epoch warms up.
        per_epoch = pictures // batch
        at = [row["seconds"] for row in rows if row["kind"] == "step"][per_epoch - 1::per_epoch]
        return [1000 * (after - before) for before, after in zip(at, at[1:])]

    epochs("always", 2)  # Fills the cache.
    cached, through = [], []
    for _ in range(bench.rounds):
        cached.append(statistics.median(epochs("always", 41)))
        through.append(statistics.median(epochs("never", 3)))
    return [row.measured(cached, through)]


ROWS = {"R1": r1, "R2": r2, "R3": r3, "R4": r4, "R8": r8, "R10": r10, "R11": r11, "R12": r12, "R13": r13}
