// How a gang ends, and what is said of it: ranks and mpirun killed, stopped, failing, with and
// without a restart of the coordinator in between.
#include <gmock/gmock.h>
#include <signal.h>

#include "launch/launcher/process.h"
#include "tests/launch/launcher/gang_fixture.h"

namespace lockstep::launch {
namespace {

using testing::HasSubstr;

class GangEndTest : public GangTest {
 protected:
  void ExpectNothingLeft() {
    EXPECT_TRUE(SessionMembers(gang_over_.pid).empty());
    for (const config::RankState& rank : Board()) {
      EXPECT_FALSE(IsAlive(rank.pid, rank.start_time_ticks));
    }
    for (const std::string& entry : SeenEnvironment(0)) {
      if (entry.rfind("TMPDIR=", 0) == 0) {
        EXPECT_FALSE(std::filesystem::exists(entry.substr(7))) << entry;
      }
    }
  }
};

TEST_F(GangEndTest, ACompletedGangEndsWithZero) {
  StartAndWait();
  EXPECT_FALSE(launcher_->Poll(gang_, dir_, 1).has_value());
  Go();
  EXPECT_EQ(AwaitEnd().exit_code, 0);
  ExpectNothingLeft();
}

TEST_F(GangEndTest, TheTrainersExitCodePassesThrough) {
  WriteOrders("0 exit 9\n1 exit 9\n");
  Start();
  const GangEnd end = AwaitEnd();
  EXPECT_EQ(end.exit_code, 9);
  EXPECT_THAT(end.reason, HasSubstr("stop"));
}

TEST_F(GangEndTest, TheSameEndIsToldAgain) {
  WriteOrders("0 signal 11\n");
  Start();
  const GangEnd end = AwaitEnd();
  Remake();
  const std::optional<GangEnd> again = launcher_->Poll(gang_over_, dir_, 1);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->exit_code, end.exit_code);
  EXPECT_EQ(again->reason, end.reason);
}

TEST_F(GangEndTest, AKilledRankIsNamed) {
  StartAndWait(3);
  ASSERT_EQ(kill(static_cast<pid_t>(Board()[1].pid), SIGKILL), 0);
  const GangEnd end = AwaitEnd();
  EXPECT_EQ(end.exit_code, 128 + SIGKILL);
  EXPECT_THAT(end.reason, HasSubstr("rank 1 was killed by signal 9"));
  ExpectNothingLeft();
}

TEST_F(GangEndTest, TheCauseIsNamedNotItsConsequence) {
  WriteOrders("0 fail 21 lost the others\n1 fail 23 the loss is not finite\n");
  Start();
  const GangEnd end = AwaitEnd();
  EXPECT_EQ(end.exit_code, 23);
  EXPECT_EQ(end.reason, "rank 1 at step 7: the loss is not finite");
}

TEST_F(GangEndTest, RanksAreGoneAfterMpirunWasKilled) {
  StartAndWait(3);
  ASSERT_EQ(kill(static_cast<pid_t>(gang_.pid), SIGKILL), 0);
  const GangEnd end = AwaitEnd();
  EXPECT_EQ(end.exit_code, 128 + SIGKILL);
  EXPECT_THAT(end.reason, HasSubstr("mpirun was killed by signal 9"));
  ExpectNothingLeft();
}

TEST_F(GangEndTest, StoppedRanksAreGoneAfterMpirunWasKilled) {
  StartAndWait();
  ASSERT_EQ(kill(static_cast<pid_t>(Board()[0].pid), SIGSTOP), 0);
  ASSERT_EQ(kill(static_cast<pid_t>(gang_.pid), SIGKILL), 0);
  AwaitEnd();
  ExpectNothingLeft();
}

TEST_F(GangEndTest, AllKilledAtOnceLeavesNothing) {
  StartAndWait();
  for (const config::RankState& rank : Board()) kill(static_cast<pid_t>(rank.pid), SIGKILL);
  kill(static_cast<pid_t>(gang_.pid), SIGKILL);
  EXPECT_EQ(AwaitEnd().exit_code, 128 + SIGKILL);
  ExpectNothingLeft();
}

TEST_F(GangEndTest, KillEndsEverythingSoon) {
  StartAndWait(3);
  kill(static_cast<pid_t>(Board()[2].pid), SIGSTOP);
  launcher_->Kill(gang_, dir_, 1);
  const GangEnd end = AwaitEnd();
  EXPECT_EQ(end.exit_code, 128 + SIGKILL);
  EXPECT_THAT(end.reason, HasSubstr("killed by the coordinator"));
  ExpectNothingLeft();
}

TEST_F(GangEndTest, ANewLauncherFindsTheGangAgain) {
  StartAndWait();
  const std::optional<Gang> found = MpirunLauncher::Find(dir_, 1);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->pid, gang_.pid);
  EXPECT_EQ(found->start_time_ticks, gang_.start_time_ticks);
  Remake();
  EXPECT_FALSE(launcher_->Poll(gang_, dir_, 1).has_value());
  launcher_->Kill(gang_, dir_, 1);
  AwaitEnd();
  ExpectNothingLeft();
}

TEST_F(GangEndTest, ANewLauncherReadsHowItEnded) {
  WriteOrders("1 fail 20 no such picture\n");
  StartAndWait();
  Remake();
  const GangEnd end = AwaitEnd();
  EXPECT_EQ(end.exit_code, 20);
  EXPECT_EQ(end.reason, "rank 1 at step 7: no such picture");
}

TEST_F(GangEndTest, ANewLauncherReadsResultJson) {
  StartAndWait();
  Remake();
  ASSERT_TRUE(config::WriteFileDurably(dir_ / "result.json",
                                       R"({"state":"completed","reason":"done","attempt":1})")
                  .ok());
  Go();
  const GangEnd end = AwaitEnd();
  EXPECT_EQ(end.exit_code, 0);
  EXPECT_EQ(end.reason, "done");
}

TEST_F(GangEndTest, AnEarlierAttemptsResultDoesNotCount) {
  StartAndWait();
  Remake();
  ASSERT_TRUE(
      config::WriteFileDurably(dir_ / "result.json", R"({"state":"completed","attempt":7})").ok());
  Go();
  EXPECT_EQ(AwaitEnd().exit_code, -1);
}

TEST_F(GangEndTest, MpirunsOwnTroubleIsToldInItsWords) {
  MpirunOptions options = Options();
  options.oversubscribe = false;
  Remake(options);
  Start(500);
  const GangEnd end = AwaitEnd();
  EXPECT_EQ(end.exit_code, 1);
  EXPECT_THAT(end.reason, HasSubstr("not enough slots"));
}

TEST_F(GangEndTest, AGangOfAnotherBootIsGone) {
  StartAndWait();
  nlohmann::json record = nlohmann::json::parse(*config::ReadFile(Attempt() / "gang.json"));
  const std::string whole = record.dump();
  record["boot_id"] = "another";
  ASSERT_TRUE(config::WriteFileDurably(Attempt() / "gang.json", record.dump()).ok());
  EXPECT_FALSE(MpirunLauncher::Find(dir_, 1).has_value());
  MpirunLauncher other(Options());
  EXPECT_TRUE(other.Poll(gang_, dir_, 1).has_value());
  EXPECT_TRUE(IsAlive(gang_.pid, gang_.start_time_ticks));
  ASSERT_TRUE(config::WriteFileDurably(Attempt() / "gang.json", whole).ok());
  std::filesystem::remove(Attempt() / "end.json");
}

TEST_F(GangEndTest, AStoppedRankIsNamedWithItsPlace) {
  StartAndWait(3);
  const config::RankState victim = Board()[1];
  ASSERT_EQ(kill(static_cast<pid_t>(victim.pid), SIGSTOP), 0);
  ASSERT_TRUE(Eventually([&] { return ReadProcessStat(victim.pid)->stopped(); }));
  const HangReport report = launcher_->DescribeHang(gang_, dir_, 1);
  EXPECT_EQ(report.rank, 1);
  EXPECT_EQ(report.phase, "forward");
  EXPECT_EQ(report.reason, "rank 1 (pid " + std::to_string(victim.pid) +
                               ") is stopped (state T) in forward at step 7");
  const std::string saved = *config::ReadFile(Attempt() / "hang.txt");
  EXPECT_THAT(saved, HasSubstr(report.reason));
  EXPECT_THAT(saved, HasSubstr("wchan:"));
  EXPECT_THAT(saved, HasSubstr("rank 2 (pid "));
}

TEST_F(GangEndTest, AStoppedMpirunIsNamed) {
  StartAndWait();
  ASSERT_EQ(kill(static_cast<pid_t>(gang_.pid), SIGSTOP), 0);
  ASSERT_TRUE(Eventually([&] { return ReadProcessStat(gang_.pid)->stopped(); }));
  const HangReport report = launcher_->DescribeHang(gang_, dir_, 1);
  EXPECT_EQ(report.rank, -1);
  EXPECT_THAT(report.reason, HasSubstr("mpirun (pid"));
}

TEST_F(GangEndTest, AStoppedMpirunDoesNotKeepAFinishedGang) {
  StartAndWait();
  ASSERT_EQ(kill(static_cast<pid_t>(gang_.pid), SIGSTOP), 0);
  ASSERT_TRUE(
      config::WriteFileDurably(dir_ / "result.json", R"({"state":"completed","attempt":1})").ok());
  Go();
  EXPECT_EQ(AwaitEnd().exit_code, 0);
  ExpectNothingLeft();
}

}  // namespace
}  // namespace lockstep::launch
