#include "trainer/probe/probe.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "config/probe_report.h"
#include "trainer/affinity.h"
#include "trainer/batches/resident.h"
#include "trainer/claim.h"
#include "trainer/comm/world.h"
#include "trainer/control.h"
#include "trainer/data/input_file.h"
#include "trainer/failure.h"
#include "trainer/features/feature_cache.h"
#include "trainer/host_memory.h"
#include "trainer/probe/arguments.h"
#include "trainer/probe/earlier_features.h"
#include "trainer/probe/measure.h"
#include "trainer/probe/report_file.h"
#include "trainer/probe/sampled_dataset.h"
#include "trainer/probe/scratch.h"
#include "trainer/rank_device.h"
#include "trainer/rank_setup.h"
#include "trainer/saver.h"
#include "trainer/train.h"

namespace lockstep::trainer {
namespace {

using config::Phase;
using config::RunConfig;
using config::TrainerExit;

constexpr int64_t kUsualSteps = 60;

// A step graph needs three steps before it is captured (trainer/step/step_runner.cc), autotuners
// one or two.
constexpr int64_t kLeastWarmSteps = 5;
constexpr int64_t kFewestTimed = 3;
// After the timed ones: a checkpoint is begun, and one step is made while it is written.
constexpr int64_t kLastSteps = 2;
// Of an evaluation, per rank: enough to see its rate.
constexpr int64_t kMostEvaluated = 400;
constexpr int64_t kLeastEvaluated = 32;
// A step that changes nothing takes as long as one that does.
constexpr double kHardlyLearning = 1e-12;
constexpr int64_t kCheckpointCopies = 4;  // Of the weights: with moments and slack, at most.

// One Train() of a few steps.
struct Series {
  int64_t batch = 0;
  int64_t warm_steps = 0;
  int64_t steps = 0;
  bool last = false;  // Also evaluates and saves.
};

class Probe {
 public:
  Probe(const ProbeArguments& arguments, const World& world, ReportFile& report)
      : arguments_(arguments), world_(world), report_(report), scratch_(world) {}

  void Run();
  void Abandon() { scratch_.Remove(); }

 private:
  bool root() const { return world_.rank() == 0; }
  void Say(const std::string& line) const;
  std::vector<int64_t> Batches() const;
  RunConfig ConfigOf(const Series& series) const;
  bool KeepsResident() const;
  bool TrainsOnFeatures() const;
  int64_t WarmSteps() const {
    return std::max<int64_t>(kLeastWarmSteps, config_.data.prefetch_batches + 1);
  }
  int64_t NewPictures(int64_t steps, int64_t batch) const;
  int64_t EvaluatedSamples(const Series& series) const;
  void MeasureReading();
  void TakeSample(int64_t steps, int64_t batch);
  void TimeNewPictures(int64_t steps, config::ProbedStage& stage);
  void RunStage(config::ProbedStage& stage);
  void RunSeries(const Series& series, config::ProbedStage& stage);
  void ReadEnd(const StepTimes& times, const std::filesystem::path& directory,
               config::ProbedStage& stage) const;
  int64_t PeakBytes() const;

  const ProbeArguments& arguments_;
  const World& world_;
  ReportFile& report_;
  const Scratch scratch_;
  RunConfig config_;  // Resolved for this world; batches are each series's own.
  int64_t own_micro_batch_ = 0;
  TrainingData data_;
  std::unique_ptr<SampledDataset> train_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Communicator> communicator_;
  int64_t free_bytes_ = 0;  // Of the GPU, before the first step.
  bool keeps_pictures_ = false;
  int64_t stages_ = 1;
  int directories_ = 0;
};

void Probe::Say(const std::string& line) const {
  if (!root()) return;
  std::fprintf(stderr, "probe: %s\n", line.c_str());
  std::fflush(stderr);
}

std::vector<int64_t> Probe::Batches() const {
  std::vector<int64_t> batches =
      arguments_.batches.empty() ? config::ProbeBatches(config_.training.batch_size_per_rank, {})
                                 : arguments_.batches;
  std::sort(batches.begin(), batches.end());
  batches.erase(std::unique(batches.begin(), batches.end()), batches.end());
  return batches;
}

RunConfig Probe::ConfigOf(const Series& series) const {
  RunConfig config = config_;
  config.training.batch_size_per_rank = series.batch;
  config.training.global_batch_size = series.batch * world_.size();
  config.training.micro_batch_size =
      own_micro_batch_ > 0 ? std::min(own_micro_batch_, series.batch) : series.batch;
  config.training.duration = config::Duration::Steps(static_cast<double>(series.steps));
  config.training.eval_every = {};
  config.training.early_stopping = {};
  config.training.max_nonfinite_steps = static_cast<int>(series.steps);
  config.training.log_every_steps = series.steps;
  config.checkpoint.every = {};
  if (series.last) {
    const auto before_last = config::Duration::Steps(static_cast<double>(series.steps - 1));
    config.checkpoint.every = before_last;
    // The one at the end finds its pictures kept, as all later ones do.
    if (keeps_pictures_) config.training.eval_every = before_last;
  }
  config.optimizer.learning_rate = kHardlyLearning;
  config.schedule = {};
  config.cost = {};
  config.model.unfreeze_after = {};
  config.model.pretrained.clear();  // Weights of any kind take as long.
  config.data.cache_folder = (scratch_.path() / "cache").string();
  // Whether the data stay in the GPU's memory is a matter of all of them, not of the sample.
  if (!KeepsResident()) config.data.resident = config::Use::kNever;
  return config;
}

bool Probe::KeepsResident() const {
  if (config_.data.resident != config::Use::kAuto) {
    return config_.data.resident == config::Use::kAlways;
  }
  return device_->is_gpu() && ResidentSet::BytesOf(*data_.train) <= free_bytes_ / 4;
}

// What the ledger will count as read from the data set, and whether decoded pictures are kept.
void Probe::MeasureReading() {
  const std::vector<int64_t> opened = world_.AllGather(InputBytes());
  report_->opened_bytes = std::accumulate(opened.begin(), opened.end(), int64_t{0});
  if (root()) {
    const SampleBytes bytes = ReadSamples(*data_.train);
    keeps_pictures_ = !KeepsResident() && bytes.first > 0 && bytes.again == 0;
    report_->sample_bytes = bytes.first;
    report_->sample_bytes_again = KeepsResident() ? 0 : bytes.again;
  }
  keeps_pictures_ = world_.BroadcastText(keeps_pictures_ ? "1" : "0", 0) == "1";
  if (keeps_pictures_ && !device_->is_gpu() &&
      config_.data.cache != config::PictureCacheKind::kDisk) {
    const Dataset& data = *data_.train;
    report_->kept_bytes = (data.size() + data_.eval->size() / world_.size()) * data.width() *
                          data.height() * data.channels();
  }
}

bool Probe::TrainsOnFeatures() const {
  return config_.model.freeze != "none" && WhyNoFeatures(config_).empty();
}

// Enough that no picture is read twice where the data have as many.
int64_t Probe::NewPictures(int64_t steps, int64_t batch) const {
  return (steps + config_.data.prefetch_batches + 1) * batch * world_.size();
}

// What the steps are timed with. Few where each would go through a frozen trunk first; few where
// pictures are kept, and read beforehand, since most steps of the run find theirs.
void Probe::TakeSample(int64_t steps, int64_t batch) {
  const bool few = TrainsOnFeatures() || keeps_pictures_;
  train_ = std::make_unique<SampledDataset>(
      *data_.train, few ? 2 * batch * world_.size() : NewPictures(steps, batch));
  if (keeps_pictures_ && !TrainsOnFeatures()) {
    ReadAhead(*train_, config_.data.augment, std::max(1, config_.data.prefetch_threads));
  }
}

// How much longer a step takes whose pictures are new. Not told of a data set that has too few.
void Probe::TimeNewPictures(int64_t steps, config::ProbedStage& stage) {
  const int64_t batch = stage.steps.back().local_batch;
  // Some of them were read beforehand.
  const double new_share = 1 - static_cast<double>(train_->size()) / data_.train->size();
  while (steps > 0 && NewPictures(steps, batch) > data_.train->size()) --steps;
  if (steps < WarmSteps() + kFewestTimed + kLastSteps) return;
  train_ = std::make_unique<SampledDataset>(*data_.train, NewPictures(steps, batch));
  config::ProbedStage first;
  RunSeries({batch, WarmSteps(), steps, /*last=*/false}, first);
  const double more = first.steps.back().seconds - stage.steps.back().seconds;
  stage.first_read_seconds = std::max(0.0, more) / new_share / static_cast<double>(batch);
}

int64_t Probe::EvaluatedSamples(const Series& series) const {
  if (!series.last) return 0;
  const int64_t share = std::clamp(8 * series.batch, kLeastEvaluated, kMostEvaluated);
  return std::min(data_.eval->size(), share * world_.size());
}

int64_t Probe::PeakBytes() const {
  int64_t bytes = PeakHostBytes();
  if (device_->is_gpu()) {
    bytes = free_bytes_ - device_->FreeBytes();
    c10::getDeviceAllocator(device_->torch().type())->emptyCache();
  }
  const std::vector<int64_t> all = world_.AllGather(bytes);
  return *std::max_element(all.begin(), all.end());
}

void Probe::RunSeries(const Series& series, config::ProbedStage& stage) {
  report_->attempting = series.batch;
  report_.Write();
  const RunConfig config = ConfigOf(series);
  const config::RunDirectory directory(scratch_.path() / absl::StrCat("run-", ++directories_));
  std::unique_ptr<Claim> claim;
  if (root()) {
    auto taken = Claim::Take(directory, 1, 0.5);
    if (!taken.ok()) throw CheckpointFailed(std::string(taken.status().message()));
    claim = *std::move(taken);
  }
  world_.BroadcastText("", 0);  // The folder is there.

  const SampledDataset eval(*data_.eval, EvaluatedSamples(series));
  StepTimes times(series.warm_steps, series.steps - kLastSteps);
  TrainSetup setup{config, *train_, eval, directory, /*attempt=*/1, *device_, *communicator_};
  setup.one_host = world_.ranks_on_host() == world_.size();
  setup.terminal = false;
  setup.keep = series.last;
  setup.on_step = [&times](Session& run) { times.Begin(run); };
  const Outcome outcome = Train(setup);
  if (outcome.exit != TrainerExit::kCompleted) {
    throw Refusal{outcome.exit, "the probe was asked to stop"};
  }

  config::ProbedStep step = times.Result();
  step.local_batch = series.batch;
  step.peak_bytes = PeakBytes();
  Say(absl::StrCat(world_.size(), world_.size() == 1 ? " rank, " : " ranks, ", series.batch,
                   " samples a rank: ", std::round(1e5 * step.seconds) / 100, " ms a step"));
  if (&stage == &report_->first && stage.steps.empty()) {
    report_->startup_seconds = times.startup_seconds();
    report_->cache_seconds = times.Before(Phase::kEval);
    if (report_->cache_seconds > 0) {
      report_->cached_samples = train_->size() * config.model.feature_views + eval.size();
    }
  }
  stage.steps.push_back(std::move(step));
  stage.reduced_bytes = times.reduced_bytes();
  report_->attempting = 0;
  stage.evaluated_samples = eval.size();
  if (series.last && root()) ReadEnd(times, directory.root(), stage);
  report_.Write();
  std::error_code error;
  if (root()) std::filesystem::remove_all(directory.root(), error);
}

// What came behind the steps: result.json has the phases of all, `times` those until the last step.
void Probe::ReadEnd(const StepTimes& times, const std::filesystem::path& directory,
                    config::ProbedStage& stage) const {
  const config::RunDirectory run(directory);
  const auto text = config::ReadFile(run.result());
  if (!text.ok()) throw CheckpointFailed(std::string(text.status().message()));
  const nlohmann::json phases = nlohmann::json::parse(*text).at("phase_seconds");
  const auto since_last_step = [&](Phase phase) {
    return phases.at(config::PhaseName(phase)).get<double>() - times.UntilLast(phase);
  };
  stage.evaluation_seconds = since_last_step(Phase::kEval);
  stage.first_evaluation_seconds =
      keeps_pictures_ ? times.BetweenLast(Phase::kEval) : stage.evaluation_seconds;
  stage.checkpoint_stall_seconds = times.BetweenLast(Phase::kCheckpointStall);
  stage.checkpoint_write_seconds = since_last_step(Phase::kCheckpointStall);
  int64_t bytes = 0;
  int64_t written = 0;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(run.checkpoints(), error), end;
       !error && entry != end; entry.increment(error)) {
    if (entry->is_regular_file()) bytes += static_cast<int64_t>(entry->file_size());
    if (entry->path().filename() == "manifest.json") ++written;
  }
  stage.checkpoint_bytes = written > 0 ? bytes / written : 0;
}

void Probe::RunStage(config::ProbedStage& stage) {
  const std::vector<int64_t> batches = Batches();
  const int64_t warm = WarmSteps();
  const bool new_pictures = keeps_pictures_ && !TrainsOnFeatures();
  const auto series = static_cast<int64_t>(batches.size()) + (new_pictures ? 1 : 0);
  const int64_t least = warm + kFewestTimed + kLastSteps;
  const int64_t least_in_all = least * series * stages_;
  const int64_t in_all =
      arguments_.max_steps > 0 ? arguments_.max_steps : std::max(kUsualSteps, least_in_all);
  if (in_all < least_in_all) {
    throw Refusal{TrainerExit::kBadConfig,
                  absl::StrCat("--max-steps ", in_all, " is too few: ", series, " batch sizes",
                               stages_ > 1 ? ", frozen and unfrozen," : "", " take at least ",
                               least, " steps each, ", least_in_all, " in all")};
  }
  const int64_t each = in_all / (series * stages_);
  TakeSample(each, batches.back());
  for (const int64_t batch : batches) {
    bool last = batch == batches.back();
    if (last && root()) {
      std::error_code error;
      const auto space = std::filesystem::space(scratch_.path(), error);
      // Without room for the checkpoints the run would wait for it for ever.
      last = !error && static_cast<int64_t>(space.available) >
                           2 * kCheckpointCopies * stage.reduced_bytes + (64 << 20);
      if (!last) Say("no room in the temporary folder to time a checkpoint and an evaluation");
    }
    last = world_.BroadcastText(last ? "1" : "0", 0) == "1";
    RunSeries({batch, warm, each, last}, stage);
  }
  if (new_pictures) TimeNewPictures(each, stage);
}

void Probe::Run() {
  config_ = LoadConfig(arguments_.config_file, arguments_.set, world_);
  CheckWorld(arguments_.config_file, world_, config_);
  own_micro_batch_ = config_.training.micro_batch_size;
  config_.resources.ranks = world_.size();
  config_ = config::Resolve(config_, MachineOf(world_));
  const std::string cache_folder = config_.data.cache_folder;
  config_.data.cache_folder = (scratch_.path() / "cache").string();
  BindRank({.local_rank = world_.local_rank(),
            .ranks_on_host = world_.ranks_on_host(),
            .threads = config_.resources.threads_per_rank});
  data_ = OpenData(config_);
  RunConfig own = config_;  // Closed now; the stages change it.
  own.data.cache_folder = cache_folder;
  CheckThatRanksAgree(world_, data_);
  const int64_t host_bytes = AvailableHostBytes() / world_.ranks_on_host();
  device_ = OpenRankDevice(config_, world_);
  free_bytes_ = device_->FreeBytes();
  communicator_ = world_.MakeCommunicator(
      *device_, std::chrono::milliseconds(
                    static_cast<int64_t>(1000 * config_.resources.collective_timeout_seconds)));
  const std::string name = device_->Describe();
  report_->ranks = world_.size();
  report_->threads_per_rank = config_.resources.threads_per_rank;
  report_->gpu = device_->is_gpu();
  report_->device = report_->gpu ? name.substr(0, name.find(", ")) : "cpu";
  report_->train_samples = data_.train->size();
  report_->eval_samples = data_.eval->size();
  report_->micro_batch_size = own_micro_batch_;
  const std::vector<int64_t> available =
      world_.AllGather(device_->is_gpu() ? free_bytes_ : host_bytes);
  report_->available_bytes = *std::min_element(available.begin(), available.end());

  const bool unfreezes = !config_.model.unfreeze_after.is_zero() && config_.model.freeze != "none";
  stages_ = unfreezes ? 2 : 1;
  MeasureReading();
  RunStage(report_->first);
  if (unfreezes) {
    config_.model.freeze = "none";
    RunStage(report_->unfrozen);
  }
  // Last: the weights that it loads are no part of the peaks.
  report_->features_are_cached = root() && report_->cached_samples > 0 &&
                                 HasEarlierFeatures(own, data_, *device_, *communicator_);
  report_->all_reduces =
      TimeAllReduces(*communicator_, *device_,
                     std::max(report_->first.reduced_bytes, report_->unfrozen.reduced_bytes));
  report_.Write();
}

// Memory is an answer; everything else is why there is none.
int Told(ReportFile& report, const World& world, const Failure& failure) {
  const auto code = static_cast<int>(failure.exit);
  if (failure.exit == TrainerExit::kOutOfMemory && report->attempting > 0) {
    std::fprintf(stderr, "probe: rank %d: %lld samples a rank do not fit: %s\n", world.rank(),
                 static_cast<long long>(report->attempting), failure.message.c_str());
    report->does_not_fit = report->attempting;
    report->does_not_fit_why = failure.message;
    (void)report.TryWrite();  // stderr has it too.
    return code;
  }
  std::fprintf(stderr, "lockstep-trainer probe: rank %d: %s: %s\n", world.rank(),
               Describe(failure.exit), failure.message.c_str());
  return code;
}

}  // namespace

bool IsProbe(const std::string& word) {
  return word == "probe";
}

int ProbeMain(int argc, char** argv) {
  ProbeArguments arguments;
  bool finished = false;
  if (const int code = ParseArguments(argc, argv, arguments, finished); finished) return code;
  CatchSignals();
  KeepFreedHostMemory();
  const World world(&argc, &argv);
  ReportFile report(arguments.out, world.rank() == 0);
  // What the runs say of themselves is of no interest here.
  if (std::freopen("/dev/null", "w", stdout) == nullptr) return 1;
  std::unique_ptr<Probe> probe;
  try {
    probe = std::make_unique<Probe>(arguments, world, report);
    probe->Run();
    return 0;
  } catch (const Refusal& refusal) {
    if (world.rank() == 0) {
      std::fprintf(stderr, "lockstep-trainer probe: %s\n", refusal.message.c_str());
    }
    return static_cast<int>(refusal.exit);
  } catch (...) {
    const Failure failure = Classify();
    const int code = Told(report, world, failure);
    if (world.size() == 1 || Agreed(failure.exit)) return code;
    if (probe) probe->Abandon();
    world.Abort(code);
  }
}

}  // namespace lockstep::trainer
