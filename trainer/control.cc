#include "trainer/control.h"

#include <signal.h>

#include <atomic>

namespace lockstep::trainer {

namespace {

// Set by the handler, taken by the step loop: one bit a Vote. Lock-free, so safe in a handler.
std::atomic<uint32_t> signal_votes{0};

void OnSignal(int number) {
  const Vote vote = number == SIGUSR1 ? Vote::kCheckpoint : Vote::kStop;
  signal_votes.fetch_or(1u << static_cast<int>(vote));
}

Vote VoteOf(Order::Kind kind) {
  switch (kind) {
    case Order::kPause:
      return Vote::kPause;
    case Order::kHold:
      return Vote::kHold;
    case Order::kResume:
      return Vote::kResume;
    case Order::kCheckpoint:
      return Vote::kCheckpoint;
    case Order::kStop:
      return Vote::kStop;
  }
  return Vote::kStop;
}

}  // namespace

void CatchSignals() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int number : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT}) sigaction(number, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

void Requests::Add(const StepSummary& summary) {
  checkpoint |= summary.Has(Vote::kCheckpoint);
  hold |= summary.Has(Vote::kHold);
  resume |= summary.Has(Vote::kResume);
  pause |= summary.Has(Vote::kPause);
  stop |= summary.Has(Vote::kStop);
  time_up |= summary.Has(Vote::kTimeUp);
  disk_full |= summary.Has(Vote::kDiskFull);
}

Control::Control(Agreement& agreement, CoordinatorLink* link)
    : agreement_(agreement), link_(link) {}

Control::~Control() = default;

void Control::CastVotes() {
  const uint32_t votes = signal_votes.exchange(0);
  for (int i = 0; i < kVoteCount; ++i) {
    if (votes & (1u << i)) agreement_.Cast(static_cast<Vote>(i));
  }
  if (link_ == nullptr) return;
  for (Order& order : link_->TakeOrders()) {
    agreement_.Cast(VoteOf(order.kind));
    open_orders_.push_back(std::move(order));
  }
}

StepSummary Control::Together() {
  CastVotes();
  return agreement_.VoteNow();
}

std::vector<std::string> Control::TakeOrders(Vote vote) {
  std::vector<std::string> ids;
  std::erase_if(open_orders_, [&](const Order& order) {
    if (VoteOf(order.kind) != vote) return false;
    ids.push_back(order.id);
    return true;
  });
  return ids;
}

void Control::Answer(const std::vector<std::string>& orders, int64_t step, const std::string& error,
                     const std::optional<CheckpointReport>& checkpoint) {
  for (const std::string& id : orders) link_->OrderDone(id, step, error, checkpoint);
}

}  // namespace lockstep::trainer
