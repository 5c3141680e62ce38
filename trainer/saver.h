// Saving and restoring a whole replica: ties the arena's tensors, the training state and
// metrics.jsonl to the checkpoint store.
//
// Rank 0 reads and writes; the others get what they need by broadcast, so one copy of a run
// directory serves a run over several hosts. The write goes on behind the step loop
// (trainer/checkpoint/snapshot.h).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "config/run_config.h"
#include "config/run_directory.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/checkpoint/store.h"
#include "trainer/replica.h"
#include "trainer/report.h"
#include "trainer/trace.h"
#include "trainer/training_state.h"

namespace lockstep::trainer {

// No checkpoint can be read although there are some, or this attempt may no longer write.
class CheckpointFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
class StaleAttempt : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
// The checkpoint and run.yaml do not fit each other.
class WrongConfig : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Saver {
 public:
  /// `report` is rank 0's; it outlives the saver. So does `trace`, which may be null.
  Saver(const config::RunConfig& config, const config::RunDirectory& directory, int attempt,
        Communicator& communicator, Report& report, Trace* trace = nullptr);
  ~Saver();  // Waits for the write under way.

  /// Collective. Puts the newest good checkpoint into `replica` and returns its state; nothing
  /// where there is none. `prepare` is called on all ranks in between, so that the replica can be
  /// brought to the shape that it had in that state. `fresh` is what the run is about to train.
  std::optional<TrainingState> Restore(
      Replica& replica, const TrainingState& fresh,
      const std::function<void(const TrainingState& restored)>& prepare);

  /// Before the first checkpoint, and when the replica's tensors are others than before: memory for
  /// a snapshot of them, so that the first stall is no longer than a later one.
  void Prepare(const Replica& replica);

  /// Rank 0 copies the tensors and begins to write; the others return at once. Settle() the one
  /// before first.
  void Begin(const Replica& replica, TrainingState state);

  /// Rank 0: how the write begun last ended, once; nothing while it goes on (unless `wait`) or when
  /// there is none. Throws StaleAttempt.
  std::optional<CheckpointReport> Settle(bool wait);

  /// Collective: rank 0's error text on every rank.
  std::string Share(const std::string& error);

 private:
  CheckpointReport ToReport(const WriteResult& result);

  const config::RunConfig& config_;
  const config::RunDirectory& directory_;
  int attempt_;
  Communicator& communicator_;
  Report& report_;
  Trace* trace_;
  CheckpointStore store_;
  std::unique_ptr<CheckpointWriter> writer_;  // Rank 0 only.
  double stall_seconds_ = 0;
  bool writing_ = false;
};

}  // namespace lockstep::trainer
