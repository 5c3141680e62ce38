// A whole world in one process: the same function on every rank, each rank a thread.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "trainer/comm/threads.h"

namespace lockstep::trainer {

/// Returns when all ranks are done. When a rank throws, the others are aborted and its exception
/// comes out here.
inline void RunRanks(int world_size, const std::function<void(Communicator&)>& body,
                     std::chrono::milliseconds deadline = std::chrono::seconds(60)) {
  auto communicators = MakeThreadCommunicators(world_size, {.deadline = deadline});
  std::vector<std::exception_ptr> failures(world_size);
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < world_size; ++rank) {
      threads.emplace_back([&, rank] {
        try {
          body(*communicators[rank]);
        } catch (const CommunicatorLost&) {
          failures[rank] = std::current_exception();
        } catch (...) {
          failures[rank] = std::current_exception();
          communicators[rank]->Abort("rank " + std::to_string(rank) + " threw");
        }
      });
    }
  }
  // The cause, not the ranks that were aborted because of it.
  std::exception_ptr lost;
  for (const std::exception_ptr& failure : failures) {
    if (!failure) continue;
    try {
      std::rethrow_exception(failure);
    } catch (const CommunicatorLost&) {
      lost = failure;
    }
  }
  if (lost) std::rethrow_exception(lost);
}

}  // namespace lockstep::trainer
