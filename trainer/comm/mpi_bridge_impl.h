// What only the files of comm/ that include mpi.h see of MpiBridge.
#pragma once

#include <mpi.h>

#include <vector>

#include "trainer/comm/mpi_bridge.h"

namespace lockstep::trainer {

struct MpiBridge::Impl {
  MPI_Comm leaders = MPI_COMM_NULL;  // The first rank of each host, in order of hosts. Owned.
  int host = 0;                      // Of this rank: its rank in `leaders`.
  std::vector<int> host_of_rank;     // By world rank.
};

}  // namespace lockstep::trainer
