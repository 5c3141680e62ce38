"""A run that was interrupted ends with the same bits as one that was not."""
import os
import signal

import support
from support import bits, checkpoints, config, rows, slow_config, trainers_of, wait_for


class ResumeTest(support.Folder):
    def test_ten_steps_and_ten_more_equal_twenty(self):
        whole = self.write("whole.yaml", config(steps=20))
        self.train(2, whole, self.folder / "whole")
        self.train(2, whole, self.folder / "parts", "--set", "training.duration=10st")
        self.assertEqual(checkpoints(self.folder / "parts")[-1].name, "step-000000010")
        self.train(2, whole, self.folder / "parts")
        self.assertEqual(bits(self.folder / "parts"), bits(self.folder / "whole"))
        self.assertEqual(rows(self.folder / "parts"), rows(self.folder / "whole"))

    def test_killed_between_checkpoints_equals_undisturbed(self):
        file = self.write("run.yaml", slow_config(steps=60, sections={"checkpoint": "{every: 7st, keep_last: 2}"}))
        self.train(2, file, self.folder / "calm")
        directory = self.folder / "killed"
        for saved in (7, 21, 42):
            process = self.mpirun(2, file, directory, background=True)
            wait_for(f"the checkpoint of step {saved}", lambda: process.poll() is not None or
                     any(int(c.name.split("-")[1]) >= saved for c in checkpoints(directory)))
            support.kill_session(process.pid)
            self.assertNotEqual(process.wait(), 0, "the run was over before it was killed")
        self.train(2, file, directory)
        self.assertEqual(bits(directory), bits(self.folder / "calm"))
        self.assertEqual(rows(directory), rows(self.folder / "calm"))

    def test_another_world_size_goes_on_with_the_same_batches(self):
        # Without batch norm and dropout the number of ranks changes nothing but rounding.
        file = self.write("run.yaml", config(steps=40, batch_norm=False))
        self.train(1, file, self.folder / "one", "--set", "resources.ranks=1")
        self.train(3, file, self.folder / "mixed", "--set", "resources.ranks=3", "--set", "training.duration=20st")
        self.train(2, file, self.folder / "mixed")
        one, mixed = rows(self.folder / "one"), rows(self.folder / "mixed")
        self.assertEqual([(r["kind"], r["step"], r.get("samples")) for r in one],
                         [(r["kind"], r["step"], r.get("samples")) for r in mixed])
        for a, b in zip(one, mixed):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=2e-3 * max(1, abs(a["loss"])), msg=f"{a} {b}")

    def test_another_training_is_refused(self):
        file = self.write("run.yaml", config(steps=10))
        self.train(2, file, self.folder / "run")
        out = self.train(2, file, self.folder / "run", "--set", "training.global_batch_size=64", "--set",
                         "training.duration=20st", expect=2)
        self.assertIn("training.global_batch_size is 64 but was 32", out)

    def test_a_finished_run_started_again_is_still_finished(self):
        file = self.write("run.yaml", config(steps=10))
        self.train(2, file, self.folder / "run")
        before = bits(self.folder / "run"), rows(self.folder / "run")
        self.train(2, file, self.folder / "run")
        self.assertEqual((bits(self.folder / "run"), rows(self.folder / "run")), before)

    def test_two_writers_in_one_run_directory_are_refused(self):
        file = self.write("run.yaml", config(steps=100000))
        process = self.mpirun(2, file, self.folder / "run", background=True)
        wait_for("both ranks", lambda: len(trainers_of(self.folder / "run")) == 2)
        wait_for("steps", lambda: checkpoints(self.folder / "run"))
        out = self.train(2, file, self.folder / "run", expect=26)
        self.assertIn("is being trained in already", out)
        self.assertIsNone(process.poll())


class SignalTest(support.Folder):
    def test_sigusr1_to_mpirun_makes_a_checkpoint(self):
        file = self.write("run.yaml", config(steps=100000, sections={"checkpoint": "{every: 100000st}"}))
        process = self.mpirun(2, file, self.folder / "run", background=True)
        wait_for("a checkpoint's row", lambda: support.steps_done(self.folder / "run") >= 0 and
                 len(trainers_of(self.folder / "run")) == 2 and (self.folder / "run" / "metrics.jsonl").exists())
        os.kill(process.pid, signal.SIGUSR1)
        wait_for("the checkpoint", lambda: checkpoints(self.folder / "run"))
        self.assertIsNone(process.poll(), "the run must go on")

    def test_sigterm_to_mpirun_saves_and_ends(self):
        file = self.write("run.yaml", config(steps=100000, sections={"checkpoint": "{every: 100000st}"}))
        process = self.mpirun(2, file, self.folder / "run", background=True)
        wait_for("the ranks", lambda: (self.folder / "run" / "metrics.jsonl").exists())
        os.kill(process.pid, signal.SIGTERM)
        process.wait(20)
        self.assertEqual(len(checkpoints(self.folder / "run")), 1)
        self.assertEqual(support.result(self.folder / "run")["state"], "STOPPED")


if __name__ == "__main__":
    support.main()
