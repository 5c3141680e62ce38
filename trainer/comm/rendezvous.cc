#include "trainer/comm/rendezvous.h"

#include <c10/core/ScalarType.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstring>
#include <new>

namespace lockstep::trainer {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::steady_clock;

// A missed wake-up or a peer that died costs at most this long. Waking four times a second is free.
constexpr milliseconds kLongestSleep(250);
// Ranks that finish their slices of one sum together are this close, and being woken costs half as
// much; a longer spin only burns the core that a helper thread could use.
constexpr nanoseconds kSpin(100'000);
// Cores that are told apart, by number modulo this: more than ranks of a host.
constexpr int kCoreWords = 64;
constexpr int kWords = 4;
constexpr size_t kReasonBytes = 1024;
// Writing a reason takes less than a microsecond, unless its writer loses the core or its life.
constexpr milliseconds kReasonIsWritten(1000);

void Futex(std::atomic<uint32_t>* word, int operation, uint32_t value, const timespec* timeout) {
  // Not FUTEX_PRIVATE: the word may be shared with other processes.
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation, value, timeout, nullptr, 0);
}

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

std::string RankList(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) text += (i ? ", " : "") + std::to_string(ranks[i]);
  return text;
}

std::string Seconds(milliseconds time) {
  std::string text =
      std::to_string(time.count() / 1000) + "." + std::to_string(time.count() % 1000 / 100) + " s";
  return text;
}

}  // namespace

struct alignas(64) Rendezvous::Slot {
  std::atomic<int64_t> arrivals;
  std::atomic<int64_t> pid;
  // Written before this rank's arrival, read after everybody's. Two, used in turn: a rank may be in
  // its next Begin() while a slower one still compares.
  Collective collective[2];
  std::atomic<int64_t> words[kWords];
};

struct alignas(64) Rendezvous::Control {
  std::atomic<uint32_t> generation;  // Counts completed barriers; the futex word.
  std::atomic<uint32_t> arrived;
  std::atomic<uint32_t> sleepers;
  std::atomic<uint32_t> aborted;  // 0 no, 1 the reason is being written, 2 the reason is there.
  char reason[kReasonBytes];
  std::atomic<uint64_t> cores[kCoreWords];  // A bit for each core that some rank may use.
};

std::string Collective::ToString() const {
  static constexpr const char* kNames[] = {"allocation", "all-reduce", "broadcast", "barrier"};
  std::string text = kNames[static_cast<int>(kind)];
  if (kind == Kind::kBarrier) return text;
  text += " of " + std::to_string(count) + " " +
          c10::toString(static_cast<c10::ScalarType>(static_cast<int8_t>(dtype)));
  if (kind == Kind::kBroadcast) text += " from rank " + std::to_string(detail);
  return text;
}

size_t Rendezvous::Bytes(int ranks) {
  return sizeof(Control) + ranks * sizeof(Slot);
}

Rendezvous::Rendezvous(void* memory, RendezvousOptions options)
    : control_(static_cast<Control*>(memory)), options_(std::move(options)) {
  static_assert(std::atomic<uint32_t>::is_always_lock_free);
  static_assert(std::atomic<int64_t>::is_always_lock_free);
  // Zeroed memory is a valid Control and valid Slots; constructing them here would race with peers.
  if (options_.processes) slot(options_.index).pid.store(getpid());
  cpu_set_t mine;
  if (sched_getaffinity(0, sizeof(mine), &mine) != 0) return;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &mine)) continue;
    control_->cores[core / 64 % kCoreWords].fetch_or(uint64_t{1} << (core % 64));
  }
}

bool Rendezvous::CoreForEach() const {
  int cores = 0;
  for (const std::atomic<uint64_t>& word : control_->cores) cores += std::popcount(word.load());
  return size() <= cores;
}

Rendezvous::Slot& Rendezvous::slot(int index) const {
  return reinterpret_cast<Slot*>(control_ + 1)[index];
}

std::string Rendezvous::Describe() const {
  return slot(options_.index).collective[collectives_ % 2].ToString() + " (collective " +
         std::to_string(collectives_) + ")";
}

void Rendezvous::Begin(const Collective& collective) {
  slot(options_.index).collective[++collectives_ % 2] = collective;
  Meet();
  CheckSame(collective);
}

void Rendezvous::Meet(milliseconds grace) {
  // The generation is read before the abort flag: Abort() sets the flag first, so a rank that
  // misses the flag here sees the generation move on.
  const uint32_t generation = control_->generation.load();
  ThrowIfAborted();
  slot(options_.index).arrivals.store(++arrivals_, std::memory_order_release);
  if (control_->arrived.fetch_add(1) + 1 == static_cast<uint32_t>(size())) {
    control_->arrived.store(0);
    control_->generation.fetch_add(1);
    if (control_->sleepers.load() > 0) {
      Futex(&control_->generation, FUTEX_WAKE, INT_MAX, nullptr);
    }
  } else if (!Spin(generation)) {
    Sleep(generation, options_.deadline + grace);
  }
  ThrowIfAborted();
  // Everybody has told their cores before they arrived for the first time.
  if (arrivals_ == 1 && CoreForEach()) spin_ = kSpin;
}

bool Rendezvous::Spin(uint32_t generation) const {
  const auto start = steady_clock::now();
  do {
    for (int i = 0; i < 32; ++i) {
      if (control_->generation.load(std::memory_order_acquire) != generation) return true;
      Pause();
    }
  } while (steady_clock::now() - start < spin_);
  return false;
}

void Rendezvous::Sleep(uint32_t generation, milliseconds limit) {
  const auto start = steady_clock::now();
  control_->sleepers.fetch_add(1);
  while (control_->generation.load() == generation) {
    const auto waited = steady_clock::now() - start;
    if (waited >= limit) {
      control_->sleepers.fetch_sub(1);
      BlameMissing(std::chrono::duration_cast<milliseconds>(waited));
    }
    const auto sleep = std::min<nanoseconds>(limit - waited, kLongestSleep);
    const timespec timeout{.tv_sec = 0, .tv_nsec = static_cast<long>(sleep.count())};
    Futex(&control_->generation, FUTEX_WAIT, generation, &timeout);
    if (options_.processes && waited > kLongestSleep) BlameDead();
  }
  control_->sleepers.fetch_sub(1);
}

void Rendezvous::BlameMissing(milliseconds waited) {
  ThrowIfAborted();
  std::vector<int> missing;
  for (int i = 0; i < size(); ++i) {
    if (slot(i).arrivals.load() < arrivals_) missing.push_back(options_.ranks[i]);
  }
  // Empty when the last one came in this very moment; it is late all the same.
  const std::string who = missing.empty() ? "a rank" : RankList(missing);
  Fail(Describe() + ": " + who + " of " + std::to_string(options_.world_size) +
       " did not arrive within " + Seconds(waited));
}

bool Rendezvous::Gone(int index) const {
  const int64_t pid = slot(index).pid.load();
  return pid != 0 && kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH;
}

void Rendezvous::FailForDead(int index) {
  ThrowIfAborted();
  Fail(Describe() + ": rank " + std::to_string(options_.ranks[index]) + " is gone (process " +
       std::to_string(slot(index).pid.load()) + " ended)");
}

void Rendezvous::BlameDead() {
  for (int i = 0; i < size(); ++i) {
    if (slot(i).arrivals.load() >= arrivals_ || !Gone(i)) continue;
    control_->sleepers.fetch_sub(1);
    FailForDead(i);
  }
}

void Rendezvous::Check() {
  ThrowIfAborted();
  for (int i = 0; options_.processes && i < size(); ++i) {
    if (Gone(i)) FailForDead(i);
  }
}

void Rendezvous::CheckSame(const Collective& mine) {
  for (int i = 0; i < size(); ++i) {
    const Collective theirs = slot(i).collective[collectives_ % 2];
    if (theirs == mine) continue;
    Fail("the ranks went different ways in collective " + std::to_string(collectives_) + ": rank " +
         std::to_string(options_.ranks[options_.index]) + " is in " + mine.ToString() + ", rank " +
         std::to_string(options_.ranks[i]) + " in " + theirs.ToString());
  }
}

void Rendezvous::Abort(std::string_view reason) noexcept {
  uint32_t none = 0;
  if (control_->aborted.compare_exchange_strong(none, 1)) {
    const size_t length = std::min(reason.size(), kReasonBytes - 1);
    std::memcpy(control_->reason, reason.data(), length);
    control_->reason[length] = '\0';
    control_->aborted.store(2);
  }
  control_->generation.fetch_add(1);
  Futex(&control_->generation, FUTEX_WAKE, INT_MAX, nullptr);
}

void Rendezvous::ThrowIfAborted() const {
  if (control_->aborted.load() == 0) return;
  const auto start = steady_clock::now();
  while (control_->aborted.load() == 1 && steady_clock::now() - start < kReasonIsWritten) {
    sched_yield();
  }
  throw CommunicatorLost(control_->aborted.load() == 2 ? std::string(control_->reason)
                                                       : "a rank ended in the middle of an abort");
}

void Rendezvous::Fail(const std::string& reason) {
  Abort(reason);
  throw CommunicatorLost(reason);
}

void Rendezvous::Post(int word, int64_t value) {
  slot(options_.index).words[word].store(value);
}

int64_t Rendezvous::Posted(int index, int word) const {
  return slot(index).words[word].load();
}

}  // namespace lockstep::trainer
