// A few steps of every rank as a trace that chrome://tracing and ui.perfetto.dev open: phases,
// collectives, checkpoint writes, and LibTorch's operators and kernels where they are asked for.
// The format is Google's "Trace Event Format", JSON, one process per rank.
//
// Each rank keeps its events in memory; when the last of the steps is done, rank 0 gathers and
// writes them, so this too is collective, as is everything that leads to it (AtStep, Finish). A
// trace that cannot be written is a line on stderr, never the end of the run.
//
// Whoever has something to show holds a pointer that is null when nothing is recorded, and asks
// recording() before it looks at a clock. Add() may be called from any thread, the rest from the
// thread of the step loop. On a GPU the times are the host's, that is, when work was handed over;
// when it was done only the kernels' rows say.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace lockstep::trainer {

class OpProfile;

struct TraceOptions {
  std::string file;
  int64_t first = 10;  // Steps [first, end), counted from the first one of this attempt.
  int64_t end = 15;
  bool operators = false;  // LibTorch's operators and kernels too; slows the steps down.
  int rank = 0;
  int size = 1;
  std::string host;
};

class Trace {
 public:
  // Gives every rank the text of rank `root`. Collective.
  using Broadcast = std::function<std::string(const std::string& text, int root)>;

  Trace(TraceOptions options, Broadcast broadcast);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  bool recording() const { return recording_.load(std::memory_order_relaxed); }

  // A line of a rank's process in the viewer.
  enum class Row : int { kSteps, kPhases, kCollectives, kCheckpoints };

  /// Something that went on from `began` to `ended`, CLOCK_MONOTONIC in seconds; `bytes` below zero
  /// are not shown. Dropped when nothing is recorded.
  void Add(Row row, const std::string& name, double began, double ended, int64_t bytes = -1);

  /// The phase that has gone on since `began`, up to now; may be told again while it goes on.
  /// `name` lives for ever.
  void Phase(const char* name, double began, double now);

  /// The next step is this one. Begins and ends the recording. Collective.
  void AtStep(int64_t step, double now);

  /// The run is over: writes what there is, unless it is written. Collective.
  void Finish();

 private:
  struct Event {
    std::string name;
    int row = 0;
    int64_t began_ns =
        0;  // CLOCK_REALTIME, which ranks of several hosts share as well as they can.
    int64_t ended_ns = 0;
    int64_t bytes = -1;
  };
  int64_t RealNanoseconds(double monotonic_seconds) const;
  std::string EventsJson(int64_t base_ns) const;
  void Stop();
  void Write();

  const TraceOptions options_;
  const Broadcast broadcast_;
  const int64_t real_minus_monotonic_ns_;
  std::atomic<bool> recording_{false};
  bool finished_ = false;
  int64_t first_step_ = -1;  // Of this attempt.
  int64_t step_ = 0;
  double step_began_ = 0;
  double phases_until_ = 0;  // The phases before this moment are in events_.
  std::unique_ptr<OpProfile> operators_;
  std::mutex mutex_;
  std::vector<Event> events_;         // Guarded by mutex_; bounded by kMostEvents.
  std::vector<std::string> streams_;  // Names of the rows behind Row's.
  int64_t dropped_ = 0;               // Guarded by mutex_.
};

// Shows a scope. Costs a comparison when `trace` is null or does not record.
class TraceScope {
 public:
  TraceScope(Trace* trace, Trace::Row row, const char* name, int64_t bytes = -1);
  ~TraceScope();
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  Trace* trace_;
  Trace::Row row_;
  const char* name_;
  int64_t bytes_;
  double began_ = 0;
};

}  // namespace lockstep::trainer
