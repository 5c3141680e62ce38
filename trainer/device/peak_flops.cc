#include "trainer/device/peak_flops.h"

namespace lockstep::trainer {
namespace {

constexpr double kTera = 1e12;

struct Peak {
  const char* name;  // A part of the name that the driver gives; the first row that fits counts.
  double half;       // bf16 and fp16, in 1e12 operations a second.
  double tf32;
  double fp32;
};

// NVIDIA's data sheets: H200, H100, A100, L40S, L4, A10, V100 and T4 Tensor Core GPU; the Ada and
// Ampere GPU architecture white papers for the GeForce cards. Whatever shares a name and not the
// chip stands before it, without figures where there are none.
constexpr Peak kPeaks[] = {
    {"H200 NVL", 835.5, 417.5, 60},  {"H200", 989.4, 494.7, 66.9},
    {"H100 NVL", 835.5, 417.5, 60},  {"H100 PCIe", 756.5, 378.3, 51.2},
    {"H100", 989.4, 494.7, 66.9},    {"A100", 312, 156, 19.5},
    {"L40S", 362.1, 183, 91.6},      {"L4", 121, 60, 30.3},
    {"A10", 125, 62.5, 31.2},        {"V100-PCIE", 112, 14, 14},
    {"V100", 125, 15.7, 15.7},       {"T4", 65, 8.1, 8.1},
    {"RTX 4090 Laptop", 0, 0, 0},    {"RTX 4090 D", 0, 0, 0},
    {"RTX 4090", 165.2, 82.6, 82.6}, {"RTX 3090 Ti", 80, 40, 40},
    {"RTX 3090", 71, 35.6, 35.6},
};

}  // namespace

double PeakFlops(const std::string& device, config::Precision precision, bool tf32) {
  // "NVIDIA H100 80GB HBM3 MIG 1g.10gb": a slice of that GPU.
  if (device.find(" MIG ") != std::string::npos) return 0;
  for (const Peak& peak : kPeaks) {
    // A name goes on with a blank or a hyphen, or ends: "L4" is no "L40".
    const size_t at = device.find(peak.name);
    if (at == std::string::npos) continue;
    const size_t end = at + std::string(peak.name).size();
    if (end < device.size() && device[end] != ' ' && device[end] != '-' && device[end] != ',') {
      continue;
    }
    if (precision != config::Precision::kFp32) return kTera * peak.half;
    return kTera * (tf32 ? peak.tf32 : peak.fp32);
  }
  return 0;
}

}  // namespace lockstep::trainer
