"""--profile: a trace with every rank's phases and collectives, which changes nothing about the run."""
import json

import support
from support import bits, config

# Nanoseconds in a file of microseconds, read as floats.
ROUNDING = 0.002


def read(path):
    """{rank: {row: events}} of a trace, each row in order of time."""
    ranks = {}
    for event in json.loads(path.read_text())["traceEvents"]:
        rows = ranks.setdefault(event["pid"], {})
        if event["ph"] == "X":
            rows.setdefault(event["cat"], []).append(event)
    for rows in ranks.values():
        for events in rows.values():
            events.sort(key=lambda event: event["ts"])
    return ranks


def end(event):
    return event["ts"] + event["dur"]


class ProfileTest(support.Folder):
    def setUp(self):
        super().setUp()
        self.file = self.write("run.yaml", config(steps=20))
        self.trace = self.folder / "trace.json"

    def profile(self, ranks, *arguments, run="run"):
        out = self.train(ranks, self.file, self.folder / run, "--profile", str(self.trace), *arguments)
        return out, read(self.trace) if self.trace.exists() else None

    def test_every_rank_shows_its_steps_phases_and_collectives(self):
        self.train(2, self.file, self.folder / "calm")
        out, ranks = self.profile(2, "--profile-steps", "8:13")
        self.assertIn(str(self.trace), out)
        self.assertEqual(sorted(ranks), [0, 1])
        for rows in ranks.values():
            self.assertEqual([step["name"] for step in rows["steps"]], [f"step {i}" for i in range(8, 13)])
            for events in rows.values():
                for event in events:
                    self.assertGreaterEqual(event["dur"], 0)
            for step in rows["steps"]:
                inside = [p for p in rows["phases"] if step["ts"] <= p["ts"] + ROUNDING and end(p) <= end(step) + ROUNDING]
                self.assertLessEqual({"data_wait", "forward", "backward", "allreduce_exposed", "optimizer"},
                                     {phase["name"] for phase in inside})
                # Every moment of a step belongs to exactly one phase.
                self.assertAlmostEqual(inside[0]["ts"], step["ts"], delta=ROUNDING)
                self.assertAlmostEqual(end(inside[-1]), end(step), delta=ROUNDING)
                for one, next_one in zip(inside, inside[1:]):
                    self.assertAlmostEqual(end(one), next_one["ts"], delta=ROUNDING)
                reduced = [c for c in rows["collectives"] if c["name"] == "all-reduce" and step["ts"] <= c["ts"] < end(step)]
                self.assertTrue(reduced)
                self.assertGreater(max(event["args"]["bytes"] for event in reduced), 1000)
            # The steps touch, and the evaluation after the tenth is in its step.
            self.assertIn("eval", [phase["name"] for phase in rows["phases"]])
        # Both ranks are in the same all-reduce at the same time: one clock.
        for mine, other in zip(ranks[0]["steps"], ranks[1]["steps"]):
            self.assertLess(mine["ts"], end(other))
            self.assertLess(other["ts"], end(mine))
        self.assertEqual(bits(self.folder / "run"), bits(self.folder / "calm"), "looking changes nothing")

    def test_a_checkpoint_shows_its_stall_and_its_write(self):
        _, ranks = self.profile(2, "--profile-steps", "8:20")
        write = [event for event in ranks[0]["checkpoint writes"] if event["name"] == "step 10"]
        self.assertEqual(len(write), 1)
        self.assertGreater(write[0]["args"]["bytes"], 1000)
        stalls = [phase for phase in ranks[0]["phases"] if phase["name"] == "checkpoint_stall"]
        self.assertTrue([stall for stall in stalls if stall["ts"] <= write[0]["ts"]], "the copy comes first")
        self.assertNotIn("checkpoint writes", ranks[1], "rank 0 writes")

    def test_the_operators_are_within_their_steps(self):
        _, ranks = self.profile(1, "--profile-steps", "2:4", "--profile-ops")
        rows = ranks[0]
        self.assertIn("aten::convolution", {event["name"] for event in rows["operators"]})
        first, last = rows["steps"][0]["ts"], end(rows["steps"][-1])
        for event in rows["operators"]:
            # LibTorch has a clock of its own, set by the real time once.
            self.assertGreater(event["ts"], first - 1000)
            self.assertLess(end(event), last + 1000)

    def test_a_run_that_ends_early_shows_what_there_was(self):
        _, ranks = self.profile(2, "--profile-steps", "18:100")
        self.assertEqual([step["name"] for step in ranks[1]["steps"]], ["step 18", "step 19"])

    def test_steps_are_counted_from_where_the_attempt_began(self):
        self.train(2, self.file, self.folder / "run", "--set", "training.duration=10st")
        _, ranks = self.profile(2, "--profile-steps", "1:3")
        self.assertEqual([step["name"] for step in ranks[0]["steps"]], ["step 11", "step 12"])

    def test_a_run_that_never_gets_there_says_so(self):
        out, ranks = self.profile(2, "--profile-steps", "100:110")
        self.assertIn("nothing was recorded", out)
        self.assertIsNone(ranks)

    def test_a_trace_that_cannot_be_written_does_not_end_the_run(self):
        self.trace = self.folder / "absent" / "trace.json"
        out, _ = self.profile(1)
        self.assertIn("--profile:", out)

    def test_steps_that_make_no_sense_are_refused(self):
        for steps in ("5", "5:5", "7:3", "-1:4", "1:2x", "0:5000"):
            out = self.train(1, self.file, self.folder / "run", "--profile", str(self.trace), f"--profile-steps={steps}",
                             expect=2)
            self.assertIn("FIRST:END", out)


if __name__ == "__main__":
    support.main()
