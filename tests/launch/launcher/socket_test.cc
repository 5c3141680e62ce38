#include "launch/launcher/socket.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <thread>

#include "lockstep/v1/control.grpc.pb.h"

namespace lockstep::launch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

// Answers GetStatus with the caller's process id.
class WhoAmI : public v1::ControlService::Service {
  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest*,
                         v1::GetStatusResponse* response) override {
    const std::optional<PeerCredentials> peer = PeerOf(context->peer());
    response->set_version(context->peer());
    if (peer) {
      response->set_pid(peer->pid);
      response->set_slots(static_cast<int>(peer->uid));
      response->set_queued(static_cast<int>(peer->gid));
    }
    return grpc::Status::OK;
  }
};

class SocketTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "socket-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    folder_ = path;
    options_.path = folder_ / "run" / "s";
  }
  void TearDown() override {
    if (listener_) listener_->StopAccepting();
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
    listener_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Serve(int idle_ms = 0) {
    absl::StatusOr<std::unique_ptr<SocketListener>> listener = SocketListener::Open(options_);
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    if (idle_ms > 0) builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, idle_ms);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    listener_->Serve(server_.get());
  }

  std::unique_ptr<v1::ControlService::Stub> Connect() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return v1::ControlService::NewStub(grpc::CreateCustomChannel(
        "unix:" + options_.path.string(), grpc::InsecureChannelCredentials(), arguments));
  }

  static grpc::Status Call(v1::ControlService::Stub& stub, v1::GetStatusResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    return stub.GetStatus(&context, {}, response);
  }
  bool Answers() const {
    v1::GetStatusResponse response;
    return Call(*Connect(), &response).ok();
  }

  sockaddr_un Address() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    options_.path.string().copy(address.sun_path, sizeof(address.sun_path) - 1);
    return address;
  }

  std::filesystem::path folder_;
  SocketOptions options_;
  WhoAmI service_;
  std::unique_ptr<SocketListener> listener_;
  std::unique_ptr<grpc::Server> server_;
};

// A process that connects `count` times, says nothing and keeps the connections until it is
// destroyed. Only plain system calls: it is forked from a program with threads.
class IdleClients {
 public:
  IdleClients(const sockaddr_un& address, int count) {
    int ready[2];
    if (pipe(ready) != 0) abort();
    pid_ = fork();
    if (pid_ == 0) {
      for (int fd = 3; fd < 1024; ++fd) {
        if (fd != ready[1]) close(fd);
      }
      const rlimit many = {4096, 4096};
      setrlimit(RLIMIT_NOFILE, &many);
      for (int i = 0; i < count; ++i) {
        const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
          _exit(2);
      }
      if (write(ready[1], "x", 1) != 1) _exit(3);
      while (true) pause();
    }
    close(ready[1]);
    char byte = 0;
    connected_ = read(ready[0], &byte, 1) == 1;
    close(ready[0]);
  }
  ~IdleClients() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  IdleClients(const IdleClients&) = delete;
  IdleClients& operator=(const IdleClients&) = delete;
  bool connected() const { return connected_; }

 private:
  pid_t pid_ = 0;
  bool connected_ = false;
};

TEST_F(SocketTest, TheCallerIsKnown) {
  Serve();
  v1::GetStatusResponse response;
  ASSERT_TRUE(Call(*Connect(), &response).ok());
  EXPECT_THAT(response.version(), testing::StartsWith("fd:"));
  EXPECT_EQ(response.pid(), getpid());
  EXPECT_EQ(response.slots(), static_cast<int>(geteuid()));
  EXPECT_EQ(response.queued(), static_cast<int>(getegid()));
}

TEST(PeerOfTest, OtherPeersAreUnknown) {
  for (const char* peer :
       {"", "unix:", "ipv4:127.0.0.1:5000", "fd:", "fd:-1", "fd:99999", "fd:x"}) {
    EXPECT_FALSE(PeerOf(peer).has_value()) << peer;
  }
  const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_FALSE(PeerOf("fd:" + std::to_string(file)).has_value());
  close(file);
}

TEST_F(SocketTest, TheSocketIsForItsOwnerOnly) {
  const mode_t before = umask(0);
  Serve();
  umask(before);
  struct stat info {};
  ASSERT_EQ(stat(options_.path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  ASSERT_EQ(stat(options_.path.parent_path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
}

TEST_F(SocketTest, AGroupMayBeLetIn) {
  options_.group = getegid();
  Serve();
  struct stat info {};
  ASSERT_EQ(stat(options_.path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660U);
  EXPECT_EQ(info.st_gid, getegid());
  EXPECT_TRUE(Answers());
}

// True when a process of that user and group is let in and not hung up on.
bool IsAdmitted(const sockaddr_un& address, uid_t uid, gid_t gid) {
  const pid_t pid = fork();
  if (pid == 0) {
    if (setgid(gid) != 0 || setuid(uid) != 0) _exit(3);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) _exit(1);
    // gRPC greets first with its SETTINGS; who is turned away reads the end.
    pollfd waiting = {fd, POLLIN, 0};
    char byte = 0;
    if (poll(&waiting, 1, 10000) != 1) _exit(4);
    _exit(read(fd, &byte, 1) == 1 ? 0 : 2);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) < 3) << status;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_F(SocketTest, OtherUsersAreTurnedAwayEvenWhereTheFileLetsThemIn) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to act as another user";
  options_.group = 4242;
  Serve();
  chmod(folder_.c_str(), 0755);
  chmod(options_.path.parent_path().c_str(), 0755);
  chmod(options_.path.c_str(), 0666);
  EXPECT_TRUE(IsAdmitted(Address(), 0, 0));
  EXPECT_TRUE(IsAdmitted(Address(), 65534, 4242));
  EXPECT_FALSE(IsAdmitted(Address(), 65534, 65534));
  EXPECT_EQ(listener_->turned_away(), 1);
}

TEST_F(SocketTest, ALongPathIsRefusedWithItsLength) {
  options_.path = "/tmp/" + std::string(103, 'x');
  const absl::Status status = SocketListener::Open(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 108 bytes"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("107"));
}

TEST_F(SocketTest, AnOldSocketIsReplacedAndOtherFilesAreNot) {
  Serve();
  absl::StatusOr<std::unique_ptr<SocketListener>> second = SocketListener::Open(options_);
  ASSERT_TRUE(second.ok());
  listener_->StopAccepting();
  listener_.reset();  // Must not remove what is the second one's now.
  EXPECT_TRUE(std::filesystem::is_socket(options_.path));
  second->reset();
  EXPECT_FALSE(std::filesystem::exists(options_.path));
  std::ofstream(options_.path) << "precious";
  EXPECT_EQ(SocketListener::Open(options_).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(std::filesystem::file_size(options_.path), 8U);
}

TEST_F(SocketTest, TwoHundredConnectionsAtOnce) {
  Serve();
  std::vector<std::unique_ptr<v1::ControlService::Stub>> stubs;
  for (int i = 0; i < 200; ++i) {
    stubs.push_back(Connect());
    v1::GetStatusResponse response;
    ASSERT_TRUE(Call(*stubs.back(), &response).ok()) << i;
  }
  EXPECT_EQ(listener_->connections(), 200);
  for (const auto& stub : stubs) {
    v1::GetStatusResponse response;
    EXPECT_TRUE(Call(*stub, &response).ok());
  }
}

TEST_F(SocketTest, BeyondTheLimitCallersAreTurnedAwayAndLaterLetIn) {
  options_.max_connections = 50;
  Serve();
  {
    const IdleClients idle(Address(), 400);
    ASSERT_TRUE(idle.connected());
    ASSERT_TRUE(Eventually([&] { return listener_->turned_away() == 350; }));
    v1::GetStatusResponse response;
    EXPECT_EQ(Call(*Connect(), &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  EXPECT_TRUE(Eventually([&] { return Answers(); }));
}

TEST_F(SocketTest, IdleCallersGiveWayWhereTheServerHangsUpOnThem) {
  options_.max_connections = 20;
  Serve(/*idle_ms=*/300);
  const IdleClients idle(Address(), 20);
  ASSERT_TRUE(idle.connected());
  EXPECT_TRUE(Eventually([&] { return Answers(); }));
}

TEST_F(SocketTest, DescriptorsAreKeptForTheDaemonsOwnWork) {
  Serve();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few = {200, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  {
    const IdleClients idle(Address(), 400);
    ASSERT_TRUE(idle.connected());
    EXPECT_TRUE(Eventually([&] { return listener_->turned_away() == 400 - (200 - 64); }));
    const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    EXPECT_GE(file, 0);
    close(file);
  }
  EXPECT_TRUE(Eventually([&] { return Answers(); }));
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_F(SocketTest, ItServesAgainAfterDescriptorsRanOut) {
  Serve();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few = {200, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const sockaddr_un address = Address();
  std::vector<int> hoard;
  // Connections of earlier calls may still be closing and so give back descriptors that we thought
  // were gone: who is let in all the same joins the hoard, and the next one tries.
  for (int attempt = 0; attempt < 50 && listener_->turned_away() == 0; ++attempt) {
    for (int fd = 0; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) hoard.push_back(fd);
    ASSERT_EQ(errno, EMFILE);
    close(hoard.back());  // For the caller's own end; the listener has none left.
    hoard.pop_back();
    const int caller = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (caller < 0) continue;  // Another thread was faster.
    hoard.push_back(caller);
    ASSERT_EQ(connect(caller, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    // Turned away rather than left waiting, unless this hoarder was quicker than the listener at
    // taking its reserve: then the next one tries.
    const timeval patience = {0, 300000};
    setsockopt(caller, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    char byte = 0;
    [[maybe_unused]] const ssize_t n = read(caller, &byte, 1);
  }
  EXPECT_GT(listener_->turned_away(), 0);
  for (const int fd : hoard) close(fd);
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_TRUE(Eventually([&] { return Answers(); }));
}

}  // namespace
}  // namespace lockstep::launch
