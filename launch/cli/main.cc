#include "launch/cli/lockstep.h"

int main(int argc, char** argv) {
  return lockstep::cli::Main(argc, argv);
}
