// Where a GPU's steps spend their time. Kernels run behind the host, so its clock cannot tell; the
// GPU itself stamps events between the phases of a step's body, in a captured body as well.
//
// A step's way to its reduce begins in the step before it, and the next step is under way when its
// times are read: so each of three steps has events of its own. Nothing here waits. On the CPU
// nothing is stamped. A GPU that fails to tell its times is no reason to end a run: that is said
// once, and there are no times from then on.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "config/rank_board.h"
#include "trainer/device/device.h"

namespace lockstep::trainer {

struct DeviceTimes {
  std::array<double, config::kPhaseCount> phase_seconds{};
  double arrival_seconds = 0;  // From the end of one reduce to the next; idle time counts.
};

class StepTimer {
 public:
  /// `say` is told once why there are no times.
  StepTimer(Device& device, std::function<void(const std::string&)> say);

  /// The body that runs next is this step's.
  void Begin(int64_t step);
  /// What the body has enqueued so far is done; from here on it works on `phase`. Runs, or is
  /// captured, with the body.
  void Mark(config::Phase phase);

  /// Between these two the marks are a capture's. A body that could not be captured is run instead.
  void BeginCapture();
  void EndCapture();
  /// `graph` is what was captured last; it runs in place of the body.
  void Replay(StepGraph& graph);

  /// Of a step whose kernels have all run, one of the last two that were begun. Empty: not known.
  std::optional<DeviceTimes> Read(int64_t step);

 private:
  struct Marks {
    int64_t step = -1;
    std::vector<config::Phase> phases;  // One each; the last one is what comes after the body.
    std::vector<EventHandle> events;    // At least as many.
  };
  static constexpr size_t kKept = 3;

  Marks& Of(int64_t step) { return kept_[static_cast<size_t>(step) % kKept]; }
  EventHandle Event(Marks& marks, size_t index);
  void GiveUp(const std::string& reason);

  Device& device_;
  const std::function<void(const std::string&)> say_;
  bool works_;
  std::array<Marks, kKept> kept_;
  Marks captured_;
  Marks* current_ = nullptr;
};

}  // namespace lockstep::trainer
