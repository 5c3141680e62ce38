// The first ranks of several hosts talking to each other over MPI, with a deadline.
//
// MPI's own collectives wait for ever and never say for whom. So the first ranks tell each other
// that they have arrived before each collective; who has not said so by the deadline is named. Used
// by the main thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/comm/rendezvous.h"

namespace lockstep::trainer {

class MpiBridge {
 public:
  struct Impl;
  explicit MpiBridge(std::unique_ptr<Impl> impl);
  ~MpiBridge();

  // Each throws CommunicatorLost when a host does not arrive in time, when MPI reports an error, or
  // when `host` is aborted meanwhile. In place.
  void AllReduce(Rendezvous& host, float* data, int64_t count);
  void AllReduce(Rendezvous& host, double* data, int64_t count);
  void AllReduce(Rendezvous& host, int64_t* data, int64_t count);
  void Broadcast(Rendezvous& host, std::byte* data, int64_t bytes, int root);
  void Barrier(Rendezvous& host);

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::trainer
