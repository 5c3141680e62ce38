"""Holds the dashboards, rules and provisioning against what the endpoint exports.

usage: dashboard_test.py METRICS_SAMPLE_ENDPOINT
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

SOURCE = pathlib.Path(os.environ["LOCKSTEP_SOURCE_DIR"])
DASHBOARDS = sorted((SOURCE / "metrics/grafana/dashboards").glob("*.json"))
ENDPOINT = sys.argv.pop(1)


def exported_series():
    """Names of all series of a full sample: histograms as their _bucket, _sum and _count."""
    text = subprocess.run([ENDPOINT, "--print"], check=True, capture_output=True, text=True).stdout
    return {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}


def exported_labels():
    text = subprocess.run([ENDPOINT, "--print"], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r'[{,]([a-z_]+)="', text))


def metrics_in(query):
    return set(re.findall(r"(?<![\w:])lockstep_\w+", query))


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


class Dashboards(unittest.TestCase):
    def setUp(self):
        self.boards = [json.loads(path.read_text()) for path in DASHBOARDS]
        self.assertTrue(self.boards, "no dashboard found")

    def test_every_metric_is_exported(self):
        known = exported_series()
        for board in self.boards:
            for panel in panels(board):
                for target in panel["targets"]:
                    named = metrics_in(target["expr"])
                    self.assertTrue(named, f"{panel['title']} asks for no metric of ours")
                    self.assertLessEqual(named, known, panel["title"])
            for variable in board["templating"]["list"]:
                self.assertLessEqual(metrics_in(str(variable["query"])), known, variable["name"])

    def test_every_label_is_exported(self):
        known = exported_labels() | {"job", "instance", "le"}
        for board in self.boards:
            for panel in panels(board):
                for target in panel["targets"]:
                    grouped = re.findall(r"(?:by|on|ignoring|group_left) \(([^)]*)\)", target["expr"])
                    labels = {label.strip() for group in grouped for label in group.split(",") if label.strip()}
                    labels |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                    self.assertLessEqual(labels, known, panel["title"])

    def test_boards_have_a_fixed_uid_a_unique_title_and_no_id(self):
        for board in self.boards:
            self.assertRegex(board["uid"], r"^lockstep-[a-z-]+$")
            self.assertNotIn("id", board)
        self.assertEqual(len({board["title"] for board in self.boards}), len(self.boards))
        self.assertEqual(len({board["uid"] for board in self.boards}), len(self.boards))

    def test_panels_have_title_description_unit_and_the_templated_data_source(self):
        for board in self.boards:
            titles = [panel["title"] for panel in panels(board)]
            self.assertEqual(len(set(titles)), len(titles), "titles differ")
            for panel in panels(board):
                self.assertTrue(panel["title"])
                self.assertTrue(panel["description"].endswith("."), panel["title"])
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])
                self.assertEqual(panel["datasource"]["uid"], "${datasource}", panel["title"])

    def test_every_rate_takes_the_rate_interval(self):
        rates = 0
        for board in self.boards:
            for panel in panels(board):
                for target in panel["targets"]:
                    for window in re.findall(r"\[([^\]]*)\]", target["expr"]):
                        rates += 1
                        self.assertEqual(window, "$__rate_interval", panel["title"])
                    self.assertEqual(
                        len(re.findall(r"\b(?:rate|irate|increase)\(", target["expr"])),
                        target["expr"].count("[$__rate_interval]"),
                        panel["title"],
                    )
        self.assertGreater(rates, 5)

    def test_every_query_matches_job_and_instance(self):
        for board in self.boards:
            self.assertEqual(
                [variable["name"] for variable in board["templating"]["list"]],
                ["datasource", "job", "instance", "run"],
            )
            for panel in panels(board):
                for target in panel["targets"]:
                    for selector in re.findall(r"lockstep_\w+(\{[^}]*\})?", target["expr"]):
                        self.assertIn('job="$job", instance="$instance"', selector, panel["title"])

    def test_panels_do_not_overlap(self):
        for board in self.boards:
            taken = set()
            for panel in board["panels"]:
                box = panel["gridPos"]
                cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
                self.assertFalse(cells & taken, panel["title"])
                self.assertLessEqual(box["x"] + box["w"], 24)
                taken |= cells


class Rules(unittest.TestCase):
    def setUp(self):
        self.text = (SOURCE / "metrics/prometheus/rules.yml").read_text()

    def test_every_metric_is_exported(self):
        code = re.sub(r"^\s*#.*$", "", self.text, flags=re.M)
        named = metrics_in(code)
        self.assertGreater(len(named), 5)
        self.assertLessEqual(named, exported_series())

    def test_every_rule_has_a_case(self):
        cases = (SOURCE / "tests/metrics/rules_test.yml").read_text()
        names = re.findall(r"- (?:alert|record): (\S+)", self.text)
        self.assertGreater(len(names), 5)
        for name in names:
            self.assertIn(name, cases)


class Provisioning(unittest.TestCase):
    def test_files_are_version_1_and_read_only(self):
        folder = SOURCE / "metrics/grafana/provisioning"
        sources = (folder / "datasources/prometheus.yaml").read_text()
        boards = (folder / "dashboards/lockstep.yaml").read_text()
        self.assertIn("apiVersion: 1", sources)
        self.assertIn("type: prometheus", sources)
        self.assertIn("apiVersion: 1", boards)
        self.assertIn("type: file", boards)
        self.assertIn("allowUiUpdates: false", boards)


if __name__ == "__main__":
    unittest.main()
