#include "trainer/data/image_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "trainer/data/decode.h"
#include "trainer/data/image_listing.h"
#include "trainer/data/resize.h"

namespace lockstep::trainer {
namespace {

constexpr size_t kNamedPictures = 20;                // Bad pictures named in one message.
constexpr size_t kMaxFileBytes = size_t{256} << 20;  // No picture is larger.

// An open file of a known size.
class File {
 public:
  explicit File(const std::string& path) : path_(path) {
    // Without O_NONBLOCK a pipe with a picture's name would block for ever.
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) throw DataError(path + ": cannot open: " + std::strerror(errno));
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(descriptor_);
      throw DataError(path + ": not a regular file");
    }
    size_ = static_cast<size_t>(status.st_size);
    if (size_ > kMaxFileBytes) {
      ::close(descriptor_);
      throw DataError(path + ": " + std::to_string(size_) + " bytes; refused above " +
                      std::to_string(kMaxFileBytes));
    }
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(descriptor_); }

  size_t size() const { return size_; }

  /// The `count` bytes from `offset` on, fewer where the file was cut since.
  void Read(size_t offset, size_t count, std::vector<std::byte>& bytes) const {
    bytes.resize(count);
    size_t done = 0;
    while (done < count) {
      const ssize_t got = ::pread(descriptor_, bytes.data() + done, count - done,
                                  static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw DataError(path_ + ": cannot read: " + std::strerror(errno));
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    bytes.resize(done);
  }

 private:
  const std::string& path_;
  int descriptor_ = -1;
  size_t size_ = 0;
};

// A picture's size, from its header. Most encoders' headers end within the first few kilobytes. A
// file that does not end like a picture is decoded as a whole: it is truncated, or has something
// harmless after its end.
PictureSize Inspect(const std::string& path) {
  constexpr size_t kHead = 16 << 10;
  constexpr size_t kTail = 12;
  const File file(path);
  std::vector<std::byte> head;
  file.Read(0, std::min(file.size(), kHead), head);
  PictureSize size;
  try {
    size = DecodeSize(head, path);
  } catch (const DataError&) {
    if (file.size() <= kHead) throw;
    file.Read(0, file.size(), head);
    size = DecodeSize(head, path);
  }
  std::vector<std::byte> tail;
  file.Read(file.size() - std::min(file.size(), kTail), std::min(file.size(), kTail), tail);
  constexpr unsigned char kPngEnd[kTail + 1] = "\0\0\0\0IEND\xAE\x42\x60\x82";
  constexpr unsigned char kJpegEnd[] = {0xFF, 0xD9};
  const bool complete =
      tail.size() == kTail && (std::memcmp(tail.data(), kPngEnd, kTail) == 0 ||
                               std::memcmp(tail.data() + kTail - 2, kJpegEnd, 2) == 0);
  if (!complete) {
    file.Read(0, file.size(), head);
    Decode(head, path);
  }
  return size;
}

// Decoded pictures, each written once by whichever thread read it first.
class PictureCache {
 public:
  PictureCache(int64_t pictures, size_t picture_bytes)
      : picture_bytes_(picture_bytes),
        // Not touched here, so memory is only taken as pictures come in.
        pixels_(std::make_unique_for_overwrite<uint8_t[]>(static_cast<size_t>(pictures) *
                                                          picture_bytes)),
        states_(std::make_unique<std::atomic<uint8_t>[]>(static_cast<size_t>(pictures))) {}

  const uint8_t* Find(int64_t index) const {
    const auto i = static_cast<size_t>(index);
    return states_[i].load(std::memory_order_acquire) == kReady ? &pixels_[i * picture_bytes_]
                                                                : nullptr;
  }
  void Add(int64_t index, const std::vector<uint8_t>& pixels) {
    const auto i = static_cast<size_t>(index);
    uint8_t expected = kEmpty;
    if (!states_[i].compare_exchange_strong(expected, kWriting)) return;
    std::memcpy(&pixels_[i * picture_bytes_], pixels.data(), picture_bytes_);
    states_[i].store(kReady, std::memory_order_release);
  }

 private:
  static constexpr uint8_t kEmpty = 0, kWriting = 1, kReady = 2;
  const size_t picture_bytes_;
  const std::unique_ptr<uint8_t[]> pixels_;
  const std::unique_ptr<std::atomic<uint8_t>[]> states_;
};

class ImageFolder final : public Dataset {
 public:
  explicit ImageFolder(const ImageFolderOptions& options)
      : image_size_(options.image_size), listing_(ListImages(options.path, options.split)) {
    const std::vector<PictureSize> sizes = InspectAll(options.threads);
    size_ = image_size_ > 0 ? PictureSize{image_size_, image_size_} : CommonSize(sizes);
    const int64_t decoded_bytes = size() * static_cast<int64_t>(picture_bytes());
    if (decoded_bytes < options.cache_bytes) {
      cache_ = std::make_unique<PictureCache>(size(), picture_bytes());
    }
  }

  int64_t size() const override { return static_cast<int64_t>(listing_.pictures.size()); }
  int width() const override { return size_.width; }
  int height() const override { return size_.height; }
  int channels() const override { return 3; }
  const std::vector<std::string>& classes() const override { return listing_.classes; }

  void Read(int64_t index, Sample& sample) const override {
    if (index < 0 || index >= size()) {
      throw DataError(listing_.folder.string() + ": sample " + std::to_string(index) + " of " +
                      std::to_string(size()));
    }
    sample.label = listing_.pictures[static_cast<size_t>(index)].label;
    Picture& picture = sample.picture;
    const uint8_t* cached = cache_ ? cache_->Find(index) : nullptr;
    if (cached != nullptr) {
      picture.width = size_.width;
      picture.height = size_.height;
      picture.channels = 3;
      picture.pixels.assign(cached, cached + picture_bytes());
      return;
    }
    DecodeFile(listing_.PathOf(index), picture);
    if (cache_) cache_->Add(index, picture.pixels);
  }

  std::string Describe() const override {
    std::string text = "image_folder " + listing_.folder.string() + ": " + std::to_string(size()) +
                       " pictures, " + std::to_string(listing_.classes.size()) + " classes, " +
                       std::to_string(size_.width) + "x" + std::to_string(size_.height);
    if (listing_.other_files > 0) {
      text += ", " + std::to_string(listing_.other_files) + " other files left out";
    }
    return text + (cache_ ? ", decoded pictures kept in memory" : "");
  }

 private:
  size_t picture_bytes() const {
    return static_cast<size_t>(size_.width) * static_cast<size_t>(size_.height) * 3;
  }

  void DecodeFile(const std::string& path, Picture& picture) const {
    const File file(path);
    std::vector<std::byte> bytes;
    file.Read(0, file.size(), bytes);
    if (image_size_ == 0) {
      Decode(bytes, path, 0, picture);
    } else {
      Picture original;
      Decode(bytes, path, image_size_, original);
      if (PictureSize{original.width, original.height} == size_) {
        picture = std::move(original);
      } else {
        ResizeToSquare(original, image_size_, picture);
      }
    }
    if (picture.width != size_.width || picture.height != size_.height) {
      throw DataError(path + ": is now " + std::to_string(picture.width) + "x" +
                      std::to_string(picture.height) + " pixels; it was changed since the start");
    }
  }

  // Sizes of all pictures, in order. Throws with the bad ones, the first in order first.
  std::vector<PictureSize> InspectAll(int threads) const {
    std::vector<PictureSize> sizes(listing_.pictures.size());
    std::mutex mutex;
    std::map<int64_t, std::string> problems;  // Guarded by mutex; the first ones only.
    int64_t bad = 0;                          // Guarded by mutex.
    std::atomic<int64_t> next{0};
    const auto note = [&](int64_t index, std::string problem) {
      const std::scoped_lock lock(mutex);
      ++bad;
      problems.emplace(index, std::move(problem));
      if (problems.size() > kNamedPictures) problems.erase(std::prev(problems.end()));
    };
    const auto inspect = [&] {
      constexpr int64_t kChunk = 64;
      while (true) {
        const int64_t begin = next.fetch_add(kChunk);
        if (begin >= size()) return;
        for (int64_t i = begin; i < std::min(size(), begin + kChunk); ++i) {
          try {
            sizes[static_cast<size_t>(i)] = Inspect(listing_.PathOf(i));
          } catch (const DataError& error) {
            note(i, error.what());
          } catch (const std::exception& error) {  // Out of memory.
            note(i, listing_.PathOf(i) + ": " + error.what());
          }
        }
      }
    };
    {
      const int64_t wanted =
          threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency());
      std::vector<std::jthread> pool;
      for (int64_t i = 1; i < std::clamp<int64_t>(wanted, 1, 32); ++i) pool.emplace_back(inspect);
      inspect();
    }
    if (bad == 0) return sizes;
    std::string message = listing_.folder.string() + ": " + std::to_string(bad) + " of " +
                          std::to_string(size()) + " pictures cannot be used; repair or remove:";
    for (const auto& [index, problem] : problems) message += "\n  " + problem;
    if (bad > static_cast<int64_t>(problems.size())) {
      message += "\n  and " + std::to_string(bad - static_cast<int64_t>(problems.size())) + " more";
    }
    throw DataError(message);
  }

  // The one size that every picture of both splits should have: that of the first training picture.
  PictureSize CommonSize(const std::vector<PictureSize>& sizes) const {
    const std::string first = listing_.first_training_picture.string();
    const PictureSize expected = Inspect(first);
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] == expected) continue;
      throw DataError(listing_.PathOf(static_cast<int64_t>(i)) + ": " +
                      std::to_string(sizes[i].width) + "x" + std::to_string(sizes[i].height) +
                      " pixels, but " + first + " has " + std::to_string(expected.width) + "x" +
                      std::to_string(expected.height) +
                      "; set data.image_size to bring all pictures to one size");
    }
    return expected;
  }

  const int image_size_;
  const ImageListing listing_;
  PictureSize size_;
  std::unique_ptr<PictureCache> cache_;  // Thread-safe, filled by Read.
};

}  // namespace

std::unique_ptr<Dataset> OpenImageFolder(const ImageFolderOptions& options) {
  return std::make_unique<ImageFolder>(options);
}

}  // namespace lockstep::trainer
