// The communicator of processes: memory shared by the ranks of a host, MPI between hosts.
//
// The memory is a memfd that the first rank of the host makes and the others open through /proc: it
// has no name that could be left behind, and is not limited by the size of /dev/shm (64 MB in many
// containers). It is reserved when allocated, so too little memory is an error here and not a bus
// error in the middle of a step. The ranks of a host must share the process-id namespace, as the
// children of one mpirun do.
//
// MPI is only used to get started and between hosts. Abort() reaches the ranks of this host; those
// of others end at their deadline, or by World::Abort().
#pragma once

#include <mpi.h>

#include <chrono>
#include <memory>

#include "trainer/comm/communicator.h"

namespace lockstep::trainer {

struct SharedWindowOptions {
  std::chrono::milliseconds deadline{std::chrono::seconds(60)};
  // Treats every so many ranks as a host of their own; 0 = as the machines are. For tests, which
  // have one machine.
  int ranks_per_host = 0;
};

/// Collective over `world`. Throws CommunicatorLost when memory cannot be shared.
std::unique_ptr<Communicator> MakeSharedWindowCommunicator(MPI_Comm world,
                                                           SharedWindowOptions options = {});

}  // namespace lockstep::trainer
