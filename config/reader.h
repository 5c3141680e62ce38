// Fills a struct from a YAML tree by its table, and remembers where each key stood.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/field.h"
#include "config/load.h"
#include "config/problems.h"
#include "config/yaml_document.h"

namespace lockstep::config {

// What the rules between keys need to know about the file.
class KeyPlaces {
 public:
  /// Given in the file or by an override.
  bool Given(const std::string& path) const { return given_.count(path) > 0; }
  /// Where the key stands, or else the nearest mapping around it.
  Place PlaceOf(std::string path) const;
  /// False when the key, something in it or a mapping around it was refused: its value in the
  /// struct is a default that nobody wrote.
  bool Good(const std::string& path) const;

  void SetGiven(const std::string& path, const Place& place) { given_[path] = place; }
  void SetBad(const std::string& path) { bad_.insert(path); }

 private:
  std::map<std::string, Place> given_;
  std::set<std::string> bad_;
};

/// Parses, applies the overrides and fills `object`, which holds the defaults. False when there was
/// no tree to look at.
bool ReadConfig(const Table& table, std::string_view yaml, const std::string& file_name,
                const std::vector<Override>& overrides, void* object, Problems& problems,
                KeyPlaces& places);

}  // namespace lockstep::config
