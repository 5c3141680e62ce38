// Turns a Snapshot into Prometheus families: every name, help text, unit and label of the endpoint
// is decided here and in the files beside (run_, cost_ and device_families.cc) and nowhere else.
//
// A pure function: no clock, no state, no threads, so a scrape is as new as its snapshot and a test
// needs no server. Series that are known in advance are always there, at 0 (every state, phase,
// restart reason and log level); a gauge whose value nobody knows yet (a loss before the first
// step, a limit that was not set) is left out, because 0 would be read as a measurement.
//
// Names keep Prometheus' rules: base units, ratios from 0 to 1, counters end in `_total`, and
// `sum()` over all labels of a family means something. A rank costs three series, a run about 190
// and a GPU about 25, so 8 GPUs, a live run of 8 ranks, five ended ones and every RPC method stay
// under 2,000.
#pragma once

#include <vector>

#include "metrics/snapshot.h"
#include "prometheus/metric_family.h"

namespace lockstep::metrics {

/// All families of `snapshot`. Families with no series (nothing ran yet) are left out.
std::vector<prometheus::MetricFamily> Families(const Snapshot& snapshot);

}  // namespace lockstep::metrics
