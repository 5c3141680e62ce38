#include "trainer/data/cifar.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "trainer/data/input_file.h"
#include "trainer/data/own_size.h"
#include "trainer/pictures/fingerprint.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

constexpr int kSide = 32;
constexpr size_t kPlane = size_t{kSide} * kSide;
constexpr size_t kPixels = 3 * kPlane;

// A whole file, read-only. Owns the mapping.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path, size_t expected_bytes) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) throw DataError(path + ": cannot open: " + std::strerror(errno));
    struct stat status {};
    if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(file);
      throw DataError(path + ": not a regular file");
    }
    if (static_cast<size_t>(status.st_size) != expected_bytes) {
      ::close(file);
      throw DataError(path + ": " + std::to_string(status.st_size) + " bytes long; expected " +
                      std::to_string(expected_bytes) +
                      "; the file is damaged or not the binary version of the data set");
    }
    void* memory = ::mmap(nullptr, expected_bytes, PROT_READ, MAP_SHARED, file, 0);
    const int error = errno;
    ::close(file);
    if (memory == MAP_FAILED) {
      throw DataError(path + ": cannot map into memory: " + std::strerror(error));
    }
    data_ = static_cast<const uint8_t*>(memory);
    size_ = expected_bytes;
  }
  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
  }
  const uint8_t* data() const { return data_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

struct Format {
  const char* name;
  const char* folder;  // In the archive.
  std::vector<std::string> files;
  size_t records_per_file;
  size_t label_bytes;
  int classes;
  const char* names_file;
};

Format FormatOf(const CifarOptions& options) {
  const bool train = options.split == Split::kTrain;
  if (options.hundred) {
    return {"CIFAR-100",
            "cifar-100-binary",
            {train ? "train.bin" : "test.bin"},
            train ? size_t{50000} : size_t{10000},
            2,
            100,
            "fine_label_names.txt"};
  }
  Format format{"CIFAR-10", "cifar-10-batches-bin", {}, 10000, 1, 10, "batches.meta.txt"};
  if (train) {
    for (int i = 1; i <= 5; ++i) format.files.push_back("data_batch_" + std::to_string(i) + ".bin");
  } else {
    format.files.emplace_back("test_batch.bin");
  }
  return format;
}

fs::path FindFolder(const fs::path& path, const Format& format) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    throw DataError(path.string() + ": no such folder; data.path must name the folder of " +
                    format.name + "'s .bin files, or the one it lies in");
  }
  for (const fs::path& folder : {path, path / format.folder}) {
    if (fs::exists(folder / format.files.front(), error)) return folder;
  }
  std::string hint;
  if (fs::exists(path / "data_batch_1", error) || fs::exists(path / "train", error)) {
    hint = "; these look like the Python version's files: get the binary version";
  }
  throw DataError(path.string() + ": holds neither " + format.files.front() + " nor " +
                  format.folder + "/" + format.files.front() + "; expected " + format.name +
                  "'s binary version" + hint);
}

// The names file's lines, or "0", "1", … where there is none or it does not name every class.
std::vector<std::string> ReadNames(const fs::path& path, int classes) {
  std::vector<std::string> names;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line) && names.size() <= static_cast<size_t>(classes)) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && line.size() <= 64) names.push_back(line);
  }
  if (names.size() != static_cast<size_t>(classes)) {
    names.clear();
    for (int i = 0; i < classes; ++i) names.push_back(std::to_string(i));
  }
  return names;
}

class Cifar final : public Dataset {
 public:
  explicit Cifar(const CifarOptions& options)
      : format_(FormatOf(options)),
        folder_(FindFolder(options.path, format_)),
        classes_(ReadNames(folder_ / format_.names_file, format_.classes)),
        preprocessing_(OwnSize(kSide)),
        split_(options.split) {
    for (const std::string& file : format_.files) {
      files_.emplace_back((folder_ / file).string(), format_.records_per_file * record_bytes());
      CountInputBytes(format_.records_per_file * record_bytes());
    }
    for (int64_t i = 0; i < size(); ++i) {
      if (Label(i) >= format_.classes) {
        const auto record = static_cast<size_t>(i);
        throw DataError((folder_ / format_.files[record / format_.records_per_file]).string() +
                        ": record " + std::to_string(record % format_.records_per_file) +
                        " has label " + std::to_string(Label(i)) + "; expected 0 to " +
                        std::to_string(format_.classes - 1) + "; the file is damaged");
      }
    }
  }

  int64_t size() const override {
    return static_cast<int64_t>(files_.size() * format_.records_per_file);
  }
  int width() const override { return kSide; }
  int height() const override { return kSide; }
  int channels() const override { return 3; }
  const std::vector<std::string>& classes() const override { return classes_; }
  const Preprocessing& preprocessing() const override { return preprocessing_; }
  int64_t LabelOf(int64_t index) const override { return Label(Checked(index)); }
  std::string NameOf(int64_t index) const override {
    const auto record = static_cast<size_t>(Checked(index));
    return (folder_ / format_.files[record / format_.records_per_file]).string() + " record " +
           std::to_string(record % format_.records_per_file);
  }
  std::string Fingerprint() const override {
    class Fingerprint fingerprint;
    fingerprint.Add(format_.name);
    for (const std::string& file : format_.files) {
      const FileStamp stamp = StampOf((folder_ / file).string());
      fingerprint.Add(file);
      fingerprint.Add(stamp.bytes);
      fingerprint.Add(stamp.changed_ns);
    }
    for (const std::string& name : classes_) fingerprint.Add(name);
    return fingerprint.Hex();
  }

  void Read(int64_t index, Sample& sample) const override {
    sample.label = LabelOf(index);
    sample.picture.width = sample.picture.height = kSide;
    sample.picture.channels = 3;
    sample.picture.pixels.resize(kPixels);
    const uint8_t* planes = Record(index) + format_.label_bytes;
    uint8_t* out = sample.picture.pixels.data();
    for (size_t i = 0; i < kPlane; ++i) {
      out[3 * i] = planes[i];
      out[3 * i + 1] = planes[kPlane + i];
      out[3 * i + 2] = planes[2 * kPlane + i];
    }
  }

  std::string Describe() const override {
    return std::string(format_.name) + " in " + folder_.string() + ": " + std::to_string(size()) +
           " pictures, " + std::to_string(format_.classes) + " classes, 32x32" +
           (split_ == Split::kTest ? "; there is no test split: these are the held-out pictures"
                                   : "");
  }

 private:
  int64_t Checked(int64_t index) const {
    if (index >= 0 && index < size()) return index;
    throw DataError(folder_.string() + ": sample " + std::to_string(index) + " of " +
                    std::to_string(size()));
  }
  size_t record_bytes() const { return format_.label_bytes + kPixels; }
  const uint8_t* Record(int64_t index) const {
    const auto record = static_cast<size_t>(index);
    return files_[record / format_.records_per_file].data() +
           record % format_.records_per_file * record_bytes();
  }
  // The last label byte is the fine label.
  int Label(int64_t index) const { return Record(index)[format_.label_bytes - 1]; }

  const Format format_;
  const fs::path folder_;
  const std::vector<std::string> classes_;
  const Preprocessing preprocessing_;
  const Split split_;
  std::vector<MappedFile> files_;
};

}  // namespace

std::unique_ptr<Dataset> OpenCifar(const CifarOptions& options) {
  return std::make_unique<Cifar>(options);
}

}  // namespace lockstep::trainer
