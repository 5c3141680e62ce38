// The program `lockstep`: what a person types to hand the coordinator runs, to watch and steer
// them.
//
// Each verb lives in a file of its kind and registers itself with its options; this is where they
// come together. Verbs return the program's exit code (config/exit_code.h).
#pragma once

namespace lockstep::cli {

/// Parses the arguments, carries out one verb and returns the exit code.
int Main(int argc, char** argv);

}  // namespace lockstep::cli
