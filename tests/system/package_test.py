"""scripts/package: what it packs runs from another folder and loads nothing of this machine but glibc and LibTorch."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

import support
from support import config, result

PROFILE = support.BINARIES.parent.name
# What belongs to the kernel and the C library, and what the loader calls the kernel's own page.
SYSTEM = re.compile(r"(ld-linux-x86-64|lib(c|m|dl|pthread|rt|resolv|util|anl|nsl|nss_\w+))\.so\.\d+$")


class PackageTest(support.Folder):
    @classmethod
    def setUpClass(cls):
        cls.output = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-package-"))
        cls.addClassCleanup(shutil.rmtree, cls.output)
        command = [support.SOURCE / "scripts/package", f"--{PROFILE}", "--no-build", "--output", cls.output]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (cls.archive,) = cls.output.glob("*.tar.gz")
        # A folder with a space: nothing may depend on the path.
        with tarfile.open(cls.archive) as tar:
            tar.extractall(cls.output / "some where")
        (cls.root,) = (cls.output / "some where").iterdir()

    def start(self, *command, timeout=120, **environment):
        """Runs a program of the package as another machine would: without this one's variables."""
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LOCKSTEP_LIBTORCH": str(LIBTORCH), **environment}
        return subprocess.run([self.root / "bin" / command[0], *command[1:]], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout)

    def test_is_small_and_named_after_what_it_is(self):
        self.assertRegex(self.archive.name, rf"^lockstep-[\d.]+-{PROFILE}-linux-x86_64\.tar\.gz$")
        self.assertLess(self.archive.stat().st_size, 64 << 20)
        self.assertEqual([path.name for path in self.root.rglob("*") if re.match(r"lib(torch|c10|nccl)", path.name)], [])

    def test_every_program_starts(self):
        self.assertRegex(self.start("lockstep", "--version").stdout, r"^lockstep \d")
        self.assertIn("Usage:", self.start("lockstepd", "--help").stdout)
        self.assertIn(f"profile {PROFILE}", self.start("lockstep-trainer", "--version").stdout)
        self.assertIn("Open MPI", self.start("mpirun", "--version").stdout)
        self.assertIn("lockstep", self.start("lockstep-env", "lockstep", "version").stdout)

    def test_two_ranks_train_with_what_is_in_it_alone(self):
        file = self.write("run.yaml", config(steps=10))
        run, log = self.folder / "run", self.folder / "loader"
        done = self.start("mpirun", *support.mpirun_flags(), "-np", "2", str(self.root / "bin/lockstep-trainer"), str(file), "--run-dir",
                          str(run), "--no-coordinator", LD_DEBUG="files", LD_DEBUG_OUTPUT=str(log), CUDA_VISIBLE_DEVICES="")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual((result(run)["state"], result(run)["steps"]), ("COMPLETED", 10))
        strangers, own = set(), 0
        for report in self.folder.glob("loader.*"):
            text = report.read_text(errors="replace")
            if "initialize program: " + str(self.root) not in text:
                continue  # A shell on the way.
            for path in map(os.path.realpath, re.findall(r"calling init: (/.*)", text)):
                if path.startswith((os.path.realpath(self.root), os.path.realpath(LIBTORCH))):
                    own += 1
                elif not SYSTEM.search(path):
                    strangers.add(path)
        self.assertGreater(own, 100, "the loader's report was not understood")
        self.assertEqual(strangers, set())

    def test_the_licence_of_every_library_is_there(self):
        licences = {path.name for path in (self.root / "licences").iterdir()}
        for package in ("libgrpc29", "libprotobuf32", "libopenmpi3", "openmpi-bin", "libjpeg62-turbo", "libwebp7", "libyaml-cpp0.7", "libsqlitecpp-dev"):
            self.assertIn(package, licences)
        self.assertTrue(all(path.stat().st_size for path in (self.root / "licences").iterdir()))
        self.assertTrue((self.root / "LICENSE").exists())

    def test_remembers_a_libtorch_and_says_what_is_wrong_with_another(self):
        for folder, words in ((self.folder, "no lib/libtorch_cpu.so"), ("/nonexistent", "no lib/libtorch_cpu.so")):
            done = self.start("lockstep-env", "--libtorch", str(folder))
            self.assertEqual(done.returncode, 1)
            self.assertIn(words, done.stderr)
        done = self.start("lockstep-trainer", "--version", LOCKSTEP_LIBTORCH="")
        self.assertEqual(done.returncode, 1)
        self.assertIn("name it with LOCKSTEP_LIBTORCH=DIR or lockstep-env --libtorch DIR", done.stderr)
        self.assertEqual(self.start("lockstep-env", "--libtorch", str(LIBTORCH)).returncode, 0)
        self.addCleanup((self.root / "libtorch").unlink)
        self.assertEqual(self.start("lockstep-trainer", "--version", LOCKSTEP_LIBTORCH="").returncode, 0)

    def test_doctor_finds_the_packages_own_parts(self):
        said = self.start("lockstep", "doctor", "--socket", str(self.folder / "none")).stdout
        for name in ("lockstepd", "lockstep-trainer", "LibTorch", "mpirun"):
            self.assertRegex(said, rf"(?m)^{name} +ok ")
        self.assertIn(str(LIBTORCH), said)


def libtorch():
    """The folder of the LibTorch that the built trainer uses."""
    said = subprocess.run(["ldd", support.TRAINER], capture_output=True, text=True).stdout
    return pathlib.Path(re.search(r"libtorch_cpu\.so => (\S+)", said)[1]).parents[2]


if __name__ == "__main__":
    for tool in ("patchelf", "ompi_info", "dpkg-query"):
        if shutil.which(tool) is None:
            print(f"SKIPPED: there is no {tool} (scripts/setup --dev installs what Debian has of it)")
            sys.exit(77)
    if support.BINARIES.resolve() != (support.SOURCE / "build" / PROFILE / "bin").resolve():
        print(f"SKIPPED: scripts/package packs build/{PROFILE}, this build is elsewhere")
        sys.exit(77)
    LIBTORCH = libtorch()
    support.main()
