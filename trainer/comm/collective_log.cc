#include "trainer/comm/collective_log.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace lockstep::trainer {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

int64_t CollectiveLog::Add(const char* kind, const char* dtype, int64_t count) {
  const std::lock_guard lock(mutex_);
  ++newest_;
  entries_[static_cast<size_t>(newest_ % kKept)] = {kind, dtype, count, Now()};
  return newest_;
}

void CollectiveLog::MarkDone() {
  const std::lock_guard lock(mutex_);
  done_ = newest_;
}

int64_t CollectiveLog::newest() const {
  const std::lock_guard lock(mutex_);
  return newest_;
}

std::string CollectiveLog::ToString() const {
  const std::lock_guard lock(mutex_);
  const double now = Now();
  std::string text;
  for (int64_t number = std::max<int64_t>(1, newest_ - kKept + 1); number <= newest_; ++number) {
    const Entry& entry = entries_[static_cast<size_t>(number % kKept)];
    char line[200];
    std::snprintf(line, sizeof(line), "%lld %s of %lld %s, begun %.3f s ago%s\n",
                  static_cast<long long>(number), entry.kind, static_cast<long long>(entry.count),
                  entry.dtype, now - entry.began,
                  number <= done_ ? "" : ", not known to have ended");
    text += line;
  }
  return text;
}

}  // namespace lockstep::trainer
