#include "trainer/data/image_listing.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <limits>
#include <system_error>
#include <utility>

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void FailFolder(const fs::path& folder, const std::string& what) {
  throw DataError(folder.string() + ": " + what);
}

// Folders within `folder`, sorted by name; hidden ones left out.
std::vector<std::string> ListFolders(const fs::path& folder) {
  std::vector<std::string> names;
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      std::string name = entry.path().filename().string();
      std::error_code error;
      if (name.front() != '.' && entry.is_directory(error)) names.push_back(std::move(name));
    }
  } catch (const fs::filesystem_error& error) {
    FailFolder(folder, "cannot list the folder: " + error.code().message());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool IsPictureName(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

void ListClass(const fs::path& folder, uint32_t label, ImageListing& listing) {
  const size_t before = listing.pictures.size();
  const int64_t others_before = listing.other_files;
  int64_t folders = 0;
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      std::string name = entry.path().filename().string();
      std::error_code error;  // A link that leads nowhere counts as a file: opening it will tell.
      if (entry.is_directory(error)) {
        ++folders;
      } else if (name.front() != '.' && IsPictureName(entry.path())) {
        listing.pictures.push_back({label, std::move(name)});
      } else {
        ++listing.other_files;
      }
    }
  } catch (const fs::filesystem_error& error) {
    FailFolder(folder, "cannot list the folder: " + error.code().message());
  }
  if (listing.pictures.size() == before) {
    FailFolder(folder, "the class has no pictures: no *.jpg, *.jpeg or *.png lies in its folder (" +
                           std::to_string(listing.other_files - others_before) +
                           " other files and " + std::to_string(folders) +
                           " folders do); add pictures or remove the folder");
  }
  std::sort(listing.pictures.begin() + static_cast<std::ptrdiff_t>(before), listing.pictures.end(),
            [](const ImageEntry& a, const ImageEntry& b) { return a.name < b.name; });
}

struct Folders {
  fs::path train;
  fs::path eval;
};

Folders FindSplits(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    FailFolder(path,
               "no such folder; data.path must name the folder that holds train/ and val/ "
               "or test/");
  }
  Folders folders{path / "train", path / "val"};
  if (!fs::is_directory(folders.eval, error)) folders.eval = path / "test";
  if (!fs::is_directory(folders.train, error)) {
    FailFolder(path, "has no folder train/; expected train/<class>/*.jpg");
  }
  if (!fs::is_directory(folders.eval, error)) {
    FailFolder(path,
               "has neither val/ nor test/; expected val/<class>/*.jpg with the held-out "
               "pictures");
  }
  return folders;
}

// The class folders of both splits, which must be the same.
std::vector<std::string> ListClasses(const Folders& folders) {
  std::vector<std::string> train = ListFolders(folders.train);
  const std::vector<std::string> eval = ListFolders(folders.eval);
  if (train.empty()) {
    FailFolder(folders.train,
               "has no pictures: no class folders in it; expected one folder per "
               "class with its pictures");
  }
  std::vector<std::string> missing;
  std::set_difference(train.begin(), train.end(), eval.begin(), eval.end(),
                      std::back_inserter(missing));
  if (!missing.empty()) {
    FailFolder(folders.eval, "has no folder for class '" + missing.front() + "' that " +
                                 folders.train.string() + " has (" +
                                 std::to_string(missing.size()) + " such classes)");
  }
  std::set_difference(eval.begin(), eval.end(), train.begin(), train.end(),
                      std::back_inserter(missing));
  if (!missing.empty()) {
    FailFolder(folders.train, "has no folder for class '" + missing.front() + "' that " +
                                  folders.eval.string() + " has (" +
                                  std::to_string(missing.size()) + " such classes)");
  }
  return train;
}

}  // namespace

ImageListing ListImages(const fs::path& path, Split split) {
  const Folders folders = FindSplits(path);
  ImageListing listing;
  listing.folder = split == Split::kTrain ? folders.train : folders.eval;
  listing.classes = ListClasses(folders);
  for (size_t label = 0; label < listing.classes.size(); ++label) {
    ListClass(listing.folder / listing.classes[label], static_cast<uint32_t>(label), listing);
  }
  if (listing.pictures.size() >= std::numeric_limits<uint32_t>::max()) {
    FailFolder(listing.folder, "more than 2^32 pictures");
  }
  if (split == Split::kTrain) {
    listing.first_training_picture = listing.PathOf(0);
  } else {
    ImageListing train;
    const fs::path first_class = folders.train / listing.classes.front();
    ListClass(first_class, 0, train);
    listing.first_training_picture = first_class / train.pictures.front().name;
  }
  return listing;
}

}  // namespace lockstep::trainer
