"""A slow rank is named, with its cause, by the metrics, by the alert and by `describe`; it is not killed, and the result is the same."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.request

import pictures
import support
from support import SOURCE, TRAINER, bits, slow_config, trainers_of, wait_for

SLOW_OPEN = (support.BINARIES.parent / "tests" / "libslow_open.so").resolve()
NAMED = 90  # Seconds until a straggler has a name: ten of steps, and what a busy machine adds.


@contextlib.contextmanager
def duty_cycle(pid, stopped_seconds, running_seconds):
    """The process is stopped and goes on, again and again."""
    ended = threading.Event()

    def cycle():
        with contextlib.suppress(ProcessLookupError):  # It has ended.
            while not ended.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(stopped_seconds)
                os.kill(pid, signal.SIGCONT)
                ended.wait(running_seconds)
    thread = threading.Thread(target=cycle)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class StragglerTest(support.Daemon):
    def address(self):
        address = json.loads(self.cli("daemon", "status", "-o", "json").stdout)["metrics_address"]
        return re.sub(r"^http://|/metrics$", "", address)

    def slowest_steps(self, run):
        """{rank: steps in which it came last}, and all steps."""
        with urllib.request.urlopen(f"http://{self.address()}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        slowest = {}
        for line in text.splitlines():
            match = re.fullmatch(r"lockstep_rank_slowest_steps_total\{(.*)\} ([^ ]+)", line)
            if match and f'run="{run}"' in match[1]:
                slowest[re.search(r'rank="(\d+)"', match[1])[1]] = float(match[2])
        steps = re.search(rf'lockstep_run_steps_total\{{[^}}]*run="{run}"[^}}]*\}} ([^ \n]+)', text)
        return slowest, float(steps[1])

    def named(self, run):
        return wait_for("a straggler to be named", lambda: self.describe(run).get("straggler"), NAMED, 0.2)

    def start_prometheus(self):
        """Scrapes the daemon each second and evaluates the shipped rules. Returns its address."""
        if shutil.which("prometheus") is None:
            self.skipTest("there is no prometheus; scripts/setup --dev installs it")
        config = self.write("prometheus.yml", json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(SOURCE / "metrics/prometheus/rules.yml")],
            "scrape_configs": [{"job_name": "lockstep", "static_configs": [{"targets": [self.address()]}]}]}))
        log = open(self.folder / "prometheus.log", "w")
        self.addCleanup(log.close)
        process = subprocess.Popen(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder}/tsdb",
                                    "--web.listen-address=127.0.0.1:0"], stdout=log, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        self.processes.append(process)

        def listening():
            found = re.search(r"Listening on.*?address=(127\.0\.0\.1:\d+)",
                              (self.folder / "prometheus.log").read_text())
            return found and found[1]
        return wait_for("Prometheus to listen", listening, 30)

    def alerting(self, prometheus):
        """The ranks for which the straggler alert's expression holds."""
        with urllib.request.urlopen(f"http://{prometheus}/api/v1/rules?type=alert", timeout=5) as answer:
            groups = json.load(answer)["data"]["groups"]
        (rule,) = [rule for group in groups for rule in group["rules"] if rule["name"] == "LockstepStraggler"]
        return [alert["labels"]["rank"] for alert in rule["alerts"]]

    def test_a_rank_that_is_stopped_now_and_then_is_named_and_changes_no_bit(self):
        self.start_daemon()
        text = slow_config(steps=300, sections={"checkpoint": "{every: 100st}"})
        calm = self.submit(text)
        self.wait_state(calm, "COMPLETED", timeout=120)
        prometheus = self.start_prometheus()
        run = self.submit(text)
        self.wait_step(run, 5)
        # A step computes for some tens of milliseconds, so it is stopped in each.
        with duty_cycle(trainers_of(self.run_dir(run))[1], 0.06, 0.02):
            straggler = self.named(run)
            self.assertEqual((straggler["rank"], straggler["cause"]), (1, "not_running"), straggler)
            self.assertGreater(straggler["share"], 0.6)
            self.assertGreater(straggler["seconds_per_step"], 0.02)
            described = self.cli("describe", run).stdout
            self.assertRegex(described, r"rank 1 is the slowest in \d+ % of the steps and costs \d+ ms a step: its process")
            self.assertEqual(wait_for("the alert", lambda: self.alerting(prometheus), 30), ["1"])
            slowest, steps = self.slowest_steps(run)
            self.assertGreater(slowest["1"], 0.6 * steps)
            self.assertEqual(self.state_of(run), "RUNNING")
        self.wait_state(run, "COMPLETED", timeout=120)
        self.assertEqual(self.describe(run)["restarts"], 0)
        self.assertIsNone(self.describe(run)["straggler"], "it is of now")
        self.assertEqual(bits(self.run_dir(run)), bits(self.run_dir(calm)))

    def test_a_rank_with_a_slow_data_loader_is_named_with_that_cause(self):
        if not SLOW_OPEN.exists():
            self.skipTest(f"{SLOW_OPEN} is not built")
        pictures.class_folders(self.folder / "flowers", 40)
        wrapper = self.write("trainer", f"""#!/bin/sh
if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then
  export LD_PRELOAD={SLOW_OPEN} SLOW_OPEN_MICROSECONDS=10000
fi
exec {TRAINER} "$@"
""")
        wrapper.chmod(0o755)
        self.start_daemon("--set", f"trainer={wrapper}")
        run = self.submit(support.config(steps=100000, batch=16, sections={
            "data": f"{{kind: image_folder, path: {self.folder}/flowers, image_size: 32, cache: never, split: [80, 20]}}",
            "training": "{duration: 100000st, global_batch_size: 16, eval_every: 100000st, log_every_steps: 100}",
            "checkpoint": "{every: 100000st}"}))
        self.wait_step(run, 5)
        straggler = self.named(run)
        self.assertEqual((straggler["rank"], straggler["cause"]), (1, "data_loader"), straggler)
        # Eight pictures of a rank's batch, each opened 10 ms late; what rank 0 does meanwhile comes off.
        self.assertGreater(straggler["seconds_per_step"], 0.04)
        self.assertLess(straggler["seconds_per_step"], 0.2)
        self.assertRegex(self.cli("describe", run).stdout, r"rank 1 is the slowest in .*its data loader is slow \(")
        slowest, steps = self.slowest_steps(run)
        self.assertGreater(slowest["1"], 0.6 * steps)
        self.cli("kill", run)


if __name__ == "__main__":
    support.main()
