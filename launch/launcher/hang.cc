#include "launch/launcher/hang.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "config/run_directory.h"
#include "launch/launcher/process.h"

namespace lockstep::launch {
namespace {

constexpr size_t kMaxThreads = 64;  // Per rank, in hang.txt.

std::string Name(const ObservedRank& rank) {
  return absl::StrCat("rank ", rank.board.rank, " (pid ", rank.board.pid, ")");
}

std::string Place(const ObservedRank& rank) {
  return absl::StrCat(" in ", config::PhaseName(rank.board.phase), " at step ", rank.board.step);
}

HangReport Blame(const ObservedRank& rank, const std::string& reason) {
  return {rank.board.rank, config::PhaseName(rank.board.phase), reason};
}

bool Waits(const ObservedRank& rank) {
  return rank.board.phase == config::Phase::kAllreduceExposed;
}

std::string DescribeThread(const std::string& folder) {
  const std::optional<ProcessStat> stat = ParseProcessStat(ReadProcFile(folder + "/stat"));
  std::string text = absl::StrCat("  thread ", folder.substr(folder.rfind('/') + 1));
  if (stat) {
    absl::StrAppend(&text, " ", stat->command, " state ", std::string(1, stat->state), " cpu ",
                    stat->cpu_seconds, " s");
  }
  absl::StrAppend(&text, "\n    wchan: ", ReadProcFile(folder + "/wchan"),
                  "\n    syscall: ", ReadProcFile(folder + "/syscall"));
  const std::string stack = ReadProcFile(folder + "/stack");
  if (!stack.empty()) absl::StrAppend(&text, "    kernel stack:\n", stack);
  return text + (text.back() == '\n' ? "" : "\n");
}

std::string DescribeProcess(const ObservedRank& rank) {
  std::string text = absl::StrCat(Name(rank), ": state ", std::string(1, rank.state), Place(rank),
                                  ", ", rank.board.collectives, " collectives entered\n");
  std::error_code error;
  size_t threads = 0;
  const std::filesystem::path tasks = absl::StrCat("/proc/", rank.board.pid, "/task");
  for (std::filesystem::directory_iterator task(tasks, error), end;
       !error && task != end && threads < kMaxThreads; task.increment(error), ++threads) {
    absl::StrAppend(&text, DescribeThread(task->path().string()));
  }
  return text;
}

// Waits for a child to end for at most `seconds`, then kills it. Reaps it either way.
void WaitOrKill(pid_t pid, int seconds) {
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (fd >= 0) {
    pollfd waiting = {fd, POLLIN, 0};
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (true) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      const int ready = poll(&waiting, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
      if (ready >= 0 || errno != EINTR) break;
    }
    close(fd);
  }
  int status = 0;
  if (waitpid(pid, &status, WNOHANG) == pid) return;
  kill(pid, SIGKILL);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
}

// Appends gdb's backtrace of every thread to `file`. Without gdb nothing happens.
void AppendUserStacks(const std::filesystem::path& file, int64_t pid, int seconds) {
  if (access("/usr/bin/gdb", X_OK) != 0) return;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, file.c_str(), O_WRONLY | O_APPEND, 0);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  std::string pid_text = absl::StrCat(pid);
  std::vector<std::string> arguments = {"gdb",
                                        "-nx",
                                        "-batch",
                                        "-iex",
                                        "set debuginfod enabled off",
                                        "-iex",
                                        "set auto-load off",
                                        "-p",
                                        pid_text,
                                        "-ex",
                                        "thread apply all backtrace 40"};
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::string path = "PATH=/usr/bin:/bin";
  char* environment[] = {path.data(), nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, "/usr/bin/gdb", &actions, nullptr, argv.data(), environment) == 0) {
    WaitOrKill(child, seconds);
  }
  posix_spawn_file_actions_destroy(&actions);
}

}  // namespace

std::vector<ObservedRank> ReadRanks(const std::filesystem::path& board) {
  std::vector<ObservedRank> ranks;
  const absl::StatusOr<std::vector<config::RankState>> slots = config::RankBoard::Read(board);
  if (!slots.ok()) return ranks;
  for (const config::RankState& slot : *slots) {
    if (slot.pid <= 1) continue;
    const std::optional<ProcessStat> stat = ReadProcessStat(slot.pid, slot.start_time_ticks);
    ranks.push_back({slot, stat ? stat->state : 'X'});
  }
  return ranks;
}

HangReport FindCulprit(const std::vector<ObservedRank>& ranks) {
  for (const ObservedRank& rank : ranks) {
    if (rank.state == 'X' || rank.state == 'Z') {
      return Blame(rank, absl::StrCat(Name(rank), " is gone; it was", Place(rank)));
    }
  }
  for (const ObservedRank& rank : ranks) {
    if (rank.state == 'T' || rank.state == 't') {
      return Blame(rank, absl::StrCat(Name(rank), " is stopped (state ", std::string(1, rank.state),
                                      ")", Place(rank)));
    }
  }
  if (ranks.size() < 2) {
    if (ranks.empty()) return {-1, "", "no rank has announced itself yet"};
    return Blame(ranks.front(),
                 absl::StrCat(Name(ranks.front()), " stands still", Place(ranks.front()),
                              " (state ", std::string(1, ranks.front().state), ")"));
  }
  const auto progress = [](const ObservedRank& rank) {
    return std::make_tuple(rank.board.step, rank.board.collectives);
  };
  const auto by_progress = [&](const ObservedRank& a, const ObservedRank& b) {
    return progress(a) < progress(b);
  };
  const auto [last, first] = std::minmax_element(ranks.begin(), ranks.end(), by_progress);
  if (progress(*last) < progress(*first)) {
    return Blame(*last,
                 absl::StrCat(Name(*last), " is behind", Place(*last), " after ",
                              last->board.collectives, " collectives; rank ", first->board.rank,
                              " is", Place(*first), " after ", first->board.collectives));
  }
  for (const ObservedRank& rank : ranks) {
    if (rank.state == 'D') {
      return Blame(rank,
                   absl::StrCat(Name(rank), " is stuck in the kernel (state D)", Place(rank)));
    }
  }
  const auto busy = std::count_if(ranks.begin(), ranks.end(),
                                  [](const ObservedRank& rank) { return !Waits(rank); });
  if (busy == 1) {
    const auto rank = std::find_if_not(ranks.begin(), ranks.end(), Waits);
    return Blame(*rank,
                 absl::StrCat("all others wait for ", Name(*rank), ", which is", Place(*rank)));
  }
  return {-1, config::PhaseName(ranks.front().board.phase),
          absl::StrCat("every rank is at step ", ranks.front().board.step, " after ",
                       ranks.front().board.collectives,
                       " collectives; cannot tell which one the others wait for")};
}

void WriteStacks(const std::filesystem::path& file, const HangReport& report,
                 const std::vector<ObservedRank>& ranks, int gdb_seconds) {
  std::string text = report.reason + "\n\n";
  int64_t culprit = 0;
  for (const ObservedRank& rank : ranks) {
    absl::StrAppend(&text, DescribeProcess(rank), "\n");
    if (rank.board.rank == report.rank && rank.state != 'X' && rank.state != 'Z') {
      culprit = rank.board.pid;
    }
  }
  if (!config::WriteFileDurably(file, text).ok()) return;
  if (culprit > 1 && gdb_seconds > 0) AppendUserStacks(file, culprit, gdb_seconds);
}

}  // namespace lockstep::launch
