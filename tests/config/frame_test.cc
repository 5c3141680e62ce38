// Frames over a socket: whole ones, cut ones, too long ones, and ends.
#include "config/frame.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

namespace lockstep::config {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

class FrameTest : public ::testing::Test {
 protected:
  FrameTest() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_), 0); }
  ~FrameTest() override {
    CloseWriter();
    close(ends_[0]);
  }
  void CloseWriter() {
    if (ends_[1] >= 0) close(ends_[1]);
    ends_[1] = -1;
  }
  void Raw(const std::string& bytes) {
    ASSERT_EQ(write(ends_[1], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  static FrameDeadline Soon() { return steady_clock::now() + milliseconds(50); }
  static FrameDeadline Later() { return steady_clock::now() + std::chrono::seconds(20); }

  int ends_[2] = {-1, -1};  // Reader, writer.
};

TEST_F(FrameTest, MessagesArriveWholeAndInOrder) {
  const std::string large(3 << 20, 'x');
  std::thread writer([&] {
    for (const std::string& message : {std::string("one"), std::string(), large}) {
      EXPECT_TRUE(WriteFrame(ends_[1], message, Later()).ok());
    }
  });
  FrameReader reader(ends_[0], 4 << 20);
  EXPECT_EQ(reader.Read(Later()).value(), "one");
  EXPECT_EQ(reader.Read(Later()).value(), "");
  EXPECT_EQ(reader.Read(Later()).value(), large);
  writer.join();
}

TEST_F(FrameTest, AReadThatRanOutOfTimeIsTakenUpAgain) {
  FrameReader reader(ends_[0], 100);
  Raw(std::string("\x05\0\0\0he", 6));
  EXPECT_TRUE(absl::IsDeadlineExceeded(reader.Read(Soon()).status()));
  Raw("llo");
  EXPECT_EQ(reader.Read(Later()).value(), "hello");
}

TEST_F(FrameTest, AnEndBetweenMessagesIsNoDamage) {
  EXPECT_TRUE(WriteFrame(ends_[1], "one", Later()).ok());
  CloseWriter();
  FrameReader reader(ends_[0], 100);
  EXPECT_EQ(reader.Read(Later()).value(), "one");
  EXPECT_TRUE(absl::IsUnavailable(reader.Read(Later()).status()));
}

TEST_F(FrameTest, AnEndInsideAMessageIsDamage) {
  for (const size_t bytes : {size_t{2}, size_t{6}}) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    ASSERT_EQ(write(ends[1], "\x05\0\0\0he", bytes), static_cast<ssize_t>(bytes));
    close(ends[1]);
    EXPECT_TRUE(absl::IsDataLoss(FrameReader(ends[0], 100).Read(Later()).status())) << bytes;
    close(ends[0]);
  }
}

TEST_F(FrameTest, ALengthAboveTheLimitIsRefusedBeforeItsBytesCome) {
  Raw(std::string("\xff\xff\xff\x7f", 4));
  EXPECT_TRUE(absl::IsDataLoss(FrameReader(ends_[0], 100).Read(Later()).status()));
}

TEST_F(FrameTest, WritingToAnEndThatIsGoneIsAnErrorAndNoSignal) {
  close(ends_[0]);
  EXPECT_TRUE(absl::IsUnavailable(WriteFrame(ends_[1], "one", Later())));
}

TEST_F(FrameTest, WritingToAnEndThatDoesNotReadRunsOutOfTime) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(WriteFrame(ends_[1], std::string(8 << 20, 'x'), Soon())));
}

}  // namespace
}  // namespace lockstep::config
