#include "config/problems.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep::config {

void Problems::Add(const Place& place, std::string path, std::string message, std::string hint) {
  if (full()) return;
  problems_.push_back({.file = place.file == nullptr ? "" : *place.file,
                       .line = place.line,
                       .column = place.column,
                       .path = std::move(path),
                       .message = std::move(message),
                       .hint = std::move(hint)});
}

std::vector<Problem> Problems::Take() && {
  std::stable_sort(problems_.begin(), problems_.end(), [](const Problem& a, const Problem& b) {
    if ((a.line == 0) != (b.line == 0)) return b.line == 0;
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  if (full()) {
    Problem rest;
    rest.file = problems_.front().file;
    rest.message = "too many problems to list";
    rest.hint = "mend these first";
    problems_.push_back(std::move(rest));
  }
  return std::move(problems_);
}

namespace {

// Without control characters, and with at most `longest` bytes and a bit.
std::string Escaped(absl::string_view text, size_t longest) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // Cut between characters: a UTF-8 continuation byte belongs to the one before.
    if (result.size() >= longest && (byte & 0xC0) != 0x80) return absl::StrCat(result, "…");
    if (byte < 0x20 || byte == 0x7F) {
      absl::StrAppend(&result, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

std::string Printable(absl::string_view text) {
  constexpr size_t kLongest = 60;
  return Escaped(text, kLongest);
}

std::string Quoted(absl::string_view text) {
  return absl::StrCat("'", Printable(text), "'");
}

std::string Problem::ToString() const {
  std::string result;
  if (!file.empty()) {
    // Whole, however long: an editor follows file:line:col.
    result = Escaped(file, file.size());
    if (line > 0) absl::StrAppend(&result, ":", line, ":", column);
    result += ": ";
  }
  if (!path.empty()) absl::StrAppend(&result, path, ": ");
  result += message;
  if (!hint.empty()) absl::StrAppend(&result, "; ", hint);
  return result;
}

}  // namespace lockstep::config
