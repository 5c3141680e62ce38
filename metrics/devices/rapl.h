// The energy the host's CPUs have used, from RAPL, the counters that Intel's and AMD's processors
// keep, through the kernel's powercap files: FOLDER/intel-rapl:N/energy_uj (microjoules, wraps to 0
// after max_energy_range_uj) for each package N; AMD's go by the same names. Parts of a package
// (intel-rapl:N:M: cores, memory) are within it on client processors and are not added; "psys" is
// the whole board, packages included, and is left out.
// Source: Documentation/power/powercap/powercap.rst of the Linux kernel.
// Many hosts allow only root to read energy_uj; containers and virtual machines have none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace lockstep::metrics {

class Rapl {
 public:
  explicit Rapl(std::filesystem::path folder = "/sys/class/powercap");

  /// Joules that all packages used since the first call; `now` is CLOCK_MONOTONIC in seconds. Reads
  /// a few small files. Call it more often than a counter wraps (minutes at full power: 262 kJ at
  /// 300 W last 14). A counter that a suspended host began anew is not taken for one that wrapped.
  /// nullopt where there are no packages or one of them cannot be read; trouble() then says why.
  std::optional<double> EnergyJoules(double now);
  const std::string& trouble() const { return trouble_; }

 private:
  struct Package {
    int64_t newest_microjoules = 0;
    int64_t used_microjoules = 0;
    double read_at = 0;
  };
  std::filesystem::path folder_;
  std::map<std::string, Package> packages_;
  std::string trouble_;
};

}  // namespace lockstep::metrics
