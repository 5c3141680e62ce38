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
        shutil.copy(SETUP.with_name("profile"), self.script.parent)
        self.driver = self.folder / "driver"  # There is none until a test writes one.
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

    def cuda(self, libtorch, nccl=True):
        """Adds what makes a LibTorch one for GPUs."""
        (libtorch / "torch/lib/libtorch_cuda.so").write_bytes(b"")
        include = libtorch / "nvidia/cu13/include"
        (include / "nv").mkdir(parents=True)
        (include / "nv/target").write_text("")
        (include / "cuda_runtime_api.h").write_text("")
        return self.nccl(libtorch / "nvidia/nccl").parent.parent if nccl else libtorch

    def nccl(self, folder, header=(2, 28), library=(2, 28)):
        (folder / "include").mkdir(parents=True)
        (folder / "lib").mkdir()
        (folder / "include/nccl.h").write_text(f"#define NCCL_MAJOR {header[0]}\n#define NCCL_MINOR {header[1]}\n")
        (folder / "lib/libnccl.so.2").write_bytes(b"\0NCCL version %d.%d.9+cuda13.0\0" % library)
        return folder

    def remembered(self, name):
        path = self.folder / "checkout/build" / name
        return path.read_text().strip() if path.exists() else None

    def run_setup(self, *arguments, path=None):
        environment = {
            "PATH": path or f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LOCKSTEP_CACHE": str(self.folder / "cache"),
            "LOCKSTEP_NVIDIA_DRIVER": str(self.driver),
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
        for name in ("libtorch-dir", "nccl-dir", "profile"):
            self.assertIsNone(self.remembered(name))

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

    def test_refuses_a_libtorch_without_cuda(self):
        own = self.libtorch("own")
        self.refuses(["--cuda", "--libtorch", str(own)], "CPU build", "no lib/libtorch_cuda.so")
        self.cuda(own, nccl=False)
        self.refuses(["--cuda", "--libtorch", str(own)], "no NCCL beside it", "--nccl DIR")
        (own / "nvidia/cu13/include/cuda_runtime_api.h").unlink()
        if not os.path.exists("/usr/local/cuda/include/cuda_runtime_api.h"):
            self.refuses(["--cuda", "--libtorch", str(own)], "CUDA runtime's headers")
        self.assertEqual(self.run_setup("--libtorch", str(own)).returncode, 0)  # The CPU needs none of that.

    def test_refuses_an_old_or_incomplete_nccl(self):
        old = self.nccl(self.folder / "old", header=(2, 18))
        self.refuses(["--cuda", "--nccl", str(old)], "nccl.h is version 2.18", "2.19 or newer")
        stale = self.nccl(self.folder / "stale", library=(2, 9))
        self.refuses(["--cuda", "--nccl", str(stale)], "libnccl.so.2 is version 2.9", "2.19 or newer")
        (stale / "lib/libnccl.so.2").write_bytes(b"nothing")
        self.refuses(["--cuda", "--nccl", str(stale)], "does not tell its version")
        (stale / "include/nccl.h").unlink()
        self.refuses(["--cuda", "--nccl", str(stale)], "no include/nccl.h")
        self.refuses(["--cuda", "--nccl", str(self.folder)], "no lib/libnccl.so.2")
        self.refuses(["--cpu", "--nccl", str(old)], "for profile cuda")

    def test_takes_and_remembers_cuda_parts_of_ones_own(self):
        own = self.cuda(self.libtorch("own"), nccl=False)
        nccl = self.nccl(self.folder / "nccl", header=(2, 19), library=(2, 30))
        done = self.run_setup("--cuda", "--libtorch", str(own), "--nccl", str(nccl))
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual([self.remembered(name) for name in ("libtorch-dir", "nccl-dir", "profile")], [str(own), str(nccl), "cuda"])
        (nccl / "lib/libnccl.so.2").unlink()
        self.assertIn("build/nccl-dir names", self.run_setup().stderr)

    def test_the_driver_decides_unless_told(self):
        target = self.libtorch("cache/libtorch-2.11.0")
        self.driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06\n")
        done = self.run_setup("--cpu")
        self.assertEqual((done.returncode, done.stdout), (0, "setup: all there\n"))
        self.assertEqual(self.run_setup().stdout, "setup: all there\n", "the choice is remembered")
        self.cuda(target)
        (self.folder / "checkout/build/profile").unlink()
        done = self.run_setup()
        self.assertIn("profile cuda (there is an NVIDIA driver; --cpu declines)", done.stdout)
        self.driver.unlink()
        self.assertEqual(self.run_setup().stdout, "setup: all there\n")
        self.assertEqual(self.run_setup("--cuda").returncode, 0)
        self.assertIn("profile cuda (chosen before; remembered in build/profile)", self.run_setup().stdout)

    def test_completes_a_libtorch_with_the_cuda_parts_and_goes_on_after_a_broken_download(self):
        target = self.libtorch("cache/libtorch-2.11.0")
        (self.script.parent / "libtorch-cuda-requirements.txt").write_text("# Two.\nnvidia-a==1 \\\n    --hash=sha256:0\nnvidia-nccl-cu13==2\n")
        log, broken = self.folder / "pip.log", self.folder / "broken"
        broken.write_text("")
        # A pip that downloads by name, fails for NCCL while told to, and unpacks a wheel of each kind.
        self.program("pip", f"""
            echo "$*" >> {log}
            all="$*"
            case $all in
              *download*nccl*) [ ! -e {broken} ] || exit 1 ;;
              *install*) stage=${{all##*--target }}; stage=${{stage%% *}}
                mkdir -p $stage/nvidia/cu13/lib $stage/nvidia/nccl/lib $stage/nvidia/cu13/include/nv
                echo header > $stage/nvidia/cu13/include/nv/target
                echo new > $stage/nvidia/cu13/lib/libcublas.so.13; echo nccl > $stage/nvidia/nccl/lib/libnccl.so.2 ;;
            esac""")
        self.script.write_text(self.script.read_text().replace("python=/usr/bin/python3", f"python={self.bin}/pip"))
        done = self.run_setup("--cuda")
        self.assertEqual(done.returncode, 1)
        self.assertIn("Run scripts/setup again", done.stderr)
        self.assertFalse((target / "nvidia").exists(), "half of it shows")
        self.assertTrue((self.folder / "cache/wheels").is_dir(), "what was downloaded is kept")
        broken.unlink()
        self.assertEqual(self.run_setup().returncode, 0)
        self.assertEqual((target / "nvidia/nccl/lib/libnccl.so.2").read_text(), "nccl\n")
        self.assertEqual((target / "nvidia/cu13/lib/libcublas.so.13").read_text(), "new\n")
        self.assertTrue((target / "torch/lib/libtorch_cpu.so").exists(), "what was there stays")
        self.assertEqual(sorted(path.name for path in (self.folder / "cache").iterdir()), ["libtorch-2.11.0", "setup.lock"])
        calls = log.read_text()
        self.run_setup()
        self.assertEqual(log.read_text(), calls, "nothing is fetched where all is there")

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
