#include "trainer/data/csv_file.h"

#include <algorithm>
#include <set>
#include <utility>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {
namespace {

constexpr size_t kMostProblems = 1000;  // Collected; enough for anyone to see the pattern.
constexpr size_t kMostColumns = 10'000;

class Parser {
 public:
  Parser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  /// False at the end. A faulty record is reported and comes back without fields.
  bool Next(CsvRecord& record) {
    while (at_ < text_.size() && (text_[at_] == '\n' || IsCrlf(at_))) NextLine();
    if (at_ >= text_.size()) return false;
    record.line = line_;
    record.fields.clear();
    std::string fault;
    while (true) {
      std::string field;
      const bool quoted = at_ < text_.size() && text_[at_] == '"';
      fault = quoted ? ReadQuoted(field) : ReadPlain(field);
      if (fault.empty() && record.fields.size() >= kMostColumns) fault = "too many fields";
      if (!fault.empty()) break;
      record.fields.push_back(std::move(field));
      if (at_ >= text_.size() || text_[at_] != ',') break;
      ++at_;
    }
    if (!fault.empty()) {
      Report(record.line, fault);
      record.fields.clear();
      while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    }
    if (at_ < text_.size()) NextLine();
    return true;
  }

  void Report(int64_t line, const std::string& fault) {
    if (problems_.size() < kMostProblems) {
      problems_.push_back(name_ + ":" + std::to_string(line) + ": " + fault);
    }
  }
  bool full() const { return problems_.size() >= kMostProblems; }
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  bool IsCrlf(size_t at) const {
    return text_[at] == '\r' && at + 1 < text_.size() && text_[at + 1] == '\n';
  }
  bool EndsField(size_t at) const {
    return at >= text_.size() || text_[at] == ',' || text_[at] == '\n' || IsCrlf(at);
  }
  void NextLine() {
    if (text_[at_] == '\r') ++at_;
    ++at_;
    ++line_;
  }

  // Both return what is wrong, or nothing, and stop at what ends the field.
  std::string ReadPlain(std::string& field) {
    const size_t begin = at_;
    for (; !EndsField(at_); ++at_) {
      if (text_[at_] == '"') {
        return "a quote within a field; a field with quotes stands in quotes as a whole, and its "
               "own quotes are doubled";
      }
      if (text_[at_] == '\r') return "a carriage return that no line feed follows";
      if (text_[at_] == '\0') return "a zero byte; expected text in UTF-8";
    }
    field = text_.substr(begin, at_ - begin);
    return "";
  }

  std::string ReadQuoted(std::string& field) {
    for (++at_; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '"') {
        const bool doubled = at_ + 1 < text_.size() && text_[at_ + 1] == '"';
        if (!doubled) break;
        ++at_;
      } else if (c == '\n') {
        ++line_;
      } else if (c == '\0') {
        return "a zero byte; expected text in UTF-8";
      }
      field += c;
    }
    if (at_ >= text_.size()) return "a quote that is never closed; nothing after it can be read";
    ++at_;
    return EndsField(at_) ? "" : "something follows a closing quote; expected a comma";
  }

  const std::string_view text_;
  const std::string& name_;
  size_t at_ = 0;
  int64_t line_ = 1;
  std::vector<std::string> problems_;
};

void CheckColumns(const CsvTable& table, int64_t line, Parser& parser) {
  std::set<std::string> seen;
  for (size_t i = 0; i < table.columns.size(); ++i) {
    const std::string& column = table.columns[i];
    if (column.empty()) {
      parser.Report(line, "column " + std::to_string(i + 1) + " has no name");
    } else if (!seen.insert(column).second) {
      parser.Report(line, "there are two columns '" + column + "'");
    }
  }
}

}  // namespace

std::string_view Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

CsvTable ParseCsv(std::string_view text, const std::string& name) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
    throw DataError(name + ": is in UTF-16; save it as CSV in UTF-8");
  }
  Parser parser(text, name);
  CsvTable table;
  CsvRecord record;
  if (!parser.Next(record)) {
    throw DataError(name + ": is empty; expected a line with the names of the columns");
  }
  for (const std::string& column : record.fields) table.columns.emplace_back(Trimmed(column));
  CheckColumns(table, record.line, parser);
  const size_t count = table.columns.size();
  while (!parser.full() && parser.Next(record)) {
    if (record.fields.empty()) continue;
    if (record.fields.size() != count) {
      parser.Report(record.line, std::to_string(record.fields.size()) + " fields; expected " +
                                     std::to_string(count) + " as in the first line");
      continue;
    }
    table.records.push_back(std::move(record));
    record = {};
  }
  if (!parser.problems().empty()) {
    throw DataError(ListProblems(name + ": " + std::to_string(parser.problems().size()) +
                                     (parser.full() ? " lines or more" : " lines") +
                                     " cannot be read as CSV:",
                                 parser.problems()));
  }
  return table;
}

}  // namespace lockstep::trainer
