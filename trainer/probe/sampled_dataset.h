// A few samples of a data set in its place, so that what is done once per sample (an evaluation,
// the features of a frozen trunk) takes seconds in a probe.
//
// Samples are spread evenly over the data set, because folders are in order of class and pictures
// of one class may be alike in size; where samples are stored in runs that are read one after
// another they are the first ones, or each would cost a seek. A sample larger than the data set
// repeats it.
#pragma once

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

class SampledDataset final : public Dataset {
 public:
  /// `all` outlives this; `size` may be 0, also of a data set that is not empty.
  SampledDataset(const Dataset& all, int64_t size);

  int64_t size() const override { return size_; }
  int width() const override { return all_.width(); }
  int height() const override { return all_.height(); }
  int channels() const override { return all_.channels(); }
  const std::vector<std::string>& classes() const override { return all_.classes(); }
  const std::vector<Target>& targets() const override { return all_.targets(); }
  int64_t features() const override { return all_.features(); }
  int64_t views() const override { return all_.views(); }
  int64_t LabelOf(int64_t index) const override { return all_.LabelOf(Inner(index)); }
  /// Of the whole data set: weights of classes must not depend on the sample.
  std::vector<int64_t> ClassCounts() const override { return all_.ClassCounts(); }
  std::vector<int64_t> StoredRuns() const override { return runs_; }
  std::string NameOf(int64_t index) const override { return all_.NameOf(Inner(index)); }
  std::string Fingerprint() const override;
  const Preprocessing& preprocessing() const override { return all_.preprocessing(); }
  void Read(int64_t index, Sample& sample) const override { all_.Read(Inner(index), sample); }
  void ReadWhole(int64_t index, const PartOf& part, Sample& sample) const override {
    all_.ReadWhole(Inner(index), part, sample);
  }
  int64_t replaced() const override { return all_.replaced(); }
  std::string Describe() const override { return all_.Describe(); }

 private:
  int64_t Inner(int64_t index) const;

  const Dataset& all_;
  const int64_t size_;
  std::vector<int64_t> runs_;
};

}  // namespace lockstep::trainer
