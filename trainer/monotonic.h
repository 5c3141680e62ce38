// The clock that durations are measured with: never set back, not counting suspension.
#pragma once

namespace lockstep::trainer {

/// CLOCK_MONOTONIC in seconds.
double MonotonicSeconds();
/// CLOCK_MONOTONIC reading at which this process started, from /proc/self/stat.
double ProcessStartSeconds();

}  // namespace lockstep::trainer
