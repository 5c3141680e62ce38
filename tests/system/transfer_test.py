"""Transfer learning: a frozen trunk, its features cached once, a part that is unfrozen later; averages, early stopping."""
import json

import pictures
import support
from support import bits, checkpoints, floats, result, rows, tensors


def transfer(name="transfer", **sections):
    parts = {
        "resources": "{ranks: 2, threads_per_rank: 1}",
        "data": "{kind: image_folder, path: flowers, image_size: 32, split: [80, 20], cache_folder: cache}",
        "model": "{name: resnet18, stem: cifar, freeze: backbone}",
        "training": "{duration: 6ep, global_batch_size: 12, log_every_steps: 1}",
        "optimizer": "{name: adamw, learning_rate: 0.01}",
        "checkpoint": "{every: 1ep, keep_last: 3}",
    }
    parts.update(sections)
    return "\n".join([f"name: {name}", "seed: 3"] + [f"{key}: {value}" for key, value in parts.items()]) + "\n"


class TransferTest(support.Folder):
    def setUp(self):
        super().setUp()
        pictures.class_folders(self.folder / "flowers", 20)

    def run_file(self, name="run.yaml", **sections):
        text = transfer(**sections)
        return self.write(name, text.replace("path: flowers", f"path: {self.folder}/flowers")
                          .replace("cache_folder: cache", f"cache_folder: {self.folder}/cache"))

    def test_features_are_cached_once_and_reused(self):
        file = self.run_file()
        first = self.train(2, file, self.folder / "first")
        self.assertIn("cached the features of 48 pictures", first)
        self.assertIn("cached the features of 12 pictures", first)
        second = self.train(2, file, self.folder / "second")
        self.assertNotIn("cached the features of", second)
        self.assertIn("reusing cached features of 48 pictures", second)
        self.assertEqual(bits(self.folder / "first"), bits(self.folder / "second"))
        cache = result(self.folder / "second")["feature_cache"]
        self.assertTrue(cache["reused"])
        self.assertGreater(cache["saved_seconds"], 0)
        self.train(2, file, self.folder / "second", "--set", "training.duration=60ep")
        self.assertGreater(result(self.folder / "second")["last_evaluation"]["top1"], 0.9)

    def test_the_cache_changes_no_prediction(self):
        # Another batch size of the trunk rounds otherwise, no more.
        self.train(2, self.run_file(), self.folder / "cached")
        self.train(2, self.run_file(model="{name: resnet18, stem: cifar, freeze: backbone, feature_cache: never}"),
                   self.folder / "through")
        for a, b in zip(rows(self.folder / "cached"), rows(self.folder / "through")):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=1e-3 * max(1, abs(a["loss"])), msg=f"{a} {b}")

    def test_other_preprocessing_or_weights_are_not_taken_from_the_cache(self):
        self.train(2, self.run_file(), self.folder / "first")
        smaller = self.run_file(data="{kind: image_folder, path: flowers, image_size: 24, split: [80, 20], cache_folder: cache}")
        self.assertIn("cached the features of", self.train(2, smaller, self.folder / "smaller"))
        seeded = self.train(2, self.run_file(), self.folder / "seeded", "--set", "seed=4")
        self.assertIn("cached the features of", seeded)
        weights = checkpoints(self.folder / "first")[-1] / "weights.safetensors"
        same = self.run_file(model=f"{{name: resnet18, stem: cifar, freeze: backbone, pretrained: {weights}}}")
        self.assertIn("reusing", self.train(2, same, self.folder / "same"))

    def test_a_frozen_trunk_does_not_move_and_leaves_at_its_time(self):
        model = "{name: resnet18, stem: cifar, freeze: backbone, unfreeze_after: 3ep}"
        file = self.run_file(model=model)
        self.train(2, file, self.folder / "frozen", "--set", "training.duration=2ep", "--set", "model.unfreeze_after=0s")
        self.train(2, file, self.folder / "whole")
        frozen = [tensors(c / "weights.safetensors") for c in checkpoints(self.folder / "frozen")]
        whole = tensors(checkpoints(self.folder / "whole")[-1] / "weights.safetensors")
        trunk = [name for name in whole if not name.startswith("fc.")]
        self.assertGreater(len(trunk), 100)
        for name in trunk:
            self.assertEqual(frozen[0][name], frozen[-1][name], name)
        moved = [name for name in trunk if whole[name] != frozen[0][name]]
        self.assertGreater(len(moved), 0.9 * len(trunk))
        self.assertTrue(all(name in moved for name in trunk if name.endswith("running_mean")))

    def test_interrupted_before_and_after_unfreezing_the_bits_are_the_same(self):
        model = "{name: resnet18, stem: cifar, freeze: backbone, unfreeze_after: 3ep}"
        file = self.run_file(model=model, optimizer="{name: adamw, learning_rate: 0.01, backbone_ratio: 0.1}")
        self.train(2, file, self.folder / "whole")
        for stop in ("2ep", "3ep", "5ep"):
            self.train(2, file, self.folder / stop, "--set", f"training.duration={stop}",
                       *(("--set", "model.unfreeze_after=0s") if stop != "5ep" else ()))
            self.train(2, file, self.folder / stop)
            self.assertEqual(bits(self.folder / stop), bits(self.folder / "whole"), stop)

    def test_random_augmentation_switches_the_cache_off_or_multiplies_it(self):
        data = ("{kind: image_folder, path: flowers, image_size: 32, split: [80, 20], cache_folder: cache, "
                "augment: {flip: horizontal}}")
        said = self.train(2, self.run_file(data=data), self.folder / "off")
        self.assertIn("features are not cached", said)
        self.assertIn("model.feature_views", said)
        views = self.run_file(data=data, model="{name: resnet18, stem: cifar, freeze: backbone, feature_views: 3}")
        self.assertIn("cached the features of 144 pictures", self.train(2, views, self.folder / "views"))

    def test_a_full_disk_costs_the_cache_and_not_the_run(self):
        (self.folder / "cache").write_text("a file where the folder should be")
        said = self.train(2, self.run_file(), self.folder / "run")
        self.assertIn("features are not cached", said)
        model = "{name: resnet18, stem: cifar, freeze: backbone, feature_cache: always}"
        said = self.train(2, self.run_file(model=model), self.folder / "always", expect=2)
        self.assertIn("model.feature_cache is always, but", said)


class StagesTest(support.Folder):
    def test_the_average_is_what_is_judged_and_left_behind(self):
        text = support.config(steps=20, sections={
            "training": "{duration: 20st, global_batch_size: 32, eval_every: 10st, log_every_steps: 1, ema_decay: 0.9}"})
        file = self.write("run.yaml", text)
        self.train(2, file, self.folder / "whole")
        self.train(2, file, self.folder / "parts", "--set", "training.duration=10st")
        self.train(2, file, self.folder / "parts")
        self.assertEqual(bits(self.folder / "parts"), bits(self.folder / "whole"))
        self.assertEqual(rows(self.folder / "parts"), rows(self.folder / "whole"))
        plain = self.write("plain.yaml", text.replace(", ema_decay: 0.9", ""))
        self.train(2, plain, self.folder / "plain")
        newest = checkpoints(self.folder / "whole")[-1]
        weights, trained = tensors(newest / "weights.safetensors"), tensors(newest / "optimizer.safetensors")
        unaveraged = tensors(checkpoints(self.folder / "plain")[-1] / "weights.safetensors")
        name = "blocks.0.conv.weight"
        self.assertEqual(trained["raw." + name], unaveraged[name])
        self.assertNotEqual(weights[name], unaveraged[name])
        distance = max(abs(a - b) for a, b in zip(floats(weights[name]), floats(unaveraged[name])))
        self.assertLess(distance, 0.1)

    def test_a_run_that_gets_no_better_ends_early_on_all_ranks(self):
        # A learning rate this small never gives a better accuracy.
        text = support.config(steps=1000, batch_norm=False, sections={
            "training": "{duration: 1000st, global_batch_size: 32, eval_every: 5st, log_every_steps: 1, "
                        "early_stopping: {patience: 3, min_delta: 0.001}}",
            "optimizer": "{name: sgd, learning_rate: 1.0e-12, momentum: 0}"})
        file = self.write("run.yaml", text)
        said = self.train(2, file, self.folder / "run")
        ended = result(self.folder / "run")
        self.assertEqual((ended["state"], ended["steps"]), ("COMPLETED", 20), said[-2000:])
        self.assertIn("no better val_top1 in 3 evaluations", ended["reason"])
        self.train(2, file, self.folder / "run")
        self.assertEqual(result(self.folder / "run")["steps"], 20)

    def test_a_plateau_lowers_the_learning_rate_and_a_resume_knows_it(self):
        text = support.config(steps=40, batch_norm=False, sections={
            "training": "{duration: 40st, global_batch_size: 32, eval_every: 5st, log_every_steps: 1}",
            "optimizer": "{name: sgd, learning_rate: 1.0e-10, momentum: 0}",
            "schedule": "{name: plateau, patience: 2, gamma: 0.5}"})
        file = self.write("run.yaml", text)
        self.train(2, file, self.folder / "whole")
        rates = [row["lr"] for row in rows(self.folder / "whole") if row["kind"] == "step"]
        self.assertEqual(rates[0], 1e-10)
        self.assertIn(0.5e-10, rates)
        self.assertEqual(sorted(rates, reverse=True), rates)
        self.train(2, file, self.folder / "parts", "--set", "training.duration=25st")
        self.train(2, file, self.folder / "parts")
        self.assertEqual(rows(self.folder / "parts"), rows(self.folder / "whole"))


if __name__ == "__main__":
    support.main()
