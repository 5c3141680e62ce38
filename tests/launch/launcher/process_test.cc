#include "launch/launcher/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace lockstep::launch {
namespace {

// A child that waits for a signal, in a session of its own.
class Child {
 public:
  Child() {
    int ready[2];
    if (pipe(ready) != 0) abort();
    pid_ = fork();
    if (pid_ == 0) {
      setsid();
      if (write(ready[1], "x", 1) != 1) _exit(1);
      while (true) pause();
    }
    char byte = 0;
    if (read(ready[0], &byte, 1) != 1) abort();
    close(ready[0]);
    close(ready[1]);
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

TEST(ProcessTest, ANameMayHoldSpacesAndParentheses) {
  const auto stat = ParseProcessStat(
      "42 (a) b (c) T 7 42 40 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 123456 1 1 1");
  ASSERT_TRUE(stat.has_value());
  EXPECT_EQ(stat->pid, 42);
  EXPECT_EQ(stat->command, "a) b (c");
  EXPECT_TRUE(stat->stopped());
  EXPECT_EQ(stat->parent, 7);
  EXPECT_EQ(stat->session, 40);
  EXPECT_EQ(stat->start_time_ticks, 123456U);
  EXPECT_DOUBLE_EQ(stat->cpu_seconds, 300.0 / static_cast<double>(sysconf(_SC_CLK_TCK)));
}

TEST(ProcessTest, GarbageIsNoProcess) {
  for (const char* text : {"", "42", "42 (a", "x (a) S 1 1 1", "42 (a) S 1 2", ") ("}) {
    EXPECT_FALSE(ParseProcessStat(text).has_value()) << text;
  }
}

TEST(ProcessTest, OnlyTheProcessOfThatStartTimeCounts) {
  const auto self = ReadProcessStat(getpid());
  ASSERT_TRUE(self.has_value());
  EXPECT_TRUE(IsAlive(getpid(), self->start_time_ticks));
  EXPECT_FALSE(IsAlive(getpid(), self->start_time_ticks + 1));
}

TEST(ProcessTest, AZombieIsDead) {
  Child child;
  const auto stat = ReadProcessStat(child.pid());
  ASSERT_TRUE(stat.has_value());
  EXPECT_TRUE(IsAlive(child.pid(), stat->start_time_ticks));
  kill(child.pid(), SIGKILL);
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(ReadProcessStat(child.pid()).has_value());
  EXPECT_FALSE(IsAlive(child.pid(), stat->start_time_ticks));
}

TEST(ProcessTest, ASessionsMembersAreFound) {
  Child child;
  const auto members = SessionMembers(child.pid());
  ASSERT_EQ(members.size(), 1U);
  EXPECT_EQ(members[0].pid, child.pid());
}

TEST(ProcessTest, ASignalReachesOnlyTheProcessMeant) {
  Child child;
  const auto stat = ReadProcessStat(child.pid());
  EXPECT_FALSE(SignalProcess(child.pid(), stat->start_time_ticks + 1, SIGKILL));
  EXPECT_FALSE(SignalProcess(0, 0, SIGKILL));
  EXPECT_FALSE(SignalProcess(-1, 0, SIGKILL));
  EXPECT_TRUE(IsAlive(child.pid(), stat->start_time_ticks));
  EXPECT_TRUE(SignalProcess(child.pid(), stat->start_time_ticks, SIGKILL));
  int status = 0;
  ASSERT_EQ(waitpid(child.pid(), &status, WNOWAIT), -1);  // WNOWAIT is only waitid's.
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(info.si_status, SIGKILL);
}

TEST(ProcessTest, TheEnvironmentAtTheStartIsSeen) {
  EXPECT_TRUE(
      StartedWith(getpid(), std::string("LOCKSTEP_SOURCE_DIR=") + getenv("LOCKSTEP_SOURCE_DIR")));
  EXPECT_FALSE(StartedWith(getpid(), "LOCKSTEP_SOURCE_DIR="));
}

TEST(ProcessTest, TheBootHasAName) {
  EXPECT_EQ(BootId().size(), 36U);
}

}  // namespace
}  // namespace lockstep::launch
