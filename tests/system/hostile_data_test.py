"""Data that is damaged, hostile or changes under a run: each fault is named, no rank crashes, none waits for another that is gone."""
import base64
import io
import os
import shutil
import struct
import subprocess
import tarfile
import time
import zlib

import pictures
import support
from support import TRAINER, result, rows, wait_for

BAD_DATA = 20  # config/exit_code.h
SOON = 60  # Seconds from a fault to the end of all ranks; in practice two, of which most are the start.

# 16x16 pictures of one colour, as libjpeg writes them.
RGB_JPEG = zlib.decompress(base64.b64decode(
    b"eNr7f+P/AwYBLzdPNwZGRgYGRiBk+H+bwZmBiREEQCQTCLAwg0hWFhZmFjZWNjYwZufkAGJ2NjYObg5OLhAAsni4uXhAHJAhEK1MrMzMrFzsbOxcJIP/BxgE"
    b"ORgEGASYGZUYmAQZmQUZ/x9hkAe6kxXsPKBjIYCRiZmFlY0d6AxuoIKtAkDnMzMDHc0KdDFQthYoz8AiyCqkaOjIJhyYyK5UKGLUOHEhh7LTxoOiQRc/qBgn"
    b"FTVxcomJS0hKqaqpa2hqmZiamVtYWjm7uLq5e3h6BYeEhoVHREYlp6SmpWdkZhWXlJaVV1RWNbe0trV3dHZNmjxl6rTpM2bOWrR4ydJly1esXLVp85at27bv"
    b"2Lnr0OEjR48dP3Hy1KXLV65eu37j5q2Hjx4/efrs+YuXrz5++vzl67fvP37+AvmLkYGZEQaw+ksQ6C8mUBywg/zFyFQOUiDIwqpoyCbkGMieWCisZNTIIeI0"
    b"ceHGg5zKxkEfRJOKLnKJqZg8VP0I8hrYZ8R5rIksn8E9hvDXLQYeZkZg5DELMtgzfKjSWLR/xvkvDf9vAgCOPsJ2"))
CMYK_JPEG = zlib.decompress(base64.b64decode(
    b"eNr7f+P/OwY+x5T8pFSGFAYQ+H+bwZmBiREEQCQTCLAwg0hWFhZmFjZWNjYwZufkAGJ2NjYObg5OLhAAsni4uXhAnP8HGEQ4GAQYBFicBRl8BRkiBRm8BRn+"
    b"H2GQZ2BgZAUbzsgABYxMzCysbOxAQ7iBCrYKAC1nZgZayQq0DyhbC5RnYBFkFVI0dGQTDkxkVyoUMWqcuJBD2WnjQdGgix9UjJOKmji5xMQlJKVU1dQ1NLVM"
    b"TM3MLSytnF1c3dw9PL2CQ0LDwiMio5JTUtPSMzKziktKy8orKquaW1rb2js6uyZNnjJ12vQZM2ctWrxk6bLlK1au2rR5y9Zt23fs3HXo8JGjx46fOHnq0uUr"
    b"V69dv3Hz1sNHj588ffb8xctXHz99/vL12/cfP3/9v8XAx+LM4MsQyeDNwGDP8Fdh/blff8rXH6rSWNQFQf9vAgCZinH1"))


def png_of_16_bits(width, height):
    rows_of = b"".join(b"\0" + bytes(range(6)) * width for _ in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows_of)) + chunk(b"IEND", b""))


def enormous_png():
    """A header of 65,000 x 65,000 pixels before a few bytes."""
    good = bytearray(pictures.png(16, 16, lambda x, y: (1, 2, 3)))
    good[16:24] = struct.pack(">II", 65000, 65000)
    good[29:33] = struct.pack(">I", zlib.crc32(bytes(good[12:29])))
    return bytes(good)


def enormous_jpeg():
    jpeg = bytearray(RGB_JPEG)
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at:at + 4] = struct.pack(">HH", 65000, 65000)
    return bytes(jpeg)


def folder_config(path, steps=6, **keys):
    extra = "".join(f", {key}: {value}" for key, value in keys.items())
    return support.config(steps=steps, batch=8, sections={
        "data": f"{{kind: image_folder, path: {path}, image_size: 16, cache: never{extra}}}",
        "checkpoint": "{every: 1000st, keep_best: 0}",
        "training": f"{{duration: {steps}st, global_batch_size: 8, eval_every: 1000st, log_every_steps: 1}}"})


class FolderTest(support.Folder):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        for split in ("train", "val"):
            for number, name in enumerate(("cat", "dog")):
                for i in range(12):
                    self.put(f"{split}/{name}/{i:02}.png", pictures.png(16, 16, lambda x, y: (x, 10 * i, 99 * number)))

    def put(self, name, content):
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def fails(self, text, *named):
        """Two ranks refuse to start, with the exit code of bad data, naming all of `named`."""
        begin = time.monotonic()
        done = self.mpirun(2, self.write("run.yaml", text), self.folder / f"run-{time.monotonic_ns()}", timeout=SOON)
        self.assertEqual(done.returncode, BAD_DATA, done.stdout[-4000:])
        for word in named:
            self.assertIn(word, done.stdout)
        self.assertLess(time.monotonic() - begin, SOON)
        return done.stdout

    def completes(self, text, steps=6):
        run_dir = self.folder / f"run-{time.monotonic_ns()}"
        out = self.train(2, self.write("run.yaml", text), run_dir)
        self.assertEqual(result(run_dir)["steps"], steps)
        return out

    def test_every_bad_file_is_named_at_once_and_can_be_left_out(self):
        jpeg = RGB_JPEG
        bad = {
            self.put("train/cat/truncated.jpg", jpeg[:-60]): "damaged or truncated",
            self.put("train/cat/zero.jpg", b""): "the file is empty",
            self.put("train/cat/zeros.jpg", bytes(4000)): "neither",
            self.put("train/cat/text.jpg", b"Dear diary, this is no picture."): "neither",
            self.put("train/dog/enormous.png", enormous_png()): "refused",
            self.put("train/dog/enormous.jpg", enormous_jpeg()): "refused",
            self.put("train/dog/truncated.png", pictures.png(16, 16, lambda x, y: (1, 2, 3))[:-20]): "damaged or truncated",
        }
        os.symlink("nowhere", self.data / "train/dog/dangling.jpg")
        os.symlink("loop.jpg", self.data / "train/dog/loop.jpg")
        os.mkfifo(self.data / "train/dog/pipe.jpg")
        bad[str(self.data / "train/dog/dangling.jpg")] = "cannot open"
        bad[str(self.data / "train/dog/loop.jpg")] = "cannot open"
        bad[str(self.data / "train/dog/pipe.jpg")] = "not a regular file"
        out = self.fails(folder_config(self.data), f"{len(bad)} of 34 samples cannot be used")
        for path, reason in bad.items():
            line = next(line for line in out.splitlines() if line.strip().startswith(path))
            self.assertIn(reason, line)
        out = self.completes(folder_config(self.data, on_bad_sample="skip"))
        self.assertIn(f"{len(bad)} bad samples left out", out)
        self.assertIn("left out, as data.on_bad_sample says:", out)
        for path in bad:
            self.assertIn(path, out)

    def test_odd_but_sound_pictures_are_trained_on(self):
        self.put("train/cat/inks.jpg", CMYK_JPEG)
        self.put("train/cat/camera.JPG", RGB_JPEG)
        self.put("train/dog/deep.png", png_of_16_bits(20, 30))
        self.put("train/dog/deep.jpeg", RGB_JPEG)  # The name of another but for the ending.
        out = self.completes(folder_config(self.data))
        self.assertIn("28 pictures", out)
        self.assertIn("but for the ending", out)

    def test_folders_that_cannot_be_used_are_named(self):
        def with_fault(make, undo, *named):
            make()
            self.fails(folder_config(self.data), *named)
            undo()
        empty = self.data / "train/emu"
        with_fault(empty.mkdir, empty.rmdir, "'emu'")
        (self.data / "val/emu").mkdir()
        with_fault(empty.mkdir, empty.rmdir, str(empty), "no pictures")
        (self.data / "val/emu").rmdir()
        with_fault(lambda: empty.symlink_to("nowhere"), empty.unlink, str(empty), "nowhere")
        with_fault(lambda: os.rename(self.data / "train/dog", self.folder / "dog"),
                   lambda: os.rename(self.folder / "dog", self.data / "train/dog"), str(self.data / "train"), "'dog'")
        with_fault(lambda: os.rename(self.data / "val", self.folder / "val"),
                   lambda: os.rename(self.folder / "val", self.data / "val"), str(self.data), "val/")
        train = self.data / "train"
        os.rename(train, self.folder / "away")
        with_fault(lambda: train.write_text("a file"), train.unlink, str(self.data), "train/")

    def test_a_folder_that_may_not_be_read_is_named(self):
        closed = self.data / "train/dog"
        closed.chmod(0)
        prefix = []
        if os.geteuid() == 0:  # Root may read everything, unless it gives that right away.
            prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
            if shutil.which("setpriv") is None or subprocess.run([*prefix, "ls", str(closed)],
                                                                 capture_output=True).returncode == 0:
                self.skipTest("root cannot give away its right to read everything here")
        command = [*prefix, "mpirun", *support.mpirun_flags(), "-np", "2", TRAINER,
                   str(self.write("run.yaml", folder_config(self.data))), "--run-dir", str(self.folder / "run"),
                   "--no-coordinator"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                              timeout=SOON)
        closed.chmod(0o755)
        self.assertEqual(done.returncode, BAD_DATA, done.stdout[-3000:])
        self.assertIn(f"{closed}: cannot list the folder: Permission denied", done.stdout)

    def remove_in_mid_epoch(self, **keys):
        """Starts a run on pictures that it reads anew each time, and takes some away while it trains."""
        steps = 4000
        run_dir = self.folder / "run"
        process = self.mpirun(2, self.write("run.yaml", folder_config(self.data, steps=steps, **keys)), run_dir,
                              background=True)
        wait_for("some steps", lambda: (run_dir / "metrics.jsonl").exists() and
                 any(row.get("step", 0) >= 20 for row in rows(run_dir)))
        self.assertIsNone(process.poll(), "the run was over before the pictures could go away")
        gone = self.data / "train/cat/03.png"
        gone.unlink()
        (self.data / "train/dog/05.png").write_bytes(b"no more a picture")
        return process, run_dir, gone

    def test_a_picture_that_goes_away_ends_all_ranks_and_is_named(self):
        process, _, gone = self.remove_in_mid_epoch()
        self.assertEqual(process.wait(timeout=SOON), BAD_DATA)
        process.log.seek(0)
        out = process.log.read()
        self.assertTrue(str(gone) in out or "train/dog/05.png" in out, out[-3000:])
        self.assertIn("changed or removed since", out)

    def test_with_skip_a_picture_that_goes_away_is_replaced(self):
        process, run_dir, _ = self.remove_in_mid_epoch(on_bad_sample="skip")
        self.assertEqual(process.wait(timeout=300), 0)
        self.assertEqual(result(run_dir)["steps"], 4000)
        process.log.seek(0)
        self.assertRegex(process.log.read(), r"read another sample [1-9]\d* times")


class LabelTest(support.Folder):
    def refused(self, data, *named, sections=None):
        text = support.config(steps=4, batch=8, sections={"data": data, **(sections or {})})
        done = self.mpirun(2, self.write("run.yaml", text), self.folder / f"run-{time.monotonic_ns()}", timeout=SOON)
        self.assertEqual(done.returncode, BAD_DATA, done.stdout[-4000:])
        for word in named:
            self.assertIn(word, done.stdout)

    def archive(self, name, samples):
        path = self.folder / "shards" / name
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for key, label in samples:
                for ending, data in (("png", pictures.png(16, 16, lambda x, y: (9, 9, 9))), ("cls", label.encode())):
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        return path

    def test_labels_of_archives(self):
        self.archive("train-0.tar", [(f"a{i}", str(i % 2)) for i in range(20)] + [("odd", "12")])
        self.archive("val-0.tar", [(f"v{i}", str(i % 2)) for i in range(8)])
        (self.folder / "shards/classes.txt").write_text("cat\ndog\n")
        data = f"{{kind: tar_shards, path: {self.folder}/shards}}"
        self.refused(data, "train-0.tar:odd.cls: class 12 is out of range; expected 0 to 1", "classes.txt")
        file = self.write("run.yaml", support.config(steps=4, batch=8, sections={
            "data": data.replace("}", ", on_bad_sample: skip}")}))
        out = self.train(2, file, self.folder / "run")
        self.assertIn("20 pictures, 2 classes of 10, 16x16; 1 bad samples left out", out)
        self.assertEqual(result(self.folder / "run")["steps"], 4)

    def test_a_truncated_archive_and_a_repeated_key(self):
        path = self.archive("train-0.tar", [(f"a{i}", str(i % 2)) for i in range(20)])
        self.archive("val-0.tar", [("v", "0"), ("w", "1"), ("v", "1")])
        data = f"{{kind: tar_shards, path: {self.folder}/shards}}"
        self.refused(data, "val-0.tar:v: the key comes twice")
        os.truncate(path, 5000)
        self.refused(data, f"{path}: at byte ", "cut off")

    def test_numbers_of_tables(self):
        pictures_folder = self.folder / "pictures"
        pictures_folder.mkdir()
        for i in range(20):
            (pictures_folder / f"{i}.png").write_bytes(pictures.png(16, 16, lambda x, y: (i, i, i)))
        table = self.folder / "t.csv"
        lines = [f"pictures/{i}.png,{i % 2}" for i in range(20)]
        table.write_text("\n".join(["path,tagged", *lines, "pictures/0.png,3", "pictures/1.png,nan", "pictures/2.png,"]))
        data = f"{{kind: csv_multilabel, path: {table}, split: [80, 20]}}"
        self.refused(data, f"{table}:22: tagged '3' is neither 0 nor 1", f"{table}:23: tagged 'nan'",
                     f"{table}:24: tagged is empty")
        table.write_text("\n".join(["path,tagged", *lines, "pictures/absent.png,1"]))
        self.refused(data, "pictures/absent.png: cannot open")


if __name__ == "__main__":
    support.main()
