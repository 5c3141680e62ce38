#include "launch/coordinator/run_store.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>

#include <algorithm>
#include <cmath>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "launch/coordinator/run_store_rows.h"

namespace lockstep::launch {
namespace {

namespace fs = std::filesystem;

constexpr double kSecondsPerDay = 86400;

constexpr const char* kSchema = R"sql(
CREATE TABLE runs(
  id TEXT PRIMARY KEY, state TEXT NOT NULL, record TEXT NOT NULL, config_yaml TEXT NOT NULL,
  progress BLOB NOT NULL, totals BLOB NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE transitions(
  number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, from_state TEXT NOT NULL,
  to_state TEXT NOT NULL, reason TEXT NOT NULL, at_unix REAL NOT NULL);
CREATE TABLE requests(
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, method TEXT NOT NULL,
  digest TEXT NOT NULL, run TEXT NOT NULL, order_id TEXT NOT NULL, done INTEGER NOT NULL,
  code INTEGER NOT NULL, message TEXT NOT NULL, step INTEGER NOT NULL, run_bytes BLOB NOT NULL,
  checkpoint_bytes BLOB NOT NULL);
CREATE INDEX requests_by_order ON requests(order_id) WHERE order_id != '';
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
)sql";

// Since schema 2.
constexpr const char* kLedgerSchema = R"sql(
CREATE TABLE ledger(
  number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, attempt INTEGER NOT NULL,
  rank INTEGER NOT NULL, phase TEXT NOT NULL, held INTEGER NOT NULL, from_unix REAL NOT NULL,
  to_unix REAL NOT NULL, microseconds INTEGER NOT NULL, microjoules INTEGER NOT NULL,
  estimated INTEGER NOT NULL, bytes INTEGER NOT NULL, hardware_micros INTEGER NOT NULL,
  energy_micros INTEGER NOT NULL, transfer_micros INTEGER NOT NULL);
CREATE TRIGGER ledger_keeps_its_lines BEFORE UPDATE ON ledger
  BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ledger_loses_no_line BEFORE DELETE ON ledger
  BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
)sql";

// Since schema 3, which also takes what is in the ledger already. The sums are of integers: exact.
constexpr const char* kLedgerDaysSchema = R"sql(
DROP INDEX IF EXISTS ledger_by_run;
CREATE INDEX ledger_by_end ON ledger(to_unix);
CREATE TABLE ledger_days(
  run TEXT NOT NULL, rank INTEGER NOT NULL, phase TEXT NOT NULL, held INTEGER NOT NULL,
  day INTEGER NOT NULL, microseconds INTEGER NOT NULL, microjoules INTEGER NOT NULL,
  estimated INTEGER NOT NULL, bytes INTEGER NOT NULL, hardware_micros INTEGER NOT NULL,
  energy_micros INTEGER NOT NULL, transfer_micros INTEGER NOT NULL,
  PRIMARY KEY(run, rank, phase, held, day)) WITHOUT ROWID;
CREATE INDEX ledger_days_by_day ON ledger_days(day);
INSERT INTO ledger_days
  SELECT run, rank, phase, held, CAST(to_unix / 86400 AS INTEGER) * 86400 AS day,
    SUM(microseconds), SUM(microjoules), MAX(estimated), SUM(bytes), SUM(hardware_micros),
    SUM(energy_micros), SUM(transfer_micros)
  FROM ledger GROUP BY run, rank, phase, held, day;
CREATE TRIGGER ledger_is_summed_up AFTER INSERT ON ledger BEGIN
  INSERT INTO ledger_days VALUES(
    new.run, new.rank, new.phase, new.held, CAST(new.to_unix / 86400 AS INTEGER) * 86400,
    new.microseconds, new.microjoules, new.estimated, new.bytes, new.hardware_micros,
    new.energy_micros, new.transfer_micros)
  ON CONFLICT(run, rank, phase, held, day) DO UPDATE SET
    microseconds = microseconds + excluded.microseconds,
    microjoules = microjoules + excluded.microjoules,
    estimated = MAX(estimated, excluded.estimated), bytes = bytes + excluded.bytes,
    hardware_micros = hardware_micros + excluded.hardware_micros,
    energy_micros = energy_micros + excluded.energy_micros,
    transfer_micros = transfer_micros + excluded.transfer_micros;
END;
CREATE TRIGGER ledger_days_lose_none BEFORE DELETE ON ledger_days
  BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
)sql";

std::vector<fs::path> Backups(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".db") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());  // The names carry the date.
  return found;
}

std::string HowToRestore(const fs::path& file, const fs::path& backup_dir) {
  const std::vector<fs::path> backups = Backups(backup_dir);
  const std::string aside = absl::StrCat("mv '", file.string(), "' '", file.string(),
                                         ".damaged' && rm -f '", file.string(), "-wal'");
  if (backups.empty()) {
    return absl::StrCat("there is no backup yet; to start with an empty list of runs: ", aside);
  }
  return absl::StrCat("restore the newest backup with: ", aside, " && cp '",
                      backups.back().string(), "' '", file.string(), "'");
}

absl::Status FromException(const SQLite::Exception& error, const std::string& doing) {
  const std::string text = absl::StrCat(doing, ": ", error.what());
  switch (error.getErrorCode()) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(text);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(text);
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(text);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
      return absl::PermissionDeniedError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace

struct RunStore::Impl {
  Impl(const fs::path& file, fs::path backups)
      : database(file.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE),
        backup_dir(std::move(backups)) {}

  void Configure() {
    // The lock before the journal mode: then no shared-memory file is made.
    database.exec("PRAGMA locking_mode=EXCLUSIVE");
    database.exec("PRAGMA journal_mode=WAL");
    database.exec("PRAGMA synchronous=FULL");
    database.exec("PRAGMA journal_size_limit=8388608");
  }

  SQLite::Database database;
  fs::path backup_dir;
};

RunStore::RunStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RunStore::~RunStore() = default;

absl::StatusOr<std::unique_ptr<RunStore>> RunStore::Open(const fs::path& file,
                                                         const fs::path& backup_dir) {
  const std::string doing = absl::StrCat("run store ", file.string());
  try {
    auto impl = std::make_unique<Impl>(file, backup_dir);
    std::error_code ignored;
    fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write, ignored);
    SQLite::Database& db = impl->database;
    const int version = db.execAndGet("PRAGMA user_version").getInt();
    if (version > kStoreVersion) {
      return absl::FailedPreconditionError(absl::StrCat(
          doing, " was written by a newer lockstepd (schema ", version, ", this one knows ",
          kStoreVersion, "); start the newer one, or use another state_dir; ",
          HowToRestore(file, backup_dir)));
    }
    impl->Configure();
    if (version > 0) {
      const std::string check = Text(db.execAndGet("PRAGMA integrity_check(1)"));
      if (check != "ok") {
        return absl::DataLossError(
            absl::StrCat(doing, " is damaged: ", check, "; ", HowToRestore(file, backup_dir)));
      }
    }
    if (version < kStoreVersion) {
      SQLite::Transaction transaction(db);
      if (version < 1) db.exec(kSchema);
      if (version < 2) db.exec(kLedgerSchema);
      if (version < 3) db.exec(kLedgerDaysSchema);
      db.exec(absl::StrCat("PRAGMA user_version=", kStoreVersion));
      transaction.commit();
    }
    return std::unique_ptr<RunStore>(new RunStore(std::move(impl)));
  } catch (const SQLite::Exception& error) {
    absl::Status status = FromException(error, doing);
    if (absl::IsDataLoss(status)) {
      return absl::DataLossError(
          absl::StrCat(status.message(), "; ", HowToRestore(file, backup_dir)));
    }
    return status;
  }
}

absl::StatusOr<std::vector<StoredRun>> RunStore::LoadRuns(const Clocks& now) {
  SQLite::Database& db = impl_->database;
  std::string id;
  try {
    double shift = 0;
    SQLite::Statement meta(db, "SELECT value FROM meta WHERE key = ?");
    const auto read = [&](const char* key) -> std::optional<std::string> {
      meta.reset();
      meta.bind(1, key);
      if (!meta.executeStep()) return std::nullopt;
      return Text(meta.getColumn(0));
    };
    const std::optional<std::string> boot = read("boot_id");
    if (boot && *boot != now.boot_id) {
      // Another boot: only the calendar says how long it was, and that never less than nothing.
      const double away = std::max(0.0, now.unix - std::stod(read("unix").value_or("0")));
      shift = now.monotonic - away - std::stod(read("monotonic").value_or("0"));
    }
    std::vector<StoredRun> runs;
    SQLite::Statement row(
        db, "SELECT id, record, config_yaml, progress, totals, checksum FROM runs ORDER BY id");
    while (row.executeStep()) {
      id = Text(row.getColumn(0));
      const std::string record = Text(row.getColumn(1));
      const std::string config_yaml = Text(row.getColumn(2));
      StoredRun stored;
      stored.progress = Text(row.getColumn(3));
      stored.totals = Text(row.getColumn(4));
      if (Text(row.getColumn(5)) !=
          Checksum({&id, &record, &config_yaml, &stored.progress, &stored.totals})) {
        return absl::DataLossError(absl::StrCat("run store ", db.getFilename(),
                                                " is damaged: checksum of run ", id, "; ",
                                                HowToRestore(db.getFilename(), impl_->backup_dir)));
      }
      stored.run = RunFromJson(record, shift);
      stored.run.spec.config_yaml = config_yaml;
      runs.push_back(std::move(stored));
    }
    return runs;
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat("run store ", db.getFilename(), ": run ", id, ": ",
                                            error.what(), "; ",
                                            HowToRestore(db.getFilename(), impl_->backup_dir)));
  }
}

absl::StatusOr<std::map<std::pair<RunState, RunState>, int64_t>> RunStore::CountTransitions() {
  try {
    std::map<std::pair<RunState, RunState>, int64_t> counts;
    SQLite::Statement row(impl_->database,
                          "SELECT from_state, to_state, COUNT(*) FROM transitions GROUP BY 1, 2");
    while (row.executeStep()) {
      const auto from = ParseState(Text(row.getColumn(0)));
      const auto to = ParseState(Text(row.getColumn(1)));
      if (from && to) counts[{*from, *to}] = row.getColumn(2).getInt64();
    }
    return counts;
  } catch (const SQLite::Exception& error) {
    return FromException(error, "run store: counting transitions");
  }
}

absl::StatusOr<std::optional<StoredRequest>> RunStore::FindRequest(const std::string& id) {
  try {
    SQLite::Statement row(impl_->database,
                          absl::StrCat("SELECT ", kRequestColumns, " FROM requests WHERE id = ?"));
    row.bind(1, id);
    if (!row.executeStep()) return std::optional<StoredRequest>();
    return std::optional<StoredRequest>(ReadRequest(row));
  } catch (const SQLite::Exception& error) {
    return FromException(error, "run store: looking up a request");
  }
}

absl::StatusOr<std::vector<StoredRequest>> RunStore::FindRequestsOfOrder(
    const std::string& order_id) {
  try {
    std::vector<StoredRequest> found;
    SQLite::Statement row(
        impl_->database,
        absl::StrCat("SELECT ", kRequestColumns,
                     " FROM requests WHERE order_id = ? AND order_id != '' AND done = 0"));
    row.bind(1, order_id);
    while (row.executeStep()) found.push_back(ReadRequest(row));
    return found;
  } catch (const SQLite::Exception& error) {
    return FromException(error, "run store: looking up requests");
  }
}

absl::Status RunStore::UseCurrency(const std::string& currency, bool may_change) {
  try {
    SQLite::Database& db = impl_->database;
    SQLite::Statement put(db, absl::StrCat("INSERT OR ", may_change ? "REPLACE" : "IGNORE",
                                           " INTO meta VALUES('currency', ?)"));
    put.bind(1, currency);
    put.exec();
    const std::string used = Text(db.execAndGet("SELECT value FROM meta WHERE key = 'currency'"));
    if (used == currency) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("price.currency is ", currency, ", but the ledger in ", db.getFilename(),
                     " is in ", used, ", and sums of two currencies mean nothing; keep ", used,
                     ", or start with another state_dir"));
  } catch (const SQLite::Exception& error) {
    return FromException(error, "run store: reading the currency");
  }
}

absl::StatusOr<std::vector<StoredLine>> RunStore::SumLines(const std::string& run,
                                                           double since_unix) {
  // The first day is there in part; of those after it the sums are known.
  const double first_day = std::trunc(since_unix / kSecondsPerDay) * kSecondsPerDay;
  try {
    std::vector<StoredLine> sums;
    SQLite::Statement lines(impl_->database, SumLinesOfDay(!run.empty()));
    lines.bind(":since", since_unix);
    lines.bind(":day", first_day);
    SQLite::Statement days(impl_->database, SumDaysAfter(!run.empty()));
    days.bind(":day", first_day);
    for (SQLite::Statement* row : {&lines, &days}) {
      if (!run.empty()) row->bind(":run", run);
      while (row->executeStep()) sums.push_back(ReadLine(*row));
    }
    return sums;
  } catch (const SQLite::Exception& error) {
    return FromException(error, "run store: reading the ledger");
  }
}

absl::Status RunStore::Commit(const Batch& batch) {
  SQLite::Database& db = impl_->database;
  try {
    SQLite::Transaction transaction(db);
    PutRuns(db, batch.runs);
    PutTransitions(db, batch.transitions);
    PutRequests(db, batch.requests);
    PutLines(db, batch.lines);
    SQLite::Statement meta(db, "INSERT OR REPLACE INTO meta VALUES(?,?)");
    const auto put = [&](const char* key, const std::string& value) {
      meta.reset();
      meta.bind(1, key);
      meta.bind(2, value);
      meta.exec();
    };
    put("monotonic", std::to_string(batch.clocks.monotonic));
    put("unix", std::to_string(batch.clocks.unix));
    put("boot_id", batch.clocks.boot_id);
    transaction.commit();
    return absl::OkStatus();
  } catch (const SQLite::Exception& error) {
    return FromException(error, absl::StrCat("run store ", db.getFilename(), ": commit"));
  }
}

absl::Status RunStore::Backup(const std::string& day, int keep) {
  const fs::path& folder = impl_->backup_dir;
  const fs::path file = folder / absl::StrCat("lockstep-", day, ".db");
  std::error_code error;
  if (fs::exists(file, error)) return absl::OkStatus();
  fs::create_directories(folder, error);
  const fs::path staged = folder / "lockstep.partial";
  fs::remove(staged, error);
  try {
    SQLite::Statement vacuum(impl_->database, "VACUUM INTO ?");
    vacuum.bind(1, staged.string());
    vacuum.exec();
  } catch (const SQLite::Exception& exception) {
    fs::remove(staged, error);
    return FromException(exception, "run store: backup");
  }
  fs::permissions(staged, fs::perms::owner_read | fs::perms::owner_write, error);
  fs::rename(staged, file, error);
  if (error) return absl::InternalError(absl::StrCat("run store: backup: ", error.message()));
  const std::vector<fs::path> backups = Backups(folder);
  for (size_t i = 0; i + static_cast<size_t>(keep) < backups.size(); ++i) {
    fs::remove(backups[i], error);
  }
  return absl::OkStatus();
}

}  // namespace lockstep::launch
