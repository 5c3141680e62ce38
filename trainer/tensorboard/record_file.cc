#include "trainer/tensorboard/record_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "trainer/tensorboard/crc32c.h"

namespace lockstep::trainer {
namespace {

template <typename Integer>
void AppendLittleEndian(Integer value, std::string& out) {
  for (size_t i = 0; i < sizeof(value); ++i) out += static_cast<char>(value >> (8 * i));
}

// A checksum of data that holds checksums itself is weak; the mask tells the two apart.
uint32_t MaskedCrc32c(std::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

}  // namespace

void AppendRecord(std::string_view data, std::string& out) {
  const size_t begin = out.size();
  AppendLittleEndian(static_cast<uint64_t>(data.size()), out);
  AppendLittleEndian(MaskedCrc32c(std::string_view(out).substr(begin)), out);
  out += data;
  AppendLittleEndian(MaskedCrc32c(data), out);
}

absl::StatusOr<RecordFile> RecordFile::Create(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", path.string()));
  return RecordFile(path, fd);
}

RecordFile::RecordFile(RecordFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      buffer_(std::move(other.buffer_)),
      flushed_bytes_(other.flushed_bytes_),
      torn_(other.torn_) {}

RecordFile::~RecordFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status RecordFile::Flush() {
  if (torn_ && ftruncate(fd_, flushed_bytes_) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot cut ", path_.string()));
  }
  torn_ = false;
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n = write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      absl::Status failed = absl::ErrnoToStatus(n < 0 ? errno : ENOSPC,
                                                absl::StrCat("cannot write ", path_.string()));
      // Where this fails, too, a reader stops at the torn record, which is the last one.
      torn_ = ftruncate(fd_, flushed_bytes_) != 0;
      return failed;
    }
    done += static_cast<size_t>(n);
  }
  flushed_bytes_ += static_cast<int64_t>(done);
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status RecordFile::Sync() const {
  if (fdatasync(fd_) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot sync ", path_.string()));
}

}  // namespace lockstep::trainer
