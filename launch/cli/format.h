// Numbers as people read them. Pure functions; none of them needs a locale.
#pragma once

#include <cstdint>
#include <string>
#include "absl/strings/string_view.h"

namespace lockstep::cli {

std::string FormatSeconds(double seconds);  // "0.4s", "12s", "3m12s", "2h05m", "3d04h"; "-" below 0
std::string FormatBytes(int64_t bytes);     // "512 B", "1.2 MiB"
std::string FormatCount(int64_t count);     // "12,345"
std::string FormatRate(double per_second);  // "0.85", "12.3", "1,234"
std::string FormatRatio(double ratio);      // 0.9312 -> "93.1%"
std::string FormatNumber(double value);     // Four significant digits: "0.4123", "1.2e-05"
std::string FormatCost(double cost, absl::string_view currency);  // "1.23 USD", "0.0042 USD"
std::string FormatEpoch(double epoch);                            // "3.2"
std::string FormatUtc(double unix_seconds);                       // "2026-01-31T09:05:00Z"
std::string FormatLocal(double unix_seconds);                     // "2026-01-31 10:05:00"
std::string FormatClock(double unix_seconds);                     // "10:05:00", local time

/// Text from elsewhere made harmless for a terminal: control characters become spaces.
std::string Printable(absl::string_view text);

/// Characters a terminal shows, escape sequences aside (UTF-8 continuation bytes not counted).
int DisplayWidth(absl::string_view text);
/// The first `width` characters, with "..." in the place of the last three when cut. No escape
/// sequences in `text`.
std::string Clip(absl::string_view text, int width);

}  // namespace lockstep::cli
