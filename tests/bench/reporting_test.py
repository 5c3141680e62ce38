"""Metric work costs at most 0.5 % of a step at 1,000 steps a second: 5 microseconds.

bench-reporting makes the calls of a step, with a real coordinator attached, metrics.jsonl, the rank board of eight ranks
and TensorBoard's files. Then the whole trainer, reporting and not, in turns: told, and not judged, because what two runs
differ by on a busy machine is more than what is looked for.
"""
import json
import os
import statistics
import subprocess
import sys
import pathlib

SOURCE = pathlib.Path(os.environ.get("LOCKSTEP_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
BINARIES = pathlib.Path(os.environ["LOCKSTEP_BINARY_DIR"]).resolve()
sys.path.insert(0, str(SOURCE / "tests/system"))
sys.dont_write_bytecode = True

import support  # noqa: E402

MOST_MICROSECONDS = 5
TURNS = 5
# About a thousand steps a second.
WHOLE = """name: reporting
seed: 1
resources: {ranks: 1, device: cpu, threads_per_rank: 1}
data: {kind: shapes, image_size: 8, train_samples: 512, eval_samples: 8}
model: {name: cnn, cnn: {blocks: [{filters: 2, stride: 4, batch_norm: false}]}}
training: {duration: 3000st, global_batch_size: 4, eval_every: 0s, %s}
optimizer: {name: sgd, learning_rate: 0.01}
checkpoint: {every: 0s, keep_best: 0}
"""


class ReportingBench(support.Daemon):
    def test_the_work_of_a_step(self):
        self.start_daemon()
        for turn in range(5):  # The quietest counts, because other programs share the machine.
            done = subprocess.run([BINARIES / "bin/bench-reporting", self.folder / f"bench-{turn}", "--socket", self.socket],
                                  capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stderr)
            result = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
            parts = {part: statistics.median(samples) for part, samples in result["samples"].items()}
            print(", ".join(f"{part} {value:.2f}" for part, value in parts.items()), "microseconds a step", flush=True)
            if parts["all"] <= MOST_MICROSECONDS:
                break
        self.assertLessEqual(parts["all"], MOST_MICROSECONDS)

    def test_the_whole_trainer(self):
        self.start_daemon()
        reporting = self.write("on.yaml", WHOLE % "log_every_steps: 10")
        silent = self.write("off.yaml", WHOLE % "log_every_steps: 1000000, tensorboard: false")
        rates = {"on": [], "off": []}
        for turn in range(TURNS):
            contenders = [("on", (reporting, self.folder / f"on-{turn}", "--coordinator", str(self.socket))),
                          ("off", (silent, self.folder / f"off-{turn}"))]
            for name, arguments in contenders if turn % 2 == 0 else reversed(contenders):
                self.train(1, *arguments)
                result = support.result(self.folder / f"{name}-{turn}")
                # Without data_wait: whether the loader's thread is ahead is chance, and more than what is looked for.
                seconds = sum(result["phase_seconds"][phase] for phase in (
                    "forward", "backward", "allreduce_exposed", "straggler_wait", "optimizer", "other"))
                rates[name].append(1e6 * seconds / result["steps"])
        on, off = (statistics.median(rates[name]) for name in ("on", "off"))
        pairs = sorted(a / b - 1 for a, b in zip(rates["on"], rates["off"]))
        print(f"whole trainer: {off:.0f} microseconds a step without reporting, {on:.0f} with: {100 * (on / off - 1):+.2f} %, "
              f"pairs {100 * pairs[0]:+.2f} to {100 * pairs[-1]:+.2f} %")
        self.assertLess(on / off, 1.5, "far more than noise")


if __name__ == "__main__":
    built = subprocess.run(["cmake", "--build", BINARIES, "--target", "bench-reporting"], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:]
    support.main()
