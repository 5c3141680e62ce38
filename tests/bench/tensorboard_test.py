"""What TensorBoard itself makes of a run's event files: its EventAccumulators and its server, in both of their readers.

A run of two ranks is killed and resumed several times while all of them are open; in the end each shows every step
exactly once, as metrics.jsonl has it, with histogram, picture and text. Needs the packages of
peers/tensorboard-requirements.txt; SKIPPED (77) where pip cannot install them.
"""
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

SOURCE = pathlib.Path(os.environ.get("LOCKSTEP_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
sys.path[:0] = [str(SOURCE / "tests/bench"), str(SOURCE / "tests/system")]
sys.dont_write_bytecode = True

import event_files  # noqa: E402
import harness  # noqa: E402
import support  # noqa: E402
import torch_python  # noqa: E402

REQUIREMENTS = SOURCE / "tests/bench/peers/tensorboard-requirements.txt"
STEPS = 120
KILLS = 5
# An evaluation is handed to the kernel at once, with all before it: most kills leave points of steps that are not saved.
SECTIONS = {"checkpoint": "{every: 13st, keep_last: 3}",
            "training": f"{{duration: {STEPS}st, global_batch_size: 256, eval_every: 5st, log_every_steps: 1}}"}

# Reads again and again while the run goes on; at the end of its input once more, then tells what it has.
READER = """
import json, os, select, sys
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.util import tensor_util
folder = sys.argv[1]
old = event_accumulator.EventAccumulator(folder, {name: 0 for name in event_accumulator.DEFAULT_SIZE_GUIDANCE})
new = plugin_event_accumulator.EventAccumulator(folder, {plugin_event_accumulator.TENSORS: 0})
reloads = 0
ended = False
while not ended:
    ended = bool(select.select([sys.stdin], [], [], 0.02)[0])
    if os.path.isdir(folder):
        old.Reload()
        new.Reload()
        reloads += 1
tags = old.Tags()
pages = {tag: [e.step for e in new.Tensors(tag)] for tag in new.Tags()["tensors"]}
print(json.dumps({
    "reloads": reloads,
    "tags": {kind: tags[kind] for kind in ("scalars", "histograms", "images", "tensors")},
    "scalars": {tag: [[e.step, e.value] for e in old.Scalars(tag)] for tag in tags["scalars"]},
    "histograms": {tag: [[e.step, e.histogram_value.num, e.histogram_value.bucket] for e in old.Histograms(tag)]
                   for tag in tags["histograms"]},
    "images": {tag: [[e.step, e.width, e.height, e.encoded_image_string[:4].hex()] for e in old.Images(tag)]
               for tag in tags["images"]},
    "pages": pages,
    "plugins": {tag: new.SummaryMetadata(tag).plugin_data.plugin_name for tag in pages},
    "text": [bytes(tensor_util.make_ndarray(e.tensor_proto).item()).decode() for e in new.Tensors("run_yaml")],
}))
"""


class Server:
    """tensorboard as a user starts it."""

    def __init__(self, environment, folder, log, *arguments):
        self.log = log
        self.process = subprocess.Popen(
            [torch_python.PYTHON, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0",
             "--reload_interval", "1", "--samples_per_plugin", "images=1000", *arguments],
            env=environment, stdin=subprocess.DEVNULL, stdout=open(log, "w"), stderr=subprocess.STDOUT)
        self.address = support.wait_for("TensorBoard's address", self._address, 60)

    def _address(self):
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"TensorBoard \S+ at (http://\S+?)/ ", self.log.read_text())
        return found and found[1]

    def get(self, path, **query):
        with urllib.request.urlopen(f"{self.address}{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
            return answer.read()

    def data(self, plugin, tag):
        return json.loads(self.get(f"/data/plugin/{plugin}/{plugin}", run="tensorboard", tag=tag))


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def train_with_kills(run, config, run_dir):
    """How many kills left points of steps that no checkpoint had."""
    unsaved = 0
    for _ in range(KILLS):
        process = run.mpirun(2, config, run_dir, background=True)
        before = support.checkpoints(run_dir)[-1:]
        support.wait_for("a checkpoint",
                         lambda: process.poll() is not None or support.checkpoints(run_dir)[-1:] != before)
        time.sleep(random.uniform(0, 0.4))
        assert process.poll() is None, "the run ended before it was killed"
        support.kill_session(process.pid)
        process.wait()
        saved = int(support.checkpoints(run_dir)[-1].name[5:])
        written = event_files.Events(run_dir / "tensorboard", torn_end=True).steps("loss/train")
        unsaved += max(written, default=0) > saved
        time.sleep(0.2)  # Whoever has them open reads these points, which are none in the end.
    run.train(2, config, run_dir)
    return unsaved


def expected_scalars(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    expected = {}
    for tag, kind, key in (("loss/train", "step", "loss"), ("top1/train", "step", "top1"), ("learning_rate", "step", "lr"),
                           ("loss/val", "eval", "loss"), ("top1/val", "eval", "top1"),
                           ("loss/train_epoch", "epoch", "loss")):
        expected[tag] = [[row["step"], float32(row[key])] for row in rows if row["kind"] == kind]
        assert expected[tag], tag
    assert [step for step, _ in expected["loss/train"]] == list(range(1, STEPS + 1))
    return expected


def check_accumulators(found, expected, what):
    for tag, points in expected.items():
        assert found["scalars"][tag] == points, f"{what}: {tag}: {found['scalars'][tag]}"
    for tag, steps in found["pages"].items():
        assert steps == sorted(set(steps)), f"{what}: {tag}: {steps}"
        if tag in expected:
            assert steps == [step for step, _ in expected[tag]], f"{what}: {tag}"
    evaluations = [step for step, _ in expected["loss/val"]]
    pictures = found["images"]["confusion_matrix/val"]
    assert [picture[0] for picture in pictures] == evaluations, pictures
    assert all(picture[1] > 100 and picture[2] > 100 and picture[3] == "89504e47" for picture in pictures), pictures
    ((step, count, buckets),) = found["histograms"]["time/step_seconds"]
    assert step == 100 and 0 < count <= 100 and sum(buckets) == count, (step, count, buckets)
    assert found["plugins"]["loss/train"] == "scalars" and found["plugins"]["time/step_seconds"] == "histograms"
    assert found["plugins"]["confusion_matrix/val"] == "images" and found["plugins"]["run_yaml"] == "text"
    assert len(found["text"]) == 1 and "    name: tiny\n" in found["text"][0], found["text"]


def check_server(server, expected, what):
    """What the pages ask for. The server reads once a second, so it may need a moment to have all."""
    def complete():
        try:
            return [[step, value] for _, step, value in server.data("scalars", "loss/train")][-1:] == \
                expected["loss/train"][-1:]
        except (urllib.error.HTTPError, IndexError):
            return False

    support.wait_for(f"{what} to have read the last step", complete, 60)
    for tag, points in expected.items():
        shown = [[step, float32(value)] for _, step, value in server.data("scalars", tag)]
        assert shown == points, f"{what}: {tag}: {shown}"
    ((_, step, buckets),) = server.data("histograms", "time/step_seconds")
    assert step == 100 and all(left <= right for left, right, _ in buckets), buckets
    assert 0 < sum(count for _, _, count in buckets) <= 100, buckets
    pictures = server.data("images", "confusion_matrix/val")
    evaluations = [step for step, _ in expected["loss/val"]]
    assert [picture["step"] for picture in pictures] == evaluations, f"{what}: {pictures}"
    picture = server.get("/data/plugin/images/individualImage", **dict(urllib.parse.parse_qsl(pictures[-1]["query"])))
    assert picture.startswith(b"\x89PNG"), picture[:20]
    (text,) = server.data("text", "run_yaml")
    assert "<code>" in text["text"] and "name: tiny" in text["text"], text


def main():
    try:
        packages = torch_python.install_packages(REQUIREMENTS)
    except harness.CannotMeasure as reason:
        print(f"SKIPPED: {reason}")
        sys.exit(77)
    environment = dict(os.environ, PYTHONPATH=str(packages), PYTHONDONTWRITEBYTECODE="1", PYTHONWARNINGS="ignore")
    seed = time.time_ns()
    random.seed(seed)
    print(f"seed {seed}")
    run = support.Folder()
    run.setUp()
    processes = []
    try:
        run_dir = run.folder / "run"
        run_dir.mkdir()
        config = run.write("run.yaml", support.slow_config(steps=STEPS, sections=SECTIONS))
        reader = [torch_python.PYTHON, "-c", READER, str(run_dir / "tensorboard")]
        open_reader = subprocess.Popen(reader, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=open(run.folder / "reader.log", "w"), text=True)
        processes.append(open_reader)
        servers = {"the data server": Server(environment, run_dir, run.folder / "fast.log"),
                   "the Python reader": Server(environment, run_dir, run.folder / "python.log", "--load_fast", "false")}
        processes += [server.process for server in servers.values()]
        unsaved = train_with_kills(run, config, run_dir)
        assert unsaved > 0, "no kill left a point that had to go"
        expected = expected_scalars(run_dir)
        output, _ = open_reader.communicate("the run has ended\n", timeout=120)
        assert open_reader.returncode == 0, (run.folder / "reader.log").read_text()[-3000:]
        found = json.loads(output)
        assert found["reloads"] > 20, found["reloads"]
        check_accumulators(found, expected, "open while the run was killed")
        fresh = subprocess.run(reader, env=environment, input="now\n", capture_output=True, text=True, timeout=120)
        assert fresh.returncode == 0, fresh.stderr[-3000:]
        check_accumulators(json.loads(fresh.stdout), expected, "opened afterwards")
        for what, server in servers.items():
            check_server(server, expected, what)
        # The two are not the same reader: only one of them is a program of its own.
        children = [subprocess.run(["pgrep", "-c", "-P", str(server.process.pid), "server"], capture_output=True,
                                   text=True).stdout.strip() for server in servers.values()]
        assert children == ["1", "0"], children
        files = sorted(file.name for file in (run_dir / "tensorboard").iterdir())
        print(f"{len(files)} files, {KILLS} kills, {unsaved} of them with points that had to go, {found['reloads']} reloads: "
              f"{len(found['scalars'])} scalar tags, each step once in both accumulators and both servers")
    finally:
        for process in processes:
            process.kill()
            process.wait()
        run.doCleanups()


if __name__ == "__main__":
    main()
