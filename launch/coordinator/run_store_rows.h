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
/// A row of kSumLines.
StoredLine ReadLine(SQLite::Statement& row);
/// The ledger summed up; parameters: run (empty = all), Unix time that lines ended after.
inline constexpr const char* kSumLines =
    "SELECT run, rank, phase, held, CAST(to_unix / 86400 AS INTEGER) * 86400 AS day, "
    "SUM(microseconds), SUM(microjoules), MAX(estimated), SUM(bytes), SUM(hardware_micros), "
    "SUM(energy_micros), SUM(transfer_micros) FROM ledger "
    "WHERE (?1 = '' OR run = ?1) AND to_unix > ?2 GROUP BY run, rank, phase, held, day";

void PutRuns(SQLite::Database& db, const std::vector<StoredRun>& runs);
/// Keeps the newest 100,000.
void PutTransitions(SQLite::Database& db, const std::vector<StoredTransition>& transitions);
/// Keeps the newest 10,000.
void PutRequests(SQLite::Database& db, const std::vector<StoredRequest>& requests);
void PutLines(SQLite::Database& db, const std::vector<StoredLine>& lines);

}  // namespace lockstep::launch
