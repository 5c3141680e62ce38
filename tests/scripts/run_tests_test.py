"""scripts/run-tests counts cases, failures and skips as the programs told them."""

import importlib.machinery
import importlib.util
import os
import pathlib
import tempfile
import unittest

PATH = pathlib.Path(os.environ["LOCKSTEP_SOURCE_DIR"]) / "scripts/run-tests"
loader = importlib.machinery.SourceFileLoader("run_tests", str(PATH))
run_tests = importlib.util.module_from_spec(importlib.util.spec_from_loader("run_tests", loader))
loader.exec_module(run_tests)

GTEST = """[==========] Running 4 tests from 1 test suite.
[ RUN      ] A.Passes
[       OK ] A.Passes (0 ms)
[ RUN      ] A.Skips
/src/a_test.cc:75: Skipped
promtool is not
installed

[  SKIPPED ] A.Skips (0 ms)
[ RUN      ] A.Passes/2
[       OK ] A.Passes/2 (0 ms)
"""
FAILING = """[ RUN      ] A.Fails
/src/a_test.cc:80: Failure
[  FAILED  ] A.Fails (0 ms)
[==========] 4 tests from 1 test suite ran. (1 ms total)
[  FAILED  ] 1 test, listed below:
[  FAILED  ] A.Fails
"""


def results_of(*cases):
    """The results of a JUnit file with these (name, status, output) cases."""
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as junit:
        junit.write("<testsuite>")
        for name, status, output in cases:
            skipped = '<skipped message="SKIP_RETURN_CODE=77"/>' if status == "notrun" else ""
            junit.write(f'<testcase name="{name}" status="{status}">{skipped}<system-out>{output}</system-out></testcase>')
        junit.write("</testsuite>")
        junit.flush()
        results = run_tests.Results()
        run_tests.read_ctest("cpu", junit.name, results)
    return results


class RunTests(unittest.TestCase):
    def test_counts_the_cases_of_a_program(self):
        results = results_of(("a", "run", GTEST))
        self.assertEqual(results.passed, 2)
        self.assertEqual(results.failed, [])
        self.assertEqual(results.skipped, [("cpu: a A.Skips", "promtool is not installed")])

    def test_names_the_failed_case(self):
        results = results_of(("a", "fail", GTEST + FAILING))
        self.assertEqual(results.passed, 2)
        self.assertEqual([name for name, _ in results.failed], ["cpu: a (A.Fails)"])

    def test_a_program_that_ends_early_is_a_failure(self):
        results = results_of(("a", "fail", GTEST))
        self.assertEqual(len(results.failed), 1)
        self.assertIn("ended before", results.failed[0][0])

    def test_plain_programs_count_as_one(self):
        results = results_of(("a", "run", "fine"), ("b", "fail", "Traceback"), ("c", "notrun", "SKIPPED: no prometheus\n"))
        self.assertEqual(results.passed, 1)
        self.assertEqual(results.failed, [("cpu: b", "Traceback")])
        self.assertEqual(results.skipped, [("cpu: c", "no prometheus")])

    def test_lists_the_sources(self):
        self.assertIn("metrics/families.cc", run_tests.sources())


if __name__ == "__main__":
    unittest.main()
