#include "trainer/probe/arguments.h"

#include <CLI/CLI.hpp>

#include "config/exit_code.h"

namespace lockstep::trainer {

int ParseArguments(int argc, char** argv, ProbeArguments& arguments, bool& finished) {
  CLI::App app{
      "Measures what a run would take: time of a step at several batch sizes, of an all-reduce, an "
      "evaluation and a checkpoint, and memory.\nStart it with mpirun: mpirun -np 2 "
      "lockstep-trainer probe run.yaml --out probe.json",
      "lockstep-trainer probe"};
  app.add_option("config", arguments.config_file, "The run's YAML file")->required();
  app.add_option("--set", arguments.set, "Override one setting: --set training.precision=bf16")
      ->allow_extra_args(false);
  app.add_option("--out", arguments.out, "Write the measurements to this file, as JSON")
      ->required();
  app.add_option("--batches", arguments.batches,
                 "Samples per rank to try; default: the run's and less")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app.add_option("--max-steps", arguments.max_steps,
                 "Make at most so many steps in all (default: 60, or what the sizes take at least)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  finished = true;
  try {
    app.parse(argc - 1, argv + 1);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(config::TrainerExit::kBadConfig);
  }
  finished = false;
  return 0;
}

}  // namespace lockstep::trainer
