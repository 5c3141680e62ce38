#include "trainer/batches/targets.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace lockstep::trainer {
namespace {

// Two floats lie in a word.
int64_t WordsOfFloats(int64_t count) {
  return (count + 1) / 2;
}

}  // namespace

Targets MakeTargets(const TargetShape& shape, int64_t samples, at::Device device) {
  const auto floats = at::TensorOptions().dtype(at::kFloat).device(device);
  const auto values = [&] {
    return shape.numbers == 0 ? at::empty({samples}, floats.dtype(at::kLong))
                              : at::empty({samples, shape.numbers}, floats);
  };
  Targets targets;
  targets.values = values();
  if (shape.mixed) {
    targets.mixed_with = values();
    targets.share = at::empty({samples}, floats);
  }
  return targets;
}

void CopyTargets(const Targets& from, const Targets& to) {
  to.values.copy_(from.values, /*non_blocking=*/true);
  if (!from.mixed_with.defined()) return;
  to.mixed_with.copy_(from.mixed_with, /*non_blocking=*/true);
  to.share.copy_(from.share, /*non_blocking=*/true);
}

TargetWords::TargetWords(const TargetShape& shape, int64_t samples)
    : values(shape.numbers == 0 ? samples : WordsOfFloats(samples * shape.numbers)),
      mixed_with(shape.mixed ? values : 0),
      share(shape.mixed ? WordsOfFloats(samples) : 0) {}

Targets TargetsAt(const TargetShape& shape, int64_t samples, const at::Tensor& words,
                  int64_t begin) {
  const TargetWords count(shape, samples);
  const auto floats = [&](int64_t first, int64_t taken, int64_t numbers) {
    return words.narrow(0, first, taken).view(at::kFloat).narrow(0, 0, numbers);
  };
  const auto values = [&](int64_t first) {
    if (shape.numbers == 0) return words.narrow(0, first, samples);
    return floats(first, count.values, samples * shape.numbers).view({samples, shape.numbers});
  };
  Targets targets;
  targets.values = values(begin);
  if (shape.mixed) {
    targets.mixed_with = values(begin + count.values);
    targets.share = floats(begin + 2 * count.values, count.share, samples);
  }
  return targets;
}

TargetWriter::TargetWriter(const TargetShape& shape, const Targets& targets)
    : shape_(shape),
      values_(targets.values.mutable_data_ptr()),
      mixed_with_(shape.mixed ? targets.mixed_with.mutable_data_ptr() : nullptr),
      share_(shape.mixed ? targets.share.mutable_data_ptr<float>() : nullptr) {}

void TargetWriter::Mix(int64_t sample, const Sample& with, float share) const {
  Write(sample, with, mixed_with_);
  share_[sample] = share;
}

void TargetWriter::Write(int64_t sample, const Sample& from, void* to) const {
  if (shape_.numbers == 0) {
    static_cast<int64_t*>(to)[sample] = from.label;
    return;
  }
  if (static_cast<int64_t>(from.targets.size()) != shape_.numbers) {
    throw std::logic_error("a sample has " + std::to_string(from.targets.size()) +
                           " targets, not " + std::to_string(shape_.numbers));
  }
  std::copy(from.targets.begin(), from.targets.end(),
            static_cast<float*>(to) + sample * shape_.numbers);
}

}  // namespace lockstep::trainer
