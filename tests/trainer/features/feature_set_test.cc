#include "trainer/features/feature_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "tests/trainer/features/blobs.h"
#include "tests/trainer/pictures/temp_folder.h"

namespace lockstep::trainer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr FeatureShape kShape{.views = 2, .samples = 3, .width = 4};

void FillWithNumbers(const std::filesystem::path& path) {
  ASSERT_TRUE(FeatureFile::Create(path, kShape).ok());
  const auto file = FeatureFile::Open(path, kShape);
  ASSERT_TRUE(file.ok()) << file.status();
  for (int64_t view = 0; view < 2; ++view) {
    for (int64_t sample = 0; sample < 3; ++sample) {
      for (int64_t i = 0; i < 4; ++i) {
        (*file)->Features(view, sample)[i] = static_cast<float>(100 * view + 10 * sample + i);
      }
      *(*file)->Label(sample) = sample;
    }
  }
  ASSERT_TRUE((*file)->Sync().ok());
}

TEST(FeatureSetTest, ViewsLieBehindEachOther) {
  const TempFolder folder;
  FillWithNumbers(folder.path() / "f");
  const Blobs pictures(3);
  const auto set = OpenFeatureSet(folder.path() / "f", pictures);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ((*set)->size(), 3);
  EXPECT_EQ((*set)->views(), 2);
  EXPECT_EQ((*set)->features(), 4);
  Sample sample;
  (*set)->Read(1 + 1 * 3, sample);
  EXPECT_EQ(sample.label, 1);
  EXPECT_THAT(sample.features, ElementsAre(110, 111, 112, 113));
  EXPECT_THROW((*set)->Read(6, sample), DataError);
}

TEST(FeatureSetTest, TargetsTakeTheLabelsPlace) {
  const TempFolder folder;
  const FeatureShape shape{.views = 1, .samples = 2, .width = 1, .targets = 2};
  ASSERT_TRUE(FeatureFile::Create(folder.path() / "f", shape).ok());
  {
    const auto file = FeatureFile::Open(folder.path() / "f", shape);
    ASSERT_TRUE(file.ok());
    (*file)->Targets(1)[0] = 0.25f;
    (*file)->Targets(1)[1] = -3;
  }
  const Blobs pictures(2, "numbers", {{"x", 0, 1}, {"y", 0, 1}});
  const auto set = OpenFeatureSet(folder.path() / "f", pictures);
  ASSERT_TRUE(set.ok()) << set.status();
  Sample sample;
  (*set)->Read(1, sample);
  EXPECT_THAT(sample.targets, ElementsAre(0.25f, -3));
}

TEST(FeatureSetTest, FeaturesOfOtherPicturesAreRefused) {
  const TempFolder folder;
  FillWithNumbers(folder.path() / "f");
  EXPECT_THAT(std::string(OpenFeatureSet(folder.path() / "f", Blobs(4)).status().message()),
              HasSubstr("not the features of this data set"));
  std::ofstream(folder.path() / "text") << "no tensors here";
  EXPECT_FALSE(OpenFeatureSet(folder.path() / "text", Blobs(3)).ok());
  std::ofstream(folder.path() / "empty");
  EXPECT_FALSE(OpenFeatureSet(folder.path() / "empty", Blobs(3)).ok());
}

TEST(FeatureSetTest, AFullDiskIsAnErrorAndNoCrash) {
  const TempFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 16, 1 << 16};
    setrlimit(RLIMIT_FSIZE, &limit);
    const FeatureShape large{.views = 1, .samples = 1000, .width = 1000};
    _exit(FeatureFile::Create(folder.path() / "f", large).ok() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace lockstep::trainer
