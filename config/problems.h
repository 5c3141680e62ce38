// Collects what is wrong with a config, bounded: a hostile file must not make a report of a million
// lines.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/load.h"

namespace lockstep::config {

// Where something stands. `file` is borrowed: it outlives the load.
struct Place {
  const std::string* file = nullptr;
  int line = 0;  // 1-based; 0 = not in a file (an override).
  int column = 0;
};

class Problems {
 public:
  void Add(const Place& place, std::string path, std::string message, std::string hint = "");
  /// Nothing more is kept: reading on is of no use to anyone.
  bool full() const { return problems_.size() >= kMost; }
  /// Sorted by place, overrides last; when full, the last one says that there are more.
  std::vector<Problem> Take() &&;

 private:
  static constexpr size_t kMost = 100;
  std::vector<Problem> problems_;
};

/// `text` in single quotes, cut to a readable length, control characters made visible.
std::string Quoted(absl::string_view text);
/// As Quoted, without the quotes.
std::string Printable(absl::string_view text);

}  // namespace lockstep::config
