#include "trainer/checkpoint/store.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <map>
#include <set>
#include <span>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "trainer/checkpoint/checkpoint_folder.h"
#include "trainer/checkpoint/manifest.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

constexpr char kStagedMark[] = ".tmp-";

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

double UnixSeconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

absl::Status MakeFolder(const fs::path& path) {
  std::error_code error;
  fs::create_directory(path, error);
  return error ? FileError(error.value(), "make folder", path) : absl::OkStatus();
}

// Header and tensors as the pieces of one file. Larger elements come first, so that every tensor is
// aligned to its own element size.
struct TensorFile {
  TensorFile(std::vector<TensorBytes> tensors, int64_t step) {
    std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
      return ElementBytes(a.dtype) > ElementBytes(b.dtype);
    });
    header = SafetensorsHeader(tensors, {{"format", "pt"}, {"lockstep_step", absl::StrCat(step)}});
    pieces.push_back(Bytes(header));
    for (const TensorBytes& tensor : tensors) pieces.push_back(tensor.bytes);
  }
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;

  std::string header;
  std::vector<std::span<const std::byte>> pieces;
};

// Every folder with a checkpoint's name, newest first, whatever is in it.
absl::StatusOr<std::vector<fs::path>> StepFolders(const fs::path& folder) {
  std::map<int64_t, fs::path, std::greater<>> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const int64_t step = StepOfFolderName(it->path().filename().string());
    if (step >= 0) found[step] = it->path();
  }
  if (error && error.value() != ENOENT) return FileError(error.value(), "list", folder);
  std::vector<fs::path> paths;
  paths.reserve(found.size());
  for (const auto& [step, path] : found) paths.push_back(path);
  return paths;
}

CheckpointInfo InfoOf(const CheckpointFolder& folder, const fs::path& path) {
  const Manifest& manifest = folder.manifest();
  return {.step = manifest.step,
          .path = path,
          .bytes = manifest.TotalBytes(),
          .metric = manifest.metric,
          .created_unix_seconds = manifest.created_unix_seconds,
          .pinned = folder.pinned()};
}

absl::StatusOr<SafetensorsView> Parse(const std::vector<std::byte>& file, const fs::path& path) {
  absl::StatusOr<SafetensorsView> view = ParseSafetensors(file);
  if (view.ok()) return view;
  return absl::DataLossError(absl::StrCat(path.string(), ": ", view.status().message()));
}

// The steps that the retention rule keeps. `all` is oldest first.
std::set<int64_t> Kept(const std::vector<CheckpointInfo>& all, const Retention& retention) {
  std::set<int64_t> kept;
  const auto last = static_cast<size_t>(std::max(retention.keep_last, 1));
  for (size_t i = all.size() - std::min(last, all.size()); i < all.size(); ++i) {
    kept.insert(all[i].step);
  }
  std::vector<CheckpointInfo> measured;
  for (const CheckpointInfo& info : all) {
    if (info.pinned) kept.insert(info.step);
    if (info.metric) measured.push_back(info);
  }
  std::stable_sort(measured.begin(), measured.end(), [&](const auto& a, const auto& b) {
    return retention.higher_is_better ? *a.metric > *b.metric : *a.metric < *b.metric;
  });
  const auto best = static_cast<size_t>(std::max(retention.keep_best, 0));
  for (size_t i = 0; i < std::min(best, measured.size()); ++i) kept.insert(measured[i].step);
  return kept;
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path folder, int attempt, Retention retention,
                                 std::function<absl::Status()> may_commit,
                                 FileOperations operations)
    : folder_(std::move(folder)),
      attempt_(attempt),
      retention_(retention),
      may_commit_(std::move(may_commit)),
      operations_(std::move(operations)) {}

fs::path CheckpointStore::PathOf(int64_t step) const {
  return folder_ / StepFolderName(step);
}

fs::path CheckpointStore::StagedPath(int64_t step) const {
  return folder_ / absl::StrCat(StepFolderName(step), kStagedMark, attempt_);
}

fs::path CheckpointStore::DiscardedPath(int64_t step) const {
  return folder_ / absl::StrCat(StepFolderName(step), kStagedMark, attempt_, "-old");
}

absl::Status CheckpointStore::Open() {
  std::error_code error;
  const bool made = fs::create_directories(folder_, error);
  if (error) return FileError(error.value(), "make folder", folder_);
  if (made) {
    const fs::path parent = fs::absolute(folder_).parent_path();
    if (absl::Status status = operations_.sync_folder(parent); !status.ok()) return status;
  }
  std::vector<fs::path> leftovers;
  for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    const size_t mark = name.find(kStagedMark);
    if (mark != std::string::npos && StepOfFolderName(name.substr(0, mark)) >= 0) {
      leftovers.push_back(it->path());
    }
  }
  if (error) return FileError(error.value(), "list", folder_);
  for (const fs::path& path : leftovers) {
    if (absl::Status status = operations_.remove_all(path); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckpointStore::Commit(int64_t step, const CheckpointContents& contents,
                                     std::optional<double> metric) {
  if (step < 0) return absl::InvalidArgumentError(absl::StrCat("checkpoint of step ", step));
  for (const auto* tensors : {&contents.weights, &contents.optimizer}) {
    if (absl::Status status = CheckTensors(*tensors); !status.ok()) return status;
  }
  if (metric && !std::isfinite(*metric)) metric.reset();

  const fs::path final_path = PathOf(step);
  absl::Status existing = Verify(final_path);
  if (existing.ok()) return existing;
  // A damaged one makes way for the new one. One that a newer version wrote does not, nor one that
  // cannot be read for a reason outside of it.
  const bool replace = absl::IsDataLoss(existing);
  if (!replace && !absl::IsNotFound(existing)) return existing;

  const fs::path staged = StagedPath(step);
  absl::Status status = Stage(staged, step, contents, metric);
  if (status.ok() && may_commit_) {
    const absl::Status allowed = may_commit_();
    if (!allowed.ok()) {
      status = absl::AbortedError(
          absl::StrCat("checkpoint of step ", step, " was not committed: ", allowed.message()));
    }
  }
  if (status.ok()) status = Publish(staged, final_path, replace);
  if (!status.ok()) {
    if (const absl::Status removed = operations_.remove_all(staged); !removed.ok()) {
      status = absl::Status(status.code(),
                            absl::StrCat(status.message(), "; and then ", removed.message()));
    }
    return status;
  }
  // The checkpoint is durable, whatever becomes of the old ones.
  Prune().IgnoreError();
  return absl::OkStatus();
}

absl::Status CheckpointStore::Stage(const fs::path& staged, int64_t step,
                                    const CheckpointContents& contents,
                                    std::optional<double> metric) {
  if (absl::Status status = operations_.remove_all(staged); !status.ok()) return status;
  if (absl::Status status = MakeFolder(staged); !status.ok()) return status;

  const TensorFile weights(contents.weights, step);
  const TensorFile optimizer(contents.optimizer, step);
  const std::vector<std::pair<const char*, std::vector<std::span<const std::byte>>>> files = {
      {kWeightsFile, weights.pieces},
      {kOptimizerFile, optimizer.pieces},
      {kStateFile, {Bytes(contents.state_json)}}};
  Manifest manifest{
      .step = step, .created_unix_seconds = UnixSeconds(), .metric = metric, .files = {}};
  for (const auto& [name, pieces] : files) {
    manifest.files[name] = Describe(pieces);
    if (absl::Status status = operations_.write_file(staged / name, pieces); !status.ok()) {
      return status;
    }
  }
  const std::string text = ToJson(manifest);
  if (absl::Status status = operations_.write_file(staged / kManifestFile, {Bytes(text)});
      !status.ok()) {
    return status;
  }
  return operations_.sync_folder(staged);
}

absl::Status CheckpointStore::Publish(const fs::path& staged, const fs::path& final_path,
                                      bool replace) {
  const fs::path discarded = DiscardedPath(StepOfFolderName(final_path.filename().string()));
  if (replace) {
    if (absl::Status status = operations_.remove_all(discarded); !status.ok()) return status;
    if (absl::Status status = operations_.rename(final_path, discarded); !status.ok()) {
      return status;
    }
  }
  absl::Status status = operations_.rename(staged, final_path);
  if (status.ok()) {
    status = operations_.sync_folder(folder_);
    // Visible but perhaps not durable: take it back, so that nobody counts on it.
    if (!status.ok()) operations_.rename(final_path, staged).IgnoreError();
  }
  if (replace) {
    if (status.ok()) {
      operations_.remove_all(discarded).IgnoreError();
    } else {
      operations_.rename(discarded, final_path).IgnoreError();
    }
  }
  return status;
}

absl::StatusOr<std::vector<CheckpointInfo>> CheckpointStore::List() const {
  absl::StatusOr<std::vector<fs::path>> paths = StepFolders(folder_);
  if (!paths.ok()) return paths.status();
  std::vector<CheckpointInfo> checkpoints;
  for (auto path = paths->rbegin(); path != paths->rend(); ++path) {
    const absl::StatusOr<CheckpointFolder> folder = CheckpointFolder::Open(*path);
    if (folder.ok()) checkpoints.push_back(InfoOf(*folder, *path));
  }
  return checkpoints;
}

absl::Status CheckpointStore::Verify(const fs::path& checkpoint) const {
  const absl::StatusOr<CheckpointFolder> folder = CheckpointFolder::Open(checkpoint);
  if (!folder.ok()) return folder.status();
  if (absl::Status status = folder->CheckNames(); !status.ok()) return status;
  for (const auto& [name, entry] : folder->manifest().files) {
    if (absl::Status status = folder->Check(name); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<LoadedCheckpoint> CheckpointStore::Load(const fs::path& checkpoint) const {
  const absl::StatusOr<CheckpointFolder> folder = CheckpointFolder::Open(checkpoint);
  if (!folder.ok()) return folder.status();
  if (absl::Status status = folder->CheckNames(); !status.ok()) return status;

  LoadedCheckpoint loaded;
  loaded.info = InfoOf(*folder, checkpoint);
  std::vector<std::byte> state;
  const std::pair<const char*, std::vector<std::byte>*> files[] = {
      {kWeightsFile, &loaded.weights_file},
      {kOptimizerFile, &loaded.optimizer_file},
      {kStateFile, &state}};
  for (const auto& [name, contents] : files) {
    absl::StatusOr<std::vector<std::byte>> read = folder->Read(name);
    if (!read.ok()) return read.status();
    *contents = *std::move(read);
  }
  loaded.state_json.assign(reinterpret_cast<const char*>(state.data()), state.size());
  absl::StatusOr<SafetensorsView> weights = Parse(loaded.weights_file, checkpoint / kWeightsFile);
  if (!weights.ok()) return weights.status();
  absl::StatusOr<SafetensorsView> optimizer =
      Parse(loaded.optimizer_file, checkpoint / kOptimizerFile);
  if (!optimizer.ok()) return optimizer.status();
  loaded.weights = *std::move(weights);
  loaded.optimizer = *std::move(optimizer);
  return loaded;
}

absl::StatusOr<LoadedCheckpoint> CheckpointStore::LoadNewestGood(
    std::vector<std::string>& refused) const {
  absl::StatusOr<std::vector<fs::path>> paths = StepFolders(folder_);
  if (!paths.ok()) return paths.status();
  if (paths->empty()) {
    return absl::NotFoundError(absl::StrCat("no checkpoint in ", folder_.string()));
  }
  for (const fs::path& path : *paths) {
    absl::StatusOr<LoadedCheckpoint> loaded = Load(path);
    if (loaded.ok()) return loaded;
    const absl::Status& why = loaded.status();
    if (!absl::IsDataLoss(why) && !absl::IsFailedPrecondition(why) && !absl::IsNotFound(why)) {
      return why;
    }
    refused.emplace_back(why.message());
  }
  return absl::DataLossError(
      absl::StrCat("none of the ", paths->size(), " checkpoints in ", folder_.string(),
                   " is good; the newest: ", refused[refused.size() - paths->size()]));
}

absl::Status CheckpointStore::Prune() {
  const absl::StatusOr<std::vector<CheckpointInfo>> all = List();
  if (!all.ok()) return all.status();
  const std::set<int64_t> kept = Kept(*all, retention_);
  // Out of sight first, durably, then away: half of a checkpoint is never visible.
  std::vector<fs::path> discarded;
  absl::Status status;
  for (const CheckpointInfo& info : *all) {
    if (kept.count(info.step) > 0) continue;
    const fs::path to = DiscardedPath(info.step);
    status.Update(operations_.remove_all(to));
    const absl::Status renamed = operations_.rename(info.path, to);
    status.Update(renamed);
    if (renamed.ok()) discarded.push_back(to);
  }
  if (discarded.empty()) return status;
  if (absl::Status synced = operations_.sync_folder(folder_); !synced.ok()) {
    // Perhaps still to be seen after a crash: so nothing is taken out of them now. They have the
    // name that Open() removes.
    status.Update(synced);
    return status;
  }
  for (const fs::path& path : discarded) status.Update(operations_.remove_all(path));
  return status;
}

}  // namespace lockstep::trainer
