#include "trainer/claim.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {

namespace {

// The text in the lock file, "pid 4711", written by whoever holds it.
std::string Holder(int fd) {
  char text[64] = {};
  const ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : std::string("another process");
}

absl::Status Lock(int fd, const std::string& path, double patience_seconds) {
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(patience_seconds);
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot lock ", path));
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return absl::UnavailableError(
          absl::StrCat(path, " is held by ", Holder(fd),
                       ": this run directory is being trained in already. Wait for that run, "
                       "stop it, or use another --run-dir"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  const std::string text = absl::StrCat("pid ", getpid());
  if (ftruncate(fd, 0) != 0 || pwrite(fd, text.data(), text.size(), 0) < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Claim>> Claim::Take(const config::RunDirectory& directory,
                                                   int attempt, double patience_seconds) {
  std::error_code error;
  std::filesystem::create_directories(directory.root(), error);
  if (error) {
    return absl::PermissionDeniedError(absl::StrCat(
        "cannot make the run directory ", directory.root().string(), ": ", error.message()));
  }
  const std::string path = directory.lock().string();
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::unique_ptr<Claim> claim(new Claim(fd, attempt));
  if (auto locked = Lock(fd, path, patience_seconds); !locked.ok()) return locked;

  const auto current = directory.ReadCurrentAttempt();
  if (!current.ok()) return current.status();
  if (attempt == 0) claim->attempt_ = *current + 1;
  if (*current > claim->attempt_) {
    return absl::AbortedError(absl::StrCat("attempt ", *current, " of this run exists; attempt ",
                                           claim->attempt_, " may not write any more"));
  }
  std::filesystem::create_directories(directory.attempt(claim->attempt_), error);
  if (error) {
    return absl::PermissionDeniedError(absl::StrCat(
        "cannot make ", directory.attempt(claim->attempt_).string(), ": ", error.message()));
  }
  if (auto written = directory.WriteCurrentAttempt(claim->attempt_); !written.ok()) return written;
  return claim;
}

Claim::~Claim() {
  close(lock_fd_);
}

}  // namespace lockstep::trainer
