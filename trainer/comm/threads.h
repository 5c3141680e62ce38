// The ranks as threads of one process: how tests run a whole world, any size, without mpirun.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "trainer/comm/communicator.h"

namespace lockstep::trainer {

struct ThreadsOptions {
  std::chrono::milliseconds deadline{std::chrono::seconds(60)};
};

/// One communicator per rank, each to be used by one thread.
std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int world_size,
                                                                   ThreadsOptions options = {});

}  // namespace lockstep::trainer
