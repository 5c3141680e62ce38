// `mpirun -np N lockstep-trainer probe run.yaml --out FILE [--batches 8,16,32] [--max-steps N]`:
// what a run takes on these devices, measured with the run's own step loop.
//
// For each local batch size Train() itself makes a few steps of the real model on the real devices
// over a sample of the real data, in a run directory under the temporary folder that is gone
// afterwards. Learning rates are set to next to nothing, so that no batch size can make the loss
// run away; nothing of the user's is written, caches on disk included. Step, evaluation, checkpoint
// and start are timed, all-reduces of several sizes too, and each rank's peak of memory is read.
// What comes out is config/probe_report.h, replaced after each size.
//
// Memory that is used up is an answer: the report says which batch size did not fit, and the exit
// code is TrainerExit::kOutOfMemory. Sizes are tried in rising order, so all smaller ones are
// measured by then. Other exit codes are those of training.
#pragma once

#include <string>

namespace lockstep::trainer {

/// "probe": the first argument is this verb and no file.
bool IsProbe(const std::string& word);

/// Parses and runs, from MPI_Init to the exit code; `argv[1]` is the verb.
int ProbeMain(int argc, char** argv);

}  // namespace lockstep::trainer
