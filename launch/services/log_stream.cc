#include "launch/services/log_stream.h"

#include <fcntl.h>
#include <grpcpp/alarm.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "config/run_directory.h"
#include "launch/services/rpc_status.h"

namespace lockstep::launch {
namespace {

constexpr size_t kChunkBytes = 64u << 10;
constexpr auto kPoll = std::chrono::milliseconds(100);

// One thing at a time is under way: a write, or the alarm that looks at the file again. So nothing
// needs a lock.
class LogReactor : public grpc::ServerWriteReactor<v1::StreamLogsResponse> {
 public:
  LogReactor(Supervisor& supervisor, grpc::CallbackServerContext* context, const v1::Run& run,
             const v1::StreamLogsRequest& request)
      : supervisor_(supervisor),
        context_(context),
        run_id_(run.run_id()),
        directory_(run.run_dir()),
        rank_(request.rank()),
        follow_(request.follow()),
        newest_(request.attempt() == 0),
        attempt_(request.attempt() == 0 ? run.attempt() : request.attempt()),
        offset_(request.offset()) {
    if (rank_ < -1 || rank_ >= run.ranks()) {
      Finish(ToGrpc(absl::InvalidArgumentError(
          absl::StrCat("rank: the run has ranks 0 to ", run.ranks() - 1, " (-1 = mpirun)"))));
    } else if (attempt_ < 0 || attempt_ > run.attempt()) {
      Finish(ToGrpc(absl::InvalidArgumentError(
          absl::StrCat("attempt: the run has had ", run.attempt(), " attempts"))));
    } else {
      Next();
    }
  }
  ~LogReactor() override {
    if (fd_ >= 0) close(fd_);
  }
  LogReactor(const LogReactor&) = delete;
  LogReactor& operator=(const LogReactor&) = delete;

  void OnWriteDone(bool ok) override {
    if (ok) {
      Next();
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }

  void OnDone() override { delete this; }

 private:
  // Whether more can still be written, asked before reading, so that what was written in between is
  // read once more.
  enum class Writer { kLive, kOver, kNextAttempt };
  Writer Ask() const {
    const auto run = supervisor_.Find(run_id_);
    if (!run.ok() || (*run)->state() >= v1::RUN_STATE_COMPLETED) return Writer::kOver;
    if ((*run)->attempt() > attempt_) return newest_ ? Writer::kNextAttempt : Writer::kOver;
    return Writer::kLive;
  }

  void Next() {
    for (;;) {
      if (context_->IsCancelled()) {
        Finish(grpc::Status::CANCELLED);
        return;
      }
      const Writer writer = Ask();
      if (ReadChunk()) {
        StartWrite(&response_);
        return;
      }
      if (fd_ < 0 && (!follow_ || writer == Writer::kOver)) {
        Finish({grpc::StatusCode::NOT_FOUND,
                attempt_ == 0 ? absl::StrCat("run ", run_id_, " has not started yet")
                              : absl::StrCat("there is no ", Path().string())});
        return;
      }
      if (!follow_ || writer == Writer::kOver) {
        Finish(grpc::Status::OK);
        return;
      }
      if (writer == Writer::kNextAttempt) {
        ++attempt_;
        offset_ = 0;
        if (fd_ >= 0) close(fd_);
        fd_ = -1;
        continue;
      }
      alarm_.Set(std::chrono::system_clock::now() + kPoll, [this](bool) { Next(); });
      return;
    }
  }

  std::filesystem::path Path() const {
    return rank_ < 0 ? directory_.trainer_log(attempt_) : directory_.rank_log(attempt_, rank_);
  }

  bool ReadChunk() {
    if (fd_ < 0) fd_ = open(Path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd_ < 0) return false;
    struct stat info {};
    if (fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) return false;
    if (offset_ < 0) offset_ = std::max<int64_t>(0, info.st_size + offset_);
    // A log that was cut to its bound: go on with what comes.
    offset_ = std::min<int64_t>(offset_, info.st_size);
    std::string& data = *response_.mutable_data();
    data.resize(kChunkBytes);
    ssize_t got = 0;
    do {
      got = pread(fd_, data.data(), data.size(), offset_);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) return false;
    data.resize(static_cast<size_t>(got));
    offset_ += got;
    response_.set_next_offset(offset_);
    return true;
  }

  Supervisor& supervisor_;
  grpc::CallbackServerContext* const context_;
  const std::string run_id_;
  const config::RunDirectory directory_;
  const int rank_;
  const bool follow_;
  const bool newest_;
  int attempt_;
  int64_t offset_;
  int fd_ = -1;
  grpc::Alarm alarm_;
  v1::StreamLogsResponse response_;
};

class EndedReactor : public grpc::ServerWriteReactor<v1::StreamLogsResponse> {
 public:
  explicit EndedReactor(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerWriteReactor<v1::StreamLogsResponse>* StartLogs(Supervisor& supervisor,
                                                            grpc::CallbackServerContext* context,
                                                            const v1::Run& run,
                                                            const v1::StreamLogsRequest& request) {
  return new LogReactor(supervisor, context, run, request);
}

grpc::ServerWriteReactor<v1::StreamLogsResponse>* EndedLogs(const grpc::Status& status) {
  return new EndedReactor(status);
}

}  // namespace lockstep::launch
