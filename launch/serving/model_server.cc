#include "launch/serving/model_server.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/run_directory.h"
#include "launch/supervisor/checkpoint_reader.h"

namespace lockstep::launch {
namespace {

double SecondsSince(ModelServer::Clock::time_point since) {
  return std::chrono::duration<double>(ModelServer::Clock::now() - since).count();
}

// Changes when a run has a newer checkpoint.
std::string KeyOf(const std::string& checkpoint) {
  const int64_t newest = NewestCheckpointStep(config::RunDirectory(checkpoint).checkpoints());
  return absl::StrCat(checkpoint, "@", newest);
}

}  // namespace

ModelServer::ModelServer(ModelServerOptions options) : options_(std::move(options)) {
  options_.process.stopping = [this] { return stopping_.load(); };
  thread_ = std::thread([this] { Run(); });
}

ModelServer::~ModelServer() {
  Stop();
  thread_.join();
}

void ModelServer::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
}

absl::Status ModelServer::Ask(Question question) {
  const auto bytes = static_cast<int64_t>(question.request->picture().size());
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return absl::UnavailableError("the daemon is ending");
    if (waiting_.size() >= options_.max_waiting ||
        waiting_bytes_ + bytes > options_.max_waiting_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat(waiting_.size(), " pictures wait for an answer already; ask again later"));
    }
    waiting_bytes_ += bytes;
    waiting_.push_back({std::move(question), Clock::now()});
  }
  changed_.notify_all();
  return absl::OkStatus();
}

void ModelServer::Run() {
  for (;;) {
    Waiting next;
    bool stopping = false;
    {
      std::unique_lock lock(mutex_);
      const auto ready = [&] { return stopping_ || !waiting_.empty(); };
      if (models_.empty()) {
        changed_.wait(lock, ready);
      } else if (!changed_.wait_until(lock, models_.back().used + options_.idle_timeout, ready)) {
        lock.unlock();
        EndIdle();
        continue;
      }
      stopping = stopping_;
      if (waiting_.empty()) break;
      next = std::move(waiting_.front());
      waiting_.pop_front();
      waiting_bytes_ -= static_cast<int64_t>(next.question.request->picture().size());
    }
    if (stopping) {
      next.question.done(absl::UnavailableError("the daemon is ending"));
    } else {
      Answer(next);
    }
  }
  models_.clear();
}

void ModelServer::Answer(const Waiting& waiting) {
  const Question& question = waiting.question;
  if (question.cancelled && question.cancelled()) {
    question.done(absl::CancelledError("the caller has gone"));
    return;
  }
  if (Clock::now() >= question.deadline) {
    question.done(absl::DeadlineExceededError("others were asked first"));
    return;
  }
  const auto process = Find(question.checkpoint);
  if (!process.ok()) {
    question.done(process.status());
    return;
  }
  const double waited = SecondsSince(waiting.since);
  auto answer = (*process)->Ask(*question.request, question.deadline);
  const v1::ServeHello hello = (*process)->hello();
  if ((*process)->broken()) {
    spdlog::warn("predicting with {}: {}", hello.checkpoint(), answer.status().ToString());
    models_.pop_front();
  }
  if (!answer.ok()) {
    question.done(answer.status());
    return;
  }
  v1::PredictResponse& response = *question.response;
  *response.mutable_prediction() = std::move(*answer->mutable_prediction());
  response.set_checkpoint(hello.checkpoint());
  response.set_step(hello.step());
  response.set_waited_seconds(waited);
  response.set_model_seconds(answer->seconds());
  question.done(absl::OkStatus());
}

// The process that holds this model, first in the list; started where there is none.
absl::StatusOr<ModelProcess*> ModelServer::Find(const std::string& checkpoint) {
  const std::string key = KeyOf(checkpoint);
  const auto found = std::find_if(models_.begin(), models_.end(),
                                  [&](const Model& model) { return model.key == key; });
  if (found != models_.end()) {
    models_.splice(models_.begin(), models_, found);
    models_.front().used = Clock::now();
    return models_.front().process.get();
  }
  // An older model of the same run is of no more use.
  models_.remove_if([&](const Model& model) {
    return model.key.size() > checkpoint.size() && model.key[checkpoint.size()] == '@' &&
           model.key.compare(0, checkpoint.size(), checkpoint) == 0;
  });
  while (models_.size() >= options_.max_models) models_.pop_back();
  auto started = ModelProcess::Start(options_.process, checkpoint);
  if (!started.ok()) return started.status();
  spdlog::info("process {} holds the model of {}", (*started)->pid(),
               (*started)->hello().checkpoint());
  models_.push_front({key, *std::move(started), Clock::now()});
  return models_.front().process.get();
}

void ModelServer::EndIdle() {
  const auto now = Clock::now();
  models_.remove_if([&](const Model& model) { return now - model.used >= options_.idle_timeout; });
}

}  // namespace lockstep::launch
