// Comma-separated values, as RFC 4180 has them: fields may stand in double quotes, and then hold
// commas, line ends and doubled quotes; lines end in LF or CRLF; the first line names the columns.
// A byte order mark and empty lines are passed over. Bytes come from anywhere: what they hold never
// crashes, and memory is a small multiple of theirs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::trainer {

struct CsvRecord {
  int64_t line = 0;                 // Where it begins, from 1.
  std::vector<std::string> fields;  // One for each column.
};

struct CsvTable {
  std::vector<std::string> columns;  // Without spaces around them. All different, none empty.
  std::vector<CsvRecord> records;
};

/// Throws DataError naming every fault (the first twenty) as NAME:LINE: quotes out of place, a
/// quote that is never closed, too few or too many fields, columns without a name or of the same
/// name, bytes of no text.
CsvTable ParseCsv(std::string_view text, const std::string& name);

/// Without spaces and tabs on both sides.
std::string_view Trimmed(std::string_view text);

}  // namespace lockstep::trainer
