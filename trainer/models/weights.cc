#include "trainer/models/weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "trainer/models/weights_file.h"

namespace lockstep::trainer {
namespace {

constexpr size_t kNamedAtMost = 20;
constexpr char kAuxiliaryPrefix[] = "AuxLogits.";  // torchvision's inception_v3.
constexpr char kDenseHeadPrefix[] = "head.";
constexpr char kParallelPrefix[] = "module.";  // torch.nn.DataParallel's.

std::optional<at::ScalarType> ScalarTypeOf(const std::string& dtype) {
  static const std::map<std::string, at::ScalarType> types = {
      {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf},  {"BF16", at::kBFloat16},
      {"I64", at::kLong},   {"I32", at::kInt},   {"I16", at::kShort}, {"I8", at::kChar},
      {"U8", at::kByte},    {"BOOL", at::kBool}};
  const auto found = types.find(dtype);
  if (found == types.end()) return std::nullopt;
  return found->second;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Of a vector of problems, the first twenty.
void AppendProblems(const std::string& what, const std::vector<std::string>& names,
                    std::string& message) {
  if (names.empty()) return;
  const size_t shown = std::min(names.size(), kNamedAtMost);
  absl::StrAppend(
      &message, "\n  ", what, " (", names.size(), "): ",
      absl::StrJoin(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < names.size()) absl::StrAppend(&message, ", and ", names.size() - shown, " more");
}

std::set<std::string> TensorNames(const Graph& graph, const std::vector<int>& operations) {
  std::set<std::string> names;
  for (const int operation : operations) {
    for (const TensorSpec& spec : TensorsOf(graph, operation)) names.insert(spec.name);
  }
  return names;
}

// Pairs what a file has with what a model wants, without changing either.
class Matching {
 public:
  Matching(const WeightsFile& file, const config::ModelConfig& config, const Model& model)
      : config_(config), graph_(model.graph()) {
    const bool parallel = !file.tensors.empty() &&
                          std::all_of(file.tensors.begin(), file.tensors.end(), [](const auto& t) {
                            return absl::StartsWith(t.name, kParallelPrefix);
                          });
    for (const TensorBytes& tensor : file.tensors) {
      given_[parallel ? tensor.name.substr(std::strlen(kParallelPrefix)) : tensor.name] = &tensor;
    }
    for (const NamedTensors& tensors : {model.Parameters(), model.Buffers()}) {
      for (const NamedTensor& tensor : tensors) wanted_[tensor.name] = tensor.tensor;
    }
  }

  /// Sorts out what may differ; the error lists what may not.
  absl::Status Check(WeightsReport& report) {
    if (config_.head.replace) KeepDenseHead(report);
    KeepAuxiliaryHead(report);
    KeepClassifier(graph_.output, report);
    if (graph_.auxiliary >= 0) KeepClassifier(graph_.auxiliary, report);
    KeepCounters(report);
    return Differences();
  }

  /// After Check().
  int64_t Copy() const {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : wanted_) {
      const TensorBytes& from = *given_.at(name);
      // Copied first: nothing says that the file's bytes are aligned.
      const at::Tensor values =
          at::empty(from.shape, at::TensorOptions().dtype(*ScalarTypeOf(from.dtype)));
      if (!from.bytes.empty()) {
        std::memcpy(values.mutable_data_ptr(), from.bytes.data(), from.bytes.size());
      }
      tensor.copy_(values);
    }
    return static_cast<int64_t>(wanted_.size());
  }

 private:
  bool Fits(const std::string& name) const {
    const auto given = given_.find(name);
    return given != given_.end() && wanted_.at(name).sizes() == given->second->shape;
  }
  void Forget(const std::string& name) {
    wanted_.erase(name);
    given_.erase(name);
  }
  std::vector<std::string> WantedWith(const std::string& prefix) const {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : wanted_) {
      if (absl::StartsWith(name, prefix)) names.push_back(name);
    }
    return names;
  }

  // The head of one's own stays new unless the file has just that one.
  void KeepDenseHead(WeightsReport& report) {
    const std::vector<std::string> own = WantedWith(kDenseHeadPrefix);
    if (std::all_of(own.begin(), own.end(), [&](const auto& name) { return Fits(name); })) return;
    for (const std::string& name : own) wanted_.erase(name);
    report.remade.push_back("head: dense layers of model.head");
    config::ModelConfig published = config_;
    published.head = {};
    const Graph graph = BuildGraph(published, graph_.input);
    std::vector<int> head;
    for (const int i : Needed(graph, {graph.output})) {
      if (i > graph.features) head.push_back(i);
    }
    const std::set<std::string> theirs = TensorNames(graph, head);
    Drop(
        [&](const std::string& name) {
          return theirs.count(name) > 0 || absl::StartsWith(name, kDenseHeadPrefix);
        },
        "the file's head", report);
  }

  void KeepAuxiliaryHead(WeightsReport& report) {
    const auto is_auxiliary = [](const std::string& name) {
      return absl::StartsWith(name, kAuxiliaryPrefix);
    };
    const bool given = std::any_of(given_.begin(), given_.end(),
                                   [&](const auto& entry) { return is_auxiliary(entry.first); });
    if (graph_.auxiliary < 0 && config_.name == "inception_v3") {
      Drop(is_auxiliary, "the auxiliary head, which is off", report);
    }
    if (graph_.auxiliary < 0 || given) return;
    for (const std::string& name : WantedWith(kAuxiliaryPrefix)) wanted_.erase(name);
    report.remade.push_back("AuxLogits: the file has no auxiliary head");
  }

  template <typename Predicate>
  void Drop(const Predicate& drops, const std::string& what, WeightsReport& report) {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : given_) {
      if (drops(name)) names.push_back(name);
    }
    for (const std::string& name : names) given_.erase(name);
    if (!names.empty())
      report.dropped.push_back(absl::StrCat(what, " (", names.size(), " tensors)"));
  }

  // A layer that gives the outputs is new where only their number differs.
  void KeepClassifier(int operation, WeightsReport& report) {
    const std::string name = graph_.operations[static_cast<size_t>(operation)].name;
    const std::string weight = name + ".weight", bias = name + ".bias";
    for (const std::string& tensor : {weight, bias}) {
      if (wanted_.count(tensor) == 0 || given_.count(tensor) == 0) return;
    }
    const std::vector<int64_t> theirs = given_.at(weight)->shape;
    const std::vector<int64_t> ours = wanted_.at(weight).sizes().vec();
    const std::vector<int64_t>& their_bias = given_.at(bias)->shape;
    if (theirs.size() != 2 || theirs[1] != ours[1] || theirs[0] == ours[0]) return;
    if (their_bias.size() != 1 || their_bias[0] != theirs[0]) return;
    report.remade.push_back(
        absl::StrCat(name, ": ", theirs[0], " outputs in the file, ", ours[0], " here"));
    Forget(weight);
    Forget(bias);
  }

  void KeepCounters(WeightsReport& report) {
    std::vector<std::string> missing;
    for (const auto& [name, tensor] : wanted_) {
      if (absl::EndsWith(name, ".num_batches_tracked") && given_.count(name) == 0) {
        missing.push_back(name);
      }
    }
    for (const std::string& name : missing) wanted_.erase(name);
    if (!missing.empty()) {
      report.remade.push_back(
          absl::StrCat("num_batches_tracked: not in the file (", missing.size(), " norms)"));
    }
  }

  absl::Status Differences() const {
    std::vector<std::string> missing, unexpected, misshaped, other;
    for (const auto& [name, tensor] : wanted_) {
      const auto given = given_.find(name);
      if (given == given_.end()) {
        missing.push_back(name);
      } else if (!Fits(name)) {
        misshaped.push_back(absl::StrCat(name, " is ", ShapeText(given->second->shape),
                                         ", expected ", ShapeText(tensor.sizes().vec())));
      } else {
        const std::optional<at::ScalarType> type = ScalarTypeOf(given->second->dtype);
        if (!type || at::isFloatingType(*type) != tensor.is_floating_point()) {
          other.push_back(absl::StrCat(name, " is ", given->second->dtype));
        }
      }
    }
    for (const auto& [name, tensor] : given_) {
      if (wanted_.count(name) == 0) unexpected.push_back(name.substr(0, 200));
    }
    std::string message = absl::StrCat("the weights are not those of ", config_.name, ":");
    const size_t bare = message.size();
    AppendProblems("missing", missing, message);
    AppendProblems("unexpected", unexpected, message);
    AppendProblems("of another shape", misshaped, message);
    AppendProblems("of another type", other, message);
    return message.size() == bare ? absl::OkStatus() : absl::InvalidArgumentError(message);
  }

  const config::ModelConfig& config_;
  const Graph& graph_;
  std::map<std::string, const TensorBytes*> given_;
  std::map<std::string, at::Tensor> wanted_;
};

}  // namespace

std::string WeightsReport::Summary(const std::string& path) const {
  std::string text = absl::StrCat("loaded ", loaded, " tensors from ", path, " (", format, ")");
  if (!remade.empty()) absl::StrAppend(&text, "; new from the seed: ", absl::StrJoin(remade, ", "));
  if (!dropped.empty()) absl::StrAppend(&text, "; not used: ", absl::StrJoin(dropped, ", "));
  return text;
}

absl::StatusOr<WeightsReport> LoadWeights(const std::string& path,
                                          const config::ModelConfig& config, Model& model) {
  absl::StatusOr<WeightsFile> file = ReadWeightsFile(path);
  if (!file.ok()) return file.status();
  WeightsReport report;
  report.format = file->format;
  report.xxh3_128 = file->xxh3_128;
  Matching matching(*file, config, model);
  const absl::Status fits = matching.Check(report);
  if (!fits.ok()) return absl::Status(fits.code(), absl::StrCat(path, ": ", fits.message()));
  report.loaded = matching.Copy();
  return report;
}

}  // namespace lockstep::trainer
