// Everything Train() works with, and what happens between the steps: agreeing, reporting,
// evaluating, checkpoints, holding still.
//
// The members below that say "collective" are entered by all ranks at the same step, because what
// leads to them is either a function of the step or was agreed upon (trainer/step/agreement.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer/batches/batches.h"
#include "trainer/control.h"
#include "trainer/data/dataset.h"
#include "trainer/features/feature_cache.h"
#include "trainer/objective/loss.h"
#include "trainer/phase_clock.h"
#include "trainer/replica.h"
#include "trainer/report.h"
#include "trainer/saver.h"
#include "trainer/step/schedule.h"
#include "trainer/step/step_timer.h"
#include "trainer/train_setup.h"
#include "trainer/training_state.h"

namespace lockstep::trainer {

class Session {
 public:
  /// Builds the replica, restores the newest good checkpoint or loads pretrained weights, caches
  /// the frozen trunk's features. Collective.
  explicit Session(const TrainSetup& setup);
  ~Session();

  PhaseClock& clock() { return clock_; }
  StepTimer& timer() { return timer_; }
  Device& device() { return setup_.device; }
  Replica& replica() { return *replica_; }
  int64_t step() const {
    return state_.step;
  }  // Steps done; also the 0-based number of the next one.

  /// Is there another step to make? False at the end of the run and when the ranks agreed to leave.
  bool Continue() const;

  // In the order of a step. Between Prepare() and EndStep() stands the step's body, which may be a
  // captured graph: whatever differs from step to step is in tensors by then.
  void BeginStep();
  Batch NextBatch();                // On the device; on a GPU in the same memory in each step.
  void Prepare(int64_t samples);    // Votes, learning rate, seeds of dropout.
  void Enter(config::Phase phase);  // In the body: what is enqueued from here on.
  const Loss& loss() const { return loss_; }
  const at::Tensor& learning_rate() const { return learning_rate_; }
  const at::Tensor& average_weight() const { return average_weight_; }  // For Replica::Average().
  void FillVector(const at::Tensor& loss_sum, const at::Tensor& score_sum);
  void BeginReduce();
  void EndReduce();
  void EndStep();

  // Between steps; collective.
  bool UnfreezeDue() const;
  void Unfreeze();  // From here on the trunk trains, on pictures. The arena is another one.
  void Say(const std::string& line);  // Rank 0, on the terminal.
  bool EvaluationDue() const;
  void Evaluate();
  bool CheckpointDue() const;
  void Checkpoint();  // Begins one; it is written behind the next steps.
  bool HoldAgreed() const { return requests_.hold || requests_.disk_full; }
  void Hold();

  /// Saves what must be saved, writes result.json, says goodbye. Collective.
  Outcome Finish();

 private:
  bool root() const { return setup_.communicator.rank() == 0; }
  bool Crossed(const config::Duration& every) const;
  bool AtEnd() const;
  void PlanLength();
  double SampleSecondsAtPeak() const;
  void Restore();
  void LoadPretrained();
  void CacheFeatures();
  std::optional<CachedFeatures> FeaturesOf(const Dataset& pictures, int64_t views);
  void CountSavedTime(double rank_seconds);
  void OpenBatches();
  const Dataset& training_set() const;
  const Dataset& evaluation_set() const;
  double LearningRateOf(int64_t step) const;
  void Judge(const EvaluationResult& result);
  void Learn(const StepSummary& step);
  void SeedGenerators();
  void SettleReduce(const StepSummary& summary);
  void CountNonFinite(const StepSummary& summary);
  void CastTimedVotes();
  void AfterWrite(const std::optional<CheckpointReport>& written);
  void TellCheckpoint(const std::optional<CheckpointReport>& written);
  std::string TryToSave();
  void Tell(const std::string& what) const;
  void SaveOrHold();
  void WaitHeld(const std::string& reason);
  void CountReplaced();
  void AnswerOpenOrders(const std::string& error);

  const TrainSetup& setup_;
  const config::RunConfig& config_;
  const BestMetric best_metric_;
  PhaseClock clock_;
  StepTimer timer_;
  double steps_per_epoch_ = 1;
  int64_t total_steps_ = 0;
  int64_t unfreeze_step_ = 0;  // 0 = never.
  bool frozen_ = false;        // Some of the model does not train now.
  Loss loss_;                  // What the steps make small.
  Loss plain_loss_;            // What evaluation tells: without smoothing and weights.
  std::unique_ptr<Schedule> schedule_;
  Agreement agreement_;
  std::unique_ptr<Replica> replica_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<Report> report_;
  std::unique_ptr<Saver> saver_;
  std::optional<CachedFeatures> train_features_;  // In place of the pictures.
  std::optional<CachedFeatures> eval_features_;
  std::unique_ptr<Batches> batches_;

  TrainingState state_;
  Requests requests_;
  at::Tensor learning_rate_;
  at::Tensor average_weight_;
  FeatureCacheReport feature_report_;
  std::string stop_reason_ = "stopped by order";
  std::vector<std::string>
      checkpoint_orders_;  // Rank 0: to be answered when the checkpoint begun last is durable.
  std::optional<CheckpointReport> last_written_;
  double step_began_ = 0, reduce_began_ = 0, reduce_ended_ = 0;
  double arrival_ = 0;  // From one reduce to the next, newest known.
  int64_t arrival_step_ = -1;
  std::array<int64_t, 2> told_arrivals_{};  // Whose arrivals were told in a step, by its last bit.
  double reduce_seconds_ = 0;
  int64_t loaded_samples_ = 0;  // By this rank, in this attempt.
  double last_save_ = 0;
};

}  // namespace lockstep::trainer
