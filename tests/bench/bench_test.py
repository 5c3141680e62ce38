"""scripts/bench, as a user starts it: ends with 0, and its JSON holds what a reader of the figures needs."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ["LOCKSTEP_SOURCE_DIR"])
BINARIES = pathlib.Path(os.environ["LOCKSTEP_BINARY_DIR"])
sys.path.insert(0, str(SOURCE / "tests/bench"))
sys.dont_write_bytecode = True

import harness  # noqa: E402


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(77)


def check_row_arithmetic():
    row = harness.Row("R1", "what", "peer", 2).measured([1.0, 2.0, 4.0], [4.0, 4.0, 4.0])
    assert row.ratio == 2 and row.spread == (1, 4) and row.met is True, (row.ratio, row.spread)
    at_most = harness.Row("R1", "what", "peer", 1.15, at_most=True).measured([1.3], [1.0])
    assert at_most.ratio == 1.3 and at_most.met is False
    absent = harness.Row("R5", "what", "peer", 1.5).not_measured("no GPU | here")
    assert absent.met is None and "not measured: no GPU / here" in harness.table([absent])
    assert not absent.as_json()["measured"]


def check_usage():
    wrong = subprocess.run([SOURCE / "scripts/bench", "--only", "R99"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "no row R99" in wrong.stderr, wrong.stderr


def check_r1():
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "r1.md"
        done = subprocess.run([SOURCE / "scripts/bench", "--quick", "--only", "R1", "--no-build", "--out", out],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "| R1 |" in done.stdout and out.read_text() in done.stdout
        result = json.loads(out.with_suffix(".json").read_text())
    assert result["quick"] and result["profile"] == "cpu"
    assert result["machine"]["cores"] == os.cpu_count() and result["machine"]["cpu"]
    assert len(result["load_average"]["before"]) == 3
    assert result["versions"]["mpirun"] and "LibTorch" in result["versions"]["trainer"]
    assert any("bench-allreduce" in command for command in result["commands"])
    rows = {row["peer"]: row for row in result["rows"]}
    assert len(rows) == 3, rows
    for peer in ("MPI_Allreduce", "two threads of one process"):
        assert rows[peer]["measured"] and len(rows[peer]["ours"]) == len(rows[peer]["peer_samples"]) >= 3, rows[peer]
        assert rows[peer]["spread"][0] <= rows[peer]["ratio"] * 1.001 and min(rows[peer]["ours"]) > 0
    gloo = rows["gloo"]
    assert gloo["measured"] or gloo["reason"], gloo
    if not gloo["measured"]:
        print(f"without gloo: {gloo['reason']}")


if __name__ == "__main__":
    check_row_arithmetic()
    check_usage()
    if BINARIES != SOURCE / "build/cpu":
        skip("scripts/bench measures build/cpu, which is another build")
    # Not part of a build; this one takes some seconds.
    built = subprocess.run(["cmake", "--build", BINARIES, "--target", "bench-allreduce"], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:]
    check_r1()
