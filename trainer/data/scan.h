// The look at every picture before the first step: each is opened and decoded, so that a bad one is
// named before an hour of training and not after it. Decoding here is at the smallest scale that
// still goes through all of the file.
//
// What was found good is remembered in a file of the cache folder, by name, size and time of
// change: the next run only looks at what is new or changed. The ranks of a host share it: one
// scans while the others wait for its lock and then read the result. A memory that is damaged,
// foreign or cannot be written is as none: every picture is looked at.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "trainer/data/input_file.h"
#include "trainer/data/picture_listing.h"
#include "trainer/pictures/decode.h"

namespace lockstep::trainer {

struct ScanResult {
  std::vector<PictureSize> sizes;  // Of the files' own pixels. {0, 0} where there is a problem.
  std::vector<FileStamp> stamps;   // tar_shards: of the archive.
  std::map<int64_t, std::string> problems;  // By the item's place: "PATH: reason".
  int64_t remembered = 0;                   // Pictures that were not looked at again.
};

struct ScanOptions {
  int threads = 0;            // 0 = as many as the machine has cores.
  std::string memory_folder;  // Empty = remember nothing.
  // With fewer pictures and fewer bytes than both, looking costs less than remembering.
  int64_t memory_from_pictures = 4096;
  int64_t memory_from_bytes = int64_t{64} << 20;
};

/// Throws what is no fault of a picture: std::bad_alloc.
ScanResult ScanPictures(const PictureListing& listing, const ScanOptions& options);

}  // namespace lockstep::trainer
