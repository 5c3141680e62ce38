#include "trainer/data/scan_memory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

#include "trainer/data/dataset.h"
#include "trainer/pictures/fingerprint.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "lockstep scan 1\n";
constexpr size_t kMostEntries = size_t{1} << 22;  // 96 MiB.
static_assert(sizeof(ScanMemory::Entry) == 24);

// Empty where there is no sound file.
std::vector<ScanMemory::Entry> Load(const std::string& path) {
  std::vector<std::byte> bytes;
  try {
    const InputFile file(path);
    if (file.size() > static_cast<int64_t>(64 + kMostEntries * sizeof(ScanMemory::Entry)))
      return {};
    file.Read(0, file.size(), bytes);
  } catch (const DataError&) {
    return {};
  }
  constexpr size_t kFrame = kMagic.size() + sizeof(uint64_t);
  if (bytes.size() < kFrame || (bytes.size() - kFrame) % sizeof(ScanMemory::Entry) != 0) return {};
  uint64_t checksum = 0;
  std::memcpy(&checksum, bytes.data() + bytes.size() - sizeof checksum, sizeof checksum);
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0 ||
      checksum != XXH3_64bits(bytes.data(), bytes.size() - sizeof checksum)) {
    return {};
  }
  std::vector<ScanMemory::Entry> entries((bytes.size() - kFrame) / sizeof(ScanMemory::Entry));
  if (!entries.empty()) {
    std::memcpy(entries.data(), bytes.data() + kMagic.size(), bytes.size() - kFrame);
  }
  return entries;
}

bool ByKey(const ScanMemory::Entry& a, const ScanMemory::Entry& b) {
  return a.key < b.key;
}

}  // namespace

ScanMemory::Key ScanMemory::KeyOf(const std::string& name, const FileStamp& stamp,
                                  int64_t position) {
  const int64_t numbers[] = {stamp.bytes, stamp.changed_ns, stamp.noted_ns, position};
  const XXH128_hash_t first = XXH3_128bits(name.data(), name.size());
  const XXH128_hash_t hash = XXH3_128bits_withSeed(numbers, sizeof numbers, first.low64);
  return {hash.low64, hash.high64 ^ first.high64};
}

ScanMemory::ScanMemory(const std::string& folder, const std::string& root) {
  Fingerprint name;
  name.Add(root);
  const fs::path scans = fs::path(folder) / "scans";
  std::error_code error;
  fs::create_directories(scans, error);
  path_ = (scans / (name.Hex() + ".scan")).string();
  lock_ = ::open((path_ + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (lock_ < 0) return;  // Then nothing is remembered.
  while (::flock(lock_, LOCK_EX) != 0) {
    if (errno == EINTR) continue;
    ::close(lock_);
    lock_ = -1;
    return;
  }
  entries_ = Load(path_);
}

ScanMemory::~ScanMemory() {
  if (lock_ >= 0) ::close(lock_);  // Gives the lock back.
}

const ScanMemory::Entry* ScanMemory::Find(const Key& key) const {
  const auto found = std::lower_bound(entries_.begin(), entries_.end(), Entry{key, {}}, ByKey);
  return found != entries_.end() && found->key == key ? &*found : nullptr;
}

void ScanMemory::Save(const std::vector<Entry>& entries) const {
  if (lock_ < 0) return;
  std::vector<Entry> all;
  for (const Entry& entry : entries) {
    if (entry.size.width > 0) all.push_back(entry);
  }
  if (all.size() > kMostEntries) return;
  if (all.size() + entries_.size() <= kMostEntries) {
    all.insert(all.end(), entries_.begin(), entries_.end());
  }
  std::sort(all.begin(), all.end(), ByKey);
  all.erase(std::unique(all.begin(), all.end(),
                        [](const Entry& a, const Entry& b) { return a.key == b.key; }),
            all.end());
  std::string bytes(kMagic);
  bytes.append(reinterpret_cast<const char*>(all.data()), all.size() * sizeof(Entry));
  const uint64_t checksum = XXH3_64bits(bytes.data(), bytes.size());
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  // Only the holder of the lock writes, so the name of the new file is its own. The checksum stands
  // in for a sync: a file that a crash left half written is not used.
  const std::string fresh = path_ + ".new";
  {
    std::ofstream file(fresh, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) {
      std::remove(fresh.c_str());
      return;
    }
  }
  if (std::rename(fresh.c_str(), path_.c_str()) != 0) std::remove(fresh.c_str());
}

}  // namespace lockstep::trainer
