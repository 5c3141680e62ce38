#include "launch/launcher/host_gpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::launch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class HostGpusTest : public ::testing::Test {
 protected:
  HostGpusTest() {
    for (const char* pci : {"0000:17:00.0", "0000:65:00.0", "0000:b3:00.0"}) {
      std::filesystem::create_directories(folder_ / pci);
    }
  }
  ~HostGpusTest() override { std::filesystem::remove_all(folder_); }
  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) / ("gpus-" + std::to_string(getpid()));
};

TEST_F(HostGpusTest, OneForEachThatTheDriverShows) {
  EXPECT_THAT(HostGpus(nullptr, folder_), ElementsAre("0", "1", "2"));
}
TEST_F(HostGpusTest, NoneWithoutADriver) {
  EXPECT_THAT(HostGpus(nullptr, folder_ / "nowhere"), IsEmpty());
  EXPECT_THAT(HostGpus("0,1", folder_ / "nowhere"), IsEmpty());
}
TEST_F(HostGpusTest, OnlyThoseTheCoordinatorItselfMaySee) {
  EXPECT_THAT(HostGpus("2, GPU-8f3a", folder_), ElementsAre("2", "GPU-8f3a"));
  EXPECT_THAT(HostGpus("1,-1,2", folder_), ElementsAre("1"));
  EXPECT_THAT(HostGpus("", folder_), IsEmpty());
}

}  // namespace
}  // namespace lockstep::launch
