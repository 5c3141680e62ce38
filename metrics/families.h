// Turns a Snapshot into Prometheus families: every name, help text, unit and label of the endpoint
// is decided here and nowhere else.
//
// A pure function: no clock, no state, no threads, so a scrape is as new as its snapshot and a test
// needs no server. Series that are known in advance are always there, at 0 (every state, phase and
// restart reason); a gauge whose value nobody knows yet (a loss before the first step, an accuracy
// before the first evaluation) is left out, because 0 would be read as a measurement.
//
// Names keep Prometheus' rules: base units, ratios from 0 to 1, counters end in `_total`, and
// `sum()` over all labels of a family means something. A rank costs three series and a run about a
// hundred, so 8 ranks, one live run and five ended ones stay under 2,000.
#pragma once

#include <vector>

#include "metrics/snapshot.h"
#include "prometheus/metric_family.h"

namespace lockstep::metrics {

/// All families of `snapshot`. Families with no series (nothing ran yet) are left out.
std::vector<prometheus::MetricFamily> Families(const Snapshot& snapshot);

}  // namespace lockstep::metrics
