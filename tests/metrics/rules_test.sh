#!/bin/bash
# Prometheus' own checks of its config and of the rules, with the cases of rules_test.yml.
set -euo pipefail
if ! command -v promtool >/dev/null; then
  echo "SKIPPED: promtool is not installed (scripts/setup --dev installs it)"
  exit 77
fi
promtool check config "$LOCKSTEP_SOURCE_DIR/metrics/prometheus/prometheus.yml"
promtool check rules "$LOCKSTEP_SOURCE_DIR/metrics/prometheus/rules.yml"
promtool test rules "$LOCKSTEP_SOURCE_DIR/tests/metrics/rules_test.yml"
