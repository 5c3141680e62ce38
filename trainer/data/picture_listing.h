// What a data set of stored pictures holds, told by names and tables alone: no picture is opened.
// One function for each kind makes the listing, and everything after that (the look at every
// picture, reading, caches, counts) is the same for all kinds (trainer/data/picture_set.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

struct PictureItem {
  uint32_t place = 0;    // Which of the listing's places.
  uint32_t label = 0;    // 0 with targets.
  int64_t position = 0;  // tar_shards: the first byte in the archive. csv_*: the line of the table.
  int64_t bytes = 0;     // tar_shards only.
  std::string name;      // Within its place.
};

struct PictureListing {
  std::string what;                  // "image_folder /data/cats/train", for people.
  std::string root;                  // Names in fingerprints begin below it.
  std::vector<std::string> places;   // Folders; tar_shards: the archives.
  bool archives = false;             // Pictures lie within files.
  std::string table;                 // csv_*: the table, for messages.
  std::vector<PictureItem> items;    // In the order of the samples.
  std::vector<std::string> classes;  // Empty with targets.
  bool every_class_needed = false;   // A class without a sample is an error.
  std::vector<Target> targets;
  std::vector<double> values;         // Item by item: one for each target.
  std::vector<std::string> unusable;  // Samples that are known to be bad already.
  std::vector<std::string> notes;     // For people.

  int64_t size() const { return static_cast<int64_t>(items.size()); }
  /// The picture's path; "archive.tar:member" within an archive.
  std::string NameOf(const PictureItem& item) const;
  /// All of the file, or member. Throws DataError "NAME: reason".
  void Read(const PictureItem& item, std::vector<std::byte>& bytes) const;
  /// Keeps the items (and values) whose places in the list are given, in that order.
  void Keep(const std::vector<uint32_t>& kept);
};

}  // namespace lockstep::trainer
