#include "config/run_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace lockstep::config {
namespace {

// ENOSPC becomes RESOURCE_EXHAUSTED, ENOENT NOT_FOUND, EACCES PERMISSION_DENIED.
absl::Status Failed(int error, absl::string_view doing, const std::filesystem::path& path) {
  return absl::ErrnoToStatus(error, absl::StrCat("cannot ", doing, " ", path.string()));
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::Status WriteAll(int fd, std::string_view contents, const std::filesystem::path& path) {
  while (!contents.empty()) {
    const ssize_t written = write(fd, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed(errno, "write", path);
    contents.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status SyncFolder(const std::filesystem::path& folder) {
  FileDescriptor fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return Failed(errno, "open the folder", folder);
  if (fsync(fd.get()) != 0) return Failed(errno, "sync the folder", folder);
  return absl::OkStatus();
}

// Unique among all processes and threads that write here now; one left by a crash is overwritten
// never, and read never.
std::filesystem::path TemporaryFor(const std::filesystem::path& path) {
  static std::atomic<uint64_t> counter{0};
  return absl::StrCat(path.string(), ".tmp-", getpid(), "-", counter.fetch_add(1));
}

}  // namespace

absl::Status WriteFileDurably(const std::filesystem::path& path, std::string_view contents) {
  const std::filesystem::path temporary = TemporaryFor(path);
  // A file of this name can only be what a dead process with our pid left behind.
  unlink(temporary.c_str());
  FileDescriptor fd(
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (fd.get() < 0) return Failed(errno, "create", temporary);
  auto remove = absl::MakeCleanup([&temporary] { unlink(temporary.c_str()); });

  if (absl::Status status = WriteAll(fd.get(), contents, temporary); !status.ok()) return status;
  // A failed fsync is final: the kernel may have dropped the pages, so trying again could
  // "succeed".
  if (fsync(fd.get()) != 0) return Failed(errno, "sync", temporary);
  if (close(fd.release()) != 0) return Failed(errno, "close", temporary);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return Failed(errno, absl::StrCat("rename ", temporary.string(), " to"), path);
  }
  std::move(remove).Cancel();
  return SyncFolder(path.has_parent_path() ? path.parent_path() : ".");
}

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes) {
  // O_NONBLOCK: opening a FIFO would wait for a writer for ever.
  FileDescriptor fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (fd.get() < 0) return Failed(errno, "open", path);
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0) return Failed(errno, "look at", path);
  if (!S_ISREG(status.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot read ", path.string(), ": not a regular file"));
  }
  const absl::Status too_large = absl::ResourceExhaustedError(
      absl::StrCat("cannot read ", path.string(), ": larger than ", max_bytes, " bytes"));
  if (static_cast<uint64_t>(status.st_size) > max_bytes) return too_large;

  std::string contents;
  contents.reserve(static_cast<size_t>(status.st_size));
  char buffer[1 << 16];
  while (true) {
    const ssize_t count = read(fd.get(), buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Failed(errno, "read", path);
    if (count == 0) return contents;
    contents.append(buffer, static_cast<size_t>(count));
    if (contents.size() > max_bytes) return too_large;  // It grew meanwhile.
  }
}

absl::StatusOr<int> RunDirectory::ReadCurrentAttempt() const {
  absl::StatusOr<std::string> text = ReadFile(current_attempt(), 64);
  if (absl::IsNotFound(text.status())) return 0;
  if (absl::IsResourceExhausted(text.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat(current_attempt().string(), " does not hold an attempt number"));
  }
  if (!text.ok()) return text.status();
  const absl::string_view digits = absl::StripSuffix(*text, "\n");
  int number = 0;
  const bool plain = !digits.empty() && digits.find_first_not_of("0123456789") == digits.npos;
  if (!plain || !absl::SimpleAtoi(digits, &number)) {
    return absl::InvalidArgumentError(
        absl::StrCat(current_attempt().string(), " does not hold an attempt number"));
  }
  return number;
}

absl::Status RunDirectory::WriteCurrentAttempt(int number) const {
  return WriteFileDurably(current_attempt(), absl::StrCat(number, "\n"));
}

}  // namespace lockstep::config
