#include "metrics/devices/rapl.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace lockstep::metrics {
namespace {

namespace fs = std::filesystem;

// More than any package draws: a fall that would mean more is a counter that was begun anew.
constexpr double kMostWatts = 2000;

// A small file's text without its line end; nullopt with errno set.
std::optional<std::string> ReadSmall(const fs::path& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  std::array<char, 64> text{};
  const ssize_t bytes = read(file, text.data(), text.size());
  const int error = errno;
  close(file);
  errno = error;
  if (bytes < 0) return std::nullopt;
  return std::string(
      absl::StripAsciiWhitespace(absl::string_view(text.data(), static_cast<size_t>(bytes))));
}

std::optional<int64_t> ReadNumber(const fs::path& path, std::string* trouble) {
  const std::optional<std::string> text = ReadSmall(path);
  if (!text) {
    *trouble = absl::StrCat(path.string(), ": ", std::generic_category().message(errno),
                            errno == EACCES ? " (a udev rule or chmod lets lockstepd's user)" : "");
    return std::nullopt;
  }
  int64_t number = 0;
  if (!absl::SimpleAtoi(*text, &number) || number < 0) {
    *trouble = absl::StrCat(path.string(), ": no number of microjoules");
    return std::nullopt;
  }
  return number;
}

// "intel-rapl:0", "intel-rapl:1"; neither "intel-rapl", the folder's head, nor "intel-rapl:0:1".
bool NamesAPackage(const std::string& name) {
  absl::string_view rest = name;
  int64_t number = 0;
  return absl::ConsumePrefix(&rest, "intel-rapl:") && absl::SimpleAtoi(rest, &number);
}

}  // namespace

Rapl::Rapl(fs::path folder) : folder_(std::move(folder)) {}

std::optional<double> Rapl::EnergyJoules(double now) {
  trouble_.clear();
  std::set<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (NamesAPackage(name) && ReadSmall(entry->path() / "name") != "psys") names.insert(name);
  }
  if (names.empty()) {
    trouble_ = absl::StrCat(folder_.string(), ": no counters of the CPUs' energy (RAPL) here");
    return std::nullopt;
  }
  for (const std::string& name : names) {
    const auto counter = ReadNumber(folder_ / name / "energy_uj", &trouble_);
    if (!counter) return std::nullopt;
    const auto [known, is_new] = packages_.try_emplace(name, Package{*counter, 0, now});
    Package& package = known->second;
    int64_t used = *counter - package.newest_microjoules;
    if (used < 0) {
      const auto range = ReadNumber(folder_ / name / "max_energy_range_uj", &trouble_);
      if (!range) return std::nullopt;
      used += *range;
      const double most = kMostWatts * 1e6 * std::max(now - package.read_at, 1.0);
      if (used < 0 || static_cast<double>(used) > most) used = 0;
    }
    package.newest_microjoules = *counter;
    package.used_microjoules += used;
    package.read_at = now;
  }
  int64_t sum = 0;  // Of every package ever seen: one taken offline takes nothing away.
  for (const auto& [name, package] : packages_) sum += package.used_microjoules;
  return static_cast<double>(sum) * 1e-6;
}

}  // namespace lockstep::metrics
