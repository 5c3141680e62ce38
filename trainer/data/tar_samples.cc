#include "trainer/data/tar_samples.h"

#include <cctype>
#include <cstddef>
#include <limits>
#include <string_view>
#include <utility>

#include "trainer/data/csv_file.h"
#include "trainer/data/image_folder.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kMostClassBytes = 1024;  // Of a .cls.

// The key and, in small letters, what follows its dot.
std::pair<std::string, std::string> KeyOf(const std::string& name) {
  const size_t slash = name.rfind('/');
  const size_t dot = name.find('.', slash == std::string::npos ? 0 : slash + 1);
  if (dot == std::string::npos) return {name, ""};
  std::string ending = name.substr(dot + 1);
  for (char& c : ending) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return {name.substr(0, dot), ending};
}

// "seg.png" is something else than the picture.
bool IsPictureEnding(const std::string& ending) {
  return ending.find('.') == std::string::npos && IsPictureName("x." + ending);
}

bool IsHidden(const std::string& name) {
  const size_t slash = name.rfind('/');
  return name[slash == std::string::npos ? 0 : slash + 1] == '.';
}

}  // namespace

void TarSampleReader::Add(const std::filesystem::path& tar, uint8_t part) {
  path_ = tar.string();
  part_ = part;
  place_ = static_cast<uint32_t>(places.size());
  places.push_back(path_);
  keys_.clear();
  const std::vector<TarMember> members = ReadTarIndex(path_);
  const InputFile file(path_);
  for (const TarMember& member : members) {
    if (IsHidden(member.name)) {
      ++other_members;
      continue;
    }
    auto [key, ending] = KeyOf(member.name);
    if (!open_ || open_->key != key) Begin(std::move(key));
    if (ending == "cls") {
      ReadClass(file, member);
    } else if (IsPictureEnding(ending)) {
      AddPicture(member);
    } else {
      ++other_members;
    }
  }
  Close();
  if (samples.size() >= std::numeric_limits<uint32_t>::max()) {
    throw DataError(path_ + ": more than 2^32 samples");
  }
}

void TarSampleReader::Begin(std::string key) {
  Close();
  open_ = Open();
  if (!keys_.insert(key).second) {
    open_->fault = "the key comes twice in this archive, with others in between";
  }
  open_->key = std::move(key);
}

void TarSampleReader::Close() {
  if (!open_) return;
  Open& open = *open_;
  if (open.has_picture || open.has_class) {
    if (open.fault.empty() && !open.has_picture) {
      open.fault = "a .cls without a picture (KEY.jpg, .jpeg, .png or .webp) beside it";
    }
    if (open.fault.empty() && !open.has_class) open.fault = "a picture without KEY.cls beside it";
    if (open.fault.empty()) {
      samples.push_back(
          {std::move(open.item), part_, std::move(open.key), std::move(open.class_text)});
    } else {
      problems.push_back(path_ + ":" + open.key + ": " + open.fault);
    }
  }
  open_.reset();
}

void TarSampleReader::AddPicture(const TarMember& member) {
  if (open_->has_picture) open_->fault = "two pictures of one key";
  open_->has_picture = true;
  open_->item = {
      .place = place_, .position = member.offset, .bytes = member.bytes, .name = member.name};
}

void TarSampleReader::ReadClass(const InputFile& file, const TarMember& member) {
  if (open_->has_class) open_->fault = "two .cls of one key";
  open_->has_class = true;
  if (member.bytes > kMostClassBytes) {
    open_->fault = "its .cls has " + std::to_string(member.bytes) + " bytes; expected a class";
    return;
  }
  std::vector<std::byte> bytes;
  file.Read(member.offset, member.bytes, bytes);
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  open_->class_text = Trimmed(text);
  if (open_->class_text.empty()) open_->fault = "its .cls is empty";
}

}  // namespace lockstep::trainer
