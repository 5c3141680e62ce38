#include "trainer/batches/resident.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "trainer/batches/prefetch.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kChunkBytes = 16 << 20;
constexpr int kChunksAhead = 4;

// Consecutive pictures on their way to the device.
struct Chunk {
  int64_t first = 0;
  at::Tensor pixels;
  std::vector<int64_t> labels;
  std::vector<float> targets;
};

}  // namespace

int64_t PictureBytes(const Dataset& dataset) {
  return int64_t{dataset.channels()} * dataset.height() * dataset.width();
}

void CheckBytes(const Dataset& dataset, int64_t index, const Picture& picture) {
  if (static_cast<int64_t>(picture.pixels.size()) != PictureBytes(dataset)) {
    throw std::logic_error("sample " + std::to_string(index) + " has " +
                           std::to_string(picture.pixels.size()) + " bytes, not " +
                           std::to_string(PictureBytes(dataset)));
  }
}

void CopyPixels(const Picture& picture, bool bgr, uint8_t* to) {
  const std::vector<uint8_t>& pixels = picture.pixels;
  std::memcpy(to, pixels.data(), pixels.size());
  if (!bgr || picture.channels != 3) return;
  for (uint8_t* end = to + pixels.size(); to != end; to += 3) std::swap(to[0], to[2]);
}

at::Tensor HostMemory(at::IntArrayRef sizes, at::ScalarType type, at::Device device) {
  return at::empty(sizes, at::TensorOptions().dtype(type).pinned_memory(!device.is_cpu()));
}

int64_t ResidentSet::BytesOf(const Dataset& dataset) {
  return dataset.size() * PictureBytes(dataset);
}

ResidentSet::ResidentSet(const Dataset& dataset, at::Device device, int threads)
    : labels_(dataset.targets().empty() ? static_cast<size_t>(dataset.size()) : 0),
      targets_per_sample_(dataset.targets().size()),
      targets_(static_cast<size_t>(dataset.size()) * targets_per_sample_) {
  const bool bgr = dataset.preprocessing().bgr;
  const int64_t picture = PictureBytes(dataset);
  const int64_t pictures = std::max<int64_t>(1, kChunkBytes / picture);  // Of a chunk.
  pixels_ = at::empty({1 + BytesOf(dataset) / dataset.channels(), dataset.channels()},
                      at::TensorOptions().dtype(at::kByte).device(device));
  pixels_.narrow(0, 0, 1).zero_();
  const at::Tensor flat = pixels_.view(-1);

  const PrefetchOptions reading{.threads = threads,
                                .depth = std::max(kChunksAhead, threads),
                                .first = 0,
                                .end = (dataset.size() + pictures - 1) / pictures};
  Prefetch<Chunk> chunks(reading, [&](int64_t number, const std::stop_token& stop) {
    Chunk chunk;
    chunk.first = number * pictures;
    const int64_t count = std::min(pictures, dataset.size() - chunk.first);
    chunk.pixels = HostMemory({count * picture}, at::kByte, device);
    auto* to = chunk.pixels.mutable_data_ptr<uint8_t>();
    Sample sample;
    for (int64_t i = 0; i < count && !stop.stop_requested(); ++i, to += picture) {
      dataset.Read(chunk.first + i, sample);
      CheckBytes(dataset, chunk.first + i, sample.picture);
      CopyPixels(sample.picture, bgr, to);
      chunk.labels.push_back(sample.label);
      chunk.targets.insert(chunk.targets.end(), sample.targets.begin(), sample.targets.end());
    }
    return chunk;
  });
  for (int64_t number = 0; number < reading.end; ++number) {
    const Chunk chunk = chunks.Next();
    if (targets_per_sample_ == 0) {
      std::copy(chunk.labels.begin(), chunk.labels.end(), labels_.begin() + chunk.first);
    } else {
      if (chunk.targets.size() != chunk.labels.size() * targets_per_sample_) {
        throw std::logic_error("samples without all of their targets");
      }
      std::copy(chunk.targets.begin(), chunk.targets.end(),
                targets_.begin() + chunk.first * static_cast<std::ptrdiff_t>(targets_per_sample_));
    }
    // LibTorch keeps pinned memory from being used again until the copies out of it are done.
    flat.narrow(0, dataset.channels() + chunk.first * picture, chunk.pixels.numel())
        .copy_(chunk.pixels, /*non_blocking=*/true);
  }
}

void ResidentSet::Answer(int64_t index, Sample& sample) const {
  const auto i = static_cast<size_t>(index);
  if (targets_per_sample_ == 0) {
    sample.label = labels_[i];
  } else {
    const auto begin = targets_.begin() + static_cast<std::ptrdiff_t>(i * targets_per_sample_);
    sample.targets.assign(begin, begin + static_cast<std::ptrdiff_t>(targets_per_sample_));
  }
}

}  // namespace lockstep::trainer
