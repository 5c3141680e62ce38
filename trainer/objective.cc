#include "trainer/objective.h"

#include <ATen/core/Reduction.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cross_entropy_loss.h>

namespace lockstep::trainer {

Objective ObjectiveOf(const at::Tensor& logits, const at::Tensor& labels, double label_smoothing) {
  Objective result;
  // In float32 whatever the model computed in: sums over a large batch lose too much in bfloat16.
  const at::Tensor scores = logits.to(at::kFloat);
  result.loss_sum =
      at::cross_entropy_loss(scores, labels, {}, at::Reduction::Sum, -100, label_smoothing);
  at::NoGradGuard no_grad;
  result.correct = scores.argmax(1).eq(labels).sum().to(at::kFloat);
  return result;
}

}  // namespace lockstep::trainer
