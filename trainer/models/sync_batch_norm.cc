#include "trainer/models/sync_batch_norm.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/var_mean.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>

#include <tuple>

namespace lockstep::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kSamplesAndPixels[] = {0, 2, 3};  // Dimensions.

// Per channel -> to be combined with [n, channels, height, width].
at::Tensor Broadcastable(const at::Tensor& per_channel) {
  return per_channel.view({1, -1, 1, 1});
}

struct Statistics {
  at::Tensor count;     // 0-dim float64: values per channel over all ranks.
  at::Tensor mean;      // float64 [channels]
  at::Tensor variance;  // float64 [channels], biased.
};

// Of all ranks' inputs; the same bits on every rank.
Statistics GlobalStatistics(const at::Tensor& input, Communicator& communicator) {
  const int64_t channels = input.size(1);
  // A row per rank: [mean | sum of squared deviations | count]. Each fills its own; the sum over
  // ranks is then everyone's. In float64, so that nothing is lost where float32 sums are merged.
  const at::Tensor all =
      at::zeros({communicator.size(), 2 * channels + 1}, input.options().dtype(at::kDouble));
  if (input.numel() > 0) {
    const auto count = static_cast<double>(input.numel() / channels);
    const auto [variance, mean] =
        at::var_mean(input.to(at::kFloat), kSamplesAndPixels, /*unbiased=*/false);
    const at::Tensor mine = all.select(0, communicator.rank());
    mine.narrow(0, 0, channels).copy_(mean);
    mine.narrow(0, channels, channels).copy_(variance).mul_(count);
    mine.narrow(0, 2 * channels, 1).fill_(count);
  }
  communicator.AllReduce(all);
  communicator.Wait();

  const at::Tensor means = all.narrow(1, 0, channels);
  const at::Tensor counts = all.narrow(1, 2 * channels, 1);
  Statistics global;
  global.count = counts.sum();
  global.mean = means.mul(counts).sum(0).div_(global.count);
  const at::Tensor between = means.sub(global.mean).square_().mul_(counts).sum(0);
  global.variance = all.narrow(1, channels, channels).sum(0).add_(between).div_(global.count);
  return global;
}

class SyncBatchNormFunction : public torch::autograd::Function<SyncBatchNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& running_mean, const at::Tensor& running_var,
                            Communicator* communicator, double momentum, double epsilon) {
    // All of this is float32 or better, whatever autocast would choose.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const Statistics global = GlobalStatistics(input, *communicator);
    const at::Tensor mean = global.mean.to(at::kFloat);
    const at::Tensor inverse_deviation = global.variance.add(epsilon).rsqrt_().to(at::kFloat);
    // As torch does: normalized with the biased variance, remembered with the unbiased one.
    const at::Tensor unbiased =
        global.variance.mul(global.count).div_(global.count.sub(1).clamp_min_(1));
    running_mean.mul_(1 - momentum).add_(mean, momentum);
    running_var.mul_(1 - momentum).add_(unbiased.to(at::kFloat), momentum);

    context->save_for_backward({input, weight, mean, inverse_deviation, global.count});
    context->saved_data["communicator"] = reinterpret_cast<int64_t>(communicator);
    const at::Tensor centred = input.to(at::kFloat).sub(Broadcastable(mean));
    return at::addcmul(Broadcastable(bias), centred, Broadcastable(weight.mul(inverse_deviation)))
        .to(input.scalar_type());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& input = saved[0];
    const at::Tensor& weight = saved[1];
    const at::Tensor& mean = saved[2];
    const at::Tensor& inverse_deviation = saved[3];
    const at::Tensor& count = saved[4];
    auto* communicator =
        reinterpret_cast<Communicator*>(context->saved_data["communicator"].toInt());
    const int64_t channels = input.size(1);
    const at::Tensor gradient = gradients[0].to(at::kFloat);
    const at::Tensor centred = input.to(at::kFloat).sub(Broadcastable(mean));

    // Sums over this rank's samples: what weight and bias get from it; the arena adds up the ranks.
    const at::Tensor bias_gradient = gradient.sum(kSamplesAndPixels);
    const at::Tensor weight_gradient =
        gradient.mul(centred).sum(kSamplesAndPixels).mul_(inverse_deviation);

    // Every sample of every rank moves mean and variance, so its gradient needs everyone's sums.
    const at::Tensor sums = at::zeros({2, channels}, count.options());
    sums.select(0, 0).copy_(bias_gradient);
    sums.select(0, 1).copy_(weight_gradient);
    communicator->AllReduce(sums);
    communicator->Wait();
    const at::Tensor means = sums.div_(count).to(at::kFloat);

    // weight / deviation x (gradient - its mean - normalized x mean of gradient x normalized)
    const at::Tensor slope = means.select(0, 1).mul(inverse_deviation);
    at::Tensor input_gradient = gradient.sub(Broadcastable(means.select(0, 0)))
                                    .addcmul_(centred, Broadcastable(slope), -1)
                                    .mul_(Broadcastable(weight.mul(inverse_deviation)))
                                    .to(input.scalar_type());
    return {input_gradient, weight_gradient, bias_gradient, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor SyncBatchNorm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& running_mean, const at::Tensor& running_var,
                         Communicator& communicator, const SyncBatchNormOptions& options) {
  return SyncBatchNormFunction::apply(input, weight, bias, running_mean, running_var, &communicator,
                                      options.momentum, options.epsilon);
}

}  // namespace lockstep::trainer
