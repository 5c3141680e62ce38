// The parts of run.yaml's table that have a file of their own.
#pragma once

#include <string>
#include <vector>

#include "config/field.h"
#include "config/run_config.h"

namespace lockstep::config {

Fields<DataConfig> DataTable();    // data_table.cc
Fields<ModelConfig> ModelTable();  // model_table.cc

inline const std::vector<std::string> kUseWords = {"auto", "always", "never"};  // As enum Use.

}  // namespace lockstep::config
