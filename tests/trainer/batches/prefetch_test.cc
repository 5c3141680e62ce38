#include "trainer/batches/prefetch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>

namespace lockstep::trainer {
namespace {

TEST(Prefetch, ValuesComeInOrderForAnyNumberOfThreadsAndDepth) {
  for (const int threads : {1, 2, 3, 8}) {
    for (const int depth : {1, 2, 5, 16}) {
      Prefetch<int64_t> prefetch({threads, depth, 7}, [](int64_t position, const std::stop_token&) {
        // Odd positions take longer, so that threads overtake each other.
        for (int i = 0; i < (position % 2) * 20; ++i) std::this_thread::yield();
        return position * position;
      });
      for (int64_t i = 7; i < 107; ++i) ASSERT_EQ(prefetch.Next(), i * i);
    }
  }
}

TEST(Prefetch, NeverRunsFurtherAheadThanItsDepth) {
  constexpr int kDepth = 3;
  std::atomic<int64_t> taken{0};
  std::atomic<int64_t> furthest{0};
  Prefetch<int64_t> prefetch({2, kDepth, 0}, [&](int64_t position, const std::stop_token&) {
    int64_t ahead = position - taken.load();
    for (int64_t old = furthest.load();
         ahead > old && !furthest.compare_exchange_weak(old, ahead);) {
    }
    return position;
  });
  for (int i = 0; i < 500; ++i) {
    prefetch.Next();
    taken.fetch_add(1);
  }
  // A maker may start right after Next() took a value and before `taken` counts it.
  EXPECT_LE(furthest.load(), kDepth);
  EXPECT_GE(furthest.load(), 1);
}

TEST(Prefetch, TryNextTakesWhatIsThereAndLeavesErrorsToNext) {
  std::latch go(1);
  Prefetch<int> prefetch({1, 2, 0, 4}, [&](int64_t position, const std::stop_token&) -> int {
    if (position == 1) go.wait();
    if (position == 3) throw std::runtime_error("position 3");
    return static_cast<int>(position);
  });
  EXPECT_EQ(prefetch.Next(), 0);
  EXPECT_FALSE(prefetch.TryNext().has_value());
  go.count_down();
  EXPECT_EQ(prefetch.Next(), 1);
  std::optional<int> second;
  while (!(second = prefetch.TryNext())) std::this_thread::yield();
  EXPECT_EQ(second, 2);
  EXPECT_THROW(prefetch.Next(), std::runtime_error);
  EXPECT_FALSE(prefetch.TryNext().has_value());
}

TEST(Prefetch, EndsAtItsLastPosition) {
  Prefetch<int> prefetch({2, 4, 0, 5}, [](int64_t position, const std::stop_token&) {
    return static_cast<int>(position);
  });
  for (int i = 0; i < 5; ++i) EXPECT_EQ(prefetch.Next(), i);
  EXPECT_THROW(prefetch.Next(), std::out_of_range);
}

TEST(Prefetch, AnErrorComesAtItsPositionAndStays) {
  for (const int threads : {1, 3}) {
    Prefetch<int> prefetch({threads, 8, 0}, [](int64_t position, const std::stop_token&) -> int {
      if (position >= 4) throw std::runtime_error("position " + std::to_string(position));
      return static_cast<int>(position);
    });
    for (int i = 0; i < 4; ++i) ASSERT_EQ(prefetch.Next(), i);
    for (int i = 0; i < 3; ++i) {
      try {
        prefetch.Next();
        FAIL() << "no error";
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "position 4");
      }
    }
  }
}

TEST(Prefetch, EndsWhileFullAndWhileAMakerIsAtWork) {
  // Full: nobody takes anything, every thread waits for room.
  {
    std::latch made(4);
    Prefetch<int> full({2, 4, 0}, [&](int64_t, const std::stop_token&) {
      made.count_down();
      return 0;
    });
    made.wait();
  }
  // At work: makers that only end when they are asked to stop.
  std::latch started(2);
  std::atomic<int> asked{0};
  {
    Prefetch<int> busy({2, 4, 0}, [&](int64_t, const std::stop_token& stop) {
      started.count_down();
      while (!stop.stop_requested()) std::this_thread::yield();
      asked.fetch_add(1);
      return 0;
    });
    started.wait();
  }
  EXPECT_EQ(asked.load(), 2);
}

TEST(Prefetch, ValuesNeedOnlyBeMovable) {
  Prefetch<std::unique_ptr<int>> prefetch({1, 2, 0}, [](int64_t position, const std::stop_token&) {
    return std::make_unique<int>(static_cast<int>(position));
  });
  EXPECT_EQ(*prefetch.Next(), 0);
  EXPECT_EQ(*prefetch.Next(), 1);
}

}  // namespace
}  // namespace lockstep::trainer
