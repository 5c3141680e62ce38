#include "trainer/monotonic.h"

#include <time.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

namespace lockstep::trainer {

namespace {

double ClockSeconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

double MonotonicSeconds() {
  return ClockSeconds(CLOCK_MONOTONIC);
}

double ProcessStartSeconds() {
  // Field 22, in clock ticks since boot; the command name in field 2 may hold spaces, so count from
  // its closing parenthesis.
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return MonotonicSeconds();
  std::istringstream fields(line.substr(name_end + 1));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  const double since_boot = std::stod(field) / static_cast<double>(sysconf(_SC_CLK_TCK));
  // The start time is on the boot clock; MONOTONIC leaves out the time the machine was suspended.
  const double age = ClockSeconds(CLOCK_BOOTTIME) - since_boot;
  return MonotonicSeconds() - (age > 0 ? age : 0);
}

}  // namespace lockstep::trainer
