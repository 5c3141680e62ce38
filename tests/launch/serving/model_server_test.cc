// Models in processes of their own: what callers are told when these start, crash, hang or are too
// many, and that none is left behind.
#include "launch/serving/model_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <future>

#include "launch/launcher/process.h"

namespace lockstep::launch {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// One question with everything it borrows.
struct Call {
  v1::PredictRequest request;
  v1::PredictResponse response;
  std::promise<absl::Status> done;

  absl::Status Wait() {
    auto future = done.get_future();
    if (future.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
      return absl::InternalError("no answer at all");
    }
    return future.get();
  }
  std::string label() const {
    return response.prediction().labels_size() > 0 ? response.prediction().labels(0).name() : "";
  }
  int64_t pid() const { return std::atoll(label().substr(label().rfind(' ') + 1).c_str()); }
};

class ModelServerTest : public ::testing::Test {
 protected:
  ModelServerTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "models-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    options_.process.trainer = std::getenv("LOCKSTEP_FAKE_TRAINER");
    options_.process.log = folder_ / "predict.log";
  }
  ~ModelServerTest() override { std::filesystem::remove_all(folder_); }

  ModelServer& server() {
    if (!server_) server_ = std::make_unique<ModelServer>(options_);
    return *server_;
  }
  absl::Status Begin(Call& call, const std::string& checkpoint, const std::string& picture,
                     milliseconds deadline = milliseconds(20'000)) {
    call.request.set_picture(picture);
    call.request.set_picture_name("a.jpg");
    call.request.set_top_k(3);
    ModelServer::Question question;
    question.checkpoint = checkpoint;
    question.request = &call.request;
    question.response = &call.response;
    question.deadline = ModelServer::Clock::now() + deadline;
    question.done = [&call](const absl::Status& status) { call.done.set_value(status); };
    return server().Ask(std::move(question));
  }
  absl::Status Ask(Call& call, const std::string& checkpoint, const std::string& picture,
                   milliseconds deadline = milliseconds(20'000)) {
    if (absl::Status begun = Begin(call, checkpoint, picture, deadline); !begun.ok()) return begun;
    return call.Wait();
  }

  std::filesystem::path folder_;
  ModelServerOptions options_;
  std::unique_ptr<ModelServer> server_;
};

TEST_F(ModelServerTest, AnswersAndSaysWhichCheckpointItWas) {
  Call call;
  ASSERT_TRUE(Ask(call, "/c/a", "cat").ok());
  EXPECT_THAT(call.label(), HasSubstr("cat by "));
  EXPECT_EQ(call.response.prediction().labels(0).probability(), 3);  // top_k came through.
  EXPECT_EQ(call.response.checkpoint(), "/c/a");
  EXPECT_EQ(call.response.step(), 12);
}

TEST_F(ModelServerTest, KeepsTheModelBetweenCalls) {
  Call first, second;
  ASSERT_TRUE(Ask(first, "/c/a", "cat").ok());
  ASSERT_TRUE(Ask(second, "/c/a", "dog").ok());
  EXPECT_EQ(first.pid(), second.pid());
}

TEST_F(ModelServerTest, TheModelAskedLongestAgoEndsForAThird) {
  Call a, b, c, a_again, b_again;
  ASSERT_TRUE(Ask(a, "/c/a", "x").ok());
  ASSERT_TRUE(Ask(b, "/c/b", "x").ok());
  ASSERT_TRUE(Ask(a_again, "/c/a", "x").ok());
  ASSERT_TRUE(Ask(c, "/c/c", "x").ok());
  EXPECT_FALSE(ReadProcessStat(b.pid()).has_value());
  EXPECT_TRUE(ReadProcessStat(a.pid()).has_value());
  ASSERT_TRUE(Ask(b_again, "/c/b", "x").ok());
  EXPECT_NE(b.pid(), b_again.pid());
}

TEST_F(ModelServerTest, ANewerCheckpointOfARunIsLoaded) {
  Call before, after;
  const auto step = [&](const char* name) {
    std::filesystem::create_directories(folder_ / "run/checkpoints" / name);
  };
  step("step-000000010");
  ASSERT_TRUE(Ask(before, (folder_ / "run").string(), "x").ok());
  step("step-000000020");
  ASSERT_TRUE(Ask(after, (folder_ / "run").string(), "x").ok());
  EXPECT_NE(before.pid(), after.pid());
  EXPECT_FALSE(ReadProcessStat(before.pid()).has_value());
}

TEST_F(ModelServerTest, APictureThatIsNoneIsTheCallersFault) {
  Call wrong, right;
  const absl::Status status = Ask(wrong, "/c/a", "text");
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("a.jpg: is no picture"));
  EXPECT_TRUE(Ask(right, "/c/a", "cat").ok());
}

TEST_F(ModelServerTest, ACrashIsUnavailableAndTheNextCallStartsAnother) {
  Call first, crash, after;
  ASSERT_TRUE(Ask(first, "/c/a", "cat").ok());
  const absl::Status status = Ask(crash, "/c/a", "crash");
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("signal 9"));
  ASSERT_TRUE(Ask(after, "/c/a", "cat").ok());
  EXPECT_NE(first.pid(), after.pid());
}

TEST_F(ModelServerTest, GarbageInPlaceOfAnAnswerEndsTheProcess) {
  Call garbage, after;
  EXPECT_TRUE(absl::IsUnavailable(Ask(garbage, "/c/a", "garbage")));
  EXPECT_TRUE(Ask(after, "/c/a", "cat").ok());
}

TEST_F(ModelServerTest, WhatCannotBeLoadedIsSaidInItsOwnWords) {
  Call damaged, dies, foreign;
  const absl::Status status = Ask(damaged, "/c/damaged", "cat");
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("weights.safetensors is damaged"));
  const absl::Status died = Ask(dies, "/c/dies-at-start", "cat");
  EXPECT_TRUE(absl::IsUnavailable(died)) << died;
  EXPECT_THAT(std::string(died.message()), HasSubstr("exit code 7"));
  EXPECT_TRUE(absl::IsUnavailable(Ask(foreign, "/c/foreign", "cat")));
}

TEST_F(ModelServerTest, AProcessThatNeverComesUpIsGivenUp) {
  options_.process.start_timeout = milliseconds(200);
  Call call;
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask(call, "/c/never-ready", "cat")));
}

TEST_F(ModelServerTest, AMissingTrainerIsSaid) {
  options_.process.trainer = "";
  Call call;
  const absl::Status status = Ask(call, "/c/a", "cat");
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("trainer"));
}

TEST_F(ModelServerTest, ALateAnswerIsNotGivenToTheNextCaller) {
  Call warm, late, next;
  ASSERT_TRUE(Ask(warm, "/c/a", "cat").ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask(late, "/c/a", "slow", milliseconds(50))));
  ASSERT_TRUE(Ask(next, "/c/a", "dog").ok());
  EXPECT_THAT(next.label(), HasSubstr("dog by "));
  EXPECT_EQ(next.pid(), warm.pid());
}

TEST_F(ModelServerTest, AProcessThatHangsIsEndedAfterItsOwnTime) {
  options_.process.answer_timeout = milliseconds(300);
  Call warm, hang, next;
  ASSERT_TRUE(Ask(warm, "/c/a", "cat").ok());
  EXPECT_TRUE(absl::IsUnavailable(Ask(hang, "/c/a", "hang")));
  ASSERT_TRUE(Ask(next, "/c/a", "dog").ok());
  EXPECT_NE(next.pid(), warm.pid());
  EXPECT_FALSE(ReadProcessStat(warm.pid()).has_value());
}

TEST_F(ModelServerTest, TooManyQuestionsAreRefusedAtOnce) {
  options_.max_waiting = 2;
  Call warm;
  ASSERT_TRUE(Ask(warm, "/c/a", "cat").ok());
  std::vector<Call> calls(8);
  int refused = 0;
  std::vector<Call*> taken;
  for (Call& call : calls) {
    const absl::Status begun = Begin(call, "/c/a", "slow");
    if (begun.ok()) {
      taken.push_back(&call);
    } else {
      EXPECT_TRUE(absl::IsResourceExhausted(begun)) << begun;
      ++refused;
    }
  }
  EXPECT_GE(refused, 5);  // One is answered, two wait.
  for (Call* call : taken) EXPECT_TRUE(call->Wait().ok());
}

TEST_F(ModelServerTest, WaitingPicturesAreBoundedInBytesToo) {
  options_.max_waiting_bytes = 1000;
  Call call;
  EXPECT_TRUE(absl::IsResourceExhausted(Begin(call, "/c/a", std::string(1001, 'x'))));
}

TEST_F(ModelServerTest, AnIdleModelEnds) {
  options_.idle_timeout = milliseconds(50);
  Call call;
  ASSERT_TRUE(Ask(call, "/c/a", "cat").ok());
  const auto end = ModelServer::Clock::now() + std::chrono::seconds(20);
  while (ReadProcessStat(call.pid()).has_value() && ModelServer::Clock::now() < end) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_FALSE(ReadProcessStat(call.pid()).has_value());
}

TEST_F(ModelServerTest, StoppingAnswersEveryoneAndLeavesNoProcess) {
  Call warm, hang, waits;
  ASSERT_TRUE(Ask(warm, "/c/a", "cat").ok());
  ASSERT_TRUE(Begin(hang, "/c/a", "hang").ok());
  ASSERT_TRUE(Begin(waits, "/c/b", "cat").ok());
  const auto began = ModelServer::Clock::now();
  server_->Stop();
  EXPECT_TRUE(absl::IsUnavailable(hang.Wait()));
  EXPECT_TRUE(absl::IsUnavailable(waits.Wait()));
  server_.reset();
  EXPECT_LT(ModelServer::Clock::now() - began, std::chrono::seconds(5));
  EXPECT_FALSE(ReadProcessStat(warm.pid()).has_value());
}

TEST_F(ModelServerTest, TheProcessSeesOnlyTheEnvironmentItIsGiven) {
  setenv("LD_PRELOAD", "", 1);
  Call call;
  ASSERT_TRUE(Ask(call, "/c/a", "cat").ok());
  unsetenv("LD_PRELOAD");
  EXPECT_EQ(call.response.step(), 12);
}

}  // namespace
}  // namespace lockstep::launch
