#include "tests/launch/cli/process.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <spawn.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>

namespace lockstep::cli {
namespace {

void MakePipe(int fds[2]) {
  if (pipe2(fds, O_CLOEXEC) != 0) abort();
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const Options& options) {
  int in[2];
  int out[2];
  int err[2] = {-1, -1};
  MakePipe(in);
  if (options.terminal) {
    winsize size{};
    size.ws_col = 100;
    size.ws_row = 30;
    if (openpty(&out[0], &out[1], nullptr, nullptr, &size) != 0) abort();
    fcntl(out[0], F_SETFD, FD_CLOEXEC);
    terminal_ = fcntl(out[0], F_DUPFD_CLOEXEC, 0);
    fcntl(out[1], F_SETFD, FD_CLOEXEC);
  } else {
    MakePipe(out);
    MakePipe(err);
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, options.keyboard ? out[1] : in[0], 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, options.terminal ? out[1] : err[1], 2);
  if (!options.folder.empty()) {
    posix_spawn_file_actions_addchdir_np(&actions, options.folder.c_str());
  }
  std::map<std::string, std::string> environment = {{"PATH", getenv("PATH")}, {"HOME", "/tmp"}};
  for (const auto& [key, value] : options.environment) environment[key] = value;
  std::vector<std::string> pairs;
  for (const auto& [key, value] : environment) pairs.push_back(key + "=" + value);
  std::vector<char*> envp;
  for (std::string& pair : pairs) envp.push_back(pair.data());
  envp.push_back(nullptr);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  if (posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), envp.data()) != 0) abort();
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  if (!options.input.empty() && write(in[1], options.input.data(), options.input.size()) < 0) {
    abort();
  }
  close(in[1]);
  for (auto [stream, fd] : {std::pair{&out_, out[0]}, std::pair{&err_, err[0]}}) {
    if (fd < 0) {
      stream->ended = true;
      continue;
    }
    int wake[2];
    MakePipe(wake);
    stream->fd = fd;
    stream->wake = wake[1];
    stream->reader = std::thread([this, stream, wake_read = wake[0]] { Read(*stream, wake_read); });
  }
  if (err[1] >= 0) close(err[1]);
}

void Process::Type(const std::string& keys) {
  if (write(terminal_, keys.data(), keys.size()) != static_cast<ssize_t>(keys.size())) abort();
}

unsigned Process::TerminalModes() {
  termios modes{};
  if (tcgetattr(terminal_, &modes) != 0) abort();
  return modes.c_lflag;
}

Process::~Process() {
  if (!waited_) {
    kill(pid_, SIGKILL);
    Wait();
  }
  StopReading(out_);
  StopReading(err_);
  if (terminal_ >= 0) close(terminal_);
}

void Process::Read(Stream& stream, int wake_read) {
  while (true) {
    pollfd fds[] = {{stream.fd, POLLIN, 0}, {wake_read, 0, 0}};
    poll(fds, 2, -1);
    if ((fds[1].revents & POLLHUP) != 0) break;
    char buffer[4096];
    const ssize_t count = read(stream.fd, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    std::lock_guard lock(mutex_);
    stream.text.append(buffer, static_cast<size_t>(count));
    changed_.notify_all();
  }
  close(stream.fd);
  close(wake_read);
  std::lock_guard lock(mutex_);
  stream.ended = true;
  changed_.notify_all();
}

bool Process::Await(Stream& stream, const std::string& text) {
  std::unique_lock lock(mutex_);
  const auto there = [&] { return stream.text.find(text) != std::string::npos; };
  changed_.wait_for(lock, std::chrono::seconds(20), [&] { return there() || stream.ended; });
  return there();
}

bool Process::AwaitOut(const std::string& text) {
  return Await(out_, text);
}
bool Process::AwaitErr(const std::string& text) {
  return Await(err_, text);
}
void Process::Signal(int number) {
  kill(pid_, number);
}

void Process::StopReading(Stream& stream) {
  if (stream.wake >= 0) close(stream.wake);
  stream.wake = -1;
  if (stream.reader.joinable()) stream.reader.join();
}

void Process::CloseOut() {
  StopReading(out_);
}

int Process::Wait() {
  if (waited_) return code_;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  int status = 0;
  bool killed = false;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (!killed && std::chrono::steady_clock::now() > deadline) {
      kill(pid_, SIGKILL);
      killed = true;
    }
    usleep(1000);
  }
  waited_ = true;
  code_ = killed ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  // What it wrote last may still be on its way; a detached child may hold the pipe, so no longer
  // than a second.
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::seconds(1), [&] { return out_.ended && err_.ended; });
  return code_;
}

std::string Process::out() {
  std::lock_guard lock(mutex_);
  return out_.text;
}

std::string Process::err() {
  std::lock_guard lock(mutex_);
  return err_.text;
}

Result RunToEnd(const std::vector<std::string>& arguments, const Process::Options& options) {
  const auto start = std::chrono::steady_clock::now();
  Process process(arguments, options);
  Result result;
  result.code = process.Wait();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.out = process.out();
  result.err = process.err();
  return result;
}

}  // namespace lockstep::cli
