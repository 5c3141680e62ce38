// What Train() is given and what it gives back: the words that main, the step loop and the session
// under it share.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "config/exit_code.h"
#include "config/rank_board.h"
#include "config/run_config.h"
#include "config/run_directory.h"
#include "trainer/comm/communicator.h"
#include "trainer/data/dataset.h"
#include "trainer/device/device.h"
#include "trainer/link/coordinator_link.h"
#include "trainer/trace.h"

namespace lockstep::trainer {

class Session;

struct TrainSetup {
  const config::RunConfig& config;  // Resolved.
  const Dataset& train_data;
  const Dataset& eval_data;
  const config::RunDirectory& directory;
  int attempt = 1;
  Device& device;
  Communicator& communicator;
  CoordinatorLink* link = nullptr;  // Rank 0, where there is a coordinator.
  config::RankBoard* board = nullptr;
  int64_t redone_until = 0;  // Steps below (0-based) were made by an earlier attempt, perhaps lost.
  Trace* trace = nullptr;    // Of a run that is profiled.
  bool terminal = true;      // Progress lines on stdout (rank 0).
  bool own_log = false;      // Every rank has a log of its own, so every rank may say what it does.
  bool one_host = true;      // All ranks share its file system.
  std::function<void(Session&)> on_step = {};  // Before each step, of this rank: for who measures.
  bool keep = true;                            // Leave a checkpoint at the end.
  bool enforce_max_time = false;  // Stop at cost.max_time; with a coordinator that is its business.
};

struct Outcome {
  config::TrainerExit exit = config::TrainerExit::kCompleted;
  std::string reason;
};

// The loss stopped being finite, agreed by all ranks in the same step.
class NonFiniteLoss : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace lockstep::trainer
