// R8: how long a checkpoint holds the step loop up. ResNet-18 with SGD and momentum (two floats a
// parameter), saved by the trainer's own writer; against copying as many bytes in memory.
//
//   bench-checkpoint --folder DIR [--rounds 7] [--threads 1]
//
// "ours": what Save() takes with the write before it finished; "first": the very first one; "copy":
// memcpy of the same bytes, one thread, into memory that was used before; "write": until the
// checkpoint is durable, behind the step loop.
#include <ATen/Parallel.h>
#include <ATen/ops/full_like.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "config/load.h"
#include "tests/bench/measure.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/comm/threads.h"
#include "trainer/replica.h"

namespace lockstep::bench {
namespace {

struct Options {
  std::string folder;
  int rounds = 7;
  int threads = 1;
};

int64_t BytesOf(const trainer::NamedTensors& tensors) {
  int64_t bytes = 0;
  for (const auto& tensor : tensors) bytes += static_cast<int64_t>(tensor.tensor.nbytes());
  return bytes;
}

int Run(const Options& options) {
  at::set_num_threads(options.threads);
  config::RunConfig config;
  config.model.name = "resnet18";
  config.model.num_classes = 10;
  const auto communicators = trainer::MakeThreadCommunicators(1);
  const auto cpu = trainer::OpenCpu();
  trainer::Replica replica(config, {}, /*frozen=*/0, *cpu, *communicators[0]);
  const trainer::NamedTensors weights = replica.Weights();
  const trainer::NamedTensors optimizer = replica.OptimizerState();
  const int64_t bytes = BytesOf(weights) + BytesOf(optimizer);
  const std::vector<std::byte> source(bytes, std::byte{1});
  std::vector<std::byte> copy(bytes, std::byte{2});

  trainer::CheckpointStore store(options.folder, 1, {.keep_last = 1, .keep_best = 0});
  if (const auto opened = store.Open(); !opened.ok()) {
    std::fprintf(stderr, "%s\n", std::string(opened.message()).c_str());
    return 1;
  }
  trainer::CheckpointWriter writer(store);
  writer.Prepare(weights, optimizer);
  Samples samples;
  int64_t step = 0;
  const auto save = [&](const char* contender) {
    const double seconds = writer.Save(++step, weights, optimizer, "{}", std::nullopt);
    samples[contender].push_back(1e3 * seconds);
    const trainer::WriteResult result = writer.Wait();
    if (!result.status.ok()) throw std::runtime_error(std::string(result.status.message()));
    samples["write"].push_back(1e3 * result.write_seconds);
  };
  save("first");
  for (int round = 0; round < options.rounds; ++round) {
    save("ours");
    samples["copy"].push_back(
        Milliseconds([&] { std::memcpy(copy.data(), source.data(), source.size()); }));
  }
  const nlohmann::json out = {
      {"samples", samples}, {"bytes", bytes}, {"check", static_cast<int>(copy[bytes / 2])}};
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace lockstep::bench

int main(int argc, char** argv) {
  lockstep::bench::Options options;
  CLI::App app{"R8: how long a checkpoint holds the step loop up"};
  app.add_option("--folder", options.folder)->required();
  app.add_option("--rounds", options.rounds);
  app.add_option("--threads", options.threads);
  CLI11_PARSE(app, argc, argv);
  return lockstep::bench::Run(options);
}
