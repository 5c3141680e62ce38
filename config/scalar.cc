#include "config/scalar.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lockstep::config {
namespace {

constexpr absl::string_view kDigits = "0123456789";

bool AllOf(absl::string_view text, absl::string_view characters) {
  return !text.empty() && text.find_first_not_of(characters) == text.npos;
}

// Takes leading digits off; false when there are none.
bool TakeDigits(absl::string_view& text) {
  const size_t count = std::min(text.find_first_not_of(kDigits), text.size());
  text.remove_prefix(count);
  return count > 0;
}

// The grammar of JSON numbers (RFC 8259, section 6).
bool IsJsonNumber(absl::string_view text, bool& is_integer) {
  is_integer = true;
  if (!text.empty() && text[0] == '-') text.remove_prefix(1);
  if (text.size() > 1 && text[0] == '0' && absl::ascii_isdigit(text[1])) return false;
  if (!TakeDigits(text)) return false;
  if (!text.empty() && text[0] == '.') {
    is_integer = false;
    text.remove_prefix(1);
    if (!TakeDigits(text)) return false;
  }
  if (!text.empty() && (text[0] == 'e' || text[0] == 'E')) {
    is_integer = false;
    text.remove_prefix(1);
    if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
    if (!TakeDigits(text)) return false;
  }
  return text.empty();
}

bool IsOneOf(absl::string_view text, std::initializer_list<absl::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

// 0x1F, 0o17, 0b11
bool IsRadixNumber(absl::string_view body) {
  return body.size() > 2 && body[0] == '0' && IsOneOf(body.substr(1, 1), {"x", "o", "b"}) &&
         AllOf(body.substr(2), "0123456789abcdef_");
}

// 1_000, .5, 5., 1.5e3, 1:30 (ninety): what YAML 1.1 takes for a number. Not 127.0.0.1:80 or 1.2.3.
bool IsOldNumber(absl::string_view body) {
  const auto take = [&body](absl::string_view characters) {
    const size_t count = std::min(body.find_first_not_of(characters), body.size());
    body.remove_prefix(count);
    return count > 0;
  };
  bool any = take("0123456789_");
  while (any && !body.empty() && body[0] == ':') {
    body.remove_prefix(1);
    if (!take(kDigits)) return false;
  }
  if (!body.empty() && body[0] == '.') {
    body.remove_prefix(1);
    any = take("0123456789_") || any;
  }
  if (!body.empty() && body[0] == 'e') {
    body.remove_prefix(1);
    if (!body.empty() && (body[0] == '-' || body[0] == '+')) body.remove_prefix(1);
    take(kDigits);
  }
  return any && body.empty();
}

// True when some reader takes the plain scalar for something other than text; `instead` is how to
// write that something.
bool IsAmbiguous(absl::string_view text, std::string& instead) {
  const std::string lower = absl::AsciiStrToLower(text);
  if (IsOneOf(lower, {"yes", "y", "on", "true"})) return instead = "true", true;
  if (IsOneOf(lower, {"no", "n", "off", "false"})) return instead = "false", true;
  if (IsOneOf(lower, {"null", "~"})) return true;
  absl::string_view body = lower;
  if (!body.empty() && (body[0] == '-' || body[0] == '+')) body.remove_prefix(1);
  if (IsOneOf(body, {".nan", ".inf", "nan", "inf", "infinity"})) {
    return instead = "a finite number", true;
  }
  if (body.empty() || !(absl::ascii_isdigit(body[0]) || body[0] == '.')) return false;
  if (AllOf(body, kDigits)) {
    // 010, which is eight or ten, or +3.
    const size_t significant = std::min(body.find_first_not_of('0'), body.size() - 1);
    instead = absl::StrCat(lower[0] == '-' ? "-" : "", body.substr(significant));
    return true;
  }
  if (!IsRadixNumber(body) && !IsOldNumber(body)) return false;
  instead = "a plain decimal number such as 10, 0.5 or 1e-3";
  return true;
}

}  // namespace

Scalar Classify(absl::string_view text, bool quoted) {
  if (quoted) return {};
  if (text == "true" || text == "false") return {.kind = ScalarKind::kBoolean, .instead = ""};
  bool is_integer = false;
  if (IsJsonNumber(text, is_integer)) {
    return {.kind = is_integer ? ScalarKind::kInteger : ScalarKind::kNumber, .instead = ""};
  }
  Scalar scalar{.kind = ScalarKind::kText, .instead = ""};
  if (IsAmbiguous(text, scalar.instead)) scalar.kind = ScalarKind::kAmbiguous;
  return scalar;
}

std::string TextToYaml(absl::string_view text) {
  constexpr absl::string_view kSafe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.-";
  const bool plain = AllOf(text, kSafe) && text[0] != '-' && text[0] != '.' &&
                     Classify(text, false).kind == ScalarKind::kText;
  if (plain) return std::string(text);
  std::string result = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too: 0xC2 and the code point itself.
    const bool wide_control =
        byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (text[i] == '"' || text[i] == '\\') {
      absl::StrAppend(&result, "\\", text.substr(i, 1));
    } else if (byte < 0x20 || byte == 0x7F) {
      absl::StrAppend(&result, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else if (wide_control) {
      const auto code_point = static_cast<unsigned char>(text[++i]);
      absl::StrAppend(&result, "\\x", absl::Hex(code_point, absl::kZeroPad2));
    } else {
      result += text[i];
    }
  }
  result += '"';
  return result;
}

std::string NumberToYaml(double value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return error == std::errc() ? std::string(buffer, end) : std::string("0");
}

}  // namespace lockstep::config
