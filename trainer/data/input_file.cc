#include "trainer/data/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {
namespace {

std::atomic<int64_t> total_bytes{0};

int64_t Nanoseconds(const timespec& time) {
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

FileStamp ToStamp(const struct stat& status, const std::string& path) {
  if (!S_ISREG(status.st_mode)) throw DataError(path + ": not a regular file");
  return {static_cast<int64_t>(status.st_size), Nanoseconds(status.st_mtim),
          Nanoseconds(status.st_ctim)};
}

}  // namespace

int64_t InputBytes() {
  return total_bytes.load(std::memory_order_relaxed);
}

void CountInputBytes(int64_t bytes) {
  total_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

FileStamp StampOf(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    throw DataError(path + ": cannot open: " + std::strerror(errno));
  }
  return ToStamp(status, path);
}

InputFile::InputFile(const std::string& path) : path_(path) {
  // Without O_NONBLOCK a pipe with a picture's name would block for ever.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) throw DataError(path + ": cannot open: " + std::strerror(errno));
  try {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) {
      throw DataError(path + ": cannot open: " + std::strerror(errno));
    }
    stamp_ = ToStamp(status, path);
  } catch (const DataError&) {
    ::close(descriptor_);
    throw;
  }
}

InputFile::~InputFile() {
  ::close(descriptor_);
}

void InputFile::Read(int64_t offset, int64_t count, std::vector<std::byte>& bytes) const {
  bytes.resize(static_cast<size_t>(count));
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::pread(descriptor_, bytes.data() + done, bytes.size() - done,
                                static_cast<off_t>(offset) + static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw DataError(path_ + ": cannot read: " + std::strerror(errno));
    if (got == 0) {
      throw DataError(path_ + ": ends at byte " + std::to_string(offset + int64_t(done)) +
                      " where " + std::to_string(offset + count) + " were expected");
    }
    done += static_cast<size_t>(got);
  }
  CountInputBytes(count);
}

}  // namespace lockstep::trainer
