"""Holds the dashboards, rules, provisioning and the compose file against what the endpoint exports and against their rules.

usage: dashboard_test.py METRICS_SAMPLE_ENDPOINT
"""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

import yaml
from dashboard_lint import HISTOGRAM_PARTS, METRIC, exported_metrics, lint, panels_of

SOURCE = pathlib.Path(os.environ["LOCKSTEP_SOURCE_DIR"])
RULES = (SOURCE / "metrics/prometheus/rules.yml").read_text()
ENDPOINT = sys.argv.pop(1)
SAMPLE = subprocess.run([ENDPOINT, "--print"], check=True, capture_output=True, text=True).stdout
EXPORTED = exported_metrics(SAMPLE, RULES)
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((SOURCE / "metrics/grafana/dashboards").glob("*.json"))}


class Dashboards(unittest.TestCase):
    def test_the_four_of_them_are_without_fault(self):
        self.assertEqual(sorted(BOARDS), ["cost", "fleet", "gpus", "run"])
        self.assertEqual(lint(BOARDS.values(), EXPORTED), [])

    def test_they_are_what_the_script_writes(self):
        done = subprocess.run([SOURCE / "scripts/make-dashboards", "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_every_metric_of_a_run_is_on_a_panel(self):
        """What nobody looks at need not be exported; the few that are there to be joined or for other eyes are named."""
        shown = {name for board in BOARDS.values() for panel in panels_of(board) for target in panel["targets"]
                 for name, _ in METRIC.findall(target["expr"])}
        joined = {"lockstep_build_info", "lockstep_price_info", "lockstep_allreduce_bytes_total",
                  "lockstep_run_last_step_timestamp_seconds", "lockstep_run_budget_limit"}
        family = lambda name: next((name.removesuffix(part) for part in HISTOGRAM_PARTS if name.endswith(part)), name)
        exported = {family(name) for name in EXPORTED if not ":" in name}
        self.assertEqual(exported - {family(name) for name in shown} - joined, set())


class Lint(unittest.TestCase):
    """Each rule bites: a good board with one fault gets exactly the complaint about it."""

    def setUp(self):
        self.board = copy.deepcopy(BOARDS["run"])
        self.panel = panels_of(self.board)[0]
        self.target = self.panel["targets"][0]

    def complains(self, about):
        complaints = lint([self.board, BOARDS["fleet"]], EXPORTED)
        self.assertTrue(complaints, f"nothing said about: {about}")
        for complaint in complaints:
            self.assertIn(about, complaint)

    def test_a_board_without_fault_has_no_complaint(self):
        self.assertEqual(lint([self.board, BOARDS["fleet"]], EXPORTED), [])

    def test_uid(self):
        self.board["uid"] = None
        self.complains("uid is not")

    def test_uid_of_another(self):
        self.board["uid"] = BOARDS["fleet"]["uid"]
        self.complains("two dashboards have this uid")

    def test_title_of_another(self):
        self.board["title"] = BOARDS["fleet"]["title"]
        self.complains("two dashboards have this title")

    def test_id(self):
        self.board["id"] = 4
        self.complains("has an id")

    def test_variables(self):
        for name in ("datasource", "job", "instance", "run"):
            with self.subTest(name):
                self.setUp()
                self.board["templating"]["list"] = [v for v in self.board["templating"]["list"] if v["name"] != name]
                self.complains(f"has no variable {name}")

    def test_data_source_of_a_variable(self):
        self.board["templating"]["list"][1]["datasource"] = {"type": "prometheus", "uid": "abc"}
        self.complains("variable job names a data source")

    def test_metric_of_a_variable(self):
        self.board["templating"]["list"][1]["query"]["query"] = "label_values(lockstep_bild_info, job)"
        self.complains("lockstep_bild_info, which is not exported")

    def test_panel_title(self):
        self.panel["title"] = ""
        self.complains("no title")

    def test_panel_title_of_another(self):
        self.panel["title"] = panels_of(self.board)[1]["title"]
        self.complains("two panels have this title")

    def test_variable_in_a_title(self):
        self.panel["title"] = "Cost, $curency"
        self.complains("there is no variable curency")

    def test_description(self):
        for wrong in ("", "not a sentence"):
            self.panel["description"] = wrong
            self.complains("no description")

    def test_unit(self):
        del self.panel["fieldConfig"]["defaults"]["unit"]
        self.complains("no unit")

    def test_unit_that_grafana_does_not_have(self):
        for wrong in ("watts", "suffix: samples/s"):
            self.panel["fieldConfig"]["defaults"]["unit"] = wrong
            self.complains("there is no unit")

    def test_kind_of_panel_that_grafana_does_not_have(self):
        self.panel["type"] = "graph"
        self.complains("there is no panel of type graph")

    def test_bars_that_turn_red_by_themselves(self):
        self.panel["type"] = "bargauge"
        self.complains("red from 80 on")

    def test_current_value_of_a_variable(self):
        del self.board["templating"]["list"][0]["current"]
        self.complains("variable datasource has no current value")

    def test_data_source_of_a_panel(self):
        self.panel["datasource"] = {"type": "prometheus", "uid": "abc"}
        self.complains("names a data source")

    def test_data_source_of_a_query(self):
        self.target["datasource"] = {"type": "prometheus", "uid": "abc"}
        self.complains("a query names a data source")

    def test_no_query(self):
        self.panel["targets"] = []
        self.complains("asks nothing")

    def test_ref_ids(self):
        self.panel["targets"].append(copy.deepcopy(self.target))
        self.complains("two queries have one refId")

    def test_legend(self):
        self.target["legendFormat"] = ""
        self.complains("a query has no legend")

    def test_metric_that_is_not_ours(self):
        self.target["expr"] = "up"
        self.target["legendFormat"] = "up"
        self.complains("asks for no metric of ours")

    def test_metric_that_is_not_exported(self):
        self.target["expr"] = self.target["expr"].replace("progress", "advance")
        self.target["legendFormat"] = "x"
        self.complains("lockstep_run_advance_ratio is not exported")

    def test_recorded_metric_that_is_not_recorded(self):
        self.target["expr"] = 'run:lockstep_run_cost:per_day{job="$job", instance="$instance", run=~"$run"}'
        self.target["legendFormat"] = "x"
        self.complains("run:lockstep_run_cost:per_day is not exported")

    def test_matchers(self):
        for matcher in ('job="$job"', 'instance="$instance"', 'run=~"$run"'):
            with self.subTest(matcher):
                self.setUp()
                self.target["expr"] = self.target["expr"].replace(matcher, 'phase!=""')
                self.complains(f"lacks {matcher}")

    def test_matchers_of_alerts(self):
        self.target["expr"] = 'count(ALERTS{alertstate="firing"})'
        self.target["legendFormat"] = "x"
        self.complains("ALERTS lacks")

    def test_label_that_no_metric_has(self):
        self.target["legendFormat"] = "{{rnak}}"
        self.complains("no metric of the query has the label rnak")
        self.setUp()
        self.target["expr"] = f"sum by (rnak) ({self.target['expr']})"
        self.complains("no metric of the query has the label rnak")

    def test_window(self):
        self.target["expr"] = 'rate(lockstep_run_samples_total{job="$job", instance="$instance", run=~"$run"}[5m])'
        self.complains("a window of 5m")

    def test_rate_without_a_window(self):
        self.target["expr"] = 'rate(lockstep_run_samples_total{job="$job", instance="$instance", run=~"$run"})'
        self.complains("a rate without a window")

    def test_buckets_without_a_quantile(self):
        self.target["expr"] = ('rate(lockstep_run_step_duration_seconds_bucket{job="$job", instance="$instance", run=~"$run"}'
                               '[$__rate_interval])')
        self.complains("without histogram_quantile")

    def test_overlap(self):
        self.panel["gridPos"]["y"] += 1
        self.complains("overlaps")

    def test_beyond_the_edge(self):
        panel = max(panels_of(self.board), key=lambda panel: panel["gridPos"]["x"])
        panel["gridPos"]["w"] += 12
        self.complains("overlaps another panel or the edge")

    def test_panel_ids(self):
        self.panel["id"] = panels_of(self.board)[1]["id"]
        self.complains("two panels have its id")


class Rules(unittest.TestCase):
    def test_every_metric_is_exported(self):
        code = re.sub(r"^\s*#.*$", "", RULES, flags=re.M)
        named = {name for name, _ in METRIC.findall(code)}
        self.assertGreater(len(named), 20)
        self.assertLessEqual(named, set(EXPORTED))

    def test_every_rule_has_a_case_and_every_alert_one_in_which_it_is_silent(self):
        cases = yaml.safe_load((SOURCE / "tests/metrics/rules_test.yml").read_text())["tests"]
        alerts = [case for test in cases for case in test.get("alert_rule_test", [])]
        queries = " ".join(case["expr"] for test in cases for case in test.get("promql_expr_test", []))
        rules = [rule for group in yaml.safe_load(RULES)["groups"] for rule in group["rules"]]
        self.assertGreater(len(rules), 20)
        for rule in rules:
            if "record" in rule:
                self.assertIn(rule["record"], queries)
                continue
            own = [case for case in alerts if case["alertname"] == rule["alert"]]
            self.assertTrue(any(case["exp_alerts"] for case in own), f"{rule['alert']} never fires in a test")
            self.assertTrue(any(not case["exp_alerts"] for case in own), f"{rule['alert']} is never silent in a test")

    def test_every_alert_says_what_and_what_to_do(self):
        for rule in (rule for group in yaml.safe_load(RULES)["groups"] for rule in group["rules"] if "alert" in rule):
            self.assertIn(rule["labels"]["severity"], ("warning", "critical"), rule["alert"])
            self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"], rule["alert"])


class Provisioning(unittest.TestCase):
    FOLDER = SOURCE / "metrics/grafana/provisioning"

    def test_files_are_version_1_and_read_only(self):
        source = yaml.safe_load((self.FOLDER / "datasources/prometheus.yaml").read_text())
        boards = yaml.safe_load((self.FOLDER / "dashboards/lockstep.yaml").read_text())
        self.assertEqual((source["apiVersion"], boards["apiVersion"]), (1, 1))
        self.assertEqual([one["type"] for one in source["datasources"]], ["prometheus"])
        self.assertEqual([(one["type"], one["allowUiUpdates"]) for one in boards["providers"]], [("file", False)])


class Compose(unittest.TestCase):
    FILE = SOURCE / "metrics/compose.yaml"

    def setUp(self):
        self.services = yaml.safe_load(self.FILE.read_text())["services"]

    def mounts(self):
        for service in self.services.values():
            for volume in service.get("volumes", []):
                yield volume.split(":")

    def test_versions_are_pinned(self):
        self.assertEqual(sorted(self.services), ["grafana", "prometheus"])
        for service in self.services.values():
            self.assertRegex(service["image"], r"^[a-z./-]+:v?\d+\.\d+\.\d+$")

    def test_everything_mounted_is_there_and_read_only(self):
        ours = [mount for mount in self.mounts() if mount[0].startswith(".")]
        self.assertGreaterEqual(len(ours), 3)
        for source, target, *mode in ours:
            self.assertTrue((self.FILE.parent / source).exists(), source)
            self.assertTrue(target.startswith("/"))
            self.assertEqual(mode, ["ro"], source)

    def test_the_dashboards_are_where_the_provisioning_looks(self):
        inside = self.services["grafana"]["environment"]["LOCKSTEP_DASHBOARDS"]
        self.assertIn(["./grafana/dashboards", inside, "ro"], list(self.mounts()))
        boards = yaml.safe_load((Provisioning.FOLDER / "dashboards/lockstep.yaml").read_text())
        self.assertEqual(boards["providers"][0]["options"]["path"], "$LOCKSTEP_DASHBOARDS")

    def test_prometheus_reaches_what_listens_on_loopback_only(self):
        for name, service in self.services.items():
            self.assertEqual(service["network_mode"], "host", name)
            self.assertNotIn("ports", service, f"{name}: published ports mean nothing on the host's network")
        config = yaml.safe_load((SOURCE / "metrics/prometheus/prometheus.yml").read_text())
        self.assertEqual(config["scrape_configs"][0]["static_configs"][0]["targets"], ["127.0.0.1:9464"])
        self.assertIn("--web.listen-address=127.0.0.1:9090", self.services["prometheus"]["command"])
        url = yaml.safe_load((Provisioning.FOLDER / "datasources/prometheus.yaml").read_text())["datasources"][0]["url"]
        self.assertEqual(url, "http://127.0.0.1:9090")


if __name__ == "__main__":
    unittest.main()
