// The page of `lockstep top`: runs, GPUs, money. Pure: data and a size in, lines out.
#pragma once

#include <string>
#include <vector>

#include "launch/cli/run_json.h"
#include "lockstep/v1/control.pb.h"

namespace lockstep::cli {

struct TopData {
  v1::GetStatusResponse status;
  std::vector<v1::Run> runs;  // Live ones first, then the newest that ended.
  double unix_seconds = 0;    // When it was asked for.
  double lost_seconds = 0;    // Since when the coordinator has not answered; 0 = it did.
};

struct TopStyle {
  int columns = 80;
  int rows = 24;  // 0 = as many as there are.
  bool color = false;
};

/// At most `rows` lines, none wider than `columns`. Columns of tables that matter least go first
/// when there is no room, and ended runs before live ones.
std::vector<std::string> TopPage(const TopData& data, const TopStyle& style);

Json TopJson(const TopData& data);

}  // namespace lockstep::cli
