// Batch norm in training over the samples that all ranks put through the model at once: what one
// rank with all of them would compute.
//
// Forward is one collective: every rank learns the count, mean and squared deviations of every
// other and merges them in the same order (Chan, Golub, LeVeque 1979, "Updating Formulae and a
// Pairwise Algorithm for Computing Sample Variances"), which loses no digits where the mean is
// large against the deviation. Backward is one more. So every rank has to take part with equally
// many batches, one without samples too, or the others wait for it; evaluation uses the running
// statistics and no collective.
//
// The collectives run on the thread that runs forward or backward, and the result is awaited:
// buckets of gradients that are under way are waited for as well.
#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/comm/communicator.h"

namespace lockstep::trainer {

struct SyncBatchNormOptions {
  double momentum = 0.1;  // Share of this batch in the running statistics.
  double epsilon = 1e-5;
};

/// input: [n, channels, height, width], n may be 0; float32 or, under autocast, bfloat16 or half,
/// which the result then is, too. The statistics and their gradients are float32. The running ones
/// move by the global mean and unbiased variance. `communicator` outlives the backward pass.
at::Tensor SyncBatchNorm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& running_mean, const at::Tensor& running_var,
                         Communicator& communicator, const SyncBatchNormOptions& options = {});

}  // namespace lockstep::trainer
