// evaluate: every sample of a split through the model once, in one process.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "config/exit_code.h"
#include "config/run_directory.h"
#include "trainer/batches/batches.h"
#include "trainer/device/device.h"
#include "trainer/inference/commands.h"
#include "trainer/inference/evaluation_report.h"
#include "trainer/inference/load_model.h"
#include "trainer/inference/prediction.h"
#include "trainer/inference/thumbnail.h"
#include "trainer/objective/loss.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

constexpr size_t kWorst = 24;
constexpr int kThumbnailPixels = 160;
constexpr int64_t kMostScattered = 4000;  // Samples in the scatter charts.

struct Judged {
  int64_t index = 0;
  double loss = 0;
  std::vector<float> logits;
  std::vector<double> truth;  // The class, or the answers in the data's units.
};

// The samples with the largest loss so far.
class Worst {
 public:
  void Offer(Judged sample) {
    if (kept_.size() == kWorst && Less(sample, kept_.back())) return;
    const auto place = std::find_if(kept_.begin(), kept_.end(),
                                    [&](const Judged& other) { return Less(other, sample); });
    kept_.insert(place, std::move(sample));
    if (kept_.size() > kWorst) kept_.pop_back();
  }
  const std::vector<Judged>& kept() const { return kept_; }

 private:
  // A loss that is no number is the largest of all; of equal ones the first sample comes first.
  static bool Less(const Judged& a, const Judged& b) {
    const double x = std::isnan(a.loss) ? HUGE_VAL : a.loss;
    const double y = std::isnan(b.loss) ? HUGE_VAL : b.loss;
    return x != y ? x < y : a.index > b.index;
  }
  std::vector<Judged> kept_;
};

Split SplitOf(const std::string& word) {
  return word == "train" ? Split::kTrain : word == "test" ? Split::kTest : Split::kEval;
}

std::unique_ptr<Device> OpenDevice(const std::string& choice) {
  if (choice == "cpu") return OpenCpu();
  if (GpuCount() > 0) return OpenGpu(0, {.tf32 = false, .deterministic = false});
  if (choice == "gpu") {
    throw std::invalid_argument(absl::StrCat("--device gpu, but there is none: ", WhyNoGpu()));
  }
  return OpenCpu();
}

void Move(Model& model, at::Device device) {
  NamedTensors tensors = model.Parameters();
  for (NamedTensor& buffer : model.Buffers()) tensors.push_back(std::move(buffer));
  for (const NamedTensor& one : tensors) one.tensor.set_data(one.tensor.to(device));
}

std::unique_ptr<Dataset> OpenData(const TrainedModel& model, const EvaluateCommand& command) {
  config::RunConfig config = model.config;
  std::error_code error;
  if (!command.data.empty() &&
      !std::filesystem::equivalent(command.data, config.data.path, error)) {
    // Other data: all of them, unless they come with splits of their own.
    config.data.path = command.data;
    config.data.split.clear();
    config.data.train_samples = config.data.eval_samples = 0;
  }
  OpenRequest request{.config = config,
                      .split = SplitOf(command.split),
                      .preprocessing = &model.card.preprocessing};
  if (!model.card.classes.empty()) request.classes = &model.card.classes;
  if (!model.card.targets.empty()) request.targets = &model.card.targets;
  std::unique_ptr<Dataset> data = OpenDataset(request);
  if (data->size() == 0) {
    throw DataError(absl::StrCat("the split ", command.split, " has no samples"));
  }
  return data;
}

// One pass over the data.
class Pass {
 public:
  Pass(Model& model, const Dataset& data, const ModelCard& card, const config::RunConfig& config,
       int64_t outputs, at::Device device)
      : model_(model),
        data_(data),
        card_(card),
        device_(device),
        loss_({.kind = card.loss,
               .huber_delta = config.training.loss.huber_delta,
               .targets = card.targets},
              device),
        measures_(loss_.task(), outputs, card.targets, device),
        scatter_(loss_.task() == Task::kNumbers ? card.targets.size() : 0),
        scatter_every_(std::max<int64_t>(1, data.size() / kMostScattered)) {}

  MeasureResult Run(const BatchesOptions& reading) {
    const at::NoGradGuard no_grad;
    EvalBatches batches(data_, reading);
    for (int64_t i = 0; i < batches.count(); ++i) {
      const Batch batch = batches.Next();
      if (batch.targets.size() > 0) Add(batch);
    }
    return measures_.Result(measures_.Sums());
  }

  const Worst& worst() const { return worst_; }
  std::vector<std::vector<std::pair<double, double>>>& scatter() { return scatter_; }

 private:
  void Add(const Batch& batch) {
    const ModelOutput output = model_.Forward(batch.images);
    measures_.Add(output.logits, batch.targets.values, loss_(output, batch.targets).loss_sum);
    const auto host = [](const at::Tensor& tensor, at::ScalarType type) {
      return tensor.to(at::kCPU, type).contiguous();
    };
    const at::Tensor losses =
        host(loss_.PerSample(output.logits, batch.targets.values), at::kDouble);
    const at::Tensor logits = host(output.logits, at::kFloat);
    const at::Tensor values = host(batch.targets.values, at::kDouble);
    const int64_t outputs = logits.size(1);
    const int64_t answers = values.numel() / values.size(0);
    for (int64_t i = 0; i < values.size(0); ++i) {
      const float* row = logits.const_data_ptr<float>() + i * outputs;
      Judged sample{batch.indices[static_cast<size_t>(i)],
                    losses.const_data_ptr<double>()[i],
                    {row, row + outputs},
                    {}};
      for (int64_t j = 0; j < answers; ++j) {
        sample.truth.push_back(InUnits(values.const_data_ptr<double>()[i * answers + j], j));
      }
      Scatter(sample);
      worst_.Offer(std::move(sample));
    }
  }

  double InUnits(double value, int64_t target) const {
    if (loss_.task() != Task::kNumbers) return value;
    const Target& unit = card_.targets[static_cast<size_t>(target)];
    return value * unit.std + unit.mean;
  }

  void Scatter(const Judged& sample) {
    if (scatter_.empty() || sample.index % scatter_every_ != 0) return;
    const Prediction prediction = Interpret(sample.logits, card_, 1);
    for (size_t t = 0; t < scatter_.size(); ++t) {
      scatter_[t].emplace_back(sample.truth[t], prediction.numbers[t].second);
    }
  }

  Model& model_;
  const Dataset& data_;
  const ModelCard& card_;
  const at::Device device_;
  Loss loss_;
  Measures measures_;
  Worst worst_;
  std::vector<std::vector<std::pair<double, double>>> scatter_;
  const int64_t scatter_every_;
};

std::string TruthText(const Judged& sample, const ModelCard& card) {
  if (!card.classes.empty()) return card.classes.at(static_cast<size_t>(sample.truth.front()));
  std::vector<std::string> parts;
  for (size_t t = 0; t < card.targets.size(); ++t) {
    if (card.loss != config::LossKind::kBinaryCrossEntropy) {
      parts.push_back(absl::StrFormat("%s %.6g", card.targets[t].name, sample.truth[t]));
    } else if (sample.truth[t] > 0.5) {
      parts.push_back(card.targets[t].name);
    }
  }
  return parts.empty() ? "none" : absl::StrJoin(parts, ", ");
}

std::vector<WrongSample> Describe(const Worst& worst, const Dataset& data, const ModelCard& card,
                                  bool pictures) {
  std::vector<WrongSample> all;
  Sample sample;
  for (const Judged& one : worst.kept()) {
    WrongSample wrong{.name = data.NameOf(one.index),
                      .loss = one.loss,
                      .truth = TruthText(one, card),
                      .predicted = ToText(Interpret(one.logits, card, 1)),
                      .picture = {}};
    if (pictures) {
      try {
        data.Read(one.index, sample);
        wrong.picture = Thumbnail(sample.picture, kThumbnailPixels);
      } catch (const DataError&) {  // Gone since: the page shows it without its picture.
      }
    }
    all.push_back(std::move(wrong));
  }
  return all;
}

absl::Status WriteReport(const EvaluationReport& report, const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make the folder ", folder, ": ", error.message()));
  }
  absl::Status status = config::WriteFileDurably(fs::path(folder) / "report.json", ToJson(report));
  if (!status.ok()) return status;
  return config::WriteFileDurably(fs::path(folder) / "report.html", ToHtml(report));
}

}  // namespace

int Run(const EvaluateCommand& command) {
  const auto began = std::chrono::steady_clock::now();
  const auto model = OpenChosen(command.model);
  if (!model.ok()) return Fail("evaluate", model.status());
  const std::unique_ptr<Dataset> data = OpenData(*model, command);
  for (const std::string& line : data->Skipped()) std::fprintf(stderr, "%s\n", line.c_str());
  std::fprintf(stderr, "%s\n", data->Describe().c_str());
  const std::unique_ptr<Device> device = OpenDevice(command.device);
  const std::unique_ptr<Model> network = LoadModel(*model);
  if (device->is_gpu()) Move(*network, device->torch());

  BatchesOptions reading;
  reading.global_batch = command.batch;
  reading.threads = 2;
  reading.device = device->torch();
  Pass pass(*network, *data, model->card, model->config, model->outputs(), device->torch());
  EvaluationReport report;
  report.measures = pass.Run(reading);
  report.run = model->config.name;
  report.model = model->config.model.name;
  report.checkpoint = model->checkpoint.string();
  report.step = model->step;
  report.data = data->Describe();
  report.split = ToString(SplitOf(command.split));
  report.card = model->card;
  report.scatter = std::move(pass.scatter());
  report.worst = Describe(pass.worst(), *data, model->card, !command.report.empty());
  if (!model->run_dir.empty()) report.curves = ReadCurves(model->run_dir);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (!command.report.empty()) {
    if (absl::Status written = WriteReport(report, command.report); !written.ok()) {
      return Fail("evaluate", written);
    }
    std::fprintf(stderr, "report: %s\n", (fs::path(command.report) / "report.html").c_str());
  }
  const std::string answer = command.json ? ToJson(report) : ToText(report);
  std::fwrite(answer.data(), 1, answer.size(), stdout);
  return static_cast<int>(config::ExitCode::kOk);
}

}  // namespace lockstep::trainer
