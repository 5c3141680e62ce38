// The samples of tar archives in the layout of WebDataset (trainer/data/tar_shards.h): which
// members belong together, and what each .cls says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "trainer/data/input_file.h"
#include "trainer/data/picture_listing.h"
#include "trainer/data/tar_index.h"

namespace lockstep::trainer {

struct TarSample {
  PictureItem item;  // Its label is not known yet.
  uint8_t part = 0;  // As given to Add().
  std::string key;
  std::string class_text;  // Of the .cls, without spaces around it. Not empty.
};

// Reads archives into samples, noting the ones that cannot be used.
class TarSampleReader {
 public:
  /// Throws DataError where the archive itself is damaged.
  void Add(const std::filesystem::path& tar, uint8_t part);

  std::vector<std::string> places;  // The archives.
  std::vector<TarSample> samples;
  std::vector<std::string> problems;  // "ARCHIVE:KEY: reason".
  int64_t other_members = 0;

 private:
  struct Open {
    std::string key;
    bool has_picture = false;
    bool has_class = false;
    PictureItem item;
    std::string class_text;
    std::string fault;
  };
  void Begin(std::string key);
  void Close();
  void AddPicture(const TarMember& member);
  void ReadClass(const InputFile& file, const TarMember& member);

  std::string path_;
  uint8_t part_ = 0;
  uint32_t place_ = 0;
  std::optional<Open> open_;
  std::unordered_set<std::string> keys_;  // Of this archive.
};

}  // namespace lockstep::trainer
