// The pictures that an earlier scan (trainer/data/scan.h) found good, in a file of the cache
// folder:
//
//   "lockstep scan 1\n"                         16 bytes
//   entries, sorted by key                      24 bytes each: key 16, width 4, height 4
//   xxh3-64 of all before it                    8 bytes
//
// Numbers are in the machine's own order: a file from elsewhere has a wrong checksum and is not
// used. The object holds a lock on the file from beginning to end, so that another process waits
// for the result. Nothing here throws: what goes wrong leaves an empty memory. Find() may be called
// from many threads.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "trainer/data/input_file.h"
#include "trainer/pictures/decode.h"

namespace lockstep::trainer {

class ScanMemory {
 public:
  struct Key {
    uint64_t low = 0;
    uint64_t high = 0;
    bool operator==(const Key&) const = default;
    bool operator<(const Key& other) const {
      return std::tie(low, high) < std::tie(other.low, other.high);
    }
  };
  struct Entry {
    Key key;
    PictureSize size;  // {0, 0}: no entry.
  };
  static Key KeyOf(const std::string& name, const FileStamp& stamp, int64_t position);

  /// `root` names the data set. Waits for whoever has the memory of this data set open.
  ScanMemory(const std::string& folder, const std::string& root);
  ScanMemory(const ScanMemory&) = delete;
  ScanMemory& operator=(const ScanMemory&) = delete;
  ~ScanMemory();

  const Entry* Find(const Key& key) const;  // Null: not known to be good.
  /// These beside what is there already; in its place where that would be too many.
  void Save(const std::vector<Entry>& entries) const;

 private:
  std::string path_;
  int lock_ = -1;
  std::vector<Entry> entries_;  // Sorted by key.
};

}  // namespace lockstep::trainer
