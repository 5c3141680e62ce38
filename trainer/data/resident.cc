#include "trainer/data/resident.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "trainer/data/prefetch.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kChunkBytes = 16 << 20;
constexpr int kChunksAhead = 4;

// Consecutive pictures on their way to the device.
struct Chunk {
  int64_t first = 0;
  at::Tensor pixels;
  std::vector<int64_t> labels;
};

}  // namespace

int64_t PictureBytes(const Dataset& dataset) {
  return int64_t{dataset.channels()} * dataset.height() * dataset.width();
}

void ReadPixels(const Dataset& dataset, int64_t index, Sample& sample, uint8_t* to) {
  dataset.Read(index, sample);
  const std::vector<uint8_t>& pixels = sample.picture.pixels;
  if (static_cast<int64_t>(pixels.size()) != PictureBytes(dataset)) {
    throw std::logic_error("sample " + std::to_string(index) + " has " +
                           std::to_string(pixels.size()) + " bytes, not " +
                           std::to_string(PictureBytes(dataset)));
  }
  std::memcpy(to, pixels.data(), pixels.size());
}

at::Tensor HostBytes(at::IntArrayRef sizes, at::Device device) {
  return at::empty(sizes, at::TensorOptions().dtype(at::kByte).pinned_memory(!device.is_cpu()));
}

int64_t ResidentSet::BytesOf(const Dataset& dataset) {
  return dataset.size() * PictureBytes(dataset);
}

ResidentSet::ResidentSet(const Dataset& dataset, at::Device device, int threads)
    : labels_(static_cast<size_t>(dataset.size())) {
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
    chunk.pixels = HostBytes({count * picture}, device);
    auto* to = chunk.pixels.mutable_data_ptr<uint8_t>();
    Sample sample;
    for (int64_t i = 0; i < count && !stop.stop_requested(); ++i, to += picture) {
      ReadPixels(dataset, chunk.first + i, sample, to);
      chunk.labels.push_back(sample.label);
    }
    return chunk;
  });
  for (int64_t number = 0; number < reading.end; ++number) {
    const Chunk chunk = chunks.Next();
    std::copy(chunk.labels.begin(), chunk.labels.end(), labels_.begin() + chunk.first);
    // LibTorch keeps pinned memory from being used again until the copies out of it are done.
    flat.narrow(0, dataset.channels() + chunk.first * picture, chunk.pixels.numel())
        .copy_(chunk.pixels, /*non_blocking=*/true);
  }
}

}  // namespace lockstep::trainer
