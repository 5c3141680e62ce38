// The states of a run, which changes between them are legal, and their names.
#pragma once

#include <optional>
#include <string_view>

namespace lockstep::launch {

enum class RunState : int {
  kQueued,      // Waits for slots.
  kStarting,    // An attempt was launched; no rank has said hello yet.
  kRunning,     // Rank 0 said hello. A lost link later changes nothing.
  kPausing,     // Asked to pause or to hold; not there yet.
  kPaused,      // No processes, or processes that stand still (a hold).
  kStopping,    // Asked to stop, or killed; processes may still be there.
  kRecovering,  // An attempt ended badly; keeps its slots until the next one starts.
  kCompleted,
  kStopped,
  kFailed,
};
inline constexpr int kRunStateCount = 10;

const char* StateName(RunState state);  // Lower case: the `state` label, and the store's word.
std::optional<RunState> ParseState(std::string_view name);

/// No event leaves these.
constexpr bool IsTerminal(RunState state) {
  return state >= RunState::kCompleted;
}

/// Whether the state machine may go from one to the other. No state goes to itself.
bool IsLegal(RunState from, RunState to);

}  // namespace lockstep::launch
