#include "trainer/models/zip_archive.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {
namespace {

static_assert(std::endian::native == std::endian::little, "The fields are little-endian.");

constexpr uint32_t kEndOfDirectory = 0x06054b50;
constexpr uint32_t kZip64EndOfDirectory = 0x06064b50;
constexpr uint32_t kZip64Locator = 0x07064b50;
constexpr uint32_t kDirectoryEntry = 0x02014b50;
constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr size_t kEndBytes = 22;
constexpr size_t kLocatorBytes = 20;
constexpr size_t kZip64EndBytes = 56;
constexpr size_t kEntryBytes = 46;
constexpr size_t kLocalBytes = 30;
constexpr size_t kMaxComment = 65535;
constexpr uint32_t kIn64 = 0xffffffff;  // "See the zip64 field."

using Bytes = std::span<const std::byte>;

// `at` + sizeof(T) must lie within.
template <typename T>
T Get(Bytes bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

bool Fits(uint64_t begin, uint64_t size, uint64_t whole) {
  return begin <= whole && size <= whole - begin;
}

absl::Status Damaged(const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("the zip archive is damaged or cut short: ", what));
}

struct Directory {
  uint64_t begin = 0;
  uint64_t bytes = 0;
  uint64_t entries = 0;
};

absl::StatusOr<Directory> FindDirectory(Bytes file) {
  if (file.size() < kEndBytes) return Damaged("it has no directory at its end");
  const size_t last = file.size() - kEndBytes;
  const size_t first = last > kMaxComment ? last - kMaxComment : 0;
  size_t end = last + 1;
  for (size_t at = last + 1; at-- > first;) {
    if (Get<uint32_t>(file, at) == kEndOfDirectory) {
      end = at;
      break;
    }
  }
  if (end > last) return Damaged("it has no directory at its end");
  Directory directory{Get<uint32_t>(file, end + 16), Get<uint32_t>(file, end + 12),
                      Get<uint16_t>(file, end + 10)};
  if (end >= kLocatorBytes && Get<uint32_t>(file, end - kLocatorBytes) == kZip64Locator) {
    const auto at = Get<uint64_t>(file, end - kLocatorBytes + 8);
    if (!Fits(at, kZip64EndBytes, file.size()) || Get<uint32_t>(file, at) != kZip64EndOfDirectory) {
      return Damaged("its zip64 directory is not where it should be");
    }
    directory = {Get<uint64_t>(file, at + 48), Get<uint64_t>(file, at + 40),
                 Get<uint64_t>(file, at + 32)};
  }
  if (!Fits(directory.begin, directory.bytes, file.size())) {
    return Damaged("its directory lies outside of the file");
  }
  return directory;
}

struct Place {
  uint64_t stored = 0;
  uint64_t size = 0;
  uint64_t local_header = 0;
};

// Replaces what stands in the zip64 field of an entry's extra fields.
absl::Status ApplyZip64(Bytes extra, Place& place) {
  while (extra.size() >= 4) {
    const auto id = Get<uint16_t>(extra, 0);
    const size_t size = Get<uint16_t>(extra, 2);
    if (size > extra.size() - 4) return Damaged("an extra field is too long");
    Bytes field = extra.subspan(4, size);
    extra = extra.subspan(4 + size);
    if (id != 1) continue;
    for (uint64_t* value : {&place.size, &place.stored, &place.local_header}) {
      if (*value != kIn64) continue;
      if (field.size() < 8) return Damaged("a zip64 field is too short");
      *value = Get<uint64_t>(field, 0);
      field = field.subspan(8);
    }
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::StatusOr<Bytes> Contents(Bytes file, const std::string& name, const Place& place) {
  if (!Fits(place.local_header, kLocalBytes, file.size()) ||
      Get<uint32_t>(file, place.local_header) != kLocalHeader) {
    return Damaged(absl::StrCat("'", name, "' is not where its directory says"));
  }
  const uint64_t begin = place.local_header + kLocalBytes +
                         Get<uint16_t>(file, place.local_header + 26) +
                         Get<uint16_t>(file, place.local_header + 28);
  if (!Fits(begin, place.size, file.size())) {
    return Damaged(absl::StrCat("'", name, "' goes beyond the end of the file"));
  }
  return file.subspan(begin, place.size);
}

}  // namespace

absl::StatusOr<std::map<std::string, ZipEntry>> ReadZip(Bytes file) {
  absl::StatusOr<Directory> found = FindDirectory(file);
  if (!found.ok()) return found.status();
  Bytes directory = file.subspan(found->begin, found->bytes);
  std::map<std::string, ZipEntry> entries;
  for (uint64_t i = 0; i < found->entries; ++i) {
    if (directory.size() < kEntryBytes || Get<uint32_t>(directory, 0) != kDirectoryEntry) {
      return Damaged("its directory ends too early");
    }
    const size_t name_bytes = Get<uint16_t>(directory, 28);
    const size_t extra_bytes = Get<uint16_t>(directory, 30);
    const size_t entry_bytes =
        kEntryBytes + name_bytes + extra_bytes + Get<uint16_t>(directory, 32);
    if (entry_bytes > directory.size()) return Damaged("its directory ends too early");
    const std::string name(reinterpret_cast<const char*>(directory.data()) + kEntryBytes,
                           name_bytes);
    const auto flags = Get<uint16_t>(directory, 8);
    const auto method = Get<uint16_t>(directory, 10);
    Place place{Get<uint32_t>(directory, 20), Get<uint32_t>(directory, 24),
                Get<uint32_t>(directory, 42)};
    const absl::Status extended =
        ApplyZip64(directory.subspan(kEntryBytes + name_bytes, extra_bytes), place);
    if (!extended.ok()) return extended;
    if (method != 0 || place.stored != place.size || (flags & 1) != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", name,
                       "' in the zip archive is compressed or encrypted, which "
                       "torch.save does not do"));
    }
    absl::StatusOr<Bytes> contents = Contents(file, name, place);
    if (!contents.ok()) return contents.status();
    if (!entries.emplace(name, ZipEntry{*contents, Get<uint32_t>(directory, 16)}).second) {
      return Damaged(absl::StrCat("'", name, "' occurs twice"));
    }
    directory = directory.subspan(entry_bytes);
  }
  return entries;
}

absl::Status CheckZipEntry(const std::string& name, const ZipEntry& entry) {
  uLong sum = crc32(0, nullptr, 0);
  for (Bytes rest = entry.bytes; !rest.empty();) {
    const size_t size = std::min<size_t>(rest.size(), 1u << 30);
    sum = crc32(sum, reinterpret_cast<const Bytef*>(rest.data()), static_cast<uInt>(size));
    rest = rest.subspan(size);
  }
  if (sum == entry.crc32) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("'", name,
                   "' is damaged: its checksum is not that in the archive (or the file "
                   "was saved with torch.serialization.set_crc32_options(False))"));
}

}  // namespace lockstep::trainer
