#include "trainer/pictures/picture_reader.h"

#include <atomic>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "trainer/pictures/cache_folder.h"
#include "trainer/pictures/disk_cache.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kAutoBytes = int64_t{512} << 20;

// Decoded pictures, each written once by whichever thread read it first. Threads: any.
class MemoryCache {
 public:
  /// Takes no more once it has `most_bytes`.
  MemoryCache(int64_t pictures, int64_t most_bytes)
      : most_bytes_(most_bytes), slots_(static_cast<size_t>(pictures)) {}
  MemoryCache(const MemoryCache&) = delete;
  MemoryCache& operator=(const MemoryCache&) = delete;
  ~MemoryCache() {
    for (const std::atomic<const Picture*>& slot : slots_) delete slot.load();
  }

  bool full() const { return bytes_.load(std::memory_order_relaxed) >= most_bytes_; }
  bool Find(int64_t index, Picture& picture) const {
    const Picture* found = slots_[static_cast<size_t>(index)].load(std::memory_order_acquire);
    if (found == nullptr) return false;
    picture = *found;  // Reuses the memory of picture.pixels.
    return true;
  }
  void Add(int64_t index, const Picture& picture) {
    const auto bytes = static_cast<int64_t>(picture.pixels.size());
    if (full()) return;
    bytes_ += bytes;
    auto made = std::make_unique<const Picture>(picture);
    const Picture* expected = nullptr;
    if (slots_[static_cast<size_t>(index)].compare_exchange_strong(expected, made.get(),
                                                                   std::memory_order_acq_rel)) {
      static_cast<void>(made.release());
    } else {
      bytes_ -= bytes;
    }
  }

 private:
  const int64_t most_bytes_;
  std::atomic<int64_t> bytes_ = 0;
  std::vector<std::atomic<const Picture*>> slots_;
};

// What is kept of one kind of pictures, and the one way to them.
class Kept {
 public:
  Kept(int64_t count, config::PictureCacheKind kind, int64_t most_bytes, std::string folder,
       std::string what)
      : folder_(std::move(folder)),
        what_(std::move(what)),
        memory_(most_bytes > 0 ? std::make_unique<MemoryCache>(count, most_bytes) : nullptr),
        on_disk_(kind == config::PictureCacheKind::kDisk) {}

  MemoryCache* memory() const { return memory_.get(); }
  /// Null: not on disk. The file is made when it is needed first.
  DiskCache* disk() {
    if (on_disk_) {
      std::call_once(once_, [&] { disk_ = std::make_unique<DiskCache>(folder_, what_); });
    }
    return disk_.get();
  }

 private:
  const std::string folder_;
  const std::string what_;
  const std::unique_ptr<MemoryCache> memory_;
  const bool on_disk_;
  std::once_flag once_;
  std::unique_ptr<DiskCache> disk_;
};

// `auto` keeps pictures where all of them fit; `memory` does not ask.
int64_t MemoryBytes(config::PictureCacheKind kind, int64_t all) {
  switch (kind) {
    case config::PictureCacheKind::kMemory:
      return std::numeric_limits<int64_t>::max();
    case config::PictureCacheKind::kAuto:
      return all < kAutoBytes ? kAutoBytes : 0;
    case config::PictureCacheKind::kDisk:
    case config::PictureCacheKind::kNever:
      break;
  }
  return 0;
}

int64_t BytesOfAll(int64_t count, const Preprocessing& p) {
  return count * p.height * p.width * p.channels;
}

}  // namespace

struct PictureReader::Impl {
  Impl(PictureSource from, Preprocessing how, config::PictureCacheKind kind,
       const std::string& folder)
      : source(std::move(from)),
        preprocessing(std::move(how)),
        prepared(source.count, kind, MemoryBytes(kind, BytesOfAll(source.count, preprocessing)),
                 folder, "prepared " + Shape()),
        whole(source.count, kind, MemoryBytes(kind, BytesOfAll(source.count, preprocessing)),
              folder, "whole " + Shape()) {}

  // Of the preprocessing what changes bytes: another mean or channel order leaves them alone.
  std::string Shape() const {
    Preprocessing shape = preprocessing;
    shape.bgr = false;
    shape.mean.clear();
    shape.std.clear();
    return shape.ToJson();
  }

  // `make` decodes bytes into a picture; `partly` = not all of it need be there.
  template <typename Make>
  void Read(Kept& kept, int64_t index, bool partly, Picture& picture, const Make& make) const {
    MemoryCache* memory = kept.memory();
    if (memory != nullptr && memory->Find(index, picture)) return;
    DiskCache* disk = kept.disk();
    DiskCache::Key stamp{};
    if (disk != nullptr) {
      stamp = DiskCache::KeyOf(source.stamp(index));
      if (disk->FindStamp(stamp, picture)) return;
    }
    thread_local std::vector<std::byte> bytes;  // Hundreds of kilobytes: not anew for each picture.
    source.read(index, bytes);
    if (disk != nullptr) {
      const DiskCache::Key content = DiskCache::KeyOf(bytes.data(), bytes.size());
      if (disk->FindContent(content, stamp, picture)) return;
      make(bytes, /*all=*/true);
      disk->Add(content, stamp, picture);
      return;
    }
    // What is kept must be whole: the next epoch looks at another part.
    const bool keep = memory != nullptr && !memory->full();
    make(bytes, /*all=*/keep || !partly);
    if (keep) memory->Add(index, picture);
  }

  const PictureSource source;
  const Preprocessing preprocessing;
  mutable Kept prepared;
  mutable Kept whole;
};

PictureReader::PictureReader(PictureSource source, Preprocessing preprocessing,
                             config::PictureCacheKind cache, const std::string& cache_folder)
    : impl_(std::make_unique<Impl>(std::move(source), std::move(preprocessing), cache,
                                   CacheFolder(cache_folder))) {}

PictureReader::~PictureReader() = default;

const Preprocessing& PictureReader::preprocessing() const {
  return impl_->preprocessing;
}

void PictureReader::Read(int64_t index, Picture& picture) const {
  impl_->Read(impl_->prepared, index, /*partly=*/false, picture,
              [&](const std::vector<std::byte>& bytes, bool) {
                Prepare(bytes, impl_->source.name(index), impl_->preprocessing, picture);
              });
}

void PictureReader::ReadWhole(int64_t index, const PartOf& part, Picture& picture) const {
  impl_->Read(impl_->whole, index, /*partly=*/true, picture,
              [&](const std::vector<std::byte>& bytes, bool all) {
                PrepareWhole(bytes, impl_->source.name(index), impl_->preprocessing,
                             all ? PartOf() : part, picture);
              });
}

std::string PictureReader::Describe() const {
  if (impl_->prepared.memory() != nullptr) return "decoded pictures kept in memory";
  const DiskCache* disk = impl_->prepared.disk();
  if (disk == nullptr) return "";
  const std::string problem = disk->Problem();
  if (problem.empty()) return "decoded pictures kept in " + disk->path();
  return "no more decoded pictures are kept in " + disk->path() + ": " + problem;
}

}  // namespace lockstep::trainer
