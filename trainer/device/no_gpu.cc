// The profile cpu: there are no GPUs.
#include <stdexcept>

#include "trainer/device/device.h"

namespace lockstep::trainer {

int GpuCount() {
  return 0;
}

std::string WhyNoGpu() {
  return "this lockstep-trainer is of the profile cpu; scripts/setup --cuda and scripts/build cuda "
         "make one for GPUs";
}

std::unique_ptr<Device> OpenGpu(int index, const DeviceOptions& options) {
  throw std::runtime_error(WhyNoGpu());
}

}  // namespace lockstep::trainer
