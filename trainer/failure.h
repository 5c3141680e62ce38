// Why a rank cannot go on: what was thrown, as an exit code that mpirun, the coordinator and
// scripts understand (config/exit_code.h), and what is left behind for whoever looks into it.
#pragma once

#include <string>

#include "config/exit_code.h"
#include "config/run_directory.h"
#include "trainer/comm/communicator.h"

namespace lockstep::trainer {

// A reason to end that every rank has found alike, before training began: told once, by rank 0.
struct Refusal {
  config::TrainerExit exit;
  std::string message;
};

struct Failure {
  config::TrainerExit exit = config::TrainerExit::kInternal;
  std::string message;
};

/// The exception being handled; call it in a catch block.
Failure Classify();

/// Every rank meets it in the same step, so all can end in order.
bool Agreed(config::TrainerExit exit);

/// After a deadline: the ranks of this host that began fewer steps than others, for the end of a
/// message; "" when none is behind. NCCL cannot tell.
std::string WhoIsBehind(const config::RunDirectory& directory, int attempt);

/// Writes attempt-N/collectives-rank-R.txt: the collectives this rank was in the middle of.
void KeepHistory(const config::RunDirectory& directory, int attempt,
                 const Communicator& communicator);

}  // namespace lockstep::trainer
