#include "metrics/pricing.h"

namespace lockstep::metrics {
namespace {

constexpr double kSecondsPerHour = 3600;

}  // namespace

double Cost(const config::PriceConfig& price, int slots, double seconds) {
  return price.per_rank_hour * slots * seconds / kSecondsPerHour;
}

std::array<double, config::kPhaseCount> CostByPhase(
    const config::PriceConfig& price, int slots,
    const std::array<double, config::kPhaseCount>& phase_seconds) {
  std::array<double, config::kPhaseCount> cost{};
  for (size_t i = 0; i < cost.size(); ++i) cost[i] = Cost(price, slots, phase_seconds[i]);
  return cost;
}

}  // namespace lockstep::metrics
