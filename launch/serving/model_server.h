// Predictions for the control service: models in processes of their own, asked one picture at a
// time.
//
// One thread and one queue of bounded length and bytes stand between callers and models, so a
// caller never waits in the daemon's own threads, and what comes too fast is refused at once
// (RESOURCE_EXHAUSTED). At most `max_models` processes live at a time: the one that was asked
// longest ago ends for a new one, and each ends after `idle_timeout` without a question. A run's
// model is loaded again when the run has a newer checkpoint. A process that dies answers its
// question with UNAVAILABLE; the next question starts another.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "launch/serving/model_process.h"
#include "lockstep/v1/predict.pb.h"

namespace lockstep::launch {

inline constexpr int64_t kMaxPictureBytes = 32 << 20;

struct ModelServerOptions {
  ModelProcessOptions process;
  size_t max_models = 2;
  size_t max_waiting = 32;                // Questions.
  int64_t max_waiting_bytes = 128 << 20;  // Of their pictures.
  std::chrono::milliseconds idle_timeout{600'000};
};

class ModelServer {
 public:
  using Clock = std::chrono::steady_clock;

  struct Question {
    std::string checkpoint;                       // Folder of a checkpoint or of a run.
    const v1::PredictRequest* request = nullptr;  // Both live until `done` is called.
    v1::PredictResponse* response = nullptr;
    Clock::time_point deadline = Clock::time_point::max();
    std::function<bool()> cancelled;
    std::function<void(const absl::Status&)> done;  // Exactly once, on the server's thread.
  };

  explicit ModelServer(ModelServerOptions options);
  /// Whoever waits is answered with UNAVAILABLE; processes end. Waits for the question that is
  /// being answered (Stop() shortens that).
  ~ModelServer();

  /// RESOURCE_EXHAUSTED: too much waits already; `done` is not called then.
  absl::Status Ask(Question question);

  /// No more questions; returns at once.
  void Stop();

 private:
  struct Waiting {
    Question question;
    Clock::time_point since;
  };
  struct Model {
    std::string key;
    std::unique_ptr<ModelProcess> process;
    Clock::time_point used;
  };

  void Run();
  void Answer(const Waiting& waiting);
  absl::StatusOr<ModelProcess*> Find(const std::string& checkpoint);
  void EndIdle();

  ModelServerOptions options_;
  std::list<Model> models_;  // The thread's; most recently used first.

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Waiting> waiting_;  // Guarded by mutex_, as are the rest.
  int64_t waiting_bytes_ = 0;
  std::atomic<bool> stopping_{false};  // Set under mutex_; the waits ask it without.
  std::thread thread_;                 // The last member: it uses the others.
};

}  // namespace lockstep::launch
