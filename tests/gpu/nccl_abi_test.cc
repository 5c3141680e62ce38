// The declarations of trainer/comm/nccl_library.h against NCCL's own header. Compiling is most of
// the test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <cstddef>
#include <type_traits>

#include "trainer/comm/nccl_library.h"

namespace lockstep::trainer {
namespace {

// The part of ncclConfig_t that 2.19 has: NCCL is told its size and asks for no more.
static_assert(offsetof(nccl::Config, size) == offsetof(ncclConfig_t, size));
static_assert(offsetof(nccl::Config, magic) == offsetof(ncclConfig_t, magic));
static_assert(offsetof(nccl::Config, version) == offsetof(ncclConfig_t, version));
static_assert(offsetof(nccl::Config, blocking) == offsetof(ncclConfig_t, blocking));
static_assert(offsetof(nccl::Config, cga_cluster_size) == offsetof(ncclConfig_t, cgaClusterSize));
static_assert(offsetof(nccl::Config, min_ctas) == offsetof(ncclConfig_t, minCTAs));
static_assert(offsetof(nccl::Config, max_ctas) == offsetof(ncclConfig_t, maxCTAs));
static_assert(offsetof(nccl::Config, net_name) == offsetof(ncclConfig_t, netName));
static_assert(offsetof(nccl::Config, split_share) == offsetof(ncclConfig_t, splitShare));
static_assert(sizeof(nccl::Config) <= sizeof(ncclConfig_t));
static_assert(sizeof(nccl::UniqueId) == sizeof(ncclUniqueId));
static_assert(sizeof(nccl::Result) == sizeof(ncclResult_t));

static_assert(int{nccl::kSuccess} == int{ncclSuccess});
static_assert(int{nccl::kUnhandledCudaError} == int{ncclUnhandledCudaError});
static_assert(int{nccl::kSystemError} == int{ncclSystemError});
static_assert(int{nccl::kInternalError} == int{ncclInternalError});
static_assert(int{nccl::kInvalidArgument} == int{ncclInvalidArgument});
static_assert(int{nccl::kInvalidUsage} == int{ncclInvalidUsage});
static_assert(int{nccl::kRemoteError} == int{ncclRemoteError});
static_assert(int{nccl::kInProgress} == int{ncclInProgress});
static_assert(int{nccl::kUint8} == int{ncclUint8});
static_assert(int{nccl::kInt64} == int{ncclInt64});
static_assert(int{nccl::kFloat32} == int{ncclFloat32});
static_assert(int{nccl::kFloat64} == int{ncclFloat64});
static_assert(int{nccl::kSum} == int{ncclSum});

TEST(NcclAbiTest, TheConfigStartsAsNcclsOwnInitializer) {
  const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
  const nccl::Config ours;
  EXPECT_EQ(ours.magic, theirs.magic);
  EXPECT_EQ(ours.blocking, theirs.blocking);
  EXPECT_EQ(ours.cga_cluster_size, theirs.cgaClusterSize);
  EXPECT_EQ(ours.min_ctas, theirs.minCTAs);
  EXPECT_EQ(ours.max_ctas, theirs.maxCTAs);
  EXPECT_EQ(ours.net_name, theirs.netName);
  EXPECT_EQ(ours.split_share, theirs.splitShare);
}

TEST(NcclAbiTest, TheLibraryBesideLibTorchHasAllThatIsCalled) {
  const auto library = NcclLibrary::Open();
  EXPECT_EQ(library->version(), NCCL_VERSION_CODE) << "the header's and the library's";
  EXPECT_THAT(library->get_error_string(nccl::kInvalidUsage),
              ::testing::StartsWith("invalid usage"));
}

}  // namespace
}  // namespace lockstep::trainer
