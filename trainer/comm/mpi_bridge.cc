#include "trainer/comm/mpi_bridge.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "trainer/comm/mpi_bridge_impl.h"

namespace lockstep::trainer {
namespace {

using std::chrono::steady_clock;

constexpr int64_t kLargestCount = int64_t{1} << 28;  // MPI counts elements in an int.
constexpr int kArrivalTag = 1;

std::string RanksOf(const std::vector<int>& host_of_rank, int host) {
  std::string text;
  for (size_t rank = 0; rank < host_of_rank.size(); ++rank) {
    if (host_of_rank[rank] == host) text += (text.empty() ? "" : ", ") + std::to_string(rank);
  }
  return text;
}

void Check(Rendezvous& host, int result) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(result, text, &length);
  host.Fail(host.Describe() + ": MPI between the hosts failed: " + std::string(text, length));
}

// Polls until `done()`; fails with `late()` at the deadline. Polling makes MPI's progress; after
// the first thousand polls it leaves the core to others between two of them.
template <typename Done, typename Late>
void WaitFor(Rendezvous& host, Done done, Late late) {
  const auto start = steady_clock::now();
  for (int polls = 0; !done(); ++polls) {
    host.ThrowIfAborted();
    if (steady_clock::now() - start > host.options().deadline) host.Fail(late());
    if (polls > 1000) {
      const timespec pause{.tv_sec = 0, .tv_nsec = 20'000};
      nanosleep(&pause, nullptr);
    }
  }
}

void Complete(Rendezvous& host, MPI_Request request) {
  WaitFor(
      host,
      [&] {
        int done = 0;
        Check(host, MPI_Test(&request, &done, MPI_STATUS_IGNORE));
        return done != 0;
      },
      [&] { return host.Describe() + ": the hosts arrived, but MPI did not finish in time"; });
}

// Returns when every host has arrived. `sent` and the receive buffers must outlive a failure, since
// MPI may still write to them: the communicator is lost then, and so is this little memory.
void Meet(Rendezvous& host, const MpiBridge::Impl& impl) {
  const auto hosts =
      static_cast<int>(*std::max_element(impl.host_of_rank.begin(), impl.host_of_rank.end()) + 1);
  std::vector<MPI_Request> requests(2 * hosts, MPI_REQUEST_NULL);
  for (int peer = 0; peer < hosts; ++peer) {
    if (peer == impl.host) continue;
    Check(host, MPI_Irecv(nullptr, 0, MPI_BYTE, peer, kArrivalTag, impl.leaders, &requests[peer]));
    Check(host, MPI_Isend(nullptr, 0, MPI_BYTE, peer, kArrivalTag, impl.leaders,
                          &requests[hosts + peer]));
  }
  const auto done = [&] {
    int all = 0;
    Check(host, MPI_Testall(2 * hosts, requests.data(), &all, MPI_STATUSES_IGNORE));
    return all != 0;
  };
  const auto late = [&] {
    std::string missing;
    for (int peer = 0; peer < hosts; ++peer) {
      int arrived = 1;
      // Testing a request that Testall left alone: complete ones are null and count as arrived.
      MPI_Test(&requests[peer], &arrived, MPI_STATUS_IGNORE);
      if (!arrived) {
        missing += (missing.empty() ? "" : "; ") + ("host " + std::to_string(peer)) + " (ranks " +
                   RanksOf(impl.host_of_rank, peer) + ")";
      }
    }
    return host.Describe() + ": " + missing + " did not arrive within " +
           std::to_string(host.options().deadline.count()) + " ms";
  };
  WaitFor(host, done, late);
}

template <typename T>
void Sum(Rendezvous& host, const MpiBridge::Impl& impl, T* data, int64_t count, MPI_Datatype type) {
  Meet(host, impl);
  for (int64_t done = 0; done < count; done += kLargestCount) {
    const auto n = static_cast<int>(std::min(kLargestCount, count - done));
    MPI_Request request = MPI_REQUEST_NULL;
    Check(host,
          MPI_Iallreduce(MPI_IN_PLACE, data + done, n, type, MPI_SUM, impl.leaders, &request));
    Complete(host, request);
  }
}

}  // namespace

MpiBridge::MpiBridge(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  MPI_Comm_set_errhandler(impl_->leaders, MPI_ERRORS_RETURN);
}

// The communicator of the leaders is not freed: freeing is collective and would hang when a peer is
// lost. It lives until MPI_Finalize, as one communicator is made per process.
MpiBridge::~MpiBridge() = default;

void MpiBridge::AllReduce(Rendezvous& host, float* data, int64_t count) {
  Sum(host, *impl_, data, count, MPI_FLOAT);
}

void MpiBridge::AllReduce(Rendezvous& host, double* data, int64_t count) {
  Sum(host, *impl_, data, count, MPI_DOUBLE);
}

void MpiBridge::AllReduce(Rendezvous& host, int64_t* data, int64_t count) {
  Sum(host, *impl_, data, count, MPI_INT64_T);
}

void MpiBridge::Broadcast(Rendezvous& host, std::byte* data, int64_t bytes, int root) {
  Meet(host, *impl_);
  MPI_Request request = MPI_REQUEST_NULL;
  Check(host, MPI_Ibcast(data, static_cast<int>(bytes), MPI_BYTE, impl_->host_of_rank[root],
                         impl_->leaders, &request));
  Complete(host, request);
}

void MpiBridge::Barrier(Rendezvous& host) {
  Meet(host, *impl_);
}

}  // namespace lockstep::trainer
