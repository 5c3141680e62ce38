#include "trainer/checkpoint/snapshot.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <exception>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lockstep::trainer {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors files are little-endian; tensors are copied as they lie in memory");

constexpr size_t kMaxProblems = 20;
constexpr size_t kMaxFinished = 64;  // Results that nobody polls are forgotten, the oldest first.

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The format's name of a dtype; null for one that a checkpoint does not hold.
const char* DtypeName(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return "F64";
    case at::kFloat:
      return "F32";
    case at::kHalf:
      return "F16";
    case at::kBFloat16:
      return "BF16";
    case at::kLong:
      return "I64";
    case at::kInt:
      return "I32";
    case at::kByte:
      return "U8";
    case at::kBool:
      return "BOOL";
    default:
      return nullptr;
  }
}

struct Strided {
  const std::byte* data = nullptr;
  at::IntArrayRef sizes;
  at::IntArrayRef strides;  // In elements.
};

bool IsRowMajor(at::IntArrayRef sizes, at::IntArrayRef strides) {
  int64_t elements = 1;  // Of the dimensions behind this one.
  bool row_major = true;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] == 0) return true;
    row_major = row_major && (sizes[i] == 1 || strides[i] == elements);
    elements *= sizes[i];
  }
  return row_major;
}

// Appends the elements in row-major order and returns the place behind them. Plain loops, because
// ATen's copy would bring up a second pool of threads, for the writer, beside the step loop's own.
// The last two dimensions without a call: on the CPU the writer's time is the step loop's, too.
template <size_t element_bytes>
std::byte* Gather(const Strided& from, std::byte* to) {
  const size_t dimensions = from.sizes.size();
  const auto step = static_cast<ptrdiff_t>(element_bytes) * from.strides[0];
  const std::byte* source = from.data;
  if (dimensions > 2) {
    for (int64_t i = 0; i < from.sizes[0]; ++i, source += step) {
      to = Gather<element_bytes>({source, from.sizes.slice(1), from.strides.slice(1)}, to);
    }
    return to;
  }
  const int64_t columns = dimensions == 2 ? from.sizes[1] : 1;
  const auto column_step =
      dimensions == 2 ? static_cast<ptrdiff_t>(element_bytes) * from.strides[1] : 0;
  for (int64_t i = 0; i < from.sizes[0]; ++i, source += step) {
    const std::byte* element = source;
    for (int64_t j = 0; j < columns; ++j, element += column_step, to += element_bytes) {
      std::memcpy(to, element, element_bytes);
    }
  }
  return to;
}

void GatherRowMajor(const Strided& tensor, size_t element_bytes, std::byte* to) {
  // Neighbours that one stride covers are one dimension: height and width of a channels_last
  // weight.
  std::vector<int64_t> sizes, strides;
  for (size_t i = 0; i < tensor.sizes.size(); ++i) {
    const int64_t size = tensor.sizes[i], stride = tensor.strides[i];
    if (!sizes.empty() && strides.back() == size * stride) {
      sizes.back() *= size;
      strides.back() = stride;
    } else if (size != 1) {
      sizes.push_back(size);
      strides.push_back(stride);
    }
  }
  if (sizes.empty()) {
    sizes = {1};
    strides = {1};
  }
  const Strided from{tensor.data, sizes, strides};
  switch (element_bytes) {
    case 1:
      Gather<1>(from, to);
      break;
    case 2:
      Gather<2>(from, to);
      break;
    case 4:
      Gather<4>(from, to);
      break;
    default:
      Gather<8>(from, to);
      break;
  }
}

void CheckHeld(const NamedTensors& tensors) {
  std::set<std::string> names;
  for (const NamedTensor& tensor : tensors) {
    if (DtypeName(tensor.tensor.scalar_type()) == nullptr) {
      throw std::invalid_argument(absl::StrCat("Tensor '", tensor.name, "' has the dtype ",
                                               c10::toString(tensor.tensor.scalar_type()),
                                               ", which a checkpoint cannot hold."));
    }
    if (!names.insert(tensor.name).second) {
      throw std::invalid_argument(
          absl::StrCat("Two tensors of a checkpoint are named '", tensor.name, "'."));
    }
  }
}

std::string ShapeText(at::IntArrayRef shape) {
  return absl::StrCat("[", absl::StrJoin(shape.begin(), shape.end(), ", "), "]");
}

// Why `found` cannot be copied into `tensor`; empty when it can.
std::string Mismatch(const TensorBytes& found, const at::Tensor& tensor) {
  if (at::IntArrayRef(found.shape) != tensor.sizes()) {
    return absl::StrCat("'", found.name, "' has shape ", ShapeText(found.shape),
                        " in the file, but ", ShapeText(tensor.sizes()), " here");
  }
  const char* dtype = DtypeName(tensor.scalar_type());
  if (dtype == nullptr || found.dtype != dtype) {
    return absl::StrCat("'", found.name, "' has dtype ", found.dtype, " in the file, but ",
                        dtype == nullptr ? "one that no checkpoint holds" : dtype, " here");
  }
  const auto wrong = [](std::byte byte) { return byte > std::byte{1}; };
  if (found.dtype == "BOOL" && std::any_of(found.bytes.begin(), found.bytes.end(), wrong)) {
    return absl::StrCat("'", found.name, "' has dtype BOOL and values other than 0 and 1");
  }
  return {};
}

int64_t BytesIn(const std::filesystem::path& folder) {
  int64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code unknown;
    const auto size = it->file_size(unknown);
    if (!unknown) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace

void Snapshot::Prepare(const NamedTensors& weights, const NamedTensors& optimizer) {
  copy_.Prepare(Describe(weights, optimizer));
}

void Snapshot::Take(const NamedTensors& weights, const NamedTensors& optimizer,
                    std::string state_json) {
  copy_.Take(Describe(weights, optimizer));
  state_json_ = std::move(state_json);
  in_file_order_ = false;
}

// Remembers names and shapes, returns the tensors.
std::vector<at::Tensor> Snapshot::Describe(const NamedTensors& weights,
                                           const NamedTensors& optimizer) {
  CheckHeld(weights);
  CheckHeld(optimizer);
  weights_ = weights.size();
  taken_.resize(weights.size() + optimizer.size());  // Those there keep their memory.
  std::vector<at::Tensor> tensors;
  for (const NamedTensors* group : {&weights, &optimizer}) {
    for (const NamedTensor& tensor : *group) {
      Taken& taken = taken_[tensors.size()];
      taken.name = tensor.name;
      taken.dtype = tensor.tensor.scalar_type();
      taken.sizes = tensor.tensor.sizes().vec();
      taken.strides = tensor.tensor.strides().vec();
      tensors.push_back(tensor.tensor);
    }
  }
  return tensors;
}

CheckpointContents Snapshot::Contents() {
  copy_.Fetch();
  CheckpointContents contents;
  for (size_t i = 0; i < taken_.size(); ++i) {
    (i < weights_ ? contents.weights : contents.optimizer).push_back(BytesOf(i));
  }
  in_file_order_ = true;
  contents.state_json = state_json_;
  return contents;
}

TensorBytes Snapshot::BytesOf(size_t i) {
  Taken& taken = taken_[i];
  const size_t element_bytes = c10::elementSize(taken.dtype);
  size_t bytes = element_bytes;
  for (const int64_t size : taken.sizes) bytes *= static_cast<size_t>(size);
  std::span<const std::byte> span(copy_.data(i), bytes);
  if (!IsRowMajor(taken.sizes, taken.strides)) {
    taken.row_major.resize(bytes);
    if (!in_file_order_) {
      GatherRowMajor({copy_.data(i), taken.sizes, taken.strides}, element_bytes,
                     taken.row_major.data());
    }
    span = taken.row_major;
  }
  return {taken.name, DtypeName(taken.dtype), taken.sizes, span};
}

CheckpointWriter::CheckpointWriter(CheckpointStore& store)
    : store_(store), thread_([this](const std::stop_token& stop) { Run(stop); }) {}

// The thread ends when it is asked to and no write is open.
CheckpointWriter::~CheckpointWriter() = default;

// While no request is open, the thread does not look at the snapshot.
void CheckpointWriter::AwaitIdle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !request_; });
}

void CheckpointWriter::Prepare(const NamedTensors& weights, const NamedTensors& optimizer) {
  AwaitIdle();
  snapshot_.Prepare(weights, optimizer);
}

double CheckpointWriter::Save(int64_t step, const NamedTensors& weights,
                              const NamedTensors& optimizer, std::string state_json,
                              std::optional<double> metric) {
  const auto start = Clock::now();
  AwaitIdle();
  snapshot_.Take(weights, optimizer, std::move(state_json));
  {
    const std::lock_guard lock(mutex_);
    request_ = Request{step, metric};
  }
  changed_.notify_all();
  return SecondsSince(start);
}

std::optional<WriteResult> CheckpointWriter::Poll() {
  const std::lock_guard lock(mutex_);
  if (finished_.empty()) return std::nullopt;
  WriteResult oldest = std::move(finished_.front());
  finished_.pop_front();
  return oldest;
}

WriteResult CheckpointWriter::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !request_; });
  if (!finished_.empty()) finished_.pop_back();  // The newest one is last_.
  return last_;
}

bool CheckpointWriter::busy() const {
  const std::lock_guard lock(mutex_);
  return request_.has_value();
}

void CheckpointWriter::Run(const std::stop_token& stop) {
  while (true) {
    Request request;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [this] { return request_.has_value(); })) return;
      request = *request_;
    }
    WriteResult result = Write(request);
    {
      const std::lock_guard lock(mutex_);
      if (finished_.size() == kMaxFinished) finished_.pop_front();
      finished_.push_back(result);
      last_ = std::move(result);
      request_.reset();
    }
    changed_.notify_all();
  }
}

WriteResult CheckpointWriter::Write(const Request& request) {
  const auto start = Clock::now();
  WriteResult result;
  result.step = request.step;
  result.path = store_.PathOf(request.step);
  result.began_seconds = std::chrono::duration<double>(start.time_since_epoch()).count();
  try {
    result.status = store_.Commit(request.step, snapshot_.Contents(), request.metric);
  } catch (const std::exception& error) {
    result.status = absl::InternalError(
        absl::StrCat("writing the checkpoint of step ", request.step, ": ", error.what()));
  }
  result.write_seconds = SecondsSince(start);
  if (result.status.ok()) result.bytes = BytesIn(result.path);
  return result;
}

absl::Status Restore(const SafetensorsView& file, const NamedTensors& into) {
  absl::flat_hash_map<std::string, const TensorBytes*> found;
  for (const TensorBytes& tensor : file.tensors) found[tensor.name] = &tensor;

  std::vector<std::string> problems;
  std::vector<const TensorBytes*> sources;
  for (const NamedTensor& target : into) {
    const auto source = found.find(target.name);
    if (source == found.end()) {
      problems.push_back(absl::StrCat("'", target.name, "' is missing in the file"));
      continue;
    }
    std::string mismatch = Mismatch(*source->second, target.tensor);
    if (!mismatch.empty()) problems.push_back(std::move(mismatch));
    sources.push_back(source->second);
    found.erase(source);
  }
  for (const TensorBytes& tensor : file.tensors) {
    if (found.contains(tensor.name)) {
      problems.push_back(absl::StrCat("'", tensor.name, "' is only in the file"));
    }
  }
  if (!problems.empty()) {
    const size_t shown = std::min(problems.size(), kMaxProblems);
    std::string text = absl::StrJoin(problems.begin(), problems.begin() + shown, "; ");
    if (shown < problems.size()) {
      absl::StrAppend(&text, "; and ", problems.size() - shown, " more");
    }
    return absl::InvalidArgumentError(
        absl::StrCat("the file's tensors do not fit (", problems.size(), " problems): ", text));
  }

  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < into.size(); ++i) {
    // By way of memory of its own: a foreign file may hold a tensor at any address.
    const at::Tensor& target = into[i].tensor;
    const at::Tensor values =
        at::empty(target.sizes(), at::TensorOptions().dtype(target.scalar_type()));
    const auto& bytes = sources[i]->bytes;
    if (!bytes.empty()) std::memcpy(values.mutable_data_ptr(), bytes.data(), bytes.size());
    target.copy_(values);
  }
  return absl::OkStatus();
}

}  // namespace lockstep::trainer
