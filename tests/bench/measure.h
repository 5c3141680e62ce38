// What the bench programs share: timing a call, taking turns, printing the raw samples.
//
// Every program prints one line of JSON: {"samples": {contender: [milliseconds, …]}, …}. The
// contenders take turns (A B A B …), so that whatever else the machine does meets all of them
// alike; scripts/bench makes medians and ratios of it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace lockstep::bench {

inline double Milliseconds(const std::function<void()>& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  return time.count();
}

// The median of `times` calls. One sample: a scheduler's hiccup in a single call does not show.
inline double MedianOf(int times, const std::function<void()>& call) {
  std::vector<double> all;
  all.reserve(times);
  for (int i = 0; i < times; ++i) all.push_back(Milliseconds(call));
  std::nth_element(all.begin(), all.begin() + times / 2, all.end());
  return all[times / 2];
}

using Samples = std::map<std::string, std::vector<double>>;

}  // namespace lockstep::bench
