// What the machine costs and how much may be spent on it: the `price` and `budget` groups of
// lockstepd.yaml.
#pragma once

#include <string>
#include <vector>

namespace lockstep::config {

// A price that holds for some devices, on some hosts, at some hours.
struct DevicePrice {
  std::string device = "*";  // Pattern on the GPU's name, or "cpu"; * stands for anything.
  std::string host = "*";    // Pattern on the host's name.
  std::string hours;         // "22:00-06:00" in local time; empty = always.
  double per_hour = 0;       // Money for one rank on it for an hour.

  bool operator==(const DevicePrice&) const = default;
};

struct EnergyPrice {
  std::string host = "*";
  std::string hours;
  double per_kwh = 0;

  bool operator==(const EnergyPrice&) const = default;
};

// Which bytes a price per gigabyte is about.
enum class TransferSource : int { kDataset, kCheckpoint, kAllreduce };
inline constexpr int kTransferSourceCount = 3;

struct TransferPrice {
  TransferSource source = TransferSource::kDataset;
  double per_gb = 0;  // For 1e9 bytes.

  bool operator==(const TransferPrice&) const = default;
};

// What a rank draws where nothing meters it.
struct PowerConfig {
  double cpu_rank_watts = 15;  // A rank on the CPU, its share of the host included.
  double gpu_watts = 300;      // A rank on a GPU.

  bool operator==(const PowerConfig&) const = default;
};

struct PriceConfig {
  std::string currency = "USD";
  double per_rank_hour = 0;               // One rank for an hour, where no row of `devices` fits.
  std::vector<DevicePrice> devices = {};  // The first row that fits counts.
  double per_kwh = 0;                     // Where no row of `energy` fits.
  std::vector<EnergyPrice> energy = {};   // Likewise.
  std::vector<TransferPrice> transfers = {};
  PowerConfig power = {};

  bool operator==(const PriceConfig&) const = default;
};

enum class LimitAction : int { kPause, kStop };

struct BudgetConfig {
  double monthly = 0;  // Of all runs of a calendar month (UTC), in the currency; 0 = no limit.
  LimitAction at_limit = LimitAction::kPause;

  bool operator==(const BudgetConfig&) const = default;
};

}  // namespace lockstep::config
