#include "trainer/data/duplicates.h"

#include <sys/stat.h>
#include <xxhash.h>

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace lockstep::trainer {
namespace {

constexpr int64_t kMostPictures = 200'000;
constexpr int64_t kMostBytes = int64_t{64} << 20;

struct File {
  std::pair<uint64_t, uint64_t> identity;  // Device and inode: links lead to the same.
  int64_t bytes = 0;
};

std::optional<File> Find(const PictureListing& listing, const PictureItem& item) {
  struct stat status {};
  if (::stat(listing.NameOf(item).c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
  return File{{status.st_dev, status.st_ino}, status.st_size};
}

// Contents as hashes, each read once, until so many bytes were read.
class Contents {
 public:
  using Hash = std::pair<uint64_t, uint64_t>;
  std::optional<Hash> Of(const PictureListing& listing, const PictureItem& item, int64_t bytes) {
    if (bytes > left_) return {};
    left_ -= bytes;
    try {
      listing.Read(item, buffer_);
    } catch (const DataError&) {
      return {};
    }
    const XXH128_hash_t hash = XXH3_128bits(buffer_.data(), buffer_.size());
    return Hash{hash.low64, hash.high64};
  }

 private:
  int64_t left_ = kMostBytes;
  std::vector<std::byte> buffer_;
};

}  // namespace

void NoteDuplicates(const PictureListing& training, PictureListing& held_out) {
  if (training.size() + held_out.size() > kMostPictures) return;
  std::map<std::pair<uint64_t, uint64_t>, const PictureItem*> by_identity;
  std::map<int64_t, std::vector<const PictureItem*>> by_bytes;  // Those not read yet.
  std::map<Contents::Hash, const PictureItem*> by_content;
  for (const PictureItem& item : training.items) {
    const std::optional<File> file = Find(training, item);
    if (!file) continue;
    by_identity.emplace(file->identity, &item);
    by_bytes[file->bytes].push_back(&item);
  }
  Contents contents;
  int64_t found = 0;
  std::string example;
  const auto note = [&](const PictureItem& ours, const PictureItem& theirs) {
    if (++found == 1) example = held_out.NameOf(ours) + " is " + training.NameOf(theirs);
  };
  for (const PictureItem& item : held_out.items) {
    const std::optional<File> file = Find(held_out, item);
    if (!file) continue;
    const auto same = by_identity.find(file->identity);
    if (same != by_identity.end()) {
      note(item, *same->second);
      continue;
    }
    const auto alike = by_bytes.find(file->bytes);
    if (alike == by_bytes.end()) continue;
    for (const PictureItem* other : alike->second) {
      if (const auto hash = contents.Of(training, *other, file->bytes)) {
        by_content.emplace(*hash, other);
      }
    }
    alike->second.clear();
    const auto hash = contents.Of(held_out, item, file->bytes);
    const auto copy = hash ? by_content.find(*hash) : by_content.end();
    if (copy != by_content.end()) note(item, *copy->second);
  }
  if (found == 0) return;
  held_out.notes.push_back("warning: " + std::to_string(found) +
                           " of them are training pictures too, so measures come out too good (" +
                           example + ")");
}

}  // namespace lockstep::trainer
