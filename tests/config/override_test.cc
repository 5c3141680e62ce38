#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/load.h"

namespace lockstep::config {
namespace {

constexpr char kRun[] =
    "name: a\n"
    "training:\n"
    "  duration: 3ep\n"
    "  global_batch_size: 64\n";

Loaded<RunConfig> LoadWith(const std::vector<std::string>& changes,
                           const std::string& yaml = kRun) {
  std::vector<Override> overrides;
  for (const std::string& change : changes) {
    const absl::StatusOr<Override> parsed = ParseOverride(change);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    if (parsed.ok()) overrides.push_back(*parsed);
  }
  return LoadRunConfig(yaml, "run.yaml", overrides);
}

TEST(Override, ReplacesAndAdds) {
  const auto loaded = LoadWith({"training.duration=1ep", "seed=7", "optimizer.name=adam",
                                "data.augment.flip=horizontal", "resources.ranks=auto"});
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config.training.duration, Duration::Epochs(1));
  EXPECT_EQ(loaded.config.training.global_batch_size, 64);
  EXPECT_EQ(loaded.config.seed, 7u);
  EXPECT_EQ(loaded.config.optimizer.kind, OptimizerKind::kAdam);
  EXPECT_TRUE(loaded.config.data.augment.horizontal_flip);
}

TEST(Override, TheLastOneWins) {
  const auto loaded = LoadWith({"seed=1", "seed=2", "seed=3"});
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config.seed, 3u);
}

TEST(Override, SuppliesARequiredKey) {
  EXPECT_TRUE(
      LoadWith({"name=b", "training.duration=9st", "training.batch_size_per_rank=8"}, "").ok());
}

TEST(Override, MendsAWrongValueOfTheFile) {
  const auto loaded = LoadWith({"seed=5"}, std::string(kRun) + "seed: 010\n");
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config.seed, 5u);
}

TEST(Override, SetsListsAndGroupsAsAWhole) {
  const auto loaded =
      LoadWith({"model.cnn.dense=[64, 32]", "model.cnn.blocks=[{filters: 8}, {pool: max}]",
                "data={kind: cifar10, path: \"x y\"}"});
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config.model.cnn.dense, (std::vector<int>{64, 32}));
  ASSERT_EQ(loaded.config.model.cnn.blocks.size(), 2u);
  EXPECT_EQ(loaded.config.model.cnn.blocks[1].pool, Pool::kMax);
  EXPECT_EQ(loaded.config.data.path, "x y");
}

TEST(Override, KeepsTheRestOfTheValue) {
  const auto loaded = LoadWith({"data.kind=cifar10", "data.path=/a=b/c"});
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config.data.path, "/a=b/c");
}

struct Wrong {
  std::string change;
  std::string report;
};
class WrongOverride : public testing::TestWithParam<Wrong> {};

TEST_P(WrongOverride, IsRefusedWithItsOrigin) {
  const auto loaded = LoadWith({GetParam().change});
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.Report(), testing::HasSubstr(GetParam().report));
  EXPECT_EQ(loaded.problems.front().line, 0);
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongOverride,
    testing::Values(
        Wrong{"training.duraton=1ep",
              "--set: training.duraton: unknown key; did you mean 'duration'?"},
        Wrong{"foo.bar=1", "--set: foo: unknown key"}, Wrong{"seed=010", "--set: seed: '010'"},
        Wrong{"seed=", "--set: seed: no value"}, Wrong{"seed=-1", "--set: seed: -1 is out of"},
        Wrong{"seed=&a 1", "an anchor"}, Wrong{"seed=*a", "not valid YAML"},
        Wrong{"seed=!!int 1", "a tag"}, Wrong{"name=[", "not valid YAML"},
        Wrong{"name=\"a", "not valid YAML"}, Wrong{"training.duration.x=1", "not a mapping"},
        Wrong{"model.cnn.dense.0=1", "--set: model.cnn.dense: is a mapping; expected a list"},
        Wrong{"training..duration=1ep", "--set: training..duration: not a path"},
        Wrong{".seed=1", "not a path"}, Wrong{"training=1", "--set: training: is the number 1"},
        Wrong{"seed=1\n---\n2", "a second document"},
        Wrong{"training.batch_size_per_rank=8",
              "--set: training.batch_size_per_rank: contradicts"}));

TEST(Override, NeedsAnEqualsSign) {
  for (const char* text : {"seed", "", "=1"}) {
    const auto parsed = ParseOverride(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(parsed.status().message()), testing::HasSubstr("path=value")) << text;
  }
}

TEST(EnvironmentOverrides, AreTheNamesWithTwoUnderscores) {
  std::string variables[] = {"LOCKSTEP_TRAINING__DURATION=1ep",
                             "LOCKSTEP_DATA__AUGMENT__CROP_PADDING=2",
                             "LOCKSTEP_STATE_DIR=/x",
                             "LOCKSTEP_SOCKET=/y",
                             "PATH=/bin",
                             "OTHER_A__B=1",
                             "LOCKSTEP_OPTIMIZER__LEARNING_RATE"};
  std::vector<char*> environment;
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);
  const std::vector<Override> overrides = EnvironmentOverrides(environment.data());
  ASSERT_EQ(overrides.size(), 2u);
  EXPECT_EQ(overrides[0].path, "data.augment.crop_padding");
  EXPECT_EQ(overrides[0].value, "2");
  EXPECT_EQ(overrides[1].path, "training.duration");
  EXPECT_EQ(overrides[1].origin, "environment");

  const auto loaded = LoadRunConfig(kRun, "run.yaml", overrides);
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config.training.duration, Duration::Epochs(1));
  EXPECT_EQ(loaded.config.data.augment.crop_padding, 2);
}

TEST(EnvironmentOverrides, AreCheckedLikeTheFile) {
  const auto loaded = LoadRunConfig(
      kRun, "run.yaml", {{.path = "training.duraton", .value = "1ep", .origin = "environment"}});
  ASSERT_EQ(loaded.problems.size(), 1u);
  EXPECT_THAT(loaded.Report(), testing::StartsWith("environment: training.duraton: unknown key"));
}

TEST(Problems, OfTheFileComeBeforeThoseOfOverrides) {
  const auto loaded = LoadWith({"seed=x"}, std::string(kRun) + "priority: x\nfoo: 1\n");
  ASSERT_EQ(loaded.problems.size(), 3u);
  EXPECT_EQ(loaded.problems[0].path, "priority");
  EXPECT_EQ(loaded.problems[1].path, "foo");
  EXPECT_EQ(loaded.problems[2].path, "seed");
}

}  // namespace
}  // namespace lockstep::config
