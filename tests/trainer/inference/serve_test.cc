// The process's side of the talk with the coordinator, over a real socket pair.
#include "trainer/inference/serve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "config/frame.h"
#include "lockstep/v1/predict.pb.h"

namespace lockstep::trainer {
namespace {

using ::testing::HasSubstr;

class ServeTest : public ::testing::Test {
 protected:
  ServeTest() {
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends_), 0);
    reader_ = std::make_unique<config::FrameReader>(ends_[0], 1 << 20);
  }
  ~ServeTest() override { (void)Close(); }

  void Start(const absl::StatusOr<ServedModel>& model) {
    server_ = std::thread([this, model] {
      ended_ = Serve(ends_[1], [&] { return model; });
      close(ends_[1]);
    });
  }
  absl::Status Close() {
    if (ends_[0] >= 0) close(std::exchange(ends_[0], -1));
    if (server_.joinable()) server_.join();
    return ended_;
  }
  static config::FrameDeadline Later() {
    return std::chrono::steady_clock::now() + std::chrono::seconds(20);
  }
  template <typename Message>
  Message Read() {
    Message message;
    const auto frame = reader_->Read(Later());
    EXPECT_TRUE(frame.ok()) << frame.status();
    EXPECT_TRUE(frame.ok() && message.ParseFromString(*frame));
    return message;
  }
  void Ask(uint64_t id, const std::string& picture, int top_k = 0) {
    v1::ServeRequest request;
    request.set_id(id);
    request.set_picture(picture);
    request.set_picture_name("a.jpg");
    request.set_top_k(top_k);
    EXPECT_TRUE(config::WriteFrame(ends_[0], request.SerializeAsString(), Later()).ok());
  }
  // Says the picture's own bytes and how many classes were asked for.
  static ServedModel Echo() {
    return {"/c/step-7", 7,
            [](std::span<const std::byte> picture, const std::string& name, int top_k) {
              const std::string text(reinterpret_cast<const char*>(picture.data()), picture.size());
              if (text == "text") throw DataError(name + ": is no picture");
              return Prediction{{{text, top_k}}, {{"price", 12.5}}};
            }};
  }

  int ends_[2] = {-1, -1};
  std::unique_ptr<config::FrameReader> reader_;
  std::thread server_;
  absl::Status ended_;
};

TEST_F(ServeTest, GreetsAnswersInOrderAndEndsWithTheOtherEnd) {
  Start(Echo());
  const auto hello = Read<v1::ServeHello>();
  EXPECT_EQ(hello.code(), 0);
  EXPECT_EQ(hello.protocol_version(), 1);
  EXPECT_EQ(hello.checkpoint(), "/c/step-7");
  EXPECT_EQ(hello.step(), 7);
  Ask(1, "cat", 3);
  Ask(2, "dog");
  auto first = Read<v1::ServeResponse>();
  EXPECT_EQ(first.id(), 1u);
  EXPECT_EQ(first.prediction().labels(0).name(), "cat");
  EXPECT_EQ(first.prediction().labels(0).probability(), 3);
  EXPECT_EQ(first.prediction().numbers(0).value(), 12.5);
  auto second = Read<v1::ServeResponse>();
  EXPECT_EQ(second.id(), 2u);
  EXPECT_EQ(second.prediction().labels(0).probability(), 5);  // The default.
  EXPECT_TRUE(Close().ok());
}

TEST_F(ServeTest, APictureThatIsNoneIsAnAnswerNotAnEnd) {
  Start(Echo());
  Read<v1::ServeHello>();
  Ask(1, "text");
  const auto wrong = Read<v1::ServeResponse>();
  EXPECT_EQ(wrong.code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(wrong.error(), "a.jpg: is no picture");
  Ask(2, "cat");
  EXPECT_EQ(Read<v1::ServeResponse>().code(), 0);
}

TEST_F(ServeTest, AModelThatCannotBeLoadedIsSaid) {
  Start(absl::DataLossError("weights.safetensors is damaged"));
  const auto hello = Read<v1::ServeHello>();
  EXPECT_EQ(hello.code(), static_cast<int>(absl::StatusCode::kDataLoss));
  EXPECT_THAT(hello.error(), HasSubstr("damaged"));
  EXPECT_TRUE(absl::IsDataLoss(Close()));
}

TEST_F(ServeTest, GarbageEndsIt) {
  Start(Echo());
  Read<v1::ServeHello>();
  EXPECT_TRUE(config::WriteFrame(ends_[0], "\xff\xff\xff", Later()).ok());
  server_.join();
  EXPECT_TRUE(absl::IsDataLoss(ended_));
}

}  // namespace
}  // namespace lockstep::trainer
