// The last 1,024 collectives of a rank: what it was in the middle of when something hung.
//
// Written by the thread that runs the collectives (with a GPU also by autograd's), read by anyone.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>

namespace lockstep::trainer {

class CollectiveLog {
 public:
  static constexpr int kKept = 1024;

  /// `kind` and `dtype` are literals. Returns the collective's number, from 1.
  int64_t Add(const char* kind, const char* dtype, int64_t count);
  /// All collectives until now have ended on the device.
  void MarkDone();

  int64_t newest() const;
  /// One line each, oldest first: "12 all-reduce of 1024 Float, begun 3.251 s ago, not known to
  /// have ended".
  std::string ToString() const;

 private:
  struct Entry {
    const char* kind = "";
    const char* dtype = "";
    int64_t count = 0;
    double began = 0;  // CLOCK_MONOTONIC, seconds.
  };
  mutable std::mutex mutex_;
  std::array<Entry, kKept> entries_;  // Number n is at n % kKept. All guarded by mutex_.
  int64_t newest_ = 0;
  int64_t done_ = 0;
};

}  // namespace lockstep::trainer
