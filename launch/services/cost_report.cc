#include "launch/services/cost_report.h"

#include <cmath>
#include <ctime>
#include <utility>

#include "absl/strings/str_format.h"

namespace lockstep::launch {
namespace {

std::string DayOf(double unix) {
  const auto seconds = static_cast<time_t>(std::floor(unix));
  tm date{};
  gmtime_r(&seconds, &date);
  return absl::StrFormat("%04d-%02d-%02d", 1900 + date.tm_year, 1 + date.tm_mon, date.tm_mday);
}

void Add(const metrics::LedgerLine& from, v1::CostLine& to) {
  to.set_rank_microseconds(to.rank_microseconds() + from.microseconds);
  to.set_microjoules(to.microjoules() + from.microjoules);
  to.set_energy_estimated(to.energy_estimated() || from.estimated);
  to.set_bytes(to.bytes() + from.bytes);
  to.set_hardware_micros(to.hardware_micros() + from.money.hardware);
  to.set_energy_micros(to.energy_micros() + from.money.energy);
  to.set_transfer_micros(to.transfer_micros() + from.money.transfer);
}

// Where a line stands in the report, and what it is called.
std::pair<int64_t, std::string> KeyOf(const StoredLine& stored, v1::CostGrouping by,
                                      const std::map<std::string, CostSubject>& runs) {
  const metrics::LedgerLine& line = stored.line;
  switch (by) {
    case v1::COST_GROUPING_RANK:
      return {line.rank, std::to_string(line.rank)};
    case v1::COST_GROUPING_DAY:
      return {0, DayOf(line.to_unix)};
    case v1::COST_GROUPING_RUN: {
      const auto run = runs.find(stored.run);
      return {run == runs.end() ? 0 : -static_cast<int64_t>(run->second.number), stored.run};
    }
    default:
      return {static_cast<int64_t>(line.phase), config::PhaseName(line.phase)};
  }
}

}  // namespace

v1::GetCostResponse SumUp(const std::vector<StoredLine>& lines, v1::CostGrouping by,
                          const std::map<std::string, CostSubject>& runs) {
  std::map<std::pair<int64_t, std::string>, v1::CostLine> sums;
  v1::GetCostResponse report;
  report.set_by(by);
  for (const StoredLine& stored : lines) {
    Add(stored.line, sums[KeyOf(stored, by, runs)]);
    Add(stored.line, *report.mutable_total());
  }
  report.mutable_total()->set_key("total");
  for (auto& [key, line] : sums) {
    line.set_key(key.second);
    if (by == v1::COST_GROUPING_RUN) {
      if (const auto run = runs.find(key.second); run != runs.end()) {
        line.set_name(run->second.name);
      }
    }
    *report.add_lines() = std::move(line);
  }
  return report;
}

}  // namespace lockstep::launch
