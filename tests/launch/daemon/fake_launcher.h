// A launcher for tests: a gang is an entry in a table, and ends when the test says so. Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "launch/launcher/launcher.h"

namespace lockstep::launch {

class FakeLauncher : public Launcher {
 public:
  absl::StatusOr<Gang> Start(const LaunchSpec& spec) override {
    const std::lock_guard lock(mutex_);
    if (!refusal_.ok()) return refusal_;
    const Gang gang{next_pid_++, 7};
    gangs_[{spec.run_id, spec.attempt}] = {gang, spec, std::nullopt};
    changed_.notify_all();
    return gang;
  }

  std::optional<GangEnd> Poll(const Gang& gang, const std::filesystem::path& run_dir,
                              int attempt) override {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, entry] : gangs_) {
      if (entry.gang.pid == gang.pid) return entry.end;
    }
    return GangEnd{-1, "nobody knows this gang"};
  }

  void Kill(const Gang& gang, const std::filesystem::path& run_dir, int attempt) override {
    const std::lock_guard lock(mutex_);
    for (auto& [key, entry] : gangs_) {
      if (entry.gang.pid != gang.pid || entry.end) continue;
      entry.end = GangEnd{137, "killed"};
      ++kills_;
    }
    changed_.notify_all();
  }

  HangReport DescribeHang(const Gang& gang, const std::filesystem::path& run_dir,
                          int attempt) override {
    return {1, "forward", "rank 1 (pid 4711) is stopped in forward"};
  }

  // --- For the test.
  void End(const std::string& run, int attempt, GangEnd end) {
    const std::lock_guard lock(mutex_);
    const auto entry = gangs_.find({run, attempt});
    if (entry != gangs_.end() && !entry->second.end) entry->second.end = std::move(end);
    changed_.notify_all();
  }
  /// The spec of an attempt, once it is launched; nothing after 20 s.
  std::optional<LaunchSpec> AwaitLaunch(const std::string& run, int attempt) {
    std::unique_lock lock(mutex_);
    const bool there = changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      return gangs_.count({run, attempt}) > 0;
    });
    return there ? std::optional(gangs_.at({run, attempt}).spec) : std::nullopt;
  }
  void RefuseAll(absl::Status status) {
    const std::lock_guard lock(mutex_);
    refusal_ = std::move(status);
  }
  int launches() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(gangs_.size());
  }
  int kills() const {
    const std::lock_guard lock(mutex_);
    return kills_;
  }

 private:
  struct Entry {
    Gang gang;
    LaunchSpec spec;
    std::optional<GangEnd> end;
  };
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<std::string, int>, Entry> gangs_;  // Guarded by mutex_, as is the rest.
  absl::Status refusal_;
  int64_t next_pid_ = 1'000'000'000;  // No process has such a pid.
  int kills_ = 0;
};

}  // namespace lockstep::launch
