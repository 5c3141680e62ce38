// Decoded pictures in a file that later epochs, later runs and other processes read.
//
// The file, `FOLDER/pictures/NAME.pictures`, NAME = what is done to the pictures, hashed. So data
// sets share it where they share pictures. Numbers are little-endian.
//
//   "lockstep pictures 1\n" and zeros up to 32 bytes, then records:
//   0   "LPIC"
//   4   u32 channels        0 in an alias, which has no pixels: another file has the same content
//   8   u32 width
//   12  u32 height
//   16  u64 x 2             xxh3-128 of the encoded file
//   32  u64 x 2             xxh3-128 of its stamp: name, size and time of change
//   48  u64                 xxh3-64 of the pixels
//   56  u64                 xxh3-64 of bytes 0 to 55
//   64  pixels              height x width x channels
//
// Records are only appended, under flock(); a later one of the same key counts. Whoever appends
// first cuts off what a writer that died left unfinished. Nobody reads through a mapping: a file
// that is cut while it is read must be a miss, not a signal. A record whose checksum is wrong is a
// miss, and is appended anew. The file may be deleted at any time.
//
// Errors never leave: where writing fails (no space, no permission) the cache takes no more, and
// Problem() says why. Beyond its first 64 MiB a file leaves a twentieth of the file system free, of
// a large one 5 GiB. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "trainer/pictures/picture.h"

namespace lockstep::trainer {

class DiskCache {
 public:
  using Key = std::array<uint64_t, 2>;
  static Key KeyOf(const void* bytes, size_t count);
  static Key KeyOf(std::string_view text) { return KeyOf(text.data(), text.size()); }

  /// `what` is what is done to the pictures, `keep_free` how many bytes of the file system a file
  /// beyond 64 MiB leaves free.
  DiskCache(const std::string& folder, const std::string& what,
            std::optional<int64_t> keep_free = {});
  DiskCache(const DiskCache&) = delete;
  DiskCache& operator=(const DiskCache&) = delete;
  ~DiskCache();

  /// A picture whose file has this stamp. What another process added counts, too.
  bool FindStamp(const Key& stamp, Picture& picture);
  /// A picture whose file has this content; notes that the stamp stands for it.
  bool FindContent(const Key& content, const Key& stamp, Picture& picture);
  void Add(const Key& content, const Key& stamp, const Picture& picture);

  const std::string& path() const { return path_; }
  std::string Problem() const;  // Why it takes no more; empty = it does.

 private:
  struct Header;
  struct KeyHash {
    size_t operator()(const Key& key) const { return key[0]; }
  };
  class Lock;

  void Open();
  void Begin();
  void ReadNewRecords();
  bool Load(int64_t offset, Picture& picture) const;
  void Append(const Header& header, const Picture* picture);
  void GiveUp(const std::string& reason);

  const std::optional<int64_t> keep_free_;
  std::string path_;
  mutable std::mutex mutex_;  // Guards all below but the file's contents.
  int file_ = -1;
  int64_t end_ = 0;                                       // Of the records that are known.
  std::unordered_map<Key, int64_t, KeyHash> by_content_;  // Offsets of records with pixels.
  std::unordered_map<Key, Key, KeyHash> by_stamp_;        // Contents.
  std::string problem_;
};

}  // namespace lockstep::trainer
