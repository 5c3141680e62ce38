"""The two profiles are one program: on the CPU they train to the same bits.

Runs where preset cuda was built; preset cpu is looked for beside it.
"""
import pathlib
import subprocess
import sys
import unittest.mock

import support
from support import bits, config, rows

CUDA_TRAINER = pathlib.Path(support.TRAINER)
CPU_TRAINER = CUDA_TRAINER.parents[2] / "cpu/bin/lockstep-trainer"
# The cuda profile would train on GPUs where there are some; here both are to use the CPU.
ON_THE_CPU = {"CUDA_VISIBLE_DEVICES": ""}


class ProfilesTest(support.Folder):
    def train_with(self, trainer, file, directory, *arguments):
        with unittest.mock.patch.object(support, "TRAINER", str(trainer)):
            self.train(2, file, directory, *arguments, env=ON_THE_CPU)

    def train_with_both(self, text):
        """Trains the same file with both programs and returns what came out of each."""
        file = self.write("run.yaml", text)
        outcomes = []
        for trainer in (CUDA_TRAINER, CPU_TRAINER):
            directory = self.folder / trainer.parts[-3]
            self.train_with(trainer, file, directory)
            outcomes.append((bits(directory), rows(directory)))
        return outcomes

    def test_each_says_which_it_is(self):
        for trainer, profile in ((CUDA_TRAINER, "cuda"), (CPU_TRAINER, "cpu")):
            said = subprocess.run([trainer, "--version"], capture_output=True, text=True, check=True).stdout
            self.assertIn(f"profile {profile}, LibTorch 2.11", said)

    def test_fp32_and_adamw_give_the_same_bits(self):
        cuda, cpu = self.train_with_both(config(steps=20))
        self.assertEqual(cuda, cpu)

    def test_bf16_and_sgd_of_a_residual_net_give_the_same_bits(self):
        cuda, cpu = self.train_with_both(config(steps=4, batch=8, sections={
            "data": "{kind: shapes, image_size: 32, train_samples: 64, eval_samples: 16}",
            "model": "{name: resnet18}",
            "training": "{duration: 4st, global_batch_size: 8, precision: bf16, eval_every: 4st, log_every_steps: 1}",
            "optimizer": "{name: sgd, learning_rate: 0.05, momentum: 0.9, nesterov: true}",
            "checkpoint": "{every: 0s}"}))
        self.assertEqual(cuda, cpu)

    def test_a_run_begun_by_one_is_finished_by_the_other(self):
        file = self.write("run.yaml", config(steps=20))
        self.train_with(CUDA_TRAINER, file, self.folder / "whole")
        self.train_with(CUDA_TRAINER, file, self.folder / "both", "--set", "training.duration=10st")
        self.train_with(CPU_TRAINER, file, self.folder / "both")
        self.assertEqual(bits(self.folder / "both"), bits(self.folder / "whole"))


if __name__ == "__main__":
    if not CPU_TRAINER.exists():
        print(f"SKIPPED: {CPU_TRAINER} is not built (scripts/build cpu)")
        sys.exit(77)
    support.main()
