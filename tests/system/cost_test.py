"""The ledger of real runs: it adds up over crashes, pauses, budgets and 200 deaths of the coordinator."""
import collections
import contextlib
import csv
import io
import json
import os
import random
import re
import signal
import sqlite3
import time
import urllib.request
from datetime import datetime

import support
from support import checkpoints, result, slow_config, trainers_of, wait_for

MICRO = 1e-6
MONEY = ("hardware_micros", "energy_micros", "transfer_micros")


class CostTest(support.Daemon):
    PRICES = ["--set", "price.per_rank_hour=7.3", "--set", "price.per_kwh=0.31"]

    def cost(self, *arguments):
        return json.loads(self.cli("cost", *arguments, "-o", "json").stdout)

    def by_key(self, report):
        return {line["key"]: line for line in report["lines"]}

    def check_sums(self, run):
        """Every grouping has the same total, and its lines add up to it exactly. The run has ended."""
        reports = {by: self.cost(run, "--by", by) for by in ("phase", "rank", "day", "run")}
        for by, report in reports.items():
            for field in MONEY + ("cost_micros", "rank_microseconds", "microjoules", "bytes"):
                self.assertEqual(sum(line[field] for line in report["lines"]), report["total"][field], (by, field))
            for line in report["lines"] + [report["total"]]:
                self.assertEqual(sum(line[field] for field in MONEY), line["cost_micros"])
            self.assertEqual(report["total"] | {"key": ""}, reports["phase"]["total"] | {"key": ""}, by)
        rows = list(csv.DictReader(io.StringIO(self.cli("cost", run, "-o", "csv").stdout)))
        micros = sum(round(float(row["cost"]) / MICRO) for row in rows)
        self.assertEqual(micros, reports["phase"]["total"]["cost_micros"])
        return reports

    def check_wall_time(self, run, report):
        """Phases add up to the time from the first launch to the end, for each rank."""
        wall = self.wall_of(run)
        self.assertAlmostEqual(report["wall_seconds"], wall, delta=0.01 * wall)
        ranks = self.cost(run, "--by", "rank")["lines"]
        for line in ranks:
            self.assertAlmostEqual(line["rank_seconds"], wall, delta=0.01 * wall, msg=line["key"])
        return wall

    def wall_of(self, run):
        """From the first launch to the end, by the daemon's log, which has milliseconds."""
        log = (self.folder / "daemon.log").read_text()
        began = re.search(rf"^(\S+) info run {run}: queued -> starting", log, re.M)[1]
        ended = re.findall(rf"^(\S+) info run {run}: \S+ -> (?:stopped|completed)", log, re.M)[-1]
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()

    def store_sums(self, run):
        """What the run store holds; the daemon must be down."""
        with contextlib.closing(sqlite3.connect(f"file:{self.state / 'lockstep.db'}?mode=ro", uri=True)) as database:
            return database.execute(
                "SELECT SUM(microseconds), SUM(hardware_micros + energy_micros + transfer_micros), SUM(microjoules), "
                "COUNT(*), COUNT(DISTINCT number) FROM ledger WHERE run = ?", (run,)).fetchone()

    def scrape(self):
        address = json.loads(self.cli("daemon", "status", "-o", "json").stdout)["metrics_address"]
        url = address if address.startswith("http") else f"http://{address}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        sums = collections.Counter()
        for line in text.splitlines():
            for name in ("lockstep_run_cost_total", "lockstep_run_phase_seconds_total", "lockstep_run_energy_joules_total",
                         "lockstep_run_lost_steps_total"):
                if line.startswith(name + "{"):
                    labels, value = line.rsplit(" ", 1)
                    phase = labels.split('phase="')[1].split('"')[0] if 'phase="' in labels else ""
                    sums[name, phase] += float(value)
        return sums

    def crash_a_rank(self, run, rank):
        restarts = self.describe(run)["restarts"]
        os.kill(trainers_of(self.run_dir(run))[rank], signal.SIGKILL)
        wait_for("the crash to be seen", lambda: self.describe(run)["restarts"] > restarts, 10)
        wait_for("the run to go on", lambda: self.state_of(run) == "RUNNING", 30)

    def test_two_crashes_a_pause_and_a_budget_stop(self):
        self.start_daemon(*self.PRICES)
        text = slow_config(steps=100000, sections={
            "checkpoint": "{every: 40st, keep_last: 2}", "restart": "{backoff_seconds: 0.2}",
            "cost": "{max_cost: 0.4, at_limit: stop}"})
        run = self.submit(text)
        for crash, step in enumerate((60, 110)):
            self.wait_step(run, step)
            self.crash_a_rank(run, crash)
        self.wait_step(run, 115)
        self.cli("pause", run)
        time.sleep(2)  # A pause that is long enough to be seen among the phases.
        self.cli("resume", run)
        self.wait_step(run, 120)
        # So far it took less than a third of the budget, also on a slow machine. The rest goes fast: the price
        # changes while the run lives, and what was counted keeps the old one.
        before = self.cost(run)["total"]
        self.daemon.kill()
        self.daemon.wait()
        self.start_daemon("--set", "price.per_rank_hour=73", "--set", "price.per_kwh=0.31")
        wait_for("the cost to go on", lambda: self.cost(run)["total"]["cost_micros"] > before["cost_micros"], 20)
        self.assertLess(self.cost(run)["total"]["cost_micros"], before["cost_micros"] * 4)
        self.wait_state(run, "STOPPED", timeout=120)
        described = self.describe(run)
        self.assertIn("budget: ", described["reason"])
        reports = self.check_sums(run)
        phases = self.by_key(reports["phase"])
        self.check_wall_time(run, reports["phase"])
        # Both crashes came about twenty steps after a checkpoint: those were made again.
        for phase in ("redone", "recovery", "startup", "forward", "backward", "straggler_wait", "checkpoint_stall"):
            self.assertGreater(phases[phase]["rank_microseconds"], 0, phase)
        self.assertGreater(phases["redone"]["hardware_micros"], 0)
        self.assertGreater(phases["paused"]["rank_seconds"], 2 * 2 * 0.9)
        self.assertLess(phases["paused"]["hardware_micros"], phases["paused"]["rank_seconds"] / 3600 * 7.3 / MICRO * 0.2)
        scraped = self.scrape()
        self.assertGreater(scraped["lockstep_run_lost_steps_total", ""], 0)
        for phase, line in phases.items():
            self.assertAlmostEqual(scraped["lockstep_run_cost_total", phase], line["cost"], places=6, msg=phase)
            self.assertAlmostEqual(scraped["lockstep_run_phase_seconds_total", phase], line["rank_seconds"] / 2, places=5)
            self.assertAlmostEqual(scraped["lockstep_run_energy_joules_total", phase], line["microjoules"] * MICRO, places=5)
        total = reports["phase"]["total"]
        self.daemon.terminate()
        self.daemon.wait()
        stored = self.store_sums(run)
        self.assertEqual(stored[:3], (total["rank_microseconds"], total["cost_micros"], total["microjoules"]))
        self.start_daemon(*self.PRICES)
        self.assertEqual(self.cost(run)["total"], total, "a restart changes nothing")

    def test_max_cost_stops_within_one_step_and_one_checkpoint(self):
        self.start_daemon("--set", "price.per_rank_hour=3600")  # One unit a rank and second.
        most = 40  # Twenty seconds: enough to come up on a slow machine.
        text = slow_config(steps=100000, sections={"cost": f"{{max_cost: {most}}}"})
        run = self.submit(text)
        self.wait_state(run, "PAUSED", timeout=60)
        described = self.describe(run)
        self.assertIn("cost.max_cost", described["reason"])
        step_seconds = [row["seconds"] for row in support.rows(self.run_dir(run), without=()) if row["kind"] == "step"]
        slowest = max(b - a for a, b in zip(step_seconds, step_seconds[1:]))
        checkpoint = described["last_checkpoint"]["write_seconds"]
        # One step and one checkpoint either way, and the end of the processes, which is guessed as a second before
        # it was seen once.
        saved = max(path.stat().st_mtime for path in self.run_dir(run).glob("checkpoints/*/manifest.json"))
        ended = re.search(rf"^(\S+) info run {run}: pausing -> paused", (self.folder / "daemon.log").read_text(), re.M)[1]
        leave = datetime.fromisoformat(ended).timestamp() - saved
        self.assertLess(described["cost"], most + 2 * (slowest + checkpoint + max(0, leave - 1)) + 1)
        self.assertGreater(described["cost"], most - 2 * (slowest + checkpoint) - 2)
        spending = described["spending"]
        self.assertAlmostEqual(spending["overspent"], max(0, described["cost"] - most), places=5)
        self.assertIn("--max-cost", self.cli("resume", run, expect=8).stderr)
        self.cli("resume", run, "--max-cost", str(most / 2), expect=8)
        self.cli("resume", run, "--max-cost", str(most + 20))
        self.wait_step(run, described["last_checkpoint"]["step"] + 2)
        self.wait_state(run, "PAUSED", timeout=60)
        described = self.describe(run)
        self.assertIn(f"cost.max_cost is {most + 20}.0", described["reason"])
        self.assertGreater(described["cost"], most)

    def test_what_a_checkpoint_had_cost(self):
        self.start_daemon(*self.PRICES)
        run = self.submit(slow_config(steps=90, sections={"checkpoint": "{every: 30st, keep_last: 5}"}))
        self.wait_state(run, "COMPLETED", timeout=60)
        listed = json.loads(self.cli("checkpoints", "list", run, "-o", "json").stdout)["checkpoints"]
        costs = [one["cost"] for one in sorted(listed, key=lambda one: one["step"])]
        self.assertEqual(len(costs), 3)
        self.assertEqual(costs, sorted(costs))
        self.assertGreater(costs[0], 0)
        self.assertLessEqual(costs[-1], self.describe(run)["cost"])

    def test_a_month_that_is_spent_pauses_and_lets_nothing_start(self):
        # Twenty seconds of two ranks, four of them between the warning and the end.
        self.start_daemon("--set", "price.per_rank_hour=3600", "--set", "budget.monthly=40")
        run = self.submit(slow_config(steps=100000))
        self.wait_state(run, "PAUSED", timeout=60)
        self.assertIn("budget.monthly", self.describe(run)["reason"])
        self.assertRegex(self.daemon_log(), r"warning \d+ % of the monthly budget of 40.00 USD is used up")
        later = self.submit(slow_config(steps=10))
        time.sleep(1)
        self.assertEqual(self.state_of(later), "QUEUED")
        self.assertIn("the next month begins on", self.describe(later)["reason"])
        self.cli("resume", run, expect=8)

    def test_a_gain_that_is_too_dear_ends_the_run(self):
        self.start_daemon("--set", "price.per_rank_hour=36")
        run = self.submit(slow_config(steps=100000, sections={
            "training": "{duration: 100000st, global_batch_size: 256, eval_every: 10st, log_every_steps: 10}",
            "cost": "{stop_when: {metric_gain_per_cost: 1000000}}"}))
        self.wait_state(run, "STOPPED", timeout=90)
        self.assertIn("not worth it", self.describe(run)["reason"])
        self.assertTrue(checkpoints(self.run_dir(run)), "what was trained is saved")

    def test_another_currency_is_refused(self):
        self.start_daemon("--set", "price.currency=EUR")
        self.daemon.terminate()
        self.daemon.wait()
        self.start_daemon(*self.PRICES)  # Nothing was spent in the other currency.
        run = self.submit(slow_config(steps=5))
        self.wait_state(run, "COMPLETED", timeout=60)
        self.daemon.terminate()
        self.daemon.wait()
        with self.assertRaises(AssertionError):
            self.start_daemon("--set", "price.currency=EUR")
        self.assertIn("sums of two currencies mean nothing", self.daemon_log())

    def test_killing_the_coordinator_200_times_loses_and_doubles_nothing(self):
        kills = int(os.environ.get("LOCKSTEP_COORDINATOR_KILLS", "200"))
        chance = random.Random(6)
        self.start_daemon(*self.PRICES)
        run = self.submit(slow_config(steps=1000000, sections={"checkpoint": "{every: 50st}"}))
        self.wait_step(run, 5)
        shown = 0
        for kill in range(kills):
            self.daemon.kill()
            self.daemon.wait()
            self.spawn_daemon(*self.PRICES)
            time.sleep(chance.uniform(0.02, 0.5))
            if kill % 20 == 10:
                # Now and then it may come up and tell: the cost never falls.
                wait_for("the daemon to serve", lambda: self.cli("cost", run, expect=None).returncode == 0, 20)
                micros = self.cost(run)["total"]["cost_micros"]
                self.assertGreaterEqual(micros, shown)
                shown = micros
        wait_for("the run to be found again", lambda: self.cli("stop", run, expect=None).returncode == 0, 60)
        self.wait_state(run, "STOPPED", timeout=60)
        reports = self.check_sums(run)
        self.check_wall_time(run, reports["phase"])
        # One attempt, so rank 0's own account is the truth: not a step of it is missing or there twice.
        own = result(self.run_dir(run))
        self.assertEqual(own["attempt"], 1)
        ranks = self.rank_phases(run)
        for phase in ("forward", "backward", "optimizer", "data_wait", "checkpoint_stall"):
            self.assertAlmostEqual(ranks[0][phase] * MICRO, own["phase_seconds"][phase], delta=0.005, msg=phase)
        # Each checkpoint's bytes were counted once; their sizes differ by a few digits.
        last = self.describe(run)["last_checkpoint"]
        written = -(-last["step"] // 50)
        self.assertAlmostEqual(self.by_key(reports["phase"])["checkpoint_stall"]["bytes"] / last["bytes"], written, delta=0.1)
        total = reports["phase"]["total"]
        self.daemon.terminate()
        self.daemon.wait()
        stored = self.store_sums(run)
        self.assertEqual(stored[:2], (total["rank_microseconds"], total["cost_micros"]))
        self.assertEqual(stored[3], stored[4])

    def spawn_daemon(self, *arguments):
        """As start_daemon(), and does not wait until it serves."""
        waited = support.wait_for
        support.wait_for = lambda *_: True
        try:
            self.start_daemon(*arguments)
        finally:
            support.wait_for = waited

    def rank_phases(self, run):
        """{rank: {phase: microseconds}} of the posted lines."""
        phases = collections.defaultdict(collections.Counter)
        self.daemon.terminate()
        self.daemon.wait()
        with contextlib.closing(sqlite3.connect(f"file:{self.state / 'lockstep.db'}?mode=ro", uri=True)) as database:
            for rank, phase, microseconds in database.execute(
                    "SELECT rank, phase, SUM(microseconds) FROM ledger WHERE run = ? GROUP BY rank, phase", (run,)):
                phases[rank][phase] += microseconds
        self.start_daemon(*self.PRICES)
        return phases


if __name__ == "__main__":
    support.main()
