#include "trainer/step/precision.h"

#include <gtest/gtest.h>

#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

namespace lockstep::trainer {
namespace {

using config::Precision;

TEST(PrecisionScopeTest, ProductsAreComputedInTheChosenFormat) {
  const at::Tensor a = at::ones({4, 8});
  const at::Tensor w = at::ones({3, 8});
  const auto type = [&](Precision precision) {
    const PrecisionScope scope(precision, at::kCPU);
    return at::linear(a, w).scalar_type();
  };
  EXPECT_EQ(type(Precision::kFp32), at::kFloat);
  EXPECT_EQ(type(Precision::kBf16), at::kBFloat16);
  EXPECT_EQ(type(Precision::kFp16), at::kHalf);
  EXPECT_EQ(type(Precision::kFp32), at::kFloat) << "the scope has ended";
}

TEST(LossScaleTest, OtherFormatsHaveNone) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    LossScale scale(precision, at::kCPU);
    EXPECT_EQ(scale.Apply(at::full({}, 3.0)).item<double>(), 3.0);
    EXPECT_FALSE(scale.Inverse().defined());
    EXPECT_TRUE(scale.State().empty());
    scale.Update(at::ones({}));
  }
}

TEST(LossScaleTest, HalvesOnOverflowAndDoublesAfterTwoThousandSteps) {
  LossScale scale(Precision::kFp16, at::kCPU);
  const at::Tensor fine = at::zeros({});
  const at::Tensor overflow = at::ones({});
  EXPECT_EQ(scale.Apply(at::ones({})).item<float>(), 65536.0f);
  EXPECT_EQ(scale.Apply(at::ones({})).mul(scale.Inverse()).item<float>(), 1.0f);
  scale.Update(overflow);
  scale.Update(overflow);
  EXPECT_EQ(scale.Apply(at::ones({})).item<float>(), 16384.0f);
  for (int step = 0; step < 1999; ++step) scale.Update(fine);
  EXPECT_EQ(scale.Apply(at::ones({})).item<float>(), 16384.0f);
  scale.Update(fine);
  EXPECT_EQ(scale.Apply(at::ones({})).item<float>(), 32768.0f);
}

TEST(LossScaleTest, IsRestoredThroughItsState) {
  LossScale before(Precision::kFp16, at::kCPU);
  before.Update(at::ones({}));
  for (int step = 0; step < 1990; ++step) before.Update(at::zeros({}));
  LossScale after(Precision::kFp16, at::kCPU);
  const NamedTensors from = before.State();
  const NamedTensors to = after.State();
  ASSERT_EQ(from.size(), to.size());
  for (size_t i = 0; i < from.size(); ++i) {
    EXPECT_EQ(from[i].name, to[i].name);
    to[i].tensor.copy_(from[i].tensor);
  }
  for (int step = 0; step < 10; ++step) after.Update(at::zeros({}));
  EXPECT_EQ(after.Apply(at::ones({})).item<float>(), 65536.0f) << "ten steps were missing";
}

}  // namespace
}  // namespace lockstep::trainer
