#include "trainer/data/picture_listing.h"

#include <utility>

#include "trainer/data/input_file.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kMaxPictureBytes = int64_t{256} << 20;  // No picture's file is larger.

std::string Join(const std::string& folder, const std::string& name) {
  if (name.starts_with('/') || folder.empty()) return name;
  return folder.ends_with('/') ? folder + name : folder + "/" + name;
}

}  // namespace

std::string PictureListing::NameOf(const PictureItem& item) const {
  const std::string& place = places[item.place];
  return archives ? place + ":" + item.name : Join(place, item.name);
}

void PictureListing::Read(const PictureItem& item, std::vector<std::byte>& bytes) const {
  const InputFile file(archives ? places[item.place] : NameOf(item));
  const int64_t count = archives ? item.bytes : file.size();
  if (count > kMaxPictureBytes) {
    throw DataError(NameOf(item) + ": " + std::to_string(count) + " bytes; refused above " +
                    std::to_string(kMaxPictureBytes));
  }
  file.Read(archives ? item.position : 0, count, bytes);
}

void PictureListing::Keep(const std::vector<uint32_t>& kept) {
  std::vector<PictureItem> kept_items;
  std::vector<double> kept_values;
  kept_items.reserve(kept.size());
  for (const uint32_t index : kept) {
    kept_items.push_back(std::move(items[index]));
    for (size_t i = 0; i < targets.size(); ++i) {
      kept_values.push_back(values[index * targets.size() + i]);
    }
  }
  items = std::move(kept_items);
  values = std::move(kept_values);
}

}  // namespace lockstep::trainer
