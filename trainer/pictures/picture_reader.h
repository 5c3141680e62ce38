// Pictures of a data set by index: read, decoded, brought to size, and kept in memory or on disk so
// that later epochs and later runs cost no decoding.
//
// Whatever the cache does, the bits are the same. The cache on disk (trainer/pictures/disk_cache.h)
// is keyed by the content of each file (xxh3-128) and by what is done to its pixels; a file whose
// name, size and time of change are as noted is not read again. A damaged or foreign cache file is
// made anew; a full disk ends the keeping with a line in Describe(), it never fails the run.
// Several ranks and runs may use one cache folder at once. Threads: all methods may be called from
// many at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {

// Where the bytes are.
struct PictureSource {
  int64_t count = 0;
  std::function<void(int64_t index, std::vector<std::byte>& bytes)> read;  // Throws DataError.
  std::function<std::string(int64_t index)> name;
  std::function<std::string(int64_t index)> stamp;  // Name, size and time of change, as text.
};

class PictureReader {
 public:
  /// `cache_folder` as data.cache_folder says.
  PictureReader(PictureSource source, Preprocessing preprocessing, config::PictureCacheKind cache,
                const std::string& cache_folder);
  ~PictureReader();

  const Preprocessing& preprocessing() const;
  /// height x width, ready to be normalized. Throws DataError.
  void Read(int64_t index, Picture& picture) const;
  /// All of the picture as PrepareWhole() makes it. Pixels outside of `part` may be anything.
  void ReadWhole(int64_t index, const PartOf& part, Picture& picture) const;
  std::string Describe() const;  // What is kept where; empty = nothing.

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::trainer
