// What a run is asked to do, turned into votes; and the answers, once all ranks have acted.
//
// Requests come from the coordinator's orders (rank 0) and from signals (any rank): SIGUSR1 asks
// for a checkpoint, SIGUSR2, SIGTERM and SIGINT ask to save and stop. None is acted upon here: each
// becomes a vote, and the step loop acts when all ranks have seen it (trainer/step/agreement.h).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "trainer/link/coordinator_link.h"
#include "trainer/step/agreement.h"

namespace lockstep::trainer {

// What the ranks have agreed to do and have not done yet.
struct Requests {
  bool checkpoint = false;
  bool hold = false;
  bool resume = false;
  bool pause = false;
  bool stop = false;
  bool time_up = false;
  bool disk_full = false;

  void Add(const StepSummary& summary);
  bool leave() const { return pause || stop; }
  bool any() const { return checkpoint || hold || disk_full || time_up || leave(); }
};

class Control {
 public:
  /// `link` is null on every rank but 0, and where there is no coordinator to talk to.
  Control(Agreement& agreement, CoordinatorLink* link);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  /// Turns signals and newly come orders into votes of this rank. Call before each step.
  void CastVotes();
  void Cast(Vote vote) { agreement_.Cast(vote); }

  /// Sums the votes alone, right now: for the times when no step is being made. Collective.
  StepSummary Together();

  /// Takes the open orders of this kind: the caller carries them out and then answers them.
  std::vector<std::string> TakeOrders(Vote vote);
  /// `error` empty = carried out after `step`.
  void Answer(const std::vector<std::string>& orders, int64_t step, const std::string& error = "",
              const std::optional<CheckpointReport>& checkpoint = std::nullopt);

 private:
  Agreement& agreement_;
  CoordinatorLink* link_;
  std::vector<Order> open_orders_;
};

/// From now on signals of this process are kept for Control. Call once, in main.
void CatchSignals();

}  // namespace lockstep::trainer
