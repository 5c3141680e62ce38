// The training of one run on one rank: Train() is the step loop, in the order in which things
// happen.
//
// Every rank calls it with the same config; all of them return the same outcome, or throw. What is
// thrown, and the exit code it means, is listed in main.cc.
#pragma once

#include "trainer/train_setup.h"

namespace lockstep::trainer {

Outcome Train(const TrainSetup& setup);

}  // namespace lockstep::trainer
