// Which cores a rank may use: right by default, whatever mpirun did.
//
// mpirun's own default binds each rank of a small world to one core, which halves a rank of two
// threads without a word. So a mask narrower than the rank's threads is widened to what the
// launcher itself may use (a mask that a user set around mpirun stays). Where the ranks' threads
// just fill a host of several processor packages, each rank gets cores of its own, so that none
// wanders away from its memory. Everything else is left to the kernel: on one package a fixed
// choice measured no gain on an idle host, and on a busy one it holds all ranks up behind the one
// whose core is shared, with its loader and checkpoint threads too.
//
// Call it before the first thread is made: threads inherit the mask of the one that makes them.
#pragma once

#include <string>
#include <vector>

namespace lockstep::trainer {

struct RankPlacement {
  int local_rank = 0;  // Among the ranks of this host.
  int ranks_on_host = 1;
  int threads = 1;  // Of a rank.
};

struct HostCores {
  std::vector<int> mine;     // What this process may use now.
  std::vector<int> allowed;  // What the launcher may use, neighbours in the hardware side by side.
  int packages = 1;          // Processors that `allowed` spreads over.
};

struct Binding {
  std::vector<int> cores;  // What this process shall use; as it was where nothing is to be done.
  std::string text;        // One line for the log: what was done, and why.
};

/// The rule, without touching anything.
Binding ChooseBinding(const RankPlacement& placement, const HostCores& cores);

/// How many cores the ranks of this host may use together, whatever this one was bound to: what
/// `threads_per_rank: auto` divides. (std::thread::hardware_concurrency() counts this rank's
/// alone.)
int CoresOfHost();

/// Applies it to the calling thread. A kernel that refuses is named in the text and changes
/// nothing.
Binding BindRank(const RankPlacement& placement);

}  // namespace lockstep::trainer
