#include "trainer/features/feature_cache.h"

#include <unistd.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <unordered_set>

#include "absl/strings/str_cat.h"
#include "config/load.h"
#include "config/run_directory.h"
#include "trainer/batches/batches.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/features/feature_set.h"
#include "trainer/step/precision.h"

namespace lockstep::trainer {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr int kFormatVersion = 1;
constexpr char kFeaturesFile[] = "features.safetensors";
constexpr int64_t kBatch = 32;  // Pictures through the trunk at once.

// Rank 0's text on every rank.
std::string Share(const std::string& text, Communicator& communicator) {
  const at::Tensor length = at::zeros({1}, at::kLong);
  length.mutable_data_ptr<int64_t>()[0] = static_cast<int64_t>(text.size());
  communicator.Broadcast(length, 0);
  const at::Tensor bytes = at::empty({length.const_data_ptr<int64_t>()[0]}, at::kByte);
  if (communicator.rank() == 0) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  communicator.Broadcast(bytes, 0);
  return {static_cast<const char*>(bytes.data_ptr()), static_cast<size_t>(bytes.numel())};
}

void Add(Hasher& hasher, const std::string& text) {
  hasher.Add(std::as_bytes(std::span(text)));
  hasher.Add(std::as_bytes(std::span("\0", 1)));
}

// Everything about an operation that changes what it computes, its tensors aside.
std::string TextOf(const Operation& op) {
  std::string text = absl::StrCat(op.name, " ", static_cast<int>(op.kind), " ", op.out, " ",
                                  op.groups, " ", op.bias, " ", op.epsilon);
  for (const Extent2d& e : {op.kernel, op.stride, op.padding, op.pool_to}) {
    absl::StrAppend(&text, " ", e.height, "x", e.width);
  }
  for (const int input : op.inputs) absl::StrAppend(&text, " <", input);
  return text;
}

std::string KeyOf(const FeatureRequest& request) {
  Hasher hasher;
  Add(hasher, absl::StrCat("lockstep features ", kFormatVersion));
  const Graph& graph = request.model.graph();
  std::unordered_set<std::string> trunk;
  for (const int i : Needed(graph, {graph.features})) {
    const Operation& operation = graph.operations[static_cast<size_t>(i)];
    trunk.insert(operation.name);
    Add(hasher, TextOf(operation));
  }
  for (const NamedTensors& tensors : {request.model.Parameters(), request.model.Buffers()}) {
    for (const NamedTensor& t : tensors) {
      if (!trunk.contains(t.name.substr(0, t.name.rfind('.')))) continue;
      const at::Tensor values = t.tensor.detach().cpu().contiguous();
      Add(hasher, t.name);
      hasher.Add({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
    }
  }
  Add(hasher, request.dataset.Fingerprint());
  Add(hasher, absl::StrCat(static_cast<int>(request.config.training.precision), " ",
                           request.device.is_cpu() ? "cpu" : "gpu"));
  if (request.views > 1) {
    config::RunConfig augmented;
    augmented.name = "views";
    augmented.seed = request.config.seed;
    augmented.data.augment = request.config.data.augment;
    Add(hasher, absl::StrCat(request.views, "\n", config::ToYaml(augmented)));
  }
  return hasher.Finish().xxh3_128;
}

FeatureShape ShapeOf(const FeatureRequest& request) {
  const Graph& graph = request.model.graph();
  return {.views = request.views,
          .samples = request.dataset.size(),
          .width = graph.shapes[static_cast<size_t>(graph.features)].numel(),
          .targets = static_cast<int64_t>(request.dataset.targets().size())};
}

absl::StatusOr<ManifestEntry> Hash(const fs::path& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return absl::NotFoundError(path.string());
  Hasher hasher;
  std::vector<std::byte> piece(size_t{4} << 20);
  while (const size_t got = std::fread(piece.data(), 1, piece.size(), file)) {
    hasher.Add(std::span(piece).first(got));
  }
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  if (failed) return absl::DataLossError(absl::StrCat("cannot read ", path.string()));
  return hasher.Finish();
}

// Rank 0: the seconds noted in a good entry; nothing when there is none or it is damaged, which is
// then removed.
std::optional<double> FindGood(const fs::path& entry) {
  std::error_code error;
  if (!fs::exists(entry, error)) return std::nullopt;
  try {
    const auto text = config::ReadFile(entry / "manifest.json", 1 << 20);
    if (text.ok()) {
      const json manifest = json::parse(*text);
      const auto found = Hash(entry / kFeaturesFile);
      if (found.ok() && manifest.at("format_version") == kFormatVersion &&
          manifest.at("bytes") == found->bytes && manifest.at("xxh3_128") == found->xxh3_128) {
        fs::last_write_time(entry, fs::file_time_type::clock::now(), error);
        return manifest.at("rank_seconds").get<double>();
      }
    }
  } catch (const json::exception&) {
    // Damaged, like a hash that differs.
  }
  fs::remove_all(entry, error);
  return std::nullopt;
}

int64_t BytesIn(const fs::path& entry) {
  std::error_code error;
  const auto bytes = fs::file_size(entry / kFeaturesFile, error);
  return error ? 0 : static_cast<int64_t>(bytes);
}

// The entries used longest ago go, until the rest is within the limit. Whoever has one mapped keeps
// it.
void Prune(const fs::path& folder, const fs::path& keep) {
  struct Entry {
    fs::path path;
    fs::file_time_type used;
    int64_t bytes;
  };
  std::vector<Entry> entries;
  int64_t total = 0;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(folder, error)) {
    entries.push_back({item.path(), fs::last_write_time(item.path(), error), BytesIn(item.path())});
    total += entries.back().bytes;
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= kMostCacheBytes) return;
    if (entry.path == keep) continue;
    fs::remove_all(entry.path, error);
    total -= entry.bytes;
  }
}

// Runs the trunk over this rank's samples. False when the ranks agreed to leave. Collective.
bool Fill(const FeatureRequest& request, FeatureFile& file) {
  const at::NoGradGuard no_grad;
  BatchesOptions reading;
  reading.seed = request.config.seed;
  reading.global_batch = kBatch;
  reading.rank = request.communicator.rank();
  reading.world_size = request.communicator.size();
  reading.threads = request.config.data.prefetch_threads;
  reading.depth = request.config.data.prefetch_batches;
  reading.augment = request.config.data.augment;
  reading.device = request.device;
  const auto copy = [](const at::Tensor& row, auto* to) {
    std::memcpy(to, row.const_data_ptr(), row.nbytes());
  };
  for (int64_t view = 0; view < request.views; ++view) {
    reading.augment_epoch = request.views > 1 ? view : -1;
    EvalBatches batches(request.dataset, reading);
    for (int64_t i = 0; i < batches.count(); ++i) {
      const Batch batch = batches.Next();
      if (!batch.indices.empty()) {
        const PrecisionScope precision(request.config.training.precision, request.device.type());
        const at::Tensor features =
            request.model.Features(batch.images).to(at::kFloat).cpu().contiguous();
        const at::Tensor values = batch.targets.values.cpu().contiguous();
        for (size_t row = 0; row < batch.indices.size(); ++row) {
          const int64_t sample = batch.indices[row];
          const auto at_row = static_cast<int64_t>(row);
          copy(features[at_row], file.Features(view, sample));
          if (values.dim() == 1) {
            copy(values[at_row], file.Label(sample));
          } else {
            copy(values[at_row], file.Targets(sample));
          }
        }
      }
      // A few floats, so that a pause need not wait for the end.
      if (request.leave()) return false;
    }
  }
  return true;
}

// Rank 0: to the disk and to its name. Another run may have been faster: its copy is as good.
std::string Publish(const fs::path& staged, const fs::path& entry, FeatureFile& file,
                    double rank_seconds) {
  if (const auto synced = file.Sync(); !synced.ok()) return std::string(synced.message());
  const auto hash = Hash(staged / kFeaturesFile);
  if (!hash.ok()) return std::string(hash.status().message());
  const json manifest = {{"format_version", kFormatVersion},
                         {"bytes", hash->bytes},
                         {"xxh3_128", hash->xxh3_128},
                         {"rank_seconds", rank_seconds}};
  const auto written = config::WriteFileDurably(staged / "manifest.json", manifest.dump(2) + "\n");
  if (!written.ok()) return std::string(written.message());
  std::error_code error;
  fs::rename(staged, entry, error);
  if (!error) return "";
  if (!fs::exists(entry)) return absl::StrCat(entry.string(), ": ", error.message());
  fs::remove_all(staged, error);
  return "";
}

}  // namespace

std::string WhyNoFeatures(const config::RunConfig& config) {
  const config::ModelConfig& model = config.model;
  const config::AugmentConfig& augment = config.data.augment;
  if (model.feature_cache == config::Use::kNever) return "model.feature_cache is never";
  if (model.freeze != "backbone") return "model.freeze is not backbone";
  if (augment.mixup > 0 || augment.cutmix > 0) return "mixup and cutmix blend pictures";
  if (model.feature_views == 1 && augment != config::AugmentConfig()) {
    return "data.augment changes the pictures in each epoch; model.feature_views above 1 would "
           "cache so many variants of each";
  }
  return "";
}

bool FeaturesAreCached(const FeatureRequest& request) {
  std::error_code error;
  return fs::exists(request.folder / KeyOf(request) / "manifest.json", error);
}

std::optional<CachedFeatures> OpenFeatures(const FeatureRequest& request) {
  Communicator& communicator = request.communicator;
  const bool root = communicator.rank() == 0;
  const fs::path entry = request.folder / Share(root ? KeyOf(request) : "", communicator);
  const fs::path staged = entry.string() + ".tmp-" + Share(std::to_string(getpid()), communicator);
  const FeatureShape shape = ShapeOf(request);

  // "+" seconds = there is one, "-" = make it, "!" why not.
  std::string plan;
  if (root) {
    std::error_code error;
    fs::create_directories(request.folder, error);
    const std::optional<double> seconds = FindGood(entry);
    plan = seconds ? absl::StrCat("+", *seconds) : "-";
    if (!seconds) {
      fs::remove_all(staged, error);
      fs::create_directory(staged, error);
      absl::Status made = FeatureFile::Create(staged / kFeaturesFile, shape);
      if (!made.ok()) {
        fs::remove_all(staged, error);
        plan = absl::StrCat("!", made.message());
      }
    }
  }
  plan = Share(plan, communicator);
  CachedFeatures result;
  if (plan[0] == '+') {
    result.reused = true;
    result.rank_seconds = std::stod(plan.substr(1));
  } else if (plan[0] == '-') {
    const auto file = FeatureFile::Open(staged / kFeaturesFile, shape);
    if (!file.ok()) throw std::runtime_error(std::string(file.status().message()));
    const auto began = std::chrono::steady_clock::now();
    const bool filled = Fill(request, **file);
    communicator.Barrier();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    result.rank_seconds = took.count() * communicator.size();
    std::string problem;
    if (root && filled) problem = Publish(staged, entry, **file, result.rank_seconds);
    if (root && (!filled || !problem.empty())) {
      std::error_code error;
      fs::remove_all(staged, error);
    }
    problem = Share(problem, communicator);
    if (!filled) return std::nullopt;
    if (!problem.empty()) throw NoFeatureCache(problem);
    if (root) Prune(request.folder, entry);
  } else {
    throw NoFeatureCache(plan.substr(1));
  }
  auto opened = OpenFeatureSet(entry / kFeaturesFile, request.dataset);
  if (!opened.ok()) throw std::runtime_error(std::string(opened.status().message()));
  result.dataset = *std::move(opened);
  return result;
}

}  // namespace lockstep::trainer
