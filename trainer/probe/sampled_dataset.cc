#include "trainer/probe/sampled_dataset.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {

SampledDataset::SampledDataset(const Dataset& all, int64_t size)
    : all_(all), size_(all.size() == 0 ? 0 : size) {
  if (size_ > all_.size()) return;
  for (const int64_t end : all_.StoredRuns()) {
    runs_.push_back(std::min(end, size_));
    if (end >= size_) break;
  }
}

int64_t SampledDataset::Inner(int64_t index) const {
  const int64_t sample = index % size_;
  const int64_t view = index / size_;
  int64_t inner = sample;
  if (size_ > all_.size()) {
    inner = sample % all_.size();
  } else if (runs_.empty()) {
    // Below 2^63: neither a batch nor a data set comes near 2^31 samples squared.
    inner = sample * all_.size() / size_;
  }
  return inner + view * all_.size();
}

std::string SampledDataset::Fingerprint() const {
  return absl::StrCat(all_.Fingerprint(), "-", size_);
}

}  // namespace lockstep::trainer
