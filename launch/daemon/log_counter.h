// Counts the daemon's log messages by level, for the metrics: an spdlog sink that writes nothing.
#pragma once

#include <spdlog/sinks/sink.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>

namespace lockstep::launch {

// Thread-safe, without a lock.
class LogCounter : public spdlog::sinks::sink {
 public:
  /// By the level's name as the metrics have it: debug, info, warning, error, critical.
  std::map<std::string, int64_t> Counts() const;

  void log(const spdlog::details::log_msg& message) override;
  void flush() override {}
  void set_pattern(const std::string& /*pattern*/) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter> /*formatter*/) override {}

 private:
  std::array<std::atomic<int64_t>, spdlog::level::n_levels> counts_{};
};

}  // namespace lockstep::launch
