"""A real Prometheus scrapes the moving sample, in which everything has a value: every query of the dashboards must return data.

usage: prometheus_live_test.py METRICS_SAMPLE_ENDPOINT; exits 77 where Prometheus is not installed.
"""

import os
import pathlib
import subprocess
import sys

CHECK = pathlib.Path(os.environ["LOCKSTEP_SOURCE_DIR"]) / "scripts/check-dashboard"


def run_check(address, run, wait, *options):
    done = subprocess.run(
        [CHECK, address, run, "--wait", str(wait), *options], capture_output=True, text=True, timeout=100
    )
    return done.returncode, done.stdout + done.stderr


# The sample ends when its standard input closes, so it cannot be left behind.
with subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sample:
    address = sample.stdout.readline().split()[1]
    code, said = run_check(address, "live", 40, "--strict")
    print(said)
    if code == 0:
        other, said = run_check(address, "no-such-run", 6, "--board", "run")
        if other != 1 or "0 of " not in said or "does not offer no-such-run" not in said:
            sys.exit("a run that does not exist must have no data:\n" + said)
    sample.stdin.close()
sys.exit(code)
