// R1: the sum of one float tensor over two ranks. Ours in window memory (as the arena's gradients
// are), MPI_Allreduce in place, and the bound: the same additions by two threads of one process
// over two plain buffers.
//
//   mpirun -np 2 bench-allreduce [--megabytes 25] [--rounds 7] [--calls 20]
#include <mpi.h>
#include <sched.h>
#include <sys/mman.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/bench/measure.h"
#include "trainer/affinity.h"
#include "trainer/comm/slice_sum.h"
#include "trainer/comm/world.h"

namespace lockstep::bench {
namespace {

using trainer::Communicator;

// Moves the calling thread to any core, whatever mpirun bound it to; back at the end of the scope.
class AnyCore {
 public:
  AnyCore() {
    sched_getaffinity(0, sizeof(before_), &before_);
    cpu_set_t all;
    std::memset(&all, 0xff, sizeof(all));
    sched_setaffinity(0, sizeof(all), &all);
  }
  ~AnyCore() { sched_setaffinity(0, sizeof(before_), &before_); }
  AnyCore(const AnyCore&) = delete;
  AnyCore& operator=(const AnyCore&) = delete;

 private:
  cpu_set_t before_;
};

// Page-aligned, asked for in huge pages, touched: the best that plain memory can be.
std::shared_ptr<float> PlainBuffer(int64_t elements) {
  constexpr size_t kHuge = 2 << 20;
  const size_t bytes = (elements * sizeof(float) + kHuge - 1) / kHuge * kHuge;
  void* memory = std::aligned_alloc(kHuge, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  madvise(memory, bytes, MADV_HUGEPAGE);
  std::memset(memory, 0, bytes);
  return {static_cast<float*>(memory), &std::free};
}

// Two threads meeting: spins, since both have nothing else to do here.
class SpinBarrier {
 public:
  void Meet() {
    const int round = round_.load();
    if (waiting_.fetch_add(1) + 1 == 2) {
      waiting_.store(0);
      round_.fetch_add(1);
      return;
    }
    while (round_.load(std::memory_order_acquire) == round) {
    }
  }

 private:
  std::atomic<int> waiting_{0};
  std::atomic<int> round_{0};
};

// One process summing with two threads: no rank can be faster with the same memory traffic.
double BoundMilliseconds(int calls, int64_t elements) {
  const auto a = PlainBuffer(elements);
  const auto b = PlainBuffer(elements);
  const std::vector<float*> buffers = {a.get(), b.get()};
  SpinBarrier barrier;
  const auto sum = [&](int index) {
    const auto [begin, end] = trainer::SliceOf(elements, index, 2);
    barrier.Meet();
    trainer::SumToAll(buffers, begin, end);
    barrier.Meet();
  };
  const int warm = 3;
  std::jthread second([&] {
    for (int i = 0; i < calls + warm; ++i) sum(1);
  });
  for (int i = 0; i < warm; ++i) sum(0);
  return MedianOf(calls, [&] { sum(0); });
}

struct Options {
  double megabytes = 25;
  int rounds = 7;
  int calls = 20;
};

int Run(const trainer::World& world, const Options& options) {
  const auto elements = static_cast<int64_t>(options.megabytes * 1e6 / sizeof(float));
  const trainer::Binding binding = trainer::BindRank(
      {.local_rank = world.local_rank(), .ranks_on_host = world.ranks_on_host(), .threads = 1});
  const auto cpu = trainer::OpenCpu();
  const auto communicator = world.MakeCommunicator(*cpu, std::chrono::seconds(120));
  const at::Tensor window = communicator->Allocate(elements);
  const auto plain = PlainBuffer(elements);
  const auto mpi = [&] {
    MPI_Allreduce(MPI_IN_PLACE, plain.get(), static_cast<int>(elements), MPI_FLOAT, MPI_SUM,
                  MPI_COMM_WORLD);
  };
  const auto ours = [&] { communicator->AllReduce(window); };
  for (int i = 0; i < 3; ++i) {
    ours();
    mpi();
  }
  Samples samples;
  for (int round = 0; round < options.rounds; ++round) {
    communicator->Barrier();
    samples["ours"].push_back(MedianOf(options.calls, ours));
    samples["mpi"].push_back(MedianOf(options.calls, mpi));
    // The other ranks sleep meanwhile: our barrier waits in the kernel, MPI's would spin.
    communicator->Barrier();
    if (world.rank() == 0) {
      const AnyCore any;
      samples["bound"].push_back(BoundMilliseconds(options.calls, elements));
    }
    communicator->Barrier();
  }
  if (world.rank() != 0) return 0;
  char version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(version, &length);
  const nlohmann::json out = {{"samples", samples},
                              {"bytes", elements * sizeof(float)},
                              {"ranks", world.size()},
                              {"binding", binding.text},
                              {"mpi", std::string(version)}};
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace lockstep::bench

int main(int argc, char** argv) {
  lockstep::bench::Options options;
  CLI::App app{"R1: all-reduce of one tensor, ours against MPI and the bound"};
  app.add_option("--megabytes", options.megabytes);
  app.add_option("--rounds", options.rounds);
  app.add_option("--calls", options.calls);
  CLI11_PARSE(app, argc, argv);
  const lockstep::trainer::World world(&argc, &argv);
  if (world.size() < 2) {
    std::fprintf(stderr, "bench-allreduce: start it with mpirun -np 2\n");
    return 2;
  }
  return lockstep::bench::Run(world, options);
}
