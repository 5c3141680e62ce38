#include "trainer/trace.h"

#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "config/run_directory.h"
#include "trainer/monotonic.h"
#include "trainer/op_profile.h"

namespace lockstep::trainer {
namespace {

constexpr size_t kMostEvents = 1'000'000;  // About 150 MB of JSON.
constexpr const char* kRowNames[] = {"steps", "phases", "collectives", "checkpoint writes"};
constexpr int kRows = 4;

int64_t RealMinusMonotonic() {
  timespec real{}, monotonic{};
  clock_gettime(CLOCK_MONOTONIC, &monotonic);
  clock_gettime(CLOCK_REALTIME, &real);
  return (int64_t{real.tv_sec} - monotonic.tv_sec) * 1'000'000'000 + real.tv_nsec -
         monotonic.tv_nsec;
}

std::string Quote(std::string_view text) {
  // Operators' names come from elsewhere and may hold anything.
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string Metadata(const char* what, int rank, int row, const char* key,
                     const std::string& value) {
  return absl::StrFormat(R"({"ph":"M","name":"%s","pid":%d,"tid":%d,"args":{"%s":%s}})", what, rank,
                         row, key, value);
}

}  // namespace

Trace::Trace(TraceOptions options, Broadcast broadcast)
    : options_(std::move(options)),
      broadcast_(std::move(broadcast)),
      real_minus_monotonic_ns_(RealMinusMonotonic()) {}

Trace::~Trace() = default;

int64_t Trace::RealNanoseconds(double monotonic_seconds) const {
  return std::llround(monotonic_seconds * 1e9) + real_minus_monotonic_ns_;
}

void Trace::Add(Row row, const std::string& name, double began, double ended, int64_t bytes) {
  if (!recording()) return;
  Event event{.name = name,
              .row = static_cast<int>(row),
              .began_ns = RealNanoseconds(began),
              .ended_ns = RealNanoseconds(ended),
              .bytes = bytes};
  const std::lock_guard lock(mutex_);
  if (events_.size() < kMostEvents) {
    events_.push_back(std::move(event));
  } else {
    ++dropped_;
  }
}

void Trace::Phase(const char* name, double began, double now) {
  if (!recording()) return;
  began = std::max(began, phases_until_);
  if (now <= began) return;
  Add(Row::kPhases, name, began, now);
  phases_until_ = now;
}

void Trace::AtStep(int64_t step, double now) {
  if (finished_) return;
  if (first_step_ < 0) first_step_ = step;
  if (recording()) Add(Row::kSteps, absl::StrCat("step ", step_), step_began_, now);
  step_ = step;
  step_began_ = now;
  if (step - first_step_ >= options_.end) {
    Stop();
    Write();
  } else if (step - first_step_ >= options_.first && !recording()) {
    try {
      if (options_.operators) operators_ = std::make_unique<OpProfile>();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "--profile: no operators: %s\n", error.what());
    }
    step_began_ = phases_until_ = MonotonicSeconds();  // Starting that may have taken a while.
    recording_ = true;
  }
}

void Trace::Finish() {
  if (finished_) return;
  if (recording()) Add(Row::kSteps, absl::StrCat("step ", step_), step_began_, MonotonicSeconds());
  Stop();
  Write();
}

void Trace::Stop() {
  if (!recording()) return;
  recording_ = false;
  if (!operators_) return;
  const std::vector<ProfiledOp> ops = operators_->Take();
  operators_.reset();
  std::map<std::pair<bool, int64_t>, int> rows;
  const std::lock_guard lock(mutex_);
  for (const ProfiledOp& op : ops) {
    const auto [row, is_new] =
        rows.try_emplace({op.on_device, op.lane}, kRows + static_cast<int>(rows.size()));
    if (is_new) {
      streams_.push_back(op.on_device ? absl::StrCat("GPU stream ", op.lane)
                                      : absl::StrCat("operators, thread ", op.lane));
    }
    if (events_.size() >= kMostEvents) {
      ++dropped_;
      continue;
    }
    events_.push_back({op.name, row->second, op.began_ns, op.ended_ns, -1});
  }
}

// This rank's events, separated by commas; times from `base_ns` on, in microseconds.
std::string Trace::EventsJson(int64_t base_ns) const {
  const int rank = options_.rank;
  std::string json = Metadata("process_name", rank, 0, "name",
                              Quote(absl::StrCat("rank ", rank, " on ", options_.host)));
  absl::StrAppend(&json, ",\n",
                  Metadata("process_sort_index", rank, 0, "sort_index", absl::StrCat(rank)));
  const int rows = kRows + static_cast<int>(streams_.size());
  for (int row = 0; row < rows; ++row) {
    const std::string name = row < kRows ? kRowNames[row] : streams_[row - kRows];
    absl::StrAppend(&json, ",\n", Metadata("thread_name", rank, row, "name", Quote(name)), ",\n",
                    Metadata("thread_sort_index", rank, row, "sort_index", absl::StrCat(row)));
  }
  for (const Event& event : events_) {
    absl::StrAppendFormat(&json,
                          ",\n"
                          R"({"ph":"X","name":%s,"cat":%s,"pid":%d,"tid":%d,)",
                          Quote(event.name),
                          Quote(event.row < kRows ? kRowNames[event.row] : "operators"), rank,
                          event.row);
    // Three decimals are nanoseconds: written from integers, so that one event's end is the next
    // one's begin.
    const int64_t ts = event.began_ns - base_ns;
    const int64_t duration = std::max<int64_t>(0, event.ended_ns - event.began_ns);
    absl::StrAppendFormat(&json, R"("ts":%s%d.%03d,"dur":%d.%03d)", ts < 0 ? "-" : "",
                          std::abs(ts) / 1000, std::abs(ts) % 1000, duration / 1000,
                          duration % 1000);
    if (event.bytes >= 0) absl::StrAppendFormat(&json, R"(,"args":{"bytes":%d})", event.bytes);
    json += "}";
  }
  return json;
}

void Trace::Write() {
  finished_ = true;
  const std::lock_guard lock(mutex_);
  int64_t base_ns = 0;
  if (!events_.empty()) {
    base_ns = std::min_element(events_.begin(), events_.end(), [](const Event& a, const Event& b) {
                return a.began_ns < b.began_ns;
              })->began_ns;
  }
  base_ns = std::stoll(broadcast_(absl::StrCat(base_ns), 0));
  if (base_ns == 0) {
    if (options_.rank == 0) {
      std::fprintf(stderr, "--profile: the run ended before its step %lld; nothing was recorded\n",
                   static_cast<long long>(options_.first));
    }
    return;
  }
  std::string all = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  const std::string mine = EventsJson(base_ns);
  for (int rank = 0; rank < options_.size; ++rank) {
    const std::string events = broadcast_(rank == options_.rank ? mine : std::string(), rank);
    if (options_.rank == 0) absl::StrAppend(&all, rank > 0 ? ",\n" : "", events);
  }
  events_ = {};
  if (options_.rank != 0) return;
  all += "\n]}\n";
  const absl::Status written = config::WriteFileDurably(options_.file, all);
  if (!written.ok()) {
    std::fprintf(stderr, "--profile: %s\n", std::string(written.message()).c_str());
    return;
  }
  std::printf("profile: %s (open it in https://ui.perfetto.dev)%s\n", options_.file.c_str(),
              dropped_ > 0 ? absl::StrCat("; ", dropped_, " events were too many").c_str() : "");
  std::fflush(stdout);
}

TraceScope::TraceScope(Trace* trace, Trace::Row row, const char* name, int64_t bytes)
    : trace_(trace != nullptr && trace->recording() ? trace : nullptr),
      row_(row),
      name_(name),
      bytes_(bytes) {
  if (trace_ != nullptr) began_ = MonotonicSeconds();
}

TraceScope::~TraceScope() {
  if (trace_ != nullptr) trace_->Add(row_, name_, began_, MonotonicSeconds(), bytes_);
}

}  // namespace lockstep::trainer
