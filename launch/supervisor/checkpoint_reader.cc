#include "launch/supervisor/checkpoint_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "config/run_directory.h"

namespace lockstep::launch {
namespace {

namespace fs = std::filesystem;

constexpr int kFormatVersion = 1;
constexpr size_t kMaxManifestBytes = 1u << 20;
constexpr size_t kBlockBytes = 1u << 20;

std::optional<int64_t> StepOf(const std::string& folder) {
  constexpr size_t kPrefix = sizeof("step-") - 1;
  if (folder.rfind("step-", 0) != 0 || folder.size() == kPrefix) return std::nullopt;
  int64_t step = 0;
  const char* end = folder.data() + folder.size();
  const auto [rest, error] = std::from_chars(folder.data() + kPrefix, end, step);
  if (error != std::errc() || rest != end || step < 0) return std::nullopt;  // Staged: ".tmp-N".
  return step;
}

struct ManifestFile {
  std::string name;
  int64_t size = 0;
  std::string xxh3_128;
};

struct Manifest {
  int64_t step = 0;
  double created_unix_seconds = 0;
  std::optional<double> metric;
  std::vector<ManifestFile> files;
};

bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

absl::StatusOr<Manifest> ReadManifest(const fs::path& checkpoint) {
  const fs::path path = checkpoint / "manifest.json";
  absl::StatusOr<std::string> text = config::ReadFile(path, kMaxManifestBytes);
  if (!text.ok())
    return absl::DataLossError(absl::StrCat("manifest.json: ", text.status().message()));
  try {
    const nlohmann::json json = nlohmann::json::parse(*text);
    const int version = json.at("format_version").get<int>();
    if (version != kFormatVersion) {
      return absl::DataLossError(absl::StrCat("manifest.json: format version ", version,
                                              "; this program knows ", kFormatVersion));
    }
    Manifest manifest;
    manifest.step = json.at("step").get<int64_t>();
    manifest.created_unix_seconds = json.value("created_unix_seconds", 0.0);
    if (json.contains("metric") && json.at("metric").is_number()) {
      manifest.metric = json.at("metric").get<double>();
    }
    for (const auto& [name, file] : json.at("files").items()) {
      if (!IsPlainName(name)) {
        return absl::DataLossError(absl::StrCat("manifest.json: '", name, "' is no file name"));
      }
      manifest.files.push_back(
          {name, file.at("size").get<int64_t>(), file.at("xxh3_128").get<std::string>()});
    }
    if (manifest.files.empty()) return absl::DataLossError("manifest.json: it lists no files");
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat("manifest.json: ", error.what()));
  }
}

std::string Hex(const XXH128_hash_t& hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  std::string hex;
  for (const unsigned char byte : canonical.digest) {
    absl::StrAppend(&hex, absl::Hex(byte, absl::kZeroPad2));
  }
  return hex;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status VerifyFile(const fs::path& checkpoint, const ManifestFile& file,
                        const std::function<bool()>& cancelled) {
  const auto damaged = [&](const std::string& what) {
    return absl::DataLossError(absl::StrCat(file.name, ": ", what));
  };
  // A symbolic link could make another file pass for this one.
  const Descriptor fd(
      open((checkpoint / file.name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (fd.get() < 0) return damaged(std::strerror(errno));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return damaged("is no regular file");
  if (info.st_size != file.size) {
    return damaged(absl::StrCat("is ", info.st_size, " bytes, the manifest says ", file.size));
  }
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                              XXH3_freeState);
  XXH3_128bits_reset(state.get());
  std::vector<char> block(kBlockBytes);
  for (;;) {
    if (cancelled && cancelled()) return absl::CancelledError("verification was cancelled");
    const ssize_t got = read(fd.get(), block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return damaged(std::strerror(errno));
    if (got == 0) break;
    XXH3_128bits_update(state.get(), block.data(), static_cast<size_t>(got));
  }
  const std::string hex = Hex(XXH3_128bits_digest(state.get()));
  if (hex != file.xxh3_128) {
    return damaged(absl::StrCat("checksum is ", hex, ", the manifest says ", file.xxh3_128));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<CheckpointOnDisk> ListCheckpoints(const fs::path& checkpoints) {
  std::vector<CheckpointOnDisk> found;
  std::error_code error;
  for (fs::directory_iterator it(checkpoints, error), end; !error && it != end;
       it.increment(error)) {
    const std::optional<int64_t> step = StepOf(it->path().filename().string());
    if (!step) continue;
    CheckpointOnDisk checkpoint;
    checkpoint.step = *step;
    checkpoint.path = it->path();
    absl::StatusOr<Manifest> manifest = ReadManifest(it->path());
    if (!manifest.ok()) {
      std::error_code gone;
      if (!fs::exists(it->path(), gone)) continue;  // Deleted while we looked.
      checkpoint.manifest = manifest.status();
    } else {
      checkpoint.created_unix_seconds = manifest->created_unix_seconds;
      checkpoint.metric = manifest->metric;
      for (const ManifestFile& file : manifest->files) checkpoint.bytes += file.size;
      if (manifest->step != *step) {
        checkpoint.manifest = absl::DataLossError(
            absl::StrCat("manifest.json: is of step ", manifest->step, ", not of ", *step));
      }
    }
    found.push_back(std::move(checkpoint));
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.step < b.step; });
  return found;
}

int64_t NewestCheckpointStep(const fs::path& checkpoints) {
  int64_t newest = 0;
  std::error_code error;
  for (fs::directory_iterator it(checkpoints, error), end; !error && it != end;
       it.increment(error)) {
    newest = std::max(newest, StepOf(it->path().filename().string()).value_or(0));
  }
  return newest;
}

absl::Status VerifyCheckpoint(const fs::path& checkpoint, const std::function<bool()>& cancelled) {
  const absl::StatusOr<Manifest> manifest = ReadManifest(checkpoint);
  if (!manifest.ok()) return manifest.status();
  if (StepOf(checkpoint.filename().string()) != manifest->step) {
    return absl::DataLossError(
        absl::StrCat("manifest.json: is of step ", manifest->step, ", not of this folder"));
  }
  for (const ManifestFile& file : manifest->files) {
    if (absl::Status status = VerifyFile(checkpoint, file, cancelled); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace lockstep::launch
