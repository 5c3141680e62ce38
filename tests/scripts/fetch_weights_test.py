#!/usr/bin/python3
"""scripts/fetch-weights without a network: the table, and downloads from a folder that are checked."""

import hashlib
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/fetch-weights"


def run(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=60)


class FetchWeights(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.source = pathlib.Path(self.folder.name) / "source"
        self.target = pathlib.Path(self.folder.name) / "target"
        self.source.mkdir()

    def fetch(self, *arguments):
        return run("resnet18", "--download", "--to", self.target, "--base-url", self.source.as_uri(), *arguments)

    def test_the_table_names_every_model_of_the_zoo(self):
        table = run("--list")
        self.assertEqual(table.returncode, 0)
        names = [line.split()[0] for line in table.stdout.splitlines()]
        text = (ROOT / "config/model_table.cc").read_text()
        zoo = text[text.index('{"cnn"'):text.index('"Which model')]
        self.assertEqual(sorted(names), sorted(name for name in zoo.split('"')[1::2] if name != "cnn"))
        for line in table.stdout.splitlines():
            self.assertRegex(line, r"https://download\.pytorch\.org/models/[a-z0-9_]+-[0-9a-f]{8}\.pth$")

    def test_without_download_nothing_is_fetched(self):
        told = run("vgg16", "--to", self.target)
        self.assertEqual(told.returncode, 0)
        self.assertIn("vgg16-397923af.pth", told.stdout)
        self.assertFalse(self.target.exists())

    def test_what_fails_the_check_is_deleted(self):
        (self.source / "resnet18-f37072fd.pth").write_text("<html>not found</html>")
        done = self.fetch()
        self.assertEqual(done.returncode, 1)
        self.assertIn("sha256", done.stderr)
        self.assertEqual(list(self.target.iterdir()), [])

    def test_a_file_that_matches_is_kept_and_not_fetched_again(self):
        # A copy of the script whose table names a file that this test can make.
        content = b"weights"
        name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        script = pathlib.Path(self.folder.name) / "fetch-weights"
        script.write_text(SCRIPT.read_text().replace("resnet18-f37072fd.pth", name))
        (self.source / name).write_bytes(content)
        command = [sys.executable, str(script), "resnet18", "--download", "--to", str(self.target), "--base-url",
                   self.source.as_uri()]
        first = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertEqual((self.target / name).read_bytes(), content)
        (self.source / name).unlink()
        again = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("there and whole", again.stdout)
        (self.target / name).write_bytes(b"weighty")
        spoiled = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(spoiled.returncode, 1)
        self.assertIn("remove it", spoiled.stderr)

    def test_what_cannot_be_reached_and_unknown_names_are_told(self):
        done = self.fetch()  # The folder is empty.
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot be reached", done.stderr)
        self.assertEqual(run("resnet19").returncode, 2)
        self.assertEqual(run().returncode, 2)


if __name__ == "__main__":
    unittest.main()
