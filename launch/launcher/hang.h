// Which rank of a gang that stands still the others wait for, and what its processes were doing.
#pragma once

#include <filesystem>
#include <vector>

#include "config/rank_board.h"
#include "launch/launcher/launcher.h"

namespace lockstep::launch {

// A rank's slot of the board together with its process.
struct ObservedRank {
  config::RankState board;
  char state = '?';  // Of /proc/PID/stat; 'X' when the process is gone.
};

/// Decides from what was seen: a rank that is gone, stopped, or stuck in the kernel; else the one
/// that is furthest behind by step, then by collectives entered; else the one that is not waiting
/// in a collective while all the others are; else nobody (rank -1).
HangReport FindCulprit(const std::vector<ObservedRank>& ranks);

/// The ranks that have claimed a slot of attempt-K/board; empty when there is no board.
std::vector<ObservedRank> ReadRanks(const std::filesystem::path& board);

/// Writes state, kernel wait channel, system call and, where the system lets us, kernel and user
/// stacks of every rank to `file`. User stacks (gdb, when installed) only of the `culprit`, for at
/// most `gdb_seconds`.
void WriteStacks(const std::filesystem::path& file, const HangReport& report,
                 const std::vector<ObservedRank>& ranks, int gdb_seconds);

}  // namespace lockstep::launch
