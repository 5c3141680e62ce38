#include "trainer/data/scan.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "trainer/data/scan_memory.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kMostThreads = 32;

// Memory that a thread uses again and again.
struct Buffers {
  std::vector<std::byte> bytes;
  Picture picture;
};

// Calls `work` with every number in [0, count), from several threads. What it throws ends all of
// them and comes out here.
template <typename Work>
void ForEach(int64_t count, int threads, const Work& work) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;  // Guarded by mutex.
  const auto run = [&] {
    constexpr int64_t kChunk = 64;
    Buffers buffers;
    try {
      while (true) {
        const int64_t begin = next.fetch_add(kChunk);
        if (begin >= count) return;
        for (int64_t i = begin; i < std::min(count, begin + kChunk); ++i) work(i, buffers);
      }
    } catch (...) {
      const std::scoped_lock lock(mutex);
      failure = std::current_exception();
      next = count;
    }
  };
  {
    const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
    const int64_t wanted = std::clamp<int64_t>(threads > 0 ? threads : cores, 1, kMostThreads);
    std::vector<std::jthread> pool;
    for (int64_t i = 1; i < wanted; ++i) pool.emplace_back(run);
    run();
  }
  if (failure) std::rethrow_exception(failure);
}

PictureSize LookAt(const PictureListing& listing, const PictureItem& item, Buffers& buffers) {
  const std::string name = listing.NameOf(item);
  listing.Read(item, buffers.bytes);
  const PictureSize size = DecodeSize(buffers.bytes, name);
  Decode(buffers.bytes, name, {.least_width = 1, .least_height = 1, .part = {}}, buffers.picture);
  return size;
}

// The stamps of all items; of an archive once.
class Stamps {
 public:
  explicit Stamps(const PictureListing& listing) : listing_(listing) {
    if (!listing.archives) return;
    for (const std::string& place : listing.places) archives_.push_back(StampOf(place));
  }
  FileStamp Of(const PictureItem& item) const {
    return listing_.archives ? archives_[item.place] : StampOf(listing_.NameOf(item));
  }

 private:
  const PictureListing& listing_;
  std::vector<FileStamp> archives_;
};

// What several threads find wrong.
class Problems {
 public:
  explicit Problems(const PictureListing& listing) : listing_(listing) {}
  void Add(int64_t index, const DataError& error) {
    std::string text = error.what();
    if (!listing_.table.empty()) {
      const PictureItem& item = listing_.items[static_cast<size_t>(index)];
      text = listing_.table + ":" + std::to_string(item.position) + ": " + text;
    }
    const std::scoped_lock lock(mutex_);
    problems_.emplace(index, std::move(text));
  }
  /// Once the threads are gone.
  std::map<int64_t, std::string> Take() && { return std::move(problems_); }

 private:
  const PictureListing& listing_;
  std::mutex mutex_;
  std::map<int64_t, std::string> problems_;  // Guarded by mutex_.
};

bool WorthRemembering(const PictureListing& listing, const std::vector<FileStamp>& stamps,
                      const ScanOptions& options) {
  if (options.memory_folder.empty()) return false;
  int64_t bytes = 0;
  for (size_t i = 0; i < stamps.size(); ++i) {
    bytes += listing.archives ? listing.items[i].bytes : stamps[i].bytes;
  }
  return listing.size() >= options.memory_from_pictures || bytes >= options.memory_from_bytes;
}

}  // namespace

ScanResult ScanPictures(const PictureListing& listing, const ScanOptions& options) {
  ScanResult result;
  const int64_t count = listing.size();
  result.sizes.resize(static_cast<size_t>(count));
  result.stamps.resize(static_cast<size_t>(count));
  Problems problems(listing);
  const Stamps stamps(listing);
  std::vector<uint8_t> found(static_cast<size_t>(count), 0);
  ForEach(count, options.threads, [&](int64_t index, Buffers&) {
    const auto i = static_cast<size_t>(index);
    try {
      result.stamps[i] = stamps.Of(listing.items[i]);
      found[i] = 1;
    } catch (const DataError& error) {
      problems.Add(index, error);
    }
  });
  std::unique_ptr<ScanMemory> memory;
  if (WorthRemembering(listing, result.stamps, options)) {
    memory = std::make_unique<ScanMemory>(options.memory_folder, listing.root);
  }
  std::vector<ScanMemory::Entry> good(memory ? static_cast<size_t>(count) : 0);
  std::atomic<int64_t> remembered{0};
  ForEach(count, options.threads, [&](int64_t index, Buffers& buffers) {
    const auto i = static_cast<size_t>(index);
    if (found[i] == 0) return;
    const PictureItem& item = listing.items[i];
    ScanMemory::Entry entry;
    if (memory) {
      entry.key = ScanMemory::KeyOf(listing.NameOf(item), result.stamps[i], item.position);
      if (const ScanMemory::Entry* known = memory->Find(entry.key)) {
        result.sizes[i] = known->size;
        good[i] = *known;
        ++remembered;
        return;
      }
    }
    try {
      result.sizes[i] = entry.size = LookAt(listing, item, buffers);
      if (memory) good[i] = entry;
    } catch (const DataError& error) {
      problems.Add(index, error);
    }
  });
  result.problems = std::move(problems).Take();
  result.remembered = remembered;
  if (memory && result.remembered < count) memory->Save(good);
  return result;
}

}  // namespace lockstep::trainer
