#include "launch/coordinator/run_state.h"

#include <array>
#include <cstdint>

namespace lockstep::launch {
namespace {

constexpr std::array<const char*, kRunStateCount> kNames = {
    "queued",   "starting",   "running",   "pausing", "paused",
    "stopping", "recovering", "completed", "stopped", "failed"};

constexpr uint32_t Bit(RunState state) {
  return 1u << static_cast<int>(state);
}

// Where each state may go. A coordinator that was restarted may learn late what happened, so any
// state with processes may go to any end.
constexpr uint32_t kEnds =
    Bit(RunState::kCompleted) | Bit(RunState::kStopped) | Bit(RunState::kFailed);
constexpr std::array<uint32_t, kRunStateCount> kNext = {
    /* queued     */ Bit(RunState::kStarting) | Bit(RunState::kPaused) | Bit(RunState::kStopped),
    /* starting   */ Bit(RunState::kRunning) | Bit(RunState::kPausing) | Bit(RunState::kPaused) |
        Bit(RunState::kStopping) | Bit(RunState::kRecovering) | kEnds,
    /* running    */ Bit(RunState::kPausing) | Bit(RunState::kPaused) | Bit(RunState::kStopping) |
        Bit(RunState::kRecovering) | kEnds,
    /* pausing    */ Bit(RunState::kRunning) | Bit(RunState::kPaused) | Bit(RunState::kStopping) |
        kEnds,
    /* paused     */ Bit(RunState::kQueued) | Bit(RunState::kRunning) | Bit(RunState::kPausing) |
        Bit(RunState::kStopping) | kEnds,
    /* stopping   */ Bit(RunState::kRunning) | Bit(RunState::kPaused) | kEnds,
    /* recovering */ Bit(RunState::kStarting) | Bit(RunState::kPausing) | Bit(RunState::kPaused) |
        Bit(RunState::kStopping) | kEnds,
    /* completed, stopped, failed */ 0,
    0,
    0};

}  // namespace

const char* StateName(RunState state) {
  return kNames[static_cast<size_t>(state)];
}

std::optional<RunState> ParseState(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<RunState>(i);
  }
  return std::nullopt;
}

bool IsLegal(RunState from, RunState to) {
  return (kNext[static_cast<size_t>(from)] & Bit(to)) != 0;
}

}  // namespace lockstep::launch
