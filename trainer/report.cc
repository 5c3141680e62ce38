#include "trainer/report.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep::trainer {

using nlohmann::json;

namespace {

constexpr double kRateWindowSeconds = 10;
constexpr double kTerminalPeriodSeconds = 2;
// The link sends ten a second at most; a copy for it takes a microsecond, with steps of one
// millisecond a thousandth of each.
constexpr double kTellPeriodSeconds = 0.02;
constexpr size_t kBufferBytes = 64 << 10;
constexpr std::chrono::milliseconds kGoodbyeTimeout{2000};

// Bucket bounds of step and all-reduce times, seconds; the coordinator's metrics use the same
// (proto: Histogram).
constexpr std::array<double, 11> kBuckets = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60};

void Observe(HistogramReport& histogram, double seconds) {
  histogram.counts.resize(kBuckets.size() + 1);
  const auto bucket = std::lower_bound(kBuckets.begin(), kBuckets.end(), seconds);
  ++histogram.counts[static_cast<size_t>(bucket - kBuckets.begin())];
  histogram.sum += seconds;
}

EvaluationReport ToReport(const EvaluationResult& e) {
  EvaluationReport report;
  report.step = e.step;
  report.epoch = e.epoch;
  report.loss = e.loss;
  for (const auto& [name, value] : e.scores) report.scores.push_back({name, value});
  report.samples = e.samples;
  report.seconds = e.seconds;
  return report;
}

json ToJson(const EvaluationResult& e) {
  json value = {{"step", e.step}, {"epoch", e.epoch}, {"loss", e.loss}};
  for (const auto& [name, score] : e.scores) value[name] = score;
  return value;
}

// With every digit, and null for what JSON has no number for.
void AppendJson(double value, std::string& out) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  std::array<char, 32> text{};
  const char* end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  const std::string_view digits(text.data(), static_cast<size_t>(end - text.data()));
  out += digits;
  if (digits.find_first_of(".e") == digits.npos) out += ".0";  // It stays a number with a fraction.
}

// Errors have units, the other scores are ratios.
std::string ScoreText(const std::string& name, double value) {
  const bool ratio = name != "mae" && name != "mse" && name != "r2";
  return ratio ? absl::StrFormat("%s %.2f %%", name, 100 * value)
               : absl::StrFormat("%s %.4g", name, value);
}

std::string DurationText(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(seconds));
  if (s >= 3600) return absl::StrFormat("%dh%02dm", s / 3600, s / 60 % 60);
  if (s >= 60) return absl::StrFormat("%dm%02ds", s / 60, s % 60);
  return absl::StrFormat("%ds", s);
}

const char* StateName(config::TrainerExit exit) {
  switch (exit) {
    case config::TrainerExit::kCompleted:
      return "COMPLETED";
    case config::TrainerExit::kStopped:
      return "STOPPED";
    case config::TrainerExit::kPaused:
      return "PAUSED";
    default:
      return "FAILED";
  }
}

}  // namespace

Report::Report(const config::RunDirectory& directory, const PhaseClock& clock,
               CoordinatorLink* link, ReportOptions options)
    : directory_(directory),
      clock_(clock),
      link_(link),
      options_(std::move(options)),
      overflows_(options_.loss_scale) {
  progress_.total_steps = options_.total_steps;
  progress_.ranks.resize(static_cast<size_t>(options_.world_size));
  for (int rank = 0; rank < options_.world_size; ++rank) {
    progress_.ranks[static_cast<size_t>(rank)].rank = rank;
  }
}

Report::~Report() {
  FlushMetrics();
  if (metrics_fd_ >= 0) close(metrics_fd_);
}

absl::Status Report::Open(const TrainingState& state) {
  const std::string path = directory_.metrics().string();
  metrics_fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (metrics_fd_ < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  }
  const off_t size = lseek(metrics_fd_, 0, SEEK_END);
  if (size < state.metrics_bytes) {
    Say(absl::StrCat("note: ", path, " has ", size, " bytes where the checkpoint knows of ",
                     state.metrics_bytes, ": rows were removed from outside; going on"));
    metrics_bytes_ = size;
  } else {
    metrics_bytes_ = state.metrics_bytes;
  }
  if (ftruncate(metrics_fd_, metrics_bytes_) != 0 || lseek(metrics_fd_, 0, SEEK_END) < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot cut ", path));
  }
  if (options_.tensorboard) {
    events_.emplace(directory_.tensorboard(), state.events, state.step, *options_.tensorboard,
                    [this](const std::string& line) { Say(line); });
  }
  seconds_before_ = state.seconds;
  progress_.first_step = state.step;
  progress_.step = state.step;
  if (state.last_evaluation) progress_.last_evaluation = ToReport(*state.last_evaluation);
  if (state.best_evaluation) progress_.best_evaluation = ToReport(*state.best_evaluation);
  return absl::OkStatus();
}

double Report::EpochOf(int64_t step) const {
  return static_cast<double>(step) / options_.steps_per_epoch;
}

// Every few steps, so without a tree of values: a third of the time.
void Report::StepRow(int64_t step, double loss, double learning_rate, int64_t samples) {
  std::string row;
  row.reserve(256);
  absl::StrAppend(&row, R"({"epoch":)");
  AppendJson(EpochOf(step), row);
  absl::StrAppend(&row, R"(,"kind":"step","loss":)");
  AppendJson(loss, row);
  absl::StrAppend(&row, R"(,"lr":)");
  AppendJson(learning_rate, row);
  absl::StrAppend(&row, R"(,"samples":)", samples, R"(,"seconds":)");
  AppendJson(ElapsedSeconds(), row);
  absl::StrAppend(&row, R"(,"step":)", step, ",\"", options_.score, "\":");
  AppendJson(progress_.score.value, row);
  row += '}';
  Row(row);
}

void Report::Row(const std::string& row) {
  buffer_ += row;
  buffer_ += '\n';
  if (buffer_.size() >= kBufferBytes) FlushMetrics();
}

void Report::Step(const StepSummary& summary, double learning_rate) {
  progress_.loss = summary.loss;
  progress_.score = {options_.score, summary.samples > 0 ? summary.score / summary.samples : 0};
  progress_.learning_rate = learning_rate;
  progress_.gradient_norm = summary.gradient_norm;
  if (overflows_.IsTrouble(summary.nonfinite, summary.loss)) ++progress_.nonfinite_steps;
  double latest = 0;
  for (const double arrival : summary.arrival_seconds) latest = std::max(latest, arrival);
  for (size_t rank = 0; rank < summary.arrival_seconds.size(); ++rank) {
    progress_.ranks[rank].wait_seconds += latest - summary.arrival_seconds[rank];
  }
  if (summary.slowest_rank >= 0) {
    ++progress_.ranks[static_cast<size_t>(summary.slowest_rank)].slowest_steps;
  }
  const int64_t done = summary.step + 1;
  if (done % options_.log_every_steps != 0 && done != options_.total_steps) return;
  StepRow(done, summary.loss, learning_rate, static_cast<int64_t>(summary.samples));
  if (!events_) return;
  events_->Step({.step = done,
                 .loss = summary.loss,
                 .score = progress_.score.value,
                 .learning_rate = learning_rate,
                 .gradient_norm = summary.gradient_norm},
                clock_.Seconds());
}

void Report::Timing(double step_seconds, std::optional<double> allreduce_seconds,
                    int64_t allreduce_bytes, int64_t samples) {
  ++progress_.steps;
  progress_.samples += samples;
  Observe(progress_.step_duration, step_seconds);
  if (allreduce_seconds) Observe(progress_.allreduce_duration, *allreduce_seconds);
  progress_.allreduce_bytes += allreduce_bytes;
  if (events_) events_->Timing(step_seconds, samples);
}

void Report::Epoch(int64_t step, int64_t epochs_done, const TrainingState& state) {
  const double samples = std::max(state.epoch_samples, 1.0);
  Row(json{{"kind", "epoch"},
           {"step", step},
           {"epoch", static_cast<double>(epochs_done)},
           {"loss", state.epoch_loss_sum / samples},
           {options_.score, state.epoch_score_sum / samples},
           {"samples", static_cast<int64_t>(state.epoch_samples)},
           {"seconds", ElapsedSeconds()}}
          .dump());
  if (events_) {
    events_->Epoch(step, state.epoch_loss_sum / samples, state.epoch_score_sum / samples);
  }
}

void Report::Evaluation(const EvaluationResult& result, const TrainingState& state,
                        std::span<const int64_t> confusion) {
  json row = ToJson(result);
  row["kind"] = "eval";
  row["samples"] = result.samples;
  row["seconds"] = ElapsedSeconds();
  Row(row.dump());
  if (events_) events_->Evaluation(result.step, result.loss, result.scores, confusion);
  progress_.last_evaluation = ToReport(result);
  if (state.best_evaluation) progress_.best_evaluation = ToReport(*state.best_evaluation);
  TellProgress();
  if (link_ != nullptr) link_->Report(*progress_.last_evaluation);
  std::string line = absl::StrFormat("evaluation  step %d  epoch %.1f  val_loss %.4f", result.step,
                                     result.epoch, result.loss);
  for (const auto& [name, value] : result.scores) {
    absl::StrAppend(&line, "  val_", ScoreText(name, value));
  }
  Say(line);
}

void Report::Checkpoint(const CheckpointReport& checkpoint) {
  TellProgress();
  if (link_ != nullptr) link_->Report(checkpoint);
  Say(checkpoint.ok
          ? absl::StrFormat(
                "checkpoint  step %d  %.1f MB in %.0f ms, training stood still for %.1f ms",
                checkpoint.step, static_cast<double>(checkpoint.bytes) / 1e6,
                1e3 * checkpoint.write_seconds, 1e3 * checkpoint.stall_seconds)
          : absl::StrCat("checkpoint  step ", checkpoint.step, " FAILED: ", checkpoint.error));
}

void Report::Held(bool held, int64_t step, const std::string& reason) {
  progress_.held = held;
  TellProgress();
  if (link_ != nullptr) link_->Hold(held, step, reason);
  Say(held ? absl::StrCat("held after step ", step, reason.empty() ? "" : ": ", reason)
           : absl::StrCat("going on after step ", step));
}

void Report::Say(const std::string& line) {
  std::fprintf(stdout, "%s\n", line.c_str());
  std::fflush(stdout);
}

ProgressReport Report::Fill(int64_t step) {
  const double now = MonotonicSeconds();
  if (recent_.empty() || now - recent_.back().at > kRateWindowSeconds / 20) {
    recent_.push_back({now, progress_.samples, progress_.steps});
  }
  while (recent_.size() > 2 && now - recent_.front().at > kRateWindowSeconds) recent_.pop_front();
  const Mark& from = recent_.front();
  const double span = now - from.at;
  const auto samples = static_cast<double>(progress_.samples - from.samples);
  progress_.samples_per_second = span > 0 ? samples / span : 0;
  progress_.flops_utilization = progress_.samples_per_second * sample_seconds_at_peak_;
  progress_.step = step;
  progress_.epoch = EpochOf(step);
  progress_.phase_seconds = clock_.Seconds();
  progress_.wall_seconds = clock_.WallSeconds();
  const auto steps = static_cast<double>(progress_.steps - from.steps);
  progress_.eta_seconds = -1;
  if (options_.total_steps > 0 && steps > 0) {
    progress_.eta_seconds = static_cast<double>(options_.total_steps - step) * span / steps;
  } else if (options_.total_steps == 0) {
    progress_.eta_seconds = std::max(0.0, options_.total_seconds - ElapsedSeconds());
  }
  return progress_;
}

void Report::TellProgress() {
  if (link_ != nullptr) link_->Report(Fill(progress_.step));
}

void Report::Progress(const TrainingState& state) {
  progress_.step = state.step;
  const double now = MonotonicSeconds();
  const bool line = options_.terminal && now - last_line_ >= kTerminalPeriodSeconds;
  if (link_ == nullptr && !line) {
    if (recent_.empty() || now - recent_.back().at > kRateWindowSeconds / 20) Fill(state.step);
    return;
  }
  const bool due = progress_.held || now - told_at_ >= kTellPeriodSeconds;
  if (!line && !due) return;
  told_at_ = now;
  const ProgressReport progress = Fill(state.step);
  if (link_ != nullptr) link_->Report(progress);
  // The first step's loss is known one step late, and a rate needs a span.
  if (!line || progress.held || progress.steps < 2) return;
  last_line_ = now;
  const std::string total =
      options_.total_steps > 0 ? absl::StrCat("/", options_.total_steps) : std::string();
  const std::string eta =
      progress.eta_seconds >= 0 ? "  eta " + DurationText(progress.eta_seconds) : std::string();
  Say(absl::StrFormat("step %d%s  epoch %.2f  loss %.4f  %s  lr %.3g  %.0f samples/s%s",
                      progress.step, total, progress.epoch, progress.loss,
                      ScoreText(progress.score.name, progress.score.value), progress.learning_rate,
                      progress.samples_per_second, eta));
}

void Report::Flush(TrainingState& state) {
  FlushMetrics();
  // Where a write failed this is more than there is; SyncMetrics() then refuses the checkpoint.
  state.metrics_bytes = metrics_bytes_ + static_cast<int64_t>(buffer_.size());
  if (events_) state.events = events_->Flush();
}

void Report::FlushMetrics() {
  size_t done = 0;
  while (metrics_fd_ >= 0 && done < buffer_.size()) {
    const ssize_t n = write(metrics_fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      metrics_errno_ = n < 0 ? errno : ENOSPC;
      break;
    }
    done += static_cast<size_t>(n);
  }
  if (done == buffer_.size()) metrics_errno_ = 0;
  metrics_bytes_ += static_cast<int64_t>(done);
  buffer_.erase(0, done);
}

absl::Status Report::SyncMetrics() {
  if (events_) events_->Sync();
  if (const int error = metrics_errno_; error != 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", directory_.metrics().string()));
  }
  if (metrics_fd_ >= 0 && fdatasync(metrics_fd_) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot sync ", directory_.metrics().string()));
  }
  return absl::OkStatus();
}

absl::Status Report::Result(const TrainingState& state, config::TrainerExit exit,
                            const std::string& reason, int attempt) {
  FlushMetrics();
  const ProgressReport progress = Fill(state.step);
  json phases = json::object();
  for (int i = 0; i < config::kPhaseCount; ++i) {
    phases[config::PhaseName(static_cast<config::Phase>(i))] =
        progress.phase_seconds[static_cast<size_t>(i)];
  }
  json result = {{"state", StateName(exit)},
                 {"reason", reason},
                 {"exit_code", static_cast<int>(exit)},
                 {"attempt", attempt},
                 {"world_size", options_.world_size},
                 {"steps", state.step},
                 {"total_steps", options_.total_steps},
                 {"epochs", EpochOf(state.step)},
                 {"samples", state.step * state.global_batch},
                 {"seconds", ElapsedSeconds()},
                 {"attempt_seconds", progress.wall_seconds},
                 {"attempt_samples", progress.samples},
                 {"loss", progress.loss},
                 {"phase_seconds", phases}};
  if (!progress.score.name.empty()) result[progress.score.name] = progress.score.value;
  if (!skipped_.empty()) result["skipped_samples"] = skipped_;
  if (replaced_ > 0) result["replaced_samples"] = replaced_;
  if (progress.feature_cache) {
    result["feature_cache"] = {{"reused", progress.feature_cache->reused},
                               {"computed_seconds", progress.feature_cache->computed_seconds},
                               {"saved_seconds", progress.feature_cache->saved_seconds}};
  }
  if (state.last_evaluation) result["last_evaluation"] = ToJson(*state.last_evaluation);
  if (state.best_evaluation) result["best_evaluation"] = ToJson(*state.best_evaluation);
  return config::WriteFileDurably(
      directory_.result(), result.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

void Report::Goodbye(const TrainingState& state, config::TrainerExit exit,
                     const std::string& reason) {
  if (link_ == nullptr) return;
  link_->Goodbye(static_cast<int>(exit), reason, Fill(state.step), kGoodbyeTimeout);
}

}  // namespace lockstep::trainer
