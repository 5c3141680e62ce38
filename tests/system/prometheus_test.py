"""A real Prometheus scrapes a real daemon with real runs and a fake NVML: promtool finds no fault, every query of the four
dashboards has data, the series stay few, and the sums are right."""
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request

import support
from support import config, slow_config, trainers_of, wait_for

FAKE_NVML = (support.BINARIES.parent / "tests" / "libfake_nvml.so").resolve()
MANY_RUNS = (support.BINARIES.parent / "tests/system/many-runs").resolve()
MOST_SERIES = 2000
PRICES = ["--set", "price.per_kwh=0.30", "--set", "budget.monthly=1000000"]

# Panels that show 0 in a healthy system, or on a host without RAPL and without real GPUs.
STAND_INS = {
    "fleet / Alerts firing", "fleet / Firing alerts", "fleet / Calls that failed", "fleet / Time of a call",
    "run / Rank that holds it up", "run / Straggler and its cause", "run / Arithmetic used",
    "GPUs and power / Power of the CPUs",
}


class PrometheusTest(support.Daemon):
    def setUp(self):
        for program in ("promtool", "prometheus"):
            if shutil.which(program) is None:
                self.skipTest(f"there is no {program}; scripts/setup --dev installs it")
        if not FAKE_NVML.exists():
            self.skipTest(f"{FAKE_NVML} is not built")
        super().setUp()
        for name, value in (("LOCKSTEP_NVML_LIBRARY", FAKE_NVML), ("FAKE_NVML_SCENARIO", self.folder / "scenario"),
                            ("LOCKSTEP_NVIDIA_GPUS", self.folder / "gpus")):
            os.environ[name] = str(value)
            self.addCleanup(os.environ.pop, name)
        self.host_has(gpus=3)

    def host_has(self, gpus):
        """Slots are GPUs then, as far as the daemon can tell; the ranks compute on the CPU all the same."""
        for gpu in range(gpus):
            (self.folder / "gpus" / f"0000:{gpu + 1:02}:00.0").mkdir(parents=True, exist_ok=True)
        (self.folder / "scenario").write_text(f"gpus {gpus}\n1.throttle 0x40\n1.xid 31\n")

    def start(self, *arguments):
        self.start_daemon(*PRICES, "--set", "slots=auto", *arguments)
        address = json.loads(self.cli("daemon", "status", "-o", "json").stdout)["metrics_address"]
        self.address = re.sub(r"^http://|/metrics$", "", address)

    def scrape(self):
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def value(self, text, name, **labels):
        total, found = 0.0, False
        for line in text.splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? ([^ ]+)", line)
            if match and match[1] == name and all(f'{k}="{v}"' in (match[2] or "") for k, v in labels.items()):
                total, found = total + float(match[3]), True
        self.assertTrue(found, f"{name} {labels} is not exported")
        return total

    def promtool(self):
        checked = subprocess.run(["promtool", "check", "metrics"], input=self.scrape(), capture_output=True, text=True)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        self.assertEqual(checked.stdout + checked.stderr, "")

    def check_dashboard(self, *arguments, expect=0):
        asked = subprocess.run([str(support.SOURCE / "scripts/check-dashboard"), self.address, *arguments],
                               capture_output=True, text=True, timeout=150)
        print(asked.stdout.splitlines()[0] if asked.stdout else asked.stderr)
        self.assertEqual(asked.returncode, expect, asked.stdout + asked.stderr)
        return asked.stdout

    def test_every_panel_of_every_dashboard_has_data(self):
        self.start()
        every_20 = {"checkpoint": "{every: 20st}", "restart": "{backoff_seconds: 0.2}",
                    "cost": "{max_cost: 1000}",
                    "training": "{duration: 100000st, global_batch_size: 256, eval_every: 20st, log_every_steps: 1}"}
        finished = self.submit(config(name="finished", steps=20))
        self.wait_state(finished, "COMPLETED", timeout=120)
        crashed = self.submit(slow_config(name="crashed", steps=70, sections={
            **every_20, "training": "{duration: 70st, global_batch_size: 256, eval_every: 20st, log_every_steps: 1}"}))
        self.wait_step(crashed, 25)
        os.kill(trainers_of(self.run_dir(crashed))[1], signal.SIGKILL)
        self.wait_state(crashed, "COMPLETED", timeout=150)
        self.assertGreaterEqual(self.value(self.scrape(), "lockstep_run_restarts_total", run=crashed), 1)
        running = self.submit(slow_config(name="running", steps=100000, sections=every_20))
        self.wait_step(running, 25)
        os.kill(trainers_of(self.run_dir(running))[1], signal.SIGKILL)
        self.wait_step(running, 70)
        self.promtool()
        self.check_dashboard(running, "--wait", "60")
        # Of what a healthy host without real GPUs and RAPL has nothing to tell, a stand-in is shown; of all else, data.
        bare = self.check_dashboard(running, "--wait", "20", "--strict", expect=1)
        self.assertLessEqual(set(re.findall(r"no data: Lockstep: (.*) [A-Z]$", bare, re.M)), STAND_INS)
        # What happened to the one that crashed is on its own board; it does not move any more.
        text = self.scrape()
        self.assertGreater(self.value(text, "lockstep_run_phase_seconds_total", run=crashed, phase="redone"), 0)
        self.assertGreater(self.value(text, "lockstep_run_cost_total", run=crashed, phase="redone", component="hardware"), 0)
        self.assertGreater(self.value(text, "lockstep_gpu_throttle_seconds_total", gpu="1", reason="thermal"), 0)
        self.assertEqual(self.value(text, "lockstep_gpu_throttle_seconds_total", gpu="0"), 0)
        self.assertEqual(self.value(text, "lockstep_run_live"), 1)
        self.assertRegex(text, r'lockstep_build_info{[^}]*torch="2\.\d+"')
        self.assertEqual(self.value(text, "lockstep_gpu_holder_info", run=running), 2)
        torch = re.search(r"LibTorch ([\d.]+)", subprocess.run([support.TRAINER, "--version"], capture_output=True, text=True).stdout)[1]
        self.assertEqual(self.value(text, "lockstep_build_info", torch=torch), 1)
        self.cli("kill", running)

    def test_series_stay_under_two_thousand(self):
        """Eight GPUs, a live run of eight ranks, 64 finished ones of eight ranks."""
        if not MANY_RUNS.exists():
            self.skipTest(f"{MANY_RUNS} is not built")
        self.host_has(gpus=8)
        self.start()
        wide = config(ranks=8, steps=12, sections={"checkpoint": "{every: 6st}"})
        self.wait_state(self.submit(wide), "COMPLETED", timeout=150)
        self.daemon.terminate()
        self.daemon.wait(30)
        filled = subprocess.run([MANY_RUNS, "fill", str(self.state), "64"], capture_output=True, text=True, timeout=60)
        self.assertEqual(filled.returncode, 0, filled.stderr)
        self.start()
        live = self.submit(config(ranks=8, steps=100000, sections={"checkpoint": "{every: 5st}"}))
        self.wait_step(live, 12, timeout=150)
        text = wait_for("the GPUs to be read", lambda: (now := self.scrape()) and "lockstep_gpu_info{" in now and now, 20)
        series = [line for line in text.splitlines() if line and not line.startswith("#")]
        print(f"{len(series)} series")
        self.assertEqual(self.value(text, "lockstep_runs", state="completed"), 64)
        self.assertEqual(sum("lockstep_run_info{" in line for line in series), 6, "the live one and the last five")
        self.assertEqual(sum(line.startswith("lockstep_gpu_info{") for line in series), 8)
        self.assertLessEqual(len(series), MOST_SERIES)
        self.promtool()
        self.cli("kill", live)

    def test_the_rank_that_gives_no_sign_of_life_is_known(self):
        self.start()
        run = self.submit(slow_config(ranks=3, steps=100000))
        self.wait_step(run, 5)
        stopped = trainers_of(self.run_dir(run))[1]
        os.kill(stopped, signal.SIGSTOP)
        try:
            def ages():
                text, now = self.scrape(), time.time()
                return [now - self.value(text, "lockstep_rank_last_heartbeat_timestamp_seconds", run=run, rank=rank)
                        for rank in range(3)]
            silent = wait_for("rank 1 to be silent", lambda: (age := ages()) and age[1] > 6 and age, 20, 0.2)
            self.assertLess(max(silent[0], silent[2]), 4, "the others wait for it, and live")
        finally:
            os.kill(stopped, signal.SIGCONT)
        wait_for("rank 1 to be heard of again", lambda: ages()[1] < 4, 20, 0.2)
        self.cli("kill", run)

    def test_phases_add_up_to_the_wall_time_and_their_cost_to_the_cost(self):
        self.start()
        run = self.submit(slow_config(steps=100, sections={"checkpoint": "{every: 30st}"}))
        self.wait_state(run, "COMPLETED", timeout=150)
        text = self.scrape()
        phases = self.value(text, "lockstep_run_phase_seconds_total", run=run)
        result = support.result(self.run_dir(run))
        self.assertAlmostEqual(sum(result["phase_seconds"].values()), result["attempt_seconds"],
                               delta=0.01 * result["attempt_seconds"])
        # The coordinator adds what it sees around the processes: launching them and noticing their end.
        self.assertGreaterEqual(phases, 0.99 * result["attempt_seconds"])
        self.assertLessEqual(phases, result["attempt_seconds"] + 5)
        cost = self.describe(run)["cost"]
        self.assertAlmostEqual(self.value(text, "lockstep_run_cost_total", run=run), cost, delta=0.01 * cost)
        self.assertEqual(self.value(text, "lockstep_run_steps_total", run=run), 100)
        self.assertEqual(self.value(text, "lockstep_run_samples_total", run=run), 25600)


if __name__ == "__main__":
    support.main()
