#include "trainer/pictures/disk_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "trainer/pictures/decode.h"
#include "trainer/pictures/fingerprint.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little);

constexpr std::array<char, 32> kMagic = {"lockstep pictures 1\n"};
constexpr std::array<char, 4> kRecordMagic = {'L', 'P', 'I', 'C'};

bool ReadAll(int file, void* to, size_t count, int64_t offset) {
  auto* bytes = static_cast<std::byte*>(to);
  while (count > 0) {
    const ssize_t got = ::pread(file, bytes, count, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    bytes += got;
    offset += got;
    count -= static_cast<size_t>(got);
  }
  return true;
}

// False with errno.
bool WriteAll(int file, const void* from, size_t count, int64_t offset) {
  const auto* bytes = static_cast<const std::byte*>(from);
  while (count > 0) {
    const ssize_t put = ::pwrite(file, bytes, count, offset);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    bytes += put;
    offset += put;
    count -= static_cast<size_t>(put);
  }
  return true;
}

int64_t SizeOf(int file) {
  struct stat status {};
  return ::fstat(file, &status) == 0 ? static_cast<int64_t>(status.st_size) : 0;
}

// What a file takes without asking how much is free.
constexpr int64_t kSmall = int64_t{64} << 20;

// Checkpoints need room, too: a twentieth of the file system, of a large one 5 GiB.
bool NearlyFull(int file, std::optional<int64_t> keep_free) {
  constexpr uint64_t kRoom = uint64_t{5} << 30;
  struct statvfs status {};
  if (::fstatvfs(file, &status) != 0) return false;
  const uint64_t free = uint64_t{status.f_bavail} * status.f_frsize;
  const uint64_t all = uint64_t{status.f_blocks} * status.f_frsize;
  return free < (keep_free ? static_cast<uint64_t>(*keep_free) : std::min(all / 20, kRoom));
}

}  // namespace

struct DiskCache::Header {
  std::array<char, 4> magic = kRecordMagic;
  uint32_t channels = 0;
  uint32_t width = 0;
  uint32_t height = 0;
  Key content{};
  Key stamp{};
  uint64_t pixels_checksum = 0;
  uint64_t checksum = 0;

  uint64_t OwnChecksum() const { return XXH3_64bits(this, offsetof(Header, checksum)); }
  bool sound() const {
    return magic == kRecordMagic && checksum == OwnChecksum() &&
           (channels == 0 ||
            (channels <= 4 && width > 0 && height > 0 && int64_t{width} * height <= kMaxPixels));
  }
  int64_t pixel_bytes() const { return int64_t{channels} * width * height; }
};

// Alone among all processes.
class DiskCache::Lock {
 public:
  explicit Lock(int file) : file_(file) {
    while (::flock(file_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  ~Lock() { ::flock(file_, LOCK_UN); }

 private:
  int file_;
};

DiskCache::Key DiskCache::KeyOf(const void* bytes, size_t count) {
  const XXH128_hash_t hash = XXH3_128bits(bytes, count);
  return {hash.low64, hash.high64};
}

DiskCache::DiskCache(const std::string& folder, const std::string& what,
                     std::optional<int64_t> keep_free)
    : keep_free_(keep_free) {
  static_assert(sizeof(Header) == 64);
  Fingerprint name;
  name.Add(what);
  const fs::path pictures = fs::path(folder) / "pictures";
  path_ = (pictures / (name.Hex() + ".pictures")).string();
  if (folder.empty()) {
    GiveUp("neither data.cache_folder nor HOME says where it should be");
    return;
  }
  std::error_code error;
  fs::create_directories(pictures, error);
  Open();
}

DiskCache::~DiskCache() {
  if (file_ >= 0) ::close(file_);
}

void DiskCache::Open() {
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
  if (file_ < 0) return GiveUp(std::strerror(errno));
  const Lock lock(file_);
  Begin();
}

// Under the file's lock.
void DiskCache::Begin() {
  by_content_.clear();
  by_stamp_.clear();
  end_ = static_cast<int64_t>(kMagic.size());
  std::array<char, kMagic.size()> begin{};
  if (!ReadAll(file_, begin.data(), begin.size(), 0) || begin != kMagic) {
    // New, or not ours.
    if (::ftruncate(file_, 0) != 0 || !WriteAll(file_, kMagic.data(), kMagic.size(), 0)) {
      return GiveUp(std::strerror(errno));
    }
  }
  ReadNewRecords();
}

// Up to the first record that is not all there.
void DiskCache::ReadNewRecords() {
  if (file_ < 0) return;
  const int64_t size = SizeOf(file_);
  Header header;
  while (end_ + static_cast<int64_t>(sizeof header) <= size &&
         ReadAll(file_, &header, sizeof header, end_) && header.sound()) {
    const int64_t next = end_ + static_cast<int64_t>(sizeof header) + header.pixel_bytes();
    if (next > size) return;
    if (header.channels > 0) by_content_[header.content] = end_;
    by_stamp_[header.stamp] = header.content;
    end_ = next;
  }
}

bool DiskCache::Load(int64_t offset, Picture& picture) const {
  Header header;
  if (!ReadAll(file_, &header, sizeof header, offset) || !header.sound()) return false;
  picture.channels = static_cast<int>(header.channels);
  picture.width = static_cast<int>(header.width);
  picture.height = static_cast<int>(header.height);
  const auto bytes = static_cast<size_t>(header.pixel_bytes());
  picture.pixels.resize(bytes);
  return ReadAll(file_, picture.pixels.data(), bytes,
                 offset + static_cast<int64_t>(sizeof header)) &&
         XXH3_64bits(picture.pixels.data(), bytes) == header.pixels_checksum;
}

bool DiskCache::FindStamp(const Key& stamp, Picture& picture) {
  int64_t offset = 0;
  {
    const std::scoped_lock lock(mutex_);
    auto found = by_stamp_.find(stamp);
    if (found == by_stamp_.end()) {
      ReadNewRecords();
      found = by_stamp_.find(stamp);
      if (found == by_stamp_.end()) return false;
    }
    const auto record = by_content_.find(found->second);
    if (record == by_content_.end()) return false;
    offset = record->second;
  }
  if (Load(offset, picture)) return true;
  const std::scoped_lock lock(mutex_);
  const auto found = by_stamp_.find(stamp);
  if (found == by_stamp_.end()) return false;
  const auto record = by_content_.find(found->second);
  // Damaged: to be made anew, unless somebody has.
  if (record != by_content_.end() && record->second == offset) by_content_.erase(record);
  return false;
}

bool DiskCache::FindContent(const Key& content, const Key& stamp, Picture& picture) {
  int64_t offset = 0;
  {
    const std::scoped_lock lock(mutex_);
    const auto record = by_content_.find(content);
    if (record == by_content_.end()) return false;
    offset = record->second;
  }
  const bool sound = Load(offset, picture);
  const std::scoped_lock lock(mutex_);
  if (sound) {
    Header alias;
    alias.content = content;
    alias.stamp = stamp;
    Append(alias, nullptr);
    return true;
  }
  const auto record = by_content_.find(content);
  if (record != by_content_.end() && record->second == offset) by_content_.erase(record);
  return false;
}

void DiskCache::Add(const Key& content, const Key& stamp, const Picture& picture) {
  Header header;
  header.channels = static_cast<uint32_t>(picture.channels);
  header.width = static_cast<uint32_t>(picture.width);
  header.height = static_cast<uint32_t>(picture.height);
  header.content = content;
  header.stamp = stamp;
  header.pixels_checksum = XXH3_64bits(picture.pixels.data(), picture.pixels.size());
  const std::scoped_lock lock(mutex_);
  Append(header, &picture);
}

// Under mutex_. Null: an alias.
void DiskCache::Append(const Header& from, const Picture* picture) {
  if (file_ < 0 || !problem_.empty()) return;
  const Lock lock(file_);
  if (SizeOf(file_) < end_) Begin();  // Somebody has cut it.
  ReadNewRecords();
  const bool known = by_content_.contains(from.content);
  if (known && by_stamp_.contains(from.stamp) && by_stamp_[from.stamp] == from.content) return;
  if (end_ >= kSmall && NearlyFull(file_, keep_free_)) return GiveUp("the disk is nearly full");
  Header header = from;
  if (known) {  // Another process was faster, or another file has the same content.
    header.channels = header.width = header.height = 0;
    header.pixels_checksum = 0;
  } else if (picture == nullptr) {
    return;
  }
  header.checksum = header.OwnChecksum();
  // What a writer that died left: nobody writes now, so it stays as it is.
  const bool cut = SizeOf(file_) <= end_ || ::ftruncate(file_, end_) == 0;
  const int64_t pixels_at = end_ + static_cast<int64_t>(sizeof header);
  if (!cut || !WriteAll(file_, &header, sizeof header, end_) ||
      (header.channels > 0 &&
       !WriteAll(file_, picture->pixels.data(), picture->pixels.size(), pixels_at))) {
    const int error = errno;
    // Where this fails, too, the next one who appends does it.
    if (::ftruncate(file_, end_) != 0) errno = error;
    return GiveUp(std::strerror(error));
  }
  ReadNewRecords();
}

// Under mutex_, or before there are threads.
void DiskCache::GiveUp(const std::string& reason) {
  if (problem_.empty()) problem_ = reason;
}

std::string DiskCache::Problem() const {
  const std::scoped_lock lock(mutex_);
  return problem_;
}

}  // namespace lockstep::trainer
