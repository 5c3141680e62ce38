#include "launch/launcher/gang_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <tuple>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "config/exit_code.h"
#include "config/run_directory.h"

namespace lockstep::launch {
namespace {

using config::TrainerExit;
using nlohmann::json;

constexpr size_t kMaxJsonBytes = 1 << 20;
constexpr int64_t kTailBytes = 64 << 10;
constexpr absl::string_view kDropped = "[older output was dropped]\n";
constexpr size_t kMaxReasonBytes = 500;

std::filesystem::path RecordPath(const std::filesystem::path& dir) {
  return dir / "gang.json";
}
std::filesystem::path EndPath(const std::filesystem::path& dir) {
  return dir / "end.json";
}

// The object in `path`, or an empty one. These files may be cut short or written by someone else.
json ReadObject(const std::filesystem::path& path) {
  const absl::StatusOr<std::string> text = config::ReadFile(path, kMaxJsonBytes);
  if (!text.ok()) return json::object();
  json value = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return value.is_object() ? value : json::object();
}

int64_t Integer(const json& object, const char* key, int64_t otherwise) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<int64_t>() : otherwise;
}

double Number(const json& object, const char* key, double otherwise) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : otherwise;
}

std::string Text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

struct Failure {
  int rank = -1;
  int exit_code = static_cast<int>(TrainerExit::kInternal);
  std::string reason;
  double time = 0;

  bool consequence() const { return exit_code == static_cast<int>(TrainerExit::kCommunicatorLost); }
};

// attempt-K/failure-rank-*.json, causes before consequences, then the earliest first.
std::vector<Failure> ReadFailures(const std::filesystem::path& attempt_dir) {
  std::vector<Failure> failures;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(attempt_dir, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!absl::StartsWith(name, "failure-rank-") || !absl::EndsWith(name, ".json")) continue;
    const json object = ReadObject(entry->path());
    if (object.empty()) continue;
    Failure failure;
    failure.rank = static_cast<int>(Integer(object, "rank", -1));
    failure.exit_code = static_cast<int>(Integer(object, "exit_code", failure.exit_code));
    failure.time = Number(object, "time", 0);
    const int64_t step = Integer(object, "step", -1);
    const std::string message = Text(object, "message");
    failure.reason =
        absl::StrCat("rank ", failure.rank, step >= 0 ? absl::StrCat(" at step ", step) : "", ": ",
                     message.empty() ? Text(object, "reason") : message);
    failures.push_back(std::move(failure));
  }
  std::sort(failures.begin(), failures.end(), [](const Failure& a, const Failure& b) {
    return std::make_tuple(a.consequence(), a.time, a.rank) <
           std::make_tuple(b.consequence(), b.time, b.rank);
  });
  return failures;
}

// What mpirun printed about the first rank that went: Open MPI 4's wording.
std::optional<GangEnd> ReadMpirunVerdict(const std::string& log) {
  static const std::regex* signalled = new std::regex(
      R"(process rank (\d{1,6}) with PID \d+ on node \S+\s+exited\s+on\s+signal\s+(\d{1,3}))");
  static const std::regex* exited =
      new std::regex(R"(Process name:\s+\[\[\d+,\d+\],(\d{1,6})\]\s+Exit code:\s+(\d{1,3}))");
  std::smatch match;
  if (std::regex_search(log, match, *signalled)) {
    return GangEnd{128 + std::stoi(match[2]),
                   absl::StrCat("rank ", match[1].str(), " was killed by signal ", match[2].str())};
  }
  if (std::regex_search(log, match, *exited)) {
    return GangEnd{std::stoi(match[2]),
                   absl::StrCat("rank ", match[1].str(), " ended with code ", match[2].str())};
  }
  return std::nullopt;
}

// The words of a log without its rules and blank lines, on one line.
std::string Summary(const std::string& log) {
  std::string words;
  for (const absl::string_view line : absl::StrSplit(log, '\n')) {
    const absl::string_view text = absl::StripAsciiWhitespace(line);
    if (text.empty() || text.find_first_not_of('-') == absl::string_view::npos) continue;
    absl::StrAppend(&words, words.empty() ? "" : " ", text);
    if (words.size() > kMaxReasonBytes) return words.substr(0, kMaxReasonBytes) + "…";
  }
  return words;
}

// result.json, when it is this attempt's: an earlier attempt of the run may have left one.
std::optional<GangEnd> ReadResult(const std::filesystem::path& run_dir, int attempt) {
  const config::RunDirectory directory(run_dir);
  const json object = ReadObject(directory.result());
  if (object.empty()) return std::nullopt;
  if (object.contains("attempt")) {
    if (Integer(object, "attempt", -1) != attempt) return std::nullopt;
  } else {
    std::error_code error;
    const auto written = std::filesystem::last_write_time(directory.result(), error);
    const auto started =
        std::filesystem::last_write_time(directory.attempt(attempt) / "token", error);
    if (error || written < started) return std::nullopt;
  }
  const std::string state = absl::AsciiStrToLower(Text(object, "state"));
  GangEnd end{static_cast<int>(TrainerExit::kInternal), Text(object, "reason")};
  if (state == "completed") end.exit_code = static_cast<int>(TrainerExit::kCompleted);
  if (state == "stopped") end.exit_code = static_cast<int>(TrainerExit::kStopped);
  if (state == "paused") end.exit_code = static_cast<int>(TrainerExit::kPaused);
  end.exit_code = static_cast<int>(Integer(object, "exit_code", end.exit_code));
  if (end.reason.empty()) end.reason = state;
  return end;
}

bool EndedInOrder(int exit_code) {
  return exit_code == static_cast<int>(TrainerExit::kCompleted) ||
         exit_code == static_cast<int>(TrainerExit::kStopped) ||
         exit_code == static_cast<int>(TrainerExit::kPaused);
}

GangEnd NameOutOfMemory(GangEnd end) {
  end.exit_code = static_cast<int>(TrainerExit::kOutOfMemory);
  absl::StrAppend(&end.reason,
                  "; the kernel ended a process for want of memory meanwhile (try a smaller "
                  "micro_batch_size, fewer prefetch_threads or fewer ranks)");
  return end;
}

}  // namespace

absl::Status WriteGangRecord(const std::filesystem::path& attempt_dir, const GangRecord& record) {
  const json object = {
      {"pid", record.gang.pid},    {"start_time_ticks", record.gang.start_time_ticks},
      {"boot_id", record.boot_id}, {"tmp_dir", record.tmp_dir},
      {"run_id", record.run_id},   {"out_of_memory_kills", record.out_of_memory_kills}};
  return config::WriteFileDurably(RecordPath(attempt_dir), object.dump() + "\n");
}

std::optional<GangRecord> ReadGangRecord(const std::filesystem::path& attempt_dir) {
  const json object = ReadObject(RecordPath(attempt_dir));
  GangRecord record;
  record.gang.pid = Integer(object, "pid", 0);
  record.gang.start_time_ticks = static_cast<uint64_t>(Integer(object, "start_time_ticks", 0));
  record.boot_id = Text(object, "boot_id");
  record.tmp_dir = Text(object, "tmp_dir");
  record.run_id = Text(object, "run_id");
  record.out_of_memory_kills = Integer(object, "out_of_memory_kills", 0);
  if (record.gang.pid <= 1) return std::nullopt;
  return record;
}

void WriteGangEnd(const std::filesystem::path& attempt_dir, const GangEnd& end) {
  const json object = {{"exit_code", end.exit_code}, {"reason", end.reason}};
  // Words from a log may hold bytes that are no UTF-8; they are replaced rather than refused.
  config::WriteFileDurably(EndPath(attempt_dir),
                           object.dump(-1, ' ', false, json::error_handler_t::replace) + "\n")
      .IgnoreError();
}

std::optional<GangEnd> ReadGangEnd(const std::filesystem::path& attempt_dir) {
  const json object = ReadObject(EndPath(attempt_dir));
  if (!object.contains("exit_code")) return std::nullopt;
  return GangEnd{static_cast<int>(Integer(object, "exit_code", -1)), Text(object, "reason")};
}

GangEnd ExplainEnd(const std::filesystem::path& run_dir, int attempt, const EndEvidence& evidence) {
  const config::RunDirectory directory(run_dir);
  const std::filesystem::path attempt_dir = directory.attempt(attempt);
  const bool exited = evidence.wait_status && WIFEXITED(*evidence.wait_status);
  if (exited && EndedInOrder(WEXITSTATUS(*evidence.wait_status))) {
    const int code = WEXITSTATUS(*evidence.wait_status);
    return {code, config::Describe(static_cast<TrainerExit>(code))};
  }
  const std::vector<Failure> failures = ReadFailures(attempt_dir);
  if (!failures.empty() && !failures.front().consequence()) {
    return {failures.front().exit_code, failures.front().reason};
  }
  if (!exited) {  // Also when mpirun died after its ranks had done all they were asked to.
    const std::optional<GangEnd> result = ReadResult(run_dir, attempt);
    if (result && EndedInOrder(result->exit_code)) return *result;
  }
  const std::string log = ReadTail(directory.trainer_log(attempt), kTailBytes);
  if (!evidence.killed) {
    if (std::optional<GangEnd> verdict = ReadMpirunVerdict(log)) {
      const bool by_kill = verdict->exit_code == 128 + SIGKILL;
      return by_kill && evidence.out_of_memory ? NameOutOfMemory(*std::move(verdict)) : *verdict;
    }
  }
  if (evidence.wait_status && WIFSIGNALED(*evidence.wait_status)) {
    const int signal = WTERMSIG(*evidence.wait_status);
    return {128 + signal, evidence.killed ? std::string("killed by the coordinator")
                                          : absl::StrCat("mpirun was killed by signal ", signal)};
  }
  if (evidence.killed) return {128 + SIGKILL, "killed by the coordinator"};
  if (!failures.empty()) return {failures.front().exit_code, failures.front().reason};
  if (exited) {
    return {WEXITSTATUS(*evidence.wait_status),
            absl::StrCat("mpirun ended with code ", WEXITSTATUS(*evidence.wait_status), ": ",
                         Summary(log))};
  }
  return {-1, "mpirun and its ranks went away and left no word"};
}

std::string ReadTail(const std::filesystem::path& path, int64_t bytes) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return text;
  struct stat info {};
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
    const off_t from = std::max<off_t>(0, info.st_size - bytes);
    text.resize(static_cast<size_t>(info.st_size - from));
    const ssize_t n = pread(fd, text.data(), text.size(), from);
    text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  }
  close(fd);
  return text;
}

void BoundLog(const std::filesystem::path& log, int64_t limit_bytes) {
  struct stat info {};
  if (lstat(log.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size <= limit_bytes) {
    return;
  }
  const int fd = open(log.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return;
  // The writers hold the file open for appending, so it must stay the same file.
  const int64_t kept_bytes = std::min<int64_t>(limit_bytes / 4, 1 << 20);
  const int64_t dropped = (info.st_size - kept_bytes) / info.st_blksize * info.st_blksize;
  // What cannot be written is not worth an error: the next lines still arrive.
  [[maybe_unused]] ssize_t written = 0;
  if (dropped > 0 && fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, dropped) == 0) {
    written = pwrite(fd, kDropped.data(), kDropped.size(), 0);
  } else {  // Not every file system can do that.
    const std::string kept = ReadTail(log, kept_bytes);
    const std::string text = absl::StrCat(kDropped, kept);
    if (ftruncate(fd, 0) == 0 && fcntl(fd, F_SETFL, O_APPEND) == 0)
      written = write(fd, text.data(), text.size());
  }
  close(fd);
}

}  // namespace lockstep::launch
