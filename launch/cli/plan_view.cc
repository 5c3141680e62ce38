#include "launch/cli/plan_view.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/cli/format.h"
#include "launch/cli/run_json.h"
#include "launch/cli/table.h"

namespace lockstep::cli {
namespace {

using nlohmann::json;
using plan::PlanRow;
using Align = Table::Align;

// A fit that is further off says more of the machine than of the run.
constexpr double kCrookedLine = 0.15;

std::string StepText(double seconds) {
  if (seconds < 0.00995) return absl::StrFormat("%.2f ms", 1e3 * seconds);
  if (seconds < 0.0995) return absl::StrFormat("%.1f ms", 1e3 * seconds);
  if (seconds < 0.995) return absl::StrFormat("%.0f ms", 1e3 * seconds);
  return FormatSeconds(seconds);
}

std::string EnergyText(double kwh) {
  if (kwh < 0.01) return absl::StrFormat("%.2f Wh", 1e3 * kwh);
  return absl::StrFormat("%.*f kWh", kwh < 10 ? 2 : 0, kwh);
}

// A short epoch costs millionths, and what is compared must be seen.
std::string CostText(double cost, const std::string& currency) {
  if (cost >= 0.01 || cost == 0) return FormatCost(cost, currency);
  return absl::StrFormat("%.6f %s", cost, currency);
}

std::string MemoryText(const PlanRow& row) {
  if (row.memory_bytes == 0) return "-";
  const std::string text = FormatBytes(row.memory_bytes);
  return row.fits ? text : text + " !";
}

// Rows whose figures need the same explanation share a mark.
std::string Mark(const PlanRow& row) {
  return row.extrapolated ? "*" : "";
}

std::string DurationText(const PlanAnswer& answer) {
  const PlanRow& row = answer.plan.rows.front();
  const config::Duration& duration = answer.config.training.duration;
  if (duration.unit() == config::Duration::Unit::kSeconds) {
    return absl::StrCat("the whole run (", duration.ToString(), ")");
  }
  return absl::StrCat("the whole run (", duration.ToString(), ", ",
                      FormatCount(std::llround(row.steps)), " steps with ", row.ranks,
                      row.ranks == 1 ? " rank)" : " ranks)");
}

Table MakeTable(const PlanAnswer& answer) {
  const plan::Plan& plan = answer.plan;
  const bool by_time = answer.config.training.duration.unit() == config::Duration::Unit::kSeconds;
  const bool energy = plan.prices.watts_per_rank > 0;
  std::vector<Table::Column> columns = {{plan.gpu ? "GPUS" : "RANKS", Align::kRight},
                                        {"SAMPLES EACH", Align::kRight},
                                        {"STEP", Align::kRight},
                                        {"SAMPLES/S", Align::kRight},
                                        {"EPOCH", Align::kRight},
                                        {by_time ? "EPOCHS" : "RUN", Align::kRight}};
  if (energy) columns.push_back({"ENERGY", Align::kRight});
  if (plan.prices.known) {
    columns.push_back({"COST/EPOCH", Align::kRight});
    columns.push_back({"COST/RUN", Align::kRight});
  }
  columns.push_back({"MEMORY", Align::kRight});
  Table table(columns);
  for (const PlanRow& row : plan.rows) {
    std::vector<std::string> cells = {
        absl::StrCat(row.ranks, Mark(row)),
        FormatCount(row.local_batch),
        StepText(row.step_seconds),
        FormatRate(row.samples_per_second),
        FormatSeconds(row.epoch.seconds),
        by_time ? FormatEpoch(row.epochs) : FormatSeconds(row.run.seconds)};
    if (energy) cells.push_back(EnergyText(row.run.energy_kwh));
    if (plan.prices.known) {
      cells.push_back(CostText(row.epoch.cost(), plan.prices.currency));
      cells.push_back(CostText(row.run.cost(), plan.prices.currency));
    }
    cells.push_back(MemoryText(row));
    table.Add(std::move(cells));
  }
  return table;
}

std::vector<std::string> Explanations(const PlanAnswer& answer) {
  std::vector<std::string> lines;
  const plan::Plan& plan = answer.plan;
  std::string basis;
  for (const PlanRow& row : plan.rows) {
    if (!row.extrapolated || row.basis == basis) continue;
    basis = row.basis;
    lines.push_back(absl::StrCat("* ", row.ranks, row.ranks == 1 ? " rank: " : " ranks: ", basis));
  }
  double worst = 0;
  for (const PlanRow& row : plan.rows) worst = std::max(worst, row.fit_error);
  lines.push_back(absl::StrCat("measured on ", plan.device == "cpu" ? "the CPU" : plan.device,
                               "; step time t = b / r + c, off by ", FormatRatio(worst),
                               " at most where it was measured; RUN is ", DurationText(answer),
                               ", with start, evaluations and checkpoints"));
  if (worst > kCrookedLine) {
    lines.push_back(
        "the times do not lie on a line: the machine was busy, or steps are short; plan again with "
        "more --max-steps");
  }
  for (const config::ProbeReport& probe : answer.probes) {
    if (probe.cached_samples > 0) {
      lines.push_back(
          probe.features_are_cached
              ? "an earlier run has cached the frozen part's features; RUN counts on them"
              : "the frozen part's features are cached before the first step; RUN counts it");
      break;
    }
  }
  for (const config::ProbeReport& probe : answer.probes) {
    const double longer =
        std::max(probe.first.first_read_seconds, probe.unfrozen.first_read_seconds) *
        static_cast<double>(probe.train_samples) / probe.ranks;
    if (longer > 0) {
      lines.push_back(absl::StrCat("decoded pictures are kept: with ", probe.ranks,
                                   probe.ranks == 1 ? " rank" : " ranks",
                                   " the first epoch over them takes ", FormatSeconds(longer),
                                   " longer than EPOCH; RUN counts it"));
      break;
    }
  }
  if (!answer.config.model.unfreeze_after.is_zero() &&
      !answer.probes.front().unfrozen.steps.empty()) {
    lines.push_back(absl::StrCat("STEP and EPOCH are those before model.unfreeze_after (",
                                 answer.config.model.unfreeze_after.ToString(),
                                 "); RUN counts the dearer steps after it"));
  }
  if (plan.prices.watts_per_rank > 0) {
    lines.push_back(absl::StrCat("energy is estimated: ", FormatNumber(plan.prices.watts_per_rank),
                                 plan.gpu ? " W a GPU" : " W a rank", " (price.power)"));
  }
  lines.push_back(absl::StrCat("prices: ", answer.price_source));
  return lines;
}

json ToValue(const plan::Spent& spent, const plan::Prices& prices) {
  json value = {{"seconds", spent.seconds}};
  if (prices.watts_per_rank > 0) value["energy_kwh"] = spent.energy_kwh;
  if (prices.known) {
    value["hardware_cost"] = spent.hardware_cost;
    value["energy_cost"] = spent.energy_cost;
    value["transfer_cost"] = spent.transfer_cost;
    value["cost"] = spent.cost();
  }
  return value;
}

json ToValue(const PlanRow& row, const plan::Prices& prices) {
  json value = {{"ranks", row.ranks},
                {"batch_size_per_rank", row.local_batch},
                {"global_batch_size", row.global_batch},
                {"step_seconds", row.step_seconds},
                {"samples_per_second", row.samples_per_second},
                {"exposed_allreduce_seconds", row.exposed_reduce_seconds},
                {"steps_per_epoch", row.steps_per_epoch},
                {"steps", row.steps},
                {"epochs", row.epochs},
                {"epoch", ToValue(row.epoch, prices)},
                {"run", ToValue(row.run, prices)},
                {"moved_bytes",
                 {{"dataset", row.moved.dataset},
                  {"checkpoint", row.moved.checkpoint},
                  {"allreduce", row.moved.allreduce}}},
                {"evaluation_seconds", row.evaluation_seconds},
                {"checkpoint_seconds", row.checkpoint_seconds},
                {"memory_bytes", row.memory_bytes},
                {"available_bytes", row.available_bytes},
                {"fits", row.fits},
                {"extrapolated", row.extrapolated},
                {"basis", row.basis},
                {"fit_error", row.fit_error},
                {"over_max_cost", row.over_max_cost},
                {"over_max_energy", row.over_max_energy},
                {"over_max_time", row.over_max_time}};
  if (!row.fits) value["micro_batch_size"] = row.micro_batch_size;
  return value;
}

}  // namespace

std::string PlanTable(const PlanAnswer& answer) {
  std::string text = MakeTable(answer).Render();
  absl::StrAppend(&text, "\n", answer.advice.headline, "\n");
  for (const std::string& note : answer.advice.notes) absl::StrAppend(&text, "  ", note, "\n");
  absl::StrAppend(&text, "  ", plan::kAdviceRule, "\n\n");
  for (const std::string& line : Explanations(answer)) absl::StrAppend(&text, line, "\n");
  return text;
}

std::string PlanJson(const PlanAnswer& answer) {
  json rows = json::array();
  for (const PlanRow& row : answer.plan.rows) rows.push_back(ToValue(row, answer.plan.prices));
  json probes = json::array();
  for (const config::ProbeReport& probe : answer.probes) {
    probes.push_back(json::parse(config::ToJson(probe)));
  }
  json value = {{"name", answer.config.name},
                {"device", answer.plan.device},
                {"rows", rows},
                {"advice",
                 {{"ranks", answer.advice.ranks},
                  {"headline", answer.advice.headline},
                  {"notes", answer.advice.notes},
                  {"rule", plan::kAdviceRule}}},
                {"price_source", answer.price_source},
                {"probes", probes}};
  if (answer.plan.prices.known) value["currency"] = answer.plan.prices.currency;
  return Document(value);
}

}  // namespace lockstep::cli
