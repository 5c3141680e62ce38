// What runs cost and may cost. Money is in the one currency of the daemon, which price_info names:
// a currency label on the amounts would break sum().
#include <string>

#include "config/rank_board.h"
#include "metrics/family_builder.h"
#include "metrics/pricing.h"

namespace lockstep::metrics {
namespace {

double Units(int64_t micros) {
  return static_cast<double>(micros) / kMicrosPerUnit;
}

}  // namespace

void AddBudget(FamilyBuilder& out, const Snapshot& snapshot) {
  out.Gauge("price_info", "Currency of every cost on this endpoint, as a label; always 1.");
  out.Add({{"currency", snapshot.currency}}, 1);
  out.Gauge("price_per_joule", "What a joule costs now, in the currency of lockstep_price_info.");
  out.Add({}, snapshot.price_per_joule);
  out.Gauge("budget_spent", "Cost of all runs since the calendar month (UTC) began.");
  out.Add({}, snapshot.month_cost);
  out.Gauge("budget_limit", "Budget of all runs for a calendar month (UTC); absent = none.");
  if (snapshot.monthly_budget > 0) out.Add({}, snapshot.monthly_budget);
}

void AddRunCosts(FamilyBuilder& out, const Snapshot& snapshot) {
  out.Counter("run_energy_joules_total",
              "Energy of a run over all its ranks, by phase; metered where something meters it.");
  for (const RunSample& run : snapshot.runs) {
    for (size_t phase = 0; phase < config::kPhaseCount; ++phase) {
      const char* name = config::PhaseName(static_cast<config::Phase>(phase));
      out.Add({{"run", run.run}, {"phase", name}}, run.spent.joules[phase]);
    }
  }
  out.Gauge("run_energy_estimated", "1 where some of a run's energy was not metered, else 0.");
  PerRun(out, snapshot, [](const RunSample& run) { return run.spent.estimated ? 1 : 0; });

  out.Counter("run_cost_total",
              "Cost of a run in the currency of lockstep_price_info, by phase and by what was paid "
              "for: hardware, energy or transfer.");
  for (const RunSample& run : snapshot.runs) {
    for (size_t phase = 0; phase < config::kPhaseCount; ++phase) {
      const char* name = config::PhaseName(static_cast<config::Phase>(phase));
      const Money& money = run.spent.money[phase];
      const auto add = [&](const char* component, int64_t micros) {
        out.Add({{"run", run.run}, {"phase", name}, {"component", component}}, Units(micros));
      };
      add("hardware", money.hardware);
      add("energy", money.energy);
      if (TransferOf(static_cast<config::Phase>(phase))) add("transfer", money.transfer);
    }
  }
  out.Gauge("run_projected_cost", "What a run will have cost at its end, at its present pace.");
  PerRunIf(
      out, snapshot, [](const RunSample& run) { return run.projected_cost >= 0; },
      [](const RunSample& run) { return run.projected_cost; });

  const auto limited = [](const RunSample& run) { return run.max_cost > 0; };
  out.Gauge("run_budget_limit", "The cost at which a run is paused or stopped (cost.max_cost).");
  PerRunIf(out, snapshot, limited, [](const RunSample& run) { return run.max_cost; });
  out.Gauge("run_budget_remaining",
            "What is left of lockstep_run_budget_limit; below 0 = overspent.");
  PerRunIf(out, snapshot, limited, [](const RunSample& run) { return run.budget_remaining; });
  out.Gauge("run_budget_used_ratio",
            "Share used up of a run's nearest limit of cost, energy or time, 0 to 1 and beyond.");
  PerRunIf(
      out, snapshot, [](const RunSample& run) { return run.limit_ratio > 0; },
      [](const RunSample& run) { return run.limit_ratio; });
}

}  // namespace lockstep::metrics
