"""TensorBoard's event files of real runs: what metrics.jsonl has, each step once, however often the run is killed."""
import json
import os
import random
import signal
import time

import event_files
import support
from support import checkpoints, kill_session, result, slow_config, wait_for

STEPS = 120
# An evaluation is handed to the kernel at once, with all before it: most kills leave points of steps that are not saved.
SECTIONS = {"checkpoint": "{every: 13st, keep_last: 3}",
            "training": f"{{duration: {STEPS}st, global_batch_size: 256, eval_every: 5st, log_every_steps: 1}}"}
KILLS = 8


class TensorboardTest(support.Folder):
    def setUp(self):
        super().setUp()
        self.run_dir = self.folder / "run"
        self.config = self.write("run.yaml", slow_config(steps=STEPS, sections=SECTIONS))

    def events(self):
        return event_files.Events(self.run_dir / "tensorboard")

    def rows(self, kind):
        rows = [json.loads(line) for line in (self.run_dir / "metrics.jsonl").read_text().splitlines()]
        return [row for row in rows if row["kind"] == kind]

    def check_each_step_once(self):
        """Every point of every tag, against the rows of metrics.jsonl."""
        events = self.events()
        for tag, points in events.points.items():
            steps = [point.step for point in points]
            self.assertEqual(steps, sorted(set(steps)), f"{tag}: each step once, in order")
        pairs = {"loss/train": ("step", "loss"), "top1/train": ("step", "top1"), "learning_rate": ("step", "lr"),
                 "loss/val": ("eval", "loss"), "top1/val": ("eval", "top1"), "macro_f1/val": ("eval", "macro_f1"),
                 "loss/train_epoch": ("epoch", "loss"), "top1/train_epoch": ("epoch", "top1")}
        for tag, (kind, key) in pairs.items():
            expected = [(row["step"], event_files.float32(row[key])) for row in self.rows(kind)]
            self.assertGreater(len(expected), 0, tag)
            self.assertEqual(events.scalars(tag), expected, tag)
        steps = [row["step"] for row in self.rows("step")]
        self.assertEqual(steps, list(range(1, STEPS + 1)))
        for tag in ("gradient_norm", "time/checkpoint_stall_seconds"):
            self.assertEqual(events.steps(tag), steps, tag)
        # An attempt whose first step is evaluated does not know its speed there.
        speeds = events.scalars("throughput/samples_per_second")
        self.assertTrue(all(speed > 0 for _, speed in speeds), speeds)
        self.assertGreaterEqual(len(speeds), STEPS - len(events.files))
        self.assertEqual(events.steps("confusion_matrix/val"), [row["step"] for row in self.rows("eval")])
        self.assertEqual(events.steps("time/step_seconds"), [100])
        self.assertEqual(events.steps("run_yaml"), [0])
        return events

    def test_killed_at_random_moments_each_step_is_there_once(self):
        seed = time.time_ns()
        random.seed(seed)
        print(f"seed {seed}", flush=True)
        killed = unsaved = 0
        for kill in range(KILLS):
            process = self.mpirun(2, self.config, self.run_dir, background=True)
            before = self.newest()
            if kill % 2 == 0:  # Every other time a checkpoint later, so that the run comes to its middle.
                wait_for("a checkpoint", lambda: self.newest() > before or process.poll() is not None)
            time.sleep(random.uniform(0, 0.4 if kill % 2 == 0 else 0.9))  # The moment is what is tested.
            killed += process.poll() is None
            kill_session(process.pid)
            process.wait()
            events = event_files.Events(self.run_dir / "tensorboard", torn_end=True)
            unsaved += max(events.steps("loss/train"), default=0) > int(self.newest()[5:] or 0)
        self.assertGreater(killed, KILLS // 2)
        self.assertGreater(unsaved, 1, "kills after which points had to go")
        self.train(2, self.config, self.run_dir)
        self.assertEqual(result(self.run_dir)["steps"], STEPS)
        events = self.check_each_step_once()
        self.assertGreater(len([file for file in events.files if file.stat().st_size > 0]), 2)

    def newest(self):
        return checkpoints(self.run_dir)[-1].name if checkpoints(self.run_dir) else ""

    def test_what_the_files_hold(self):
        self.train(2, self.config, self.run_dir)
        events = self.check_each_step_once()
        self.assertEqual(len(events.files), 1)
        self.assertEqual(events.starts, [0])
        picture = events.points["confusion_matrix/val"][0].value
        self.assertTrue(picture[4][0].startswith(b"\x89PNG"))
        histogram = events.points["time/step_seconds"][0].value
        self.assertTrue(99 <= histogram[3][0] <= 100, histogram[3])
        text = events.points["run_yaml"][0].value[8][0].decode()
        self.assertIn("    name: tiny\n", text)
        phases = [tag for tag in events.points if tag.startswith("time/phase/")]
        self.assertTrue({"time/phase/forward", "time/phase/startup", "time/phase/eval"} <= set(phases), phases)
        for step in range(1, STEPS + 1):
            shares = [dict(events.scalars(tag)).get(step, 0) for tag in phases]
            self.assertTrue(all(0 <= share <= 1 for share in shares), shares)
            self.assertAlmostEqual(sum(shares), 1, places=4)
        # Nothing is left to do, so nothing is written, and nothing lost.
        before = [(file, file.read_bytes()) for file in events.files]
        self.train(2, self.config, self.run_dir)
        self.assertEqual([(file, file.read_bytes()) for file in self.events().files], before)

    def test_going_back_to_an_older_checkpoint(self):
        process = self.mpirun(2, self.config, self.run_dir, background=True)
        wait_for("three checkpoints", lambda: len(checkpoints(self.run_dir)) == 3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kill_session(process.pid)
        wait_for("the ranks to be gone", lambda: not support.trainers_of(self.run_dir))
        newest = checkpoints(self.run_dir)[-1] / "weights.safetensors"
        damaged = bytearray(newest.read_bytes())
        damaged[-1] ^= 1
        newest.write_bytes(damaged)
        self.assertIn("refused a checkpoint", self.train(2, self.config, self.run_dir))
        self.check_each_step_once()

    def test_switched_off(self):
        text = slow_config(steps=5, sections={"training": "{duration: 5st, global_batch_size: 32, tensorboard: false}"})
        self.train(1, self.write("off.yaml", text.replace("ranks: 2", "ranks: 1")), self.run_dir)
        self.assertFalse((self.run_dir / "tensorboard").exists())

    def test_training_goes_on_where_nothing_can_be_written(self):
        self.run_dir.mkdir()
        (self.run_dir / "tensorboard").write_text("a file in place of the folder")
        output = self.train(2, self.config, self.run_dir)
        self.assertEqual(output.count("no more events for TensorBoard"), 1, output)
        self.assertEqual([row["step"] for row in self.rows("step")], list(range(1, STEPS + 1)))


if __name__ == "__main__":
    support.main()
