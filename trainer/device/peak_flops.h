// What a GPU could compute at best, to say how much of it a run uses.
#pragma once

#include <string>

#include "config/run_config.h"

namespace lockstep::trainer {

/// Floating-point operations per second of dense products, as the maker's data sheet states them
/// (tensor cores without sparsity; fp16 with fp32 sums). `device` is the GPU's name, also with
/// words around it. 0 where it is not known: other GPUs, slices of one (MIG), and every CPU.
double PeakFlops(const std::string& device, config::Precision precision, bool tf32);

}  // namespace lockstep::trainer
