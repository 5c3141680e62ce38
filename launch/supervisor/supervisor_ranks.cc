// What rank 0 of each run says, from its stream to the state machine.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "launch/launcher/process.h"
#include "launch/supervisor/run_view.h"
#include "launch/supervisor/supervisor.h"

namespace lockstep::launch {
namespace {

uint64_t StartTime(int64_t pid) {
  const std::optional<ProcessStat> stat = ReadProcessStat(pid);
  return stat ? stat->start_time_ticks : 0;
}

// More than any GPU's name or UUID has.
constexpr size_t kMaxDeviceText = 128;

// Rank 0's host is ours: a Unix socket does not leave it.
bool IsElsewhere(const v1::Hello& hello, int rank) {
  return rank < hello.hosts_size() && hello.hosts(rank) != hello.hosts(0);
}

std::vector<RankProcess> LocalRanks(const v1::Hello& hello) {
  std::vector<RankProcess> ranks;
  for (int i = 0; i < hello.pids_size(); ++i) {
    if (IsElsewhere(hello, i)) continue;
    ranks.push_back({hello.pids(i), StartTime(hello.pids(i))});
  }
  return ranks;
}

// A name or a UUID as a rank told it: it goes to the store, to labels and to terminals.
std::string Plain(const std::string& told) {
  std::string text = told.substr(0, kMaxDeviceText);
  for (char& c : text) {
    if (c < ' ' || c > '~') c = ' ';
  }
  return text;
}

std::vector<RankDevice> DevicesOf(const v1::Hello& hello) {
  std::vector<RankDevice> devices;
  for (int i = 0; i < std::min(hello.devices_size(), hello.world_size()); ++i) {
    devices.push_back(
        {Plain(hello.devices(i).name()), Plain(hello.devices(i).uuid()), IsElsewhere(hello, i)});
  }
  return devices;
}

bool SameProcesses(const std::vector<RankProcess>& a, const std::vector<RankProcess>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const RankProcess& x, const RankProcess& y) {
                      return x.pid == y.pid && x.start_time_ticks == y.start_time_ticks;
                    });
}

}  // namespace

void Supervisor::Attach(const v1::Hello& hello, RunSpec external,
                        const std::shared_ptr<RankStream>& stream) {
  const auto refuse = [stream] {
    stream->Close(absl::UnavailableError("the coordinator is shutting down"));
  };
  const auto handle = [this, hello, external = std::move(external), stream](Now now) {
    DoAttach(hello, external, stream, now);
  };
  if (!Post(handle, refuse)) refuse();
}

void Supervisor::FromRank(const std::shared_ptr<RankStream>& stream, v1::AttachRequest message) {
  // A refused post loses nothing that matters for long: counters are totals, checkpoints are files,
  // and an order that is not known to be done is sent again.
  Post([this, stream, message = std::move(message)](Now now) {
    DoRankMessage(stream, message, now);
  });
}

void Supervisor::Detach(const std::shared_ptr<RankStream>& stream) {
  Post([this, stream](Now now) {
    const auto it = sessions_.find(stream);
    if (it == sessions_.end()) return;
    const Session session = it->second;
    sessions_.erase(it);
    coordinator_.Detached(session.run, session.attempt);
  });
}

void Supervisor::DoAttach(const v1::Hello& hello, RunSpec external,
                          std::shared_ptr<RankStream> stream, Now now) {
  const absl::StatusOr<Session> session = Accept(hello, std::move(external), now);
  if (!session.ok()) {
    spdlog::warn("a rank was refused: {}", std::string(session.status().message()));
    stream->Close(session.status());
    return;
  }
  for (auto it = sessions_.begin(); it != sessions_.end();) {
    if (it->second.run == session->run) {
      it->first->Close(absl::AbortedError("the run attached again"));
      it = sessions_.erase(it);
    } else {
      ++it;
    }
  }
  spdlog::info("run {} attempt {} attached", session->run, session->attempt);
  sessions_.emplace(stream, *session);
  // Said once the run is stored and can be seen; orders come after it in the same line.
  answers_.push_back([stream, run = session->run] { stream->Welcome(run); });
  if (hello.has_progress()) TakeProgress(*session, hello.progress(), now);
}

absl::StatusOr<Supervisor::Session> Supervisor::Accept(const v1::Hello& hello, RunSpec external,
                                                       Now now) {
  HelloFacts facts;
  facts.run_id = hello.run_id();
  facts.attempt = hello.attempt();
  facts.token = hello.token();
  facts.held = hello.progress().held();
  facts.devices = DevicesOf(hello);
  facts.gang = {hello.mpirun_pid(), hello.mpirun_pid() > 0 ? StartTime(hello.mpirun_pid()) : 0};

  const Run* known = coordinator_.Find(facts.run_id);
  if (facts.run_id.empty() || (known != nullptr && known->spec.external)) {
    std::vector<RankProcess> ranks = LocalRanks(hello);
    for (const auto& [id, run] : coordinator_.runs()) {
      if (!run.spec.external || !run.has_processes) continue;
      if (!SameProcesses(run.rank_processes, ranks)) continue;
      facts.run_id = id;  // It was here before.
      facts.attempt = run.attempt;
      facts.token = run.token;
      if (absl::Status status = coordinator_.Hello(facts, now); !status.ok()) return status;
      return Session{id, run.attempt};
    }
    if (known != nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("stale attempt: the processes of run ", facts.run_id, " are others"));
    }
    external.id = NewRunId(external.name);
    external.submitted_unix = now.unix;
    facts.run_id = external.id;
    details_[external.id];
    const std::string id = external.id;
    const absl::Status status =
        coordinator_.RegisterExternal(std::move(external), facts, std::move(ranks),
                                      std::max(0.0, hello.progress().wall_seconds()), now);
    if (!status.ok()) return status;
    return Session{id, coordinator_.Find(id)->attempt};
  }
  if (absl::Status status = coordinator_.Hello(facts, now); !status.ok()) return status;
  return Session{facts.run_id, facts.attempt};
}

void Supervisor::DoRankMessage(const std::shared_ptr<RankStream>& stream,
                               const v1::AttachRequest& message, Now now) {
  const auto it = sessions_.find(stream);
  if (it == sessions_.end()) return;  // Closed or replaced meanwhile.
  const Session session = it->second;
  const std::string& id = session.run;
  switch (message.message_case()) {
    case v1::AttachRequest::kProgress:
      TakeProgress(session, message.progress(), now);
      break;
    case v1::AttachRequest::kEvaluation: {
      const Run* run = coordinator_.Find(id);
      // What is there of an attempt before this one is in the totals already.
      if (run != nullptr && run->progress_attempt == session.attempt) {
        v1::Progress progress = details_[id].progress;
        *progress.mutable_last_evaluation() = message.evaluation();
        TakeProgress(session, progress, now);
      }
      if (run != nullptr) {
        const double value = ValueOf(message.evaluation(), run->spec.limits.metric);
        coordinator_.Evaluated(id, session.attempt, message.evaluation().step(), value, now);
      }
      break;
    }
    case v1::AttachRequest::kCheckpoint:
      coordinator_.CheckpointWritten(id, session.attempt, FactsOf(message.checkpoint()), now);
      break;
    case v1::AttachRequest::kOrderDone: {
      const v1::OrderDone& done = message.order_done();
      coordinator_.OrderDone(
          id, session.attempt,
          {done.order_id(), done.step(), done.error(), FactsOf(done.checkpoint())}, now);
      break;
    }
    case v1::AttachRequest::kHold:
      coordinator_.HoldChanged(id, session.attempt, message.hold().held(), message.hold().step(),
                               message.hold().reason(), now);
      break;
    case v1::AttachRequest::kGoodbye: {
      const v1::Goodbye& goodbye = message.goodbye();
      if (goodbye.has_progress()) TakeProgress(session, goodbye.progress(), now);
      coordinator_.Goodbye(id, session.attempt, goodbye.exit_code(), goodbye.reason(), now);
      break;
    }
    default:
      sessions_.erase(it);
      coordinator_.Detached(id, session.attempt);
      stream->Close(absl::InvalidArgumentError("the first message, and only it, must be a hello"));
      break;
  }
}

void Supervisor::TakeProgress(const Session& session, const v1::Progress& progress, Now now) {
  const Run* run = coordinator_.Find(session.run);
  if (run == nullptr || run->attempt != session.attempt || !run->has_processes) return;
  // A rank that failed before its first report has nothing to say here.
  if (progress.wall_seconds() <= 0 && progress.step() == 0) return;
  Detail& detail = details_[session.run];
  if (run->progress_attempt != session.attempt) {
    AddToTotals(detail.progress, detail.totals);
    detail.progress.Clear();
  }
  if (progress.step() != detail.progress.step() || progress.steps() != detail.progress.steps()) {
    detail.last_step_unix = now.unix;
  }
  detail.last_report_unix = now.unix;
  detail.progress = progress;
  coordinator_.Progressed(session.run, session.attempt, FactsOf(progress), now);
}

}  // namespace lockstep::launch
