// What an all-reduce takes, from two numbers of the link: alpha, the time of a message however
// small, and beta, the time of a byte.
//
//   ring  2 (p - 1) alpha + 2 (p - 1) / p  n beta      p ranks, n bytes
//   tree  2 log2(p) alpha + 2 n beta
//
// Ring: a reduce-scatter and an all-gather, in p - 1 messages of n / p bytes each (Thakur,
// Rabenseifner, Gropp: Optimization of Collective Communication Operations in MPICH, 2005; section
// 4.5). Tree: two complementary binary trees, pipelined, each carrying half of the bytes up and
// down (Sanders, Speck, Traeff: Two-Tree Algorithms for Full Bandwidth Broadcast, Reduction and
// Scan, 2009). NCCL chooses between the same two by the same arithmetic (src/graph/tuning.cc), and
// so does BestAllReduce(). Several hosts: reduce-scatter and all-gather inside of each, the
// all-reduce between them in the middle. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace lockstep::plan {

struct Link {
  std::string name;
  double latency_seconds = 0;   // alpha: of one message between two neighbours.
  double bytes_per_second = 0;  // 1 / beta: out of one rank (or host), one direction.
  bool between_hosts = false;
  std::string about;  // What it is, and where the numbers come from.
};

enum class Algorithm { kNone, kRing, kTree };
const char* ToString(Algorithm algorithm);

struct AllReduceTime {
  double seconds = 0;
  Algorithm algorithm = Algorithm::kNone;
};

/// 0 for one rank. `ranks` at least 1, `bytes` at least 0.
double RingAllReduceSeconds(const Link& link, int ranks, double bytes);
double TreeAllReduceSeconds(const Link& link, int ranks, double bytes);
/// The faster of the two.
AllReduceTime BestAllReduce(const Link& link, int ranks, double bytes);

// Ranks of `hosts` hosts, `ranks_per_host` on each.
struct Cluster {
  Link inside;
  Link between;
  int ranks_per_host = 1;
  int hosts = 1;
};
/// Between hosts the better of ring and tree; inside of each a ring.
AllReduceTime ClusterAllReduce(const Cluster& cluster, double bytes);

/// How much of an all-reduce a step waits for, when up to `overlap` (0-1) of it may go on behind
/// the backward pass: what may not, and what is longer than the backward pass.
double ExposedSeconds(double reduce_seconds, double backward_seconds, double overlap);

struct TimedAllReduce {
  double bytes = 0;
  double seconds = 0;
};
/// The link that gives these times as a ring over `ranks` ranks, two at least. INVALID_ARGUMENT
/// with fewer than two different sizes.
absl::StatusOr<Link> FitLink(const std::vector<TimedAllReduce>& timed, int ranks,
                             const std::string& name);

/// The links that have a name, inside of a host first.
const std::vector<Link>& NamedLinks();
/// Case does not matter. NOT_FOUND lists the names.
absl::StatusOr<Link> FindLink(std::string_view name);

}  // namespace lockstep::plan
