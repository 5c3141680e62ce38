#include "trainer/link/mailbox.h"

#include <utility>

#include "trainer/link/wire.h"

namespace lockstep::trainer {
namespace {

constexpr std::chrono::milliseconds kUnsure{1000};
constexpr size_t kMaxQueued = 1000;
constexpr size_t kMaxOrders = 4096;  // Remembered ids; a run sees a handful.

}  // namespace

Mailbox::Mailbox(LinkOptions options) : options_(std::move(options)), run_id_(options_.run_id) {}

void Mailbox::SetProgress(const ProgressReport& progress) {
  const std::lock_guard lock(mutex_);
  progress_ = progress;
  progress_is_new_ = true;
}

void Mailbox::Queue(v1::AttachRequest message) {
  const std::lock_guard lock(mutex_);
  QueueLocked(std::move(message));
}

void Mailbox::QueueLocked(v1::AttachRequest message) {
  if (goodbye_ || !rejected_.empty()) return;
  if (queued_.size() >= kMaxQueued) queued_.pop_front();
  queued_.push_back(std::move(message));
}

void Mailbox::OrderDone(const std::string& order_id, v1::AttachRequest message) {
  const std::lock_guard lock(mutex_);
  if (done_.size() < kMaxOrders) done_[order_id] = message;
  QueueLocked(std::move(message));
}

std::vector<Order> Mailbox::TakeOrders() {
  const std::lock_guard lock(mutex_);
  return std::exchange(orders_, {});
}

bool Mailbox::Goodbye(v1::AttachRequest message, std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (goodbye_ || !rejected_.empty()) return false;
  goodbye_ = std::move(message);
  // Who fails in the middle of something may not know how far the run was.
  if (progress_ && goodbye_->goodbye().progress().step() < progress_->step) {
    *goodbye_->mutable_goodbye()->mutable_progress() = ToWire(*progress_);
  }
  changed_.notify_all();
  changed_.wait_for(lock, timeout, [this] { return goodbye_over_; });
  return goodbye_taken_;
}

std::string Mailbox::rejected() const {
  const std::lock_guard lock(mutex_);
  return rejected_;
}

bool Mailbox::connected() const {
  const std::lock_guard lock(mutex_);
  return connected_;
}

std::string Mailbox::run_id() const {
  const std::lock_guard lock(mutex_);
  return run_id_;
}

v1::AttachRequest Mailbox::Hello() const {
  v1::AttachRequest message;
  const std::lock_guard lock(mutex_);
  *message.mutable_hello() = ToWire(options_, progress_);
  return message;
}

void Mailbox::Welcomed(const std::string& run_id) {
  const std::lock_guard lock(mutex_);
  connected_ = true;
  if (!run_id.empty()) run_id_ = run_id;
}

void Mailbox::Receive(const v1::Order& message) {
  const std::lock_guard lock(mutex_);
  if (const auto done = done_.find(message.order_id()); done != done_.end()) {
    QueueLocked(done->second);
    return;
  }
  if (seen_orders_.size() >= kMaxOrders || !seen_orders_.insert(message.order_id()).second) return;
  if (const std::optional<Order> order = FromWire(message)) {
    orders_.push_back(*order);
    return;
  }
  v1::AttachRequest answer;
  answer.mutable_order_done()->set_order_id(message.order_id());
  answer.mutable_order_done()->set_error("this trainer does not know this kind of order");
  done_[message.order_id()] = answer;
  QueueLocked(std::move(answer));
}

std::optional<v1::AttachRequest> Mailbox::Next(bool progress_is_due, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  while (!unsure_.empty() && now - unsure_.front().when > kUnsure) unsure_.pop_front();
  // Before anything that speaks of a step, the progress up to it: who is told that a run holds
  // after step 6 must not then see it at step 5.
  if (progress_is_new_ && (progress_is_due || !queued_.empty())) {
    v1::AttachRequest message;
    *message.mutable_progress() = ToWire(*progress_);
    progress_is_new_ = false;
    return message;
  }
  if (!queued_.empty()) {
    unsure_.push_back({now, std::move(queued_.front())});
    queued_.pop_front();
    return unsure_.back().message;
  }
  return goodbye_;
}

bool Mailbox::StreamBroke(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  while (!unsure_.empty()) {
    if (now - unsure_.back().when <= kUnsure && queued_.size() < kMaxQueued) {
      queued_.push_front(std::move(unsure_.back().message));
    }
    unsure_.pop_back();
  }
  return std::exchange(connected_, false);
}

void Mailbox::Reject(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  rejected_ = reason.empty() ? "the coordinator refused this attempt" : reason;
}

bool Mailbox::goodbye_wanted() const {
  const std::lock_guard lock(mutex_);
  return goodbye_.has_value();
}

void Mailbox::EndGoodbye(bool taken) {
  const std::lock_guard lock(mutex_);
  goodbye_over_ = true;
  goodbye_taken_ = taken;
  changed_.notify_all();
}

void Mailbox::Wait(const std::stop_token& stop, std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, stop, time, [this] { return goodbye_.has_value(); });
}

}  // namespace lockstep::trainer
