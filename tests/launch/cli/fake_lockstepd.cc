// What `lockstep daemon start` starts in the tests: says its arguments, then serves on the socket
// that it was told, until Shutdown or SIGTERM. `--set slots=13` makes it fail instead.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "tests/launch/cli/fake_coordinator.h"

int main(int argc, char** argv) {
  std::string socket;
  std::string state_dir;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    printf("argument %s\n", argv[i]);
    if (argument.starts_with("socket=")) socket = argument.substr(7);
    if (argument.starts_with("state_dir=")) state_dir = argument.substr(10);
    if (argument == "slots=13") {
      fprintf(stderr, "lockstepd: slots: 13 is too many for this test\n");
      return 4;
    }
  }
  fflush(stdout);
  if (socket.empty()) socket = state_dir + "/lockstepd.sock";
  // Another session than its starter's, or it would die with the terminal.
  printf("session leader: %s\n", getsid(0) == getpid() ? "yes" : "no");
  fflush(stdout);
  lockstep::cli::FakeCoordinator coordinator(socket);
  coordinator.Start();
  // A test that dies must not leave this behind.
  for (int i = 0; i < 6000 && !coordinator.shutdown_asked(); ++i) usleep(10000);
  coordinator.Stop();
  unlink(socket.c_str());
  return 0;
}
