// The supervisor under many threads at once, and when its store cannot be written. No gRPC here, so
// that the thread sanitizer sees every lock.
#include "launch/supervisor/supervisor.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <future>
#include <optional>
#include <random>
#include <thread>

#include "config/rank_board.h"
#include "config/run_directory.h"
#include "fake_launcher.h"
#include "tests/launch/temporary_folder.h"

namespace lockstep::launch {
namespace {

// A rank that does what it is told, on the thread that tells it.
class ObedientStream : public RankStream, public std::enable_shared_from_this<ObedientStream> {
 public:
  ObedientStream(Supervisor& supervisor, FakeLauncher& launcher, LaunchSpec spec)
      : supervisor_(supervisor), launcher_(launcher), spec_(std::move(spec)) {}

  void Attach() {
    v1::Hello hello;
    hello.set_run_id(spec_.run_id);
    hello.set_attempt(spec_.attempt);
    hello.set_token(spec_.token);
    supervisor_.Attach(hello, {}, shared_from_this());
  }
  void Say(v1::AttachRequest message) {
    supervisor_.FromRank(shared_from_this(), std::move(message));
  }

  void Welcome(const std::string& run_id) override {
    v1::AttachRequest message;
    message.mutable_progress()->set_step(5);
    message.mutable_progress()->set_wall_seconds(0.1);
    Say(message);
  }
  void Send(const v1::Order& order) override {
    ++orders;
    v1::AttachRequest message;
    message.mutable_order_done()->set_order_id(order.order_id());
    message.mutable_order_done()->set_step(5);
    Say(message);
    if (order.kind() == v1::Order::KIND_PAUSE) launcher_.End(spec_.run_id, spec_.attempt, {10, ""});
    if (order.kind() == v1::Order::KIND_STOP) launcher_.End(spec_.run_id, spec_.attempt, {9, ""});
  }
  void Close(const absl::Status& status) override { closed = true; }

  std::atomic<int> orders{0};
  std::atomic<bool> closed{false};

 private:
  Supervisor& supervisor_;
  FakeLauncher& launcher_;
  const LaunchSpec spec_;
};

class CountingWatcher : public RunWatcher {
 public:
  void Changed(const std::shared_ptr<const v1::Run>& run) override {
    EXPECT_GT(run->sequence(), last_);
    last_ = run->sequence();
    ++seen;
  }
  void Close(const absl::Status& status) override { ++closed; }

  std::atomic<int> seen{0};
  std::atomic<int> closed{0};

 private:
  int64_t last_ = 0;
};

class SupervisorTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }
  void Open() {
    auto store = RunStore::Open(folder_.path() / "lockstep.db", folder_.path() / "backup");
    ASSERT_TRUE(store.ok()) << store.status();
    SupervisorOptions options;
    options.coordinator.slots = 4;
    options.state_dir = folder_.path();
    options.tick = std::chrono::milliseconds(5);
    Choose(options);
    auto supervisor = Supervisor::Open(std::move(options), launcher_, *std::move(store));
    ASSERT_TRUE(supervisor.ok()) << supervisor.status();
    supervisor_ = *std::move(supervisor);
    supervisor_->Begin();
  }

  virtual void Choose(SupervisorOptions& options) {}

  static RunSpec Spec(int ranks = 1) {
    RunSpec spec;
    spec.name = "demo";
    spec.ranks = ranks;
    spec.config_yaml = "name: demo\n";
    spec.restart.backoff_seconds = 0.01;
    return spec;
  }
  std::string Submit(int ranks = 1) {
    std::promise<Answer> promise;
    supervisor_->Submit({}, Spec(ranks), [&](const Answer& answer) { promise.set_value(answer); });
    const Answer answer = promise.get_future().get();
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    return answer.run.run_id();
  }
  Answer Command(const std::string& run, OrderKind kind) {
    std::promise<Answer> promise;
    supervisor_->Command({}, run, kind, "asked for", {}, {},
                         [&](const Answer& answer) { promise.set_value(answer); });
    return promise.get_future().get();
  }
  std::shared_ptr<ObedientStream> Attach(const std::string& run, int attempt) {
    const auto spec = launcher_.AwaitLaunch(run, attempt);
    if (!spec) return nullptr;
    auto stream = std::make_shared<ObedientStream>(*supervisor_, launcher_, *spec);
    stream->Attach();
    return stream;
  }
  /// Where the supervisor has no time for 2 s it is asked again.
  metrics::Snapshot AwaitSample() {
    std::optional<metrics::Snapshot> sample;
    for (int i = 0; i < 20 && !sample; ++i) sample = supervisor_->Sample();
    EXPECT_TRUE(sample.has_value());
    return sample.value_or(metrics::Snapshot());
  }

  TemporaryFolder folder_;
  FakeLauncher launcher_;
  std::unique_ptr<Supervisor> supervisor_;
};

// Two slots that are GPUs, and a monitor that says what the test says: GPU 1 is bad.
class SupervisorGpuTest : public SupervisorTest {
 protected:
  void TearDown() override { supervisor_.reset(); }  // It asks for the readings.
  void Choose(SupervisorOptions& options) override {
    options.coordinator.slots = 2;
    options.gpus = {"0", "1"};
    readings_.gpus.resize(2);
    readings_.gpus[1].index = 1;
    readings_.gpus[1].healthy = false;
    readings_.gpus[1].trouble = "XID 79: it has fallen off the bus";
    readings_.cpu_energy_joules = 1;
    options.devices = [this] {
      const std::lock_guard lock(mutex_);
      return readings_;
    };
  }
  // It looks at the GPUs just after it has made out the power of the CPUs, which it then shows.
  void AwaitALook(bool knows_power) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while ((supervisor_->overview().cpu_watts >= 0) != knows_power) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  std::mutex mutex_;
  metrics::DeviceReadings readings_;  // Guarded by mutex_.
};

TEST_F(SupervisorGpuTest, ABadGpuIsNotGoodAgainBecauseItsDriverHangs) {
  AwaitALook(true);
  {
    const std::lock_guard lock(mutex_);
    readings_.stale = true;
    readings_.cpu_energy_joules.reset();
    for (metrics::GpuReading& gpu : readings_.gpus) {
      gpu.healthy = false;
      gpu.trouble = "NVML has not answered for 3 s";
    }
  }
  AwaitALook(false);
  const std::string waits = Submit(2);
  EXPECT_EQ((*supervisor_->Find(waits))->state(), v1::RUN_STATE_QUEUED);
  EXPECT_NE((*supervisor_->Find(waits))->reason().find("XID 79"), std::string::npos)
      << (*supervisor_->Find(waits))->reason();
  Command(waits, OrderKind::kKill);
  // The driver's silence alone makes no GPU bad.
  EXPECT_TRUE(launcher_.AwaitLaunch(Submit(1), 1));
}

TEST_F(SupervisorTest, ManyThreadsAskOrderWatchAndReadAtOnce) {
  constexpr int kThreads = 6;
  constexpr int kRuns = 8;
  std::atomic<int> answers{0};
  std::atomic<bool> over{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!over) {
        for (const Supervisor::Listed& listed : supervisor_->List()) {
          EXPECT_FALSE(listed.run->run_id().empty());
          EXPECT_TRUE(supervisor_->Find(listed.run->run_id()).ok());
        }
        EXPECT_GE(supervisor_->overview().free_slots, 0);
        if (const auto sample = supervisor_->Sample()) {
          EXPECT_EQ(sample->runs_by_state.size(), 10u);
        }
      }
    });
  }
  std::vector<std::thread> people;
  for (int thread = 0; thread < kThreads; ++thread) {
    people.emplace_back([&, thread] {
      std::mt19937 random(static_cast<unsigned>(thread));
      for (int i = 0; i < kRuns; ++i) {
        const std::string id = Submit();
        auto watcher = std::make_shared<CountingWatcher>();
        supervisor_->AddWatcher(id, 0, watcher);
        std::shared_ptr<ObedientStream> stream;
        const uint32_t what = random() % 4;
        if (what != 0) stream = Attach(id, 1);
        if (what == 2) {
          const Answer paused = Command(id, OrderKind::kPause);
          EXPECT_TRUE(paused.status.ok()) << paused.status;
          EXPECT_TRUE(Command(id, OrderKind::kResume).status.ok());
        }
        if (what == 3) supervisor_->RemoveWatcher(id, watcher.get());
        if (what == 1) supervisor_->Detach(stream);
        const Answer killed = Command(id, OrderKind::kKill);
        EXPECT_TRUE(killed.status.ok()) << killed.status;
        EXPECT_EQ(killed.run.state(), v1::RUN_STATE_STOPPED);
        EXPECT_EQ((*supervisor_->Find(id))->state(), v1::RUN_STATE_STOPPED)
            << "what is answered can be seen";
        ++answers;
      }
    });
  }
  for (std::thread& person : people) person.join();
  over = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(answers, kThreads * kRuns);
  EXPECT_EQ(supervisor_->overview().free_slots, 4);
  EXPECT_EQ(AwaitSample().runs_by_state.at("stopped"), kThreads * kRuns);
}

TEST_F(SupervisorTest, ShutdownWhileEverybodyTalksAnswersEveryoneOnce) {
  const std::string id = Submit();
  auto stream = Attach(id, 1);
  auto watcher = std::make_shared<CountingWatcher>();
  supervisor_->AddWatcher(id, 0, watcher);
  std::atomic<int> asked{0};
  std::atomic<int> answered{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> people;
  for (int i = 0; i < 4; ++i) {
    people.emplace_back([&] {
      while (!stop) {
        ++asked;
        supervisor_->Command({}, id, OrderKind::kCheckpoint, "", {}, {},
                             [&](const Answer&) { ++answered; });
        supervisor_->Submit({}, Spec(5), [&](const Answer&) { ++answered; });
        ++asked;
      }
    });
  }
  while (answered < 50) std::this_thread::yield();
  supervisor_->Shutdown();
  stop = true;
  for (std::thread& person : people) person.join();
  EXPECT_EQ(answered, asked);
  EXPECT_TRUE(stream->closed);
  EXPECT_EQ(watcher->closed, 1);
  auto late = std::make_shared<CountingWatcher>();
  supervisor_->AddWatcher(id, 0, late);
  EXPECT_EQ(late->closed, 1);
}

TEST_F(SupervisorTest, ACallerThatGoesAwayNoLongerWaitsButItsOrderStands) {
  const std::string id = Submit();
  const auto spec = launcher_.AwaitLaunch(id, 1);
  // Starting, and held back: a hold waits for the hello.
  std::atomic<bool> gone{false};
  std::promise<Answer> promise;
  supervisor_->Command(
      {}, id, OrderKind::kHold, "asked for", {}, [&] { return gone.load(); },
      [&](const Answer& answer) { promise.set_value(answer); });
  gone = true;
  EXPECT_EQ(promise.get_future().get().status.code(), absl::StatusCode::kCancelled);
  auto stream = Attach(id, 1);
  while (stream->orders == 0) std::this_thread::yield();
  while ((*supervisor_->Find(id))->state() != v1::RUN_STATE_PAUSED) std::this_thread::yield();
}

// Nothing can be written while this lives, as on a full disk.
class NoRoom {
 public:
  NoRoom() {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit none = before_;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_FSIZE, &none);
  }
  ~NoRoom() { setrlimit(RLIMIT_FSIZE, &before_); }
  NoRoom(const NoRoom&) = delete;
  NoRoom& operator=(const NoRoom&) = delete;

 private:
  rlimit before_{};
};

TEST_F(SupervisorTest, WhoEndsHasNoSampleRatherThanOneOfZeros) {
  ASSERT_TRUE(supervisor_->Sample().has_value());
  supervisor_->Shutdown();
  EXPECT_FALSE(supervisor_->Sample().has_value());
}

TEST_F(SupervisorTest, WhatWasReadFromTheDataSetIsCountedOverAttemptsAndRestarts) {
  const std::string id = Submit(2);
  const auto await_read = [&](int64_t samples) {
    metrics::RunSample run;
    for (int i = 0; i < 2000 && run.loaded_samples != samples; ++i) {
      if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      run = AwaitSample().runs.at(0);
    }
    EXPECT_EQ(run.loaded_samples, samples);
    return run.corrupt_samples;
  };
  const auto board_of = [&](int attempt) {
    const auto spec = launcher_.AwaitLaunch(id, attempt);
    const std::filesystem::path path = config::RunDirectory(spec->run_dir).board(attempt);
    std::filesystem::create_directories(path.parent_path());
    return *config::RankBoard::Open(path, 2);
  };
  {
    auto stream = Attach(id, 1);
    config::RankBoard board = board_of(1);
    for (const int rank : {0, 1}) {
      board.Claim(rank);
      board.SetLoaded(rank, 100, rank, 0);
    }
    EXPECT_EQ(await_read(200), 1);
    board.SetLoaded(1, 150, 3, 0);  // Seen at the last look only.
    launcher_.End(id, 1, {1, "crashed"});
  }
  auto stream = Attach(id, 2);
  EXPECT_EQ(await_read(250), 3) << "nothing falls before the new ranks are heard of";
  {
    config::RankBoard board = board_of(2);
    board.Claim(0);
    board.SetLoaded(0, 40, 2, 0);
    EXPECT_EQ(await_read(290), 5);
  }
  Command(id, OrderKind::kKill);
  supervisor_.reset();
  Open();
  EXPECT_EQ(await_read(290), 5);
}

TEST_F(SupervisorTest, WhileTheStoreCannotBeWrittenNothingIsOrderedOrAnswered) {
  const std::string id = Submit();
  auto stream = Attach(id, 1);
  while ((*supervisor_->Find(id))->progress().step() != 5) std::this_thread::yield();
  std::promise<Answer> promise;
  std::future<Answer> future = promise.get_future();
  {
    const NoRoom no_room;
    supervisor_->Command({}, id, OrderKind::kStop, "asked for", {}, {},
                         [&](const Answer& answer) { promise.set_value(answer); });
    // From the failed commit on, others are told so. One that came before it, in the same batch,
    // has to wait like the first.
    for (bool told = false; !told;) {
      auto refused = std::make_shared<std::promise<Answer>>();
      std::future<Answer> one = refused->get_future();
      supervisor_->Command(
          {}, id, OrderKind::kCheckpoint, "", {}, [] { return true; },
          [refused](const Answer& answer) { refused->set_value(answer); });
      told = one.wait_for(std::chrono::milliseconds(200)) == std::future_status::ready &&
             absl::IsUnavailable(one.get().status);
    }
    EXPECT_EQ(stream->orders, 0) << "an order must not be ahead of the disk";
    EXPECT_NE(future.wait_for(std::chrono::seconds(0)), std::future_status::ready);
    EXPECT_GE(AwaitSample().store_errors, 1);
  }
  const Answer answer = future.get();
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.run.state(), v1::RUN_STATE_STOPPED);
}

}  // namespace
}  // namespace lockstep::launch
