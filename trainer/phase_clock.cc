#include "trainer/phase_clock.h"

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

PhaseClock::PhaseClock(config::RankBoard* board, int rank, Trace* trace)
    : board_(board), rank_(rank), trace_(trace), entered_(ProcessStartSeconds()) {
  if (board_ != nullptr) board_->Set(rank_, step_, phase_);
}

void PhaseClock::Enter(config::Phase phase) {
  const double now = MonotonicSeconds();
  if (trace_ != nullptr) trace_->Phase(config::PhaseName(phase_), entered_, now);
  seconds_[static_cast<size_t>(phase_)] += now - entered_;
  entered_ = now;
  phase_ = phase;
  if (board_ != nullptr) board_->Set(rank_, step_, phase);
}

void PhaseClock::SetStep(int64_t step) {
  step_ = step;
  if (trace_ == nullptr) return;
  const double now = MonotonicSeconds();
  trace_->Phase(config::PhaseName(phase_), entered_, now);
  trace_->AtStep(step, now);
}

std::array<double, config::kPhaseCount> PhaseClock::Seconds() const {
  auto seconds = seconds_;
  seconds[static_cast<size_t>(phase_)] += MonotonicSeconds() - entered_;
  return seconds;
}

double PhaseClock::WallSeconds() const {
  double sum = 0;
  for (const double s : Seconds()) sum += s;
  return sum;
}

}  // namespace lockstep::trainer
