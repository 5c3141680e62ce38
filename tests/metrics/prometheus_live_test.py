"""A real Prometheus scrapes the moving sample and every query of the dashboards must return data.

usage: prometheus_live_test.py METRICS_SAMPLE_ENDPOINT; exits 77 where Prometheus is not installed.
"""

import os
import pathlib
import subprocess
import sys

CHECK = pathlib.Path(os.environ["LOCKSTEP_SOURCE_DIR"]) / "scripts/check-dashboard"


def run_check(address, run, wait):
    done = subprocess.run(
        [CHECK, address, run, "--wait", str(wait)], capture_output=True, text=True, timeout=100
    )
    print(done.stdout + done.stderr)
    return done.returncode


# The sample ends when its standard input closes, so it cannot be left behind.
with subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sample:
    address = sample.stdout.readline().split()[1]
    code = run_check(address, "live", 40)
    if code == 0 and run_check(address, "no-such-run", 1) != 1:
        sys.exit("a run that does not exist must have no data")
    sample.stdin.close()
sys.exit(code)
