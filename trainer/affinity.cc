#include "trainer/affinity.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {
namespace {

constexpr int kMostCores = 8192;  // The kernel's own limit (CONFIG_NR_CPUS).

class CpuSet {
 public:
  CpuSet() : set_(CPU_ALLOC(kMostCores), [](cpu_set_t* set) { CPU_FREE(set); }) {
    CPU_ZERO_S(bytes(), set_.get());
  }
  static size_t bytes() { return CPU_ALLOC_SIZE(kMostCores); }
  cpu_set_t* get() { return set_.get(); }

 private:
  std::shared_ptr<cpu_set_t> set_;
};

// Empty when the kernel does not tell.
std::vector<int> CoresOf(pid_t process) {
  CpuSet set;
  std::vector<int> cores;
  if (sched_getaffinity(process, CpuSet::bytes(), set.get()) != 0) return cores;
  for (int core = 0; core < kMostCores; ++core) {
    if (CPU_ISSET_S(core, CpuSet::bytes(), set.get())) cores.push_back(core);
  }
  return cores;
}

// -1 where there is no such file: all cores then count as one package's, in order of their numbers.
int Topology(int core, const char* what) {
  std::ifstream file(absl::StrCat("/sys/devices/system/cpu/cpu", core, "/topology/", what));
  int value = -1;
  file >> value;
  return file ? value : -1;
}

// The two threads of a core, and the cores of a package, are neighbours afterwards: their numbers
// often lie half the machine apart.
void SortByHardware(std::vector<int>& cores) {
  using Place = std::tuple<int, int, int>;
  std::vector<Place> places;
  places.reserve(cores.size());
  for (const int core : cores) {
    places.emplace_back(Topology(core, "physical_package_id"), Topology(core, "core_id"), core);
  }
  std::sort(places.begin(), places.end());
  std::transform(places.begin(), places.end(), cores.begin(),
                 [](const Place& place) { return std::get<2>(place); });
}

// Only a launcher's binding is undone: whoever writes `taskset -c 0 lockstep-trainer` means it.
bool StartedByLauncher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

HostCores ReadCores() {
  HostCores cores;
  cores.mine = CoresOf(0);
  cores.allowed = StartedByLauncher() ? CoresOf(getppid()) : cores.mine;
  // A parent that may use less than we do says nothing about this rank.
  if (!std::includes(cores.allowed.begin(), cores.allowed.end(), cores.mine.begin(),
                     cores.mine.end())) {
    cores.allowed = cores.mine;
  }
  SortByHardware(cores.allowed);
  std::set<int> packages;
  for (const int core : cores.allowed) packages.insert(Topology(core, "physical_package_id"));
  cores.packages = static_cast<int>(packages.size());
  return cores;
}

std::string Count(size_t number, const char* what) {
  return absl::StrCat(number, " ", what, number == 1 ? "" : "s");
}

}  // namespace

Binding ChooseBinding(const RankPlacement& placement, const HostCores& cores) {
  const auto ranks = static_cast<size_t>(placement.ranks_on_host);
  const auto threads = static_cast<size_t>(placement.threads);
  Binding binding{.cores = cores.mine, .text = "left to the kernel"};
  if (cores.mine.empty() || cores.allowed.empty()) return binding;
  const bool too_narrow = cores.mine.size() < threads;
  if (cores.mine.size() < cores.allowed.size() && !too_narrow) {
    binding.text = absl::StrCat("as launched, ", Count(cores.mine.size(), "core"), " a rank");
    return binding;
  }
  if (too_narrow && cores.allowed.size() > cores.mine.size()) {
    binding.cores = cores.allowed;
    binding.text = absl::StrCat("widened to all ", Count(cores.allowed.size(), "core"), ": ",
                                Count(cores.mine.size(), "core"),
                                " a rank, as launched, is less than ", Count(threads, "thread"));
  }
  if (cores.packages > 1 && ranks > 1 && cores.allowed.size() / ranks == threads) {
    const auto begin = cores.allowed.begin() + placement.local_rank * placement.threads;
    binding.cores.assign(begin, begin + placement.threads);
    binding.text =
        absl::StrCat("each rank on its own ", threads == 1 ? "core" : Count(threads, "core"),
                     " of ", cores.allowed.size());
  }
  return binding;
}

int CoresOfHost() {
  return std::max(1, static_cast<int>(ReadCores().allowed.size()));
}

Binding BindRank(const RankPlacement& placement) {
  const HostCores cores = ReadCores();
  Binding binding = ChooseBinding(placement, cores);
  if (binding.cores == cores.mine) return binding;
  CpuSet set;
  for (const int core : binding.cores) CPU_SET_S(core, CpuSet::bytes(), set.get());
  if (sched_setaffinity(0, CpuSet::bytes(), set.get()) != 0) {
    binding = {.cores = cores.mine,
               .text = absl::StrCat(
                   "as launched (the kernel refused another: ", std::strerror(errno), ")")};
  }
  return binding;
}

}  // namespace lockstep::trainer
