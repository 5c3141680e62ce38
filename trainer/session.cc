#include "trainer/session.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <thread>

#include "absl/strings/str_cat.h"
#include "trainer/evaluate.h"
#include "trainer/step/replica_guard.h"

namespace lockstep::trainer {

using config::Duration;
using config::Phase;
using config::TrainerExit;

namespace {

constexpr auto kHoldPoll = std::chrono::milliseconds(20);
constexpr double kDiskRetrySeconds = 15;
// float16 finds its loss scale by overflowing; so many halvings bring 65,536 down to 2^-8.
constexpr int kMostLossScaleCuts = 24;

// SplitMix64's finalizer (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
// 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

bool Better(const config::RunConfig& config, const EvaluationResult& a, const EvaluationResult& b) {
  return config.checkpoint.best_metric == "val_loss" ? a.loss < b.loss : a.top1 > b.top1;
}

}  // namespace

Session::Session(const TrainSetup& setup)
    : setup_(setup),
      config_(setup.config),
      clock_(setup.board, setup.communicator.rank(), setup.trace),
      agreement_(setup.communicator, setup.device),
      learning_rate_(
          at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(setup.device.torch()))) {
  at::set_num_threads(config_.resources.threads_per_rank);
  OpenData();
  if (config_.model.sync_batch_norm &&
      config_.training.global_batch_size % setup_.communicator.size() != 0) {
    // Otherwise a rank could have one micro-batch more, and wait in its batch norms for ever.
    throw WrongConfig(
        absl::StrCat("model.sync_batch_norm needs the same number of samples on each rank: "
                     "training.global_batch_size is ",
                     config_.training.global_batch_size, ", which ", setup_.communicator.size(),
                     " ranks cannot share equally"));
  }
  const InputShape input{train_data_->channels(), train_data_->height(), train_data_->width()};
  replica_ = std::make_unique<Replica>(config_, input, setup_.device, setup_.communicator);
  control_ = std::make_unique<Control>(agreement_, setup_.link);
  ReportOptions reporting;
  reporting.world_size = setup_.communicator.size();
  reporting.total_steps = total_steps_;
  reporting.total_seconds = config_.training.duration.count();
  reporting.steps_per_epoch = steps_per_epoch_;
  reporting.log_every_steps = config_.training.log_every_steps;
  reporting.terminal = setup_.terminal && root();
  report_ = std::make_unique<Report>(setup_.directory, clock_, setup_.link, reporting);
  saver_ = std::make_unique<Saver>(config_, setup_.directory, setup_.attempt, setup_.communicator,
                                   *report_, setup_.trace);
  if (root()) {
    report_->Say("training on " + train_data_->Describe());
    report_->Say("evaluating on " + eval_data_->Describe());
  }
  Restore();
}

Session::~Session() = default;

void Session::OpenData() {
  train_data_ = OpenDataset(config_.data, Split::kTrain, config_.seed);
  eval_data_ = OpenDataset(config_.data, Split::kEval, config_.seed);
  normalization_ = NormalizationOf(config_.data, train_data_->channels());
  const auto classes = static_cast<int>(train_data_->classes().size());
  if (config_.model.num_classes < classes) {
    throw WrongConfig(absl::StrCat("model.num_classes is ", config_.model.num_classes,
                                   " but the data set has ", classes, " classes"));
  }
  steps_per_epoch_ = static_cast<double>(train_data_->size()) /
                     static_cast<double>(config_.training.global_batch_size);
  total_steps_ = StepsOf(config_.training.duration, steps_per_epoch_);
  schedule_ = std::make_unique<Schedule>(config_.schedule, config_.optimizer.learning_rate,
                                         total_steps_, steps_per_epoch_);
}

void Session::Restore() {
  TrainingState fresh;
  fresh.seed = config_.seed;
  fresh.global_batch = config_.training.global_batch_size;
  fresh.dataset_size = train_data_->size();
  fresh.model = config_.model.name;
  fresh.num_classes = config_.model.num_classes;
  fresh.world_size = setup_.communicator.size();
  state_ = saver_->Restore(*replica_, fresh);
  if (root()) {
    if (auto opened = report_->Open(state_); !opened.ok()) {
      throw CheckpointFailed(std::string(opened.message()));
    }
  }
  last_save_ = MonotonicSeconds();

  BatchesOptions reading;
  reading.seed = config_.seed;
  reading.global_batch = config_.training.global_batch_size;
  reading.rank = setup_.communicator.rank();
  reading.world_size = setup_.communicator.size();
  reading.threads = config_.data.prefetch_threads;
  reading.depth = config_.data.prefetch_batches;
  reading.first_step = state_.step;
  reading.augment = config_.data.augment;
  reading.normalization = normalization_;
  reading.device = setup_.device.torch();
  reading.resident = config_.data.resident;
  reading.free_device_bytes = setup_.device.FreeBytes();
  batches_ = std::make_unique<Batches>(*train_data_, reading);
  if (batches_->resident()) Say("all training pictures are in the GPU's memory");
  clock_.Enter(Phase::kOther);
  if (state_.evaluation_pending) Evaluate();
}

// One line in each rank's own log: the step number is the same in all of them.
void Session::Tell(const std::string& what) const {
  if (!setup_.own_log) return;
  std::printf("rank %d %s after step %lld\n", setup_.communicator.rank(), what.c_str(),
              static_cast<long long>(state_.step));
  std::fflush(stdout);
}

void Session::Say(const std::string& line) {
  if (root()) report_->Say(line);
}

bool Session::AtEnd() const {
  return requests_.time_up || (total_steps_ > 0 && state_.step >= total_steps_);
}

bool Session::Continue() const {
  return !AtEnd() && !requests_.leave();
}

void Session::BeginStep() {
  step_began_ = MonotonicSeconds();
  clock_.SetStep(state_.step);
  if (reduce_ended_ == 0) reduce_ended_ = step_began_;
  reduce_seconds_ = 0;
}

Batch Session::NextBatch() {
  clock_.Enter(Phase::kDataWait);
  batches_->Await();
  if (setup_.device.is_gpu()) {
    arrival_ = MonotonicSeconds() - step_began_;
    clock_.Enter(Phase::kH2d);
  }
  return batches_->Next();
}

void Session::Prepare(int64_t samples) {
  CastTimedVotes();
  control_->CastVotes();
  if (setup_.board != nullptr) setup_.board->CountCollective(setup_.communicator.rank());
  agreement_.Prepare(samples, arrival_);
  learning_rate_.fill_(schedule_->LearningRate(state_.step));
  SeedGenerators();
}

void Session::SeedGenerators() {
  // Dropout: a function of where and when, so that a resumed run draws the same.
  const auto rank = static_cast<uint64_t>(setup_.communicator.rank());
  at::manual_seed(Mix(config_.seed ^ Mix(Mix(static_cast<uint64_t>(state_.step)) ^ rank)));
}

void Session::FillVector(const at::Tensor& loss_sum, const at::Tensor& correct) {
  agreement_.Fill(replica_->arena().step_vector(), loss_sum, correct);
}

void Session::BeginReduce() {
  clock_.Enter(Phase::kAllreduceExposed);
  reduce_began_ = MonotonicSeconds();
  if (!setup_.device.is_gpu()) arrival_ = reduce_began_ - reduce_ended_;
}

void Session::EndReduce() {
  reduce_ended_ = MonotonicSeconds();
  reduce_seconds_ = reduce_ended_ - reduce_began_;
}

void Session::EndStep() {
  const GradientArena& arena = replica_->arena();
  const int64_t made = state_.step++;
  clock_.Enter(setup_.device.is_gpu() ? Phase::kDevice : Phase::kOther);
  Learn(agreement_.Exchange({arena.step_vector(), arena.found_nonfinite(), arena.gradient_norm()},
                            made));
  const int64_t check_every = config_.training.replica_check_every_steps;
  const bool check = check_every > 0 && state_.step % check_every == 0;
  // What comes next looks at the state or leaves, so this step's own vector must have been read.
  // That also waits for the device, with a deadline, before anything waits for it without one.
  if (requests_.any() || EvaluationDue() || CheckpointDue() || AtEnd() || check) {
    Learn(agreement_.Drain());
  }
  clock_.Enter(Phase::kOther);
  if (check) {
    CheckReplicas(arena, setup_.communicator, made);
  }
  if (!root()) return;
  AfterWrite(saver_->Settle(/*wait=*/false));
  if (setup_.link != nullptr && !setup_.link->rejected().empty()) {
    throw StaleAttempt(setup_.link->rejected());
  }
  report_->Timing(MonotonicSeconds() - step_began_, reduce_seconds_, arena.reduced_bytes(),
                  config_.training.global_batch_size);
  report_->Progress(state_);
}

void Session::Learn(const StepSummary& step) {
  if (step.step < 0) return;
  requests_.Add(step);
  if (root()) report_->Step(step, schedule_->LearningRate(step.step));
  CountNonFinite(step);
  const auto epochs_after = [&](int64_t steps) {
    return steps * config_.training.global_batch_size / train_data_->size();
  };
  const int64_t epochs = epochs_after(step.step + 1);
  if (epochs > epochs_after(step.step)) {
    if (root()) report_->Epoch(step.step + 1, epochs, state_);
    state_.epoch_loss_sum = state_.epoch_correct = state_.epoch_samples = 0;
  }
}

void Session::CountNonFinite(const StepSummary& step) {
  if (!step.nonfinite) {
    state_.nonfinite_in_a_row = 0;
    state_.epoch_loss_sum += step.loss * step.samples;
    state_.epoch_correct += step.correct;
    state_.epoch_samples += step.samples;
    return;
  }
  // The optimizer has left everything as it was (found_nonfinite).
  const int overflows =
      config_.training.precision == config::Precision::kFp16 ? kMostLossScaleCuts : 0;
  if (++state_.nonfinite_in_a_row <= config_.training.max_nonfinite_steps + overflows) return;
  throw NonFiniteLoss(
      absl::StrCat("the loss or a gradient was not finite in step ", step.step + 1, " (",
                   state_.nonfinite_in_a_row, " in a row; training.max_nonfinite_steps is ",
                   config_.training.max_nonfinite_steps,
                   "). Lower the learning rate, clip gradients, or look at the data"));
}

void Session::CastTimedVotes() {
  if (!root()) return;
  const Duration& duration = config_.training.duration;
  if (duration.unit() == Duration::Unit::kSeconds &&
      report_->ElapsedSeconds() >= duration.count()) {
    control_->Cast(Vote::kTimeUp);
  }
  if (setup_.enforce_max_time && !config_.cost.max_time.is_zero() &&
      report_->ElapsedSeconds() >= config_.cost.max_time.count()) {
    stop_reason_ = "cost.max_time was reached";
    control_->Cast(Vote::kStop);
  }
  const Duration& every = config_.checkpoint.every;
  if (every.unit() == Duration::Unit::kSeconds && !every.is_zero() &&
      MonotonicSeconds() - last_save_ >= every.count()) {
    last_save_ = MonotonicSeconds();
    control_->Cast(Vote::kCheckpoint);
  }
}

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
  return eval_data_->size() > 0 && (AtEnd() || Crossed(config_.training.eval_every));
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
  options.normalization = normalization_;
  auto result = lockstep::trainer::Evaluate(replica_->model(), *eval_data_, setup_.communicator,
                                            *control_, options, requests_);
  if (!result) return;
  state_.evaluation_pending = false;
  result->step = state_.step;
  result->epoch = static_cast<double>(state_.step) / steps_per_epoch_;
  result->seconds = MonotonicSeconds() - began;
  state_.last_evaluation = result;
  if (!state_.best_evaluation || Better(config_, *result, *state_.best_evaluation)) {
    state_.best_evaluation = result;
  }
  if (root()) report_->Evaluation(*result, state_);
  reduce_ended_ = MonotonicSeconds();
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

Outcome Session::Finish() {
  Outcome outcome;
  SaveOrHold();
  if (AtEnd() && !state_.evaluation_pending) {
    outcome = {TrainerExit::kCompleted, "trained for its whole duration"};
  } else if (requests_.stop) {
    outcome = {TrainerExit::kStopped, stop_reason_};
  } else {
    outcome = {TrainerExit::kPaused, "paused by order"};
  }
  AnswerOpenOrders("");
  Tell("leaves");
  clock_.Enter(Phase::kOther);
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
