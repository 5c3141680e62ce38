#include "trainer/comm/shared_window.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "trainer/comm/host_communicator.h"
#include "trainer/comm/mpi_bridge_impl.h"

namespace lockstep::trainer {
namespace {

// Where the memory of the first rank is to be found.
struct Address {
  int64_t pid = 0;
  int64_t fd = -1;
};

// One open memfd. Mappings stay valid after it is closed.
class MemoryFile {
 public:
  MemoryFile() = default;
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() {
    if (fd_ >= 0) close(fd_);
  }

  // These three return 0 or an errno.
  int Create(int64_t bytes) {
    // Reserving pages goes on until the kernel kills someone, so what can never fit is refused
    // first.
    const int64_t page = sysconf(_SC_PAGESIZE);
    if (bytes / page > sysconf(_SC_PHYS_PAGES)) return ENOMEM;
    fd_ = memfd_create("lockstep-window", MFD_CLOEXEC);
    if (fd_ < 0) return errno;
    return ftruncate(fd_, bytes) == 0 ? 0 : errno;
  }

  int Open(Address address) {
    const std::string path =
        "/proc/" + std::to_string(address.pid) + "/fd/" + std::to_string(address.fd);
    fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
    return fd_ < 0 ? errno : 0;
  }

  int Reserve(int64_t offset, int64_t bytes) const {
    int error = 0;
    do {
      error = posix_fallocate(fd_, offset, bytes);
    } while (error == EINTR);
    return error;
  }

  std::shared_ptr<void> Map(int64_t bytes) const {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (memory == MAP_FAILED) return nullptr;
    return {memory, [bytes](void* start) { munmap(start, bytes); }};
  }

  Address address() const { return {.pid = getpid(), .fd = fd_}; }

 private:
  int fd_ = -1;
};

int64_t RoundToPages(int64_t bytes) {
  const auto page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

std::string Explain(int rank, int64_t bytes, int error) {
  return "sharing " + std::to_string(bytes) + " bytes among the ranks of this host: rank " +
         std::to_string(rank) + ": " + std::strerror(error) +
         (error == ENOSPC || error == ENOMEM
              ? ". HINT: too little memory for this model and number of ranks."
              : ". HINT: the ranks must run as one user in one process-id namespace.");
}

// Collective: each rank reserves its own window, so that its pages are near the core that fills it.
SharedRegion MakeRegion(Rendezvous& meeting, int64_t bytes) {
  enum Word { kPid, kFd, kError };
  const int ranks = meeting.size();
  const int index = meeting.options().index;
  const int64_t window = RoundToPages(bytes);
  MemoryFile file;
  int error = 0;
  if (index == 0) {
    error = file.Create(window * ranks);
    meeting.Post(kPid, file.address().pid);
    meeting.Post(kFd, file.address().fd);
  }
  meeting.Meet();
  if (index != 0) {
    error = file.Open({.pid = meeting.Posted(0, kPid), .fd = meeting.Posted(0, kFd)});
  }
  if (error == 0) error = file.Reserve(window * index, window);
  SharedRegion region;
  region.bytes = window;
  if (error == 0) region.memory = file.Map(window * ranks);
  if (error == 0 && !region.memory) error = errno;
  meeting.Post(kError, error);
  meeting.Meet();
  for (int i = 0; i < ranks; ++i) {
    const auto failed = static_cast<int>(meeting.Posted(i, kError));
    if (failed != 0) meeting.Fail(Explain(meeting.options().ranks[i], window * ranks, failed));
    region.windows.push_back(static_cast<std::byte*>(region.memory.get()) + window * i);
  }
  return region;
}

// The rendezvous' own memory, before there is a rendezvous: over MPI.
std::shared_ptr<void> ShareFirstMemory(MPI_Comm host, int index, int ranks, int world_rank) {
  const int64_t bytes = RoundToPages(static_cast<int64_t>(Rendezvous::Bytes(ranks)));
  MemoryFile file;
  int error = 0;
  if (index == 0) {
    error = file.Create(bytes);
    if (error == 0) error = file.Reserve(0, bytes);
  }
  Address address = file.address();
  MPI_Bcast(&address, sizeof(address), MPI_BYTE, 0, host);
  if (index != 0) error = file.Open(address);
  std::shared_ptr<void> memory;
  if (error == 0) memory = file.Map(bytes);
  if (error == 0 && !memory) error = errno;
  int worst = 0;
  MPI_Allreduce(&error, &worst, 1, MPI_INT, MPI_MAX, host);
  if (worst != 0) throw CommunicatorLost(Explain(world_rank, bytes, error ? error : worst));
  return memory;
}

std::vector<int> Gather(int value, MPI_Comm communicator) {
  int size = 0;
  MPI_Comm_size(communicator, &size);
  std::vector<int> values(size);
  MPI_Allgather(&value, 1, MPI_INT, values.data(), 1, MPI_INT, communicator);
  return values;
}

}  // namespace

std::unique_ptr<Communicator> MakeSharedWindowCommunicator(MPI_Comm world,
                                                           SharedWindowOptions options) {
  HostCommunicator::Parts parts;
  MPI_Comm_rank(world, &parts.rank);
  MPI_Comm host = MPI_COMM_NULL;
  if (options.ranks_per_host > 0) {
    MPI_Comm_split(world, parts.rank / options.ranks_per_host, parts.rank, &host);
  } else {
    MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, parts.rank, MPI_INFO_NULL, &host);
  }
  RendezvousOptions& rendezvous = parts.rendezvous;
  MPI_Comm_rank(host, &rendezvous.index);
  MPI_Comm_size(world, &rendezvous.world_size);
  rendezvous.ranks = Gather(parts.rank, host);
  rendezvous.deadline = options.deadline;
  rendezvous.processes = true;
  parts.rendezvous_memory = ShareFirstMemory(host, rendezvous.index,
                                             static_cast<int>(rendezvous.ranks.size()), parts.rank);

  // A host is known by its first rank; hosts are numbered in order of those.
  const std::vector<int> first_of_rank = Gather(rendezvous.ranks[0], world);
  auto bridge = std::make_unique<MpiBridge::Impl>();
  MPI_Comm_split(world, rendezvous.index == 0 ? 0 : MPI_UNDEFINED, parts.rank, &bridge->leaders);
  std::vector<int> number_of_first(rendezvous.world_size);
  int hosts = 0;
  for (int rank = 0; rank < rendezvous.world_size; ++rank) {
    if (first_of_rank[rank] == rank) number_of_first[rank] = hosts++;
    bridge->host_of_rank.push_back(number_of_first[first_of_rank[rank]]);
  }
  bridge->host = bridge->host_of_rank[parts.rank];
  parts.several_hosts = hosts > 1;
  if (parts.several_hosts && rendezvous.index == 0) {
    parts.bridge = std::make_unique<MpiBridge>(std::move(bridge));
  } else if (bridge->leaders != MPI_COMM_NULL) {
    MPI_Comm_free(&bridge->leaders);
  }
  MPI_Comm_free(&host);
  parts.make_region = MakeRegion;
  return std::make_unique<HostCommunicator>(std::move(parts));
}

}  // namespace lockstep::trainer
