"""kill -9 of a rank, of mpirun, of the coordinator; a stopped rank: each run finishes by itself with the bits of an undisturbed one."""
import os
import signal
import time

import support
from support import bits, checkpoints, mpirun_of, rows, slow_config, trainers_of, wait_for

STEPS = 240  # A few seconds: a crash is seen long before the end.
SECTIONS = {"checkpoint": "{every: 30st, keep_last: 2}", "restart": "{backoff_seconds: 0.2, stall_timeout_seconds: 4}"}


class CrashTest(support.Daemon):
    calm = None

    def setUp(self):
        super().setUp()
        self.start_daemon()
        self.text = slow_config(steps=STEPS, sections=SECTIONS)
        if CrashTest.calm is None:
            run = self.submit(self.text)
            self.wait_state(run, "COMPLETED", timeout=120)
            CrashTest.calm = bits(self.run_dir(run)), rows(self.run_dir(run))

    def start(self, saved=30):
        run = self.submit(self.text)
        wait_for(f"the checkpoint of step {saved}",
                 lambda: any(c.name >= f"step-{saved:09d}" for c in checkpoints(self.run_dir(run))))
        return run

    def check_finished_as_undisturbed(self, run, restarts):
        self.wait_state(run, "COMPLETED", timeout=120)
        self.assertEqual((bits(self.run_dir(run)), rows(self.run_dir(run))), CrashTest.calm)
        if restarts is not None:
            self.assertEqual(self.describe(run)["restarts"], restarts)

    def kill(self, run, pid):
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_for("the crash to be seen", lambda: self.describe(run)["restarts"] >= 1 or
                 self.state_of(run) == "RECOVERING", 10, 0.02)
        self.assertLess(time.monotonic() - killed, 4, "a crash must be seen within about two seconds")
        self.check_finished_as_undisturbed(run, 1)

    def test_kill_rank_0(self):
        run = self.start()
        self.kill(run, trainers_of(self.run_dir(run))[0])

    def test_kill_rank_1(self):
        run = self.start()
        self.kill(run, trainers_of(self.run_dir(run))[1])

    def test_kill_mpirun(self):
        run = self.start()
        self.kill(run, mpirun_of(self.run_dir(run)))
        self.assertEqual(trainers_of(self.run_dir(run)), {}, "no orphan may be left")

    def test_kill_coordinator_for_twenty_seconds(self):
        self.text = slow_config(steps=100000, sections=SECTIONS)
        run = self.start()
        before = trainers_of(self.run_dir(run))
        self.daemon.kill()
        self.daemon.wait()
        time.sleep(20)  # The time that the coordinator is down is what is tested.
        self.assertEqual(trainers_of(self.run_dir(run)), before, "the run must go on without it")
        step = max(int(c.name.split("-")[1]) for c in checkpoints(self.run_dir(run)))
        self.start_daemon()
        wait_for("the run to be found again", lambda: self.state_of(run) == "RUNNING" and self.step_of(run) >= step, 5)
        self.assertEqual(trainers_of(self.run_dir(run)), before)
        self.cli("checkpoint", run)
        self.cli("stop", run)
        self.assertEqual(self.state_of(run), "STOPPED")

    def test_coordinator_killed_and_back_while_the_run_finishes(self):
        run = self.start()
        self.daemon.kill()
        self.daemon.wait()
        wait_for("the run to finish without it", lambda: (self.run_dir(run) / "result.json").exists(), 90)
        wait_for("the processes to be gone", lambda: not trainers_of(self.run_dir(run)), 20)
        self.start_daemon()
        self.check_finished_as_undisturbed(run, 0)

    def test_everything_killed_at_once(self):
        run = self.start()
        queued = self.submit(slow_config(name="queued", ranks=4, steps=5))
        self.daemon.kill()
        for pid in [mpirun_of(self.run_dir(run)), *trainers_of(self.run_dir(run)).values()]:
            if pid:
                os.kill(pid, signal.SIGKILL)
        self.daemon.wait()
        self.start_daemon()
        self.check_finished_as_undisturbed(run, None)
        self.wait_state(queued, "COMPLETED", timeout=60)

    def test_a_stopped_rank_is_named_and_the_run_recovers(self):
        run = self.start()
        pid = trainers_of(self.run_dir(run))[1]
        os.kill(pid, signal.SIGSTOP)
        wait_for("the hang to be seen", lambda: self.describe(run)["attempt"] == 2 or self.state_of(run) == "RECOVERING", 40)
        text = (self.run_dir(run) / "attempt-1" / "hang.txt").read_text()
        self.assertIn("rank 1", text)
        self.assertIn(str(pid), text)
        self.assertIn("rank 1", self.daemon_log())
        self.check_finished_as_undisturbed(run, 1)

    def test_a_run_that_crashes_without_progress_fails_with_the_reason(self):
        self.text = slow_config(steps=100000, sections={
            "checkpoint": "{every: 100000st}", "restart": "{max_restarts: 2, backoff_seconds: 0.1}"})
        run = self.submit(self.text)
        for attempt in (1, 2, 3):
            # A rank that dies before MPI has started is sometimes not named by mpirun.
            wait_for(f"attempt {attempt}", lambda: self.describe(run)["attempt"] == attempt and
                     self.state_of(run) == "RUNNING", 30)
            os.kill(trainers_of(self.run_dir(run))[1], signal.SIGKILL)
            wait_for("its end", lambda: self.describe(run)["attempt"] > attempt or self.state_of(run) == "FAILED", 30)
        self.assertEqual(self.state_of(run), "FAILED")
        self.assertIn("rank 1", self.describe(run)["reason"])
        self.assertEqual(self.cli("wait", run, expect=None).returncode, 1)


if __name__ == "__main__":
    support.main()
