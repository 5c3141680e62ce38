#include "launch/daemon/log_counter.h"

namespace lockstep::launch {
namespace {

const char* LevelName(size_t level) {
  switch (level) {
    case spdlog::level::trace:
    case spdlog::level::debug:
      return "debug";
    case spdlog::level::warn:
      return "warning";
    case spdlog::level::err:
      return "error";
    case spdlog::level::critical:
      return "critical";
    default:
      return "info";
  }
}

}  // namespace

void LogCounter::log(const spdlog::details::log_msg& message) {
  const auto level = static_cast<size_t>(message.level);
  if (level < counts_.size()) counts_[level].fetch_add(1, std::memory_order_relaxed);
}

std::map<std::string, int64_t> LogCounter::Counts() const {
  std::map<std::string, int64_t> counts;
  for (size_t level = 0; level < counts_.size(); ++level) {
    if (level == spdlog::level::off) continue;
    counts[LevelName(level)] += counts_[level].load(std::memory_order_relaxed);
  }
  return counts;
}

}  // namespace lockstep::launch
