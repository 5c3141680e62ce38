"""After training: evaluate, predict, export, compare and the coordinator's Predict, with the real programs."""
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import unittest
import zlib

from support import CLI, TRAINER, Daemon, Folder, checkpoints, config, tensors, wait_for

SHAPES = "{kind: shapes, image_size: 16, train_samples: 320, eval_samples: 64}"


def png(width, height, pixel=lambda x, y: (x * 7 % 256, y * 5 % 256, 90)):
    """The bytes of a small RGB PNG."""
    return encode_png(width, height,
                      b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height)))


def encode_png(width, height, rows):
    """Rows of RGB pixels, each with a filter byte 0 before it."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def run(*command, expect=0, **keywords):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=120, **{"stdin": subprocess.DEVNULL, **keywords})
    assert expect is None or done.returncode == expect, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class Trained(Folder):
    """With one small trained run that the tests share; nobody may change it."""

    @classmethod
    def setUpClass(cls):
        cls.shared = Folder("setUp")
        cls.shared.setUp()
        file = cls.shared.write("run.yaml", config(steps=20, name="tiny"))
        cls.run_dir = cls.shared.folder / "tiny"
        cls.shared.train(2, file, cls.run_dir)

    @classmethod
    def tearDownClass(cls):
        cls.shared.doCleanups()

    def trainer(self, *arguments, **keywords):
        return run(TRAINER, *arguments, cwd=self.folder, **keywords)

    def picture(self, name="a.png", width=40, height=30):
        path = self.folder / name
        path.write_bytes(png(width, height))
        return path

    def copy_of_run(self):
        copy = self.folder / "copy"
        shutil.copytree(self.run_dir, copy)
        return copy


class EvaluateTest(Trained):
    def test_says_what_training_said(self):
        done = self.trainer("evaluate", self.run_dir, "-o", "json", "--step", 20)
        said = json.loads(done.stdout)
        last = [json.loads(line) for line in (self.run_dir / "metrics.jsonl").read_text().splitlines()
                if '"eval"' in line][-1]
        self.assertEqual(said["samples"], 64)
        self.assertEqual(said["scores"]["top1"], last["top1"])
        self.assertAlmostEqual(said["loss"], last["loss"], places=5)
        self.assertEqual(sum(map(sum, said["confusion"])), 64)
        self.assertEqual(sum(one["support"] for one in said["classes"]), 64)
        losses = [one["loss"] for one in said["worst"]]
        self.assertEqual(losses, sorted(losses, reverse=True))
        self.assertEqual(len(losses), 24)

    def test_the_report_is_one_page_with_everything_inside(self):
        done = self.trainer("evaluate", self.run_dir, "--report", "report")
        self.assertIn("top1", done.stdout)
        page = (self.folder / "report/report.html").read_text()
        for part in ("<svg", "data:image/jpeg;base64,", "Confusion matrix", "Most wrong", "training loss"):
            self.assertIn(part, page)
        for outside in ("http://", "https://", "<script", "<link"):
            self.assertNotIn(outside, page)
        self.assertEqual(json.loads((self.folder / "report/report.json").read_text())["run"], "tiny")

    def test_other_parts_of_the_data(self):
        said = json.loads(self.trainer("evaluate", self.run_dir, "--split", "train", "-o", "json").stdout)
        self.assertEqual(said["samples"], 320)

    def test_a_best_checkpoint_that_is_damaged_is_passed_over(self):
        copy = self.copy_of_run()
        best = pathlib.Path(json.loads(self.trainer("evaluate", copy, "-o", "json").stdout)["checkpoint"])
        weights = best / "weights.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        done = self.trainer("evaluate", copy, "-o", "json")
        self.assertIn("passed over", done.stderr)
        self.assertNotEqual(json.loads(done.stdout)["checkpoint"], str(best))
        named = self.trainer("evaluate", best, expect=1)
        self.assertIn("weights.safetensors", named.stderr)


class WrongInputTest(Trained):
    def test_what_is_no_checkpoint_is_exit_three(self):
        for path in ("nothing", self.folder):
            done = self.trainer("predict", path, self.picture(), expect=3)
            self.assertIn(str(path), done.stderr)
        self.assertIn("step-000000007", self.trainer("evaluate", self.run_dir, "--step", 7, expect=3).stderr)

    def test_usage(self):
        self.trainer("predict", self.run_dir, expect=2)
        self.trainer("export", self.run_dir, "--format", "pickle", expect=2)
        self.trainer("evaluate", self.run_dir, "--split", "half", expect=2)
        self.assertIn("evaluate", run(TRAINER, "--help").stdout)


class PredictTest(Trained):
    def test_a_bad_picture_is_named_and_the_others_are_answered(self):
        good, text = self.picture(), self.write("text.jpg", "no picture")
        done = self.trainer("predict", self.run_dir, "missing.png", good, text, "-o", "json", "--top-k", 3, expect=1)
        pictures = json.loads(done.stdout)["pictures"]
        self.assertEqual([("error" in one) for one in pictures], [True, False, True])
        labels = pictures[1]["labels"]
        self.assertEqual(len(labels), 3)
        self.assertGreaterEqual(labels[0]["probability"], labels[1]["probability"])
        for name in ("missing.png", "text.jpg"):
            self.assertIn(name, done.stderr)

    def test_a_list_of_paths_from_standard_input(self):
        paths = [self.picture(f"{i}.png", 10 + i, 20) for i in range(20)]
        done = self.trainer("predict", self.run_dir, "-", stdin=None, input="\n".join(map(str, paths)) + "\n")
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines], [str(path) for path in paths])

    def test_a_batch_says_what_each_picture_alone_says(self):
        paths = [self.picture(f"{i}.png", 10 + 7 * i, 20) for i in range(5)]
        together = json.loads(self.trainer("predict", self.run_dir, *paths, "-o", "json").stdout)["pictures"]
        alone = json.loads(self.trainer("predict", self.run_dir, paths[3], "-o", "json").stdout)["pictures"][0]
        self.assertEqual(together[3]["labels"][0]["name"], alone["labels"][0]["name"])
        self.assertAlmostEqual(together[3]["labels"][0]["probability"], alone["labels"][0]["probability"], places=5)


class ExportTest(Trained):
    def test_safetensors_hold_the_checkpoints_tensors_and_the_card(self):
        done = json.loads(self.trainer("export", self.run_dir, "--out", "a.safetensors", "--output", "json").stdout)
        exported = tensors(self.folder / "a.safetensors")
        self.assertEqual(exported, tensors(pathlib.Path(done["checkpoint"]) / "weights.safetensors"))
        card = json.loads((self.folder / "a.card.json").read_text())
        self.assertEqual(card["preprocessing"]["width"], 16)
        self.assertTrue(card["classes"])
        data = (self.folder / "a.safetensors").read_bytes()
        header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
        self.assertEqual(json.loads(header["__metadata__"]["card"]), card)

    def test_float16_is_half_the_size(self):
        self.trainer("export", self.run_dir, "--fp16", "--out", "half.safetensors")
        kinds = {dtype for dtype, _, _ in tensors(self.folder / "half.safetensors").values()}
        self.assertLessEqual(kinds, {"F16", "I64"})
        self.assertIn("F16", kinds)

    def test_a_file_that_is_there_is_not_replaced_without_force(self):
        for format_ in ("safetensors", "onnx"):
            out = self.write(f"model.{format_}", "mine")
            done = self.trainer("export", self.run_dir, "--format", format_, "--out", out, expect=2)
            self.assertIn("--force", done.stderr)
            self.assertEqual(out.read_text(), "mine")
            self.trainer("export", self.run_dir, "--format", format_, "--out", out, "--force")
            self.assertGreater(out.stat().st_size, 1000)
        self.assertFalse([path for path in self.folder.iterdir() if ".tmp-" in path.name])

    def test_onnx_has_its_own_logits_beside_it(self):
        self.trainer("export", self.run_dir, "--format", "onnx")
        (out,) = self.folder.glob("tiny-step-*.onnx")
        check = json.loads(out.with_suffix(".check.json").read_text())
        self.assertEqual(len(check["pictures"]), 4)
        self.assertTrue(all(len(one["logits"]) == len(check["pictures"][0]["logits"]) for one in check["pictures"]))

    def test_a_full_disk_leaves_nothing(self):
        def limit():  # As a full disk does, a limit on file size ends the writing in the middle.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

        for format_ in ("safetensors", "onnx"):
            done = self.trainer("export", self.run_dir, "--format", format_, "--out", f"full.{format_}", expect=None,
                                preexec_fn=limit)
            self.assertNotEqual(done.returncode, 0)
            self.assertFalse((self.folder / f"full.{format_}").exists())
            self.assertFalse([path for path in self.folder.iterdir() if ".tmp-" in path.name])


class DescribeTest(Trained):
    def test_a_run_file_and_a_checkpoint_have_the_same_layers(self):
        of_file = json.loads(self.trainer("describe", self.run_dir / "run.yaml", "-o", "json").stdout)
        of_checkpoint = json.loads(self.trainer("describe", self.run_dir, "-o", "json").stdout)
        self.assertGreater(of_file["totals"]["all"]["parameters"], 0)
        self.assertEqual(of_file, of_checkpoint)
        shown = run(CLI, "config", "show", "--model", self.run_dir / "run.yaml")
        self.assertIn("parameters", shown.stdout)

    def test_a_resnet_is_described_without_data(self):
        file = self.write("r.yaml", config(sections={
            "data": "{kind: image_folder, path: /nowhere, image_size: 224}",
            "model": "{name: resnet50, num_classes: 1000}"}))
        said = json.loads(self.trainer("describe", file, "-o", "json").stdout)
        self.assertEqual(said["totals"]["all"]["parameters"], 25_557_032)
        wrong = self.write("w.yaml", config(sections={"model": "{name: resnet51}"}))
        self.trainer("describe", wrong, expect=2)


class RegressionTest(Folder):
    def test_a_number_from_a_picture(self):
        rows = ["path,price"]
        (self.folder / "pictures").mkdir()
        for i in range(48):
            shade = 5 * i
            (self.folder / f"pictures/{i}.png").write_bytes(png(20, 16, lambda x, y: (shade, shade, shade)))
            rows.append(f"pictures/{i}.png,{1000 + 10 * i}")
        table = self.write("data.csv", "\n".join(rows) + "\n")
        file = self.write("run.yaml", config(name="price", steps=30, batch=8, sections={
            "data": f"{{kind: csv_regression, path: {table}, image_size: 16, split: [0.7, 0.3]}}"}))
        run_dir = self.folder / "price"
        self.train(2, file, run_dir)
        said = json.loads(run(TRAINER, "evaluate", run_dir, "--report", self.folder / "r", "-o", "json").stdout)
        self.assertEqual(said["targets"][0]["name"], "price")
        self.assertGreater(said["scores"]["mae"], 0)
        self.assertIn("predicted price", (self.folder / "r/report.html").read_text())
        done = run(TRAINER, "predict", run_dir, self.folder / "pictures/24.png", "-o", "json")
        (number,) = json.loads(done.stdout)["pictures"][0]["numbers"]
        self.assertEqual(number["name"], "price")
        self.assertTrue(900 < number["value"] < 1600, number)
        run(TRAINER, "export", run_dir, "--format", "onnx", "--out", self.folder / "price.onnx")


COLORS = {"blue": (20, 30, 220), "green": (30, 200, 40), "red": (220, 40, 30)}


class FolderOfPicturesTest(Folder):
    """Pictures of any size from files: what training, evaluation and prediction see is the same."""

    def pictures(self, folder, count):
        paths = []
        for name, color in COLORS.items():
            (folder / name).mkdir(parents=True)
            for i in range(count):
                path = folder / name / f"{i}.png"
                path.write_bytes(png(20 + 3 * i, 36 - 2 * i, lambda x, y, c=color, i=i: [
                    min(255, (channel + 31 * x * i + 17 * y) % 256) if (x + y + i) % 3 else channel for channel in c]))
                paths.append((name, path))
        return paths

    def predicted(self, run_dir, paths):
        done = run(TRAINER, "predict", run_dir, *[path for _, path in paths], "-o", "json")
        return [one["labels"][0]["name"] for one in json.loads(done.stdout)["pictures"]]

    def test_prediction_agrees_with_evaluation_on_every_picture(self):
        root = self.folder / "pictures"
        self.pictures(root / "train", 12)
        held_out = self.pictures(root / "test", 6)
        other = self.pictures(self.folder / "other", 4)
        file = self.write("run.yaml", config(name="colors", steps=12, batch=12, sections={
            "data": f"{{kind: image_folder, path: {root}, image_size: 16, shorter_side: 20}}"}))
        run_dir = self.folder / "colors"
        self.train(2, file, run_dir)
        for paths, arguments in ((held_out, []), (other, ["--data", self.folder / "other"])):
            said = json.loads(run(TRAINER, "evaluate", run_dir, "-o", "json", *arguments).stdout)
            self.assertEqual(said["samples"], len(paths))
            names = [one["name"] for one in said["classes"]]
            confusion = [[0] * len(names) for _ in names]
            for (truth, _), answer in zip(paths, self.predicted(run_dir, paths)):
                confusion[names.index(truth)][names.index(answer)] += 1
            self.assertEqual(said["confusion"], confusion)

    def test_several_labels(self):
        (self.folder / "p").mkdir()
        rows = ["path,bright,blue"]
        for i in range(40):
            bright, blue = i % 2, i // 2 % 2
            shade = 200 if bright else 60
            (self.folder / f"p/{i}.png").write_bytes(png(18, 16, lambda x, y: (shade, shade, 255 if blue else shade // 2)))
            rows.append(f"p/{i}.png,{bright},{blue}")
        table = self.write("labels.csv", "\n".join(rows) + "\n")
        file = self.write("run.yaml", config(name="labels", steps=30, batch=8, sections={
            "data": f"{{kind: csv_multilabel, path: {table}, image_size: 16, split: [0.7, 0.3]}}"}))
        run_dir = self.folder / "labels"
        self.train(2, file, run_dir)
        said = json.loads(run(TRAINER, "evaluate", run_dir, "--report", self.folder / "r", "-o", "json").stdout)
        self.assertEqual([one["name"] for one in said["classes"]], ["bright", "blue"])
        self.assertIn("label_accuracy", said["scores"])
        done = run(TRAINER, "predict", run_dir, self.folder / "p/3.png", "-o", "json")
        labels = json.loads(done.stdout)["pictures"][0]["labels"]
        self.assertEqual([one["name"] for one in labels], ["bright", "blue"])
        self.assertTrue(all(0 <= one["probability"] <= 1 for one in labels))
        run(TRAINER, "export", run_dir, "--format", "onnx", "--out", self.folder / "labels.onnx")


class ServedTest(Daemon):
    def setUp(self):
        super().setUp()
        self.start_daemon()
        self.run = self.submit(config(name="served", steps=20))
        self.cli("wait", self.run)
        self.picture = self.folder / "a.png"
        self.picture.write_bytes(png(40, 30))

    def served(self, *pictures, expect=0):
        done = self.cli("predict", "--served", "served", *map(str, pictures), "-o", "json", expect=expect)
        return json.loads(done.stdout) if expect == 0 else done

    def holder(self):
        """Process ids of `lockstep-trainer serve`."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if b"serve" in command and any(str(self.state).encode() in part for part in command):
                found.append(int(entry.name))
        return found

    def test_the_model_stays_in_memory_and_says_what_predict_says(self):
        first = self.served(self.picture)
        (holder,) = self.holder()
        second = self.served(self.picture, self.picture)
        self.assertEqual(self.holder(), [holder])
        self.assertEqual(first["pictures"][0], second["pictures"][1])
        plain = json.loads(self.cli("predict", "served", str(self.picture), "-o", "json").stdout)
        self.assertEqual(plain["checkpoint"], first["checkpoint"])
        for ours, theirs in zip(first["pictures"][0]["labels"], plain["pictures"][0]["labels"]):
            self.assertEqual(ours["name"], theirs["name"])
            self.assertAlmostEqual(ours["probability"], theirs["probability"], places=5)

    def test_a_picture_of_many_megabytes(self):
        self.picture.write_bytes(encode_png(2000, 2000, b"".join(b"\0" + os.urandom(6000) for _ in range(2000))))
        self.assertGreater(self.picture.stat().st_size, 10 << 20)
        self.assertEqual(len(self.served(self.picture)["pictures"][0]["labels"]), 5)
        self.picture.write_bytes(b"x" * (33 << 20))
        self.assertIn("a.png", self.served(self.picture, expect=1).stderr)

    def test_a_killed_model_costs_one_answer_and_nothing_else(self):
        self.served(self.picture)
        os.kill(self.holder()[0], 9)
        wait_for("it to be gone", lambda: not self.holder())
        done = self.cli("predict", "--served", "served", str(self.picture), expect=5)
        self.assertIn("signal 9", done.stderr)
        self.served(self.picture)
        self.cli("daemon", "status")

    def test_it_ends_with_the_daemon(self):
        self.served(self.picture)
        self.cli("daemon", "stop")
        wait_for("the process to end", lambda: not self.holder(), 20)

    def test_wrong_pictures_and_runs(self):
        text = self.write("text.jpg", "no picture")
        done = self.cli("predict", "--served", "served", str(text), str(self.picture), expect=1)
        self.assertIn("text.jpg", done.stderr)
        self.assertIn("a.png", done.stdout)
        self.cli("predict", "--served", "nobody", str(self.picture), expect=3)

    def test_compare_shows_runs_beside_each_other(self):
        other = self.submit(config(name="other", steps=10, sections={"optimizer": "{name: sgd, learning_rate: 0.05}"}))
        self.cli("wait", other)
        compared = json.loads(self.cli("compare", "served", "other", "-o", "json").stdout)
        self.assertIn("optimizer.learning_rate", compared["differing"])
        self.assertNotIn("data.image_size", compared["differing"])
        self.assertEqual([one["steps"] for one in compared["runs"]], [20, 10])
        self.assertTrue(all(one["cost"] > 0 for one in compared["runs"]))
        self.assertIn("optimizer.name", self.cli("compare", "served", str(self.state / "runs" / other)).stdout)


if __name__ == "__main__":
    unittest.main()
