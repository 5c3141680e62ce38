// From tensors to a checkpoint and back, without holding up the step loop.
//
// The step loop pays for one copy in memory (Snapshot::Take, trainer/checkpoint/flat_copy.h); a
// thread of CheckpointWriter brings the copy to the host and into file order and commits it. One
// write at a time: a second Save() waits for the first, so at most one snapshot (the size of
// weights and optimizer state together) is held.
//
// In a file every tensor is contiguous in row-major order of its sizes, whatever its strides were;
// restoring honours the destination's strides, so a channels_last model reads and writes the same
// files as any other.
#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "trainer/checkpoint/flat_copy.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/store.h"
#include "trainer/step/named_tensor.h"

namespace lockstep::trainer {

// A deep copy of tensors, in memory that the next Take() uses again.
class Snapshot {
 public:
  /// Gets memory for tensors like these, so that the first Take() costs no more than a later one.
  /// Throws as Take() does.
  void Prepare(const NamedTensors& weights, const NamedTensors& optimizer);

  /// Copies; the tensors may be written to as soon as this returns, on a GPU by the current stream.
  /// Throws std::invalid_argument for a dtype that a checkpoint cannot hold (it holds F64 F32 F16
  /// BF16 I64 I32 U8 BOOL) and for two tensors of one name.
  void Take(const NamedTensors& weights, const NamedTensors& optimizer, std::string state_json);

  /// What was taken, in file order. Fetches it from the device and rearranges strided copies on the
  /// first call after a Take(). Borrows from this Snapshot until the next Take().
  CheckpointContents Contents();

  /// Pieces of memory that the tensors prepared for or taken last come to.
  size_t pieces() const { return copy_.pieces(); }

 private:
  struct Taken {
    std::string name;
    at::ScalarType dtype = at::kFloat;
    std::vector<int64_t> sizes;
    std::vector<int64_t> strides;
    std::vector<std::byte> row_major;  // Filled by Contents() where the copy is not in file order.
  };
  std::vector<at::Tensor> Describe(const NamedTensors& weights, const NamedTensors& optimizer);
  TensorBytes BytesOf(size_t i);

  FlatCopy copy_;
  std::vector<Taken> taken_;  // Weights, then optimizer state.
  size_t weights_ = 0;        // How many of them are weights.
  std::string state_json_;
  bool in_file_order_ = false;
};

struct WriteResult {
  int64_t step = -1;  // -1 = nothing was ever saved.
  absl::Status status;
  int64_t bytes = 0;           // Of all files.
  double began_seconds = 0;    // CLOCK_MONOTONIC when the write began, at the end of the copy.
  double write_seconds = 0;    // From then until durable.
  std::filesystem::path path;  // The checkpoint's folder.
};

// Writes checkpoints behind the step loop. Save, Poll and Wait are for one thread; the store must
// outlive the writer and be used by nobody else for writing. The destructor waits for the write
// that is going on.
class CheckpointWriter {
 public:
  explicit CheckpointWriter(CheckpointStore& store);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Before the first Save(), which then holds up its caller no longer than a later one. Throws as
  /// Snapshot::Take() does.
  void Prepare(const NamedTensors& weights, const NamedTensors& optimizer);

  /// Takes a snapshot and returns; the write goes on behind. Waits first for the previous write.
  /// Returns the seconds that the caller was held up. Throws as Snapshot::Take() does.
  double Save(int64_t step, const NamedTensors& weights, const NamedTensors& optimizer,
              std::string state_json, std::optional<double> metric);

  /// The oldest finished write that was not reported yet, each one once. Never waits.
  std::optional<WriteResult> Poll();

  /// Waits for the write that is going on and returns the result of the latest Save(), which Poll()
  /// then does not report again. Step -1 when nothing was ever saved.
  WriteResult Wait();

  /// True while a write is going on.
  bool busy() const;

 private:
  struct Request {
    int64_t step = 0;
    std::optional<double> metric;
  };
  void AwaitIdle();
  void Run(const std::stop_token& stop);
  WriteResult Write(const Request& request);

  CheckpointStore& store_;
  Snapshot snapshot_;  // The caller's while idle, the thread's while a request is open.

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<Request> request_;  // Guarded by mutex_; cleared when its write has ended.
  std::deque<WriteResult>
      finished_;      // Guarded by mutex_; not yet reported, bounded by kMaxFinished.
  WriteResult last_;  // Guarded by mutex_.

  std::jthread thread_;  // Last: it uses all of the above.
};

/// Copies the tensors of `file` into the tensors of the same names. All or nothing: when a name is
/// missing in the file, or only there, or has another shape or dtype, nothing is copied and
/// INVALID_ARGUMENT lists them (the first twenty).
absl::Status Restore(const SafetensorsView& file, const NamedTensors& into);

}  // namespace lockstep::trainer
