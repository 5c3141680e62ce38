// MPI as this program uses it: who am I, who is on my host, and the communicator for this machine.
//
// What the rest of the trainer sees of MPI; mpi.h is included inside comm/ alone.
// MPI is used from the main thread (MPI_THREAD_FUNNELED).
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "trainer/comm/communicator.h"

namespace lockstep::trainer {

class World {
 public:
  World(int* argc, char*** argv);  // MPI_Init_thread. Without mpirun this is a world of one.
  ~World();  // MPI_Finalize, unless an exception is on its way or Abort() was called.
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const;
  int size() const;
  int local_rank() const;  // Among the ranks of this host.
  int ranks_on_host() const;
  const std::string& host() const;

  /// Rank 0's text on every rank. Collective.
  std::string BroadcastText(const std::string& text, int root) const;
  /// Every rank's text, by rank, on every rank. Collective.
  std::vector<std::string> GatherTexts(const std::string& text) const;
  /// Every rank's value, by rank, on every rank. Collective.
  std::vector<int64_t> AllGather(int64_t value) const;

  /// Ends every rank of this world with `exit_code`; does not return.
  [[noreturn]] void Abort(int exit_code) const;

  /// NCCL among GPUs; for the CPU shared memory among the ranks of a host and MPI between hosts.
  /// Collective. `device` must outlive it.
  std::unique_ptr<Communicator> MakeCommunicator(Device& device,
                                                 std::chrono::milliseconds deadline) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::trainer
