// The zip archives that torch.save writes: entries stored without compression. Source: PKWARE's
// APPNOTE 6.3, sections 4.3 and 4.5.3 (zip64).
//
// Nothing is trusted: every offset and size is checked against the file before a byte is touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::trainer {

struct ZipEntry {
  std::span<const std::byte> bytes;  // Borrowed from the archive.
  uint32_t crc32 = 0;
};

/// By name. INVALID_ARGUMENT: no archive, cut short, or an entry that is compressed or encrypted.
absl::StatusOr<std::map<std::string, ZipEntry>> ReadZip(std::span<const std::byte> file);

/// DATA_LOSS when the bytes are not those that the checksum was made of.
absl::Status CheckZipEntry(const std::string& name, const ZipEntry& entry);

}  // namespace lockstep::trainer
