#include "metrics/devices/xid.h"

namespace lockstep::metrics {

const char* FatalXid(int xid) {
  switch (xid) {
    case 46:
      return "it has stopped processing";
    case 48:
      return "a memory error that ECC could not correct";
    case 62:
      return "its internal micro-controller has halted";
    case 64:
      return "a bad row of its memory could not be remapped";
    case 74:
      return "an NVLink error";
    case 79:
      return "it has fallen off the bus";
    case 95:
      return "an uncontained memory error";
    case 110:
      return "a security fault";
    case 119:
      return "its system processor (GSP) does not answer";
    case 120:
      return "an error of its system processor (GSP)";
    case 136:
      return "its NVLink could not be trained";
    case 140:
      return "an unrecovered memory error";
    case 143:
      return "it could not be initialized";
    case 158:
      return "a fatal timeout";
    default:
      return nullptr;
  }
}

}  // namespace lockstep::metrics
