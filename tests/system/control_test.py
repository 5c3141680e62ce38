"""An operator's day: pause, hold, checkpoint, stop, kill, a wrong file, a full queue; by the real CLI against the real daemon."""
import json
import re
import signal
import subprocess
import time

import support
from support import CLI, bits, checkpoints, config, mpirun_of, rows, slow_config, trainers_of, wait_for

LONG = dict(steps=100000, sections={"checkpoint": "{every: 100000st}"})


class ControlTest(support.Daemon):
    def setUp(self):
        super().setUp()
        self.start_daemon()

    def start_long(self, text=None):
        run = self.submit(text or slow_config(**LONG))
        self.wait_state(run, "RUNNING")
        self.wait_step(run, 2)
        return run

    def verify(self, run):
        done = self.cli("checkpoints", "verify", run, "-o", "json")
        self.assertIn('"ok": true', done.stdout)

    def test_a_run_completes_and_shows_its_cost(self):
        run = self.submit(config(steps=30))
        self.assertEqual(self.cli("wait", run).returncode, 0)
        shown = self.describe(run)
        self.assertEqual(shown["state"], "COMPLETED")
        self.assertEqual(shown["progress"]["step"], 30)
        self.assertGreater(shown["cost"], 0)
        self.assertEqual(shown["last_checkpoint"]["step"], 30)
        listed = json.loads(self.cli("checkpoints", "list", run, "-o", "json").stdout)
        steps = [c["step"] for c in (listed["checkpoints"] if isinstance(listed, dict) else listed)]
        self.assertEqual(sorted(steps), [10, 20, 30])

    def test_pause_frees_the_slots_and_resume_goes_on_bit_for_bit(self):
        text = slow_config(steps=80, sections={"checkpoint": "{every: 50st, keep_last: 4}"})
        calm = self.submit(text)
        self.wait_state(calm, "COMPLETED", timeout=180)

        run = self.submit(text)
        self.wait_step(run, 5)
        self.cli("pause", run)
        self.assertEqual(self.state_of(run), "PAUSED")
        self.assertEqual(trainers_of(self.run_dir(run)), {}, "pause returned before the processes were gone")
        self.assertIsNone(mpirun_of(self.run_dir(run)))
        status = json.loads(self.cli("daemon", "status", "-o", "json").stdout)
        self.assertEqual(status["free_slots"], status["slots"])
        self.verify(run)
        self.cli("resume", run)
        self.wait_state(run, "COMPLETED", timeout=180)
        self.assertEqual(bits(self.run_dir(run)), bits(self.run_dir(calm)))
        self.assertEqual(rows(self.run_dir(run)), rows(self.run_dir(calm)))

    def test_hold_keeps_the_processes_and_is_back_in_under_a_second(self):
        run = self.start_long()
        before = trainers_of(self.run_dir(run))
        self.cli("pause", "--hold", run)
        steps = {re.findall(r"holds after step (\d+)", log)[-1] for log in self.rank_logs(run).values()}
        self.assertEqual(len(steps), 1, "all ranks hold after the same step")
        self.assertEqual(self.state_of(run), "PAUSED")
        self.assertEqual(trainers_of(self.run_dir(run)), before)
        held = self.step_of(run)
        self.assertEqual(checkpoints(self.run_dir(run))[-1].name, f"step-{held:09d}")
        began = time.monotonic()
        self.cli("resume", run)
        wait_for("a new step", lambda: self.step_of(run) > held, 10, 0.01)
        self.assertLess(time.monotonic() - began, 1.5, "hold and back took too long")
        self.assertEqual(trainers_of(self.run_dir(run)), before)

    def test_checkpoint_returns_when_durable_with_the_step(self):
        run = self.start_long()
        out = self.cli("checkpoint", run, "-o", "json").stdout
        step = json.loads(out)["checkpoint"]["step"]
        self.assertEqual(checkpoints(self.run_dir(run))[-1].name, f"step-{step:09d}")
        self.verify(run)
        self.assertEqual({re.findall(r"saves after step (\d+)", log)[-1] for log in self.rank_logs(run).values()},
                         {str(step)})
        self.assertEqual(self.state_of(run), "RUNNING")

    def test_stop_saves_and_all_ranks_leave_after_the_same_step(self):
        run = self.start_long()
        self.cli("stop", run)
        self.assertEqual(self.state_of(run), "STOPPED")
        self.assertEqual(trainers_of(self.run_dir(run)), {})
        steps = {name: re.findall(r"rank \d+ leaves after step (\d+)", log) for name, log in self.rank_logs(run).items()}
        self.assertEqual(len(steps), 2)
        self.assertEqual(len({tuple(s) for s in steps.values()}), 1, steps)
        self.assertEqual(checkpoints(self.run_dir(run))[-1].name, f"step-{int(steps['rank-0.log'][0]):09d}")
        self.assertEqual(self.cli("wait", run, expect=None).returncode, 9)
        self.assertEqual(self.cli("resume", run, expect=None).returncode, 4)

    def test_kill_ends_at_once_without_saving(self):
        run = self.start_long()
        self.cli("kill", run)
        wait_for("the processes to be gone", lambda: not trainers_of(self.run_dir(run)), 5)
        self.assertEqual(checkpoints(self.run_dir(run)), [])
        self.assertIn(self.state_of(run), ("STOPPED", "FAILED"))

    def test_runs_queue_for_slots_and_start_in_order(self):
        first = self.start_long(slow_config(ranks=4, **LONG))
        second = self.submit(config(name="second", ranks=2))
        third = self.submit(config(name="third", ranks=2))
        urgent = self.submit(config(name="urgent", ranks=4, extra="priority: 5\n"))
        self.assertEqual([self.state_of(r) for r in (second, third, urgent)], ["QUEUED"] * 3)
        self.assertEqual(self.describe(urgent)["queue_position"], 1)
        self.cli("stop", first)
        for run in (urgent, second, third):
            self.wait_state(run, "COMPLETED", timeout=120)
        started = {r: self.describe(r)["started"] for r in (urgent, second, third)}
        self.assertLessEqual(started[urgent], started[second])
        self.assertLessEqual(started[second], started[third])
        refused = self.cli("submit", str(self.write("big.yaml", config(ranks=64, batch=64))), expect=8)
        self.assertIn("slots", refused.stderr)

    def test_a_wrong_file_is_refused_with_every_problem(self):
        bad = config().replace("optimizer:", "optimiser:").replace("steps", "st") + "seed: 010\n"
        done = self.cli("submit", str(self.write("bad.yaml", bad)), expect=2)
        self.assertRegex(done.stderr, r"bad\.yaml:\d+:\d+: .*optimiser")
        self.assertRegex(done.stderr, r"bad\.yaml:\d+:\d+: .*seed")
        self.assertEqual(self.cli("list", "--ids").stdout.strip(), "")

    def test_ctrl_c_on_a_followed_run_leaves_it_running_and_says_so(self):
        file = self.write("run.yaml", slow_config(**LONG))
        follower = subprocess.Popen([CLI, "--socket", str(self.socket), "run", str(file)], stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        self.processes.append(follower)
        run = wait_for("the run", lambda: self.cli("list", "--ids").stdout.strip())
        self.wait_step(run, 2)
        follower.send_signal(signal.SIGINT)
        out, err = follower.communicate(timeout=10)
        self.assertEqual(follower.returncode, 130)
        self.assertIn("still running", (out + err).lower().replace("goes on", "still running"))
        step = self.step_of(run)
        self.wait_step(run, step + 3)

    def test_a_plain_mpirun_run_registers_and_obeys(self):
        file = self.write("run.yaml", slow_config(name="by-hand", **LONG))
        process = self.mpirun(2, file, self.folder / "hand", "--coordinator", str(self.socket), background=True)
        run = wait_for("the run to register", lambda: self.cli("list", "--ids").stdout.strip())
        self.wait_step(run, 2)
        self.assertTrue(self.describe(run)["external"])
        self.cli("checkpoint", run)
        self.assertTrue(checkpoints(self.folder / "hand"))
        self.cli("stop", run)
        self.assertEqual(process.wait(20), 9)
        self.assertEqual(self.state_of(run), "STOPPED")

    def test_a_full_disk_pauses_the_run_and_loses_nothing(self):
        disk = self.state / "runs"
        disk.mkdir(exist_ok=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"cannot mount a small tmpfs here: {mounted.stderr.strip()}")
        self.addCleanup(lambda: subprocess.run(["umount", "-l", str(disk)], check=False))
        (disk / "filler").write_bytes(b"\0" * (2 * 1024 * 1024 - 128 * 1024))
        run = self.submit(config(steps=30))
        self.wait_state(run, "PAUSED")
        self.assertIn("disk full", self.describe(run)["reason"])
        self.assertEqual(len(trainers_of(self.run_dir(run))), 2, "their memory is the only copy")
        (disk / "filler").unlink()
        self.cli("resume", run)
        self.wait_state(run, "COMPLETED")
        calm = self.folder / "calm"
        self.train(2, self.write("calm.yaml", config(steps=30)), calm)
        self.assertEqual(bits(self.run_dir(run)), bits(calm))

    def test_logs_show_what_a_rank_said(self):
        run = self.submit(config(steps=10))
        self.wait_state(run, "COMPLETED")
        self.assertIn("evaluation  step 10", self.cli("logs", run).stdout)
        self.assertIn("rank 1 leaves after step 10", self.cli("logs", "--rank", "1", run).stdout)


class NoDaemonTest(support.Daemon):
    def test_without_a_daemon_every_verb_says_how_to_start_one(self):
        began = time.monotonic()
        done = self.cli("list", expect=5)
        self.assertLess(time.monotonic() - began, 2)
        self.assertIn("lockstep daemon start", done.stderr)

    def test_a_second_daemon_on_the_same_state_is_refused_with_the_holders_pid(self):
        self.start_daemon()
        second = subprocess.run([support.DAEMON, "--state-dir", str(self.state), "--socket", str(self.folder / "other.sock"),
                                 "--set", "metrics_address=127.0.0.1:0"], capture_output=True, text=True, timeout=20)
        self.assertEqual(second.returncode, 4, second.stderr)
        self.assertIn(str(self.daemon.pid), second.stderr)


if __name__ == "__main__":
    support.main()
