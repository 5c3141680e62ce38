#include "trainer/tensorboard/event_log.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

// TensorBoard reads every file of a folder whose name contains "tfevents".
constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr double kFlushSeconds = 5;  // How old the newest points of an open TensorBoard may be.
constexpr size_t kFlushBytes = 64 << 10;

double Now() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since).count();
}

// Names of the event files, in the order in which TensorBoard reads them.
std::vector<std::string> EventFiles(const fs::path& folder, std::error_code& error) {
  std::vector<std::string> names;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (name.starts_with(kPrefix)) names.push_back(std::move(name));
  }
  if (error == std::errc::no_such_file_or_directory) error.clear();
  std::sort(names.begin(), names.end());
  return names;
}

std::string HostName() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
  std::string host(name.data());
  std::replace(host.begin(), host.end(), '/', '-');
  return host;
}

// Later than all that are there, also within a second and after the clock was set back.
std::string NextName(const std::vector<std::string>& names) {
  auto seconds = static_cast<int64_t>(Now());
  for (const std::string& name : names) {
    int64_t other = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), other);
    seconds = std::max(seconds, other + 1);
  }
  return absl::StrFormat("%s%010d.%s.%d.%d", kPrefix.data(), seconds, HostName(), getpid(),
                         names.size());
}

}  // namespace

EventLog::EventLog(fs::path folder, EventPosition from, int64_t step,
                   std::function<void(const std::string&)> warn)
    : folder_(std::move(folder)), position_(std::move(from)), step_(step), warn_(std::move(warn)) {
  CutBack();
}

EventLog::~EventLog() {
  Flush();
}

void EventLog::CutBack() {
  std::error_code error;
  for (const std::string& name : EventFiles(folder_, error)) {
    if (name < position_.file) continue;
    const int64_t keep = name == position_.file ? position_.bytes : 0;
    const fs::path path = folder_ / name;
    struct stat status = {};
    if (stat(path.c_str(), &status) == 0 && status.st_size <= keep) continue;
    if (truncate(path.c_str(), keep) != 0) {
      return Fail(absl::ErrnoToStatus(errno, absl::StrCat("cannot cut ", path.string())));
    }
  }
  if (error) {
    Fail(absl::UnavailableError(
        absl::StrCat("cannot list ", folder_.string(), ": ", error.message())));
  }
}

absl::Status EventLog::Begin() {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot create ", folder_.string(), ": ", error.message()));
  }
  const std::vector<std::string> names = EventFiles(folder_, error);
  auto file = RecordFile::Create(folder_ / NextName(names));
  if (!file.ok()) return file.status();
  begun_ = &file_.emplace(std::move(*file));
  const double now = Now();
  file_->Append(FileVersionEvent(now));
  // Drops what is of this step and of later ones.
  file_->Append(SessionStartEvent(now, fresh() && step_ == 0 ? 0 : step_ + 1));
  flushed_at_ = now;
  return absl::OkStatus();
}

void EventLog::Add(int64_t step, const Summary& summary) {
  if (off_ || summary.empty()) return;
  if (!file_) {
    if (const absl::Status begun = Begin(); !begun.ok()) return Fail(begun);
  }
  const double now = Now();
  file_->Append(SummaryEvent(now, step, summary));
  if (now - flushed_at_ >= kFlushSeconds || now < flushed_at_ ||
      (!waiting_ && file_->buffered_bytes() >= kFlushBytes) ||
      file_->buffered_bytes() >= kMostWaitingBytes) {
    Flush();
  }
}

EventPosition EventLog::Flush() {
  if (off_ || !file_ || file_->buffered_bytes() == 0) return position_;
  flushed_at_ = Now();
  const absl::Status flushed = file_->Flush();
  if (!flushed.ok() && file_->buffered_bytes() >= kMostWaitingBytes) {
    Fail(flushed);
  } else if (!flushed.ok() && !std::exchange(waiting_, true)) {
    warn_(absl::StrCat("note: ", flushed.message(),
                       "; events for TensorBoard wait until that is possible again"));
  }
  if (flushed.ok()) {
    waiting_ = false;
    position_ = {file_->path().filename().string(), file_->flushed_bytes()};
  }
  return position_;
}

void EventLog::Sync() const {
  if (const RecordFile* file = begun_; file != nullptr) (void)file->Sync();
}

void EventLog::Fail(const absl::Status& problem) {
  off_ = true;
  warn_(absl::StrCat("note: ", problem.message(),
                     "; no more events for TensorBoard until the run is started again"));
}

}  // namespace lockstep::trainer
