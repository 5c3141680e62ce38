#include "metrics/pricing.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <ctime>
#include <utility>

namespace lockstep::metrics {
namespace {

constexpr int kMinutesPerHour = 60;
constexpr double kSecondsPerMinute = 60;

char Lower(char c) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
}

// Minutes since midnight of "HH:MM"; the config's pattern has checked the form.
int MinuteOf(const std::string& text, size_t at) {
  return kMinutesPerHour * std::stoi(text.substr(at, 2)) + std::stoi(text.substr(at + 3, 2));
}

// The mean of `price` over a span. Prices change on whole minutes only; a span of days is looked at
// in steps that are still short against an hour.
template <typename Price>
double Mean(double from, double to, Price price) {
  if (!(to > from)) return price(from);
  constexpr double kMostParts = 10'000;
  const double step = std::max(kSecondsPerMinute, (to - from) / kMostParts);
  double sum = 0;
  for (double at = from; at < to;) {
    const double boundary = (std::floor(at / kSecondsPerMinute) + 1) * kSecondsPerMinute;
    const double end = std::min(to, std::max(boundary, at + step - kSecondsPerMinute));
    sum += price(at) * (end - at);
    at = end;
  }
  return sum / (to - from);
}

}  // namespace

Pricing::Pricing(config::PriceConfig prices, std::string host)
    : prices_(std::move(prices)), host_(std::move(host)) {}

bool Pricing::free() const {
  const auto none = [](const auto& rows, auto price) {
    return std::all_of(rows.begin(), rows.end(), [&](const auto& row) { return row.*price == 0; });
  };
  return prices_.per_rank_hour == 0 && prices_.per_kwh == 0 &&
         none(prices_.devices, &config::DevicePrice::per_hour) &&
         none(prices_.energy, &config::EnergyPrice::per_kwh) &&
         none(prices_.transfers, &config::TransferPrice::per_gb);
}

double Pricing::HardwarePerHour(const std::string& device, double unix_seconds) const {
  for (const config::DevicePrice& row : prices_.devices) {
    if (Matches(row.device, device) && Matches(row.host, host_) &&
        WithinHours(row.hours, unix_seconds)) {
      return row.per_hour;
    }
  }
  return prices_.per_rank_hour;
}

double Pricing::HardwarePerHour(const std::string& device, double from_unix, double to_unix) const {
  const bool flat = std::all_of(prices_.devices.begin(), prices_.devices.end(),
                                [](const auto& row) { return row.hours.empty(); });
  if (flat) return HardwarePerHour(device, to_unix);
  return Mean(from_unix, to_unix, [&](double at) { return HardwarePerHour(device, at); });
}

double Pricing::EnergyPerKwh(double unix_seconds) const {
  for (const config::EnergyPrice& row : prices_.energy) {
    if (Matches(row.host, host_) && WithinHours(row.hours, unix_seconds)) return row.per_kwh;
  }
  return prices_.per_kwh;
}

double Pricing::EnergyPerKwh(double from_unix, double to_unix) const {
  const bool flat = std::all_of(prices_.energy.begin(), prices_.energy.end(),
                                [](const auto& row) { return row.hours.empty(); });
  if (flat) return EnergyPerKwh(to_unix);
  return Mean(from_unix, to_unix, [&](double at) { return EnergyPerKwh(at); });
}

double Pricing::PerGigabyte(config::TransferSource source) const {
  for (const config::TransferPrice& row : prices_.transfers) {
    if (row.source == source) return row.per_gb;
  }
  return 0;
}

double Pricing::EstimatedWatts(const std::string& device) const {
  return device == "cpu" ? prices_.power.cpu_rank_watts : prices_.power.gpu_watts;
}

const char* TransferName(config::TransferSource source) {
  switch (source) {
    case config::TransferSource::kDataset:
      return "dataset";
    case config::TransferSource::kCheckpoint:
      return "checkpoint";
    case config::TransferSource::kAllreduce:
      return "allreduce";
  }
  return "dataset";
}

bool Matches(const std::string& pattern, const std::string& text) {
  // Greedy with one place to come back to: the last star.
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string::npos;
  size_t resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && Lower(pattern[p]) == Lower(text[t])) {
      ++p;
      ++t;
    } else if (star != std::string::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool WithinHours(const std::string& hours, double unix_seconds) {
  if (hours.empty()) return true;
  const auto seconds = static_cast<time_t>(std::floor(unix_seconds));
  tm local{};
  localtime_r(&seconds, &local);
  const int now = kMinutesPerHour * local.tm_hour + local.tm_min;
  const int from = MinuteOf(hours, 0);
  const int to = MinuteOf(hours, 6);
  return from < to ? now >= from && now < to : now >= from || now < to;
}

}  // namespace lockstep::metrics
