// The table: every order and every end, in every state.
#include <functional>

#include "config/exit_code.h"
#include "machine.h"

namespace lockstep::launch {
namespace {

using config::TrainerExit;
using S = RunState;

// Brings run "a" into each situation a run can be in.
const std::vector<std::pair<std::string, std::function<void(Machine&)>>>& Situations() {
  static const std::vector<std::pair<std::string, std::function<void(Machine&)>>> kSituations = {
      {"queued",
       [](Machine& m) {
         m.Run(Machine::Spec("other", 4));
         m.Submit("a");
       }},
      {"starting", [](Machine& m) { m.Submit("a"); }},
      {"running", [](Machine& m) { m.Run("a"); }},
      {"pausing",
       [](Machine& m) {
         m.Run("a");
         (void)m.Command("a", OrderKind::kPause);
       }},
      {"holding",
       [](Machine& m) {
         m.Run("a");
         (void)m.Command("a", OrderKind::kHold);
       }},
      {"held",
       [](Machine& m) {
         m.Run("a");
         const auto order = m.Command("a", OrderKind::kHold);
         m.Hold("a", true);
         m.Done("a", *order);
       }},
      {"paused",
       [](Machine& m) {
         m.Run("a");
         const auto order = m.Command("a", OrderKind::kPause);
         m.Done("a", *order);
         m.End("a", TrainerExit::kPaused);
       }},
      {"stopping",
       [](Machine& m) {
         m.Run("a");
         (void)m.Command("a", OrderKind::kStop);
       }},
      {"killing",
       [](Machine& m) {
         m.Run("a");
         (void)m.Command("a", OrderKind::kKill);
       }},
      {"recovering",
       [](Machine& m) {
         m.Run("a");
         m.End("a", 137, "rank 1 was killed by signal 9");
       }},
      {"completed",
       [](Machine& m) {
         m.Run("a");
         m.End("a", TrainerExit::kCompleted);
       }},
      {"stopped",
       [](Machine& m) {
         m.Run("a");
         const auto order = m.Command("a", OrderKind::kStop);
         m.Done("a", *order);
         m.End("a", TrainerExit::kStopped);
       }},
      {"failed",
       [](Machine& m) {
         m.Run("a");
         m.End("a", TrainerExit::kData);
       }},
  };
  return kSituations;
}

struct Row {
  const char* situation;
  bool accepted;
  RunState state;  // After the order.
};

void CheckOrder(OrderKind kind, const std::vector<Row>& rows) {
  ASSERT_EQ(rows.size(), Situations().size()) << "a situation is missing from the table";
  for (size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE(std::string(OrderName(kind)) + " while " + rows[i].situation);
    ASSERT_EQ(rows[i].situation, Situations()[i].first);
    Machine machine;
    Situations()[i].second(machine);
    const RunState before = machine.state("a");
    const auto order = machine.Command("a", kind);
    EXPECT_EQ(order.ok(), rows[i].accepted) << order.status();
    EXPECT_STREQ(StateName(machine.state("a")), StateName(rows[i].state));
    if (!order.ok()) {
      EXPECT_EQ(order.status().code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_NE(order.status().message().find(StateName(before)), std::string::npos)
          << "the refusal names the state: " << order.status();
      EXPECT_EQ(machine.state("a"), before);
      continue;
    }
    // Once more: the same order, or nothing left to do; never a second one.
    const size_t sent = machine.sent.size();
    const auto again = machine.Command("a", kind);
    if (machine.state("a") == rows[i].state) {
      EXPECT_TRUE(again.ok()) << again.status();
      EXPECT_EQ(*again, *order);
      EXPECT_EQ(machine.sent.size(), sent);
    }
  }
}

TEST(TransitionsTest, Pause) {
  CheckOrder(OrderKind::kPause, {{"queued", true, S::kPaused},
                                 {"starting", true, S::kPausing},
                                 {"running", true, S::kPausing},
                                 {"pausing", true, S::kPausing},
                                 {"holding", true, S::kPausing},
                                 {"held", true, S::kPausing},
                                 {"paused", true, S::kPaused},
                                 {"stopping", false, S::kStopping},
                                 {"killing", false, S::kStopping},
                                 {"recovering", true, S::kPaused},
                                 {"completed", false, S::kCompleted},
                                 {"stopped", false, S::kStopped},
                                 {"failed", false, S::kFailed}});
}

TEST(TransitionsTest, Hold) {
  CheckOrder(OrderKind::kHold, {{"queued", true, S::kPaused},
                                {"starting", true, S::kPausing},
                                {"running", true, S::kPausing},
                                {"pausing", false, S::kPausing},
                                {"holding", true, S::kPausing},
                                {"held", true, S::kPaused},
                                {"paused", true, S::kPaused},
                                {"stopping", false, S::kStopping},
                                {"killing", false, S::kStopping},
                                {"recovering", true, S::kPaused},
                                {"completed", false, S::kCompleted},
                                {"stopped", false, S::kStopped},
                                {"failed", false, S::kFailed}});
}

TEST(TransitionsTest, Resume) {
  CheckOrder(OrderKind::kResume, {{"queued", true, S::kQueued},
                                  {"starting", true, S::kStarting},
                                  {"running", true, S::kRunning},
                                  {"pausing", false, S::kPausing},
                                  {"holding", false, S::kPausing},
                                  {"held", true, S::kPaused},
                                  {"paused", true, S::kStarting},
                                  {"stopping", false, S::kStopping},
                                  {"killing", false, S::kStopping},
                                  {"recovering", true, S::kRecovering},
                                  {"completed", false, S::kCompleted},
                                  {"stopped", false, S::kStopped},
                                  {"failed", false, S::kFailed}});
}

TEST(TransitionsTest, Checkpoint) {
  CheckOrder(OrderKind::kCheckpoint, {{"queued", false, S::kQueued},
                                      {"starting", false, S::kStarting},
                                      {"running", true, S::kRunning},
                                      {"pausing", false, S::kPausing},
                                      {"holding", false, S::kPausing},
                                      {"held", true, S::kPaused},
                                      {"paused", false, S::kPaused},
                                      {"stopping", false, S::kStopping},
                                      {"killing", false, S::kStopping},
                                      {"recovering", false, S::kRecovering},
                                      {"completed", false, S::kCompleted},
                                      {"stopped", false, S::kStopped},
                                      {"failed", false, S::kFailed}});
}

TEST(TransitionsTest, Stop) {
  CheckOrder(OrderKind::kStop, {{"queued", true, S::kStopped},
                                {"starting", true, S::kStopping},
                                {"running", true, S::kStopping},
                                {"pausing", true, S::kStopping},
                                {"holding", true, S::kStopping},
                                {"held", true, S::kStopping},
                                {"paused", true, S::kStopped},
                                {"stopping", true, S::kStopping},
                                {"killing", true, S::kStopping},
                                {"recovering", true, S::kStopped},
                                {"completed", false, S::kCompleted},
                                {"stopped", true, S::kStopped},
                                {"failed", false, S::kFailed}});
}

TEST(TransitionsTest, Kill) {
  CheckOrder(OrderKind::kKill, {{"queued", true, S::kStopped},
                                {"starting", true, S::kStopping},
                                {"running", true, S::kStopping},
                                {"pausing", true, S::kStopping},
                                {"holding", true, S::kStopping},
                                {"held", true, S::kStopping},
                                {"paused", true, S::kStopped},
                                {"stopping", true, S::kStopping},
                                {"killing", true, S::kStopping},
                                {"recovering", true, S::kStopped},
                                {"completed", false, S::kCompleted},
                                {"stopped", true, S::kStopped},
                                {"failed", false, S::kFailed}});
}

struct EndRow {
  TrainerExit exit;
  RunState running, pausing, held, stopping, starting;
};

TEST(TransitionsTest, EveryEndOfAnAttemptInEveryState) {
  const std::vector<EndRow> rows = {
      {TrainerExit::kCompleted, S::kCompleted, S::kCompleted, S::kCompleted, S::kCompleted,
       S::kCompleted},
      {TrainerExit::kStopped, S::kStopped, S::kStopped, S::kStopped, S::kStopped, S::kStopped},
      {TrainerExit::kPaused, S::kPaused, S::kPaused, S::kPaused, S::kStopped, S::kPaused},
      {TrainerExit::kBadConfig, S::kFailed, S::kFailed, S::kFailed, S::kFailed, S::kFailed},
      {TrainerExit::kData, S::kFailed, S::kFailed, S::kFailed, S::kFailed, S::kFailed},
      {TrainerExit::kNonFinite, S::kFailed, S::kFailed, S::kFailed, S::kFailed, S::kFailed},
      {TrainerExit::kOutOfMemory, S::kFailed, S::kFailed, S::kFailed, S::kFailed, S::kFailed},
      {TrainerExit::kCheckpointFailed, S::kFailed, S::kFailed, S::kFailed, S::kFailed, S::kFailed},
      {TrainerExit::kInternal, S::kRecovering, S::kPaused, S::kPaused, S::kStopped, S::kRecovering},
      {TrainerExit::kCommunicatorLost, S::kRecovering, S::kPaused, S::kPaused, S::kStopped,
       S::kRecovering},
      {TrainerExit::kReplicasDiffer, S::kRecovering, S::kPaused, S::kPaused, S::kStopped,
       S::kRecovering},
      {TrainerExit::kStaleAttempt, S::kRecovering, S::kPaused, S::kPaused, S::kStopped,
       S::kRecovering},
      {static_cast<TrainerExit>(137), S::kRecovering, S::kPaused, S::kPaused, S::kStopped,
       S::kRecovering},
      {static_cast<TrainerExit>(-1), S::kRecovering, S::kPaused, S::kPaused, S::kStopped,
       S::kRecovering},
  };
  for (const EndRow& row : rows) {
    const std::vector<std::pair<std::string, RunState>> cases = {
        {"running", row.running}, {"pausing", row.pausing},   {"holding", row.pausing},
        {"held", row.held},       {"stopping", row.stopping}, {"starting", row.starting}};
    for (const auto& [situation, expected] : cases) {
      SCOPED_TRACE("exit " + std::to_string(static_cast<int>(row.exit)) + " while " + situation);
      Machine machine;
      for (const auto& [name, make] : Situations()) {
        if (name == situation) make(machine);
      }
      machine.End("a", row.exit);
      EXPECT_STREQ(StateName(machine.state("a")), StateName(expected));
      EXPECT_FALSE(machine.run("a").has_processes);
      if (expected != S::kRecovering) {
        EXPECT_TRUE(machine.run("a").orders.empty()) << "nobody may wait for ever";
      }
    }
  }
}

TEST(TransitionsTest, WhatComesFromAnotherAttemptChangesNothing) {
  for (const auto& [name, make] : Situations()) {
    SCOPED_TRACE(name);
    Machine machine;
    make(machine);
    const RunState before = machine.state("a");
    const int stale = machine.run("a").attempt + 7;
    machine->Progressed("a", stale, {}, machine.now());
    machine->CheckpointWritten("a", stale, {}, machine.now());
    machine->HoldChanged("a", stale, true, 1, "disk full", machine.now());
    machine->Goodbye("a", stale, 0, "", machine.now());
    machine->GangEnded("a", stale, {0, ""}, 0, machine.now());
    machine->HangDescribed("a", stale, {}, machine.now());
    machine->Launched("a", stale, Gang{1, 1}, machine.now());
    EXPECT_FALSE(machine->Hello({"a", stale, "", {}, false}, machine.now()).ok());
    EXPECT_TRUE(machine->TakeActions().empty());
    EXPECT_EQ(machine.state("a"), before);
  }
}

TEST(TransitionsTest, NoLegalTransitionLeavesAnEndedRunOrGoesNowhere) {
  for (int from = 0; from < kRunStateCount; ++from) {
    EXPECT_FALSE(IsLegal(static_cast<S>(from), static_cast<S>(from)));
    for (int to = 0; to < kRunStateCount; ++to) {
      if (IsTerminal(static_cast<S>(from))) {
        EXPECT_FALSE(IsLegal(static_cast<S>(from), static_cast<S>(to)));
      }
    }
    EXPECT_EQ(ParseState(StateName(static_cast<S>(from))), static_cast<S>(from));
  }
}

}  // namespace
}  // namespace lockstep::launch
