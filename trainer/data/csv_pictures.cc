#include "trainer/data/csv_pictures.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "trainer/data/csv_file.h"
#include "trainer/data/duplicates.h"
#include "trainer/data/input_file.h"
#include "trainer/data/split.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxTableBytes = int64_t{1} << 30;
constexpr const char* kSplitColumn = "split";

std::string Quoted(std::string_view text) {
  constexpr size_t kLongest = 40;
  std::string quoted = "'";
  for (const char c : text.substr(0, kLongest)) quoted += c >= ' ' && c != '\x7F' ? c : '?';
  return quoted + (text.size() > kLongest ? "...'" : "'");
}

std::string Listed(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(names.size(), 20); ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  return names.size() > 20 ? text + ", ..." : text;
}

std::optional<size_t> FindColumn(const CsvTable& table, const std::string& name) {
  const auto found = std::find(table.columns.begin(), table.columns.end(), name);
  if (found == table.columns.end()) return {};
  return static_cast<size_t>(found - table.columns.begin());
}

CsvTable ReadTable(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    throw DataError(path + ": is a folder; data.path must name the CSV file");
  }
  const InputFile file(path);
  if (file.size() > kMaxTableBytes) {
    throw DataError(path + ": " + std::to_string(file.size()) + " bytes; refused above " +
                    std::to_string(kMaxTableBytes));
  }
  std::vector<std::byte> bytes;
  file.Read(0, file.size(), bytes);
  return ParseCsv({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

struct Columns {
  size_t path = 0;
  std::optional<size_t> split;
  std::vector<size_t> targets;
};

// The columns to learn: a checkpoint's, the config's, or all that are left.
std::vector<std::string> TargetNames(const CsvTable& table, const OpenRequest& request) {
  std::vector<std::string> names = request.config.data.targets;
  if (request.targets != nullptr) {
    names.clear();
    for (const Target& target : *request.targets) names.push_back(target.name);
  }
  if (!names.empty()) return names;
  for (const std::string& column : table.columns) {
    if (column != request.config.data.path_column && column != kSplitColumn) {
      names.push_back(column);
    }
  }
  return names;
}

Columns FindColumns(const CsvTable& table, const OpenRequest& request) {
  const config::DataConfig& data = request.config.data;
  const auto missing = [&](const std::string& name, const char* key) {
    const bool other_comma =
        table.columns.size() == 1 && table.columns[0].find_first_of(";\t") != std::string::npos;
    throw DataError(data.path + ":1: has no column '" + name + "' (" + key + "); its columns are " +
                    Listed(table.columns) +
                    (other_comma ? "; fields are separated by commas, not by ; or tabs" : ""));
  };
  Columns columns;
  const auto path = FindColumn(table, data.path_column);
  if (!path) missing(data.path_column, "data.path_column");
  columns.path = *path;
  columns.split = FindColumn(table, kSplitColumn);
  for (const std::string& name : TargetNames(table, request)) {
    const auto found = FindColumn(table, name);
    if (!found) missing(name, "data.targets");
    if (*found == columns.path || found == columns.split) {
      throw DataError(data.path + ":1: the column '" + name + "' is no number to learn; take it " +
                      "out of data.targets");
    }
    if (std::find(columns.targets.begin(), columns.targets.end(), *found) !=
        columns.targets.end()) {
      throw DataError("data.targets names the column '" + name + "' twice");
    }
    columns.targets.push_back(*found);
  }
  if (columns.targets.empty()) {
    throw DataError(data.path + ":1: has no column to learn besides '" + data.path_column + "'");
  }
  return columns;
}

// What is wrong with a number, or nothing.
std::string ParseNumber(std::string_view text, bool yes_or_no, double& value) {
  const std::string_view trimmed = Trimmed(text);
  if (trimmed.empty()) return "is empty; expected a number";
  const auto [end, error] = std::from_chars(trimmed.data(), trimmed.data() + trimmed.size(), value);
  const bool whole = end == trimmed.data() + trimmed.size();
  if (error == std::errc::result_out_of_range)
    return Quoted(trimmed) + " is too large or too small";
  if (error != std::errc() || !whole) return Quoted(trimmed) + " is not a number";
  if (!std::isfinite(value)) return Quoted(trimmed) + " is not a finite number";
  if (yes_or_no && value != 0 && value != 1) return Quoted(trimmed) + " is neither 0 nor 1";
  return "";
}

constexpr uint8_t kNoPart = 255;

uint8_t ParseSplit(std::string_view word) {
  if (word == "train") return 0;
  if (word == "val") return 1;
  return word == "test" ? 2 : kNoPart;
}

// All usable lines, with the part of each.
class Lines {
 public:
  Lines(const CsvTable& table, const OpenRequest& request)
      : data_(request.config.data), columns_(FindColumns(table, request)) {
    listing_.what = std::string(yes_or_no() ? "csv_multilabel " : "csv_regression ") + data_.path;
    listing_.table = data_.path;
    const fs::path folder = fs::path(data_.path).parent_path();
    listing_.root = folder.string();
    listing_.places.push_back(folder.empty() ? "." : folder.string());
    for (const size_t column : columns_.targets) {
      listing_.targets.push_back({.name = table.columns[column]});
    }
    for (const CsvRecord& record : table.records) Add(table, record);
    if (!problems_.empty() && data_.on_bad_sample == config::OnBadSample::kFail) {
      throw DataError(ListProblems(
          data_.path + ": " + std::to_string(problems_.size()) + " of " +
              std::to_string(table.records.size()) +
              " lines cannot be used; repair them, name the columns to learn in data.targets, or " +
              "leave the lines out with data.on_bad_sample: skip",
          problems_));
    }
    if (listing_.items.size() >= std::numeric_limits<uint32_t>::max()) {
      throw DataError(data_.path + ": more than 2^32 lines");
    }
    listing_.unusable = problems_;
  }

  bool yes_or_no() const { return data_.kind == config::DatasetKind::kCsvMultilabel; }
  bool has_split_column() const { return columns_.split.has_value(); }
  PictureListing& listing() { return listing_; }
  std::vector<uint8_t>& parts() { return parts_; }

 private:
  void Add(const CsvTable& table, const CsvRecord& record) {
    std::string faults;
    const auto fault = [&](const std::string& column, const std::string& what) {
      faults += (faults.empty() ? "" : "; ") + column + " " + what;
    };
    if (record.fields[columns_.path].empty()) {
      fault(data_.path_column, "is empty; expected a picture's path");
    }
    std::vector<double> values;
    for (const size_t column : columns_.targets) {
      double value = 0;
      const std::string what = ParseNumber(record.fields[column], yes_or_no(), value);
      if (!what.empty()) fault(table.columns[column], what);
      values.push_back(value);
    }
    uint8_t part = 0;
    if (columns_.split) {
      const std::string_view word = Trimmed(record.fields[*columns_.split]);
      part = ParseSplit(word);
      if (part == kNoPart) fault(kSplitColumn, Quoted(word) + " is none of train, val and test");
    }
    if (!faults.empty()) {
      problems_.push_back(data_.path + ":" + std::to_string(record.line) + ": " + faults);
      return;
    }
    listing_.items.push_back({.position = record.line, .name = record.fields[columns_.path]});
    listing_.values.insert(listing_.values.end(), values.begin(), values.end());
    parts_.push_back(part);
  }

  const config::DataConfig& data_;
  const Columns columns_;
  PictureListing listing_;
  std::vector<uint8_t> parts_;
  std::vector<std::string> problems_;
};

// Mean and standard deviation of each target over the training lines.
void Standardize(PictureListing& listing, const std::vector<uint8_t>& parts,
                 const std::string& path) {
  const auto count = static_cast<double>(std::count(parts.begin(), parts.end(), 0));
  for (size_t t = 0; t < listing.targets.size(); ++t) {
    Target& target = listing.targets[t];
    const auto value = [&](size_t i) { return listing.values[i * listing.targets.size() + t]; };
    double sum = 0;
    double largest = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i] != 0) continue;
      sum += value(i);
      largest = std::max(largest, std::abs(value(i)));
    }
    target.mean = sum / count;
    double squares = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i] == 0) squares += (value(i) - target.mean) * (value(i) - target.mean);
    }
    target.std = std::sqrt(squares / count);
    // Not above what rounding alone makes of equal numbers.
    if (!(target.std > 1e-12 * largest)) {
      throw DataError(path + ": the column '" + target.name +
                      "' has the same number in all training lines, so there is nothing to learn; "
                      "name the columns to learn in data.targets");
    }
    if (!std::isfinite(target.mean) || !std::isfinite(target.std)) {
      throw DataError(path + ": the numbers in the column '" + target.name +
                      "' are too large for their mean and deviation to be computed");
    }
  }
}

std::string CountText(const std::vector<uint8_t>& parts, uint8_t part) {
  return std::to_string(std::count(parts.begin(), parts.end(), part));
}

void NoteRepeatedPaths(const PictureListing& all, const std::vector<uint8_t>& parts, uint8_t part,
                       PictureListing& chosen) {
  std::map<std::string_view, uint8_t> seen;
  int64_t repeated = 0;
  int64_t in_training = 0;
  for (size_t i = 0; i < all.items.size(); ++i) {
    if (parts[i] == 0 && part != 0) seen.emplace(all.items[i].name, uint8_t{0});
  }
  for (size_t i = 0; i < all.items.size(); ++i) {
    if (parts[i] != part) continue;
    const auto [at, is_new] = seen.emplace(all.items[i].name, part);
    if (is_new) continue;
    (at->second == part ? repeated : in_training) += 1;
  }
  if (repeated > 0) {
    chosen.notes.push_back(std::to_string(repeated) + " lines repeat the picture of another");
  }
  if (in_training > 0) {
    chosen.notes.push_back("warning: " + std::to_string(in_training) +
                           " of them have the picture of a training line, so measures come out too "
                           "good");
  }
}

// Which line belongs where; what the request's split is among them.
uint8_t ChooseParts(Lines& lines, const OpenRequest& request) {
  const config::DataConfig& data = request.config.data;
  std::vector<uint8_t>& parts = lines.parts();
  PictureListing& all = lines.listing();
  if (lines.has_split_column()) {
    if (!data.split.empty()) {
      throw DataError(data.path +
                      ":1: has a column 'split', and data.split is given too; remove one of them");
    }
    const bool has_val = std::count(parts.begin(), parts.end(), 1) > 0;
    const bool has_test = std::count(parts.begin(), parts.end(), 2) > 0;
    if (!has_val) std::replace(parts.begin(), parts.end(), uint8_t{2}, uint8_t{1});
    return PartOfSplit(request.split, has_val && has_test ? 3 : 2);
  }
  if (data.split.empty()) {
    if (request.targets != nullptr && request.split != Split::kTrain) return 0;  // All of them.
    throw DataError(data.path +
                    ": says nothing about what is held out; add data.split: [80, 20], or a column "
                    "'split' with train, val or test on each line");
  }
  std::vector<std::string> names;
  for (const PictureItem& item : all.items) names.push_back(item.name);
  const std::vector<uint32_t> labels(names.size(), 0);
  try {
    parts = SplitSamples({.names = names,
                          .labels = labels,
                          .classes = {},
                          .shares = data.split,
                          .seed = request.config.seed});
  } catch (const DataError& error) {
    throw DataError(data.path + ": " + error.what());
  }
  return PartOfSplit(request.split, data.split.size());
}

}  // namespace

PictureListing ListCsvPictures(const OpenRequest& request) {
  const std::string& path = request.config.data.path;
  const CsvTable table = ReadTable(path);
  if (table.records.empty()) throw DataError(path + ": has no line besides the first");
  Lines lines(table, request);
  const uint8_t part = ChooseParts(lines, request);
  const std::vector<uint8_t>& parts = lines.parts();
  PictureListing& all = lines.listing();
  const std::string what = ToString(request.split);
  if (std::count(parts.begin(), parts.end(), part) == 0) {
    throw DataError(path + ": has no " + what + " line (" + CountText(parts, 0) + " train, " +
                    CountText(parts, 1) + " held-out, " + CountText(parts, 2) + " test)");
  }
  if (request.targets != nullptr) {
    all.targets = *request.targets;
  } else if (!lines.yes_or_no()) {
    if (std::count(parts.begin(), parts.end(), 0) == 0) {
      throw DataError(path + ": has no train line to take the targets' mean and deviation from");
    }
    Standardize(all, parts, path);
  }
  std::vector<uint32_t> kept;
  for (uint32_t i = 0; i < parts.size(); ++i) {
    if (parts[i] == part) kept.push_back(i);
  }
  PictureListing chosen = all;
  chosen.Keep(kept);
  // Faulty lines belong to no part; they are told once.
  if (request.split != Split::kTrain && request.targets == nullptr) chosen.unusable.clear();
  chosen.what += " (" + what + " part)";
  NoteRepeatedPaths(all, parts, part, chosen);
  if (request.split == Split::kTest && part != 2) {
    chosen.notes.emplace_back("there is no test split: these are the held-out pictures");
  }
  return chosen;
}

}  // namespace lockstep::trainer
