#include "trainer/session.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "config/load.h"
#include "trainer/card.h"
#include "trainer/data/input_file.h"
#include "trainer/device/peak_flops.h"
#include "trainer/models/describe.h"
#include "trainer/overflows.h"
#include "trainer/step/replica_guard.h"

namespace lockstep::trainer {

using config::Duration;
using config::Phase;

namespace {

// SplitMix64's finalizer (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
// 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace

Session::Session(const TrainSetup& setup)
    : setup_(setup),
      config_(setup.config),
      best_metric_(BestMetricOf(setup.config)),
      clock_(setup.board, setup.communicator.rank(), setup.trace, setup.redone_until),
      timer_(setup.device, [this](const std::string& line) { Say(line); }),
      loss_(LossOptionsOf(setup.config, setup.train_data.targets(), setup.train_data.ClassCounts()),
            setup.device.torch()),
      plain_loss_({.kind = LossKindOf(setup.config),
                   .huber_delta = setup.config.training.loss.huber_delta,
                   .targets = setup.train_data.targets()},
                  setup.device.torch()),
      agreement_(setup.communicator, setup.device),
      learning_rate_(
          at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(setup.device.torch()))),
      average_weight_(at::zeros_like(learning_rate_)) {
  at::set_num_threads(config_.resources.threads_per_rank);
  PlanLength();
  if (config_.model.sync_batch_norm &&
      config_.training.global_batch_size % setup_.communicator.size() != 0) {
    // Otherwise a rank could have one micro-batch more, and wait in its batch norms for ever.
    throw WrongConfig(
        absl::StrCat("model.sync_batch_norm needs the same number of samples on each rank: "
                     "training.global_batch_size is ",
                     config_.training.global_batch_size, ", which ", setup_.communicator.size(),
                     " ranks cannot share equally"));
  }
  const Dataset& data = setup_.train_data;
  const InputShape input{data.channels(), data.height(), data.width()};
  const int frozen = FrozenOperations(BuildGraph(config_.model, input), config_.model.freeze);
  frozen_ = frozen > 0;
  replica_ = std::make_unique<Replica>(config_, input, frozen, setup_.device, setup_.communicator);
  control_ = std::make_unique<Control>(agreement_, setup_.link);
  ReportOptions reporting;
  reporting.world_size = setup_.communicator.size();
  reporting.total_steps = total_steps_;
  reporting.total_seconds = config_.training.duration.count();
  reporting.steps_per_epoch = steps_per_epoch_;
  reporting.log_every_steps = config_.training.log_every_steps;
  reporting.loss_scale = config_.training.precision == config::Precision::kFp16;
  reporting.score = ScoreName(loss_.task());
  reporting.terminal = setup_.terminal && root();
  if (config_.training.tensorboard) {
    reporting.tensorboard = {.score = reporting.score,
                             .classes = setup_.train_data.classes(),
                             .log_every_steps = reporting.log_every_steps,
                             .run_yaml = config::ToYaml(config_)};
  }
  report_ = std::make_unique<Report>(setup_.directory, clock_, setup_.link, reporting);
  saver_ = std::make_unique<Saver>(config_, setup_.directory, setup_.attempt, setup_.communicator,
                                   *report_, setup_.trace);
  Say("training on " + setup_.train_data.Describe());
  Say("evaluating on " + setup_.eval_data.Describe());
  std::vector<std::string> skipped = setup_.train_data.Skipped();
  for (std::string& sample : setup_.eval_data.Skipped()) skipped.push_back(std::move(sample));
  if (!skipped.empty()) Say(ListProblems("left out, as data.on_bad_sample says:", skipped));
  report_->Skipped(std::move(skipped));
  Restore();
  if (frozen_) CacheFeatures();
  OpenBatches();
  clock_.Enter(Phase::kOther);
  if (state_.evaluation_pending) Evaluate();
}

Session::~Session() = default;

// What a step's arithmetic for one sample would take at best, as the model trains now.
double Session::SampleSecondsAtPeak() const {
  const double peak =
      PeakFlops(setup_.device.Describe(), config_.training.precision, config_.training.tf32) *
      setup_.communicator.size();
  if (peak <= 0) return 0;
  const Dataset& data = setup_.train_data;
  const Graph graph = BuildGraph(config_.model, {data.channels(), data.height(), data.width()});
  const int frozen = frozen_ ? FrozenOperations(graph, config_.model.freeze) : 0;
  constexpr double kFlopsPerMultiplyAdd = 2;
  return kFlopsPerMultiplyAdd *
         static_cast<double>(StepMultiplyAdds(graph, frozen, train_features_.has_value())) / peak;
}

void Session::PlanLength() {
  steps_per_epoch_ = static_cast<double>(setup_.train_data.size()) /
                     static_cast<double>(config_.training.global_batch_size);
  total_steps_ = StepsOf(config_.training.duration, steps_per_epoch_);
  unfreeze_step_ = StepsOf(config_.model.unfreeze_after, steps_per_epoch_);
  schedule_ = std::make_unique<Schedule>(config_.schedule, config_.optimizer.learning_rate,
                                         total_steps_, steps_per_epoch_);
}

void Session::Restore() {
  TrainingState fresh;
  fresh.seed = config_.seed;
  fresh.global_batch = config_.training.global_batch_size;
  fresh.dataset_size = setup_.train_data.size();
  fresh.model = config_.model.name;
  fresh.num_classes = config_.model.num_classes;
  fresh.world_size = setup_.communicator.size();
  fresh.card = ModelCard{.run_yaml = config::ToYaml(config_),
                         .loss = LossKindOf(config_),
                         .preprocessing = setup_.train_data.preprocessing(),
                         .classes = setup_.train_data.classes(),
                         .targets = setup_.train_data.targets()}
                   .ToJson();
  const auto restored = saver_->Restore(*replica_, fresh, [this](const TrainingState& state) {
    // At the very step it was saved before UnfreezeDue() was asked.
    if (!frozen_ || unfreeze_step_ == 0 || state.step <= unfreeze_step_) return;
    replica_->Unfreeze();
    frozen_ = false;
  });
  state_ = restored.value_or(fresh);
  if (!restored) LoadPretrained();
  saver_->Prepare(*replica_);
  if (root()) {
    if (auto opened = report_->Open(state_); !opened.ok()) {
      throw CheckpointFailed(std::string(opened.message()));
    }
  }
  last_save_ = MonotonicSeconds();
}

const Dataset& Session::training_set() const {
  return train_features_ ? *train_features_->dataset : setup_.train_data;
}

const Dataset& Session::evaluation_set() const {
  return eval_features_ ? *eval_features_->dataset : setup_.eval_data;
}

void Session::OpenBatches() {
  BatchesOptions reading;
  reading.seed = config_.seed;
  reading.global_batch = config_.training.global_batch_size;
  reading.rank = setup_.communicator.rank();
  reading.world_size = setup_.communicator.size();
  reading.threads = config_.data.prefetch_threads;
  reading.depth = config_.data.prefetch_batches;
  reading.first_step = state_.step;
  // What a cache holds is augmented already.
  if (!train_features_) reading.augment = config_.data.augment;
  reading.device = setup_.device.torch();
  reading.resident = config_.data.resident;
  reading.free_device_bytes = setup_.device.FreeBytes();
  batches_ = std::make_unique<Batches>(training_set(), reading);
  if (batches_->resident()) Say("all training pictures are in the GPU's memory");
  report_->SampleSecondsAtPeak(SampleSecondsAtPeak());
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
  return requests_.time_up || !state_.ended_early.empty() ||
         (total_steps_ > 0 && state_.step >= total_steps_);
}

bool Session::Continue() const {
  return !AtEnd() && !requests_.leave();
}

void Session::BeginStep() {
  if (setup_.on_step) setup_.on_step(*this);
  step_began_ = MonotonicSeconds();
  clock_.SetStep(state_.step);
  timer_.Begin(state_.step);
  if (reduce_ended_ == 0) reduce_ended_ = step_began_;
  reduce_seconds_ = 0;
}

Batch Session::NextBatch() {
  clock_.Enter(Phase::kDataWait);
  batches_->Await();
  if (!setup_.device.is_gpu()) return batches_->Next();
  clock_.Enter(Phase::kH2d);
  Batch batch = batches_->Next();
  // Until the body says more: a graph is one thing to launch, and says nothing.
  clock_.Enter(Phase::kDevice);
  return batch;
}

void Session::Prepare(int64_t samples) {
  CastTimedVotes();
  control_->CastVotes();
  loaded_samples_ += samples;
  if (setup_.board != nullptr) {
    setup_.board->CountCollective(setup_.communicator.rank());
    setup_.board->SetLoaded(setup_.communicator.rank(), loaded_samples_,
                            setup_.train_data.replaced() + setup_.eval_data.replaced(),
                            InputBytes());
  }
  agreement_.Prepare(samples, arrival_);
  told_arrivals_[static_cast<size_t>(state_.step % 2)] = arrival_step_;
  learning_rate_.fill_(LearningRateOf(state_.step));
  // The average follows closely at first, or it would hold on to the first weights for long.
  const auto made = static_cast<double>(state_.step);
  average_weight_.fill_(1 - std::min(config_.training.ema_decay, (1 + made) / (10 + made)));
  SeedGenerators();
}

double Session::LearningRateOf(int64_t step) const {
  return schedule_->LearningRate(step) * state_.plateau_factor;
}

void Session::SeedGenerators() {
  // Dropout: a function of where and when, so that a resumed run draws the same.
  const auto rank = static_cast<uint64_t>(setup_.communicator.rank());
  at::manual_seed(Mix(config_.seed ^ Mix(Mix(static_cast<uint64_t>(state_.step)) ^ rank)));
}

void Session::FillVector(const at::Tensor& loss_sum, const at::Tensor& score_sum) {
  agreement_.Fill(replica_->arena().step_vector(), loss_sum, score_sum);
}

void Session::Enter(Phase phase) {
  clock_.Enter(phase);
  timer_.Mark(phase);
}

void Session::BeginReduce() {
  Enter(Phase::kAllreduceExposed);
  reduce_began_ = MonotonicSeconds();
  if (setup_.device.is_gpu()) return;
  arrival_ = reduce_began_ - reduce_ended_;
  arrival_step_ = state_.step;
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
  // How long a GPU's all-reduce took, the host does not know.
  const std::optional<double> reduce_seconds =
      setup_.device.is_gpu() ? std::nullopt : std::optional(reduce_seconds_);
  const bool alone = setup_.communicator.size() == 1;
  report_->Timing(MonotonicSeconds() - step_began_, reduce_seconds,
                  alone ? 0 : arena.reduced_bytes(), config_.training.global_batch_size);
  if (train_features_) {
    CountSavedTime(train_features_->rank_seconds *
                   static_cast<double>(config_.training.global_batch_size) /
                   static_cast<double>(training_set().size() * training_set().views()));
  }
  report_->Progress(state_);
}

void Session::Learn(const StepSummary& step) {
  if (step.step < 0) return;
  requests_.Add(step);
  SettleReduce(step);
  if (root()) report_->Step(step, LearningRateOf(step.step));
  CountNonFinite(step);
  const auto epochs_after = [&](int64_t steps) {
    return steps * config_.training.global_batch_size / setup_.train_data.size();
  };
  const int64_t epochs = epochs_after(step.step + 1);
  if (epochs > epochs_after(step.step)) {
    if (root()) report_->Epoch(step.step + 1, epochs, state_);
    state_.epoch_loss_sum = state_.epoch_score_sum = state_.epoch_samples = 0;
  }
}

void Session::SettleReduce(const StepSummary& step) {
  if (setup_.device.is_gpu()) {
    const DeviceTimes times =
        timer_.Read(step.step).value_or(DeviceTimes{.phase_seconds = {}, .arrival_seconds = -1});
    clock_.TellDevice(step.step, times.phase_seconds);
    arrival_ = times.arrival_seconds;
    arrival_step_ = step.step;
  }
  const std::vector<double>& arrivals = step.arrival_seconds;
  const double waited = *std::max_element(arrivals.begin(), arrivals.end()) -
                        arrivals[static_cast<size_t>(setup_.communicator.rank())];
  // The vector of a step tells how the ranks arrived at a reduce before it.
  clock_.SettleReduce(told_arrivals_[static_cast<size_t>(step.step % 2)], waited);
}

void Session::CountNonFinite(const StepSummary& step) {
  if (!step.nonfinite) {
    state_.nonfinite_in_a_row = 0;
    state_.epoch_loss_sum += step.loss * step.samples;
    state_.epoch_score_sum += step.score;
    state_.epoch_samples += step.samples;
    return;
  }
  // The optimizer has left everything as it was (found_nonfinite).
  const int overflows =
      config_.training.precision == config::Precision::kFp16 ? Overflows::kMostCuts : 0;
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

}  // namespace lockstep::trainer
