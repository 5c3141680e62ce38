#include "launch/services/rpc_counter.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/support/interceptor.h>
#include <grpcpp/support/status.h>

#include <chrono>

#include "absl/status/status.h"
#include "lockstep/v1/control.pb.h"
#include "lockstep/v1/rank.pb.h"

namespace lockstep::launch {
namespace {

// Lives as long as its call.
class CountingInterceptor : public grpc::experimental::Interceptor {
 public:
  CountingInterceptor(RpcCounter& counter, std::string method)
      : counter_(counter), method_(std::move(method)) {
    counter_.Began(method_);
  }
  ~CountingInterceptor() override {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began_;
    counter_.Ended(method_, took.count());
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      counter_.Count(method_, methods->GetSendStatus().error_code());
    }
    methods->Proceed();
  }

 private:
  RpcCounter& counter_;
  const std::string method_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

class Factory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(RpcCounter& counter) : counter_(counter) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    // "/lockstep.v1.ControlService/GetRun" -> "GetRun"; empty for a method nobody has.
    const std::string path = info->method() == nullptr ? "" : info->method();
    const size_t slash = path.rfind('/');
    return new CountingInterceptor(counter_,
                                   slash == std::string::npos ? "unknown" : path.substr(slash + 1));
  }

 private:
  RpcCounter& counter_;
};

}  // namespace

RpcCounter::RpcCounter() {
  const std::string ok = absl::StatusCodeToString(absl::StatusCode::kOk);
  for (const google::protobuf::FileDescriptor* file :
       {v1::GetStatusRequest::descriptor()->file(), v1::AttachRequest::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      for (int j = 0; j < file->service(i)->method_count(); ++j) {
        const std::string& method = file->service(i)->method(j)->name();
        handled_[{method, ok}] = 0;
        seconds_[method] = {};
        inflight_[method] = 0;
      }
    }
  }
}

void RpcCounter::Began(const std::string& method) {
  const std::lock_guard lock(mutex_);
  ++inflight_[method];
}

void RpcCounter::Count(const std::string& method, int code) {
  const std::string name = absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
  const std::lock_guard lock(mutex_);
  ++handled_[{method, name}];
}

void RpcCounter::Ended(const std::string& method, double seconds) {
  const std::lock_guard lock(mutex_);
  --inflight_[method];
  metrics::Observe(seconds_[method], metrics::kServiceBuckets, seconds);
}

void RpcCounter::Show(metrics::Snapshot& snapshot) const {
  const std::lock_guard lock(mutex_);
  snapshot.rpcs_handled = handled_;
  snapshot.rpc_seconds = seconds_;
  snapshot.rpcs_inflight = inflight_;
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> RpcCounter::MakeFactory() {
  return std::make_unique<Factory>(*this);
}

}  // namespace lockstep::launch
