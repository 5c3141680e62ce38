"""F16: a real daemon over a fake NVML. A sick GPU or driver is named; it never blocks the daemon or a run; energy never falls."""
import json
import os
import re
import signal
import time
import urllib.request

import support
from support import slow_config, wait_for

FAKE_NVML = (support.BINARIES.parent / "tests" / "libfake_nvml.so").resolve()
SEEN = 20  # Seconds; a round is one, the timeout of a hanging call two.


class FakeGpus(support.Daemon):
    def setUp(self):
        if not FAKE_NVML.exists():
            self.skipTest(f"{FAKE_NVML} is not built")
        super().setUp()
        self.scenario("gpus 2\n")
        for name, value in (("LOCKSTEP_NVML_LIBRARY", FAKE_NVML), ("FAKE_NVML_SCENARIO", self.folder / "scenario")):
            os.environ[name] = str(value)
            self.addCleanup(os.environ.pop, name)
        self.start_daemon()
        address = json.loads(self.cli("daemon", "status", "-o", "json").stdout)["metrics_address"]
        self.address = re.sub(r"^http://|/metrics$", "", address)

    def scenario(self, text):
        (self.folder / "next").write_text(text)
        (self.folder / "next").rename(self.folder / "scenario")

    def metrics(self):
        """{name: {gpu, or "" without one: value}}, summed over other labels."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found = {}
        for match in re.finditer(r"^lockstep_(\w+)(?:\{(.*)\})? (\S+)$", text, re.M):
            gpu = re.search(r'\bgpu="(\d+)"', match[2] or "")
            values = found.setdefault(match[1], {})
            key = gpu[1] if gpu else ""
            values[key] = values.get(key, 0) + float(match[3])
        return found

    def when(self, what, condition):
        """The first metrics for which `condition` holds."""
        def look():
            metrics = self.metrics()
            try:
                return metrics if condition(metrics) else None
            except KeyError:  # Not exported yet.
                return None
        return wait_for(what, look, SEEN, 0.1)


class GpuHealthTest(FakeGpus):
    def test_an_xid_of_the_fatal_kind_and_a_lost_gpu_mark_that_gpu_alone(self):
        self.when("two healthy GPUs", lambda now: now["gpu_healthy"] == {"0": 1, "1": 1})
        self.scenario("gpus 2\n1.xid 31\n")
        self.when("an XID", lambda now: now["gpu_xid_errors_total"] == {"0": 0, "1": 1} and now["gpu_healthy"]["1"] == 1)
        # What the alert sends people to.
        wait_for("the log to have its number", lambda: re.search(r"GPU 1 .*the newest is XID 31;", self.daemon_log()), 10)
        self.scenario("gpus 2\n1.xid 31\n0.fail 15\n")
        lost = self.when("GPU 0 to be lost", lambda now: now["gpu_healthy"] == {"0": 0, "1": 1})
        self.assertNotIn("0", lost["gpu_utilization_ratio"], "nobody knows it")
        self.assertIn("1", lost["gpu_utilization_ratio"])
        self.scenario("gpus 2\n1.xid 31\n1.xid 79\n")
        self.when("GPU 0 to be back and GPU 1 to be bad", lambda now: now["gpu_healthy"] == {"0": 1, "1": 0})

    def test_without_a_counter_energy_is_integrated_and_marked(self):
        self.scenario("gpus 2\n1.energy none\n1.power 400\n")
        first = self.when("the mark", lambda now: now["gpu_energy_estimated"] == {"0": 0, "1": 1} and
                          now["gpu_energy_joules_total"]["1"] > 0)
        later = self.when("more energy", lambda now: now["gpu_energy_joules_total"]["1"] >
                          first["gpu_energy_joules_total"]["1"] + 400)
        self.assertGreater(later["gpu_energy_joules_total"]["0"], first["gpu_energy_joules_total"]["0"])

    def test_a_call_that_hangs_blocks_nobody(self):
        run = self.submit(slow_config(steps=100000))
        self.wait_step(run, 5)
        self.when("energy", lambda now: now["gpu_energy_joules_total"]["0"] > 0)
        self.scenario("gpus 2\nhang 1\n")
        hung = self.when("the driver to be stale", lambda now: now["nvml_stale"][""] == 1)
        self.assertEqual(hung["gpu_healthy"], {"0": 0, "1": 0})
        self.assertEqual(hung["gpu_energy_estimated"], {"0": 1, "1": 1})
        self.assertGreaterEqual(hung["nvml_failed_rounds_total"][""], 1)
        step = self.step_of(run)
        for _ in range(10):
            asked = time.monotonic()
            self.metrics()
            self.cli("daemon", "status")
            self.assertLess(time.monotonic() - asked, 2, "no answer may wait for the driver")
        self.wait_step(run, step + 20)
        self.scenario("gpus 2\n")
        back = self.when("the driver to be back", lambda now: now["nvml_stale"][""] == 0 and
                         now["gpu_healthy"] == {"0": 1, "1": 1})
        self.assertEqual(back["gpu_energy_estimated"], {"0": 0, "1": 0}, "the counter went on")
        for gpu in ("0", "1"):
            self.assertGreaterEqual(back["gpu_energy_joules_total"][gpu], hung["gpu_energy_joules_total"][gpu])
        self.cli("kill", run)

    def test_the_daemon_ends_while_a_call_hangs(self):
        self.scenario("gpus 2\nhang 1\n")
        self.when("the driver to be stale", lambda now: now["nvml_stale"][""] == 1)
        ended = time.monotonic()
        self.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(20), 0, self.daemon_log())
        self.assertLess(time.monotonic() - ended, 10)


class RunsOnGpusTest(FakeGpus):
    """Slots that are GPUs, as far as the daemon can tell; the ranks compute on the CPU all the same."""

    def start_daemon(self, *arguments):
        folder = self.folder / "gpus"
        for bus in ("0000:01:00.0", "0000:02:00.0"):
            (folder / bus).mkdir(parents=True, exist_ok=True)
        os.environ["LOCKSTEP_NVIDIA_GPUS"] = str(folder)
        self.addCleanup(os.environ.pop, "LOCKSTEP_NVIDIA_GPUS", None)
        self.scenario("gpus 2\nname NVIDIA H200\n1.name NVIDIA A100-SXM4-80GB\npower 500\n")
        config = self.write("lockstepd.yaml", """
slots: auto
price:
  currency: EUR
  per_rank_hour: 99
  devices:
    - {device: "*H200*", per_hour: 3600}
    - {device: "*A100*", per_hour: 1800}
  per_kwh: 7200
""")
        # The last word counts: slots are the two GPUs.
        super().start_daemon("--config", str(config), "--set", "slots=auto", "--set", "price.per_rank_hour=99", *arguments)

    def ranks(self, run):
        return json.loads(self.cli("cost", run, "--by", "rank", "-o", "json").stdout)["lines"]

    def test_a_run_of_mpirun_has_the_price_of_what_its_ranks_compute_on(self):
        file = self.write("run.yaml", slow_config(name="by-hand", steps=40))
        self.train(2, file, self.folder / "hand", "--coordinator", str(self.socket))
        run = self.cli("list", "--ids").stdout.strip()
        self.wait_state(run, "COMPLETED")
        # These ranks have no GPU, which the daemon knows from them: it gave them no slot.
        self.assertEqual(self.describe(run)["devices"], ["cpu", "cpu"])
        for line in self.ranks(run):
            self.assertAlmostEqual(line["hardware_micros"] * 1e-6, 99 / 3600 * line["rank_seconds"], delta=1e-3)

    def test_each_rank_has_its_gpus_price_and_its_gpus_metered_energy(self):
        run = self.submit(slow_config(steps=60))
        self.wait_state(run, "COMPLETED", timeout=90)
        h200, a100 = self.ranks(run)
        for line, per_second in ((h200, 1.0), (a100, 0.5)):
            self.assertAlmostEqual(line["hardware_micros"] * 1e-6, per_second * line["rank_seconds"], delta=1e-3)
            self.assertFalse(line["energy_estimated"], "the counter tells all of it")
            joules = line["microjoules"] * 1e-6
            # 500 W, read once a second.
            self.assertAlmostEqual(joules, 500 * line["rank_seconds"], delta=500 * 2.5)
            self.assertAlmostEqual(line["energy_micros"] * 1e-6, joules / 3.6e6 * 7200, delta=1e-3)
        self.assertEqual(json.loads(self.cli("describe", run, "-o", "json").stdout)["devices"],
                         ["NVIDIA H200", "NVIDIA A100-SXM4-80GB"])

    def test_a_bad_gpu_gets_no_new_rank(self):
        self.scenario("gpus 2\n1.xid 79\n")
        self.when("GPU 1 to be bad", lambda now: now["gpu_healthy"] == {"0": 1, "1": 0})
        wait_for("the coordinator to know", lambda: "slot 1 is given to no run" in self.daemon_log(), 10)
        waiting = self.submit(slow_config(steps=20))
        wait_for("the reason", lambda: "1 of 2 are good" in self.describe(waiting)["reason"], 10)
        self.assertEqual(self.state_of(waiting), "QUEUED")
        self.assertIn("XID 79", self.describe(waiting)["reason"])
        self.cli("kill", waiting)
        small = self.submit(slow_config(steps=20, ranks=1))
        self.wait_state(small, "COMPLETED", timeout=60)


if __name__ == "__main__":
    support.main()
