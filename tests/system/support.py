"""What the system tests share: starting the real programs, reading what they left, comparing it bit by bit.

Standard library only. Every test works in a temporary folder of its own with its own socket; nothing sleeps for a fixed time where it can
wait for something to happen.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

BINARIES = pathlib.Path(os.environ.get("LOCKSTEP_BINARY_DIR", "build/cpu")) / "bin"
SOURCE = pathlib.Path(os.environ.get("LOCKSTEP_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
TRAINER = str((BINARIES / "lockstep-trainer").resolve())
DAEMON = str((BINARIES / "lockstepd").resolve())
CLI = str((BINARIES / "lockstep").resolve())


def config(name="tiny", ranks=2, steps=20, batch=32, batch_norm=True, extra="", sections=None):
    """YAML of a run small enough that a step takes milliseconds."""
    parts = {
        "resources": f"{{ranks: {ranks}, threads_per_rank: 1}}",
        "data": "{kind: shapes, image_size: 16, train_samples: 320, eval_samples: 64}",
        "model": "{name: cnn, cnn: {blocks: [{filters: 8, pool: max, batch_norm: %s, dropout: %s}, {filters: 16, pool: max, "
                 "batch_norm: %s}], dense: [32]}}" % (str(batch_norm).lower(), "0.1" if batch_norm else "0.0",
                                                      str(batch_norm).lower()),
        "training": f"{{duration: {steps}st, global_batch_size: {batch}, eval_every: 10st, log_every_steps: 1}}",
        "optimizer": "{name: adamw, learning_rate: 0.002, weight_decay: 0.01}",
        "schedule": "{name: constant}",
        "checkpoint": "{every: 10st, keep_last: 3}",
    }
    parts.update(sections or {})
    lines = [f"name: {name}", "seed: 7"] + [f"{key}: {value}" for key, value in parts.items() if value]
    return "\n".join(lines) + "\n" + extra


def slow_config(sections=None, **keywords):
    """The same with steps of some tens of milliseconds: long enough for something to happen to the run in between."""
    larger = {"data": "{kind: shapes, image_size: 32, train_samples: 2560, eval_samples: 64}"}
    larger.update(sections or {})
    return config(batch=256, sections=larger, **keywords)


class Folder(unittest.TestCase):
    """A test with a temporary folder; processes it started are gone when it ends."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-", dir="/tmp"))
        self.processes = []
        self.addCleanup(self._clean)

    def _clean(self):
        for process in self.processes:
            if process.poll() is None:
                kill_session(process.pid)
                process.wait()
            if hasattr(process, "log"):
                process.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    # -- plain mpirun ------------------------------------------------------------------------------------------

    def mpirun(self, ranks, config_file, run_dir, *arguments, background=False, env=None, timeout=120):
        command = ["mpirun", *mpirun_flags(), "-np", str(ranks), TRAINER, str(config_file), "--run-dir", str(run_dir),
                   *arguments]
        if "--coordinator" not in arguments:
            command.append("--no-coordinator")
        environment = dict(os.environ, **(env or {}))
        if background:
            log = open(self.folder / f"mpirun-{len(self.processes)}.log", "w+")
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                       start_new_session=True, env=environment)
            process.log = log
            self.processes.append(process)
            return process
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              text=True, timeout=timeout, env=environment)

    def train(self, ranks, config_file, run_dir, *arguments, expect=0, **keywords):
        done = self.mpirun(ranks, config_file, run_dir, *arguments, **keywords)
        self.assertEqual(done.returncode, expect, done.stdout[-4000:])
        return done.stdout


def mpirun_flags():
    flags = ["--oversubscribe", "--bind-to", "none"]
    return ["--allow-run-as-root", *flags] if os.geteuid() == 0 else flags


def wait_for(what, condition, timeout=60, interval=0.02):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(interval)
    raise AssertionError(f"waited {timeout} s for {what}")


def session_members(session):
    """Process ids whose session is `session`."""
    members = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            members.append(int(entry.name))
    return members


def kill_session(session):
    for pid in session_members(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def trainers_of(run_dir):
    """{rank: pid} of the live rank processes that train in `run_dir`, read from their environment."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state == "Z" or not command[0].endswith(b"lockstep-trainer") or str(run_dir).encode() not in command:
            continue
        for variable in environment:
            if variable.startswith(b"OMPI_COMM_WORLD_RANK="):
                found[int(variable.split(b"=")[1])] = int(entry.name)
    return found


def mpirun_of(run_dir):
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if command[0].endswith(b"mpirun") and any(str(run_dir).encode() in part for part in command):
            return int(entry.name)
    return None


def rows(run_dir, without=("seconds",)):
    """metrics.jsonl as dicts, less what may differ between two runs."""
    text = (pathlib.Path(run_dir) / "metrics.jsonl").read_text()
    parsed = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in row.items() if key not in without} for row in parsed]


def steps_done(run_dir):
    try:
        return max((row["step"] for row in rows(run_dir)), default=0)
    except (FileNotFoundError, json.JSONDecodeError):
        return 0


def result(run_dir):
    return json.loads((pathlib.Path(run_dir) / "result.json").read_text())


def checkpoints(run_dir):
    folder = pathlib.Path(run_dir) / "checkpoints"
    if not folder.exists():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d+", path.name))


def tensors(file):
    """{name: (dtype, shape, bytes)} of a safetensors file."""
    data = pathlib.Path(file).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    body = data[8 + length:]
    return {name: (t["dtype"], tuple(t["shape"]), body[t["data_offsets"][0]:t["data_offsets"][1]])
            for name, t in header.items() if name != "__metadata__"}


def floats(tensor):
    dtype, _, data = tensor
    assert dtype == "F32", dtype
    return struct.unpack(f"<{len(data) // 4}f", data)


def bits(run_dir):
    """Everything of the newest checkpoint that must be the same when two runs are the same."""
    newest = checkpoints(run_dir)[-1]
    return newest.name, tensors(newest / "weights.safetensors"), tensors(newest / "optimizer.safetensors")


class Daemon(Folder):
    """A test with a coordinator of its own."""

    def setUp(self):
        super().setUp()
        self.state = self.folder / "state"
        self.socket = self.folder / "d.sock"
        self.daemon = None
        self.addCleanup(self.stop_daemon)

    def start_daemon(self, *arguments):
        command = [DAEMON, "--state-dir", str(self.state), "--socket", str(self.socket), "--set",
                   "metrics_address=127.0.0.1:0", "--set", "oversubscribe=true", "--set", "slots=4", "--set",
                   "price.per_rank_hour=0.05", *arguments]
        if os.geteuid() == 0:
            command.append("--allow-root-mpirun")
        with open(self.folder / "daemon.log", "a") as log:
            self.daemon = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                           start_new_session=True)
        self.processes.append(self.daemon)
        wait_for("the daemon to serve", lambda: self.cli("daemon", "status", expect=None).returncode == 0, 20)

    def stop_daemon(self):
        for run_dir in (self.state / "runs").glob("*"):
            for pid in list(trainers_of(run_dir).values()) + [mpirun_of(run_dir)]:
                if pid:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()

    def cli(self, *arguments, expect=0, timeout=120, **keywords):
        done = subprocess.run([CLI, "--socket", str(self.socket), *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=timeout, stdin=subprocess.DEVNULL, **keywords)
        if expect is not None:
            self.assertEqual(done.returncode, expect,
                             f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{self.daemon_log()}")
        return done

    def daemon_log(self):
        path = self.folder / "daemon.log"
        return path.read_text()[-3000:] if path.exists() else ""

    def submit(self, text, *arguments):
        file = self.write("run.yaml", text)
        return json.loads(self.cli("submit", str(file), "-o", "json", *arguments).stdout)["id"]

    def describe(self, run):
        return json.loads(self.cli("describe", run, "-o", "json").stdout)

    def state_of(self, run):
        return self.describe(run)["state"]

    def run_dir(self, run):
        return self.state / "runs" / run

    def step_of(self, run):
        return ((self.describe(run)["progress"] or {}).get("step") or 0)

    def wait_step(self, run, step, timeout=90):
        return wait_for(f"{run} to reach step {step}", lambda: self.step_of(run) >= step, timeout, 0.05)

    def rank_logs(self, run, attempt=1):
        return {file.name: file.read_text() for file in (self.run_dir(run) / f"attempt-{attempt}").glob("rank-*.log")}

    def wait_state(self, run, *states, timeout=90):
        def reached():
            state = self.state_of(run)
            if state in ("FAILED", "COMPLETED", "STOPPED") and state not in states:
                raise AssertionError(f"{run} is {state}: {self.describe(run).get('reason')}\n{self.daemon_log()}")
            return state in states and state
        return wait_for(f"{run} to be {states}", reached, timeout, 0.1)


def main():
    for program in (TRAINER, DAEMON, CLI):
        if not os.path.exists(program):
            print(f"SKIPPED: {program} is not built")
            sys.exit(77)
    if shutil.which("mpirun") is None:
        print("SKIPPED: there is no mpirun; scripts/setup installs it")
        sys.exit(77)
    unittest.main(verbosity=2)
