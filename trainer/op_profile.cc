#include "trainer/op_profile.h"

#include <ATen/Context.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <set>

namespace lockstep::trainer {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

OpProfile::OpProfile() {
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (at::globalContext().hasCUDA()) activities.insert(ActivityType::CUDA);
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  running_ = true;
}

OpProfile::~OpProfile() {
  if (running_) profiler::disableProfiler();
}

std::vector<ProfiledOp> OpProfile::Take() {
  running_ = false;
  const auto result = profiler::disableProfiler();
  std::vector<ProfiledOp> ops;
  for (const profiler::KinetoEvent& event : result->events()) {
    ProfiledOp op;
    op.name = event.name();
    op.on_device = event.deviceType() != c10::DeviceType::CPU;
    op.lane = op.on_device ? event.deviceResourceId() : static_cast<int64_t>(event.startThreadId());
    op.began_ns = static_cast<int64_t>(event.startNs());
    op.ended_ns = static_cast<int64_t>(event.endNs());
    ops.push_back(std::move(op));
  }
  return ops;
}

}  // namespace lockstep::trainer
