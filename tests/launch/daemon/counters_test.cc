// What the daemon counts of its own work: calls, log messages.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <map>
#include <memory>
#include <string>

#include "launch/daemon/log_counter.h"
#include "launch/services/rpc_counter.h"

namespace lockstep::launch {
namespace {

using Counts = std::map<std::string, int64_t>;

TEST(LogCounterTest, CountsByLevelAndNothingThatIsNotLogged) {
  auto counter = std::make_shared<LogCounter>();
  spdlog::logger logger("test", counter);
  logger.set_level(spdlog::level::info);
  logger.info("one");
  logger.warn("two");
  logger.warn("three");
  logger.error("four");
  logger.debug("below the level");
  EXPECT_EQ(counter->Counts(),
            (Counts{{"debug", 0}, {"info", 1}, {"warning", 2}, {"error", 1}, {"critical", 0}}));
}

TEST(RpcCounterTest, EveryMethodIsThereBeforeItWasCalled) {
  metrics::Snapshot snapshot;
  RpcCounter().Show(snapshot);
  for (const char* method : {"SubmitRun", "GetCost", "WatchRun", "Attach"}) {
    ASSERT_TRUE(snapshot.rpcs_handled.contains({method, "OK"})) << method;
    EXPECT_EQ(snapshot.rpcs_handled.at({method, "OK"}), 0) << method;
    EXPECT_EQ(snapshot.rpcs_inflight.at(method), 0) << method;
    EXPECT_TRUE(snapshot.rpc_seconds.contains(method)) << method;
  }
}

TEST(RpcCounterTest, ACallIsUnderWayUntilItEndsAndThenHasItsTime) {
  RpcCounter counter;
  counter.Began("GetRun");
  counter.Began("GetRun");
  counter.Count("GetRun", 5);
  counter.Ended("GetRun", 0.004);
  metrics::Snapshot snapshot;
  counter.Show(snapshot);
  EXPECT_EQ(snapshot.rpcs_inflight.at("GetRun"), 1);
  EXPECT_EQ(snapshot.rpcs_handled.at({"GetRun", "NOT_FOUND"}), 1);
  const metrics::Histogram& seconds = snapshot.rpc_seconds.at("GetRun");
  EXPECT_EQ(seconds.sum, 0.004);
  ASSERT_EQ(seconds.counts.size(), metrics::kServiceBuckets.size() + 1);
  EXPECT_EQ(seconds.counts[2], 1u) << "2 ms to 10 ms";
}

TEST(ObserveTest, ABoundBelongsToItsBucketAndTheRestToTheLast) {
  metrics::Histogram histogram;
  for (const double value : {0.0, 0.0005, 0.00051, 30.0, 31.0}) {
    metrics::Observe(histogram, metrics::kServiceBuckets, value);
  }
  EXPECT_EQ(histogram.counts, (std::vector<uint64_t>{2, 1, 0, 0, 0, 0, 0, 1, 1}));
}

}  // namespace
}  // namespace lockstep::launch
