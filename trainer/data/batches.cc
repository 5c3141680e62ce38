#include "trainer/data/batches.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "trainer/data/augment.h"
#include "trainer/data/device_feed.h"
#include "trainer/data/prefetch.h"
#include "trainer/data/resident.h"
#include "trainer/data/sample_order.h"

namespace lockstep::trainer {
namespace {

constexpr int kMostFillThreads = 8;

// Byte to normalized float, one table of 256 per channel: a division less per pixel, and the same
// bits on every machine and with every compiler flag.
std::vector<float> NormalizationTable(const Normalization& normalization, int channels) {
  const auto count = static_cast<size_t>(channels);
  if (normalization.mean.size() != count || normalization.std.size() != count) {
    throw std::invalid_argument("normalization has " + std::to_string(normalization.mean.size()) +
                                " means and " + std::to_string(normalization.std.size()) +
                                " standard deviations for " + std::to_string(channels) +
                                " channels");
  }
  std::vector<float> table(256 * count);
  for (size_t channel = 0; channel < count; ++channel) {
    for (size_t byte = 0; byte < 256; ++byte) {
      table[channel * 256 + byte] =
          static_cast<float>((static_cast<double>(byte) / 255.0 - normalization.mean[channel]) /
                             normalization.std[channel]);
    }
  }
  return table;
}

void Normalize(const Picture& picture, const std::vector<float>& table, float* out) {
  const size_t bytes = picture.pixels.size();
  if (picture.channels == 3) {  // The usual case, unrolled.
    const float* red = table.data();
    const float* green = red + 256;
    const float* blue = green + 256;
    for (size_t i = 0; i + 2 < bytes; i += 3) {
      out[i] = red[picture.pixels[i]];
      out[i + 1] = green[picture.pixels[i + 1]];
      out[i + 2] = blue[picture.pixels[i + 2]];
    }
    return;
  }
  const auto channels = static_cast<size_t>(picture.channels);
  for (size_t i = 0; i < bytes; ++i) out[i] = table[i % channels * 256 + picture.pixels[i]];
}

// What a loader thread makes: a batch, or what a DeviceFeed makes one of.
struct Loaded {
  Batch batch;
  FeedBatch feed;
};

// Reads samples into one batch, on whichever thread.
class BatchMaker {
 public:
  BatchMaker(const Dataset& dataset, const BatchesOptions& options, bool training)
      : dataset_(dataset),
        seed_(options.seed),
        augment_(options.augment),
        augmenting_(training &&
                    (options.augment.horizontal_flip || options.augment.crop_padding > 0)),
        table_(NormalizationTable(options.normalization, dataset.channels())),
        device_(options.device),
        feeds_(!options.device.is_cpu() || options.feed_on_cpu) {}

  bool feeds() const { return feeds_; }

  std::unique_ptr<DeviceFeed> MakeFeed(int64_t samples, const ResidentSet* resident) const {
    if (!feeds_) return nullptr;
    return std::make_unique<DeviceFeed>(device_, Shape(samples), table_,
                                        resident == nullptr ? at::Tensor() : resident->pixels(),
                                        augmenting_);
  }

  Loaded Make(int64_t step, const std::vector<SampleRef>& refs, const ResidentSet* resident,
              const std::stop_token& stop) const {
    Loaded loaded;
    if (feeds_) {
      loaded.batch.step = step;
      loaded.feed = MakeFeedBatch(refs, resident, stop);
    } else {
      loaded.batch = MakeBatch(step, refs, stop);
    }
    return loaded;
  }

 private:
  FeedShape Shape(int64_t samples) const {
    return {samples, dataset_.channels(), dataset_.height(), dataset_.width()};
  }

  Augmentation Draw(const SampleRef& ref) const {
    return augmenting_ ? DrawAugmentation(augment_, seed_, ref.epoch, ref.index) : Augmentation();
  }

  FeedBatch MakeFeedBatch(const std::vector<SampleRef>& refs, const ResidentSet* resident,
                          const std::stop_token& stop) const {
    FeedBatch feed;
    feed.samples = static_cast<int64_t>(refs.size());
    FeedPlan plan(Shape(feed.samples), feed.samples, device_);
    feed.plan = plan.tensor();
    if (resident != nullptr) {
      for (size_t i = 0; i < refs.size(); ++i) {
        plan.Set(static_cast<int64_t>(i), refs[i].index, Draw(refs[i]),
                 resident->label(refs[i].index));
      }
      return feed;
    }
    const int64_t picture_bytes = PictureBytes(dataset_);
    feed.bytes = HostBytes({feed.samples, picture_bytes}, device_);
    auto* bytes = feed.bytes.mutable_data_ptr<uint8_t>();
    Sample sample;
    for (int64_t i = 0; i < feed.samples && !stop.stop_requested(); ++i, bytes += picture_bytes) {
      const SampleRef& ref = refs[static_cast<size_t>(i)];
      ReadPixels(dataset_, ref.index, sample, bytes);
      plan.Set(i, i, Draw(ref), sample.label);
    }
    return feed;
  }

  Batch MakeBatch(int64_t step, const std::vector<SampleRef>& refs,
                  const std::stop_token& stop) const {
    const auto count = static_cast<int64_t>(refs.size());
    Batch batch;
    batch.step = step;
    // channels_last memory is height x width x channels per picture: the order the bytes have.
    batch.images = at::empty(
        {count, dataset_.channels(), dataset_.height(), dataset_.width()},
        at::TensorOptions().dtype(at::kFloat).memory_format(at::MemoryFormat::ChannelsLast));
    batch.labels = at::empty({count}, at::kLong);
    if (count == 0) return batch;
    const auto picture_bytes = static_cast<size_t>(PictureBytes(dataset_));
    auto* images = batch.images.mutable_data_ptr<float>();
    auto* labels = batch.labels.mutable_data_ptr<int64_t>();
    Sample sample;
    Picture changed;
    for (const SampleRef& ref : refs) {
      if (stop.stop_requested()) return batch;
      dataset_.Read(ref.index, sample);
      if (sample.picture.pixels.size() != picture_bytes) {
        throw std::logic_error("sample " + std::to_string(ref.index) + " has " +
                               std::to_string(sample.picture.pixels.size()) + " bytes, not " +
                               std::to_string(picture_bytes));
      }
      const Picture* picture = &sample.picture;
      if (augmenting_) {
        Apply(Draw(ref), sample.picture, changed);
        picture = &changed;
      }
      Normalize(*picture, table_, images);
      images += picture_bytes;
      *labels++ = sample.label;
    }
    return batch;
  }

  const Dataset& dataset_;
  const uint64_t seed_;
  const config::AugmentConfig augment_;
  const bool augmenting_;
  const std::vector<float> table_;
  const at::Device device_;
  const bool feeds_;
};

// Hands out what the loader threads make; where it goes to a device, a batch ahead.
class Delivery {
 public:
  Delivery(std::unique_ptr<DeviceFeed> feed, const PrefetchOptions& options,
           Prefetch<Loaded>::Maker maker)
      : feed_(std::move(feed)), prefetch_(options, std::move(maker)) {}

  void Await() {
    if (next_ || (feed_ && feed_->staged())) return;
    next_ = prefetch_.Next();
    if (feed_) Stage(*std::move(next_));
  }

  Batch Next() {
    Await();
    if (!feed_) return std::exchange(next_, std::nullopt)->batch;
    Batch batch;
    batch.step = staged_step_;
    const DeviceFeed::Tensors made = feed_->Make();
    batch.images = made.images;
    batch.labels = made.labels;
    // When it is not there yet, the step must not wait for it; the next call does.
    if (std::optional<Loaded> following = prefetch_.TryNext()) Stage(*std::move(following));
    return batch;
  }

 private:
  void Stage(Loaded loaded) {
    staged_step_ = loaded.batch.step;
    feed_->Stage(std::move(loaded.feed));
    next_.reset();
  }

  std::unique_ptr<DeviceFeed> feed_;  // Null: batches come as they are to be.
  std::optional<Loaded> next_;
  int64_t staged_step_ = 0;
  Prefetch<Loaded> prefetch_;
};

bool Resides(const Dataset& dataset, const BatchesOptions& options) {
  if (options.device.is_cpu() && !options.feed_on_cpu) return false;
  switch (options.resident) {
    case config::Use::kAlways:
      return true;
    case config::Use::kNever:
      return false;
    case config::Use::kAuto:
      break;
  }
  return ResidentSet::BytesOf(dataset) <= options.free_device_bytes / 4;
}

// Reading all there is holds up the first step: with all the processor has.
int FillThreads(const BatchesOptions& options) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return std::max(options.threads, std::clamp(cores / options.world_size, 1, kMostFillThreads));
}

}  // namespace

struct Batches::Impl {
  Impl(const Dataset& dataset, const BatchesOptions& options)
      : maker(dataset, options, /*training=*/true),
        share(ShareOf(options.global_batch, options.rank, options.world_size)),
        order(options.seed, dataset.size(), options.global_batch),
        steps_per_epoch(order.steps_per_epoch()),
        resident(Resides(dataset, options)
                     ? std::make_unique<ResidentSet>(dataset, options.device, FillThreads(options))
                     : nullptr),
        delivery(maker.MakeFeed(share.end - share.begin, resident.get()),
                 {options.threads, options.depth, options.first_step},
                 [this](int64_t step, const std::stop_token& stop) {
                   return maker.Make(step, Refs(step), resident.get(), stop);
                 }) {}

  std::vector<SampleRef> Refs(int64_t step) {
    const std::scoped_lock lock(order_mutex);
    return order.Slice(step, share.begin, share.end);
  }

  const BatchMaker maker;
  const Share share;
  std::mutex order_mutex;
  SampleOrder order;  // Guarded by order_mutex.
  const double steps_per_epoch;
  const std::unique_ptr<ResidentSet> resident;  // Null: pictures are read when they are needed.
  int64_t samples_read = 0;
  Delivery delivery;  // Last: its threads use everything above.
};

Batches::Batches(const Dataset& dataset, const BatchesOptions& options)
    : impl_(std::make_unique<Impl>(dataset, options)) {}
Batches::~Batches() = default;

void Batches::Await() {
  impl_->delivery.Await();
}
bool Batches::resident() const {
  return impl_->resident != nullptr;
}
Batch Batches::Next() {
  Batch batch = impl_->delivery.Next();
  impl_->samples_read += batch.labels.size(0);
  return batch;
}

double Batches::steps_per_epoch() const {
  return impl_->steps_per_epoch;
}
int64_t Batches::samples_read() const {
  return impl_->samples_read;
}

struct EvalBatches::Impl {
  Impl(const Dataset& dataset, const BatchesOptions& options)
      : maker(dataset, options, /*training=*/false),
        size(dataset.size()),
        batch(options.global_batch),
        rank(options.rank),
        world_size(options.world_size),
        count(Count(dataset, options)),
        delivery(maker.MakeFeed(batch, /*resident=*/nullptr),
                 {options.threads, options.depth, 0, count},
                 [this](int64_t number, const std::stop_token& stop) {
                   return maker.Make(number, Refs(number), /*resident=*/nullptr, stop);
                 }) {}

  static int64_t Count(const Dataset& dataset, const BatchesOptions& options) {
    if (options.global_batch < 1 || options.world_size < 1 || options.rank < 0 ||
        options.rank >= options.world_size) {
      throw std::invalid_argument(
          "evaluation in batches of " + std::to_string(options.global_batch) + " on rank " +
          std::to_string(options.rank) + " of " + std::to_string(options.world_size));
    }
    // By the largest share, rank 0's, so that all ranks come to the same number.
    const int64_t share = (dataset.size() + options.world_size - 1) / options.world_size;
    return (share + options.global_batch - 1) / options.global_batch;
  }

  std::vector<SampleRef> Refs(int64_t number) const {
    std::vector<SampleRef> refs;
    for (int64_t i = number * batch; i < (number + 1) * batch; ++i) {
      const int64_t index = i * world_size + rank;
      if (index >= size) break;
      refs.push_back({index, 0});
    }
    return refs;
  }

  const BatchMaker maker;
  const int64_t size;
  const int64_t batch;
  const int rank;
  const int world_size;
  const int64_t count;
  Delivery delivery;  // Last: its threads use everything above.
};

EvalBatches::EvalBatches(const Dataset& dataset, const BatchesOptions& options)
    : impl_(std::make_unique<Impl>(dataset, options)) {}
EvalBatches::~EvalBatches() = default;

int64_t EvalBatches::count() const {
  return impl_->count;
}
Batch EvalBatches::Next() {
  return impl_->delivery.Next();
}

}  // namespace lockstep::trainer
