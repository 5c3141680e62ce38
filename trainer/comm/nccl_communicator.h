// The communicator of GPUs: NCCL for what lies in their memory, the host's communicator for the
// rest.
//
// Hides: the exchange of NCCL's id, non-blocking communicators, the side stream and its events,
// errors that NCCL reports later, deadlines, and an abort that may itself hang. Callers see sums
// that are there for whatever they enqueue after Wait(), and an Await() that returns or throws.
//
// A sum of GPU memory is enqueued on a side stream of high priority, behind what the caller's
// stream has enqueued so far; the host never waits in AllReduce() and Wait(). So all of it can be
// captured in a CUDA graph. What goes wrong on the device is found by Await(), which is where the
// host waits for results anyway. Tensors of any other device, the few that ranks use to agree among
// hosts, go to the host communicator.
//
// One rank needs no NCCL: nothing is loaded, sums are what they are.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "trainer/comm/collective_log.h"
#include "trainer/comm/communicator.h"
#include "trainer/comm/nccl_library.h"
#include "trainer/device/device.h"

namespace lockstep::trainer {

struct NcclOptions {
  std::chrono::milliseconds deadline{std::chrono::seconds(60)};
  // A communicator that is broken may not even abort. Its memory is left behind then.
  std::chrono::milliseconds abort_deadline{std::chrono::seconds(10)};
  std::string library_file{};  // As NcclLibrary::Open().
};

class NcclCommunicator : public Communicator {
 public:
  /// Collective. `device` must outlive this. Throws CommunicatorLost, and std::runtime_error where
  /// NCCL does not fit or two ranks have the same GPU.
  NcclCommunicator(std::unique_ptr<Communicator> host, Device& device, NcclOptions options);
  ~NcclCommunicator() override;

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  at::Tensor Allocate(int64_t elements) override;
  void AllReduce(const at::Tensor& tensor) override;
  void Wait() override;
  void Broadcast(const at::Tensor& tensor, int root) override;
  void Barrier() override { host_->Barrier(); }
  void Await(EventHandle event) override;
  void Check() override;
  void Abort(std::string_view reason) noexcept override;
  std::string Describe() const override;
  std::string History() const override;

 private:
  // A call on the communicator; nullptr when it was aborted meanwhile.
  using Call = std::function<nccl::Result(nccl::Comm*)>;

  std::vector<int64_t> Gather(int64_t value);  // Every rank's, by rank, over the host communicator.
  void RefuseSharedGpus();
  void RefuseOtherVersions();
  nccl::UniqueId ShareId();
  void Connect();
  bool Mine(const at::Tensor& tensor) const { return tensor.device() == device_.torch(); }
  // Enqueues one collective behind what the caller's stream holds so far.
  void Enqueue(const char* kind, const at::Tensor& tensor, const Call& call);
  // After a call: waits until the host's part of it is done, never for the device.
  void Settle(const std::string& doing, nccl::Result result);
  nccl::Result AsyncError();
  std::string Explain(nccl::Result result);
  [[noreturn]] void Fail(const std::string& what);

  std::unique_ptr<Communicator> host_;
  Device& device_;
  NcclOptions options_;
  std::shared_ptr<const NcclLibrary> library_;
  std::timed_mutex calls_;        // Held during each call on comm_; none of them waits for a peer.
  nccl::Comm* comm_ = nullptr;    // Guarded by calls_. Taken by whoever aborts or destroys it.
  EventHandle filled_ = nullptr;  // On the caller's stream: the tensor is ready.
  EventHandle summed_ = nullptr;  // On the side stream: all sums begun so far are there.
  bool pending_ = false;          // Sums begun since the last Wait().
  CollectiveLog log_;
};

}  // namespace lockstep::trainer
