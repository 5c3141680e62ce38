#include "metrics/devices/rapl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace lockstep::metrics {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class RaplTest : public ::testing::Test {
 protected:
  RaplTest() {
    std::string pattern = (fs::temp_directory_path() / "lockstep-rapl-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~RaplTest() override { fs::remove_all(folder_); }

  void Package(const std::string& zone, const std::string& name, const std::string& microjoules) {
    fs::create_directories(folder_ / zone);
    std::ofstream(folder_ / zone / "name") << name << "\n";
    std::ofstream(folder_ / zone / "energy_uj") << microjoules << "\n";
    std::ofstream(folder_ / zone / "max_energy_range_uj") << "262143328850\n";
  }
  fs::path folder_;
};

TEST_F(RaplTest, AddsThePackagesSinceTheFirstCall) {
  Package("intel-rapl:0", "package-0", "5000000");
  Package("intel-rapl:1", "package-1", "9000000");
  Rapl rapl(folder_);
  EXPECT_EQ(rapl.EnergyJoules(0), 0.0);
  Package("intel-rapl:0", "package-0", "7500000");
  Package("intel-rapl:1", "package-1", "10000000");
  EXPECT_DOUBLE_EQ(rapl.EnergyJoules(0).value(), 3.5);
  EXPECT_EQ(rapl.trouble(), "");
}

TEST_F(RaplTest, ACounterThatWrapsGoesOn) {
  Package("intel-rapl:0", "package-0", "262143000000");
  Rapl rapl(folder_);
  rapl.EnergyJoules(0);
  Package("intel-rapl:0", "package-0", "671150");
  EXPECT_DOUBLE_EQ(rapl.EnergyJoules(1).value(), 1.0);
}

TEST_F(RaplTest, ACounterThatASuspendedHostBeganAnewHasNotWrapped) {
  Package("intel-rapl:0", "package-0", "100000000000");
  Rapl rapl(folder_);
  rapl.EnergyJoules(10);
  Package("intel-rapl:0", "package-0", "1000000");
  EXPECT_DOUBLE_EQ(rapl.EnergyJoules(11).value(), 0) << "162 kJ in a second";
  Package("intel-rapl:0", "package-0", "51000000");
  EXPECT_DOUBLE_EQ(rapl.EnergyJoules(12).value(), 50);
  // Looked at again after a long time, the same fall is a counter that wrapped.
  Package("intel-rapl:0", "package-0", "1000000");
  EXPECT_NEAR(rapl.EnergyJoules(1000).value(), 50 + 262143 - 50, 1);
}

TEST_F(RaplTest, PartsOfAPackageAndTheWholeBoardAreNotAddedAgain) {
  Package("intel-rapl:0", "package-0", "0");
  Package("intel-rapl:0:0", "core", "0");
  Package("intel-rapl:1", "psys", "0");
  Package("intel-rapl", "head", "0");
  Rapl rapl(folder_);
  rapl.EnergyJoules(0);
  Package("intel-rapl:0", "package-0", "2000000");
  Package("intel-rapl:0:0", "core", "1000000");
  Package("intel-rapl:1", "psys", "8000000");
  Package("intel-rapl", "head", "16000000");
  EXPECT_DOUBLE_EQ(rapl.EnergyJoules(0).value(), 2.0);
}

TEST_F(RaplTest, WithoutCountersSaysSo) {
  Rapl none(folder_ / "none");
  EXPECT_EQ(none.EnergyJoules(0), std::nullopt);
  EXPECT_THAT(none.trouble(), HasSubstr("no counters"));
}

TEST_F(RaplTest, NamesTheFileItCannotRead) {
  Package("intel-rapl:0", "package-0", "0");
  fs::remove(folder_ / "intel-rapl:0" / "energy_uj");
  Rapl rapl(folder_);
  EXPECT_EQ(rapl.EnergyJoules(0), std::nullopt);
  EXPECT_THAT(rapl.trouble(), HasSubstr("intel-rapl:0/energy_uj: No such file"));
  Package("intel-rapl:0", "package-0", "plenty");
  EXPECT_EQ(rapl.EnergyJoules(0), std::nullopt);
  EXPECT_THAT(rapl.trouble(), HasSubstr("no number"));
}

}  // namespace
}  // namespace lockstep::metrics
