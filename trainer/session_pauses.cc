// What a Session does between steps: evaluating, saving, holding still, ending.
#include <ATen/ops/full.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <thread>

#include "absl/strings/str_cat.h"
#include "trainer/evaluate.h"
#include "trainer/session.h"

namespace lockstep::trainer {

using config::Duration;
using config::Phase;
using config::TrainerExit;

namespace {

constexpr auto kHoldPoll = std::chrono::milliseconds(20);
constexpr double kDiskRetrySeconds = 15;

}  // namespace

bool Session::Crossed(const Duration& every) const {
  if (every.is_zero() || state_.step == 0) return false;
  double period = 0;
  if (every.unit() == Duration::Unit::kEpochs) period = every.count() * steps_per_epoch_;
  if (every.unit() == Duration::Unit::kSteps) period = every.count();
  if (period <= 0) return false;
  const auto passed = [&](int64_t steps) {
    return std::floor(static_cast<double>(steps) / period + 1e-9);
  };
  return passed(state_.step) > passed(state_.step - 1);
}

bool Session::EvaluationDue() const {
  return setup_.eval_data.size() > 0 && (AtEnd() || Crossed(config_.training.eval_every));
}

void Session::Evaluate() {
  state_.evaluation_pending = true;
  if (requests_.leave() || HoldAgreed()) return;  // Made when the run goes on.
  const PhaseScope phase(clock_, Phase::kEval);
  const double began = MonotonicSeconds();
  EvaluateOptions options;
  options.device = setup_.device.torch();
  options.precision = config_.training.precision;
  options.prefetch_threads = config_.data.prefetch_threads;
  options.prefetch_batches = config_.data.prefetch_batches;
  std::optional<MeasureResult> measured;
  {
    const AveragedWeights averaged(*replica_);
    measured = lockstep::trainer::Evaluate(replica_->model(), evaluation_set(), plain_loss_,
                                           setup_.communicator, *control_, options, requests_);
  }
  if (!measured) return;
  state_.evaluation_pending = false;
  const EvaluationResult result{.step = state_.step,
                                .epoch = static_cast<double>(state_.step) / steps_per_epoch_,
                                .loss = measured->loss,
                                .scores = measured->scores,
                                .samples = measured->samples,
                                .seconds = MonotonicSeconds() - began};
  Judge(result);
  if (eval_features_) CountSavedTime(eval_features_->rank_seconds);
  if (root()) report_->Evaluation(result, state_, measured->confusion);
  reduce_ended_ = MonotonicSeconds();
}

// Is it the best one, is the learning rate to be lowered, is it time to end? All ranks come to the
// same answers, because the sums behind `result` are the same on all.
void Session::Judge(const EvaluationResult& result) {
  const config::EarlyStoppingConfig& early = config_.training.early_stopping;
  const auto& best = state_.best_evaluation;
  const bool better = !best || best_metric_.Better(result, *best, early.min_delta);
  state_.evaluations_without_better = better ? 0 : state_.evaluations_without_better + 1;
  state_.evaluations_on_plateau = better ? 0 : state_.evaluations_on_plateau + 1;
  state_.last_evaluation = result;
  if (!best || best_metric_.Better(result, *best)) state_.best_evaluation = result;

  const bool plateau = config_.schedule.kind == config::ScheduleKind::kPlateau;
  if (plateau && state_.evaluations_on_plateau >= config_.schedule.patience) {
    state_.evaluations_on_plateau = 0;
    state_.plateau_factor *= config_.schedule.gamma;
    Say(absl::StrCat("plateau: the learning rate is now ", LearningRateOf(state_.step)));
  }
  if (early.patience > 0 && state_.evaluations_without_better >= early.patience) {
    state_.ended_early = absl::StrCat("ended early: no better val_", best_metric_.name, " in ",
                                      early.patience, " evaluations; the best was ",
                                      state_.best_evaluation->Score(best_metric_.name), " at step ",
                                      state_.best_evaluation->step);
  }
}

bool Session::CheckpointDue() const {
  return requests_.checkpoint || Crossed(config_.checkpoint.every);
}

void Session::Checkpoint() {
  if (!Continue() || HoldAgreed()) return;  // Those save by themselves, and wait for it.
  const PhaseScope phase(clock_, Phase::kCheckpointStall);
  if (requests_.checkpoint) Tell("saves");
  requests_.checkpoint = false;
  last_save_ = MonotonicSeconds();
  if (!root()) return;
  AfterWrite(saver_->Settle(/*wait=*/true));
  for (std::string& order : control_->TakeOrders(Vote::kCheckpoint)) {
    checkpoint_orders_.push_back(std::move(order));
  }
  saver_->Begin(*replica_, state_);
}

// A write that failed behind the step loop: nothing is lost while the ranks are alive, so they
// agree to stand still.
void Session::AfterWrite(const std::optional<CheckpointReport>& written) {
  TellCheckpoint(written);
  if (written && !written->ok) control_->Cast(Vote::kDiskFull);
}

void Session::TellCheckpoint(const std::optional<CheckpointReport>& written) {
  if (!written) return;
  last_written_ = written;
  report_->Checkpoint(*written);
  control_->Answer(checkpoint_orders_, written->step, written->error, written);
  checkpoint_orders_.clear();
}

// Empty when a checkpoint of this step is durable, otherwise why not. Collective.
std::string Session::TryToSave() {
  const PhaseScope phase(clock_, Phase::kCheckpointStall);
  std::string error;
  if (root()) {
    TellCheckpoint(saver_->Settle(/*wait=*/true));
    saver_->Begin(*replica_, state_);
    TellCheckpoint(saver_->Settle(/*wait=*/true));
    error = last_written_->error;
  }
  return saver_->Share(error);
}

void Session::AnswerOpenOrders(const std::string& error) {
  if (!root()) return;
  for (const Vote vote :
       {Vote::kPause, Vote::kHold, Vote::kCheckpoint, Vote::kStop, Vote::kResume}) {
    control_->Answer(control_->TakeOrders(vote), state_.step, error, last_written_);
  }
}

// Stands still until someone asks for something. With a reason, also until it is time to try again.
// Collective.
void Session::WaitHeld(const std::string& reason) {
  const PhaseScope phase(clock_, Phase::kPaused);
  Tell("holds");
  if (root()) report_->Held(true, state_.step, reason);
  const double began = MonotonicSeconds();
  while (true) {
    if (root() && !reason.empty() && MonotonicSeconds() - began >= kDiskRetrySeconds) {
      control_->Cast(Vote::kResume);
    }
    const StepSummary summary = control_->Together();
    requests_.Add(summary);
    if (summary.Has(Vote::kResume) || summary.Has(Vote::kPause) || summary.Has(Vote::kStop)) return;
    if (summary.Has(Vote::kCheckpoint)) {
      if (!reason.empty()) return;
      requests_.checkpoint = false;
      if (root()) {
        control_->Answer(control_->TakeOrders(Vote::kCheckpoint), state_.step, "", last_written_);
      }
    }
    if (root()) report_->Progress(state_);
    std::this_thread::sleep_for(kHoldPoll);
  }
}

void Session::SaveOrHold() {
  bool held = false;
  for (std::string problem = TryToSave(); !problem.empty(); problem = TryToSave()) {
    held = true;
    AnswerOpenOrders(absl::StrCat("the checkpoint cannot be written (", problem,
                                  "); the run stands still and keeps its state in memory"));
    WaitHeld(problem);
  }
  requests_.disk_full = false;
  requests_.checkpoint = false;
  if (held && root()) report_->Held(false, state_.step, "");
}

void Session::Hold() {
  if (requests_.leave()) return;  // Finish() saves.
  const bool ordered = requests_.hold;
  SaveOrHold();
  if (ordered && !requests_.leave()) {
    AnswerOpenOrders("");
    requests_.hold = false;
    WaitHeld("");
    if (root()) report_->Held(false, state_.step, "");
  }
  requests_.hold = requests_.resume = false;
  if (requests_.leave()) return;
  AnswerOpenOrders("");
  reduce_ended_ = MonotonicSeconds();
  if (state_.evaluation_pending) Evaluate();
}

// Samples that went bad while the run read them, over all ranks. Collective.
void Session::CountReplaced() {
  const at::Tensor replaced =
      at::full({1}, setup_.train_data.replaced() + setup_.eval_data.replaced(), at::kLong);
  setup_.communicator.AllReduce(replaced);
  setup_.communicator.Wait();
  const int64_t count = replaced.const_data_ptr<int64_t>()[0];
  if (count == 0) return;
  Say(absl::StrCat("read another sample ", count,
                   " times, in place of ones that went bad meanwhile"));
  report_->Replaced(count);
}

Outcome Session::Finish() {
  Outcome outcome;
  if (setup_.keep) SaveOrHold();
  if (AtEnd() && !state_.evaluation_pending) {
    outcome = {TrainerExit::kCompleted,
               state_.ended_early.empty() ? "trained for its whole duration" : state_.ended_early};
  } else if (requests_.stop) {
    outcome = {TrainerExit::kStopped, stop_reason_};
  } else {
    outcome = {TrainerExit::kPaused, "paused by order"};
  }
  AnswerOpenOrders("");
  CountReplaced();
  Tell("leaves");
  clock_.Enter(Phase::kOther);
  clock_.SettleAll();
  if (root()) {
    const absl::Status written =
        report_->Result(state_, outcome.exit, outcome.reason, setup_.attempt);
    if (!written.ok()) throw CheckpointFailed(std::string(written.message()));
    report_->Say(absl::StrCat(outcome.reason, " after step ", state_.step));
    report_->Goodbye(state_, outcome.exit, outcome.reason);
  }
  return outcome;
}

}  // namespace lockstep::trainer
