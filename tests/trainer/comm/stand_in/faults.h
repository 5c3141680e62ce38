// What the stand-in can be told to do wrong, through its exported function StandInSetFaults().
#pragma once

namespace lockstep::trainer {

struct StandInFaults {
  bool id_fails = false;
  bool connecting_fails = false;
  bool connecting_never_ends = false;
  long broken_collective = 0;  // From this one on, every rank gets ncclRemoteError; 0 = none.
  bool abort_hangs = false;
};

using SetFaults = void (*)(const StandInFaults&);

}  // namespace lockstep::trainer
