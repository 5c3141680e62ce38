// What lies in an image_folder data set: its classes and the names of its pictures. Nothing is read
// from the pictures here. The layout is described in image_folder.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

struct ImageEntry {
  uint32_t label = 0;
  std::string name;  // Within its class's folder.
};

struct ImageListing {
  std::filesystem::path folder;      // Of the split.
  std::vector<std::string> classes;  // Sorted by name.
  std::vector<ImageEntry> pictures;  // Sorted by class, then name; some of every class.
  int64_t other_files = 0;           // Left out.
  std::filesystem::path first_training_picture;

  std::string PathOf(int64_t index) const {
    const ImageEntry& entry = pictures[static_cast<size_t>(index)];
    return (folder / classes[entry.label] / entry.name).string();
  }
};

/// Throws DataError naming the folder and what is wrong with it: missing, not listable, no classes,
/// a class without pictures, a class that only one split has.
ImageListing ListImages(const std::filesystem::path& path, Split split);

}  // namespace lockstep::trainer
