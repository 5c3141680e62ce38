#include "trainer/checkpoint/file_operations.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {
namespace {

using Pieces = std::vector<std::span<const std::byte>>;

// Linux writes at most 0x7ffff000 bytes a call; a smaller piece also lets a signal in.
constexpr size_t kMaxWriteBytes = size_t{1} << 30;

absl::Status LostWrite(int error_number, const std::string& call,
                       const std::filesystem::path& path) {
  absl::Status status = FileError(error_number, call, path);
  if (status.code() == absl::StatusCode::kResourceExhausted) return status;
  return absl::DataLossError(status.message());
}

// Reserves the space first, so that a full disk shows before anything is written.
absl::Status Allocate(int fd, size_t bytes, const std::filesystem::path& path) {
  if (bytes == 0) return absl::OkStatus();
  int error = 0;
  do {
    error = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  } while (error == EINTR);
  // A file system that cannot reserve (EINVAL on some) finds out while writing.
  if (error == 0 || error == EOPNOTSUPP || error == EINVAL || error == ENOSYS) {
    return absl::OkStatus();
  }
  return LostWrite(error, "posix_fallocate", path);
}

absl::Status WriteAll(int fd, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), std::min(bytes.size(), kMaxWriteBytes));
    if (written < 0) {
      if (errno == EINTR) continue;
      return LostWrite(errno, "write", path);
    }
    // A regular file never takes nothing for long; zero here would loop for ever.
    if (written == 0) return LostWrite(EIO, "write", path);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status Fill(int fd, const Pieces& pieces, const std::filesystem::path& path) {
  size_t total = 0;
  for (const auto& piece : pieces) total += piece.size();
  if (absl::Status status = Allocate(fd, total, path); !status.ok()) return status;
  for (const auto& piece : pieces) {
    if (absl::Status status = WriteAll(fd, piece, path); !status.ok()) return status;
  }
  if (::fsync(fd) != 0) return LostWrite(errno, "fsync", path);
  return absl::OkStatus();
}

absl::Status WriteFile(const std::filesystem::path& path, const Pieces& pieces) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd < 0) return FileError(errno, "create", path);
  absl::Status status = Fill(fd, pieces, path);
  // The descriptor is gone also where close fails, so it is called once.
  if (::close(fd) != 0 && status.ok()) status = LostWrite(errno, "close", path);
  return status;
}

absl::Status Rename(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) {
    return FileError(errno, absl::StrCat("rename to ", to.string()), from);
  }
  return absl::OkStatus();
}

absl::Status SyncFolder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FileError(errno, "open folder", folder);
  absl::Status status;
  if (::fsync(fd) != 0) status = LostWrite(errno, "fsync folder", folder);
  ::close(fd);
  return status;
}

absl::Status RemoveAll(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return error ? FileError(error.value(), "remove", path) : absl::OkStatus();
}

absl::StatusCode CodeOf(int error_number) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return absl::StatusCode::kResourceExhausted;
    case EIO:
      return absl::StatusCode::kDataLoss;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOENT:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    default:
      return absl::StatusCode::kUnknown;
  }
}

}  // namespace

FileOperations::FileOperations()
    : write_file(WriteFile), rename(Rename), sync_folder(SyncFolder), remove_all(RemoveAll) {}

absl::Status FileError(int error_number, const std::string& call,
                       const std::filesystem::path& path) {
  return {CodeOf(error_number), absl::StrCat(path.string(), ": ", call, ": ",
                                             std::generic_category().message(error_number))};
}

}  // namespace lockstep::trainer
