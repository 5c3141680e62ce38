#include "trainer/comm/world.h"

#include <mpi.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>

#include "trainer/comm/nccl_communicator.h"
#include "trainer/comm/shared_window.h"
#include "trainer/comm/threads.h"

namespace lockstep::trainer {
namespace {

// Without mpirun MPI_Init would start a daemon of its own, which is slow and fails where mpirun is
// not installed. So a program that no launcher started does not touch MPI at all. The names are
// those that Open MPI's mpirun, PMIx launchers (srun --mpi=pmix) and PMI launchers (MPICH, srun
// --mpi=pmi2) set.
bool StartedByLauncher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0) return "localhost";
  return name;
}

}  // namespace

struct World::Impl {
  bool mpi = false;
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  int ranks_on_host = 1;
  std::string host;
  int exceptions = 0;  // On their way when the world was made.
};

World::World(int* argc, char*** argv) : impl_(std::make_unique<Impl>()) {
  impl_->host = HostName();
  impl_->exceptions = std::uncaught_exceptions();
  impl_->mpi = StartedByLauncher();
  if (!impl_->mpi) return;
  int provided = 0;
  MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &impl_->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &impl_->size);
  MPI_Comm host = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, impl_->rank, MPI_INFO_NULL, &host);
  MPI_Comm_rank(host, &impl_->local_rank);
  MPI_Comm_size(host, &impl_->ranks_on_host);
  MPI_Comm_free(&host);
}

World::~World() {
  // MPI_Finalize waits for the other ranks. A rank on its way out with an error must not: its peers
  // are in a collective that it will never join.
  if (impl_->mpi && std::uncaught_exceptions() <= impl_->exceptions) MPI_Finalize();
}

int World::rank() const {
  return impl_->rank;
}
int World::size() const {
  return impl_->size;
}
int World::local_rank() const {
  return impl_->local_rank;
}
int World::ranks_on_host() const {
  return impl_->ranks_on_host;
}
const std::string& World::host() const {
  return impl_->host;
}

std::string World::BroadcastText(const std::string& text, int root) const {
  if (!impl_->mpi) return text;
  auto size = static_cast<int64_t>(text.size());
  MPI_Bcast(&size, 1, MPI_INT64_T, root, MPI_COMM_WORLD);
  std::string all = text;
  all.resize(size);
  MPI_Bcast(all.data(), static_cast<int>(size), MPI_CHAR, root, MPI_COMM_WORLD);
  return all;
}

std::vector<std::string> World::GatherTexts(const std::string& text) const {
  std::vector<std::string> texts;
  texts.reserve(static_cast<size_t>(size()));
  for (int root = 0; root < size(); ++root) texts.push_back(BroadcastText(text, root));
  return texts;
}

std::vector<int64_t> World::AllGather(int64_t value) const {
  std::vector<int64_t> values(impl_->size, value);
  if (impl_->mpi) {
    MPI_Allgather(&value, 1, MPI_INT64_T, values.data(), 1, MPI_INT64_T, MPI_COMM_WORLD);
  }
  return values;
}

void World::Abort(int exit_code) const {
  if (impl_->mpi) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

std::unique_ptr<Communicator> World::MakeCommunicator(Device& device,
                                                      std::chrono::milliseconds deadline) const {
  std::unique_ptr<Communicator> host =
      impl_->size == 1 ? std::move(MakeThreadCommunicators(1, {.deadline = deadline})[0])
                       : MakeSharedWindowCommunicator(MPI_COMM_WORLD, {.deadline = deadline});
  if (!device.is_gpu()) return host;
  return std::make_unique<NcclCommunicator>(std::move(host), device,
                                            NcclOptions{.deadline = deadline});
}

}  // namespace lockstep::trainer
