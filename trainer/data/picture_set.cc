#include "trainer/data/picture_set.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <utility>
#include <vector>

#include "trainer/data/scan.h"
#include "trainer/pictures/cache_folder.h"
#include "trainer/pictures/fingerprint.h"
#include "trainer/pictures/picture_reader.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {
namespace {

std::string ToText(const PictureSize& size) {
  return std::to_string(size.width) + "x" + std::to_string(size.height);
}

// Takes the bad pictures out of the listing and the scan, or throws.
std::vector<std::string> TakeOutBad(PictureListing& listing, ScanResult& scan, bool skip) {
  std::vector<std::string> bad = std::move(listing.unusable);
  const auto known = static_cast<int64_t>(bad.size());
  const int64_t all = listing.size() + known;
  for (auto& [index, problem] : scan.problems) bad.push_back(std::move(problem));
  if (bad.empty()) return bad;
  if (!skip || std::ssize(bad) == all) {
    throw DataError(ListProblems(
        listing.what + ": " + std::to_string(bad.size()) + " of " + std::to_string(all) +
            " samples cannot be used; repair or remove them, or leave them out with "
            "data.on_bad_sample: skip",
        bad));
  }
  std::vector<uint32_t> kept;
  ScanResult good;
  good.remembered = scan.remembered;
  for (int64_t i = 0; i < listing.size(); ++i) {
    if (scan.problems.contains(i)) continue;
    kept.push_back(static_cast<uint32_t>(i));
    good.sizes.push_back(scan.sizes[static_cast<size_t>(i)]);
    good.stamps.push_back(scan.stamps[static_cast<size_t>(i)]);
  }
  listing.Keep(kept);
  scan = std::move(good);
  return bad;
}

// The config's preprocessing, for pictures that have these sizes.
Preprocessing FromConfig(const PictureListing& listing, const std::vector<PictureSize>& sizes,
                         const config::RunConfig& config) {
  const PictureSize first = sizes.front();
  const auto other =
      std::find_if(sizes.begin(), sizes.end(), [&](const PictureSize& s) { return s != first; });
  if (other == sizes.end()) {
    return PreprocessingOf(config.data, config.model, 3, first.height, first.width);
  }
  try {
    return PreprocessingOf(config.data, config.model, 3, 0, 0);
  } catch (const DataError& error) {
    const auto at = static_cast<size_t>(other - sizes.begin());
    throw DataError(listing.NameOf(listing.items[at]) + ": " + ToText(*other) + " pixels, but " +
                    listing.NameOf(listing.items.front()) + " has " + ToText(first) + ": " +
                    error.what());
  }
}

class PictureSet final : public Dataset {
 public:
  PictureSet(PictureListing listing, ScanResult scan, std::vector<std::string> skipped,
             const Preprocessing& preprocessing, const PictureSetOptions& options)
      : listing_(std::move(listing)),
        stamps_(std::move(scan.stamps)),
        skipped_(std::move(skipped)),
        split_(options.split),
        replace_(options.config.data.on_bad_sample == config::OnBadSample::kSkip),
        reader_(
            {.count = listing_.size(),
             .read = [this](int64_t index,
                            std::vector<std::byte>& bytes) { listing_.Read(Item(index), bytes); },
             .name = [this](int64_t index) { return NameOf(index); },
             .stamp = [this](int64_t index) { return StampText(index); }},
            preprocessing, options.config.data.cache, options.config.data.cache_folder) {
    if (!listing_.every_class_needed) return;
    const std::vector<int64_t> counts = ClassCounts();
    std::vector<std::string> empty;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == 0) empty.push_back(listing_.classes[i]);
    }
    if (empty.empty()) return;
    throw DataError(ListProblems(listing_.what + ": " + std::to_string(empty.size()) +
                                     " classes have no usable picture left; repair their pictures "
                                     "or remove their folders:",
                                 empty));
  }

  int64_t size() const override { return listing_.size(); }
  int width() const override { return preprocessing().width; }
  int height() const override { return preprocessing().height; }
  int channels() const override { return preprocessing().channels; }
  const std::vector<std::string>& classes() const override { return listing_.classes; }
  const std::vector<Target>& targets() const override { return listing_.targets; }
  int64_t LabelOf(int64_t index) const override { return Item(index).label; }
  std::vector<int64_t> StoredRuns() const override {
    std::vector<int64_t> ends;
    if (!listing_.archives) return ends;
    for (int64_t i = 1; i <= size(); ++i) {
      if (i == size() || Item(i).place != Item(i - 1).place) ends.push_back(i);
    }
    return ends;
  }
  std::string NameOf(int64_t index) const override { return listing_.NameOf(Item(index)); }
  const Preprocessing& preprocessing() const override { return reader_.preprocessing(); }
  std::vector<std::string> Skipped() const override { return skipped_; }
  int64_t replaced() const override { return replaced_.load(std::memory_order_relaxed); }

  void Read(int64_t index, Sample& sample) const override {
    ReadOrReplace(index, sample, [&](int64_t i) { reader_.Read(i, sample.picture); });
  }
  void ReadWhole(int64_t index, const PartOf& part, Sample& sample) const override {
    ReadOrReplace(index, sample, [&](int64_t i) { reader_.ReadWhole(i, part, sample.picture); });
  }

  std::string Fingerprint() const override {
    class Fingerprint fingerprint;
    fingerprint.Add(ToString(split_));
    fingerprint.Add(size());
    for (const std::string& name : listing_.classes) fingerprint.Add(name);
    for (const Target& target : listing_.targets) {
      fingerprint.Add(target.name);
      fingerprint.Add(target.mean);
      fingerprint.Add(target.std);
    }
    for (int64_t i = 0; i < size(); ++i) {
      fingerprint.Add(StampText(i));
      fingerprint.Add(LabelOf(i));
    }
    for (const double value : listing_.values) fingerprint.Add(value);
    fingerprint.Add(preprocessing().ToJson());
    return fingerprint.Hex();
  }

  std::string Describe() const override {
    std::string text = listing_.what + ": " + std::to_string(size()) + " pictures, ";
    text += listing_.targets.empty() ? DescribeCounts(listing_.classes, ClassCounts())
                                     : std::to_string(listing_.targets.size()) + " targets";
    text += ", " + std::to_string(width()) + "x" + std::to_string(height());
    if (!skipped_.empty()) {
      text += "; " + std::to_string(skipped_.size()) + " bad samples left out";
    }
    for (const std::string& note : listing_.notes) text += "; " + note;
    const std::string kept = reader_.Describe();
    return kept.empty() ? text : text + "; " + kept;
  }

 private:
  const PictureItem& Item(int64_t index) const {
    if (index < 0 || index >= size()) {
      throw DataError(listing_.what + ": sample " + std::to_string(index) + " of " +
                      std::to_string(size()));
    }
    return listing_.items[static_cast<size_t>(index)];
  }

  // Name, size and time of change; within the data set, so that a moved one is the same.
  std::string StampText(int64_t index) const {
    const PictureItem& item = Item(index);
    const FileStamp& stamp = stamps_[static_cast<size_t>(index)];
    std::string name = NameOf(index);
    if (name.starts_with(listing_.root)) name.erase(0, listing_.root.size());
    return name + "\n" + std::to_string(stamp.bytes) + " " + std::to_string(stamp.changed_ns) +
           " " + (listing_.archives ? std::to_string(item.position) : "");
  }

  template <typename ReadPicture>
  void ReadOrReplace(int64_t index, Sample& sample, const ReadPicture& read) const {
    const int64_t asked = LabelOf(index);
    int64_t used = index;
    try {
      read(index);
    } catch (const DataError& error) {
      const std::string what = std::string(error.what()) +
                               " (it was sound when the run began: changed or removed since)";
      if (!replace_) throw DataError(what);
      used = Replace(index, asked, read);
      if (used == index) throw DataError(what + "; no sample is left to replace it with");
      replaced_.fetch_add(1, std::memory_order_relaxed);
    }
    sample.label = asked;
    sample.features.clear();
    sample.targets.clear();
    for (size_t i = 0; i < listing_.targets.size(); ++i) {
      const double value = listing_.values[static_cast<size_t>(used) * listing_.targets.size() + i];
      const Target& target = listing_.targets[i];
      sample.targets.push_back(static_cast<float>((value - target.mean) / target.std));
    }
  }

  // Reads the next readable sample of the class and says which one it was; `index` itself: none.
  template <typename ReadPicture>
  int64_t Replace(int64_t index, int64_t label, const ReadPicture& read) const {
    constexpr int kMostTries = 1000;  // A folder that went away as a whole must not stall a step.
    int tries = 0;
    for (int64_t step = 1; step < size() && tries < kMostTries; ++step) {
      const int64_t candidate = (index + step) % size();
      if (LabelOf(candidate) != label) continue;
      ++tries;
      try {
        read(candidate);
        return candidate;
      } catch (const DataError&) {
        continue;
      }
    }
    return index;
  }

  const PictureListing listing_;
  const std::vector<FileStamp> stamps_;
  const std::vector<std::string> skipped_;
  const Split split_;
  const bool replace_;
  mutable std::atomic<int64_t> replaced_{0};
  const PictureReader reader_;  // Last: it calls back into the others.
};

}  // namespace

std::unique_ptr<Dataset> OpenPictureSet(PictureListing listing, const PictureSetOptions& options) {
  const config::DataConfig& data = options.config.data;
  if (listing.items.empty() && listing.unusable.empty()) {
    throw DataError(listing.what + ": has no pictures");
  }
  const bool remember = data.cache != config::PictureCacheKind::kNever;
  ScanResult scan = ScanPictures(
      listing, {.threads = 0, .memory_folder = remember ? CacheFolder(data.cache_folder) : ""});
  std::vector<std::string> skipped =
      TakeOutBad(listing, scan, data.on_bad_sample == config::OnBadSample::kSkip);
  const Preprocessing preprocessing = options.preprocessing != nullptr
                                          ? *options.preprocessing
                                          : FromConfig(listing, scan.sizes, options.config);
  return std::make_unique<PictureSet>(std::move(listing), std::move(scan), std::move(skipped),
                                      preprocessing, options);
}

}  // namespace lockstep::trainer
