#include "trainer/checkpoint/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "trainer/checkpoint/file_operations.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kMaxManifestBytes = 1 << 20;
constexpr size_t kCheckChunkBytes = size_t{4} << 20;
constexpr size_t kNameDigits = 9;
constexpr char kNamePrefix[] = "step-";

struct OpenFile {
  int fd = -1;
  int64_t bytes = 0;
};

absl::Status Damaged(const std::filesystem::path& path, const std::string& problem) {
  return absl::DataLossError(absl::StrCat(path.string(), ": ", problem));
}

// O_NONBLOCK: opening a FIFO must not wait for a writer that never comes.
absl::StatusOr<OpenFile> OpenRegular(int folder, const std::filesystem::path& path) {
  const std::string name = path.filename();
  const int fd = ::openat(folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ELOOP) return Damaged(path, "is a symbolic link");
    if (errno == ENOENT) return Damaged(path, "is missing");
    return FileError(errno, "open", path);
  }
  struct stat facts = {};
  if (::fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    ::close(fd);
    return Damaged(path, "is not a regular file");
  }
  return OpenFile{fd, static_cast<int64_t>(facts.st_size)};
}

// Fills `buffer` from the file's place; DATA_LOSS when the file ends before.
absl::Status ReadExactly(int fd, std::span<std::byte> buffer, const std::filesystem::path& path) {
  while (!buffer.empty()) {
    const ssize_t got = ::read(fd, buffer.data(), std::min(buffer.size(), size_t{1} << 30));
    if (got < 0) {
      if (errno == EINTR) continue;
      return FileError(errno, "read", path);
    }
    if (got == 0) return Damaged(path, "became shorter while it was read");
    buffer = buffer.subspan(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

absl::StatusOr<Manifest> ReadManifest(int folder, const std::filesystem::path& path) {
  const absl::StatusOr<OpenFile> file = OpenRegular(folder, path);
  if (!file.ok()) return file.status();
  const absl::Cleanup close = [fd = file->fd] { ::close(fd); };
  if (file->bytes > kMaxManifestBytes) return Damaged(path, "is too large for a manifest");
  std::string text(static_cast<size_t>(file->bytes), '\0');
  if (absl::Status status = ReadExactly(file->fd, std::as_writable_bytes(std::span(text)), path);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<Manifest> manifest = ParseManifest(text);
  if (!manifest.ok()) {
    return absl::Status(manifest.status().code(), absl::StrCat(path.parent_path().string(), "/",
                                                               manifest.status().message()));
  }
  return manifest;
}

absl::Status Compare(const ManifestEntry& found, const ManifestEntry& expected,
                     const std::filesystem::path& path) {
  if (found.bytes != expected.bytes) {
    return Damaged(path,
                   absl::StrCat("has ", found.bytes, " bytes, the manifest says ", expected.bytes));
  }
  if (found.xxh3_128 != expected.xxh3_128) {
    return Damaged(path, absl::StrCat("its bytes hash to ", found.xxh3_128, ", the manifest says ",
                                      expected.xxh3_128));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CheckpointFolder> CheckpointFolder::Open(const std::filesystem::path& path) {
  // A trailing slash would make O_NOFOLLOW look behind the link.
  const std::filesystem::path clean = path.has_filename() ? path : path.parent_path();
  const int fd = ::open(clean.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    if (errno == ENOTDIR || errno == ELOOP) {
      return Damaged(clean, "is not a folder (links are not followed)");
    }
    return FileError(errno, "open checkpoint", clean);
  }
  CheckpointFolder folder(clean, fd);
  absl::StatusOr<Manifest> manifest = ReadManifest(fd, clean / kManifestFile);
  if (!manifest.ok()) return manifest.status();
  if (StepFolderName(manifest->step) != clean.filename().string()) {
    return Damaged(clean / kManifestFile,
                   absl::StrCat("is of step ", manifest->step, ", not of this folder's"));
  }
  folder.manifest_ = *std::move(manifest);
  return folder;
}

CheckpointFolder::CheckpointFolder(CheckpointFolder&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      manifest_(std::move(other.manifest_)) {}

CheckpointFolder::~CheckpointFolder() {
  if (fd_ >= 0) ::close(fd_);
}

bool CheckpointFolder::pinned() const {
  return ::faccessat(fd_, kPinnedFile, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

absl::Status CheckpointFolder::CheckNames() const {
  std::error_code error;
  for (std::filesystem::directory_iterator it(path_, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename();
    if (name != kManifestFile && name != kPinnedFile && manifest_.files.count(name) == 0) {
      return Damaged(it->path(), "does not belong to the checkpoint");
    }
  }
  return error ? FileError(error.value(), "list", path_) : absl::OkStatus();
}

absl::StatusOr<std::vector<std::byte>> CheckpointFolder::Read(const std::string& name) const {
  const ManifestEntry& expected = manifest_.files.at(name);
  const std::filesystem::path path = path_ / name;
  const absl::StatusOr<OpenFile> file = OpenRegular(fd_, path);
  if (!file.ok()) return file.status();
  const absl::Cleanup close = [fd = file->fd] { ::close(fd); };
  if (file->bytes != expected.bytes) return Compare({file->bytes, {}}, expected, path);
  std::vector<std::byte> contents(static_cast<size_t>(file->bytes));
  if (absl::Status status = ReadExactly(file->fd, contents, path); !status.ok()) return status;
  if (absl::Status status = Compare(Describe({contents}), expected, path); !status.ok()) {
    return status;
  }
  return contents;
}

absl::Status CheckpointFolder::Check(const std::string& name) const {
  const ManifestEntry& expected = manifest_.files.at(name);
  const std::filesystem::path path = path_ / name;
  const absl::StatusOr<OpenFile> file = OpenRegular(fd_, path);
  if (!file.ok()) return file.status();
  const absl::Cleanup close = [fd = file->fd] { ::close(fd); };
  if (file->bytes != expected.bytes) return Compare({file->bytes, {}}, expected, path);
  Hasher hasher;
  std::vector<std::byte> chunk(
      std::min(kCheckChunkBytes, static_cast<size_t>(std::max<int64_t>(file->bytes, 0))));
  for (int64_t left = file->bytes; left > 0;) {
    const auto piece = std::span(chunk).first(std::min(chunk.size(), static_cast<size_t>(left)));
    if (absl::Status status = ReadExactly(file->fd, piece, path); !status.ok()) return status;
    hasher.Add(piece);
    left -= static_cast<int64_t>(piece.size());
  }
  return Compare(hasher.Finish(), expected, path);
}

std::string StepFolderName(int64_t step) {
  return absl::StrFormat("%s%09d", kNamePrefix, step);
}

int64_t StepOfFolderName(const std::string& name) {
  constexpr size_t kPrefix = sizeof(kNamePrefix) - 1;
  int64_t step = -1;
  if (name.size() < kPrefix + kNameDigits ||
      !absl::SimpleAtoi(absl::string_view(name).substr(kPrefix), &step) || step < 0) {
    return -1;
  }
  return StepFolderName(step) == name ? step : -1;
}

}  // namespace lockstep::trainer
