#include "trainer/step/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace lockstep::trainer {

struct Optimizer::Impl {
  Impl(const config::OptimizerConfig& config, GradientArena& arena);

  // One decay group: views of the flat tensors.
  struct Group {
    at::Tensor parameters;
    at::Tensor gradients;
    at::Tensor first;   // Momentum, or Adam's exp_avg; undefined without momentum.
    at::Tensor second;  // Adam's exp_avg_sq.
    double weight_decay = 0;
    double rate_ratio = 1;
  };
  void StepSgd(const Group& group, const at::Tensor& learning_rate, const at::Tensor& found);
  void StepAdam(const Group& group, const at::Tensor& learning_rate, const at::Tensor& found);

  config::OptimizerConfig config;
  GradientArena& arena;
  at::Tensor first;   // Flat, laid out as the parameters.
  at::Tensor second;  // Likewise.
  at::Tensor steps;   // Updates made: skipped steps do not count.
  std::vector<Group> groups;
};

Optimizer::Impl::Impl(const config::OptimizerConfig& config, GradientArena& arena)
    : config(config), arena(arena) {
  const at::Tensor& parameters = arena.parameters();
  const bool adam = config.kind != config::OptimizerKind::kSgd;
  if (adam || config.momentum != 0) first = at::zeros_like(parameters);
  if (adam) second = at::zeros_like(parameters);
  steps = at::zeros({}, parameters.options());
  for (const ArenaSlice& slice : arena.slices()) {
    const auto part = [&slice](const at::Tensor& flat) {
      return flat.defined() ? flat.narrow(0, slice.offset, slice.size) : at::Tensor();
    };
    const bool decays = slice.decay || config.decay_norm_and_bias;
    groups.push_back({.parameters = part(parameters),
                      .gradients = part(arena.gradients()),
                      .first = part(first),
                      .second = part(second),
                      .weight_decay = decays ? config.weight_decay : 0.0,
                      .rate_ratio = slice.trunk ? config.backbone_ratio : 1.0});
  }
}

void Optimizer::Impl::StepSgd(const Group& group, const at::Tensor& learning_rate,
                              const at::Tensor& found) {
  const std::vector<at::Tensor> momentum =
      group.first.defined() ? std::vector<at::Tensor>{group.first} : std::vector<at::Tensor>{};
  // torch::optim starts the momentum as a copy of the first gradient. From a buffer of zeros the
  // usual rule gives the same (0 * momentum + gradient, no dampening), so no step is special, also
  // not after a resume.
  at::_fused_sgd_({group.parameters}, {group.gradients}, momentum, group.weight_decay,
                  config.momentum, learning_rate, /*dampening=*/0.0, config.nesterov,
                  /*maximize=*/false, /*is_first_step=*/false, /*grad_scale=*/{}, found);
}

void Optimizer::Impl::StepAdam(const Group& group, const at::Tensor& learning_rate,
                               const at::Tensor& found) {
  // Lists of one tensor each, borrowed for this call.
  const at::TensorList parameters(group.parameters);
  const at::TensorList gradients(group.gradients);
  const at::TensorList exp_avg(group.first);
  const at::TensorList exp_avg_sq(group.second);
  const at::TensorList count(steps);
  const auto& c = config;
  if (c.kind == config::OptimizerKind::kAdam) {
    at::_fused_adam_(parameters, gradients, exp_avg, exp_avg_sq, /*max_exp_avg_sqs=*/{}, count,
                     learning_rate, c.beta1, c.beta2, group.weight_decay, c.epsilon,
                     /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found);
  } else {
    at::_fused_adamw_(parameters, gradients, exp_avg, exp_avg_sq, /*max_exp_avg_sqs=*/{}, count,
                      learning_rate, c.beta1, c.beta2, group.weight_decay, c.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found);
  }
}

Optimizer::Optimizer(const config::OptimizerConfig& config, GradientArena& arena)
    : impl_(std::make_unique<Impl>(config, arena)) {}
Optimizer::~Optimizer() = default;

void Optimizer::Step(const at::Tensor& learning_rate, const at::Tensor& found_nonfinite) {
  const at::NoGradGuard no_grad;
  // Adam's bias correction wants the number of this update; it is taken back when the kernels skip.
  impl_->steps.add_(1);
  for (const Impl::Group& group : impl_->groups) {
    const at::Tensor rate =
        group.rate_ratio == 1 ? learning_rate : learning_rate.mul(group.rate_ratio);
    if (impl_->config.kind == config::OptimizerKind::kSgd) {
      impl_->StepSgd(group, rate, found_nonfinite);
    } else {
      impl_->StepAdam(group, rate, found_nonfinite);
    }
  }
  impl_->steps.sub_(found_nonfinite);
}

NamedTensors Optimizer::State() const {
  NamedTensors state;
  const bool adam = impl_->config.kind != config::OptimizerKind::kSgd;
  const auto add = [&](const at::Tensor& flat, const char* prefix) {
    if (!flat.defined()) return;
    for (NamedTensor& view : impl_->arena.Views(flat, prefix)) state.push_back(std::move(view));
  };
  add(impl_->first, adam ? "exp_avg." : "momentum.");
  add(impl_->second, "exp_avg_sq.");
  state.push_back({.name = "steps", .tensor = impl_->steps});
  return state;
}

}  // namespace lockstep::trainer
