// A communicator that shows each collective on a trace and leaves the work to another one.
//
// Only made when a run is profiled: other runs pay nothing. Where AllReduce() returns before the
// sum is there, its event is the handing over and "wait" the rest.
#pragma once

#include <memory>
#include <utility>

#include "trainer/comm/communicator.h"
#include "trainer/trace.h"

namespace lockstep::trainer {

class TracedCommunicator final : public Communicator {
 public:
  /// `trace` outlives this.
  TracedCommunicator(std::unique_ptr<Communicator> communicator, Trace& trace)
      : communicator_(std::move(communicator)), trace_(trace) {}

  int rank() const override { return communicator_->rank(); }
  int size() const override { return communicator_->size(); }
  at::Tensor Allocate(int64_t elements) override { return communicator_->Allocate(elements); }
  void AllReduce(const at::Tensor& tensor) override {
    const TraceScope scope = Show("all-reduce", tensor.nbytes());
    communicator_->AllReduce(tensor);
  }
  void Wait() override {
    const TraceScope scope = Show("wait", -1);
    communicator_->Wait();
  }
  void Broadcast(const at::Tensor& tensor, int root) override {
    const TraceScope scope = Show("broadcast", tensor.nbytes());
    communicator_->Broadcast(tensor, root);
  }
  void Barrier() override {
    const TraceScope scope = Show("barrier", -1);
    communicator_->Barrier();
  }
  void Await(EventHandle event) override {
    const TraceScope scope = Show("await", -1);
    communicator_->Await(event);
  }
  void Check() override { communicator_->Check(); }
  std::string Describe() const override { return communicator_->Describe(); }
  std::string History() const override { return communicator_->History(); }
  void Abort(std::string_view reason) noexcept override { communicator_->Abort(reason); }

 private:
  TraceScope Show(const char* name, int64_t bytes) {
    return {&trace_, Trace::Row::kCollectives, name, bytes};
  }

  std::unique_ptr<Communicator> communicator_;
  Trace& trace_;
};

}  // namespace lockstep::trainer
