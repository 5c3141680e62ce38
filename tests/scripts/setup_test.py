"""scripts/setup: what it refuses and with which words, and that it is quick where all is there."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

SETUP = pathlib.Path(os.environ["LOCKSTEP_SOURCE_DIR"]) / "scripts/setup"
NEW_ABI = b"\0_ZN3c106detail14torchCheckFailEPKcS2_jRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE\0"
OLD_ABI = b"\0_ZN3c106detail14torchCheckFailEPKcS2_jRKSs\0"


class Setup(unittest.TestCase):
    """Runs a copy of the script in a checkout of its own, with a cache folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.script = self.folder / "checkout/scripts/setup"
        self.script.parent.mkdir(parents=True)
        shutil.copy(SETUP, self.script)
        # Programs that pretend: a dpkg-query that knows every package, and an apt-get that tells what was asked.
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.program("dpkg-query", 'shift 3; for package in "$@"; do echo "ii  $package"; done')
        self.program("apt-get", f'echo "$@" >> {self.folder}/apt.log')

    def program(self, name, body):
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def libtorch(self, name, version=(2, 11), symbols=NEW_ABI, header="headeronly"):
        torch = self.folder / name / "torch"
        (torch / "lib").mkdir(parents=True)
        (torch / "lib/libtorch_cpu.so").write_bytes(b"")
        (torch / "lib/libc10.so").write_bytes(symbols)
        path = torch / "include/torch" / header / "version.h"
        path.parent.mkdir(parents=True)
        path.write_text(f"#define TORCH_VERSION_MAJOR {version[0]}\n#define TORCH_VERSION_MINOR {version[1]}\n")
        return torch.parent

    def run_setup(self, *arguments, path=None):
        environment = {
            "PATH": path or f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LOCKSTEP_CACHE": str(self.folder / "cache"),
        }
        return subprocess.run(
            [self.script, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
        )

    def refuses(self, arguments, *words, code=1):
        done = self.run_setup(*arguments)
        self.assertEqual(done.returncode, code, done)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertFalse((self.folder / "apt.log").exists(), "refused too late")
        self.assertFalse((self.folder / "checkout/build/libtorch-dir").exists())

    def test_help_and_unknown_arguments(self):
        self.assertIn("--libtorch DIR", self.run_setup("--help").stdout)
        self.refuses(["--bogus"], "unknown argument '--bogus'", "usage:", code=2)
        self.refuses(["--libtorch"], "--libtorch needs a folder")

    def test_refuses_a_folder_without_libtorch(self):
        self.refuses(["--libtorch", str(self.folder)], "does not fit", "no lib/libtorch_cpu.so")
        self.refuses(["--libtorch", "/nonexistent"], "no such folder")

    def test_refuses_another_version(self):
        self.refuses(["--libtorch", str(self.libtorch("a", (2, 10)))], "version 2.10", "needs 2.11")
        self.refuses(["--libtorch", str(self.libtorch("b", (1, 13), header="csrc/api/include/torch"))], "version 1.13")

    def test_refuses_the_old_abi(self):
        self.refuses(["--libtorch", str(self.libtorch("old", symbols=OLD_ABI))], "old C++ ABI", "_GLIBCXX_USE_CXX11_ABI=0")

    def test_takes_and_remembers_one_that_fits(self):
        own = self.libtorch("own")
        for folder in (own, own / "torch"):  # Where pip put it, and an unpacked libtorch/.
            done = self.run_setup("--libtorch", str(folder))
            self.assertEqual(done.returncode, 0, done)
            remembered = self.folder / "checkout/build/libtorch-dir"
            self.assertEqual(remembered.read_text().strip(), str(folder.resolve()))
        shutil.rmtree(own)
        done = self.run_setup()
        self.assertEqual(done.returncode, 1)
        self.assertIn("no such folder", done.stderr)

    def test_installs_only_what_is_missing(self):
        (self.folder / "cache").mkdir()
        self.libtorch("cache/libtorch-2.11.0")
        self.program(
            "dpkg-query",
            'shift 3; for package in "$@"; do case $package in strace|ccache) ;; *) echo "ii  $package" ;; esac; done',
        )
        self.program("id", "echo 0")
        done = self.run_setup()
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("installing 1 packages: ccache", done.stdout)
        self.assertRegex((self.folder / "apt.log").read_text(), r"install .* ccache\n$")
        self.assertIn("ccache strace", self.run_setup("--dev").stdout)

    def test_says_what_it_needs_root_for(self):
        self.program("dpkg-query", "true")
        self.program("id", "echo 1000")
        for name in ("awk", "bash", "cat", "df", "dirname", "env", "grep", "mktemp", "uname"):
            (self.bin / name).symlink_to(shutil.which(name, path="/usr/bin:/bin"))
        done = self.run_setup(path=str(self.bin))  # No sudo in there.
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("needs root, and there is no sudo", done.stderr)
        self.assertIn("apt-get", done.stderr)

    def test_does_nothing_in_under_a_second_when_all_is_there(self):
        (self.folder / "cache").mkdir()
        self.libtorch("cache/libtorch-2.11.0")
        times = []
        for _ in range(3):
            start = time.monotonic()
            done = self.run_setup("--dev")
            times.append(time.monotonic() - start)
            self.assertEqual(done.returncode, 0, done)
            self.assertEqual(done.stdout, "setup: all there\n")
        self.assertLess(min(times), 1.0)
        self.assertFalse((self.folder / "apt.log").exists())


if __name__ == "__main__":
    unittest.main()
