#include "trainer/step/precision.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

namespace lockstep::trainer {
namespace {

constexpr double kFirstScale = 65536;
constexpr double kGrowth = 2;
constexpr double kBackoff = 0.5;
constexpr int64_t kGrowAfter = 2000;

}  // namespace

PrecisionScope::PrecisionScope(config::Precision precision, at::DeviceType device)
    : active_(precision != config::Precision::kFp32), device_(device) {
  if (!active_) return;
  before_ = at::autocast::is_autocast_enabled(device_);
  at::autocast::set_autocast_dtype(
      device_, precision == config::Precision::kBf16 ? at::kBFloat16 : at::kHalf);
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::increment_nesting();
}

PrecisionScope::~PrecisionScope() {
  if (!active_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, before_);
}

LossScale::LossScale(config::Precision precision, at::Device device) {
  if (precision != config::Precision::kFp16) return;
  scale_ = at::full({1}, kFirstScale, at::TensorOptions().dtype(at::kFloat).device(device));
  steps_ = at::zeros({1}, at::TensorOptions().dtype(at::kInt).device(device));
}

at::Tensor LossScale::Apply(const at::Tensor& loss) const {
  return scale_.defined() ? loss.mul(scale_.squeeze()) : loss;
}

at::Tensor LossScale::Inverse() const {
  return scale_.defined() ? scale_.squeeze().reciprocal() : at::Tensor();
}

void LossScale::Update(const at::Tensor& found_nonfinite) {
  if (!scale_.defined()) return;
  const at::NoGradGuard no_grad;
  at::_amp_update_scale_(scale_, steps_, found_nonfinite, kGrowth, kBackoff, kGrowAfter);
}

NamedTensors LossScale::State() const {
  if (!scale_.defined()) return {};
  return {{.name = "loss_scale", .tensor = scale_}, {.name = "loss_scale_steps", .tensor = steps_}};
}

}  // namespace lockstep::trainer
