// The daemon put together: its lock, its ports, its socket, its refusals.
#include "launch/daemon/daemon.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include <csignal>
#include "absl/strings/str_cat.h"

#include "fake_launcher.h"
#include "launch/daemon/state_lock.h"
#include "lockstep/v1/control.grpc.pb.h"
#include "tests/launch/temporary_folder.h"

namespace lockstep::launch {
namespace {

using config::ExitCode;

class DaemonTest : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "the distribution's gRPC is not instrumented: every call looks like a race";
#endif
  }

  std::unique_ptr<Daemon> Start(const std::string& metrics = "127.0.0.1:0",
                                const std::string& tcp = "") {
    DaemonOptions options;
    options.config.state_dir = (folder_.path() / "state").string();
    options.config.metrics_address = metrics;
    options.config.tcp_address = tcp;
    options.config.slots = 2;
    options.build.version = "test";
    options.launcher = &launcher_;
    options.shut_down = [] {};
    options.log_messages = [] { return std::map<std::string, int64_t>{{"warning", 7}}; };
    return Daemon::Start(std::move(options), error_);
  }
  static grpc::Status Ask(const std::string& target, v1::GetStatusResponse& response) {
    auto stub = v1::ControlService::NewStub(
        grpc::CreateChannel(target, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    return stub->GetStatus(&context, {}, &response);
  }

  TemporaryFolder folder_;
  FakeLauncher launcher_;
  DaemonError error_;
};

// Holds a loopback port.
class TakenPort {
 public:
  TakenPort() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    listen(fd_, 1);
    socklen_t size = sizeof(address);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~TakenPort() { close(fd_); }
  TakenPort(const TakenPort&) = delete;
  TakenPort& operator=(const TakenPort&) = delete;
  int port() const { return port_; }

 private:
  int fd_;
  int port_ = 0;
};

TEST_F(DaemonTest, ItServesItsSocketAndSaysWhoItIs) {
  const auto daemon = Start();
  ASSERT_NE(daemon, nullptr) << error_.message;
  v1::GetStatusResponse response;
  const grpc::Status status = Ask("unix:" + daemon->socket(), response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.pid(), getpid());
  EXPECT_EQ(response.slots(), 2);
  EXPECT_EQ(response.free_slots(), 2);
  EXPECT_EQ(response.metrics_address(), absl::StrCat("127.0.0.1:", daemon->metrics_port()));
}

// The text of the metrics endpoint.
std::string Scrape(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  std::string text;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
    EXPECT_EQ(send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    char buffer[4096];
    for (ssize_t got = 0; (got = recv(fd, buffer, sizeof buffer, 0)) > 0;) {
      text.append(buffer, static_cast<size_t>(got));
    }
  }
  close(fd);
  return text;
}

TEST_F(DaemonTest, ItsOwnWorkIsInTheMetrics) {
  auto daemon = Start();
  ASSERT_NE(daemon, nullptr) << error_.message;
  v1::GetStatusResponse response;
  ASSERT_TRUE(Ask("unix:" + daemon->socket(), response).ok());
  const auto has = [&](const std::string& line) {
    return Scrape(daemon->metrics_port()).find("\n" + line + "\n") != std::string::npos;
  };
  // The client has its answer a moment before the server is done with the call.
  const std::string ended = R"(lockstep_rpc_server_handling_seconds_count{method="GetStatus"} 1)";
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!has(ended) && std::chrono::steady_clock::now() < until) usleep(10000);
  EXPECT_TRUE(has(ended)) << Scrape(daemon->metrics_port());
  EXPECT_TRUE(has(R"(lockstep_rpc_server_handled_total{method="GetStatus",code="OK"} 1)") ||
              has(R"(lockstep_rpc_server_handled_total{code="OK",method="GetStatus"} 1)"));
  EXPECT_TRUE(has(R"(lockstep_rpc_server_inflight{method="GetStatus"} 0)"));
  EXPECT_TRUE(has(R"(lockstep_rpc_server_handled_total{method="StopRun",code="OK"} 0)") ||
              has(R"(lockstep_rpc_server_handled_total{code="OK",method="StopRun"} 0)"));
  EXPECT_TRUE(has(R"(lockstep_slots{state="free"} 2)"));
  EXPECT_TRUE(has(R"(lockstep_log_messages_total{level="warning"} 7)"));
}

TEST_F(DaemonTest, ASecondOneOnTheSameFolderIsRefusedWithTheHoldersPidAndTouchesNothing) {
  const auto daemon = Start();
  ASSERT_NE(daemon, nullptr) << error_.message;
  for (int i = 0; i < 20; ++i) {
    DaemonError error;
    EXPECT_EQ(Start(), nullptr);
    EXPECT_EQ(error_.exit_code, ExitCode::kWrongState);
    EXPECT_NE(error_.message.find(absl::StrCat("pid ", getpid())), std::string::npos)
        << error_.message;
  }
  v1::GetStatusResponse response;
  EXPECT_TRUE(Ask("unix:" + daemon->socket(), response).ok());
}

TEST_F(DaemonTest, OfManyThatStartAtOnceExactlyOneWins) {
  std::filesystem::create_directories(folder_.path() / "state");
  for (int round = 0; round < 25; ++round) {
    int gate[2];
    int results[2];
    ASSERT_EQ(pipe(gate), 0);
    ASSERT_EQ(pipe(results), 0);
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        close(gate[1]);
        char byte = 0;
        (void)!read(gate[0], &byte, 1);
        auto lock = StateLock::Take(folder_.path() / "state");
        const char result = lock.ok() ? 'w' : absl::IsAlreadyExists(lock.status()) ? 'l' : 'e';
        (void)!write(results[1], &result, 1);
        if (lock.ok()) pause();
        _exit(0);
      }
      children.push_back(child);
    }
    close(gate[0]);
    close(gate[1]);
    std::string seen;
    for (int i = 0; i < 4; ++i) {
      char result = 0;
      ASSERT_EQ(read(results[0], &result, 1), 1);
      seen += result;
    }
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, "lllw");
    for (const pid_t child : children) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
    close(results[0]);
    close(results[1]);
  }
}

TEST_F(DaemonTest, APortInUseIsNamedWithItsOwnerAtOnce) {
  const TakenPort taken;
  const std::string address = absl::StrCat("127.0.0.1:", taken.port());
  for (const bool metrics : {true, false}) {
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(metrics ? Start(address) : Start("127.0.0.1:0", address), nullptr);
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(2));
    EXPECT_EQ(error_.exit_code, ExitCode::kUsage) << error_.message;
    EXPECT_NE(error_.message.find(std::to_string(taken.port())), std::string::npos);
    EXPECT_NE(error_.message.find(absl::StrCat("pid ", getpid())), std::string::npos)
        << error_.message;
    EXPECT_NE(error_.message.find(metrics ? "--set metrics_address=" : "--set tcp_address="),
              std::string::npos)
        << error_.message;
  }
  // An address of nobody (RFC 5737).
  EXPECT_EQ(Start("192.0.2.1:0"), nullptr);
  EXPECT_EQ(error_.message.find("in use"), std::string::npos) << error_.message;
  EXPECT_NE(Start(), nullptr) << "what failed has let go of everything: " << error_.message;
}

TEST_F(DaemonTest, TcpIsLoopbackOnly) {
  for (const char* address : {"0.0.0.0:0", "10.0.0.1:5000", "example.org:80", "nonsense"}) {
    EXPECT_EQ(Start("127.0.0.1:0", address), nullptr) << address;
    EXPECT_EQ(error_.exit_code, ExitCode::kUsage);
  }
  const auto daemon = Start("127.0.0.1:0", "127.0.0.1:0");
  ASSERT_NE(daemon, nullptr) << error_.message;
  v1::GetStatusResponse response;
  EXPECT_TRUE(Ask(absl::StrCat("127.0.0.1:", daemon->tcp_port()), response).ok());
}

TEST_F(DaemonTest, ADamagedStoreIsRefusedWithTheCommandThatRestoresIt) {
  ASSERT_NE(Start(), nullptr) << error_.message;
  std::ofstream(folder_.path() / "state" / "lockstep.db") << "no database";
  EXPECT_EQ(Start(), nullptr);
  EXPECT_EQ(error_.exit_code, ExitCode::kRunFailed);
  EXPECT_NE(error_.message.find("mv '"), std::string::npos) << error_.message;
}

TEST_F(DaemonTest, ItEndsQuicklyWhoeverIsWatching) {
  auto daemon = Start();
  ASSERT_NE(daemon, nullptr) << error_.message;
  auto stub = v1::ControlService::NewStub(
      grpc::CreateChannel("unix:" + daemon->socket(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext submit_context;
  v1::SubmitRunRequest submit;
  submit.set_config_yaml(
      "name: demo\nresources: {ranks: 1}\ndata: {kind: shapes}\n"
      "model: {name: cnn, cnn: {blocks: [{filters: 4}]}}\n"
      "training: {duration: 10st, global_batch_size: 8}\n");
  v1::SubmitRunResponse submitted;
  const grpc::Status status = stub->SubmitRun(&submit_context, submit, &submitted);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_FALSE(submitted.run().submitted_by().empty()) << "from the socket's credentials";
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::WatchRunResponse>>> watchers;
  v1::WatchRunRequest watch;
  watch.set_run(submitted.run().run_id());
  for (int i = 0; i < 200; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    watchers.push_back(stub->WatchRun(contexts.back().get(), watch));
  }
  v1::WatchRunResponse seen;
  for (auto& watcher : watchers) ASSERT_TRUE(watcher->Read(&seen));
  const auto began = std::chrono::steady_clock::now();
  daemon.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(2));
  for (auto& watcher : watchers) {
    while (watcher->Read(&seen)) {
    }
    EXPECT_FALSE(watcher->Finish().ok());
  }
  EXPECT_EQ(launcher_.kills(), 0) << "runs go on";
}

}  // namespace
}  // namespace lockstep::launch
