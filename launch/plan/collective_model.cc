#include "launch/plan/collective_model.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace lockstep::plan {
namespace {

// Latencies of a ring's message: NCCL's table for its Simple protocol, microseconds
// (src/graph/tuning.cc, hwLat: NVLink 3.4, PCI 5.7, network 9.6). Its network is InfiniBand or the
// like; TCP goes through two kernels and takes some 30.
constexpr double kNvlinkLatency = 3.4e-6;
constexpr double kPcieLatency = 5.7e-6;
constexpr double kFabricLatency = 9.6e-6;
constexpr double kTcpLatency = 30e-6;

// What a collective gets of a link's nominal rate. NCCL plans with 235 of the 300 GB/s that an
// A100's NVLinks carry one way (same table): 0.78. PCIe and Ethernet lose about as much to packet
// headers, flow control and turning around.
constexpr double kYield = 0.78;

Link Make(const char* name, double latency, double nominal_gigabytes, bool between,
          const char* about) {
  return {name, latency, nominal_gigabytes * 1e9 * kYield, between, about};
}

// Rate out of one GPU, or out of one host, one way, GB/s. NVLink: links x rate of a link (NVIDIA's
// NVLink table, whose totals count both ways). PCIe: lanes x transfer rate x 128/130.
std::vector<Link> MakeNamedLinks() {
  return {
      Make("nvlink2", kNvlinkLatency, 150, false, "NVLink 2, V100: 6 x 25 GB/s"),
      Make("nvlink3", kNvlinkLatency, 300, false, "NVLink 3, A100: 12 x 25 GB/s"),
      Make("nvlink4", kNvlinkLatency, 450, false, "NVLink 4, H100 and H200: 18 x 25 GB/s"),
      Make("nvlink5", kNvlinkLatency, 900, false, "NVLink 5, B200: 18 x 50 GB/s"),
      Make("pcie3", kPcieLatency, 15.75, false, "PCIe 3.0 x16: 16 x 8 GT/s"),
      Make("pcie4", kPcieLatency, 31.5, false, "PCIe 4.0 x16: 16 x 16 GT/s"),
      Make("pcie5", kPcieLatency, 63, false, "PCIe 5.0 x16: 16 x 32 GT/s"),
      Make("1GbE", kTcpLatency, 0.125, true, "Ethernet, 1 Gb/s, TCP"),
      Make("10GbE", kTcpLatency, 1.25, true, "Ethernet, 10 Gb/s, TCP"),
      Make("25GbE", kTcpLatency, 3.125, true, "Ethernet, 25 Gb/s, TCP"),
      Make("100GbE", kTcpLatency, 12.5, true, "Ethernet, 100 Gb/s, TCP"),
      Make("ib-edr", kFabricLatency, 12.5, true, "InfiniBand EDR or Omni-Path 100, 100 Gb/s"),
      Make("ib-hdr", kFabricLatency, 25, true, "InfiniBand HDR, 200 Gb/s"),
      Make("ib-ndr", kFabricLatency, 50, true, "InfiniBand NDR, 400 Gb/s"),
  };
}

}  // namespace

const char* ToString(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kNone:
      return "none";
    case Algorithm::kRing:
      return "ring";
    case Algorithm::kTree:
      return "tree";
  }
  return "none";
}

double RingAllReduceSeconds(const Link& link, int ranks, double bytes) {
  if (ranks <= 1) return 0;
  const double messages = 2.0 * (ranks - 1);
  return messages * link.latency_seconds + messages / ranks * bytes / link.bytes_per_second;
}

double TreeAllReduceSeconds(const Link& link, int ranks, double bytes) {
  if (ranks <= 1) return 0;
  return 2 * std::ceil(std::log2(ranks)) * link.latency_seconds + 2 * bytes / link.bytes_per_second;
}

AllReduceTime BestAllReduce(const Link& link, int ranks, double bytes) {
  if (ranks <= 1) return {};
  const double ring = RingAllReduceSeconds(link, ranks, bytes);
  const double tree = TreeAllReduceSeconds(link, ranks, bytes);
  return ring <= tree ? AllReduceTime{ring, Algorithm::kRing}
                      : AllReduceTime{tree, Algorithm::kTree};
}

AllReduceTime ClusterAllReduce(const Cluster& cluster, double bytes) {
  const double inside = RingAllReduceSeconds(cluster.inside, cluster.ranks_per_host, bytes);
  AllReduceTime time = BestAllReduce(cluster.between, cluster.hosts, bytes);
  if (time.algorithm == Algorithm::kNone && inside > 0) time.algorithm = Algorithm::kRing;
  time.seconds += inside;
  return time;
}

double ExposedSeconds(double reduce_seconds, double backward_seconds, double overlap) {
  const double hidden =
      std::min(reduce_seconds * std::clamp(overlap, 0.0, 1.0), std::max(0.0, backward_seconds));
  return reduce_seconds - hidden;
}

absl::StatusOr<Link> FitLink(const std::vector<TimedAllReduce>& timed, int ranks,
                             const std::string& name) {
  if (ranks < 2) return absl::InvalidArgumentError("one rank has nobody to reduce with");
  // t = a + b n, least squares on the relative error: the small messages tell a, the large ones b.
  double s11 = 0, s12 = 0, s22 = 0, v1 = 0, v2 = 0, smallest = INFINITY, largest = 0;
  for (const TimedAllReduce& one : timed) {
    if (!(one.seconds > 0) || !(one.bytes > 0)) continue;
    const double a = 1 / one.seconds, b = one.bytes / one.seconds;
    s11 += a * a, s12 += a * b, s22 += b * b, v1 += a, v2 += b;
    smallest = std::min(smallest, one.bytes);
    largest = std::max(largest, one.bytes);
  }
  if (!(smallest < largest)) {
    return absl::InvalidArgumentError(
        "a link is fitted to timed all-reduces of two or more different sizes");
  }
  const double determinant = s11 * s22 - s12 * s12;
  double start = (v1 * s22 - v2 * s12) / determinant;
  double per_byte = (v2 * s11 - v1 * s12) / determinant;
  if (!(start >= 0)) {
    start = 0;
    per_byte = v2 / s22;
  }
  if (!(per_byte > 0)) {
    // All sizes took the same: the largest one bounds what a byte can cost.
    per_byte = 1e-3 * v1 / s11 / largest;
    start = v1 / s11;
  }
  const double messages = 2.0 * (ranks - 1);
  Link link;
  link.name = name;
  link.latency_seconds = start / messages;
  link.bytes_per_second = messages / ranks / per_byte;
  link.about = absl::StrCat("measured with ", ranks, " ranks");
  return link;
}

const std::vector<Link>& NamedLinks() {
  static const std::vector<Link>& links = *new std::vector<Link>(MakeNamedLinks());
  return links;
}

absl::StatusOr<Link> FindLink(std::string_view name) {
  std::string names;
  for (const Link& link : NamedLinks()) {
    if (absl::EqualsIgnoreCase(link.name, absl::string_view(name.data(), name.size()))) return link;
    absl::StrAppend(&names, names.empty() ? "" : ", ", link.name);
  }
  return absl::NotFoundError(
      absl::StrCat("there is no interconnect '", std::string(name), "'; expected one of ", names));
}

}  // namespace lockstep::plan
