#include "trainer/probe/measure.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <future>
#include <string>
#include <vector>

#include "trainer/data/input_file.h"
#include "trainer/monotonic.h"
#include "trainer/probe/sampled_dataset.h"

namespace lockstep::trainer {

using config::Phase;

namespace {

constexpr int64_t kSmallestBytes = 4 << 10;
constexpr int64_t kSizeRatio = 8;
constexpr int kRepeats = 7;
constexpr int kWarmRepeats = 2;
constexpr int64_t kMostRead = 16;

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// "VmHWM:	  131072 kB" of a file of such lines; 0 where there is none.
int64_t KilobytesIn(const char* file, const std::string& key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    long long kilobytes = 0;
    if (line.compare(0, key.size(), key) == 0 &&
        std::sscanf(line.c_str() + key.size(), "%lld", &kilobytes) == 1) {
      return kilobytes << 10;
    }
  }
  return 0;
}

// A number alone in a file; -1 where there is none, also for "max".
int64_t NumberIn(const char* file) {
  std::ifstream text(file);
  int64_t number = -1;
  return text >> number ? number : -1;
}

}  // namespace

double MiddleMean(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t cut = values.size() / 4;
  double sum = 0;
  for (size_t i = cut; i < values.size() - cut; ++i) sum += values[i];
  return sum / static_cast<double>(values.size() - 2 * cut);
}

void StepTimes::Begin(Session& run) {
  begins_.push_back(MonotonicSeconds());
  phases_.push_back(run.clock().Seconds());
  reduced_bytes_ = run.replica().arena().reduced_bytes();
}

config::ProbedStep StepTimes::Result() const {
  config::ProbedStep result;
  const auto steps = static_cast<int64_t>(begins_.size()) - 1;
  const int64_t end = std::min(steps, counted_until_);
  std::vector<double> seconds;
  for (int64_t i = warm_steps_; i < end; ++i) {
    const auto step = static_cast<size_t>(i);
    seconds.push_back(begins_[step + 1] - begins_[step]);
  }
  result.timed = static_cast<int64_t>(seconds.size());
  result.seconds = MiddleMean(seconds);
  if (seconds.empty()) return result;
  // Means over all steps counted: a phase is settled some steps after it was entered.
  const Phases& from = phases_[static_cast<size_t>(warm_steps_)];
  const Phases& to = phases_[static_cast<size_t>(end)];
  for (int i = 0; i < config::kPhaseCount; ++i) {
    const auto phase = static_cast<size_t>(i);
    const double mean = (to[phase] - from[phase]) / static_cast<double>(end - warm_steps_);
    if (mean > 0) result.phase_seconds[config::PhaseName(static_cast<Phase>(i))] = mean;
  }
  return result;
}

double StepTimes::Before(Phase phase) const {
  return phases_.empty() ? 0 : phases_.front()[static_cast<size_t>(phase)];
}

double StepTimes::BetweenLast(Phase phase) const {
  const size_t count = phases_.size();
  const auto index = static_cast<size_t>(phase);
  return count < 2 ? 0 : phases_[count - 1][index] - phases_[count - 2][index];
}

double StepTimes::UntilLast(Phase phase) const {
  return phases_.empty() ? 0 : phases_.back()[static_cast<size_t>(phase)];
}

double StepTimes::startup_seconds() const {
  if (phases_.empty()) return 0;
  double sum = 0;
  for (const double seconds : phases_.front()) sum += seconds;
  return sum - Before(Phase::kEval);  // Features that are cached first count by themselves.
}

std::vector<config::ProbedAllReduce> TimeAllReduces(Communicator& communicator, Device& device,
                                                    int64_t largest_bytes) {
  std::vector<config::ProbedAllReduce> timed;
  if (communicator.size() < 2) return timed;
  std::vector<int64_t> sizes;
  for (int64_t bytes = kSmallestBytes; bytes < largest_bytes; bytes *= kSizeRatio) {
    sizes.push_back(bytes);
  }
  sizes.push_back(std::max(largest_bytes, kSmallestBytes * kSizeRatio));
  const auto elements = [](int64_t bytes) { return bytes / static_cast<int64_t>(sizeof(float)); };
  const at::Tensor memory = communicator.Allocate(elements(sizes.back()));
  const EventHandle done = device.NewEvent();
  const auto finish = [&] {
    communicator.Wait();
    device.Record(done, device.CurrentStream());
    communicator.Await(done);
  };
  for (const int64_t bytes : sizes) {
    const at::Tensor part = memory.narrow(0, 0, elements(bytes));
    std::vector<double> seconds;
    for (int i = 0; i < kWarmRepeats + kRepeats; ++i) {
      communicator.Barrier();
      finish();
      const double began = MonotonicSeconds();
      communicator.AllReduce(part);
      finish();
      if (i >= kWarmRepeats) seconds.push_back(MonotonicSeconds() - began);
    }
    timed.push_back({bytes, Median(std::move(seconds))});
  }
  return timed;
}

SampleBytes ReadSamples(const Dataset& dataset) {
  const SampledDataset few(dataset, std::min(dataset.size(), kMostRead));
  const auto read_all = [&few] {
    const int64_t before = InputBytes();
    Sample sample;
    for (int64_t i = 0; i < few.size(); ++i) few.Read(i, sample);
    return static_cast<double>(InputBytes() - before) /
           static_cast<double>(std::max<int64_t>(1, few.size()));
  };
  SampleBytes bytes;
  bytes.first = read_all();
  bytes.again = read_all();
  return bytes;
}

void ReadAhead(const Dataset& dataset, const config::AugmentConfig& augment, int threads) {
  std::atomic<int64_t> next = 0;
  const auto read = [&] {
    Sample sample;
    for (int64_t i = next++; i < dataset.size(); i = next++) {
      if (augment.resized_crop > 0) {
        dataset.ReadWhole(i, {}, sample);
      } else {
        dataset.Read(i, sample);
      }
    }
  };
  std::vector<std::future<void>> readers;
  readers.reserve(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) readers.push_back(std::async(std::launch::async, read));
  for (std::future<void>& reader : readers) reader.get();
}

int64_t PeakHostBytes() {
  return KilobytesIn("/proc/self/status", "VmHWM:");
}

int64_t AvailableHostBytes() {
  int64_t available = KilobytesIn("/proc/meminfo", "MemAvailable:");
  // Control groups of a container, as it sees its own: version 2, then version 1.
  for (const auto& [limit_file, used_file] :
       {std::pair{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        std::pair{"/sys/fs/cgroup/memory/memory.limit_in_bytes",
                  "/sys/fs/cgroup/memory/memory.usage_in_bytes"}}) {
    const int64_t limit = NumberIn(limit_file);
    const int64_t used = NumberIn(used_file);
    if (limit > 0 && used >= 0) available = std::min(available, std::max<int64_t>(0, limit - used));
  }
  return available;
}

}  // namespace lockstep::trainer
