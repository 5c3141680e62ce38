"""Runs on a GPU, by the real trainer: the same promises as on the CPU, and the GPU's own."""
import json
import subprocess
import sys

import support
from support import TRAINER, bits, checkpoints, config, result, rows, steps_done, wait_for

GPU = {"resources": "{ranks: 1, device: gpu, threads_per_rank: 2}"}
# The same bits on every run.
SAME = "{duration: %dst, global_batch_size: 64, eval_every: 10st, log_every_steps: 1, deterministic: true, precision: %s, cuda_graph: %s}"


def training(steps=20, precision="fp32", graph="auto"):
    return SAME % (steps, precision, graph)


class GpuTrainingTest(support.Folder):
    def run_config(self, name, sections=None, ranks=1, **keywords):
        text = config(name=name, sections={**GPU, "training": training(), **(sections or {})})
        directory = self.folder / name
        output = self.train(ranks, self.write(f"{name}.yaml", text), directory, **keywords)
        return directory, output

    def test_a_run_learns_in_every_precision_as_one_graph(self):
        learn = "{duration: 6ep, global_batch_size: 64, precision: %s}"
        for precision in ("fp32", "bf16", "fp16"):
            directory, output = self.run_config(f"learn-{precision}", {
                "data": "{kind: shapes, train_samples: 4000, eval_samples: 1000}",
                "training": learn % precision,
                "model": "{name: cnn, cnn: {blocks: [{filters: 16, pool: max}, {filters: 32, pool: max}, {filters: 64, pool: max}], dense: [64]}}",
                "schedule": "{name: cosine}", "checkpoint": "{every: 2ep}"}, timeout=300)
            self.assertIn("one CUDA graph", output)
            self.assertIn("in the GPU's memory", output)
            self.assertGreater(result(directory)["last_evaluation"]["top1"], 0.9, output[-2000:])

    def test_a_graph_computes_what_single_kernels_do(self):
        outcomes = []
        for graph in ("never", "always"):
            directory, _ = self.run_config(f"graph-{graph}", {"training": training(graph=graph)})
            outcomes.append((bits(directory), rows(directory)))
        self.assertEqual(*outcomes)

    def test_resident_data_changes_no_bit(self):
        data = "{kind: shapes, image_size: 16, train_samples: 320, eval_samples: 64, resident: %s, augment: {flip: horizontal, crop_padding: 2}}"
        outcomes = []
        for resident in ("never", "always"):
            directory, _ = self.run_config(f"resident-{resident}", {"data": data % resident})
            outcomes.append((bits(directory), rows(directory)))
        self.assertEqual(*outcomes)

    def test_a_killed_run_goes_on_with_the_same_bits(self):
        for precision in ("fp32", "bf16", "fp16"):
            sections = {"training": training(4000, precision), "checkpoint": "{every: 500st, keep_last: 2}"}
            calm, _ = self.run_config(f"calm-{precision}", sections, timeout=300)
            file = self.folder / f"calm-{precision}.yaml"
            killed = self.folder / f"killed-{precision}"
            process = self.mpirun(1, file, killed, background=True)
            wait_for("a checkpoint", lambda: checkpoints(killed), 60, 0.005)
            support.kill_session(process.pid)
            process.wait()
            self.assertLess(steps_done(killed), 4000, "killed before its end")
            self.train(1, file, killed, timeout=300)
            self.assertEqual((bits(killed), rows(killed)), (bits(calm), rows(calm)))

    def test_the_cpu_agrees(self):
        small = {"training": training(10)}
        gpu, _ = self.run_config("gpu", small)
        cpu, _ = self.run_config("cpu", {**small, "resources": "{ranks: 1, device: cpu, threads_per_rank: 2}"})
        for a, b in zip(rows(gpu), rows(cpu)):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=0.02 * abs(b["loss"]) + 1e-3)

    def test_more_ranks_than_gpus_are_refused_with_a_hint(self):
        text = config(sections={"resources": "{ranks: 64, device: gpu, threads_per_rank: 1}",
                                "training": "{duration: 5st, global_batch_size: 64}"})
        done = self.mpirun(16, self.write("many.yaml", text), self.folder / "many")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("each rank needs one of its own", done.stdout)

    def test_two_ranks_train_as_one(self):
        alone, _ = self.run_config("alone", {"training": training(20)})
        file = self.write("pair.yaml", config(name="pair", sections={
            **GPU, "resources": "{ranks: 2, device: gpu, threads_per_rank: 2}", "training": training(20)}))
        pair = self.folder / "pair"
        # Each rank its own host id: how NCCL is made to take one GPU twice.
        command = ["mpirun", *support.mpirun_flags(), "-np", "2", "bash", "-c",
                   f"NCCL_HOSTID=$OMPI_COMM_WORLD_RANK exec {TRAINER} {file} --run-dir {pair} --no-coordinator"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
                              stdin=subprocess.DEVNULL)
        if done.returncode != 0 and "NCCL" in done.stdout:
            self.skipTest("NCCL does not put two ranks on one GPU here: " + done.stdout[-600:])
        self.assertEqual(done.returncode, 0, done.stdout[-3000:])
        for a, b in zip(rows(pair), rows(alone)):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=0.02 * abs(b["loss"]) + 1e-3)


class GpuPriceTest(support.Daemon):
    def test_a_run_started_with_mpirun_has_the_price_and_the_meter_of_its_gpu(self):
        names = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
        if names.returncode != 0:
            self.skipTest("nvidia-smi does not tell the GPU's name: " + names.stderr.strip())
        name = names.stdout.splitlines()[0].strip()
        prices = self.write("lockstepd.yaml", f"""
price:
  devices:
    - {{device: "{name}", per_hour: 3600}}
  power: {{gpu_watts: 1}}
""")
        self.start_daemon("--config", str(prices))
        file = self.write("run.yaml", config(name="by-hand", sections={**GPU, "training": training().replace("20st", "10s")}))
        self.train(1, file, self.folder / "hand", "--coordinator", str(self.socket))
        run = self.cli("list", "--ids").stdout.strip()
        self.wait_state(run, "COMPLETED")
        self.assertEqual(self.describe(run)["devices"], [name])
        line, = json.loads(self.cli("cost", run, "--by", "rank", "-o", "json").stdout)["lines"]
        self.assertAlmostEqual(line["hardware_micros"] * 1e-6, line["rank_seconds"], delta=0.01)
        # No GPU draws less than 10 W; the estimate of what was not metered is 1 W.
        self.assertGreater(line["microjoules"] * 1e-6, 10 * 5)


def why_no_gpu():
    """Why the trainer finds no GPU; None where it finds one."""
    with support.tempfile.TemporaryDirectory() as folder:
        file = support.pathlib.Path(folder) / "run.yaml"
        file.write_text(config(steps=1, sections=GPU))
        done = subprocess.run([TRAINER, str(file), "--run-dir", f"{folder}/run", "--no-coordinator"],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return None if done.returncode == 0 else done.stderr.strip()


if __name__ == "__main__":
    reason = why_no_gpu()
    if reason:
        print(f"SKIPPED: {reason}")
        sys.exit(77)
    support.main()
