// What a submission becomes, and where its paths may lead.
#include "launch/services/submission.h"

#include <gtest/gtest.h>

#include <fstream>

#include "config/load.h"
#include "tests/launch/temporary_folder.h"

namespace lockstep::launch {
namespace {

namespace fs = std::filesystem;

constexpr const char* kYaml = R"(name: demo
data: {kind: image_folder, path: pictures}
model: {name: resnet18}
training: {duration: 1ep, global_batch_size: 8}
cost: {max_time: 2h, max_cost: 5}
)";

class SubmissionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_.path() / "home" / "pictures");
    fs::create_directories(folder_.path() / "outside");
    request_.set_config_yaml(kYaml);
    request_.set_working_directory((folder_.path() / "home").string());
    context_.slots = 4;
    context_.free_slots = 3;
    context_.cores = 4;
  }
  std::string FirstField() {
    const Submission submission = ParseSubmission(request_, context_);
    return submission.violations.empty() ? "" : submission.violations[0].field;
  }

  TemporaryFolder folder_;
  v1::SubmitRunRequest request_;
  SubmissionContext context_;
};

TEST_F(SubmissionTest, RelativePathsBecomeAbsoluteAndAutoRanksTheFreeSlots) {
  const Submission submission = ParseSubmission(request_, context_);
  ASSERT_TRUE(submission.violations.empty()) << submission.violations[0].description;
  EXPECT_EQ(submission.spec.ranks, 3);
  EXPECT_EQ(submission.spec.limits.max_seconds, 7200);
  EXPECT_EQ(submission.spec.limits.max_cost, 5);
  const auto loaded = config::LoadRunConfig(submission.spec.config_yaml, "run.yaml");
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config.data.path, (folder_.path() / "home" / "pictures").string());
  EXPECT_EQ(loaded.config.resources.ranks, 3);
}

TEST_F(SubmissionTest, PretrainedIsANameOfTheDaemonsOrAPath) {
  const auto pretrained = [&] {
    const Submission submission = ParseSubmission(request_, context_);
    if (!submission.violations.empty()) return submission.violations[0].description;
    if (!submission.refused.ok()) return std::string(submission.refused.message());
    return config::LoadRunConfig(submission.spec.config_yaml, "run.yaml").config.model.pretrained;
  };
  request_.add_overrides("model.pretrained=imagenet");
  EXPECT_NE(pretrained().find("names none"), std::string::npos) << pretrained();
  context_.weights = {{"resnet18", "/srv/a.pth"}, {"imagenet", "/srv/b.pth"}};
  EXPECT_EQ(pretrained(), "/srv/b.pth");
  // The daemon's own files need not lie under the roots; a user's do.
  context_.allowed_roots = {(folder_.path() / "home").string()};
  EXPECT_EQ(pretrained(), "/srv/b.pth");
  request_.set_overrides(0, "model.pretrained=imagenets");
  EXPECT_NE(pretrained().find("resnet18, imagenet"), std::string::npos) << pretrained();
  std::ofstream(folder_.path() / "home" / "mine.pth") << "x";
  request_.set_overrides(0, "model.pretrained=mine.pth");
  EXPECT_EQ(pretrained(), (folder_.path() / "home" / "mine.pth").string());
  std::ofstream(folder_.path() / "outside" / "far.pth") << "x";
  request_.set_overrides(0, "model.pretrained=../outside/far.pth");
  EXPECT_NE(pretrained().find("allowed_roots"), std::string::npos) << pretrained();
  request_.set_overrides(0, "model.pretrained=./gone.pth");
  EXPECT_NE(pretrained().find("does not exist"), std::string::npos) << pretrained();
}

TEST_F(SubmissionTest, OverridesComeAfterTheFile) {
  request_.add_overrides("resources.ranks=2");
  request_.add_overrides("name=other");
  const Submission submission = ParseSubmission(request_, context_);
  EXPECT_EQ(submission.spec.ranks, 2);
  EXPECT_EQ(submission.spec.name, "other");
  request_.add_overrides("no equals sign");
  EXPECT_EQ(FirstField(), "overrides");
}

TEST_F(SubmissionTest, AMissingFolderIsRefusedBeforeAnythingStarts) {
  request_.set_working_directory(folder_.path().string());
  EXPECT_EQ(FirstField(), "data.path");
  request_.set_working_directory("relative");
  EXPECT_EQ(FirstField(), "working_directory");
}

TEST_F(SubmissionTest, PathsOutsideOfTheRootsAreDeniedHoweverTheyAreWritten) {
  context_.allowed_roots = {(folder_.path() / "home").string()};
  EXPECT_TRUE(ParseSubmission(request_, context_).refused.ok());
  const auto denied = [&](const std::string& path) {
    request_.clear_overrides();
    request_.add_overrides("data.path=" + path);
    return ParseSubmission(request_, context_).refused.code() ==
           absl::StatusCode::kPermissionDenied;
  };
  EXPECT_TRUE(denied("../outside"));
  EXPECT_TRUE(denied((folder_.path() / "outside").string()));
  EXPECT_TRUE(denied("pictures/../../outside"));
  fs::create_directory_symlink(folder_.path() / "outside", folder_.path() / "home" / "link");
  EXPECT_TRUE(denied("link"));
  fs::create_directories(folder_.path() / "home-too");
  EXPECT_TRUE(denied((folder_.path() / "home-too").string())) << "a root is no prefix of a name";
  EXPECT_FALSE(denied("pictures"));
}

TEST_F(SubmissionTest, MoreRanksThanSlotsAreAQuotaNotAMistake) {
  request_.add_overrides("resources.ranks=5");
  EXPECT_EQ(ParseSubmission(request_, context_).refused.code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(SubmissionTest, AnExternalRunWithAConfigThatCannotBeReadIsTakenAllTheSame) {
  v1::Hello hello;
  hello.set_config_yaml("%%%");
  hello.set_world_size(3);
  hello.set_run_dir("/tmp/x");
  const RunSpec spec = ExternalSpec(hello);
  EXPECT_EQ(spec.name, "external");
  EXPECT_EQ(spec.ranks, 3);
  EXPECT_TRUE(spec.external);
}

}  // namespace
}  // namespace lockstep::launch
