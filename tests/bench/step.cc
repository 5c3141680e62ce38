// R3, R8, R13: what a whole training step takes with one thing changed, in turns in one process.
//
//   [mpirun -np 2] bench-step run.yaml --change precision|loader|checkpoint [--blocks 5] [--steps
//   10]
//
// precision: the step in bf16 against fp32. loader: with the run's data set read, augmented and
// prefetched, against the same tensors reused. checkpoint: while a checkpoint is being written
// behind the step, against no checkpoint. The contenders "on" and "off" take turns in blocks of
// steps; one sample is the median step of a block (for checkpoint: the mean, since a write disturbs
// some steps and not others). Made of the trainer's own parts, in train.cc's order.
#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "config/load.h"
#include "config/run_directory.h"
#include "tests/bench/measure.h"
#include "trainer/affinity.h"
#include "trainer/batches/batches.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/comm/world.h"
#include "trainer/host_memory.h"
#include "trainer/objective/loss.h"
#include "trainer/replica.h"
#include "trainer/step/precision.h"

namespace lockstep::bench {
namespace {

using config::Precision;
using trainer::Batch;

struct Options {
  std::string config_file;
  std::string change = "precision";
  std::string folder;
  int blocks = 5;
  int steps = 10;
};

class Trainee {
 public:
  Trainee(const config::RunConfig& config, const trainer::World& world)
      : config_(config),
        world_(world),
        data_(trainer::OpenDataset({.config = config, .split = trainer::Split::kTrain})),
        communicator_(world.MakeCommunicator(*device_, std::chrono::seconds(300))) {
    config_.model.num_classes = static_cast<int>(data_->classes().size());
    replica_ = std::make_unique<trainer::Replica>(
        config_, trainer::InputShape{data_->channels(), data_->height(), data_->width()},
        /*frozen=*/0, *device_, *communicator_);
  }

  std::unique_ptr<trainer::Batches> Loader() const {
    trainer::BatchesOptions options;
    options.seed = config_.seed;
    options.global_batch = config_.training.global_batch_size;
    options.rank = world_.rank();
    options.world_size = world_.size();
    options.threads = config_.data.prefetch_threads;
    options.depth = config_.data.prefetch_batches;
    options.augment = config_.data.augment;
    return std::make_unique<trainer::Batches>(*data_, options);
  }

  void Step(const Batch& batch, Precision precision) {
    trainer::GradientArena& arena = replica_->arena();
    const auto global_batch = static_cast<double>(config_.training.global_batch_size);
    arena.ZeroGradients();
    arena.BeginLastBackward();
    trainer::Objective objective;
    {
      const trainer::PrecisionScope scope(precision, at::kCPU);
      objective = loss_(replica_->model().Forward(batch.images), batch.targets);
    }
    objective.loss_sum.div(global_batch).backward();
    arena.Reduce(static_cast<double>(batch.targets.size()) / global_batch);
    replica_->optimizer().Step(learning_rate_, arena.found_nonfinite());
  }

  trainer::Communicator& communicator() { return *communicator_; }
  trainer::Replica& replica() { return *replica_; }

 private:
  config::RunConfig config_;
  const trainer::World& world_;
  std::unique_ptr<trainer::Device> device_ = trainer::OpenCpu();
  std::unique_ptr<trainer::Dataset> data_;
  std::unique_ptr<trainer::Communicator> communicator_;
  std::unique_ptr<trainer::Replica> replica_;
  const trainer::Loss loss_{{}, at::kCPU};
  at::Tensor learning_rate_ = at::full({}, 1e-3);
};

void ComparePrecision(Trainee& trainee, const Options& options, Samples& samples) {
  const Batch batch = trainee.Loader()->Next();
  const auto fp32 = [&] { trainee.Step(batch, Precision::kFp32); };
  const auto bf16 = [&] { trainee.Step(batch, Precision::kBf16); };
  for (int block = 0; block < options.blocks; ++block) {
    // The first step after a change builds the convolutions' plans for the other format.
    fp32();
    samples["off"].push_back(MedianOf(options.steps, fp32));
    bf16();
    samples["on"].push_back(MedianOf(options.steps, bf16));
  }
}

void CompareLoader(Trainee& trainee, const Options& options, Samples& samples) {
  const Batch same = trainee.Loader()->Next();
  constexpr int kWarm = 3;
  for (int block = 0; block < options.blocks; ++block) {
    // No loader is alive: nothing is read ahead at the expense of these steps.
    const auto off = [&] { trainee.Step(same, Precision::kFp32); };
    for (int i = 0; i < kWarm; ++i) off();
    samples["off"].push_back(MedianOf(options.steps, off));
    const auto loader = trainee.Loader();
    const auto on = [&] { trainee.Step(loader->Next(), Precision::kFp32); };
    for (int i = 0; i < kWarm; ++i) on();
    samples["on"].push_back(MedianOf(options.steps, on));
  }
}

void CompareCheckpoint(Trainee& trainee, const Options& options, bool root, Samples& samples) {
  const Batch batch = trainee.Loader()->Next();
  const auto step = [&] { trainee.Step(batch, Precision::kFp32); };
  std::unique_ptr<trainer::CheckpointStore> store;
  std::unique_ptr<trainer::CheckpointWriter> writer;
  if (root) {
    store = std::make_unique<trainer::CheckpointStore>(
        options.folder, 1, trainer::Retention{.keep_last = 1, .keep_best = 0});
    if (const auto opened = store->Open(); !opened.ok()) {
      throw std::runtime_error(std::string(opened.message()));
    }
    writer = std::make_unique<trainer::CheckpointWriter>(*store);
  }
  const trainer::NamedTensors weights = trainee.replica().Weights();
  const trainer::NamedTensors optimizer = trainee.replica().OptimizerState();
  if (root) writer->Prepare(weights, optimizer);
  for (int i = 0; i < 3; ++i) step();
  for (int block = 0; block < options.blocks; ++block) {
    const auto steps = [&] {
      for (int i = 0; i < options.steps; ++i) step();
    };
    samples["off"].push_back(Milliseconds(steps) / options.steps);
    // A write is always under way: the next begins when the one before has ended. The stall of
    // taking the snapshot is not counted here; it has a row of its own.
    double stalled_ms = 0;
    const double total_ms = Milliseconds([&] {
      for (int i = 0; i < options.steps; ++i) {
        if (root && !writer->busy()) {
          stalled_ms +=
              1e3 * writer->Save(block * options.steps + i + 1, weights, optimizer, "{}", {});
        }
        step();
      }
    });
    samples["on"].push_back((total_ms - stalled_ms) / options.steps);
    samples["stall"].push_back(stalled_ms);
    if (root) samples["write"].push_back(1e3 * writer->Wait().write_seconds);
    trainee.communicator().Barrier();
  }
}

int Run(const trainer::World& world, const Options& options) {
  const auto text = config::ReadFile(options.config_file, 1u << 20);
  auto loaded = config::LoadRunConfig(text.ok() ? *text : "", options.config_file, {});
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.Report().c_str());
    return 2;
  }
  config::RunConfig config = loaded.config;
  config.resources.ranks = world.size();
  config = config::Resolve(config, {world.size(), world.ranks_on_host(), trainer::CoresOfHost()});
  const trainer::Binding binding = trainer::BindRank(
      {world.local_rank(), world.ranks_on_host(), config.resources.threads_per_rank});
  at::set_num_threads(config.resources.threads_per_rank);
  Trainee trainee(config, world);
  Samples samples;
  const bool root = world.rank() == 0;
  if (options.change == "precision") ComparePrecision(trainee, options, samples);
  if (options.change == "loader") CompareLoader(trainee, options, samples);
  if (options.change == "checkpoint") CompareCheckpoint(trainee, options, root, samples);
  if (!root) return 0;
  const nlohmann::json out = {{"samples", samples},
                              {"ranks", world.size()},
                              {"threads", config.resources.threads_per_rank},
                              {"binding", binding.text}};
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace lockstep::bench

int main(int argc, char** argv) {
  lockstep::bench::Options options;
  CLI::App app{"R3, R8, R13: a training step with one thing changed"};
  app.add_option("config", options.config_file)->required();
  app.add_option("--change", options.change)
      ->check(CLI::IsMember({"precision", "loader", "checkpoint"}));
  app.add_option("--folder", options.folder, "For checkpoint: where to write");
  app.add_option("--blocks", options.blocks);
  app.add_option("--steps", options.steps);
  CLI11_PARSE(app, argc, argv);
  lockstep::trainer::KeepFreedHostMemory();
  const lockstep::trainer::World world(&argc, &argv);
  return lockstep::bench::Run(world, options);
}
