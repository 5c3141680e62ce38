#include "launch/plan/advice.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep::plan {
namespace {

// Two products this close are equal: no prediction is better than a hundredth.
constexpr double kTie = 1.01;

bool Usable(const PlanRow& row) {
  return row.fits && !row.over_max_cost && !row.over_max_energy && !row.over_max_time;
}

double Money(const Plan& plan, const PlanRow& row) {
  const double cost = row.epoch.cost();
  return plan.prices.known && cost > 0 ? cost : row.epoch.seconds * row.ranks;
}

std::string Count(const Plan& plan, int ranks) {
  const char* noun = plan.gpu ? "GPU" : "rank";
  return absl::StrCat(ranks, " ", noun, ranks == 1 ? "" : "s");
}

// "1.05×", "1.2×", "3.3×", "12×"
std::string Times(double ratio) {
  if (ratio < 1.095) return absl::StrFormat("%.2f×", ratio);
  return ratio < 9.95 ? absl::StrFormat("%.2g×", ratio) : absl::StrFormat("%.0f×", ratio);
}

// "4 GPUs are 1.2× faster and cost 3.3×"
std::string Compare(const Plan& plan, const PlanRow& row, const PlanRow& to) {
  const double speed = to.epoch.seconds / row.epoch.seconds;
  const bool faster = speed >= 1;
  const bool money = plan.prices.known && to.epoch.cost() > 0;
  return absl::StrCat(
      Count(plan, row.ranks), row.ranks == 1 ? " is " : " are ", Times(faster ? speed : 1 / speed),
      faster ? " faster" : " slower", " than ", to.ranks, " and ",
      money ? (row.ranks == 1 ? "costs " : "cost ") : (row.ranks == 1 ? "takes " : "take "),
      Times(Money(plan, row) / Money(plan, to)), money ? "" : " the rank-hours");
}

std::string WhyNot(const Plan& plan, const PlanRow& row) {
  if (!row.fits) {
    std::string text = absl::StrCat(
        Count(plan, row.ranks),
        row.ranks == 1 ? " does not fit: " : " do not fit: ", row.local_batch,
        " samples a rank take more than the ",
        absl::StrFormat("%.1f GiB", static_cast<double>(row.available_bytes) / (1 << 30)),
        " there are");
    absl::StrAppend(&text,
                    row.micro_batch_size > 0
                        ? absl::StrCat("; set training.micro_batch_size: ", row.micro_batch_size)
                        : "; use a smaller model or smaller pictures");
    return text;
  }
  const char* limit = row.over_max_cost     ? "cost.max_cost"
                      : row.over_max_energy ? "cost.max_energy"
                                            : "cost.max_time";
  return absl::StrCat(Count(plan, row.ranks), " would run into ", limit);
}

}  // namespace

Advice Advise(const Plan& plan) {
  Advice advice;
  const PlanRow* chosen = nullptr;
  const PlanRow* fewest = nullptr;
  const PlanRow* most = nullptr;
  for (const PlanRow& row : plan.rows) {
    if (!Usable(row)) {
      advice.notes.push_back(WhyNot(plan, row));
      continue;
    }
    most = &row;
    if (fewest == nullptr) fewest = &row;
    const auto product = [&](const PlanRow& one) { return one.epoch.seconds * Money(plan, one); };
    if (chosen == nullptr || product(row) * kTie < product(*chosen)) chosen = &row;
  }
  if (chosen == nullptr) {
    advice.headline = "none of these fits the memory and the run's limits";
    return advice;
  }
  advice.ranks = chosen->ranks;
  if (fewest == most) {
    advice.headline = absl::StrCat("use ", chosen->ranks, ": there is nothing to compare it with");
    return advice;
  }
  // What is advised, against the fewest; where those are advised, what is advised against.
  const PlanRow& told = chosen == fewest ? *most : *chosen;
  advice.headline = absl::StrCat(Compare(plan, told, *fewest), ": use ", chosen->ranks);
  for (const PlanRow& row : plan.rows) {
    if (!Usable(row) || &row == fewest || &row == &told) continue;
    advice.notes.push_back(Compare(plan, row, *fewest));
  }
  return advice;
}

}  // namespace lockstep::plan
