"""One global batch is one global batch: on one rank, on several, in one piece or in micro-batches."""
import support
from support import bits, checkpoints, config, floats, tensors


def largest_difference(a, b):
    """Of two weights files, relative to each tensor's largest value."""
    assert a.keys() == b.keys()
    worst = 0.0
    for name in a:
        x, y = floats(a[name]), floats(b[name])
        scale = max(max(map(abs, x)), 1e-12)
        worst = max(worst, max(abs(p - q) for p, q in zip(x, y)) / scale)
    return worst


class WorldsTest(support.Folder):
    def weights(self, directory):
        saved = tensors(checkpoints(directory)[-1] / "weights.safetensors")
        return {name: tensor for name, tensor in saved.items() if not name.endswith("num_batches_tracked")}  # Integers.

    def file(self):
        # SGD: Adam divides by the square root of tiny second moments and so magnifies rounding in weights that hardly learn.
        return self.write("run.yaml", config(steps=20, batch=24, batch_norm=False, sections={
            "optimizer": "{name: sgd, learning_rate: 0.02, momentum: 0.9, weight_decay: 0.001}"}))

    def test_the_number_of_ranks_changes_only_rounding(self):
        file = self.file()
        for ranks in (1, 2, 3, 4):
            self.train(ranks, file, self.folder / f"w{ranks}", "--set", f"resources.ranks={ranks}")
        for ranks in (2, 3, 4):
            difference = largest_difference(self.weights(self.folder / "w1"), self.weights(self.folder / f"w{ranks}"))
            self.assertLessEqual(difference, 1e-5, f"{ranks} ranks")

    def test_with_synchronized_batch_norm_too_the_number_of_ranks_changes_only_rounding(self):
        file = self.write("run.yaml", config(steps=20, batch=24, sections={
            "model": "{name: cnn, sync_batch_norm: true, cnn: {blocks: [{filters: 8, pool: max}, {filters: 16, pool: max}], dense: [32]}}",
            "optimizer": "{name: sgd, learning_rate: 0.02, momentum: 0.9, weight_decay: 0.001}"}))
        for ranks in (1, 2, 3):
            self.train(ranks, file, self.folder / f"w{ranks}", "--set", f"resources.ranks={ranks}")
        for ranks in (2, 3):
            difference = largest_difference(self.weights(self.folder / "w1"), self.weights(self.folder / f"w{ranks}"))
            self.assertLessEqual(difference, 2e-5, f"{ranks} ranks")
        self.train(2, file, self.folder / "ordinary", "--set", "model.sync_batch_norm=false")
        difference = largest_difference(self.weights(self.folder / "w1"), self.weights(self.folder / "ordinary"))
        self.assertGreater(difference, 1e-2, "each rank's own statistics are something else")

    def test_repeated_runs_have_the_same_bits(self):
        for ranks in (1, 3):
            file = self.write(f"r{ranks}.yaml", config(ranks=ranks, steps=20, batch=24))
            self.train(ranks, file, self.folder / f"a{ranks}")
            self.train(ranks, file, self.folder / f"b{ranks}")
            self.assertEqual(bits(self.folder / f"a{ranks}"), bits(self.folder / f"b{ranks}"))

    def test_micro_batches_change_only_rounding(self):
        file = self.file()
        self.train(2, file, self.folder / "whole")
        self.train(2, file, self.folder / "pieces", "--set", "training.micro_batch_size=5")
        difference = largest_difference(self.weights(self.folder / "whole"), self.weights(self.folder / "pieces"))
        self.assertLessEqual(difference, 1e-5)

    def test_a_batch_per_rank_is_a_global_batch(self):
        file = self.file()
        self.train(2, file, self.folder / "global")
        text = file.read_text().replace("global_batch_size: 24", "batch_size_per_rank: 12")
        self.train(2, self.write("per_rank.yaml", text), self.folder / "per_rank")
        self.assertEqual(bits(self.folder / "per_rank"), bits(self.folder / "global"))


class FailureTest(support.Folder):
    def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(self):
        file = self.write("run.yaml", config(steps=40, batch_norm=False, sections={
            "optimizer": "{name: sgd, learning_rate: 1.0e+6, momentum: 0.9}",
            "schedule": "{name: constant}", "checkpoint": "{every: 1st, keep_last: 40}"}))
        out = self.train(2, file, self.folder / "run", expect=23)
        self.assertIn("was not finite in step", out)
        for checkpoint in checkpoints(self.folder / "run"):
            for name, tensor in tensors(checkpoint / "weights.safetensors").items():
                self.assertTrue(all(value == value and abs(value) != float("inf") for value in floats(tensor)),
                                f"{checkpoint} {name}")

    def test_a_wrong_config_starts_nothing(self):
        file = self.write("run.yaml", config().replace("optimizer:", "optimiser:"))
        out = self.train(2, file, self.folder / "run", expect=2)
        self.assertRegex(out, r"run\.yaml:\d+:\d+: .*optimiser.*optimizer")
        self.assertFalse((self.folder / "run").exists())

    def test_more_ranks_than_samples_in_a_batch_is_refused(self):
        file = self.write("run.yaml", config(batch=2, ranks=2))
        out = self.train(3, file, self.folder / "run", expect=2)
        self.assertIn("too few for 3 ranks", out)
        self.assertFalse((self.folder / "run").exists())

    def test_missing_data_is_named(self):
        file = self.write("run.yaml", config(sections={"data": "{kind: cifar10, path: /nowhere/cifar}"}))
        out = self.train(2, file, self.folder / "run", expect=20)
        self.assertIn("/nowhere/cifar", out)

    def test_bfloat16_trains(self):
        file = self.write("run.yaml", config(steps=20))
        self.train(2, file, self.folder / "run", "--set", "training.precision=bf16")
        self.assertEqual(support.result(self.folder / "run")["state"], "COMPLETED")


if __name__ == "__main__":
    support.main()
