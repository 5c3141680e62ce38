// The rows of the run store's tables, to and from SQL. Throws SQLite::Exception.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "launch/coordinator/run_store.h"

namespace lockstep::launch {

/// xxh3-64 of the parts and their lengths, as hexadecimal digits.
std::string Checksum(std::initializer_list<const std::string*> parts);
/// All bytes of the column, those behind a NUL too, which blobs have.
std::string Text(const SQLite::Column& column);

/// In the order that ReadRequest() takes them.
inline constexpr const char* kRequestColumns =
    "id, method, digest, run, order_id, done, code, message, step, run_bytes, checkpoint_bytes";
StoredRequest ReadRequest(SQLite::Statement& row);
/// A row of the two below.
StoredLine ReadLine(SQLite::Statement& row);
/// SQL: the lines of day `:day` (its first second) that ended after `:since`, summed up; of all
/// runs, or of `:run`.
std::string SumLinesOfDay(bool of_one_run);
/// SQL: the sums of the days after `:day`. Likewise.
std::string SumDaysAfter(bool of_one_run);

void PutRuns(SQLite::Database& db, const std::vector<StoredRun>& runs);
/// Keeps the newest 100,000.
void PutTransitions(SQLite::Database& db, const std::vector<StoredTransition>& transitions);
/// Keeps the newest 10,000.
void PutRequests(SQLite::Database& db, const std::vector<StoredRequest>& requests);
void PutLines(SQLite::Database& db, const std::vector<StoredLine>& lines);

}  // namespace lockstep::launch
