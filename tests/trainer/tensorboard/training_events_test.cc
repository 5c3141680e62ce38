#include "trainer/tensorboard/training_events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/trainer/tensorboard/event_reader.h"
#include "trainer/tensorboard/confusion_picture.h"

namespace lockstep::trainer {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class TrainingEventsTest : public testing::Test {
 protected:
  std::unique_ptr<TrainingEvents> Open(const EventPosition& from = {}, int64_t step = 0,
                                       int64_t log_every_steps = 10) {
    return std::make_unique<TrainingEvents>(
        folder_.path(), from, step,
        TrainingEventsOptions{.score = "top1",
                              .classes = {"cat", "dog"},
                              .log_every_steps = log_every_steps,
                              .run_yaml = "name: a\nseed: 7\n"},
        [](const std::string& line) { ADD_FAILURE() << line; });
  }
  Events Read() const { return ReadEvents(folder_.path()); }

  TemporaryFolder folder_;
};

TEST_F(TrainingEventsTest, WritesTheTagsOfALoggedStep) {
  TrainingEvents::PhaseSeconds phases{};
  phases[static_cast<size_t>(config::Phase::kForward)] = 3;
  phases[static_cast<size_t>(config::Phase::kCheckpointStall)] = 1;
  {
    auto events = Open();
    for (int i = 0; i < 10; ++i) events->Timing(0.5, 64);
    events->Step({.step = 10, .loss = 2, .score = 0.25, .learning_rate = 0.1, .gradient_norm = 7},
                 phases);
    phases[static_cast<size_t>(config::Phase::kForward)] = 6;
    events->Step({.step = 20, .loss = 1, .score = 0.5, .learning_rate = 0.1, .gradient_norm = 6},
                 phases);
  }
  const Events events = Read();
  const auto scalar = [&](const std::string& tag, size_t i) {
    return events.points.at(tag).at(i).scalar();
  };
  EXPECT_EQ(scalar("loss/train", 0), 2);
  EXPECT_EQ(scalar("top1/train", 1), 0.5);
  EXPECT_EQ(scalar("learning_rate", 0), static_cast<double>(0.1f));
  EXPECT_EQ(scalar("gradient_norm", 0), 7);
  EXPECT_EQ(scalar("throughput/samples_per_second", 0), 128);
  EXPECT_EQ(scalar("throughput/samples_per_second", 1), 128) << "no step was timed since";
  EXPECT_EQ(scalar("time/checkpoint_stall_seconds", 0), 1);
  EXPECT_EQ(scalar("time/checkpoint_stall_seconds", 1), 0);
  EXPECT_EQ(scalar("time/phase/forward", 0), 0.75);
  EXPECT_EQ(scalar("time/phase/forward", 1), 1);
  EXPECT_FALSE(events.points.contains("time/phase/eval")) << "of which there was none";
  for (const auto& [tag, points] : events.points) {
    if (tag != "run_yaml") {
      EXPECT_THAT(events.Steps(tag), ElementsAre(10, 20)) << tag;
    }
  }
}

TEST_F(TrainingEventsTest, ASpeedThatIsNotKnownIsNotZero) {
  Open()->Step({.step = 10, .loss = 2}, {});
  const Events events = Read();
  EXPECT_THAT(events.Steps("loss/train"), ElementsAre(10));
  EXPECT_FALSE(events.points.contains("throughput/samples_per_second"));
}

TEST_F(TrainingEventsTest, WritesAHistogramOfStepTimesEachHundredSteps) {
  {
    auto events = Open();
    for (int64_t step = 1; step <= 250; ++step) {
      events->Timing(0.001, 1);
      if (step % 10 == 0) events->Step({.step = step}, {});
    }
  }
  const Events events = Read();
  EXPECT_THAT(events.Steps("time/step_seconds"), ElementsAre(100, 200));
  const Message histogram = Decode(events.points.at("time/step_seconds")[1].value.at(5)[0].bytes);
  EXPECT_EQ(histogram.at(3)[0].number, 100);
}

TEST_F(TrainingEventsTest, WritesEpochsAndEvaluations) {
  {
    auto events = Open();
    events->Epoch(50, 1.5, 0.5);
    const std::vector<std::pair<std::string, double>> scores = {{"top1", 0.75}, {"macro_f1", 0.5}};
    events->Evaluation(50, 1.25, scores, std::vector<int64_t>{3, 1, 0, 4});
    events->Evaluation(60, 1.25, scores, {});
    events->Evaluation(70, 1.25, scores, std::vector<int64_t>(51 * 51, 1));
  }
  const Events events = Read();
  EXPECT_EQ(events.points.at("loss/train_epoch")[0].scalar(), 1.5);
  EXPECT_EQ(events.points.at("top1/train_epoch")[0].scalar(), 0.5);
  EXPECT_EQ(events.points.at("loss/val")[0].scalar(), 1.25);
  EXPECT_EQ(events.points.at("top1/val")[0].scalar(), 0.75);
  EXPECT_EQ(events.points.at("macro_f1/val")[0].scalar(), 0.5);
  EXPECT_THAT(events.Steps("loss/val"), ElementsAre(50, 60, 70));
  EXPECT_THAT(events.Steps("confusion_matrix/val"), ElementsAre(50)) << "none, or too many classes";
}

TEST_F(TrainingEventsTest, WritesTheConfigOnce) {
  EventPosition saved;
  {
    auto events = Open();
    saved = events->Flush();
    events->Step({.step = 10}, {});
  }
  Open(saved, 5)->Step({.step = 10}, {});
  const Events events = Read();
  EXPECT_THAT(events.Steps("run_yaml"), ElementsAre(0));
  EXPECT_THAT(events.Steps("loss/train"), ElementsAre(10));
  EXPECT_EQ(Decode(events.points.at("run_yaml")[0].value.at(8)[0].bytes).at(8)[0].bytes,
            "    name: a\n    seed: 7\n");
}

// Width and height of a PNG stand in its first chunk, big-endian.
int BigEndian(const std::string& bytes, size_t at) {
  int value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes.at(at + i));
  return value;
}

TEST(ConfusionPicture, IsAPngOfItsSize) {
  for (const int classes : {1, 2, 10, 11, 20, 21, 50}) {
    std::vector<int64_t> counts(static_cast<size_t>(classes * classes), 2);
    const auto picture = ConfusionPicture(counts, {});
    ASSERT_TRUE(picture.ok()) << picture.status();
    EXPECT_EQ(picture->bytes.substr(0, 8), "\x89PNG\r\n\x1a\n");
    EXPECT_EQ(BigEndian(picture->bytes, 16), picture->width);
    EXPECT_EQ(BigEndian(picture->bytes, 20), picture->height);
    EXPECT_LE(picture->width, 1200) << classes;
  }
}

TEST(ConfusionPicture, ShowsCountsAndNames) {
  const std::vector<std::string> names = {"cat", "dog"}, others = {"cat", "cow"};
  const auto picture = [&](std::vector<int64_t> counts, const std::vector<std::string>& labels) {
    return ConfusionPicture(counts, labels)->bytes;
  };
  const std::string base = picture({3, 1, 0, 4}, names);
  EXPECT_EQ(base, picture({3, 1, 0, 4}, names));
  EXPECT_NE(base, picture({3, 1, 0, 4}, others));
  EXPECT_NE(base, picture({6, 2, 0, 8}, names)) << "the same shares of other counts";
  EXPECT_NE(base, picture({3, 1, 0, 0}, names)) << "a class without samples";
}

}  // namespace
}  // namespace lockstep::trainer
