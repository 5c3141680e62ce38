// The loss and the count of right answers, as sums over samples, ready to be added up over
// micro-batches and ranks.
#pragma once

#include <ATen/core/Tensor.h>

namespace lockstep::trainer {

struct Objective {
  at::Tensor loss_sum;  // 0-dim float32, with grad: cross-entropy summed over the samples.
  at::Tensor correct;   // 0-dim float32: samples whose largest logit is the label's.
};

/// logits [n, classes], labels int64 [n], n > 0. `label_smoothing` in [0, 1): share of the target
/// spread evenly over all classes.
Objective ObjectiveOf(const at::Tensor& logits, const at::Tensor& labels, double label_smoothing);

}  // namespace lockstep::trainer
