// The validator over the shared corpus: corpus/valid/*.yaml load and survive being written out;
// corpus/invalid/*.yaml are refused with exactly the problems that their `# expect:` lines name:
//   # expect: LINE:COL PATH | text that the message contains
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "config/coordinator_config.h"
#include "config/load.h"
#include "tests/config/test_files.h"

namespace lockstep::config {
namespace {

class Valid : public testing::TestWithParam<std::filesystem::path> {};
class Invalid : public testing::TestWithParam<std::filesystem::path> {};

std::string TestName(const testing::TestParamInfo<std::filesystem::path>& file) {
  return file.param.stem().string();
}

TEST_P(Valid, LoadsAndIsTheSameAfterBeingWrittenAndRead) {
  const Loaded<RunConfig> loaded = LoadRunConfig(Contents(GetParam()), "run.yaml");
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  const std::string written = ToYaml(loaded.config);
  const Loaded<RunConfig> again = LoadRunConfig(written, "written.yaml");
  ASSERT_TRUE(again.ok()) << again.Report() << written;
  EXPECT_EQ(again.config, loaded.config) << written;
  EXPECT_EQ(ToYaml(again.config), written);
}

TEST_P(Valid, IsTheSameRunAfterBeingResolvedWrittenAndRead) {
  const Loaded<RunConfig> loaded = LoadRunConfig(Contents(GetParam()), "run.yaml");
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  const Machine machine{.world_size = 4, .ranks_on_host = 2, .cores = 8};
  const RunConfig resolved = Resolve(loaded.config, machine);
  const Loaded<RunConfig> again = LoadRunConfig(ToYaml(resolved), "written.yaml");
  ASSERT_TRUE(again.ok()) << again.Report();
  EXPECT_EQ(Resolve(again.config, machine), resolved);
}

TEST_P(Invalid, HasExactlyTheProblemsItNames) {
  const std::string text = Contents(GetParam());
  std::vector<std::string> expected;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    if (line.starts_with("# expect: ")) expected.push_back(line.substr(10));
  }
  ASSERT_FALSE(expected.empty()) << "no '# expect:' line";
  const Loaded<RunConfig> loaded = LoadRunConfig(text, "run.yaml");
  ASSERT_EQ(loaded.problems.size(), expected.size()) << loaded.Report();
  for (size_t i = 0; i < expected.size(); ++i) {
    const Problem& problem = loaded.problems[i];
    const std::vector<std::string> parts = absl::StrSplit(expected[i], absl::MaxSplits(" | ", 1));
    ASSERT_EQ(parts.size(), 2u) << expected[i];
    const std::string place = absl::StrCat(problem.line, ":", problem.column,
                                           problem.path.empty() ? "" : " ", problem.path);
    EXPECT_EQ(place, parts[0]) << problem.ToString();
    EXPECT_THAT(problem.message, testing::HasSubstr(parts[1]));
    EXPECT_FALSE(problem.hint.empty()) << problem.ToString();
    EXPECT_THAT(problem.ToString(), testing::StartsWith(absl::StrCat("run.yaml:", problem.line)));
  }
}

INSTANTIATE_TEST_SUITE_P(Corpus, Valid, testing::ValuesIn(YamlFiles("tests/config/corpus/valid")),
                         TestName);
INSTANTIATE_TEST_SUITE_P(Corpus, Invalid,
                         testing::ValuesIn(YamlFiles("tests/config/corpus/invalid")), TestName);

TEST(Corpus, HasThirtyRefusalsAtLeast) {
  EXPECT_GE(YamlFiles("tests/config/corpus/invalid").size(), 30u);
  EXPECT_GE(YamlFiles("tests/config/corpus/valid").size(), 10u);
}

TEST(Examples, EveryOneLoads) {
  int runs = 0;
  int coordinators = 0;
  for (const auto& path : YamlFiles("config/examples")) {
    const std::string name = path.filename().string();
    if (name.starts_with("lockstepd")) {
      const auto loaded = LoadCoordinatorConfig(Contents(path), name);
      EXPECT_TRUE(loaded.ok()) << loaded.Report();
      ++coordinators;
    } else {
      const auto loaded = LoadRunConfig(Contents(path), name);
      EXPECT_TRUE(loaded.ok()) << loaded.Report();
      EXPECT_EQ(LoadRunConfig(ToYaml(loaded.config), "w").config, loaded.config);
      ++runs;
    }
  }
  EXPECT_GE(runs, 3);
  EXPECT_GE(coordinators, 1);
}

}  // namespace
}  // namespace lockstep::config
