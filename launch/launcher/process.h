// Looking at processes through /proc: which ones are alive, in which session, and in what state.
//
// A process is always named by pid and start time together, so that a later process with the same
// pid is never taken for it, and never gets a signal meant for it. Functions are thread-safe, keep
// nothing, and treat a process that cannot be read as one that is not there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::launch {

struct ProcessStat {
  int64_t pid = 0;
  std::string command;            // At most 15 characters, as the kernel keeps it.
  char state = '?';               // R, S, D, Z, T, t, X, …: field 3 of /proc/PID/stat.
  int64_t parent = 0;             // Field 4.
  int64_t session = 0;            // Field 6.
  uint64_t start_time_ticks = 0;  // Field 22: clock ticks since the host started.
  double cpu_seconds = 0;         // Fields 14 and 15: user and system time.

  /// A zombie is dead: it holds nothing but its exit code.
  bool alive() const { return state != 'Z' && state != 'X' && state != 'x'; }
  bool stopped() const { return state == 'T' || state == 't'; }
};

/// Reads one line of /proc/PID/stat; nothing when it is not in that format.
std::optional<ProcessStat> ParseProcessStat(std::string_view text);
/// The process with this pid, dead (zombie) or alive; nothing when there is none.
std::optional<ProcessStat> ReadProcessStat(int64_t pid);
/// The same, but only when it is the process that started at that time.
std::optional<ProcessStat> ReadProcessStat(int64_t pid, uint64_t start_time_ticks);

bool IsAlive(int64_t pid, uint64_t start_time_ticks);

/// Every live process of the session, in order of pid.
std::vector<ProcessStat> SessionMembers(int64_t session);

/// Sends a signal to exactly this process, through a pidfd, so that a pid used again in between is
/// safe. False when it is gone or may not be signalled.
bool SignalProcess(int64_t pid, uint64_t start_time_ticks, int signal);

/// True when the process was started with `assignment` ("NAME=value") in its environment.
bool StartedWith(int64_t pid, std::string_view assignment);

/// Changes with every start of the host; pids and start times of another boot mean nothing.
std::string BootId();

/// How many processes the kernel has killed for want of memory since the host started; 0 where it
/// does not say.
int64_t OutOfMemoryKills();

/// A file of /proc, at most 1 MiB; empty when it cannot be read.
std::string ReadProcFile(const std::string& path);

}  // namespace lockstep::launch
