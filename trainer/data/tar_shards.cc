#include "trainer/data/tar_shards.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "trainer/data/csv_file.h"
#include "trainer/data/input_file.h"
#include "trainer/data/split.h"
#include "trainer/data/tar_samples.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostClasses = 100'000;

// The archives of the three parts, or all of them in the first.
struct Shards {
  std::vector<fs::path> parts[3];
  bool split = true;  // The parts are given.
};

bool IsTar(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  std::error_code error;
  return name.front() != '.' && name.ends_with(".tar") && !entry.is_directory(error);
}

std::vector<fs::path> TarsIn(const fs::path& folder) {
  std::vector<fs::path> found;
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      if (IsTar(entry)) found.push_back(entry.path());
    }
  } catch (const fs::filesystem_error& error) {
    throw DataError(folder.string() + ": cannot list the folder: " + error.code().message());
  }
  std::sort(found.begin(), found.end());
  return found;
}

Shards FindShards(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    throw DataError(path.string() +
                    ": no such folder; data.path must name the folder of the .tar files");
  }
  constexpr const char* kWords[] = {"train", "val", "test"};
  Shards shards;
  for (size_t part = 0; part < 3; ++part) {
    if (fs::is_directory(path / kWords[part], error)) {
      shards.parts[part] = TarsIn(path / kWords[part]);
    }
  }
  std::vector<fs::path> others;
  for (const fs::path& tar : TarsIn(path)) {
    const std::string name = tar.filename().string();
    bool matched = false;
    for (size_t part = 0; part < 3 && !matched; ++part) {
      const std::string word = kWords[part];
      matched =
          name.starts_with(word) && !std::isalpha(static_cast<unsigned char>(name[word.size()]));
      if (matched) shards.parts[part].push_back(tar);
    }
    if (!matched) others.push_back(tar);
  }
  const bool any = std::any_of(std::begin(shards.parts), std::end(shards.parts),
                               [](const auto& part) { return !part.empty(); });
  if (!any) {
    if (others.empty()) {
      throw DataError(path.string() +
                      ": has no *.tar files (compressed archives must be unpacked first)");
    }
    shards.parts[0] = others;
    shards.split = false;
    return shards;
  }
  if (!others.empty()) {
    throw DataError(others.front().string() + ": is neither train-*.tar nor val-*.tar nor " +
                    "test-*.tar, as other archives beside it are; rename or move it");
  }
  if (shards.parts[1].empty()) std::swap(shards.parts[1], shards.parts[2]);
  return shards;
}

std::vector<std::string> ReadClassNames(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  const InputFile file(path.string());
  constexpr int64_t kMostBytes = int64_t{64} << 20;
  if (file.size() > kMostBytes) throw DataError(path.string() + ": too large for names of classes");
  std::vector<std::byte> bytes;
  file.Read(0, file.size(), bytes);
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (int64_t line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view name = text.substr(0, end);
    if (name.ends_with('\r')) name.remove_suffix(1);
    name = Trimmed(name);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (name.empty() && text.empty()) break;
    if (name.empty() || !seen.emplace(name).second) {
      throw DataError(path.string() + ":" + std::to_string(line) +
                      (name.empty() ? ": an empty line; expected the name of a class"
                                    : ": the class '" + std::string(name) + "' comes twice"));
    }
    names.emplace_back(name);
  }
  if (names.empty()) throw DataError(path.string() + ": is empty; expected the names of classes");
  return names;
}

std::optional<int64_t> ToNumber(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

// Turns the texts of all .cls into labels.
class Labels {
 public:
  Labels(const std::vector<TarSample>& samples, const fs::path& path, const OpenRequest& request) {
    by_number_ = !samples.empty() &&
                 std::all_of(samples.begin(), samples.end(), [](const TarSample& sample) {
                   return ToNumber(sample.class_text).has_value();
                 });
    const fs::path names_file = path / "classes.txt";
    known_ = ReadClassNames(names_file);
    source_ = names_file.string() + " has " + std::to_string(known_.size());
    // Numbers mean lines of classes.txt, or places among the classes of a checkpoint.
    if (known_.empty() && request.classes != nullptr) {
      known_ = *request.classes;
      source_ = "the model has " + std::to_string(known_.size());
    }
    const int64_t outputs = request.config.model.num_classes;
    if (known_.empty()) Gather(samples, outputs);
    classes = request.classes != nullptr ? *request.classes : known_;
    for (size_t i = 0; i < classes.size(); ++i) places_.emplace(classes[i], i);
  }

  std::vector<std::string> classes;

  /// What is wrong with the class of a sample, or nothing.
  std::string Find(const std::string& text, uint32_t& label) const {
    std::string name = text;
    if (by_number_) {
      const int64_t number = *ToNumber(text);
      if (number < 0 || number >= std::ssize(known_)) {
        return "class " + text + " is out of range; expected 0 to " +
               std::to_string(std::ssize(known_) - 1) + " (" + source_ + " classes)";
      }
      name = known_[static_cast<size_t>(number)];
    }
    const auto found = places_.find(name);
    if (found == places_.end()) return "class '" + name + "' is unknown (" + source_ + " classes)";
    label = static_cast<uint32_t>(found->second);
    return "";
  }

 private:
  // Without names from elsewhere: numbers up to the largest, or all names there are.
  void Gather(const std::vector<TarSample>& samples, int64_t outputs) {
    std::set<std::string> names;
    int64_t largest = -1;
    for (const TarSample& sample : samples) {
      if (by_number_) {
        const int64_t number = *ToNumber(sample.class_text);
        if (number < kMostClasses) largest = std::max(largest, number);
      } else {
        names.insert(sample.class_text);
      }
    }
    if (by_number_) {
      const int64_t count = outputs > 0 ? outputs : largest + 1;
      for (int64_t i = 0; i < count; ++i) known_.push_back(std::to_string(i));
      source_ = (outputs > 0 ? "model.num_classes says " : "there are ") + std::to_string(count);
    } else {
      known_.assign(names.begin(), names.end());
      source_ = "there are " + std::to_string(known_.size());
    }
  }

  bool by_number_ = false;
  std::vector<std::string> known_;  // What numbers stand for.
  std::string source_;
  std::map<std::string, size_t> places_;
};

// Some .cls that are numbers beside some that are names are a mistake in one of them.
void RefuseMixedClasses(const std::vector<TarSample>& samples, const std::string& root) {
  const TarSample* number = nullptr;
  const TarSample* name = nullptr;
  for (const TarSample& sample : samples) {
    (ToNumber(sample.class_text) ? number : name) = &sample;
  }
  if (number == nullptr || name == nullptr) return;
  throw DataError(root + ": some .cls hold numbers and some names: " + number->key + ".cls has '" +
                  number->class_text + "', " + name->key + ".cls has '" + name->class_text + "'");
}

void ShareOutSamples(std::vector<TarSample>& samples, const std::vector<std::string>& classes,
                     const OpenRequest& request) {
  std::vector<std::string> names;
  std::vector<uint32_t> labels;
  for (const TarSample& sample : samples) {
    names.push_back(sample.key + "\n" + std::to_string(sample.item.place));
    labels.push_back(sample.item.label);
  }
  // Classes that no sample has need no sample in each part.
  std::vector<std::string> used;
  std::map<uint32_t, uint32_t> renumbered;
  for (const uint32_t label : std::set<uint32_t>(labels.begin(), labels.end())) {
    renumbered.emplace(label, static_cast<uint32_t>(used.size()));
    used.push_back(classes[label]);
  }
  for (uint32_t& label : labels) label = renumbered[label];
  try {
    const std::vector<uint8_t> parts = SplitSamples({.names = names,
                                                     .labels = labels,
                                                     .classes = used,
                                                     .shares = request.config.data.split,
                                                     .seed = request.config.seed});
    for (size_t i = 0; i < parts.size(); ++i) samples[i].part = parts[i];
  } catch (const DataError& error) {
    throw DataError(request.config.data.path + ": " + error.what());
  }
}

// The part that the request is about, once every sample has one.
uint8_t ChoosePart(const Shards& shards, const OpenRequest& request) {
  const std::string& path = request.config.data.path;
  const config::DataConfig& data = request.config.data;
  const bool judging = request.classes != nullptr && request.split != Split::kTrain;
  if (!shards.split) {
    if (!data.split.empty()) return PartOfSplit(request.split, data.split.size());
    if (judging) return 0;  // All of them.
    throw DataError(path +
                    ": says nothing about what is held out; name the archives train-*.tar and "
                    "val-*.tar, or add data.split: [80, 20]");
  }
  if (!data.split.empty()) {
    throw DataError(path +
                    ": has train-*.tar and val-*.tar or the like, and data.split is given "
                    "too; remove data.split");
  }
  const auto has = [&](size_t part) { return !shards.parts[part].empty(); };
  if (judging && !has(1)) return 0;
  if (!has(1) || (!has(0) && !judging)) {
    throw DataError(path + ": has no " + (has(1) ? "train-*.tar" : "val-*.tar or test-*.tar"));
  }
  return PartOfSplit(request.split, has(2) ? 3 : 2);
}

}  // namespace

PictureListing ListTarShards(const OpenRequest& request) {
  const fs::path path = request.config.data.path;
  const Shards shards = FindShards(path);
  const uint8_t wanted = ChoosePart(shards, request);
  TarSampleReader reader;
  for (uint8_t part = 0; part < 3; ++part) {
    for (const fs::path& tar : shards.parts[part]) reader.Add(tar, part);
  }
  RefuseMixedClasses(reader.samples, path.string());
  const Labels labels(reader.samples, path, request);
  std::vector<TarSample> samples;
  for (TarSample& sample : reader.samples) {
    const std::string fault = labels.Find(sample.class_text, sample.item.label);
    if (fault.empty()) {
      samples.push_back(std::move(sample));
    } else {
      reader.problems.push_back(reader.places[sample.item.place] + ":" + sample.key +
                                ".cls: " + fault);
    }
  }
  if (!shards.split && !request.config.data.split.empty()) {
    ShareOutSamples(samples, labels.classes, request);
  }
  PictureListing listing;
  listing.what = "tar_shards " + path.string() + " (" + ToString(request.split) + " part)";
  listing.root = path.string();
  listing.places = std::move(reader.places);
  listing.archives = true;
  listing.classes = labels.classes;
  std::unordered_set<std::string> training;
  int64_t repeated = 0;
  for (const TarSample& sample : samples) {
    if (sample.part == 0 && wanted != 0) training.insert(sample.key);
  }
  for (TarSample& sample : samples) {
    if (sample.part != wanted) continue;
    if (shards.split && training.contains(sample.key)) ++repeated;
    listing.items.push_back(std::move(sample.item));
  }
  // Faulty samples belong to no part; they are told with the training part, and end the run in any.
  const bool fail = request.config.data.on_bad_sample == config::OnBadSample::kFail;
  if (fail || wanted == 0) listing.unusable = std::move(reader.problems);
  if (reader.other_members > 0) {
    listing.notes.push_back(std::to_string(reader.other_members) + " other members left out");
  }
  if (repeated > 0) {
    listing.notes.push_back("warning: " + std::to_string(repeated) +
                            " of them have the key of a training sample");
  }
  if (request.split == Split::kTest && wanted != 2) {
    listing.notes.emplace_back("there is no test split: these are the held-out pictures");
  }
  return listing;
}

}  // namespace lockstep::trainer
