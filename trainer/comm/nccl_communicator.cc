#include "trainer/comm/nccl_communicator.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>

#include <cstdlib>
#include <cstring>
#include <future>
#include <stdexcept>
#include <thread>
#include <utility>

namespace lockstep::trainer {
namespace {

using Clock = std::chrono::steady_clock;

// How often a waiting host looks for peers that are gone: looking costs system calls.
constexpr std::chrono::milliseconds kPeerCheck(1);
// A step on a GPU takes at least some hundred microseconds, and the host is a step ahead.
constexpr std::chrono::microseconds kNap(20);
constexpr std::chrono::seconds kCallPatience(1);

nccl::DataType TypeOf(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return nccl::kFloat32;
    case at::kDouble:
      return nccl::kFloat64;
    case at::kLong:
      return nccl::kInt64;
    default:
      throw std::invalid_argument(
          std::string("AllReduce: expected float32, float64 or int64, got ") +
          c10::toString(tensor.scalar_type()));
  }
}

void RequireContiguous(const at::Tensor& tensor, const char* collective) {
  if (tensor.is_contiguous()) return;
  throw std::invalid_argument(std::string(collective) + ": expected a contiguous tensor");
}

std::string Seconds(std::chrono::milliseconds time) {
  return std::to_string(time.count() / 1000) + "." + std::to_string(time.count() / 100 % 10) + " s";
}

// Sleeps a little at a time until a deadline, and says when it is time to look at the peers.
class Patience {
 public:
  explicit Patience(std::chrono::milliseconds limit) : end_(Clock::now() + limit) {}
  bool Over() const { return Clock::now() >= end_; }
  bool TimeToCheck() {
    if (Clock::now() < check_) return false;
    check_ = Clock::now() + kPeerCheck;
    return true;
  }
  static void Nap() { std::this_thread::sleep_for(kNap); }

 private:
  Clock::time_point end_;
  Clock::time_point check_ = Clock::now() + kPeerCheck;
};

}  // namespace

NcclCommunicator::NcclCommunicator(std::unique_ptr<Communicator> host, Device& device,
                                   NcclOptions options)
    : host_(std::move(host)), device_(device), options_(std::move(options)) {
  if (size() == 1) return;
  // With NCCL 2.27 and 2.28 a silent fall-back from NVLink SHARP can hang, so it is asked for
  // rather than tried.
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
  library_ = NcclLibrary::Open(options_.library_file);
  filled_ = device_.NewEvent();
  summed_ = device_.NewEvent();
  RefuseOtherVersions();
  RefuseSharedGpus();
  Connect();
}

NcclCommunicator::~NcclCommunicator() {
  const std::lock_guard lock(calls_);
  nccl::Comm* comm = std::exchange(comm_, nullptr);
  if (comm == nullptr) return;
  // Ends in order as long as all ranks do; one that waits for a rank that is gone is given up.
  library_->comm_finalize(comm);
  for (Patience patience(options_.abort_deadline); !patience.Over(); Patience::Nap()) {
    nccl::Result state = nccl::kSuccess;
    if (library_->comm_get_async_error(comm, &state) != nccl::kSuccess) return;
    if (state == nccl::kInProgress) continue;
    library_->comm_destroy(comm);
    return;
  }
}

std::vector<int64_t> NcclCommunicator::Gather(int64_t value) {
  // Every rank adds its value to zeros: an exact gather, int64 has no rounding.
  const at::Tensor slots = at::zeros({size()}, at::kLong);
  slots.mutable_data_ptr<int64_t>()[rank()] = value;
  host_->AllReduce(slots);
  host_->Wait();
  const auto* values = slots.const_data_ptr<int64_t>();
  return {values, values + size()};
}

void NcclCommunicator::RefuseOtherVersions() {
  const std::vector<int64_t> versions = Gather(library_->version());
  for (int other = 0; other < size(); ++other) {
    if (versions[other] == versions[0]) continue;
    throw std::runtime_error("rank " + std::to_string(other) + " has NCCL " +
                             std::to_string(versions[other]) + ", rank 0 has " +
                             std::to_string(versions[0]) +
                             ". HINT: all hosts need the same one; LOCKSTEP_NCCL names the file");
  }
}

void NcclCommunicator::RefuseSharedGpus() {
  // Whoever gives each rank a host id of its own makes NCCL take one GPU for several: for tests.
  if (std::getenv("NCCL_HOSTID") != nullptr) return;
  const std::vector<int64_t> gpus =
      Gather(static_cast<int64_t>(std::hash<std::string>()(device_.Uuid())));
  for (int a = 0; a < size(); ++a) {
    for (int b = a + 1; b < size(); ++b) {
      if (gpus[a] != gpus[b]) continue;
      throw std::runtime_error("ranks " + std::to_string(a) + " and " + std::to_string(b) +
                               " have the same GPU" +
                               (rank() == a || rank() == b ? " (" + device_.Uuid() + ")" : "") +
                               "; each rank needs one of its own. HINT: start as many ranks on a "
                               "host as it has GPUs, and look at CUDA_VISIBLE_DEVICES");
    }
  }
}

nccl::UniqueId NcclCommunicator::ShareId() {
  nccl::UniqueId id{};
  const at::Tensor bytes = at::zeros({int64_t{sizeof(id)} + 1}, at::kByte);
  auto* data = static_cast<unsigned char*>(bytes.mutable_data_ptr());
  std::string problem;
  if (rank() == 0) {
    const nccl::Result result = library_->get_unique_id(&id);
    data[0] = result == nccl::kSuccess;
    if (result != nccl::kSuccess) problem = library_->get_error_string(result);
    std::memcpy(data + 1, &id, sizeof(id));
  }
  host_->Broadcast(bytes, 0);
  if (data[0] == 0) {
    throw CommunicatorLost("NCCL gave rank 0 no id: " + problem +
                           ". HINT: NCCL_DEBUG=WARN says more");
  }
  std::memcpy(&id, data + 1, sizeof(id));
  return id;
}

void NcclCommunicator::Connect() {
  const nccl::UniqueId id = ShareId();
  nccl::Config config;
  config.blocking = 0;
  nccl::Result result = nccl::kSuccess;
  {
    const std::lock_guard lock(calls_);
    result = library_->comm_init_rank_config(&comm_, size(), id, rank(), &config);
  }
  Settle("connecting " + std::to_string(size()) + " GPUs", result);
}

at::Tensor NcclCommunicator::Allocate(int64_t elements) {
  return at::zeros({elements}, at::TensorOptions().dtype(at::kFloat).device(device_.torch()));
}

void NcclCommunicator::AllReduce(const at::Tensor& tensor) {
  if (!Mine(tensor)) return host_->AllReduce(tensor);
  RequireContiguous(tensor, "AllReduce");
  const nccl::DataType type = TypeOf(tensor);
  Enqueue("all-reduce", tensor, [&](nccl::Comm* comm) {
    void* data = tensor.mutable_data_ptr();
    return library_->all_reduce(data, data, static_cast<size_t>(tensor.numel()), type, nccl::kSum,
                                comm, device_.SideStream());
  });
}

void NcclCommunicator::Broadcast(const at::Tensor& tensor, int root) {
  if (!Mine(tensor)) return host_->Broadcast(tensor, root);
  RequireContiguous(tensor, "Broadcast");
  Enqueue("broadcast", tensor, [&](nccl::Comm* comm) {
    void* data = tensor.mutable_data_ptr();
    return library_->broadcast(data, data, tensor.nbytes(), nccl::kUint8, root, comm,
                               device_.SideStream());
  });
  Wait();
}

void NcclCommunicator::Enqueue(const char* kind, const at::Tensor& tensor, const Call& call) {
  if (size() == 1 || tensor.numel() == 0) return;
  log_.Add(kind, c10::toString(tensor.scalar_type()), tensor.numel());
  device_.Record(filled_, device_.CurrentStream());
  device_.StreamWait(device_.SideStream(), filled_);
  nccl::Result result = nccl::kSuccess;
  {
    const std::lock_guard lock(calls_);
    if (comm_ != nullptr) result = call(comm_);
  }
  Settle(std::string(kind) + " of " + std::to_string(tensor.numel()) + " " +
             c10::toString(tensor.scalar_type()) + " (collective " + std::to_string(log_.newest()) +
             ")",
         result);
  pending_ = true;
}

void NcclCommunicator::Wait() {
  if (!std::exchange(pending_, false)) return;
  device_.Record(summed_, device_.SideStream());
  device_.StreamWait(device_.CurrentStream(), summed_);
}

void NcclCommunicator::Settle(const std::string& doing, nccl::Result result) {
  Patience patience(options_.deadline);
  while (result == nccl::kSuccess || result == nccl::kInProgress) {
    result = AsyncError();
    if (result == nccl::kSuccess) return;
    if (result != nccl::kInProgress) break;
    if (patience.Over()) Fail(doing + ": not begun after " + Seconds(options_.deadline));
    if (patience.TimeToCheck()) Check();
    Patience::Nap();
  }
  Fail(doing + ": " + Explain(result));
}

// Success, in progress, or what went wrong. Throws when the communicator was aborted.
nccl::Result NcclCommunicator::AsyncError() {
  const std::lock_guard lock(calls_);
  if (comm_ == nullptr) {
    host_->Check();  // It knows why.
    throw CommunicatorLost("the communicator was aborted");
  }
  nccl::Result state = nccl::kSuccess;
  const nccl::Result asked = library_->comm_get_async_error(comm_, &state);
  return asked == nccl::kSuccess ? state : asked;
}

std::string NcclCommunicator::Explain(nccl::Result result) {
  std::string text = library_->get_error_string(result);
  const char* last = nullptr;
  if (const std::unique_lock lock(calls_, kCallPatience); lock.owns_lock() && comm_ != nullptr) {
    last = library_->get_last_error(comm_);
  }
  if (last != nullptr && *last != '\0') text += std::string(" (") + last + ")";
  if (result == nccl::kRemoteError) text += "; a peer has died or the network is gone";
  return text + ". HINT: NCCL_DEBUG=WARN says more";
}

void NcclCommunicator::Await(EventHandle event) {
  Patience patience(options_.deadline);
  while (!device_.Done(event)) {
    if (size() > 1) {
      const nccl::Result state = AsyncError();
      if (state != nccl::kSuccess && state != nccl::kInProgress) {
        Fail("collective " + std::to_string(log_.newest()) +
             " or one before it: " + Explain(state));
      }
      if (patience.TimeToCheck()) Check();
      if (patience.Over()) {
        Fail("the collectives up to " + std::to_string(log_.newest()) + " have not ended after " +
             Seconds(options_.deadline) + ": some rank has not joined them");
      }
    }
    Patience::Nap();
  }
  log_.MarkDone();
}

void NcclCommunicator::Check() {
  try {
    host_->Check();
  } catch (const CommunicatorLost& lost) {
    // So that the kernels that wait for the peer end.
    Abort(lost.what());
    throw;
  }
}

void NcclCommunicator::Fail(const std::string& what) {
  const std::string reason = "rank " + std::to_string(rank()) + ": " + what;
  Abort(reason);
  throw CommunicatorLost(reason);
}

void NcclCommunicator::Abort(std::string_view reason) noexcept {
  host_->Abort(reason);
  try {
    const std::unique_lock lock(calls_, kCallPatience);  // Owned or not: a call may itself hang.
    nccl::Comm* comm = std::exchange(comm_, nullptr);
    if (comm == nullptr) return;
    // In a thread that may outlive this: it holds all it touches.
    const auto aborted = std::make_shared<std::promise<void>>();
    std::thread([library = library_, comm, aborted] {
      library->comm_abort(comm);
      aborted->set_value();
    }).detach();
    aborted->get_future().wait_for(options_.abort_deadline);
  } catch (const std::exception&) {
    // No thread, no lock: the process ends anyway, and the kernel frees what it holds.
  }
}

std::string NcclCommunicator::History() const {
  return log_.ToString();
}

std::string NcclCommunicator::Describe() const {
  return library_ ? "NCCL " + library_->VersionText() : "one rank, so no NCCL";
}

}  // namespace lockstep::trainer
