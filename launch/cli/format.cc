#include "launch/cli/format.h"

#include <cmath>
#include <cstdio>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep::cli {
namespace {

std::string Time(double unix_seconds, const char* format, bool utc) {
  if (!(unix_seconds > 0)) return "-";
  const auto seconds = static_cast<time_t>(unix_seconds);
  tm parts{};
  if (utc) {
    gmtime_r(&seconds, &parts);
  } else {
    localtime_r(&seconds, &parts);
  }
  char text[64];
  const size_t length = strftime(text, sizeof text, format, &parts);
  return std::string(text, length);
}

}  // namespace

std::string FormatSeconds(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e11) return "-";
  if (seconds < 9.95) return absl::StrFormat("%.1fs", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return absl::StrFormat("%ds", whole);
  if (whole < 3600) return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
  if (whole < 86400) return absl::StrFormat("%dh%02dm", whole / 3600, whole / 60 % 60);
  return absl::StrFormat("%dd%02dh", whole / 86400, whole / 3600 % 24);
}

std::string FormatBytes(int64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatCount(int64_t count) {
  std::string digits = absl::StrCat(count);
  const int first = digits[0] == '-' ? 1 : 0;
  for (int place = static_cast<int>(digits.size()) - 3; place > first; place -= 3) {
    digits.insert(static_cast<size_t>(place), ",");
  }
  return digits;
}

std::string FormatRate(double per_second) {
  if (!std::isfinite(per_second) || per_second <= 0 || per_second > 1e15) return "-";
  if (per_second < 9.995) return absl::StrFormat("%.2f", per_second);
  if (per_second < 99.95) return absl::StrFormat("%.1f", per_second);
  return FormatCount(std::llround(per_second));
}

std::string FormatRatio(double ratio) {
  if (!std::isfinite(ratio)) return "-";
  return absl::StrFormat("%.1f%%", ratio * 100);
}

std::string FormatNumber(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return absl::StrFormat("%.4g", value);
}

std::string FormatCost(double cost, absl::string_view currency) {
  if (!std::isfinite(cost)) return "-";
  // A run of a minute costs fractions of a cent; two decimals would show nothing.
  const int decimals = cost != 0 && std::abs(cost) < 1 ? 4 : 2;
  std::string text = absl::StrFormat("%.*f", decimals, cost);
  if (!currency.empty()) absl::StrAppend(&text, " ", currency);
  return text;
}

std::string FormatEpoch(double epoch) {
  return std::isfinite(epoch) ? absl::StrFormat("%.1f", epoch) : "-";
}

std::string FormatUtc(double unix_seconds) {
  return Time(unix_seconds, "%Y-%m-%dT%H:%M:%SZ", /*utc=*/true);
}
std::string FormatLocal(double unix_seconds) {
  return Time(unix_seconds, "%Y-%m-%d %H:%M:%S", /*utc=*/false);
}
std::string FormatClock(double unix_seconds) {
  return Time(unix_seconds, "%H:%M:%S", /*utc=*/false);
}

std::string Printable(absl::string_view text) {
  std::string result(text);
  for (char& c : result) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = ' ';
  }
  return result;
}

int DisplayWidth(absl::string_view text) {
  int width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b' && i + 1 < text.size() && text[i + 1] == '[') {
      // A sequence ends with its letter.
      i += 2;
      while (i < text.size() && (text[i] < '@' || text[i] > '~')) ++i;
    } else if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) {
      ++width;
    }
  }
  return width;
}

std::string Clip(absl::string_view text, int width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  const int kept = width > 3 ? width - 3 : width;
  size_t end = 0;
  for (int seen = 0; end < text.size(); ++end) {
    const bool starts = (static_cast<unsigned char>(text[end]) & 0xc0) != 0x80;
    if (starts && seen++ == kept) break;
  }
  return absl::StrCat(text.substr(0, end), width > 3 ? "..." : "");
}

}  // namespace lockstep::cli
