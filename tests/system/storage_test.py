"""Damaged checkpoints are refused by name; a full disk holds the run and loses nothing."""
import os
import subprocess

import support
from support import bits, checkpoints, config, rows, wait_for


class DamageTest(support.Folder):
    def setUp(self):
        super().setUp()
        self.file = self.write("run.yaml", config(steps=40))
        self.train(2, self.file, self.folder / "calm")
        self.train(2, self.file, self.folder / "run", "--set", "training.duration=20st")

    def continue_after(self, damage):
        newest = checkpoints(self.folder / "run")[-1]
        named = damage(newest)
        out = self.train(2, self.file, self.folder / "run")
        self.assertIn("refused a checkpoint", out)
        self.assertIn(named, out)
        self.assertIn("step-000000010", out, "the one before is used")
        self.assertEqual(bits(self.folder / "run"), bits(self.folder / "calm"))
        self.assertEqual(rows(self.folder / "run"), rows(self.folder / "calm"))

    def test_one_flipped_byte(self):
        def flip(checkpoint):
            file = checkpoint / "weights.safetensors"
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
            return "weights.safetensors"
        self.continue_after(flip)

    def test_a_truncated_file(self):
        def cut(checkpoint):
            file = checkpoint / "optimizer.safetensors"
            os.truncate(file, file.stat().st_size - 100)
            return "optimizer.safetensors"
        self.continue_after(cut)

    def test_no_good_checkpoint_at_all_is_an_error_not_a_fresh_start(self):
        for checkpoint in checkpoints(self.folder / "run"):
            (checkpoint / "manifest.json").write_text("{}")
        out = self.train(2, self.file, self.folder / "run", expect=22)
        self.assertIn("manifest.json", out)


class FullDiskTest(support.Folder):
    def setUp(self):
        super().setUp()
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(self.disk)], capture_output=True,
                                 text=True)
        if mounted.returncode != 0:
            self.skipTest(f"cannot mount a small tmpfs here: {mounted.stderr.strip()}")
        self.addCleanup(lambda: subprocess.run(["umount", "-l", str(self.disk)], check=False))

    def test_a_plain_run_holds_until_there_is_room_and_loses_nothing(self):
        file = self.write("run.yaml", config(steps=30))
        self.train(2, file, self.folder / "calm")
        filler = self.disk / "filler"
        filler.write_bytes(b"\0" * (2 * 1024 * 1024 - 96 * 1024))  # Room for the small files, not for a checkpoint.
        process = self.mpirun(2, file, self.disk / "run", background=True)

        def held():
            process.log.seek(0)
            return "held after step" in process.log.read()
        wait_for("the run to hold", held)
        process.log.seek(0)
        self.assertIn("disk full", process.log.read())
        self.assertIsNone(process.poll())
        filler.unlink()
        self.assertEqual(process.wait(60), 0)
        self.assertEqual(bits(self.disk / "run"), bits(self.folder / "calm"))
        self.assertEqual(rows(self.disk / "run"), rows(self.folder / "calm"))


if __name__ == "__main__":
    support.main()
