// A regular file that is read at offsets. Opening a pipe, a device or a folder by mistake is an
// error and never blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::trainer {

/// Bytes of the data set that this process has read so far; CountInputBytes() adds those that do
/// not go through an InputFile. Thread-safe.
int64_t InputBytes();
void CountInputBytes(int64_t bytes);

// What tells that a file was changed.
struct FileStamp {
  int64_t bytes = 0;
  int64_t changed_ns =
      0;                 // Time of the last change of the contents, since 1970. May be set by hand.
  int64_t noted_ns = 0;  // Of the last change of contents, rights or links on this machine.
  bool operator==(const FileStamp&) const = default;
};

/// Follows links. Throws DataError "PATH: reason".
FileStamp StampOf(const std::string& path);

class InputFile {
 public:
  explicit InputFile(const std::string& path);  // Throws DataError "PATH: reason".
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  int64_t size() const { return stamp_.bytes; }
  const FileStamp& stamp() const { return stamp_; }

  /// The `count` bytes from `offset` on. Throws DataError when the file has fewer.
  void Read(int64_t offset, int64_t count, std::vector<std::byte>& bytes) const;

 private:
  const std::string path_;
  int descriptor_ = -1;
  FileStamp stamp_;
};

}  // namespace lockstep::trainer
