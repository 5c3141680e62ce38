// NcclCommunicator without a GPU: against a library with NCCL's ABI (stand_in/), whose ranks are
// threads and which can be told what to do wrong.
#include <dlfcn.h>

#include <exception>
#include <latch>
#include <thread>

#include "tests/trainer/comm/communicator_contract.h"
#include "tests/trainer/comm/stand_in/fake_gpu.h"
#include "tests/trainer/comm/stand_in/faults.h"
#include "trainer/comm/nccl_communicator.h"
#include "trainer/comm/threads.h"

namespace lockstep::trainer {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

void Use(const StandInFaults& faults) {
  // Never closed: what it was told would be forgotten.
  static void* library = dlopen(STAND_IN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  reinterpret_cast<SetFaults>(dlsym(library, "StandInSetFaults"))(faults);
}

struct Rank {
  NcclCommunicator& communicator;
  FakeGpu& gpu;
};

struct WorldOptions {
  milliseconds deadline{std::chrono::seconds(60)};
  milliseconds abort_deadline{std::chrono::seconds(10)};
  bool one_gpu = false;        // All ranks have the same.
  bool other_version = false;  // The last rank's library is newer.
};

/// What each rank's body, or the making of its communicator, threw; "" for nothing.
std::vector<std::string> RunGpuRanks(int world_size, const std::function<void(Rank)>& body,
                                     WorldOptions world = {}) {
  auto hosts = MakeThreadCommunicators(world_size, {.deadline = std::chrono::seconds(60)});
  std::vector<std::string> thrown(static_cast<size_t>(world_size));
  std::latch over(world_size);  // Nobody's communicator goes while another rank still needs it.
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      FakeGpu gpu("GPU-" + std::to_string(world.one_gpu ? 0 : rank));
      std::unique_ptr<NcclCommunicator> communicator;
      try {
        NcclOptions options{.deadline = world.deadline, .abort_deadline = world.abort_deadline};
        options.library_file = world.other_version && rank == world_size - 1
                                   ? STAND_IN_OTHER_LIBRARY
                                   : STAND_IN_LIBRARY;
        communicator = std::make_unique<NcclCommunicator>(std::move(hosts[rank]), gpu, options);
        body({*communicator, gpu});
      } catch (const std::exception& error) {
        thrown[static_cast<size_t>(rank)] = error.what();
        if (communicator) communicator->Abort(error.what());
      }
      over.arrive_and_wait();
    });
  }
  threads.clear();
  return thrown;
}

// Sums once and waits until the host knows that it worked.
void SumAndAwait(Rank rank, const at::Tensor& tensor) {
  rank.gpu.set_host_waits(false);
  rank.communicator.AllReduce(tensor);
  rank.communicator.Wait();
  const EventHandle event = rank.gpu.NewEvent();
  rank.gpu.Record(event, rank.gpu.SideStream());
  rank.communicator.Await(event);
}

class NcclWorldTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { Use({}); }
  void Expect(const std::function<void(Communicator&)>& contract) {
    for (const std::string& thrown :
         RunGpuRanks(GetParam(), [&](Rank rank) { contract(rank.communicator); })) {
      EXPECT_EQ(thrown, "");
    }
  }
};

TEST_P(NcclWorldTest, SumsFloat32InRankOrder) {
  Expect([](Communicator& c) { contract::SumsAnyTensor<float>(c, at::kFloat); });
}
TEST_P(NcclWorldTest, SumsFloat64InRankOrder) {
  Expect([](Communicator& c) { contract::SumsAnyTensor<double>(c, at::kDouble); });
}
TEST_P(NcclWorldTest, SumsInt64) {
  Expect([](Communicator& c) { contract::SumsAnyTensor<int64_t>(c, at::kLong); });
}
TEST_P(NcclWorldTest, SumsAllocatedMemory) {
  Expect([](Communicator& c) { contract::SumsAllocatedMemory(c); });
}
TEST_P(NcclWorldTest, BroadcastsFromEveryRoot) {
  Expect([](Communicator& c) { contract::BroadcastsFromEveryRoot(c); });
}
TEST_P(NcclWorldTest, RefusesWhatItCannotSum) {
  Expect([](Communicator& c) { contract::RefusesWhatItCannotSum(c); });
}
TEST_P(NcclWorldTest, RepeatsTheSameBits) {
  Expect([](Communicator& c) { contract::RepeatsTheSameBits(c); });
}

TEST_P(NcclWorldTest, ManyBucketsOverlapInOneWait) {
  Expect([](Communicator& c) {
    const at::Tensor memory = c.Allocate(10'000);
    contract::FillTerms<float>(memory, c.rank());
    for (int64_t begin = 9'000; begin >= 0; begin -= 1'000) {
      c.AllReduce(memory.narrow(0, begin, 1'000));
    }
    c.Wait();
    EXPECT_EQ(contract::FirstWrong<float>(memory, c.size()), -1);
  });
}

INSTANTIATE_TEST_SUITE_P(Worlds, NcclWorldTest, ::testing::Values(1, 2, 3, 4, 7));

class NcclFaultTest : public ::testing::Test {
 protected:
  void SetUp() override { Use({}); }
  void TearDown() override { Use({}); }
  const at::Tensor tensor_ = at::zeros({12}, at::kFloat);
};

TEST_F(NcclFaultTest, AnErrorThatNcclReportsLaterIsFoundByAwait) {
  Use({.broken_collective = 3});
  const auto thrown = RunGpuRanks(2, [](Rank rank) {
    for (int i = 0; i < 3; ++i) SumAndAwait(rank, at::zeros({12}, at::kFloat));
    ADD_FAILURE() << "the third collective is broken";
  });
  for (const std::string& text : thrown) {
    EXPECT_THAT(text, AllOf(HasSubstr("collective 3"), HasSubstr("remote process exited"),
                            HasSubstr("a peer has died"), HasSubstr("NCCL_DEBUG=WARN")));
  }
}

TEST_F(NcclFaultTest, ARankThatNeverArrivesEndsTheOthersAtTheDeadline) {
  std::latch others(2);
  const auto start = Clock::now();
  const auto thrown = RunGpuRanks(
      3,
      [&](Rank rank) {
        SumAndAwait(rank, at::zeros({5}, at::kFloat));
        if (rank.communicator.rank() == 2) {
          others.wait();
          rank.communicator.Check();  // As a rank that comes back would.
          return;
        }
        const std::string text =
            contract::LostText([&] { SumAndAwait(rank, at::zeros({12}, at::kFloat)); });
        EXPECT_THAT(text, HasSubstr("have not ended after 0.4 s"));
        EXPECT_THAT(rank.communicator.History(), AllOf(HasSubstr("1 all-reduce of 5 Float, begun"),
                                                       HasSubstr("2 all-reduce of 12 Float, begun"),
                                                       HasSubstr("not known to have ended")));
        EXPECT_NE(contract::LostText([&] { rank.communicator.AllReduce(at::zeros({3})); }), "")
            << "it stays lost";
        others.count_down();
      },
      {.deadline = milliseconds(400)});
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
  EXPECT_EQ(thrown[0], "");
  EXPECT_EQ(thrown[1], "");
  EXPECT_THAT(thrown[2], HasSubstr("have not ended"));
}

TEST_F(NcclFaultTest, AnAbortReachesRanksThatWaitForTheDevice) {
  const auto start = Clock::now();
  const auto thrown = RunGpuRanks(3, [&](Rank rank) {
    if (rank.communicator.rank() == 1) {
      rank.communicator.Abort("the disk burns");
      rank.communicator.Abort("a second reason");
      return;
    }
    SumAndAwait(rank, at::zeros({12}, at::kFloat));
  });
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
  EXPECT_EQ(thrown[0], "the disk burns");
  EXPECT_EQ(thrown[1], "");
  EXPECT_EQ(thrown[2], "the disk burns");
}

TEST_F(NcclFaultTest, AnAbortThatHangsIsLeftBehindAfterItsOwnDeadline) {
  Use({.abort_hangs = true});
  const auto start = Clock::now();
  RunGpuRanks(2, [](Rank rank) { rank.communicator.Abort("enough"); },
              {.abort_deadline = milliseconds(200)});
  const auto took = Clock::now() - start;
  EXPECT_GE(took, milliseconds(200));
  EXPECT_LT(took, std::chrono::seconds(5));
  Use({});  // Lets the threads that were left behind end.
}

TEST_F(NcclFaultTest, ConnectingThatNeverEndsIsGivenUp) {
  Use({.connecting_never_ends = true});
  for (const std::string& text :
       RunGpuRanks(2, [](Rank) { ADD_FAILURE(); }, {.deadline = milliseconds(300)})) {
    EXPECT_THAT(text, HasSubstr("connecting 2 GPUs"));
  }
}

TEST_F(NcclFaultTest, ConnectingThatFailsSaysWhatNcclSays) {
  Use({.connecting_fails = true});
  const auto thrown = RunGpuRanks(2, [](Rank) { ADD_FAILURE(); });
  EXPECT_THAT(thrown[0], AllOf(HasSubstr("connecting 2 GPUs"), HasSubstr("system error")));
}

TEST_F(NcclFaultTest, AnIdThatRankZeroCannotMakeIsToldToAll) {
  Use({.id_fails = true});
  for (const std::string& text : RunGpuRanks(3, [](Rank) { ADD_FAILURE(); })) {
    EXPECT_THAT(text, HasSubstr("NCCL gave rank 0 no id"));
  }
}

TEST_F(NcclFaultTest, TwoRanksOnOneGpuAreRefusedByName) {
  for (const std::string& text : RunGpuRanks(3, [](Rank) { ADD_FAILURE(); }, {.one_gpu = true})) {
    EXPECT_THAT(text, AllOf(HasSubstr("ranks 0 and 1 have the same GPU"),
                            HasSubstr("CUDA_VISIBLE_DEVICES")));
  }
}

TEST_F(NcclFaultTest, DifferentVersionsAreRefusedByRank) {
  for (const std::string& text :
       RunGpuRanks(3, [](Rank) { ADD_FAILURE(); }, {.other_version = true})) {
    EXPECT_THAT(text, HasSubstr("rank 2 has NCCL 22901, rank 0 has 22809"));
  }
}

std::string OpenText(const std::string& file) {
  try {
    return NcclLibrary::Open(file)->VersionText();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

TEST(NcclLibraryTest, TellsItsVersion) {
  EXPECT_EQ(OpenText(STAND_IN_LIBRARY), "2.28.9");
}
TEST(NcclLibraryTest, NamesAFunctionThatIsMissing) {
  EXPECT_THAT(OpenText(STAND_IN_INCOMPLETE_LIBRARY),
              AllOf(HasSubstr("NCCL 2.28.9"), HasSubstr("has no function ncclCommInitRankConfig"),
                    HasSubstr("LOCKSTEP_NCCL")));
}
TEST(NcclLibraryTest, RefusesOneThatIsTooOld) {
  EXPECT_THAT(OpenText(STAND_IN_OLD_LIBRARY), HasSubstr("2.18.5"));
  EXPECT_THAT(OpenText(STAND_IN_OLD_LIBRARY), HasSubstr("too old: 2.19.0 or newer"));
}
TEST(NcclLibraryTest, SaysWhereThereIsNone) {
  EXPECT_THAT(OpenText("/nowhere/libnccl.so.2"),
              AllOf(HasSubstr("loading NCCL"), HasSubstr("/nowhere/libnccl.so.2"),
                    HasSubstr("scripts/setup --cuda")));
}

TEST(CollectiveLogTest, KeepsTheNewestThousandAndTwentyFour) {
  CollectiveLog log;
  for (int i = 0; i < 3000; ++i) log.Add("all-reduce", "Float", i);
  log.MarkDone();
  log.Add("broadcast", "Byte", 7);
  const std::string text = log.ToString();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), CollectiveLog::kKept);
  EXPECT_THAT(text, ::testing::StartsWith("1978 all-reduce of 1977 Float, begun "));
  EXPECT_THAT(text,
              ::testing::ContainsRegex("\n3000 all-reduce of 2999 Float, begun [0-9.]+ s ago\n"
                                       "3001 broadcast of 7 Byte, begun [0-9.]+ s ago, not"));
}

}  // namespace
}  // namespace lockstep::trainer
