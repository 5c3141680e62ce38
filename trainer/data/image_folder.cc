#include "trainer/data/image_folder.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "trainer/data/duplicates.h"
#include "trainer/data/split.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void FailFolder(const fs::path& folder, const std::string& what) {
  throw DataError(folder.string() + ": " + what);
}

bool IsFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// Folders within `folder`, sorted by name; hidden ones left out. A link that leads nowhere may have
// been a class and is an error.
std::vector<std::string> ListFolders(const fs::path& folder) {
  std::vector<std::string> names;
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      std::string name = entry.path().filename().string();
      if (name.front() == '.') continue;
      std::error_code error;
      const bool is_folder = entry.is_directory(error);
      if (entry.is_symlink() && !entry.exists(error)) {
        FailFolder(entry.path(), "a link that leads nowhere; repair or remove it");
      }
      if (is_folder) names.push_back(std::move(name));
    }
  } catch (const fs::filesystem_error& error) {
    FailFolder(folder, "cannot list the folder: " + error.code().message());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// What a listing is made from: one split's folder, or all classes' folder.
class Lister {
 public:
  Lister(const fs::path& folder, const std::string& root, std::vector<std::string> classes) {
    listing_.what = "image_folder " + folder.string();
    listing_.root = root;
    listing_.classes = std::move(classes);
    listing_.every_class_needed = true;
    folder_ = folder;
  }

  /// The pictures of `name`, which has label `label`.
  void AddClass(const std::string& name, uint32_t label) {
    const fs::path folder = folder_ / name;
    const size_t before = listing_.items.size();
    const auto place = static_cast<uint32_t>(listing_.places.size());
    listing_.places.push_back(folder.string());
    int64_t others = 0;
    int64_t folders = 0;
    try {
      for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        std::string file = entry.path().filename().string();
        std::error_code error;  // A link that leads nowhere counts as a file: opening it will tell.
        if (entry.is_directory(error)) {
          ++folders;
        } else if (file.front() != '.' && IsPictureName(file)) {
          listing_.items.push_back({.place = place, .label = label, .name = std::move(file)});
        } else {
          ++others;
        }
      }
    } catch (const fs::filesystem_error& error) {
      FailFolder(folder, "cannot list the folder: " + error.code().message());
    }
    other_files_ += others;
    if (listing_.items.size() == before) {
      empty_.push_back(folder.string() +
                       ": the class has no pictures: no *.jpg, *.jpeg, *.png or " +
                       "*.webp lies in its folder (" + std::to_string(others) +
                       " other files and " + std::to_string(folders) + " folders do)");
    }
    std::sort(listing_.items.begin() + static_cast<std::ptrdiff_t>(before), listing_.items.end(),
              [](const PictureItem& a, const PictureItem& b) { return a.name < b.name; });
  }

  /// Throws DataError naming the classes without pictures.
  PictureListing Finish() && {
    if (!empty_.empty()) {
      throw DataError(ListProblems(listing_.what + ": " + std::to_string(empty_.size()) +
                                       " classes are empty; add pictures or remove the folders:",
                                   empty_));
    }
    if (listing_.items.size() >= std::numeric_limits<uint32_t>::max()) {
      FailFolder(folder_, "more than 2^32 pictures");
    }
    if (other_files_ > 0) {
      listing_.notes.push_back(std::to_string(other_files_) + " other files left out");
    }
    return std::move(listing_);
  }

 private:
  PictureListing listing_;
  fs::path folder_;
  std::vector<std::string> empty_;
  int64_t other_files_ = 0;
};

// All of one folder of class folders. `known` as in OpenRequest::classes.
PictureListing ListFolder(const fs::path& folder, const fs::path& root,
                          const std::vector<std::string>* known) {
  const std::vector<std::string> found = ListFolders(folder);
  if (found.empty()) {
    FailFolder(folder,
               "has no pictures: no class folders in it; expected one folder per "
               "class with its pictures");
  }
  Lister lister(folder, root.string(), known != nullptr ? *known : found);
  std::vector<std::string> unknown;
  for (size_t i = 0; i < found.size(); ++i) {
    size_t label = i;
    if (known != nullptr) {
      const auto at = std::find(known->begin(), known->end(), found[i]);
      if (at == known->end()) {
        unknown.push_back(found[i]);
        continue;
      }
      label = static_cast<size_t>(at - known->begin());
    }
    lister.AddClass(found[i], static_cast<uint32_t>(label));
  }
  if (!unknown.empty()) {
    throw DataError(ListProblems(folder.string() + ": " + std::to_string(unknown.size()) +
                                     " folders are no class that the model knows:",
                                 unknown));
  }
  PictureListing listing = std::move(lister).Finish();
  listing.every_class_needed = known == nullptr;
  return listing;
}

struct Folders {
  fs::path train;  // Empty: not there.
  fs::path eval;
  fs::path test;
};

Folders FindSplits(const fs::path& path) {
  Folders folders;
  if (IsFolder(path / "train")) folders.train = path / "train";
  if (IsFolder(path / "val")) folders.eval = path / "val";
  if (IsFolder(path / "test")) {
    (folders.eval.empty() ? folders.eval : folders.test) = path / "test";
  }
  return folders;
}

// Refuses a class that only one of two splits has.
void CompareClasses(const fs::path& train, const fs::path& other) {
  const std::vector<std::string> ours = ListFolders(train);
  const std::vector<std::string> theirs = ListFolders(other);
  const auto refuse = [](const fs::path& where, const fs::path& has,
                         const std::vector<std::string>& missing) {
    if (missing.empty()) return;
    FailFolder(where, "has no folder for class '" + missing.front() + "' that " + has.string() +
                          " has (" + std::to_string(missing.size()) + " such classes)");
  };
  std::vector<std::string> missing;
  std::set_difference(ours.begin(), ours.end(), theirs.begin(), theirs.end(),
                      std::back_inserter(missing));
  if (!ours.empty()) refuse(other, train, missing);
  missing.clear();
  std::set_difference(theirs.begin(), theirs.end(), ours.begin(), ours.end(),
                      std::back_inserter(missing));
  if (!ours.empty()) refuse(train, other, missing);
}

// Pictures that differ in nothing but the ending are often one picture twice.
void NoteTwins(PictureListing& listing) {
  int64_t twins = 0;
  std::string example;
  std::set<std::pair<uint32_t, std::string>> stems;
  for (const PictureItem& item : listing.items) {
    std::string stem = fs::path(item.name).stem().string();
    if (stems.emplace(item.place, std::move(stem)).second) continue;
    if (++twins == 1) example = listing.NameOf(item);
  }
  if (twins == 0) return;
  listing.notes.push_back(std::to_string(twins) +
                          " pictures have the name of another but for the ending, like " + example);
}

PictureListing ListShared(const fs::path& path, const OpenRequest& request) {
  if (IsFolder(path / "train") && (IsFolder(path / "val") || IsFolder(path / "test"))) {
    FailFolder(path,
               "has folders train/ and val/ or test/, and data.split is given too; remove "
               "data.split, or name a folder of class folders");
  }
  PictureListing all = ListFolder(path, path, request.classes);
  std::vector<std::string> names;
  std::vector<uint32_t> labels;
  for (const PictureItem& item : all.items) {
    names.push_back(item.name);
    labels.push_back(item.label);
  }
  std::vector<uint8_t> parts;
  try {
    parts = SplitSamples({.names = names,
                          .labels = labels,
                          .classes = all.classes,
                          .shares = request.config.data.split,
                          .seed = request.config.seed});
  } catch (const DataError& error) {
    FailFolder(path, error.what());
  }
  const size_t count = request.config.data.split.size();
  const uint8_t wanted = PartOfSplit(request.split, count);
  std::vector<uint32_t> kept;
  std::vector<uint32_t> training;
  for (uint32_t i = 0; i < parts.size(); ++i) {
    if (parts[i] == wanted) kept.push_back(i);
    if (parts[i] == 0) training.push_back(i);
  }
  PictureListing train;
  if (wanted != 0) {
    train = all;
    train.Keep(training);
  }
  all.Keep(kept);
  all.what += std::string(" (") + ToString(wanted == 1 ? Split::kEval : request.split) + " part)";
  if (wanted != 0) NoteDuplicates(train, all);
  return all;
}

PictureListing ListGiven(const fs::path& path, const OpenRequest& request) {
  const bool judging = request.classes != nullptr && request.split != Split::kTrain;
  const Folders folders = FindSplits(path);
  if (judging && folders.eval.empty()) {
    return ListFolder(folders.train.empty() ? path : folders.train, path, request.classes);
  }
  if (folders.train.empty() && !judging) {
    FailFolder(path,
               "has no folder train/; expected train/<class>/*.jpg, or <class>/*.jpg and "
               "data.split: [80, 20]");
  }
  if (folders.eval.empty()) {
    FailFolder(path,
               "has neither val/ nor test/; expected val/<class>/*.jpg with the held-out "
               "pictures, or data.path: " +
                   folders.train.string() + " and data.split: [80, 20]");
  }
  if (request.classes == nullptr) {
    CompareClasses(folders.train, folders.eval);
    if (!folders.test.empty()) CompareClasses(folders.train, folders.test);
  }
  const bool test = request.split == Split::kTest && !folders.test.empty();
  const fs::path& folder = request.split == Split::kTrain ? folders.train
                           : test                         ? folders.test
                                                          : folders.eval;
  PictureListing listing = ListFolder(folder, path, request.classes);
  if (request.split != Split::kTrain && !folders.train.empty() && request.classes == nullptr) {
    NoteDuplicates(ListFolder(folders.train, path, nullptr), listing);
  }
  return listing;
}

bool HasTestSplit(const fs::path& path, const config::DataConfig& data) {
  return data.split.empty() ? !FindSplits(path).test.empty() : data.split.size() > 2;
}

}  // namespace

bool IsPictureName(const std::string& name) {
  constexpr std::array<std::string_view, 4> kEndings = {".jpg", ".jpeg", ".png", ".webp"};
  std::string ending = fs::path(name).extension().string();
  for (char& c : ending) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

PictureListing ListImageFolder(const OpenRequest& request) {
  const fs::path path = request.config.data.path;
  if (!IsFolder(path)) {
    FailFolder(path,
               "no such folder; data.path must name the folder that holds train/ and val/ "
               "or test/, or the classes' folders");
  }
  PictureListing listing =
      request.config.data.split.empty() ? ListGiven(path, request) : ListShared(path, request);
  NoteTwins(listing);
  if (request.split == Split::kTest && !HasTestSplit(path, request.config.data)) {
    listing.notes.emplace_back("there is no test split: these are the held-out pictures");
  }
  return listing;
}

}  // namespace lockstep::trainer
