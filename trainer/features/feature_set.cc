#include "trainer/features/feature_set.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "trainer/checkpoint/file_operations.h"
#include "trainer/checkpoint/safetensors.h"

namespace lockstep::trainer {
namespace {

// Of a tensor whose bytes are not looked at: only how many there are.
TensorBytes Sized(const char* name, const char* dtype, std::vector<int64_t> shape) {
  size_t bytes = ElementBytes(dtype);
  for (const int64_t size : shape) bytes *= static_cast<size_t>(size);
  return {name, dtype, std::move(shape), {static_cast<const std::byte*>(nullptr), bytes}};
}

// In file order: larger elements first.
std::vector<TensorBytes> TensorsOf(const FeatureShape& shape) {
  return {shape.targets > 0 ? Sized("targets", "F32", {shape.samples, shape.targets})
                            : Sized("labels", "I64", {shape.samples}),
          Sized("features", "F32", {shape.views, shape.samples, shape.width})};
}

absl::StatusOr<std::span<std::byte>> Map(const std::filesystem::path& path, bool write) {
  const int descriptor = open(path.c_str(), (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  if (descriptor < 0) return FileError(errno, "open", path);
  const absl::Cleanup close_it = [&] { close(descriptor); };
  struct stat status {};
  if (fstat(descriptor, &status) != 0) return FileError(errno, "fstat", path);
  const auto bytes = static_cast<size_t>(status.st_size);
  if (bytes == 0) return absl::DataLossError(absl::StrCat(path.string(), ": is empty"));
  void* map =
      mmap(nullptr, bytes, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, descriptor, 0);
  if (map == MAP_FAILED) return FileError(errno, "mmap", path);
  return std::span(static_cast<std::byte*>(map), bytes);
}

class FeatureSet final : public Dataset {
 public:
  FeatureSet(const Dataset& pictures, std::span<const std::byte> map)
      : pictures_(pictures), map_(map) {}
  FeatureSet(const FeatureSet&) = delete;
  FeatureSet& operator=(const FeatureSet&) = delete;
  ~FeatureSet() override { munmap(const_cast<std::byte*>(map_.data()), map_.size()); }

  // Takes the tensors out of the file; says what does not fit.
  absl::Status Parse() {
    const auto view = ParseSafetensors(map_);
    if (!view.ok()) return view.status();
    for (const TensorBytes& t : view->tensors) {
      const bool features = t.name == "features" && t.dtype == "F32" && t.shape.size() == 3;
      if (features && t.shape[1] == size() && t.shape[0] > 0) {
        views_ = t.shape[0];
        width_ = t.shape[2];
        features_ = reinterpret_cast<const float*>(t.bytes.data());
      } else if (t.name == "labels" && t.dtype == "I64" && t.shape == std::vector{size()}) {
        labels_ = reinterpret_cast<const int64_t*>(t.bytes.data());
      } else if (t.name == "targets" && t.dtype == "F32" &&
                 t.shape == std::vector{size(), static_cast<int64_t>(targets().size())}) {
        targets_ = reinterpret_cast<const float*>(t.bytes.data());
      }
    }
    const bool answers = targets().empty() ? labels_ != nullptr : targets_ != nullptr;
    if (features_ != nullptr && width_ > 0 && answers) return absl::OkStatus();
    return absl::InvalidArgumentError("these are not the features of this data set");
  }

  int64_t size() const override { return pictures_.size(); }
  int width() const override { return pictures_.width(); }
  int height() const override { return pictures_.height(); }
  int channels() const override { return pictures_.channels(); }
  const std::vector<std::string>& classes() const override { return pictures_.classes(); }
  const std::vector<Target>& targets() const override { return pictures_.targets(); }
  std::vector<int64_t> ClassCounts() const override { return pictures_.ClassCounts(); }
  std::string NameOf(int64_t index) const override { return pictures_.NameOf(index % size()); }
  std::string Fingerprint() const override { return pictures_.Fingerprint(); }
  const Preprocessing& preprocessing() const override { return pictures_.preprocessing(); }
  std::string Describe() const override {
    return absl::StrCat("cached features of ", pictures_.Describe());
  }
  int64_t features() const override { return width_; }
  int64_t views() const override { return views_; }

  void Read(int64_t index, Sample& sample) const override {
    if (index < 0 || index >= size() * views_) {
      throw DataError(absl::StrCat("cached features: sample ", index, " of ", size() * views_));
    }
    const float* row = features_ + index * width_;
    sample.features.assign(row, row + width_);
    const int64_t own = index % size();
    if (labels_ != nullptr) sample.label = labels_[own];
    if (targets_ == nullptr) return;
    const auto count = static_cast<int64_t>(targets().size());
    sample.targets.assign(targets_ + own * count, targets_ + (own + 1) * count);
  }

 private:
  const Dataset& pictures_;
  const std::span<const std::byte> map_;
  int64_t views_ = 1;
  int64_t width_ = 0;
  const float* features_ = nullptr;  // [views, size, width]
  const int64_t* labels_ = nullptr;
  const float* targets_ = nullptr;
};

}  // namespace

absl::Status FeatureFile::Create(const std::filesystem::path& path, const FeatureShape& shape) {
  const std::vector<TensorBytes> tensors = TensorsOf(shape);
  const std::string header = SafetensorsHeader(tensors, {});
  const size_t bytes = header.size() + tensors[0].bytes.size() + tensors[1].bytes.size();
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (descriptor < 0) return FileError(errno, "open", path);
  const absl::Cleanup close_it = [&] { close(descriptor); };
  // Writing through a map into a file without its blocks would end in SIGBUS on a full disk.
  if (const int error = posix_fallocate(descriptor, 0, static_cast<off_t>(bytes)); error != 0) {
    return FileError(error, "posix_fallocate", path);
  }
  if (pwrite(descriptor, header.data(), header.size(), 0) != static_cast<ssize_t>(header.size())) {
    return FileError(errno, "pwrite", path);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<FeatureFile>> FeatureFile::Open(const std::filesystem::path& path,
                                                               const FeatureShape& shape) {
  const auto map = Map(path, /*write=*/true);
  if (!map.ok()) return map.status();
  auto file = std::unique_ptr<FeatureFile>(new FeatureFile(shape, map->data(), map->size()));
  const std::vector<TensorBytes> tensors = TensorsOf(shape);
  const size_t header = SafetensorsHeader(tensors, {}).size();
  if (map->size() != header + tensors[0].bytes.size() + tensors[1].bytes.size()) {
    return absl::DataLossError(absl::StrCat(path.string(), ": has ", map->size(), " bytes"));
  }
  file->targets_at_ = header;
  file->features_at_ = header + tensors[0].bytes.size();
  return file;
}

FeatureFile::FeatureFile(const FeatureShape& shape, std::byte* map, size_t bytes)
    : shape_(shape), map_(map), bytes_(bytes) {}

FeatureFile::~FeatureFile() {
  munmap(map_, bytes_);
}

float* FeatureFile::Features(int64_t view, int64_t sample) {
  return reinterpret_cast<float*>(map_ + features_at_) +
         (view * shape_.samples + sample) * shape_.width;
}

int64_t* FeatureFile::Label(int64_t sample) {
  return reinterpret_cast<int64_t*>(map_ + targets_at_) + sample;
}

float* FeatureFile::Targets(int64_t sample) {
  return reinterpret_cast<float*>(map_ + targets_at_) + sample * shape_.targets;
}

absl::Status FeatureFile::Sync() {
  if (msync(map_, bytes_, MS_SYNC) == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("msync: ", std::strerror(errno)));
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenFeatureSet(const std::filesystem::path& path,
                                                        const Dataset& pictures) {
  const auto map = Map(path, /*write=*/false);
  if (!map.ok()) return map.status();
  auto set = std::make_unique<FeatureSet>(pictures, *map);
  if (auto parsed = set->Parse(); !parsed.ok()) {
    return absl::Status(parsed.code(), absl::StrCat(path.string(), ": ", parsed.message()));
  }
  return set;
}

}  // namespace lockstep::trainer
