#include "trainer/device/peak_flops.h"

#include <gtest/gtest.h>

namespace lockstep::trainer {
namespace {

using config::Precision;

TEST(PeakFlopsTest, GoesByTheGpusNameAndTheArithmetic) {
  EXPECT_EQ(PeakFlops("NVIDIA H200, 139.8 GiB (GPU 0)", Precision::kBf16, true), 989.4e12);
  EXPECT_EQ(PeakFlops("NVIDIA A100-SXM4-80GB", Precision::kFp32, true), 156e12);
  EXPECT_EQ(PeakFlops("NVIDIA A100-SXM4-80GB", Precision::kFp32, false), 19.5e12);
  EXPECT_EQ(PeakFlops("NVIDIA H100 PCIe", Precision::kFp16, true), 756.5e12);
  EXPECT_EQ(PeakFlops("NVIDIA H100 80GB HBM3", Precision::kFp16, true), 989.4e12);
}

TEST(PeakFlopsTest, DoesNotTakeOneNameForAnother) {
  EXPECT_EQ(PeakFlops("NVIDIA L40", Precision::kBf16, true), 0) << "no L4";
  EXPECT_EQ(PeakFlops("NVIDIA L40S", Precision::kBf16, true), 362.1e12);
  EXPECT_EQ(PeakFlops("NVIDIA A1000", Precision::kBf16, true), 0) << "neither A10 nor A100";
  EXPECT_EQ(PeakFlops("NVIDIA H100 NVL, 93.1 GiB (GPU 0)", Precision::kBf16, true), 835.5e12);
  EXPECT_EQ(PeakFlops("Tesla V100-PCIE-16GB", Precision::kFp16, true), 112e12);
  EXPECT_EQ(PeakFlops("Tesla V100-SXM2-16GB", Precision::kFp16, true), 125e12);
  EXPECT_EQ(PeakFlops("NVIDIA GeForce RTX 3090 Ti", Precision::kFp32, false), 40e12);
  EXPECT_EQ(PeakFlops("NVIDIA GeForce RTX 4090 Laptop GPU", Precision::kBf16, true), 0)
      << "another chip";
  EXPECT_EQ(PeakFlops("NVIDIA H100 80GB HBM3 MIG 1g.10gb", Precision::kBf16, true), 0)
      << "a seventh of one";
  EXPECT_EQ(PeakFlops("CPU", Precision::kFp32, true), 0);
  EXPECT_EQ(PeakFlops("", Precision::kFp32, true), 0);
}

}  // namespace
}  // namespace lockstep::trainer
