// A length of training: `30ep` (epochs), `5000st` (steps), or `90s`, `15m`, `2h` (wall time).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace lockstep::config {

class Duration {
 public:
  enum class Unit { kNone, kEpochs, kSteps, kSeconds };

  constexpr Duration() = default;
  static constexpr Duration Epochs(double n) { return Duration(Unit::kEpochs, n); }
  static constexpr Duration Steps(double n) { return Duration(Unit::kSteps, n); }
  static constexpr Duration Seconds(double n) { return Duration(Unit::kSeconds, n); }

  /// Parses `<number><unit>`, unit one of ep, st, s, m, h, d. INVALID_ARGUMENT says what was
  /// expected.
  static absl::StatusOr<Duration> Parse(std::string_view text);

  constexpr Unit unit() const { return unit_; }
  constexpr double count() const { return count_; }  // Epochs, steps or seconds.
  constexpr bool is_zero() const { return unit_ == Unit::kNone || count_ == 0; }
  std::string ToString() const;  // Parse(ToString()) is the same duration; "0s" when empty.

  bool operator==(const Duration&) const = default;

 private:
  constexpr Duration(Unit unit, double count) : unit_(unit), count_(count) {}
  Unit unit_ = Unit::kNone;
  double count_ = 0;
};

}  // namespace lockstep::config
