"""scripts/check-layers finds each kind of violation planted in a tree of its own, and nothing in a clean one."""

import os
import pathlib
import subprocess
import tempfile
import unittest

CHECK = pathlib.Path(os.environ["LOCKSTEP_SOURCE_DIR"]) / "scripts/check-layers"

CLEAN = {
    "config/load.h": "#include <string>\n",
    "metrics/families.cc": '#include "config/load.h"\n',
    "launch/supervisor/supervisor.cc": '#include "config/load.h"\n#include "metrics/families.h"\n#include "lockstep/v1/run.pb.h"\n',
    "trainer/step/arena.h": "#include <ATen/core/Tensor.h>\n",
    "trainer/step/arena.cc": '#include "trainer/step/arena.h"\n',
    "trainer/link/link.cc": '#include "lockstep/v1/rank.grpc.pb.h"\n#include "config/load.h"\n',
    "tests/launch/supervisor_test.cc": '#include "launch/supervisor/supervisor.h"\n',
    "launch/CMakeLists.txt": "# libtorch is not for us\nadd_library(lockstep_launch STATIC supervisor.cc)\n",
}


def complaints(extra):
    """The lines check-layers prints for the clean tree with these files added or replaced."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**CLEAN, **extra}.items():
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run([CHECK, folder], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == (1 if lines else 0), done
    return lines


class CheckLayers(unittest.TestCase):
    def one(self, extra, *parts):
        lines = complaints(extra)
        self.assertEqual(len(lines), 1, lines)
        for part in parts:
            self.assertIn(part, lines[0])

    def test_a_clean_tree_passes(self):
        self.assertEqual(complaints({}), [])

    def test_an_empty_tree_does_not_pass(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(subprocess.run([CHECK, folder], stdout=subprocess.DEVNULL).returncode, 1)

    def test_every_missing_arrow(self):
        for inside, include in [
            ("trainer", "launch/launcher/launcher.h"),
            ("launch", "trainer/train.h"),
            ("metrics", "launch/launcher/launcher.h"),
            ("metrics", "lockstep/v1/run.pb.h"),
            ("config", "metrics/snapshot.h"),
            ("config", "lockstep/v1/run.pb.h"),
            ("trainer", "metrics/snapshot.h"),
        ]:
            with self.subTest(inside=inside, include=include):
                self.one({f"{inside}/wrong.cc": f'#include <string>\n#include "{include}"\n'}, f"{inside}/wrong.cc:2:")

    def test_libtorch_outside_the_trainer(self):
        self.one({"launch/wrong.h": "#include <ATen/core/Tensor.h>\n"}, "launch/wrong.h:1:", "LibTorch")

    def test_libtorch_linked_outside_the_trainer(self):
        self.one({"launch/CMakeLists.txt": "target_link_libraries(x PRIVATE libtorch)\n"}, "launch/CMakeLists.txt:1:")

    def test_libtorch_and_protobuf_in_one_source(self):
        self.one(
            {"trainer/wrong.cc": '#include <torch/nn.h>\n#include "lockstep/v1/rank.pb.h"\n'}, "trainer/wrong.cc", "sees LibTorch"
        )

    def test_libtorch_and_protobuf_through_headers(self):
        self.one(
            {"trainer/wrong.cc": '#include "trainer/step/arena.h"\n#include <grpcpp/channel.h>\n'},
            "trainer/wrong.cc -> trainer/step/arena.h -> ATen/core/Tensor.h",
        )

    def test_relative_includes(self):
        self.one({"trainer/step/wrong.cc": '#include "../comm/world.h"\n'}, "trainer/step/wrong.cc:1:")

    def test_long_files(self):
        self.assertEqual(complaints({"config/long.cc": "int x;\n" * 450}), [])
        self.one({"config/long.cc": "int x;\n" * 451}, "config/long.cc", "451 lines")


if __name__ == "__main__":
    unittest.main()
