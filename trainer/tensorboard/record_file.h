// A TFRecord file that is only ever appended to: the framing of TensorBoard's event files.
//
// A record, all little-endian: uint64 length | uint32 masked CRC-32C of those eight bytes | data |
// uint32 masked CRC-32C of the data, where masked means ((crc >> 15) | (crc << 17)) + 0xa282ead8.
// Format: TensorFlow, tensorflow/core/lib/io/record_writer.h and core/lib/hash/crc32c.h.
//
// Records collect in memory; Flush() hands all of them to the kernel with one write. A flush that
// fails cuts the file back to where the flush before it ended, so that it always ends with a whole
// record, and keeps the records for the next flush. Not thread-safe, but for Sync().
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::trainer {

/// Appends one record to `out`.
void AppendRecord(std::string_view data, std::string& out);

class RecordFile {
 public:
  /// ALREADY_EXISTS where there is such a file.
  static absl::StatusOr<RecordFile> Create(const std::filesystem::path& path);

  RecordFile(RecordFile&& other) noexcept;
  RecordFile& operator=(RecordFile&&) = delete;
  ~RecordFile();  // What was not flushed is dropped.

  void Append(std::string_view data) { AppendRecord(data, buffer_); }
  absl::Status Flush();
  /// Makes what was flushed durable. From any thread.
  absl::Status Sync() const;

  const std::filesystem::path& path() const { return path_; }
  int64_t flushed_bytes() const { return flushed_bytes_; }
  size_t buffered_bytes() const { return buffer_.size(); }

 private:
  RecordFile(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::filesystem::path path_;
  int fd_;
  std::string buffer_;
  int64_t flushed_bytes_ = 0;
  bool torn_ = false;  // The file ends with part of a record.
};

}  // namespace lockstep::trainer
