// What things cost: the daemon's price table as functions of the device, the host and the time of
// day. Pure: the time is an argument.
#pragma once

#include <cstdint>
#include <string>

#include "config/price.h"

namespace lockstep::metrics {

// Money is counted in millionths of the currency, so that lines add up to totals exactly.
inline constexpr double kMicrosPerUnit = 1e6;
inline constexpr double kJoulesPerKwh = 3.6e6;

class Pricing {
 public:
  /// `host` is this machine's name.
  Pricing(config::PriceConfig prices, std::string host);

  const std::string& currency() const { return prices_.currency; }
  const config::PriceConfig& config() const { return prices_; }
  /// Nobody has set a price: everything costs 0.
  bool free() const;

  /// Money for one rank on `device` (the GPU's name, or "cpu") for an hour, at a moment or averaged
  /// over a span (seconds since 1970; hours of the day are local time).
  double HardwarePerHour(const std::string& device, double unix_seconds) const;
  double HardwarePerHour(const std::string& device, double from_unix, double to_unix) const;
  double EnergyPerKwh(double unix_seconds) const;
  double EnergyPerKwh(double from_unix, double to_unix) const;
  /// Money for 1e9 bytes.
  double PerGigabyte(config::TransferSource source) const;
  /// What a rank on `device` draws where nothing meters it.
  double EstimatedWatts(const std::string& device) const;

 private:
  const config::PriceConfig prices_;
  const std::string host_;
};

/// "dataset", "checkpoint" or "allreduce".
const char* TransferName(config::TransferSource source);

/// Does `text` fit `pattern`, in which * stands for any characters? Letters of either case are
/// equal.
bool Matches(const std::string& pattern, const std::string& text);
/// Is the moment, in the host's local time, within "HH:MM-HH:MM"? A span that does not end after it
/// begins goes over midnight, so that 08:00-08:00 is a whole day; empty = always.
bool WithinHours(const std::string& hours, double unix_seconds);

}  // namespace lockstep::metrics
