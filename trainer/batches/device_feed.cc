#include "trainer/batches/device_feed.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <utility>

namespace lockstep::trainer {
namespace {

// A row or column that lies outside of the picture. Far below zero, so that its sum with any other
// number is, too; pixel 0 of the source is black.
constexpr int64_t kOutside = -(int64_t{1} << 60);

// Pixels gathered at once: bounds the memory of the index numbers (8 bytes a pixel) for large
// pictures.
constexpr int64_t kPixelsAtOnce = 8 << 20;

}  // namespace

int64_t FeedPlan::SizeOf(const FeedShape& shape, int64_t samples) {
  return samples * (shape.plan_rows() + shape.plan_columns()) +
         TargetWords(shape.target, samples).all();
}

FeedPlan::FeedPlan(const FeedShape& shape, int64_t samples, at::Device device)
    : shape_(shape),
      plan_(at::empty({SizeOf(shape, samples)},
                      at::TensorOptions().dtype(at::kLong).pinned_memory(!device.is_cpu()))),
      rows_(plan_.mutable_data_ptr<int64_t>()),
      columns_(rows_ + samples * shape.plan_rows()),
      targets_(shape.target, TargetsAt(shape.target, samples, plan_,
                                       samples * (shape.plan_rows() + shape.plan_columns()))) {}

void FeedPlan::Set(int64_t sample, int64_t source, const Augmentation& augmentation) {
  const int height = shape_.height;
  const int width = shape_.width;
  int64_t* rows = rows_ + sample * height;
  int64_t* columns = columns_ + sample * width;
  for (int y = 0; y < height; ++y) {
    const int from = y - augmentation.shift_y;
    // Pixel numbers count from one.
    rows[y] = from < 0 || from >= height ? kOutside : (source * height + from) * width + 1;
  }
  for (int x = 0; x < width; ++x) {
    const int from = (augmentation.flip ? width - 1 - x : x) - augmentation.shift_x;
    columns[x] = from < 0 || from >= width ? kOutside : from;
  }
}

DeviceFeed::DeviceFeed(at::Device device, const FeedShape& shape, const std::vector<float>& table,
                       at::Tensor resident, bool augmented)
    : shape_(shape),
      gathers_(augmented || resident.defined()),
      resident_(resident.defined()),
      side_(device),
      copied_(device),
      consumed_(device) {
  const auto bytes = at::TensorOptions().dtype(at::kByte).device(device);
  table_ = at::tensor(table).to(device);
  offsets_ = at::arange(shape.channels, bytes.dtype(at::kInt)).mul_(256);
  source_ = std::move(resident);
  if (shape.features > 0) {
    source_ = at::empty({shape.samples, shape.features}, bytes.dtype(at::kFloat));
    images_ = at::empty({shape.samples, shape.features}, bytes.dtype(at::kFloat));
  } else {
    if (!resident_) {
      source_ = at::zeros({1 + shape.samples * shape.height * shape.width, shape.channels}, bytes);
    }
    images_ = at::empty({shape.samples, shape.channels, shape.height, shape.width},
                        bytes.dtype(at::kFloat).memory_format(at::MemoryFormat::ChannelsLast));
  }
  plan_ = at::empty({FeedPlan::SizeOf(shape, shape.samples)}, bytes.dtype(at::kLong));
  targets_ = MakeTargets(shape.target, shape.samples, device);
  // The allocator may have given memory that the computing stream is not done with yet.
  consumed_.Record();
}

DeviceFeed::~DeviceFeed() {
  try {
    copied_.Wait();
  } catch (const std::exception&) {
    // The device has failed, and whoever uses it next is told so.
  }
}

void DeviceFeed::Stage(FeedBatch batch) {
  if (staged_) throw std::logic_error("a batch is staged already");
  const SideStream::Scope on_side(side_);
  consumed_.Block();
  plan_.narrow(0, 0, batch.plan.numel()).copy_(batch.plan, /*non_blocking=*/true);
  if (!resident_) {
    const int64_t begin = shape_.features > 0 ? 0 : shape_.channels;  // After the black pixel.
    source_.view(-1)
        .narrow(0, begin, batch.bytes.numel())
        .copy_(batch.bytes.view(-1), /*non_blocking=*/true);
  }
  copied_.Record();
  staged_ = std::move(batch);
}

DeviceFeed::Tensors DeviceFeed::Make() {
  if (!staged_) throw std::logic_error("no batch is staged");
  const at::NoGradGuard no_grad;
  copied_.Block();
  const int64_t samples = staged_->samples;
  if (shape_.features > 0) {
    images_.narrow(0, 0, samples).copy_(source_.narrow(0, 0, samples));
  } else {
    const int64_t at_once =
        std::max<int64_t>(1, kPixelsAtOnce / (int64_t{shape_.height} * shape_.width));
    for (int64_t first = 0; first < samples; first += at_once) {
      Gather(first, std::min(at_once, samples - first));
    }
  }
  const Targets made = targets_.Narrow(0, samples);
  const Targets sent = TargetsAt(shape_.target, samples, plan_,
                                 samples * (shape_.plan_rows() + shape_.plan_columns()));
  CopyTargets(sent, made);
  consumed_.Record();
  staged_.reset();
  return {images_.narrow(0, 0, samples), made};
}

// Makes pictures [first, first + samples) of the batch.
void DeviceFeed::Gather(int64_t first, int64_t samples) {
  const int64_t height = shape_.height;
  const int64_t width = shape_.width;
  at::Tensor pixels;
  if (gathers_) {
    const int64_t all = staged_->samples;
    const at::Tensor rows =
        plan_.narrow(0, first * height, samples * height).view({samples, height, 1});
    const at::Tensor columns =
        plan_.narrow(0, all * height + first * width, samples * width).view({samples, 1, width});
    pixels = at::index_select(source_, 0, rows.add(columns).clamp_min_(0).view(-1));
  } else {
    pixels = source_.narrow(0, 1 + first * height * width, samples * height * width);
  }
  // channels_last memory is height x width x channels per picture: the order the bytes have.
  at::Tensor out = images_.narrow(0, first, samples).permute({0, 2, 3, 1}).view(-1);
  at::index_select_out(out, table_, 0, at::add(pixels, offsets_).view(-1));
}

}  // namespace lockstep::trainer
