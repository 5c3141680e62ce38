// The ranks of a run talking to each other: the only way anything gets from one rank to another.
//
// Every rank calls the same members in the same order with tensors of the same shape and dtype. Not
// thread-safe: one thread of a rank at a time. A member that throws CommunicatorLost leaves the
// communicator unusable; there is no recovery inside a collective: the gang ends and restarts from
// its checkpoint.
//
// AllReduce() may return before the sum is there (a GPU backend works on its own stream, so buckets
// travel while backward goes on). After Wait() every sum begun so far is there for whatever the
// caller enqueues next; the host itself only waits in Await(). On the CPU backends AllReduce() does
// it all.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "trainer/device/device.h"

namespace lockstep::trainer {

// A peer died, aborted, or did not arrive before the deadline. what() names the collective and the
// missing ranks.
class CommunicatorLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// Zeroed float32 tensor of shape [elements], memory the backend reduces without copying (host
  /// memory shared by the ranks, or the GPU's). Collective. Lives as long as the communicator. Any
  /// other tensor may be reduced, at the cost of a copy.
  virtual at::Tensor Allocate(int64_t elements) = 0;

  /// Element-wise sum over ranks, in place; contiguous float32, float64 or int64. Every rank gets
  /// the same bits, again when repeated: the terms are added in rank order (the sums of several
  /// hosts in the order that MPI chooses). An empty tensor is allowed.
  virtual void AllReduce(const at::Tensor& tensor) = 0;
  virtual void Wait() = 0;

  /// Contiguous tensor of any dtype, from `root` to all, in place.
  virtual void Broadcast(const at::Tensor& tensor, int root) = 0;
  virtual void Barrier() = 0;

  /// The host waits until what was enqueued before `event` was recorded has run. This is where a
  /// GPU backend finds what went wrong on the device: throws CommunicatorLost for an error of a
  /// collective, a peer that is gone, and a deadline that passes. Returns at once on the CPU.
  virtual void Await(EventHandle event) {}

  /// Throws CommunicatorLost when this communicator was aborted or a peer on this host is gone.
  /// Never waits.
  virtual void Check() {}

  virtual std::string Describe() const = 0;  // "NCCL 2.28.9", "shared memory"

  /// The newest collectives of this rank, oldest first, one a line: for whoever looks into a hang.
  virtual std::string History() const { return ""; }

  /// Makes every collective of every rank, those under way too, throw CommunicatorLost with
  /// `reason`; the first reason is kept. Safe from any thread, also twice. Reaches the ranks of
  /// this host at once; those of other hosts find out at their deadline.
  virtual void Abort(std::string_view reason) noexcept = 0;
};

}  // namespace lockstep::trainer
