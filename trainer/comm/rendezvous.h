// Where the ranks of one host meet: a barrier in memory they share, with a deadline, a name for who
// is missing, and an abort that wakes everybody.
//
// The memory is zeroed by whoever makes it and may be shared by threads or by processes; nothing in
// it is a pointer. A rank that waits spins for some microseconds, then sleeps in the kernel
// (futex): with more ranks than cores a pure spin would take the core from the rank it waits for,
// so there nobody spins. What counts are the cores of all ranks together: each may be bound to one.
//
// Not thread-safe, except Abort(). Every failure is CommunicatorLost and is final.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/comm/communicator.h"

namespace lockstep::trainer {

// What a rank is about to do. Ranks compare them, so that a rank that took another way is found in
// the collective where it happened instead of summing wrong memory.
struct Collective {
  enum class Kind : int32_t { kAllocate, kAllReduce, kBroadcast, kBarrier };
  Kind kind = Kind::kBarrier;
  int32_t dtype = 0;   // c10::ScalarType.
  int64_t count = 0;   // Elements.
  int64_t detail = 0;  // Root of a broadcast; offset in the window of an all-reduce.

  bool operator==(const Collective&) const = default;
  std::string ToString() const;  // "all-reduce of 100 Float"
};

struct RendezvousOptions {
  int index = 0;           // This rank among the ranks of the host.
  std::vector<int> ranks;  // World rank of each of them: what messages say.
  int world_size = 1;
  std::chrono::milliseconds deadline{std::chrono::seconds(60)};
  bool processes = false;  // Ranks are processes: one that is gone need not be waited for.
};

class Rendezvous {
 public:
  static size_t Bytes(int ranks);

  /// `memory`: Bytes(ranks) zeroed bytes at a multiple of 64; outlives this object.
  Rendezvous(void* memory, RendezvousOptions options);

  /// Starts a collective: notes what this rank is about to do, waits for all ranks of the host, and
  /// checks that all are about to do the same.
  void Begin(const Collective& collective);

  /// A further barrier inside the collective that Begin() started. `grace` is added to the
  /// deadline: for those who wait for one rank that is itself waiting for another host.
  void Meet(std::chrono::milliseconds grace = {});

  /// Makes this and every later wait of every rank throw. Safe from any thread, also twice; the
  /// first reason is kept.
  void Abort(std::string_view reason) noexcept;
  void ThrowIfAborted() const;
  /// ThrowIfAborted(), and also when a process of this host's ranks is gone.
  void Check();
  /// Abort(reason), then throws CommunicatorLost(reason).
  [[noreturn]] void Fail(const std::string& reason);

  /// Four words that any rank may write and, after the next Meet(), all may read.
  void Post(int word, int64_t value);
  int64_t Posted(int index, int word) const;

  const RendezvousOptions& options() const { return options_; }
  int size() const { return static_cast<int>(options_.ranks.size()); }
  /// Whether who waits spins first: known after the first Meet().
  bool spins() const { return spin_.count() > 0; }
  std::string Describe() const;  // "all-reduce of 100 Float (collective 7)"

 private:
  struct Slot;
  struct Control;
  Slot& slot(int index) const;
  void Sleep(uint32_t generation, std::chrono::milliseconds limit);
  bool Spin(uint32_t generation) const;
  void BlameMissing(std::chrono::milliseconds waited);
  bool Gone(int index) const;
  [[noreturn]] void FailForDead(int index);
  void BlameDead();
  bool CoreForEach() const;
  void CheckSame(const Collective& mine);

  Control* control_ = nullptr;
  RendezvousOptions options_;
  int64_t arrivals_ = 0;
  int64_t collectives_ = 0;
  std::chrono::nanoseconds spin_{};
};

}  // namespace lockstep::trainer
