#include "trainer/batches/batch_maker.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "trainer/pictures/resize.h"

namespace lockstep::trainer {
namespace {

// Byte to normalized float, one table of 256 per channel: a division less per pixel, and the same
// bits on every machine and with every compiler flag.
std::vector<float> NormalizationTable(const Dataset& dataset) {
  if (dataset.features() > 0) return {};
  const Preprocessing& p = dataset.preprocessing();
  const auto count = static_cast<size_t>(dataset.channels());
  if (p.mean.size() != count || p.std.size() != count) {
    throw std::invalid_argument("normalization has " + std::to_string(p.mean.size()) +
                                " means and " + std::to_string(p.std.size()) +
                                " standard deviations for " + std::to_string(count) + " channels");
  }
  std::vector<float> table(256 * count);
  for (size_t channel = 0; channel < count; ++channel) {
    for (size_t byte = 0; byte < 256; ++byte) {
      table[channel * 256 + byte] = static_cast<float>(
          (static_cast<double>(byte) / 255.0 - p.mean[channel]) / p.std[channel]);
    }
  }
  return table;
}

// The mean colour, as near as bytes come: about zero once it is normalized.
Color MeanColor(const Dataset& dataset) {
  Color color{};
  if (dataset.features() > 0) return color;
  const Preprocessing& p = dataset.preprocessing();
  for (size_t i = 0; i < std::min(color.size(), p.mean.size()); ++i) {
    color[i] = static_cast<uint8_t>(std::clamp(std::floor(p.mean[i] * 255 + 0.5), 0.0, 255.0));
  }
  if (p.bgr) std::swap(color[0], color[2]);
  return color;
}

void Normalize(const Picture& picture, bool bgr, const std::vector<float>& table, float* out) {
  const size_t bytes = picture.pixels.size();
  const uint8_t* in = picture.pixels.data();
  if (picture.channels == 3) {  // The usual case, unrolled.
    const float* first = table.data();
    const float* second = first + 256;
    const float* third = second + 256;
    const size_t from_first = bgr ? 2 : 0;
    const size_t from_third = 2 - from_first;
    for (size_t i = 0; i + 2 < bytes; i += 3) {
      out[i] = first[in[i + from_first]];
      out[i + 1] = second[in[i + 1]];
      out[i + 2] = third[in[i + from_third]];
    }
    return;
  }
  const auto channels = static_cast<size_t>(picture.channels);
  for (size_t i = 0; i < bytes; ++i) out[i] = table[i % channels * 256 + in[i]];
}

}  // namespace

// Memory that one batch's samples share, one after another.
struct BatchMaker::Scratch {
  Picture before;  // A change.
};

BatchMaker::BatchMaker(const Dataset& dataset, const BatchesOptions& options, bool training)
    : dataset_(dataset),
      seed_(options.seed),
      augment_(options.augment),
      moves_(training && (options.augment.horizontal_flip || options.augment.crop_padding > 0)),
      finishes_(training && ChangesPixels(options.augment)),
      mixes_(training && Mixes(options.augment)),
      bgr_(dataset.features() == 0 && dataset.preprocessing().bgr),
      table_(NormalizationTable(dataset)),
      mean_color_(MeanColor(dataset)),
      device_(options.device),
      feeds_(!options.device.is_cpu() || options.feed_on_cpu) {
  if (dataset.features() > 0 && (moves_ || finishes_)) {
    throw std::invalid_argument("features cannot be augmented; pictures can");
  }
}

std::unique_ptr<DeviceFeed> BatchMaker::MakeFeed(int64_t samples,
                                                 const ResidentSet* resident) const {
  if (!feeds_) return nullptr;
  return std::make_unique<DeviceFeed>(device_, Shape(samples), table_,
                                      resident == nullptr ? at::Tensor() : resident->pixels(),
                                      moves_ && !finishes_);
}

Loaded BatchMaker::Make(int64_t step, const std::vector<SampleRef>& refs,
                        const ResidentSet* resident, const std::stop_token& stop) const {
  Loaded loaded;
  if (feeds_) {
    loaded.batch.step = step;
    loaded.feed = MakeFeedBatch(refs, resident, stop);
  } else {
    loaded.batch = MakeBatch(step, refs, stop);
  }
  return loaded;
}

FeedShape BatchMaker::Shape(int64_t samples) const {
  const TargetShape target{static_cast<int64_t>(dataset_.targets().size()), mixes_};
  if (dataset_.features() > 0) {
    return {.samples = samples, .features = dataset_.features(), .target = target};
  }
  return {.samples = samples,
          .channels = dataset_.channels(),
          .height = dataset_.height(),
          .width = dataset_.width(),
          .target = target};
}

int64_t BatchMaker::SamplesOf(const std::vector<SampleRef>& refs) const {
  const auto count = static_cast<int64_t>(refs.size());
  return mixes_ && count > 0 ? count - 1 : count;
}

DrawKey BatchMaker::KeyOf(const SampleRef& ref) const {
  return {seed_, ref.epoch, ref.index};
}

FeedBatch BatchMaker::MakeFeedBatch(const std::vector<SampleRef>& refs, const ResidentSet* resident,
                                    const std::stop_token& stop) const {
  FeedBatch feed;
  feed.samples = SamplesOf(refs);
  const FeedShape shape = Shape(feed.samples);
  FeedPlan plan(shape, feed.samples, device_);
  feed.plan = plan.tensor();
  const auto place = [&](int64_t i, int64_t source) {
    const SampleRef& ref = refs[static_cast<size_t>(i)];
    plan.Set(i, source, moves_ ? DrawAugmentation(augment_, KeyOf(ref)) : Augmentation());
  };
  if (resident != nullptr) {
    Sample sample;
    for (int64_t i = 0; i < feed.samples; ++i) {
      const int64_t index = refs[static_cast<size_t>(i)].index;
      place(i, index);
      resident->Answer(index, sample);
      plan.targets().Set(i, sample);
    }
    return feed;
  }
  if (shape.features > 0) {
    feed.bytes = HostMemory({feed.samples, shape.features}, at::kFloat, device_);
    ReadFeatures(refs, plan.targets(), stop, feed.bytes.mutable_data_ptr<float>());
    return feed;
  }
  const int64_t picture_bytes = PictureBytes(dataset_);
  feed.bytes = HostMemory({feed.samples, picture_bytes}, at::kByte, device_);
  auto* bytes = feed.bytes.mutable_data_ptr<uint8_t>();
  ForEach(refs, /*finish=*/finishes_, plan.targets(), stop, [&](int64_t i, const Picture& picture) {
    CopyPixels(picture, bgr_, bytes + i * picture_bytes);
    if (!finishes_) place(i, i);
  });
  return feed;
}

Batch BatchMaker::MakeBatch(int64_t step, const std::vector<SampleRef>& refs,
                            const std::stop_token& stop) const {
  const int64_t count = SamplesOf(refs);
  const FeedShape shape = Shape(count);
  Batch batch;
  batch.step = step;
  batch.targets = MakeTargets(shape.target, count, at::kCPU);
  const TargetWriter targets(shape.target, batch.targets);
  const auto floats = at::TensorOptions().dtype(at::kFloat);
  if (shape.features > 0) {
    batch.images = at::empty({count, shape.features}, floats);
    ReadFeatures(refs, targets, stop, batch.images.mutable_data_ptr<float>());
    return batch;
  }
  // channels_last memory is height x width x channels per picture: the order the bytes have.
  batch.images = at::empty({count, shape.channels, shape.height, shape.width},
                           floats.memory_format(at::MemoryFormat::ChannelsLast));
  const int64_t picture_bytes = PictureBytes(dataset_);
  auto* images = batch.images.mutable_data_ptr<float>();
  ForEach(refs, /*finish=*/moves_ || finishes_, targets, stop,
          [&](int64_t i, const Picture& picture) {
            Normalize(picture, bgr_, table_, images + i * picture_bytes);
          });
  return batch;
}

template <typename Take>
void BatchMaker::ForEach(const std::vector<SampleRef>& refs, bool finish,
                         const TargetWriter& targets, const std::stop_token& stop,
                         const Take& take) const {
  const int64_t count = SamplesOf(refs);
  Scratch scratch;
  Sample sample;
  Sample next;
  const auto read = [&](int64_t i, Sample& to) {
    const SampleRef& ref = refs[static_cast<size_t>(i)];
    if (finish) {
      Finish(ref, scratch, to);
    } else {
      dataset_.Read(ref.index, to);
    }
    CheckBytes(dataset_, ref.index, to.picture);
  };
  if (mixes_ && count > 0) read(0, next);
  for (int64_t i = 0; i < count && !stop.stop_requested(); ++i) {
    if (!mixes_) {
      read(i, sample);
      targets.Set(i, sample);
      take(i, sample.picture);
      continue;
    }
    std::swap(sample, next);
    read(i + 1, next);
    const Mixing mixing = DrawMixing(augment_, KeyOf(refs[static_cast<size_t>(i)]),
                                     dataset_.width(), dataset_.height());
    targets.Set(i, sample);
    targets.Mix(i, next, mixing.share);
    Mix(mixing, next.picture, sample.picture);
    take(i, sample.picture);
  }
}

void BatchMaker::ReadFeatures(const std::vector<SampleRef>& refs, const TargetWriter& targets,
                              const std::stop_token& stop, float* to) const {
  Sample sample;
  int64_t i = 0;
  for (const SampleRef& ref : refs) {
    if (stop.stop_requested()) return;
    const int64_t view = ref.epoch % dataset_.views();
    dataset_.Read(ref.index + view * dataset_.size(), sample);
    if (static_cast<int64_t>(sample.features.size()) != dataset_.features()) {
      throw std::logic_error("sample " + std::to_string(ref.index) + " has " +
                             std::to_string(sample.features.size()) + " features, not " +
                             std::to_string(dataset_.features()));
    }
    to = std::copy(sample.features.begin(), sample.features.end(), to);
    targets.Set(i++, sample);
  }
}

// All changes but the mixing.
void BatchMaker::Finish(const SampleRef& ref, Scratch& scratch, Sample& finished) const {
  const DrawKey key = KeyOf(ref);
  Picture& picture = finished.picture;
  const auto change = [&](const auto& how) {
    std::swap(scratch.before, picture);
    how(scratch.before, picture);
  };
  if (augment_.resized_crop > 0 && finishes_) {
    const PartOf part = [&](int width, int height) {
      return DrawCrop(augment_, key, width, height);
    };
    dataset_.ReadWhole(ref.index, part, finished);
    change([&](const Picture& in, Picture& out) {
      ResizeBox(in, part(in.width, in.height), dataset_.width(), dataset_.height(), out);
    });
  } else {
    dataset_.Read(ref.index, finished);
  }
  if (moves_) {
    const Augmentation moves = DrawAugmentation(augment_, key);
    change([&](const Picture& in, Picture& out) { Apply(moves, in, out); });
  }
  if (!finishes_) return;
  if (augment_.rotation_degrees > 0) {
    const double degrees = DrawDegrees(augment_, key);
    change([&](const Picture& in, Picture& out) { Rotate(in, degrees, out); });
  }
  if (augment_.color_jitter != config::ColorJitterConfig()) {
    ChangeColors(DrawColorChange(augment_.color_jitter, key), picture);
  }
  if (augment_.random_erasing > 0) {
    Erase(DrawErasing(augment_, key, picture.width, picture.height), mean_color_, picture);
  }
}

}  // namespace lockstep::trainer
