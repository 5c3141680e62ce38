#include "trainer/batches/batches.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "trainer/batches/batch_maker.h"
#include "trainer/batches/device_feed.h"
#include "trainer/batches/prefetch.h"
#include "trainer/batches/resident.h"
#include "trainer/batches/sample_order.h"

namespace lockstep::trainer {
namespace {

constexpr int kMostFillThreads = 8;

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
    batch.targets = made.targets;
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

bool Resides(const Dataset& dataset, const BatchesOptions& options, const BatchMaker& maker) {
  if (!maker.feeds()) return false;
  switch (options.resident) {
    case config::Use::kAlways:
      if (maker.finishes()) {
        throw std::invalid_argument(
            "data.resident is always, but data.augment has more than flip and crop_padding, which "
            "only the host can do; set data.resident to auto");
      }
      return dataset.features() == 0;
    case config::Use::kNever:
      return false;
    case config::Use::kAuto:
      break;
  }
  return !maker.finishes() && dataset.features() == 0 &&
         ResidentSet::BytesOf(dataset) <= options.free_device_bytes / 4;
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
        batch(options.global_batch),
        share(ShareOf(options.global_batch, options.rank, options.world_size)),
        order(options.seed, dataset.size(), options.global_batch, dataset.StoredRuns()),
        steps_per_epoch(order.steps_per_epoch()),
        resident(Resides(dataset, options, maker)
                     ? std::make_unique<ResidentSet>(dataset, options.device, FillThreads(options))
                     : nullptr),
        delivery(maker.MakeFeed(share.end - share.begin, resident.get()),
                 {options.threads, options.depth, options.first_step},
                 [this](int64_t step, const std::stop_token& stop) {
                   return maker.Make(step, Refs(step), resident.get(), stop);
                 }) {}

  std::vector<SampleRef> Refs(int64_t step) {
    const std::scoped_lock lock(order_mutex);
    std::vector<SampleRef> refs = order.Slice(step, share.begin, share.end);
    if (!maker.mixes() || refs.empty()) return refs;
    // The partner of the share's last sample.
    const bool last = share.end == batch;
    const std::vector<SampleRef> next =
        last ? order.Slice(step + 1, 0, 1) : order.Slice(step, share.end, share.end + 1);
    refs.push_back(next.front());
    return refs;
  }

  const BatchMaker maker;
  const int64_t batch;
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
  impl_->samples_read += batch.targets.size();
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
      : maker(dataset, Unmixed(options), /*training=*/options.augment_epoch >= 0),
        epoch(std::max<int64_t>(0, options.augment_epoch)),
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

  // A sample of its own label is asked for here.
  static BatchesOptions Unmixed(BatchesOptions options) {
    options.augment.mixup = options.augment.cutmix = 0;
    return options;
  }

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
      refs.push_back({index, epoch});
    }
    return refs;
  }

  const BatchMaker maker;
  const int64_t epoch;
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
  Batch batch = impl_->delivery.Next();
  for (const SampleRef& ref : impl_->Refs(batch.step)) batch.indices.push_back(ref.index);
  return batch;
}

}  // namespace lockstep::trainer
