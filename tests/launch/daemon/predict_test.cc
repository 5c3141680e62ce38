// The Predict call: who may ask for what. What happens behind it is in models/model_server_test.cc.
#include <gmock/gmock.h>

#include <cstdlib>

#include "service_fixture.h"

namespace lockstep::launch {
namespace {

using ::testing::HasSubstr;

class PredictTest : public ServiceTest {
 protected:
  PredictTest() { models_.process.trainer = std::getenv("LOCKSTEP_FAKE_TRAINER"); }
  grpc::Status Predict(const v1::PredictRequest& request, v1::PredictResponse* response = nullptr) {
    grpc::ClientContext context;
    Limit(context);
    v1::PredictResponse unused;
    return stub_->Predict(&context, request, response != nullptr ? response : &unused);
  }
  static v1::PredictRequest Request(const std::string& run, const std::string& checkpoint = "",
                                    const std::string& picture = "cat") {
    v1::PredictRequest request;
    request.set_run(run);
    request.set_checkpoint(checkpoint);
    request.set_picture(picture);
    return request;
  }
};

TEST_F(PredictTest, ARunIsFoundByNameAndItsFolderIsAsked) {
  const std::string id = SubmitOk();
  v1::PredictResponse response;
  const grpc::Status status = Predict(Request("demo"), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response.checkpoint(), HasSubstr(id));
  EXPECT_EQ(response.prediction().labels_size(), 1);
}

TEST_F(PredictTest, WhatIsWrongWithARequestIsNamed) {
  for (const auto& [request, field] : std::vector<std::pair<v1::PredictRequest, std::string>>{
           {Request(""), "run"},
           {Request("a", "/b"), "run"},
           {Request("", "relative/path"), "checkpoint"},
           {Request("", "/c/a", ""), "picture"}}) {
    const grpc::Status status = Predict(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr(field));
  }
}

TEST_F(PredictTest, AnUnknownRunIsNotFound) {
  EXPECT_EQ(Predict(Request("nobody")).error_code(), grpc::StatusCode::NOT_FOUND);
}

class PredictUnderRootsTest : public PredictTest {
 protected:
  PredictUnderRootsTest() { allowed_roots_ = {folder_.path().string()}; }
};

TEST_F(PredictUnderRootsTest, ACheckpointOutsideOfTheRootsIsDenied) {
  EXPECT_EQ(Predict(Request("", "/usr")).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(Predict(Request("", folder_.path().string())).ok());
}

TEST_F(PredictTest, ACrashedModelLeavesTheDaemonServing) {
  EXPECT_EQ(Predict(Request("", "/c/a", "crash")).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(Predict(Request("", "/c/a")).ok());
  EXPECT_FALSE(SubmitOk().empty());
}

}  // namespace
}  // namespace lockstep::launch
