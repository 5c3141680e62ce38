#include "launch/launcher/gang_temp.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "launch/launcher/process.h"

namespace lockstep::launch {
namespace {

constexpr absl::string_view kPrefix = "/tmp/lockstep-gang-";
constexpr absl::string_view kTemplate = "XXXXXX";

bool IsGangTempDir(absl::string_view path) {
  if (!absl::ConsumePrefix(&path, kPrefix) || path.size() != kTemplate.size()) return false;
  return std::all_of(path.begin(), path.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0; });
}

bool IsOurGangTempDir(const std::string& path) {
  struct stat info {};
  return IsGangTempDir(path) && lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode) &&
         info.st_uid == geteuid();
}

// Job ids in hexadecimal, as Open MPI writes them into /dev/shm: from "smdataseg-<job id>-0" in
// its session folder.
std::set<std::string> JobIds(const std::string& tmp_dir) {
  std::set<std::string> ids;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(tmp_dir, error), end;
       !error && entry != end; entry.increment(error)) {
    const std::vector<std::string> parts = absl::StrSplit(entry->path().filename().string(), '-');
    uint32_t id = 0;
    if (parts.size() == 3 && parts[0] == "smdataseg" && absl::SimpleAtoi(parts[1], &id)) {
      ids.insert(absl::StrCat(absl::Hex(id)));
    }
  }
  return ids;
}

// vader_segment.<host>.<user id>.<job id>.<rank>
void RemoveSharedMemory(const std::set<std::string>& job_ids) {
  std::error_code error;
  std::vector<std::filesystem::path> leftovers;
  for (std::filesystem::directory_iterator entry("/dev/shm", error), end; !error && entry != end;
       entry.increment(error)) {
    const std::vector<std::string> parts = absl::StrSplit(entry->path().filename().string(), '.');
    struct stat info {};
    if (parts.size() >= 5 && parts[0] == "vader_segment" &&
        job_ids.count(parts[parts.size() - 2]) > 0 && lstat(entry->path().c_str(), &info) == 0 &&
        info.st_uid == geteuid()) {
      leftovers.push_back(entry->path());
    }
  }
  for (const std::filesystem::path& path : leftovers) std::filesystem::remove(path, error);
}

}  // namespace

absl::StatusOr<std::string> MakeGangTempDir() {
  std::string path = absl::StrCat(kPrefix, kTemplate);
  if (mkdtemp(path.data()) == nullptr) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("making a temporary folder ", path, ": ", std::strerror(errno)));
  }
  return path;
}

void SetGangTempDirOwner(const std::string& tmp_dir, const Gang& gang) {
  std::ofstream(tmp_dir + "/owner") << gang.pid << ' ' << gang.start_time_ticks << ' ' << BootId();
}

void SweepGangTempDirs() {
  std::vector<std::string> dead;
  std::error_code error;
  for (std::filesystem::directory_iterator entry("/tmp", error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string path = entry->path().string();
    if (!IsOurGangTempDir(path)) continue;
    Gang gang;
    std::string boot;
    std::ifstream owner(path + "/owner");
    if (!(owner >> gang.pid >> gang.start_time_ticks >> boot)) continue;
    // A rank may outlive mpirun for a moment; its session tells.
    const bool gone = boot != BootId() || (!IsAlive(gang.pid, gang.start_time_ticks) &&
                                           SessionMembers(gang.pid).empty());
    if (gone) dead.push_back(path);
  }
  for (const std::string& path : dead) RemoveGangTempDir(path);
}

void RemoveGangTempDir(const std::string& tmp_dir) {
  if (!IsOurGangTempDir(tmp_dir)) return;
  RemoveSharedMemory(JobIds(tmp_dir));
  std::error_code error;
  std::filesystem::remove_all(tmp_dir, error);
}

}  // namespace lockstep::launch
