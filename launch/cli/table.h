// A table in plain text: columns as wide as their widest cell, two spaces between them, no lines.
#pragma once

#include <string>
#include <vector>

namespace lockstep::cli {

class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns);
  /// One cell per column. Cells may hold colour sequences; control characters from elsewhere must
  /// have been made Printable() before.
  void Add(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  /// With the titles as the first line; no line ends in spaces.
  std::string Render() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// "key:  value" lines with the values under each other.
std::string RenderFields(const std::vector<std::pair<std::string, std::string>>& fields);

}  // namespace lockstep::cli
