#include "trainer/tensorboard/event.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/trainer/tensorboard/event_reader.h"
#include "trainer/tensorboard/duration_histogram.h"

namespace lockstep::trainer {
namespace {

Message OnlyValue(const Summary& summary) {
  const Message event = Decode(SummaryEvent(12.5, 7, summary));
  EXPECT_EQ(event.at(1).at(0).number, 12.5);
  EXPECT_EQ(event.at(2).at(0).integer, 7u);
  const Message message = Decode(event.at(5).at(0).bytes);
  EXPECT_EQ(message.at(1).size(), 1u);
  return Decode(message.at(1).at(0).bytes);
}

TEST(Event, HoldsAScalar) {
  Summary summary;
  EXPECT_TRUE(summary.empty());
  summary.Scalar("loss/train", 0.1);
  const Message value = OnlyValue(summary);
  EXPECT_EQ(value.at(1).at(0).bytes, "loss/train");
  EXPECT_EQ(value.at(2).at(0).number, static_cast<double>(0.1f));
}

TEST(Event, HoldsAScalarThatIsNoNumberAndOneOfALongTag) {
  Summary summary;
  const std::string tag(300, 't');
  summary.Scalar(tag, std::numeric_limits<double>::quiet_NaN());
  const Message value = OnlyValue(summary);
  EXPECT_EQ(value.at(1).at(0).bytes, tag);
  EXPECT_TRUE(std::isnan(value.at(2).at(0).number));
}

TEST(Event, HoldsSeveralValuesInOrder) {
  Summary summary;
  summary.Scalar("a", 1);
  summary.Text("b", "words");
  const Message message = Decode(Decode(SummaryEvent(1, 1 << 20, summary)).at(5).at(0).bytes);
  ASSERT_EQ(message.at(1).size(), 2u);
  EXPECT_EQ(Decode(message.at(1)[0].bytes).at(1)[0].bytes, "a");
  EXPECT_EQ(Decode(message.at(1)[1].bytes).at(1)[0].bytes, "b");
}

TEST(Event, HoldsAHistogram) {
  Summary summary;
  summary.Histogram("time", {.min = 1,
                             .max = 4,
                             .count = 3,
                             .sum = 7,
                             .sum_of_squares = 21,
                             .upper_bounds = {2, 4},
                             .counts = {1, 2}});
  const Message histogram = Decode(OnlyValue(summary).at(5).at(0).bytes);
  const double expected[] = {1, 4, 3, 7, 21};
  for (int i = 0; i < 5; ++i) EXPECT_EQ(histogram.at(i + 1).at(0).number, expected[i]);
  EXPECT_EQ(Doubles(histogram.at(6).at(0).bytes), (std::vector<double>{2, 4}));
  EXPECT_EQ(Doubles(histogram.at(7).at(0).bytes), (std::vector<double>{1, 2}));
}

TEST(Event, HoldsAPicture) {
  Summary summary;
  summary.Picture("p", {.width = 300, .height = 20, .bytes = "png"});
  const Message picture = Decode(OnlyValue(summary).at(4).at(0).bytes);
  EXPECT_EQ(picture.at(1).at(0).integer, 20u);
  EXPECT_EQ(picture.at(2).at(0).integer, 300u);
  EXPECT_EQ(picture.at(3).at(0).integer, 3u);
  EXPECT_EQ(picture.at(4).at(0).bytes, "png");
}

TEST(Event, HoldsText) {
  Summary summary;
  summary.Text("run_yaml", "    seed: 7\n");
  const Message value = OnlyValue(summary);
  const Message tensor = Decode(value.at(8).at(0).bytes);
  EXPECT_EQ(tensor.at(1).at(0).integer, 7u) << "DT_STRING";
  EXPECT_EQ(tensor.at(8).at(0).bytes, "    seed: 7\n");
  const Message plugin = Decode(Decode(value.at(9).at(0).bytes).at(1).at(0).bytes);
  EXPECT_EQ(plugin.at(1).at(0).bytes, "text");
}

TEST(Event, OpensAFileAndASession) {
  EXPECT_EQ(Decode(FileVersionEvent(3)).at(3).at(0).bytes, "brain.Event:2");
  const Message start = Decode(SessionStartEvent(3, 123456789012));
  EXPECT_EQ(start.at(2).at(0).integer, 123456789012u);
  EXPECT_EQ(Decode(start.at(7).at(0).bytes).at(1).at(0).integer, 1u);
  EXPECT_FALSE(Decode(SessionStartEvent(3, 0)).contains(2)) << "0 is what an absent step means";
}

TEST(DurationHistogram, CountsEachDurationInTheBucketAroundIt) {
  DurationHistogram durations;
  for (const double seconds : {0.010, 0.010, 0.0105, 0.020}) durations.Add(seconds);
  EXPECT_EQ(durations.count(), 4);
  const Histogram histogram = durations.Take();
  EXPECT_EQ(histogram.min, 0.010);
  EXPECT_EQ(histogram.max, 0.020);
  EXPECT_EQ(histogram.count, 4);
  EXPECT_DOUBLE_EQ(histogram.sum, 0.0505);
  ASSERT_EQ(histogram.counts.size(), histogram.upper_bounds.size());
  EXPECT_LE(histogram.counts.size(), 64u);
  EXPECT_EQ(histogram.counts.front(), 2) << "5 % apart are two buckets";
  EXPECT_EQ(histogram.counts.back(), 1);
  EXPECT_EQ(histogram.upper_bounds.back(), histogram.max);
  EXPECT_TRUE(std::is_sorted(histogram.upper_bounds.begin(), histogram.upper_bounds.end()));
  double below = 0;
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    if (histogram.upper_bounds[i] < 0.015) below += histogram.counts[i];
  }
  EXPECT_EQ(below, 3);
  EXPECT_EQ(durations.count(), 0) << "starts over";
}

TEST(DurationHistogram, JoinsNeighboursUnderABoundAndKeepsEveryCount) {
  DurationHistogram durations;
  for (int i = -40; i < 20; ++i) durations.Add(std::exp2(i));
  durations.Add(0);
  const Histogram histogram = durations.Take();
  EXPECT_LE(histogram.counts.size(), 64u);
  double sum = 0;
  for (const double count : histogram.counts) sum += count;
  EXPECT_EQ(sum, 61);
  EXPECT_EQ(histogram.min, 0);
  EXPECT_EQ(histogram.upper_bounds.back(), std::exp2(19));
}

TEST(DurationHistogram, IsEmptyWithoutDurations) {
  const Histogram histogram = DurationHistogram().Take();
  EXPECT_EQ(histogram.count, 0);
  EXPECT_TRUE(histogram.counts.empty());
}

}  // namespace
}  // namespace lockstep::trainer
