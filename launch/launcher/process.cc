#include "launch/launcher/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace lockstep::launch {
namespace {

constexpr size_t kMaxProcFileBytes = 1 << 20;

}  // namespace

std::string ReadProcFile(const std::string& path) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return text;
  std::array<char, 4096> buffer;
  while (text.size() < kMaxProcFileBytes) {
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(buffer.data(), static_cast<size_t>(n));
  }
  close(fd);
  return text;
}

std::optional<ProcessStat> ParseProcessStat(std::string_view line) {
  const absl::string_view text(line.data(), line.size());
  // "4711 (name) S 1 …": the name may itself hold spaces and parentheses, so the last one counts.
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == absl::string_view::npos || close == absl::string_view::npos || close < open) {
    return std::nullopt;
  }
  ProcessStat stat;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(text.substr(0, open)), &stat.pid)) {
    return std::nullopt;
  }
  stat.command = std::string(text.substr(open + 1, close - open - 1));
  const std::vector<absl::string_view> fields =
      absl::StrSplit(text.substr(close + 1), ' ', absl::SkipWhitespace());
  // fields[0] is field 3 of proc(5).
  int64_t user_ticks = 0;
  int64_t system_ticks = 0;
  if (fields.size() < 20 || fields[0].size() != 1 || !absl::SimpleAtoi(fields[1], &stat.parent) ||
      !absl::SimpleAtoi(fields[3], &stat.session) || !absl::SimpleAtoi(fields[11], &user_ticks) ||
      !absl::SimpleAtoi(fields[12], &system_ticks) ||
      !absl::SimpleAtoi(fields[19], &stat.start_time_ticks)) {
    return std::nullopt;
  }
  stat.state = fields[0][0];
  stat.cpu_seconds =
      static_cast<double>(user_ticks + system_ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
  return stat;
}

std::optional<ProcessStat> ReadProcessStat(int64_t pid) {
  if (pid <= 0) return std::nullopt;
  return ParseProcessStat(ReadProcFile(absl::StrCat("/proc/", pid, "/stat")));
}

std::optional<ProcessStat> ReadProcessStat(int64_t pid, uint64_t start_time_ticks) {
  std::optional<ProcessStat> stat = ReadProcessStat(pid);
  if (stat && stat->start_time_ticks != start_time_ticks) return std::nullopt;
  return stat;
}

bool IsAlive(int64_t pid, uint64_t start_time_ticks) {
  const std::optional<ProcessStat> stat = ReadProcessStat(pid, start_time_ticks);
  return stat && stat->alive();
}

std::vector<ProcessStat> SessionMembers(int64_t session) {
  std::vector<ProcessStat> members;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir("/proc"), closedir);
  if (!folder) return members;
  // Each thread of a program reads with a DIR of its own, which is what readdir asks for.
  while (const dirent* entry = readdir(folder.get())) {  // NOLINT(concurrency-mt-unsafe)
    int64_t pid = 0;
    if (!absl::SimpleAtoi(entry->d_name, &pid)) continue;
    const std::optional<ProcessStat> stat = ReadProcessStat(pid);
    if (stat && stat->session == session && stat->alive()) members.push_back(*stat);
  }
  std::sort(members.begin(), members.end(),
            [](const ProcessStat& a, const ProcessStat& b) { return a.pid < b.pid; });
  return members;
}

bool SignalProcess(int64_t pid, uint64_t start_time_ticks, int signal) {
  if (pid <= 1) return false;  // 0, -1 and 1 would reach far more than one process.
  // glibc has wrappers only from 2.36 on; the calls themselves are in every kernel since 5.3.
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
  if (fd < 0) return false;
  // From here on the descriptor names one process; if that is the right one, it stays the right
  // one.
  const bool sent = ReadProcessStat(pid, start_time_ticks).has_value() &&
                    syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0) == 0;
  close(fd);
  return sent;
}

bool StartedWith(int64_t pid, std::string_view assignment) {
  const std::string environment = ReadProcFile(absl::StrCat("/proc/", pid, "/environ"));
  const std::vector<std::string> entries = absl::StrSplit(environment, '\0');
  return std::find(entries.begin(), entries.end(), assignment) != entries.end();
}

std::string BootId() {
  return std::string(absl::StripAsciiWhitespace(ReadProcFile("/proc/sys/kernel/random/boot_id")));
}

int64_t OutOfMemoryKills() {
  const std::string vmstat = ReadProcFile("/proc/vmstat");
  for (const absl::string_view line : absl::StrSplit(vmstat, '\n')) {
    int64_t count = 0;
    absl::string_view rest = line;
    if (absl::ConsumePrefix(&rest, "oom_kill ") && absl::SimpleAtoi(rest, &count)) return count;
  }
  return 0;
}

}  // namespace lockstep::launch
