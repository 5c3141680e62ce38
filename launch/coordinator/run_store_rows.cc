#include "launch/coordinator/run_store_rows.h"

#include <xxhash.h>

#include "absl/strings/str_cat.h"

namespace lockstep::launch {
namespace {

constexpr int64_t kMaxTransitions = 100'000;
constexpr int64_t kMaxRequests = 10'000;

void BindBlob(SQLite::Statement& statement, int index, const std::string& bytes) {
  statement.bind(index, static_cast<const void*>(bytes.data()), static_cast<int>(bytes.size()));
}

}  // namespace

std::string Checksum(std::initializer_list<const std::string*> parts) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_64bits_reset(state);
  for (const std::string* part : parts) {
    const uint64_t size = part->size();
    XXH3_64bits_update(state, &size, sizeof(size));
    XXH3_64bits_update(state, part->data(), part->size());
  }
  const uint64_t digest = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  return absl::StrCat(absl::Hex(digest, absl::kZeroPad16));
}

std::string Text(const SQLite::Column& column) {
  // getString() keeps bytes behind a NUL, which blobs have.
  return column.getString();
}

StoredRequest ReadRequest(SQLite::Statement& row) {
  StoredRequest request;
  int i = 0;
  request.id = Text(row.getColumn(i++));
  request.method = Text(row.getColumn(i++));
  request.digest = Text(row.getColumn(i++));
  request.run = Text(row.getColumn(i++));
  request.order_id = Text(row.getColumn(i++));
  request.done = row.getColumn(i++).getInt() != 0;
  request.code = row.getColumn(i++).getInt();
  request.message = Text(row.getColumn(i++));
  request.step = row.getColumn(i++).getInt64();
  request.run_bytes = Text(row.getColumn(i++));
  request.checkpoint_bytes = Text(row.getColumn(i++));
  return request;
}

StoredLine ReadLine(SQLite::Statement& row) {
  StoredLine sum;
  metrics::LedgerLine& line = sum.line;
  int i = 0;
  sum.run = Text(row.getColumn(i++));
  line.rank = row.getColumn(i++).getInt();
  line.phase = config::ParsePhase(Text(row.getColumn(i++)));
  line.held = row.getColumn(i++).getInt() != 0;
  line.from_unix = line.to_unix = row.getColumn(i++).getDouble();
  line.microseconds = row.getColumn(i++).getInt64();
  line.microjoules = row.getColumn(i++).getInt64();
  line.estimated = row.getColumn(i++).getInt() != 0;
  line.bytes = row.getColumn(i++).getInt64();
  line.money.hardware = row.getColumn(i++).getInt64();
  line.money.energy = row.getColumn(i++).getInt64();
  line.money.transfer = row.getColumn(i++).getInt64();
  return sum;
}

std::string SumLinesOfDay(bool of_one_run) {
  // The bounds are for the index; a second more, because a moment that is one rounding before
  // midnight may divide to the day after.
  return absl::StrCat(
      "SELECT run, rank, phase, held, CAST(to_unix / 86400 AS INTEGER) * 86400 AS day, "
      "SUM(microseconds), SUM(microjoules), MAX(estimated), SUM(bytes), SUM(hardware_micros), "
      "SUM(energy_micros), SUM(transfer_micros) FROM ledger INDEXED BY ledger_by_end "
      "WHERE to_unix > :since AND to_unix < :day + 86401 "
      "AND CAST(to_unix / 86400 AS INTEGER) * 86400 = :day ",
      of_one_run ? "AND run = :run " : "", "GROUP BY run, rank, phase, held");
}

std::string SumDaysAfter(bool of_one_run) {
  return absl::StrCat(
      "SELECT run, rank, phase, held, day, microseconds, microjoules, estimated, bytes, "
      "hardware_micros, energy_micros, transfer_micros FROM ledger_days WHERE day > :day ",
      of_one_run ? "AND run = :run " : "");
}

void PutRuns(SQLite::Database& db, const std::vector<StoredRun>& runs) {
  SQLite::Statement put(db,
                        "INSERT INTO runs VALUES(?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET "
                        "state=excluded.state, record=excluded.record, progress=excluded.progress, "
                        "totals=excluded.totals, checksum=excluded.checksum");
  for (const StoredRun& stored : runs) {
    const Run& run = stored.run;
    const std::string record = ToJson(run);
    put.reset();
    put.bind(1, run.spec.id);
    put.bind(2, StateName(run.state));
    put.bind(3, record);
    put.bind(4, run.spec.config_yaml);
    BindBlob(put, 5, stored.progress);
    BindBlob(put, 6, stored.totals);
    put.bind(7, Checksum({&run.spec.id, &record, &run.spec.config_yaml, &stored.progress,
                          &stored.totals}));
    put.exec();
  }
}

void PutTransitions(SQLite::Database& db, const std::vector<StoredTransition>& transitions) {
  if (transitions.empty()) return;
  SQLite::Statement put(
      db, "INSERT INTO transitions(run, from_state, to_state, reason, at_unix) VALUES(?,?,?,?,?)");
  for (const StoredTransition& transition : transitions) {
    put.reset();
    put.bind(1, transition.run);
    put.bind(2, StateName(transition.from));
    put.bind(3, StateName(transition.to));
    put.bind(4, transition.reason);
    put.bind(5, transition.at_unix);
    put.exec();
  }
  db.exec(absl::StrCat("DELETE FROM transitions WHERE number <= ",
                       db.getLastInsertRowid() - kMaxTransitions));
}

void PutRequests(SQLite::Database& db, const std::vector<StoredRequest>& requests) {
  if (requests.empty()) return;
  SQLite::Statement put(
      db, absl::StrCat("INSERT INTO requests(", kRequestColumns,
                       ") VALUES(?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET "
                       "done=excluded.done, code=excluded.code, message=excluded.message, "
                       "step=excluded.step, run_bytes=excluded.run_bytes, "
                       "checkpoint_bytes=excluded.checkpoint_bytes"));
  for (const StoredRequest& request : requests) {
    put.reset();
    int i = 1;
    put.bind(i++, request.id);
    put.bind(i++, request.method);
    put.bind(i++, request.digest);
    put.bind(i++, request.run);
    put.bind(i++, request.order_id);
    put.bind(i++, request.done ? 1 : 0);
    put.bind(i++, request.code);
    put.bind(i++, request.message);
    put.bind(i++, request.step);
    BindBlob(put, i++, request.run_bytes);
    BindBlob(put, i++, request.checkpoint_bytes);
    put.exec();
  }
  db.exec(absl::StrCat("DELETE FROM requests WHERE number <= (SELECT MAX(number) FROM requests) - ",
                       kMaxRequests));
}

void PutLines(SQLite::Database& db, const std::vector<StoredLine>& lines) {
  if (lines.empty()) return;
  SQLite::Statement put(db,
                        "INSERT INTO ledger(run, attempt, rank, phase, held, from_unix, to_unix, "
                        "microseconds, microjoules, estimated, bytes, hardware_micros, "
                        "energy_micros, transfer_micros) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  for (const auto& [run, line] : lines) {
    put.reset();
    int i = 1;
    put.bind(i++, run);
    put.bind(i++, line.attempt);
    put.bind(i++, line.rank);
    put.bind(i++, config::PhaseName(line.phase));
    put.bind(i++, line.held ? 1 : 0);
    put.bind(i++, line.from_unix);
    put.bind(i++, line.to_unix);
    put.bind(i++, line.microseconds);
    put.bind(i++, line.microjoules);
    put.bind(i++, line.estimated ? 1 : 0);
    put.bind(i++, line.bytes);
    put.bind(i++, line.money.hardware);
    put.bind(i++, line.money.energy);
    put.bind(i++, line.money.transfer);
    put.exec();
  }
}

}  // namespace lockstep::launch
