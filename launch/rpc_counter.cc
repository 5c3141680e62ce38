#include "launch/rpc_counter.h"

#include <grpcpp/support/interceptor.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace lockstep::launch {
namespace {

class CountingInterceptor : public grpc::experimental::Interceptor {
 public:
  CountingInterceptor(RpcCounter& counter, std::string method)
      : counter_(counter), method_(std::move(method)) {}

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

void RpcCounter::Count(const std::string& method, int code) {
  const std::string name = absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
  const std::lock_guard lock(mutex_);
  ++counts_[{method, name}];
}

std::map<std::pair<std::string, std::string>, int64_t> RpcCounter::Counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> RpcCounter::MakeFactory() {
  return std::make_unique<Factory>(*this);
}

}  // namespace lockstep::launch
