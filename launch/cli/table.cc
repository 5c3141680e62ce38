#include "launch/cli/table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "launch/cli/format.h"

namespace lockstep::cli {

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::Add(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::Render() const {
  std::vector<int> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    int width = DisplayWidth(columns_[c].title);
    for (const auto& row : rows_) width = std::max(width, DisplayWidth(row[c]));
    widths.push_back(width);
  }
  std::string text;
  const auto add_line = [&](const auto& cell_of) {
    std::string line;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const std::string cell = cell_of(c);
      const std::string gap(static_cast<size_t>(widths[c] - DisplayWidth(cell)), ' ');
      if (c > 0) line += "  ";
      line += columns_[c].align == Align::kRight ? gap + cell : cell + gap;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  };
  add_line([&](size_t c) { return columns_[c].title; });
  for (const auto& row : rows_) add_line([&](size_t c) { return row[c]; });
  return text;
}

std::string RenderFields(const std::vector<std::pair<std::string, std::string>>& fields) {
  int width = 0;
  for (const auto& field : fields) width = std::max(width, DisplayWidth(field.first));
  std::string text;
  for (const auto& [key, value] : fields) {
    const std::string gap(static_cast<size_t>(width - DisplayWidth(key)) + 2, ' ');
    absl::StrAppend(&text, key, ":", gap, value, "\n");
  }
  return text;
}

}  // namespace lockstep::cli
