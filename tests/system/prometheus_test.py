"""A real Prometheus scrapes a real daemon with a real run: promtool finds no fault, every query of the dashboard has data."""
import json
import re
import shutil
import subprocess
import urllib.request

import support
from support import slow_config


class PrometheusTest(support.Daemon):
    def setUp(self):
        for program in ("promtool", "prometheus"):
            if shutil.which(program) is None:
                self.skipTest(f"there is no {program}; scripts/setup --dev installs it")
        super().setUp()
        self.start_daemon()
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

    def test_promtool_and_every_panel_of_the_dashboard(self):
        run = self.submit(slow_config(steps=100000, sections={
            "checkpoint": "{every: 20st}",
            "training": "{duration: 100000st, global_batch_size: 256, eval_every: 20st, log_every_steps: 1}"}))
        self.wait_step(run, 45)
        checked = subprocess.run(["promtool", "check", "metrics"], input=self.scrape(), capture_output=True, text=True)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        asked = subprocess.run([str(support.SOURCE / "scripts" / "check-dashboard"), self.address, run, "--wait", "60"],
                               capture_output=True, text=True, timeout=150)
        self.assertEqual(asked.returncode, 0, asked.stdout + asked.stderr)

    def test_phases_add_up_to_the_wall_time_and_their_cost_to_the_cost(self):
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
