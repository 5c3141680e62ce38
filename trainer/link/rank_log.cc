#include "trainer/link/rank_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <mutex>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLook{50};
constexpr milliseconds kCloseLook{2};  // While the file grows fast.

absl::StatusOr<int> Open(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
  if (fd < 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("opening the log ", path.string(), ": ", std::strerror(errno)));
  }
  return fd;
}

// Takes over `fd`. dup2 replaces atomically: a line being written lands in one file or the other.
bool PutInPlace(int fd) {
  const bool done = dup2(fd, STDOUT_FILENO) >= 0 && dup2(fd, STDERR_FILENO) >= 0;
  if (fd > STDERR_FILENO) close(fd);
  return done;
}

int64_t SizeOfStdout() {
  struct stat info {};
  return fstat(STDOUT_FILENO, &info) == 0 ? info.st_size : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankLog>> RankLog::Redirect(const std::filesystem::path& path,
                                                           int64_t limit_bytes) {
  if (limit_bytes < 2) return absl::InvalidArgumentError("a log's limit is at least 2 bytes");
  const absl::StatusOr<int> fd = Open(path);
  if (!fd.ok()) return fd.status();
  std::cout.flush();
  std::fflush(stdout);
  std::fflush(stderr);
  if (!PutInPlace(*fd)) {
    return absl::ErrnoToStatus(errno, absl::StrCat("redirecting to ", path.string()));
  }
  // A file makes stdout fully buffered; what a killed rank said last would be lost. The buffer is
  // ours because glibc goes on with its own, still in the old way, when it is given none.
  static std::array<char, BUFSIZ> buffer;
  std::setvbuf(stdout, buffer.data(), _IOLBF, buffer.size());
  return std::unique_ptr<RankLog>(new RankLog(path, limit_bytes));
}

RankLog::RankLog(std::filesystem::path path, int64_t limit_bytes)
    : path_(std::move(path)), limit_bytes_(limit_bytes) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // Signals are the step loop's.
  thread_ = std::jthread([this](const std::stop_token& stop) { Watch(stop); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

RankLog::~RankLog() {
  thread_.request_stop();
  thread_.join();
  std::cout.flush();
  std::fflush(stdout);
  std::fflush(stderr);
}

void RankLog::Watch(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  int64_t before = 0;
  milliseconds look = kLook;
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex);
      stopped.wait_for(lock, stop, look, [] { return false; });
    }
    const int64_t size = SizeOfStdout();
    // A sixteenth of the limit in one look: the next one must come soon.
    look = size - before > limit_bytes_ / 16 ? kCloseLook : kLook;
    before = size;
    if (size >= limit_bytes_ / 2) {
      Rotate();
      before = 0;
    }
  }
}

void RankLog::Rotate() {
  // The new file is open before the old one gives up its name: a full disk changes nothing, and
  // readers miss the name only for a moment.
  const std::filesystem::path newer = path_.string() + ".new";
  const std::filesystem::path older = path_.string() + ".1";
  const absl::StatusOr<int> fd = Open(newer);
  if (!fd.ok()) return;
  const bool moved = std::rename(path_.c_str(), older.c_str()) == 0;
  if (!moved || std::rename(newer.c_str(), path_.c_str()) != 0) {
    if (moved) std::rename(older.c_str(), path_.c_str());
    close(*fd);
    return;
  }
  PutInPlace(*fd);
}

}  // namespace lockstep::trainer
