// What a run costs: a pure function of rank-seconds and the daemon's price table.
#pragma once

#include <array>

#include "config/coordinator_config.h"
#include "config/rank_board.h"

namespace lockstep::metrics {

/// Money for `seconds` of wall time on `slots` slots.
double Cost(const config::PriceConfig& price, int slots, double seconds);
/// The same, phase by phase; the sum is Cost(price, slots, sum of seconds) but for rounding.
std::array<double, config::kPhaseCount> CostByPhase(
    const config::PriceConfig& price, int slots,
    const std::array<double, config::kPhaseCount>& phase_seconds);

}  // namespace lockstep::metrics
