#include "launch/services/control_service.h"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "config/run_directory.h"
#include "launch/services/log_stream.h"
#include "launch/services/rpc_status.h"
#include "launch/services/submission.h"
#include "launch/services/watch_stream.h"
#include "launch/supervisor/checkpoint_reader.h"

namespace lockstep::launch {
namespace {

constexpr int kDefaultPage = 50;
constexpr int kMaxPage = 500;
constexpr size_t kMaxRequestIdBytes = 128;
constexpr int kVerifyThreads = 2;
constexpr size_t kMaxVerifications = 64;

template <typename Request>
RequestKey KeyOf(const Request& request, const char* method) {
  Request rest = request;
  rest.clear_request_id();
  const std::string bytes = rest.SerializeAsString();
  return {request.request_id(), method,
          absl::StrCat(absl::Hex(XXH3_64bits(bytes.data(), bytes.size()), absl::kZeroPad16))};
}

absl::Status CheckRequestId(const std::string& id) {
  if (id.size() <= kMaxRequestIdBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("request_id: is ", id.size(), " bytes long; at most ", kMaxRequestIdBytes));
}

grpc::ServerUnaryReactor* Ended(grpc::CallbackServerContext* context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

v1::Checkpoint ToProto(const CheckpointOnDisk& checkpoint) {
  v1::Checkpoint proto;
  proto.set_step(checkpoint.step);
  proto.set_path(checkpoint.path.string());
  proto.set_bytes(checkpoint.bytes);
  proto.set_created_unix_seconds(checkpoint.created_unix_seconds);
  proto.set_has_metric(checkpoint.metric.has_value());
  proto.set_metric(checkpoint.metric.value_or(0));
  return proto;
}

absl::StatusOr<LimitChanges> FromProto(const v1::LimitChanges& proto) {
  LimitChanges limits;
  if (proto.has_max_cost()) limits.max_cost = proto.max_cost();
  if (proto.has_max_energy_kwh()) {
    limits.max_joules = proto.max_energy_kwh() * metrics::kJoulesPerKwh;
  }
  if (proto.has_max_time_seconds()) limits.max_seconds = proto.max_time_seconds();
  for (const auto& limit : {limits.max_cost, limits.max_joules, limits.max_seconds}) {
    if (!limit || (*limit >= 0 && std::isfinite(*limit))) continue;
    return absl::InvalidArgumentError("limits: must be 0, which is no limit, or more");
  }
  return limits;
}

}  // namespace

ControlServiceImpl::ControlServiceImpl(Supervisor& supervisor, ControlServiceOptions options)
    : supervisor_(supervisor),
      options_(std::move(options)),
      verifications_(kVerifyThreads, kMaxVerifications),
      models_(options_.models) {}

ControlServiceImpl::~ControlServiceImpl() = default;

std::string ControlServiceImpl::UserOf(const Context& context) const {
  return options_.user_of ? options_.user_of(context.peer()) : std::string();
}

// --- Orders.

ControlServiceImpl::Unary* ControlServiceImpl::SubmitRun(Context* context,
                                                         const v1::SubmitRunRequest* request,
                                                         v1::SubmitRunResponse* response) {
  if (absl::Status status = CheckRequestId(request->request_id()); !status.ok()) {
    return Ended(context, ToGrpc(status));
  }
  Submission submission =
      ParseSubmission(*request, {options_.slots, supervisor_.overview().free_slots, options_.cores,
                                 options_.allowed_roots, options_.weights});
  if (!submission.violations.empty()) return Ended(context, BadRequest(submission.violations));
  if (!submission.refused.ok()) return Ended(context, ToGrpc(submission.refused));
  submission.spec.submitted_by = UserOf(*context);
  Unary* reactor = context->DefaultReactor();
  supervisor_.Submit(KeyOf(*request, "SubmitRun"), std::move(submission.spec),
                     [reactor, response](const Answer& answer) {
                       *response->mutable_run() = answer.run;
                       reactor->Finish(ToGrpc(answer.status));
                     });
  return reactor;
}

template <typename Request>
ControlServiceImpl::Unary* ControlServiceImpl::Order(Context* context, const Request& request,
                                                     const char* method, OrderKind kind,
                                                     std::function<void(const Answer&)> fill,
                                                     const LimitChanges& limits) {
  if (absl::Status status = CheckRequestId(request.request_id()); !status.ok()) {
    return Ended(context, ToGrpc(status));
  }
  const auto run = supervisor_.Find(request.run());
  if (!run.ok()) return Ended(context, ToGrpc(run.status()));
  const std::string user = UserOf(*context);
  Unary* reactor = context->DefaultReactor();
  supervisor_.Command(
      KeyOf(request, method), (*run)->run_id(), kind,
      absl::StrCat(OrderName(kind), " asked for", user.empty() ? "" : " by ", user), limits,
      [context] { return context->IsCancelled(); },
      [reactor, fill = std::move(fill)](const Answer& answer) {
        fill(answer);
        reactor->Finish(ToGrpc(answer.status));
      });
  return reactor;
}

ControlServiceImpl::Unary* ControlServiceImpl::PauseRun(Context* context,
                                                        const v1::PauseRunRequest* request,
                                                        v1::PauseRunResponse* response) {
  return Order(context, *request, "PauseRun",
               request->hold() ? OrderKind::kHold : OrderKind::kPause,
               [response](const Answer& answer) {
                 *response->mutable_run() = answer.run;
                 response->set_step(answer.step);
               });
}

ControlServiceImpl::Unary* ControlServiceImpl::ResumeRun(Context* context,
                                                         const v1::ResumeRunRequest* request,
                                                         v1::ResumeRunResponse* response) {
  const auto limits = FromProto(request->limits());
  if (!limits.ok()) return Ended(context, ToGrpc(limits.status()));
  return Order(
      context, *request, "ResumeRun", OrderKind::kResume,
      [response](const Answer& answer) { *response->mutable_run() = answer.run; }, *limits);
}

ControlServiceImpl::Unary* ControlServiceImpl::CheckpointRun(
    Context* context, const v1::CheckpointRunRequest* request,
    v1::CheckpointRunResponse* response) {
  return Order(context, *request, "CheckpointRun", OrderKind::kCheckpoint,
               [response](const Answer& answer) {
                 *response->mutable_run() = answer.run;
                 *response->mutable_checkpoint() = answer.checkpoint;
               });
}

ControlServiceImpl::Unary* ControlServiceImpl::StopRun(Context* context,
                                                       const v1::StopRunRequest* request,
                                                       v1::StopRunResponse* response) {
  return Order(context, *request, "StopRun", OrderKind::kStop, [response](const Answer& answer) {
    *response->mutable_run() = answer.run;
    response->set_step(answer.step);
  });
}

ControlServiceImpl::Unary* ControlServiceImpl::KillRun(Context* context,
                                                       const v1::KillRunRequest* request,
                                                       v1::KillRunResponse* response) {
  return Order(context, *request, "KillRun", OrderKind::kKill,
               [response](const Answer& answer) { *response->mutable_run() = answer.run; });
}

// --- Looking.

ControlServiceImpl::Unary* ControlServiceImpl::GetRun(Context* context,
                                                      const v1::GetRunRequest* request,
                                                      v1::GetRunResponse* response) {
  const auto run = supervisor_.Find(request->run());
  if (!run.ok()) return Ended(context, ToGrpc(run.status()));
  *response->mutable_run() = **run;
  response->mutable_run()->set_config_yaml(supervisor_.ConfigOf((*run)->run_id()));
  return Ended(context, grpc::Status::OK);
}

ControlServiceImpl::Unary* ControlServiceImpl::ListRuns(Context* context,
                                                        const v1::ListRunsRequest* request,
                                                        v1::ListRunsResponse* response) {
  if (request->page_size() < 0) {
    return Ended(context, ToGrpc(absl::InvalidArgumentError("page_size: must not be negative")));
  }
  const size_t size = request->page_size() == 0
                          ? kDefaultPage
                          : static_cast<size_t>(std::min(request->page_size(), kMaxPage));
  // The token is the number of the last run shown: pages stay right while runs are added.
  uint64_t before = UINT64_MAX;
  const std::string& token = request->page_token();
  if (!token.empty()) {
    const auto [rest, error] = std::from_chars(token.data(), token.data() + token.size(), before);
    if (error != std::errc() || rest != token.data() + token.size()) {
      return Ended(context, ToGrpc(absl::InvalidArgumentError("page_token: is not one of ours")));
    }
  }
  for (const Supervisor::Listed& listed : supervisor_.List()) {
    if (listed.number >= before) continue;
    const auto& states = request->states();
    if (!states.empty() &&
        std::find(states.begin(), states.end(), listed.run->state()) == states.end()) {
      continue;
    }
    if (static_cast<size_t>(response->runs_size()) == size) {
      response->set_next_page_token(std::to_string(before));
      break;
    }
    *response->add_runs() = *listed.run;
    before = listed.number;
  }
  return Ended(context, grpc::Status::OK);
}

grpc::ServerWriteReactor<v1::WatchRunResponse>* ControlServiceImpl::WatchRun(
    Context* context, const v1::WatchRunRequest* request) {
  const auto run = supervisor_.Find(request->run());
  if (!run.ok()) return EndedWatch(ToGrpc(run.status()));
  return StartWatch(supervisor_, (*run)->run_id(), request->after_sequence());
}

grpc::ServerWriteReactor<v1::StreamLogsResponse>* ControlServiceImpl::StreamLogs(
    Context* context, const v1::StreamLogsRequest* request) {
  const auto run = supervisor_.Find(request->run());
  if (!run.ok()) return EndedLogs(ToGrpc(run.status()));
  return StartLogs(supervisor_, context, **run, *request);
}

ControlServiceImpl::Unary* ControlServiceImpl::ListCheckpoints(
    Context* context, const v1::ListCheckpointsRequest* request,
    v1::ListCheckpointsResponse* response) {
  const auto run = supervisor_.Find(request->run());
  if (!run.ok()) return Ended(context, ToGrpc(run.status()));
  const config::RunDirectory directory((*run)->run_dir());
  for (const CheckpointOnDisk& checkpoint : launch::ListCheckpoints(directory.checkpoints())) {
    *response->add_checkpoints() = ToProto(checkpoint);
  }
  Unary* reactor = context->DefaultReactor();
  supervisor_.CheckpointCosts(
      (*run)->run_id(), [reactor, response](const std::vector<CheckpointCost>& costs) {
        for (v1::Checkpoint& checkpoint : *response->mutable_checkpoints()) {
          for (const CheckpointCost& cost : costs) {
            if (cost.step != checkpoint.step()) continue;
            checkpoint.set_has_cost(true);
            checkpoint.set_cost(static_cast<double>(cost.micros) / metrics::kMicrosPerUnit);
          }
        }
        reactor->Finish(grpc::Status::OK);
      });
  return reactor;
}

ControlServiceImpl::Unary* ControlServiceImpl::VerifyCheckpoint(
    Context* context, const v1::VerifyCheckpointRequest* request,
    v1::VerifyCheckpointResponse* response) {
  const auto run = supervisor_.Find(request->run());
  if (!run.ok()) return Ended(context, ToGrpc(run.status()));
  const int64_t step = request->step();
  Unary* reactor = context->DefaultReactor();
  auto work = [this, context, reactor, response, step, run_dir = (*run)->run_dir()] {
    const auto cancelled = [&] { return verifications_.stopping() || context->IsCancelled(); };
    bool found = step == 0;
    for (const CheckpointOnDisk& checkpoint :
         launch::ListCheckpoints(config::RunDirectory(run_dir).checkpoints())) {
      if (step != 0 && checkpoint.step != step) continue;
      found = true;
      const absl::Status status = launch::VerifyCheckpoint(checkpoint.path, cancelled);
      if (cancelled()) {
        reactor->Finish({grpc::StatusCode::CANCELLED, "verification was cancelled"});
        return;
      }
      auto* result = response->add_results();
      *result->mutable_checkpoint() = ToProto(checkpoint);
      result->set_ok(status.ok());
      result->set_error(std::string(status.message()));
    }
    reactor->Finish(found ? grpc::Status::OK
                          : grpc::Status(grpc::StatusCode::NOT_FOUND,
                                         absl::StrCat("there is no checkpoint of step ", step)));
  };
  if (!verifications_.Post(std::move(work))) {
    reactor->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many verifications wait already"});
  }
  return reactor;
}

// The folder that the request's model is to be found in.
absl::StatusOr<std::string> ControlServiceImpl::ModelOf(const v1::PredictRequest& request) const {
  if (request.run().empty() == request.checkpoint().empty()) {
    return absl::InvalidArgumentError("run: exactly one of `run` and `checkpoint` is expected");
  }
  if (request.picture().empty()) return absl::InvalidArgumentError("picture: is empty");
  if (request.picture().size() > static_cast<size_t>(kMaxPictureBytes)) {
    return absl::InvalidArgumentError(absl::StrCat("picture: has ", request.picture().size() >> 20,
                                                   " MiB; at most ", kMaxPictureBytes >> 20));
  }
  if (request.top_k() < 0) return absl::InvalidArgumentError("top_k: must not be negative");
  if (!request.run().empty()) {
    const auto run = supervisor_.Find(request.run());
    if (!run.ok()) return run.status();
    return (*run)->run_dir();
  }
  if (!std::filesystem::path(request.checkpoint()).is_absolute()) {
    return absl::InvalidArgumentError("checkpoint: must be an absolute path");
  }
  if (absl::Status allowed =
          CheckUnderRoots("checkpoint", request.checkpoint(), options_.allowed_roots);
      !allowed.ok()) {
    return allowed;
  }
  return request.checkpoint();
}

ControlServiceImpl::Unary* ControlServiceImpl::Predict(Context* context,
                                                       const v1::PredictRequest* request,
                                                       v1::PredictResponse* response) {
  const auto model = ModelOf(*request);
  if (!model.ok()) return Ended(context, ToGrpc(model.status()));
  Unary* reactor = context->DefaultReactor();
  ModelServer::Question question;
  question.checkpoint = *model;
  question.request = request;
  question.response = response;
  if (const auto deadline = context->deadline();
      deadline != std::chrono::system_clock::time_point::max()) {
    question.deadline = ModelServer::Clock::now() +
                        std::min<std::chrono::system_clock::duration>(
                            deadline - std::chrono::system_clock::now(), std::chrono::hours(24));
  }
  question.cancelled = [context] { return context->IsCancelled(); };
  question.done = [reactor](const absl::Status& status) { reactor->Finish(ToGrpc(status)); };
  if (absl::Status asked = models_.Ask(std::move(question)); !asked.ok()) {
    reactor->Finish(ToGrpc(asked));
  }
  return reactor;
}

ControlServiceImpl::Unary* ControlServiceImpl::Shutdown(Context* context,
                                                        const v1::ShutdownRequest* request,
                                                        v1::ShutdownResponse* response) {
  Unary* reactor = context->DefaultReactor();
  const auto end = [this, reactor] {
    options_.shut_down();
    reactor->Finish(grpc::Status::OK);
  };
  if (request->stop_runs()) {
    supervisor_.StopAll(end);
  } else {
    end();
  }
  return reactor;
}

}  // namespace lockstep::launch
