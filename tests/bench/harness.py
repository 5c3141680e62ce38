"""What the rows of scripts/bench share: running contenders in turns, ratios with their spread, the table, the JSON."""

import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEERS = ROOT / "tests/bench/peers"


class CannotMeasure(Exception):
    """This row cannot be measured here; the text says why."""


class Bench:
    """One run of scripts/bench: where things are, how thorough to be, what was run."""

    def __init__(self, profile="cpu", quick=False):
        self.quick = quick
        self.profile = profile
        self.bin = ROOT / "build" / profile / "bin"
        self.work = ROOT / "build/bench/work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.rounds = 2 if quick else 5
        self.commands = []
        self.python = None  # TorchPython, where a row needs it.

    def run(self, command, timeout=900, env=None):
        """Runs a command to its end; its output. CannotMeasure with its last lines where it fails."""
        command = [str(part) for part in command]
        shown = " ".join(shlex.quote(part if len(part) < 400 else part[:40] + "…") for part in command)
        shown = shown.replace(f"{ROOT}/", "").replace(f"{pathlib.Path.home()}/", "~/")  # For any checkout.
        if shown not in self.commands:
            self.commands.append(shown)
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, timeout=timeout, env=env, cwd=self.work)
        except FileNotFoundError:
            raise CannotMeasure(f"there is no {command[0]}") from None
        except subprocess.TimeoutExpired:
            raise CannotMeasure(f"no end within {timeout} s: {shown}") from None
        if done.returncode != 0:
            last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
            raise CannotMeasure(f"exit {done.returncode}: {shown}: {last}")
        return done.stdout

    def run_json(self, command, **keywords):
        lines = [line for line in self.run(command, **keywords).splitlines() if line.startswith("{")]
        if not lines:
            raise CannotMeasure(f"no result from {command[0]}")
        return json.loads(lines[-1])

    def program(self, name):
        path = self.bin / name
        if not path.exists():
            raise CannotMeasure(f"{path} is not built")
        return path

    def mpirun(self, ranks, *command):
        """mpirun with the binding that is its default: nobody should have to know better."""
        flags = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        if ranks > (os.cpu_count() or 1):
            flags.append("--oversubscribe")
        return ["mpirun", *flags, "-np", str(ranks), *command]

    def torchrun(self, ranks, script, *arguments):
        """(command, environment) of a peer under torchrun."""
        return [*self.torch_python().command, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                str(ranks), PEERS / script, *arguments]

    def torch_python(self):
        if self.python is None:
            import torch_python

            self.python = torch_python.prepare()
        return self.python

    def run_peer(self, command, timeout=900):
        return self.run_json(command, timeout=timeout, env=self.torch_python().environment)

    def in_turns(self, contenders, rounds=None):
        """{name: samples} of {name: function that gives one sample or a list}: A B A B …"""
        samples = {name: [] for name in contenders}
        for _ in range(rounds or self.rounds):
            for name, measure in contenders.items():
                value = measure()
                samples[name] += value if isinstance(value, list) else [value]
        return samples


class Row:
    """One line of the table: a ratio of two contenders' medians against its target."""

    def __init__(self, row, what, peer_name, target, at_most=False, note=""):
        self.row, self.what, self.peer_name = row, what, peer_name
        self.target, self.at_most, self.note = target, at_most, note
        self.ours = self.peer = None
        self.unit = "ms"
        self.reason = ""

    def measured(self, ours, peer, unit="ms"):
        self.ours, self.peer, self.unit = list(ours), list(peer), unit
        return self

    def not_measured(self, reason):
        self.reason = reason
        return self

    def _ratio(self, ours, peer):
        return ours / peer if self.at_most else peer / ours

    @property
    def ratio(self):
        """How many times as fast as the peer; for a row with an upper bound how many times as long."""
        return self._ratio(statistics.median(self.ours), statistics.median(self.peer))

    @property
    def spread(self):
        """Least and largest ratio of the samples that were taken one after the other."""
        pairs = [self._ratio(a, b) for a, b in zip(self.ours, self.peer)]
        return min(pairs), max(pairs)

    @property
    def met(self):
        if self.ours is None or self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def target_text(self):
        return "—" if self.target is None else f"{'≤' if self.at_most else '≥'} {self.target:g}"

    def as_json(self):
        out = {"row": self.row, "what": self.what, "peer": self.peer_name, "target": self.target,
               "bound": "at most" if self.at_most else "at least", "note": self.note}
        if self.ours is None:
            return {**out, "measured": False, "reason": self.reason}
        return {**out, "measured": True, "ratio": self.ratio, "spread": list(self.spread), "met": self.met,
                "unit": self.unit, "ours_median": statistics.median(self.ours),
                "peer_median": statistics.median(self.peer), "ours": self.ours, "peer_samples": self.peer}


def table(rows):
    """Markdown, one line a row."""
    lines = ["| row | what | ours | peer | ratio | spread | target | met |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        if row.ours is None:
            lines.append(f"| {row.row} | {row.what} | | {row.peer_name} | not measured: {row.reason.replace('|', '/')} | "
                         f"| {row.target_text()} | |")
            continue
        low, high = row.spread
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        lines.append(f"| {row.row} | {row.what} | {number(statistics.median(row.ours))} {row.unit} | {row.peer_name} "
                     f"{number(statistics.median(row.peer))} {row.unit} | {row.ratio:.2f} | {low:.2f}–{high:.2f} | "
                     f"{row.target_text()} | {met} |")
    return "\n".join(lines)


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def machine():
    model = flags = ""
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name") and not model:
                model = line.split(":", 1)[1].strip()
            if line.startswith("flags") and not flags:
                flags = line.split(":", 1)[1]
        memory_kb = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    except (OSError, ValueError):
        memory_kb = 0
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory_kb / 2**20, 1),
            "instructions": [flag for flag in wanted if flag in flags.split()], "kernel": platform.release().split("-")[0],
            "gpus": gpus()}


def gpus():
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def has_bf16_units():
    return bool({"avx512_bf16", "amx_bf16"} & set(machine()["instructions"]))


def first_line(command):
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=30,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().splitlines()[0] if done.stdout or done.stderr else ""


def versions(bench):
    out = {"trainer": first_line([bench.bin / "lockstep-trainer", "--version"]),
           "mpirun": first_line(["mpirun", "--version"]), "compiler": first_line(["c++", "--version"]),
           "git": first_line(["git", "-C", ROOT, "rev-parse", "HEAD"])}
    dirty = first_line(["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"])
    out["git"] += " with changes" if dirty and not dirty.startswith("fatal") else ""
    if bench.python is not None:
        out["peers"] = bench.python.describe()
    return out


def document(bench, rows, started, load_before):
    return {"format": 1, "quick": bench.quick, "profile": bench.profile, "date": started,
            "seconds": round(time.time() - started), "machine": machine(),
            "load_average": {"before": load_before, "after": os.getloadavg()}, "versions": versions(bench),
            "rows": [row.as_json() for row in rows], "commands": bench.commands}
