// The communicator of ranks that share memory: threads of a process, or the processes of one host,
// joined by MPI where there are several hosts.
//
// Each rank owns a window of every shared region. An all-reduce of window memory copies nothing:
// after a barrier each rank sums its slice from all windows, in rank order, and writes it to all
// windows; a second barrier ends it. Other tensors go through a staging window in chunks. With
// several hosts the slices go to the first rank's window only, the first ranks sum theirs over MPI,
// and everyone copies the result.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "trainer/comm/collective_log.h"
#include "trainer/comm/mpi_bridge.h"
#include "trainer/comm/rendezvous.h"

namespace lockstep::trainer {

// Zeroed memory with one window for each rank of the host, as this rank sees it.
struct SharedRegion {
  std::shared_ptr<void> memory;
  std::vector<std::byte*> windows;  // By index on the host; multiples of 64.
  int64_t bytes = 0;                // Of one window.
};

class HostCommunicator : public Communicator {
 public:
  struct Parts {
    std::shared_ptr<void> rendezvous_memory;
    RendezvousOptions rendezvous;
    int rank = 0;  // In the world.
    // Collective among the ranks of the host. The argument is the size of one window in bytes.
    std::function<SharedRegion(Rendezvous&, int64_t)> make_region;
    bool several_hosts = false;
    std::unique_ptr<MpiBridge> bridge;  // With several hosts, on the first rank of each.
  };
  explicit HostCommunicator(Parts parts);

  int rank() const override { return parts_.rank; }
  int size() const override { return parts_.rendezvous.world_size; }
  at::Tensor Allocate(int64_t elements) override;
  void AllReduce(const at::Tensor& tensor) override;
  void Wait() override {}
  void Broadcast(const at::Tensor& tensor, int root) override;
  void Barrier() override;
  void Check() override { rendezvous_.Check(); }
  std::string History() const override { return log_.ToString(); }
  std::string Describe() const override {
    return parts_.several_hosts ? "shared memory, MPI between hosts" : "shared memory";
  }
  void Abort(std::string_view reason) noexcept override;

 private:
  void Begin(const char* kind, const Collective& collective);
  SharedRegion MakeRegion(int64_t bytes);
  const SharedRegion& Staging();
  const SharedRegion* Find(const std::byte* data, int64_t bytes) const;
  template <typename T>
  void SumWindows(const SharedRegion& region, int64_t offset_bytes, int64_t count);
  template <typename T>
  void SumTensor(const at::Tensor& tensor);
  void MeetAfterBridge();
  int index() const { return parts_.rendezvous.index; }

  Parts parts_;
  Rendezvous rendezvous_;
  std::vector<SharedRegion> regions_;
  CollectiveLog log_;
  SharedRegion staging_;  // Made when first needed, which is the same collective on every rank.
};

}  // namespace lockstep::trainer
