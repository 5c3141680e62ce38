"""Every shell script passes shellcheck, every Python one compiles, every script tells its usage."""

import os
import pathlib
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(os.environ["LOCKSTEP_SOURCE_DIR"])
scripts = [path for path in [*(SOURCE / "scripts").iterdir(), SOURCE / ".ci/run"] if path.is_file() and os.access(path, os.X_OK)]
shell = [path for path in scripts if path.read_text().startswith("#!/bin/bash")]
shell += sorted((SOURCE / "tests").rglob("*.sh"))
python = [path for path in scripts if path.read_text().startswith("#!/usr/bin/python3")]
assert len(shell) >= 4 and len(python) >= 3, (shell, python)

for path in python:
    compile(path.read_text(), str(path), "exec")
for path in scripts:
    if path.name in ("run", "build"):  # .ci/run takes no arguments; build's usage is its answer to none.
        continue
    done = subprocess.run([path, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    if done.returncode != 0 or path.name not in done.stdout and "scripts/test" not in done.stdout:
        sys.exit(f"{path.name} --help: exit {done.returncode}\n{done.stdout}{done.stderr}")
if shutil.which("shellcheck") is None:
    print("SKIPPED: shellcheck is not installed (scripts/setup --dev installs it)")
    sys.exit(77)
sys.exit(subprocess.run(["shellcheck", *shell]).returncode)
