#include "trainer/saver.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {

namespace {

// Rank 0's bytes on every rank.
std::string BroadcastString(const std::string& text, Communicator& communicator) {
  const at::Tensor length = at::full({1}, static_cast<int64_t>(text.size()), at::kLong);
  communicator.Broadcast(length, 0);
  const at::Tensor bytes = at::empty({length.item<int64_t>()}, at::kByte);
  if (communicator.rank() == 0) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  communicator.Broadcast(bytes, 0);
  return {static_cast<const char*>(bytes.data_ptr()), static_cast<size_t>(bytes.numel())};
}

}  // namespace

Saver::Saver(const config::RunConfig& config, const config::RunDirectory& directory, int attempt,
             Communicator& communicator, Report& report, Trace* trace)
    : config_(config),
      directory_(directory),
      attempt_(attempt),
      communicator_(communicator),
      report_(report),
      trace_(trace),
      store_(directory.checkpoints(), attempt,
             Retention{config.checkpoint.keep_last, config.checkpoint.keep_best,
                       BestMetricOf(config).higher_is_better},
             // Asked just before a checkpoint becomes visible: the rows it counts on must be
             // durable, and no newer attempt may have taken over.
             [this]() -> absl::Status {
               if (auto synced = report_.SyncMetrics(); !synced.ok()) return synced;
               const auto current = directory_.ReadCurrentAttempt();
               if (!current.ok()) return current.status();
               if (*current != attempt_) {
                 return absl::AbortedError(absl::StrCat(
                     "attempt ", *current, " of this run has taken over from attempt ", attempt_));
               }
               return absl::OkStatus();
             }) {
  if (communicator_.rank() == 0) writer_ = std::make_unique<CheckpointWriter>(store_);
}

Saver::~Saver() = default;

std::optional<TrainingState> Saver::Restore(
    Replica& replica, const TrainingState& fresh,
    const std::function<void(const TrainingState& restored)>& prepare) {
  // One text for all: "" = nothing to restore, "!" + why = give up, "?" + why = it does not fit the
  // config, otherwise the state.
  std::string outcome;
  absl::StatusOr<LoadedCheckpoint> loaded = absl::NotFoundError("");
  if (communicator_.rank() == 0) {
    std::vector<std::string> refused;
    const absl::Status opened = store_.Open();
    if (opened.ok()) loaded = store_.LoadNewestGood(refused);
    for (const std::string& line : refused) report_.Say("refused a checkpoint: " + line);
    if (!opened.ok()) {
      outcome = absl::StrCat("!", opened.message());
    } else if (loaded.ok()) {
      const absl::StatusOr<TrainingState> state = TrainingState::FromJson(loaded->state_json);
      const absl::Status fits = state.ok() ? state->CheckSameRun(fresh) : state.status();
      outcome = fits.ok() ? loaded->state_json
                          : absl::StrCat("?", loaded->info.path.string(), ": ", fits.message());
    } else if (loaded.status().code() != absl::StatusCode::kNotFound) {
      outcome = absl::StrCat("!", loaded.status().message());
    }
  }
  outcome = Share(outcome);
  if (outcome.starts_with('!')) throw CheckpointFailed(outcome.substr(1));
  if (outcome.starts_with('?')) throw WrongConfig(outcome.substr(1));
  if (outcome.empty()) return std::nullopt;

  TrainingState state = TrainingState::FromJson(outcome).value();
  prepare(state);
  std::string problem;
  if (communicator_.rank() == 0) {
    absl::Status fits = lockstep::trainer::Restore(loaded->weights, replica.Weights());
    if (fits.ok()) fits = lockstep::trainer::Restore(loaded->optimizer, replica.OptimizerState());
    if (fits.ok()) {
      report_.Say(absl::StrCat("going on from ", loaded->info.path.string()));
    } else {
      problem = absl::StrCat(loaded->info.path.string(), ": ", fits.message());
    }
  }
  problem = Share(problem);
  if (!problem.empty()) throw WrongConfig(problem);
  replica.Broadcast();
  state.world_size = fresh.world_size;
  state.card = fresh.card;
  return state;
}

void Saver::Prepare(const Replica& replica) {
  if (writer_ != nullptr) writer_->Prepare(replica.Weights(), replica.OptimizerState());
}

void Saver::Begin(const Replica& replica, TrainingState state) {
  if (writer_ == nullptr) return;
  report_.Flush(state);
  state.seconds = report_.ElapsedSeconds();
  std::optional<double> metric;
  if (state.last_evaluation && state.last_evaluation->step == state.step) {
    metric = state.last_evaluation->Score(BestMetricOf(config_).name);
  }
  stall_seconds_ = writer_->Save(state.step, replica.Weights(), replica.OptimizerState(),
                                 state.ToJson(), metric);
  writing_ = true;
}

CheckpointReport Saver::ToReport(const WriteResult& result) {
  if (trace_ != nullptr) {
    trace_->Add(Trace::Row::kCheckpoints, absl::StrCat("step ", result.step), result.began_seconds,
                result.began_seconds + result.write_seconds, result.bytes);
  }
  if (absl::IsAborted(result.status)) throw StaleAttempt(std::string(result.status.message()));
  CheckpointReport report;
  report.step = result.step;
  report.bytes = result.bytes;
  report.write_seconds = result.write_seconds;
  report.stall_seconds = stall_seconds_;
  report.ok = result.status.ok();
  report.error = absl::IsResourceExhausted(result.status)
                     ? absl::StrCat("disk full: ", result.status.message())
                     : std::string(result.status.message());
  report.path = result.path.string();
  return report;
}

std::optional<CheckpointReport> Saver::Settle(bool wait) {
  if (!writing_) return std::nullopt;
  const std::optional<WriteResult> result = wait ? writer_->Wait() : writer_->Poll();
  if (!result) return std::nullopt;
  writing_ = false;
  return ToReport(*result);
}

std::string Saver::Share(const std::string& error) {
  return BroadcastString(error, communicator_);
}

}  // namespace lockstep::trainer
