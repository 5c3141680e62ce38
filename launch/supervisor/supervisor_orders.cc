// Orders from people, and looking at runs.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <future>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/run_directory.h"
#include "launch/supervisor/run_view.h"
#include "launch/supervisor/supervisor.h"

namespace lockstep::launch {
namespace {

constexpr size_t kMaxIdBytes = 63;
constexpr auto kSampleTimeout = std::chrono::seconds(2);

Answer Refusal(absl::Status status) {
  Answer answer;
  answer.status = std::move(status);
  return answer;
}

}  // namespace

std::string Supervisor::NewRunId(const std::string& name) {
  // No i, l, o, u: nobody misreads them on a terminal.
  constexpr const char* kAlphabet = "0123456789abcdefghjkmnpqrstvwxyz";
  std::string stem = name.empty() ? "run" : name.substr(0, kMaxIdBytes - 5);
  while (!stem.empty() && stem.back() == '-') stem.pop_back();
  for (;;) {
    std::string id = stem + "-";
    uint64_t word = RandomWord();
    for (int i = 0; i < 4; ++i, word >>= 5) id += kAlphabet[word & 31];
    if (coordinator_.Find(id) == nullptr) return id;
  }
}

void Supervisor::Reply(const AnswerCallback& done, Answer answer) {
  if (!answer.status.ok()) {
    done(answer);  // A refusal promises nothing that must be on disk first.
    return;
  }
  answers_.push_back([done, answer = std::move(answer)] { done(answer); });
}

void Supervisor::Submit(const RequestKey& key, RunSpec spec, const AnswerCallback& done) {
  auto handle = [this, key, spec = std::move(spec), done](Now now) {
    DoSubmit(key, spec, done, now);
  };
  PostOrder(std::move(handle), done);
}

void Supervisor::Command(const RequestKey& key, const std::string& run, OrderKind kind,
                         const std::string& reason, const LimitChanges& limits,
                         std::function<bool()> cancelled, const AnswerCallback& done) {
  auto handle = [this, key, run, kind, reason, limits, waiter = Waiter{done, std::move(cancelled)}](
                    Now now) { DoCommand(key, run, kind, reason, limits, waiter, now); };
  PostOrder(std::move(handle), done);
}

void Supervisor::PostOrder(std::function<void(Now)> handle, const AnswerCallback& done) {
  const auto refuse = [done] {
    done(Refusal(absl::UnavailableError("the coordinator is shutting down or overloaded")));
  };
  if (absl::Status status = MayOrder(); !status.ok()) {
    done(Refusal(status));
  } else if (!Post(std::move(handle), refuse)) {
    refuse();
  }
}

absl::Status Supervisor::MayOrder() {
  const std::lock_guard lock(queue_mutex_);
  if (!store_broken_) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("the run store in ", options_.state_dir.string(),
                   " cannot be written (see the daemon's log); runs go on, orders must wait"));
}

void Supervisor::StopAll(const std::function<void()>& done) {
  const bool posted = Post(
      [this, done](Now now) {
        coordinator_.Drain();
        std::vector<std::string> ids;
        for (const auto& [id, run] : coordinator_.runs()) {
          if (run.has_processes && !run.spec.external) ids.push_back(id);
        }
        for (const std::string& id : ids) {
          (void)coordinator_.Command(id, OrderKind::kStop, "stopped with the coordinator", now);
        }
        all_stopped_ = [before = std::move(all_stopped_), done] {
          if (before) before();
          done();
        };
      },
      done);
  if (!posted) done();
}

// --- On the supervisor's thread.

void Supervisor::DoSubmit(const RequestKey& key, RunSpec spec, const AnswerCallback& done,
                          Now now) {
  if (Repeated(key, {done, {}})) return;
  spec.id = NewRunId(spec.name);
  spec.submitted_unix = now.unix;
  const std::filesystem::path run_dir = options_.state_dir / "runs" / spec.id;
  spec.run_dir = run_dir.string();
  std::error_code error;
  std::filesystem::create_directories(run_dir, error);
  absl::Status status =
      error ? absl::InternalError(
                  absl::StrCat("cannot make ", run_dir.string(), ": ", error.message()))
            : config::WriteFileDurably(config::RunDirectory(run_dir).run_yaml(), spec.config_yaml);
  const std::string id = spec.id;
  details_[id];
  if (status.ok()) status = coordinator_.Submit(std::move(spec), now);
  if (!status.ok()) {
    details_.erase(id);
    std::filesystem::remove_all(run_dir, error);
    Reply(done, Refusal(status));
    return;
  }
  Answer answer;
  answer.run = ViewOf(*coordinator_.Find(id), 0, now);
  Remember(key, id, "", answer);
  Reply(done, std::move(answer));
}

void Supervisor::DoCommand(const RequestKey& key, const std::string& id, OrderKind kind,
                           const std::string& reason, const LimitChanges& limits, Waiter waiter,
                           Now now) {
  if (Repeated(key, waiter)) return;
  const absl::StatusOr<std::string> order = coordinator_.Command(id, kind, reason, now, limits);
  if (!order.ok()) {
    Reply(waiter.done, Refusal(order.status()));
    return;
  }
  Answer answer;
  const Run& run = *coordinator_.Find(id);
  answer.run = ViewOf(run, 0, now);
  answer.step = run.settled_step;
  answer.checkpoint = ToProto(run.last_checkpoint);
  Remember(key, id, *order, answer);
  if (order->empty()) {
    Reply(waiter.done, std::move(answer));
  } else {
    waiters_.emplace(*order, std::move(waiter));
  }
}

void Supervisor::Remember(const RequestKey& key, const std::string& run,
                          const std::string& order_id, const Answer& answer) {
  if (key.id.empty()) return;
  StoredRequest request;
  request.id = key.id;
  request.method = key.method;
  request.digest = key.digest;
  request.run = run;
  request.order_id = order_id;
  if (order_id.empty()) {
    request.done = true;
    request.step = answer.step;
    request.run_bytes = answer.run.SerializeAsString();
    request.checkpoint_bytes = answer.checkpoint.SerializeAsString();
  }
  new_requests_.push_back(std::move(request));
}

bool Supervisor::Repeated(const RequestKey& key, const Waiter& waiter) {
  if (key.id.empty()) return false;
  std::optional<StoredRequest> first;
  for (const StoredRequest& request : new_requests_) {
    if (request.id == key.id) first = request;  // The last one counts.
  }
  if (!first) {
    auto stored = store_->FindRequest(key.id);
    if (!stored.ok()) {
      Reply(waiter.done, Refusal(stored.status()));
      return true;
    }
    first = *std::move(stored);
  }
  if (!first) return false;
  if (first->method != key.method || first->digest != key.digest) {
    Reply(waiter.done, Refusal(absl::InvalidArgumentError(absl::StrCat(
                           "request_id: '", key.id, "' was used for another request"))));
    return true;
  }
  const Run* run = coordinator_.Find(first->run);
  if (!first->done && run != nullptr) {
    for (const Order& order : run->orders) {
      if (order.id != first->order_id) continue;
      waiters_.emplace(order.id, waiter);
      return true;
    }
  }
  Answer answer;
  answer.status = absl::Status(static_cast<absl::StatusCode>(first->code), first->message);
  answer.step = first->step;
  if (first->done) {
    answer.run.ParseFromString(first->run_bytes);
    answer.checkpoint.ParseFromString(first->checkpoint_bytes);
  } else if (run != nullptr) {
    answer.run = ViewOf(*run, 0, ReadClocks());
    answer.step = run->settled_step;
    answer.checkpoint = ToProto(run->last_checkpoint);
  }
  Reply(waiter.done, std::move(answer));
  return true;
}

// --- Looking, on any thread.

absl::StatusOr<std::shared_ptr<const v1::Run>> Supervisor::Find(const std::string& text) const {
  const std::lock_guard lock(view_mutex_);
  if (const auto exact = views_.find(text); exact != views_.end()) return exact->second.run;
  const View* named = nullptr;
  std::vector<std::string> begins;
  const View* begun = nullptr;
  for (const auto& [id, view] : views_) {
    if (view.run->name() == text && (named == nullptr || view.number > named->number)) {
      named = &view;
    }
    if (!text.empty() && id.compare(0, text.size(), text) == 0) {
      begins.push_back(id);
      begun = &view;
    }
  }
  if (named != nullptr) return named->run;
  if (begins.size() == 1) return begun->run;
  if (begins.empty()) return absl::NotFoundError(absl::StrCat("there is no run '", text, "'"));
  std::sort(begins.begin(), begins.end());
  if (begins.size() > 5) {
    begins.resize(5);
    begins.emplace_back("…");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("run: '", text, "' is the beginning of several: ", absl::StrJoin(begins, ", ")));
}

std::string Supervisor::ConfigOf(const std::string& id) const {
  const std::lock_guard lock(view_mutex_);
  const auto view = views_.find(id);
  return view == views_.end() ? std::string() : view->second.config_yaml;
}

std::vector<Supervisor::Listed> Supervisor::List() const {
  std::vector<Listed> listed;
  {
    const std::lock_guard lock(view_mutex_);
    listed.reserve(views_.size());
    for (const auto& [id, view] : views_) listed.push_back({view.number, view.run});
  }
  std::sort(listed.begin(), listed.end(),
            [](const Listed& a, const Listed& b) { return a.number > b.number; });
  return listed;
}

Supervisor::Overview Supervisor::overview() const {
  const std::lock_guard lock(view_mutex_);
  return overview_;
}

std::optional<metrics::Snapshot> Supervisor::Sample() {
  auto promise = std::make_shared<std::promise<std::optional<metrics::Snapshot>>>();
  std::future<std::optional<metrics::Snapshot>> future = promise->get_future();
  if (!Post([this, promise](Now now) { promise->set_value(MakeSample(now)); },
            [promise] { promise->set_value(std::nullopt); }) ||
      future.wait_for(kSampleTimeout) != std::future_status::ready) {
    return std::nullopt;
  }
  return future.get();
}

void Supervisor::AddWatcher(const std::string& id, int64_t after_sequence,
                            const std::shared_ptr<RunWatcher>& watcher) {
  // On the supervisor's thread, so that a watcher hears of everything in order.
  const auto refuse = [watcher] {
    watcher->Close(absl::UnavailableError("the coordinator is shutting down"));
  };
  const auto handle = [this, id, after_sequence, watcher](Now) {
    std::shared_ptr<const v1::Run> run;
    {
      const std::lock_guard lock(view_mutex_);
      const auto view = views_.find(id);
      if (view != views_.end()) run = view->second.run;
    }
    if (run == nullptr) {
      watcher->Close(absl::NotFoundError(absl::StrCat("there is no run '", id, "'")));
      return;
    }
    if (run->sequence() > after_sequence) watcher->Changed(run);
    if (run->state() >= v1::RUN_STATE_COMPLETED) {
      watcher->Close(absl::OkStatus());
    } else {
      watchers_[id].push_back(watcher);
    }
  };
  if (!Post(handle, refuse)) refuse();
}

void Supervisor::RemoveWatcher(const std::string& id, const RunWatcher* watcher) {
  // Posted too: it must not overtake the adding.
  Post([this, id, watcher](Now) {
    const auto list = watchers_.find(id);
    if (list == watchers_.end()) return;
    auto& watchers = list->second;
    watchers.erase(std::remove_if(watchers.begin(), watchers.end(),
                                  [&](const auto& one) { return one.get() == watcher; }),
                   watchers.end());
    if (watchers.empty()) watchers_.erase(list);
  });
}

}  // namespace lockstep::launch
