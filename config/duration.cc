#include "config/duration.h"

#include <charconv>
#include <cmath>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lockstep::config {
namespace {

constexpr double kLargestCount = 1e15;  // Whole numbers up to here are exact in a double.

struct Suffix {
  std::string_view text;
  Duration::Unit unit;
  double seconds;  // What one of it is in seconds; 1 for epochs and steps.
};

// Longest first where one is the end of another.
constexpr Suffix kSuffixes[] = {
    {"ep", Duration::Unit::kEpochs, 1},    {"st", Duration::Unit::kSteps, 1},
    {"s", Duration::Unit::kSeconds, 1},    {"m", Duration::Unit::kSeconds, 60},
    {"h", Duration::Unit::kSeconds, 3600}, {"d", Duration::Unit::kSeconds, 86400},
};

absl::Status Malformed(absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(
      why, "; expected a number and a unit: 30ep (epochs), 5000st (steps), 90s, 15m, 2h or 1d"));
}

// Digits with at most one point between them; no sign, no exponent, no needless leading zero.
bool IsPlainDecimal(std::string_view text) {
  const size_t point = text.find('.');
  const std::string_view whole = text.substr(0, point);
  const auto all_digits = [](std::string_view part) {
    return !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
  };
  if (!all_digits(whole) || (whole.size() > 1 && whole[0] == '0')) return false;
  return point == std::string_view::npos || all_digits(text.substr(point + 1));
}

// Shortest decimal text without exponent that reads back as the same double.
std::string Decimal(double value) {
  char buffer[400];  // The longest double in this notation has 327 characters.
  const auto [end, error] =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  return error == std::errc() ? std::string(buffer, end) : std::string("0");
}

}  // namespace

absl::StatusOr<Duration> Duration::Parse(std::string_view text) {
  for (const Suffix& suffix : kSuffixes) {
    if (!text.ends_with(suffix.text)) continue;
    const std::string_view number = text.substr(0, text.size() - suffix.text.size());
    if (!IsPlainDecimal(number)) return Malformed("not a duration");
    double count = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), count);
    if (error != std::errc() || end != number.data() + number.size()) {
      return Malformed("the number is too large or too small");
    }
    count *= suffix.seconds;
    if (count > kLargestCount) return Malformed("the number is too large");
    if (suffix.unit == Unit::kSteps && count != std::floor(count)) {
      return Malformed("steps are whole numbers");
    }
    // Every zero length is the same one, so that it also compares and prints the same.
    return count == 0 ? Duration() : Duration(suffix.unit, count);
  }
  return Malformed(text.empty() ? "empty" : "no unit");
}

std::string Duration::ToString() const {
  if (is_zero()) return "0s";
  if (unit_ == Unit::kEpochs) return Decimal(count_) + "ep";
  if (unit_ == Unit::kSteps) return Decimal(count_) + "st";
  for (const Suffix suffix : {kSuffixes[5], kSuffixes[4], kSuffixes[3]}) {
    // Only whole numbers: they multiply back to the same double.
    if (std::fmod(count_, suffix.seconds) == 0) {
      return Decimal(count_ / suffix.seconds) += suffix.text;
    }
  }
  return Decimal(count_) + "s";
}

}  // namespace lockstep::config
