#include "trainer/data/tar_index.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "trainer/data/dataset.h"
#include "trainer/data/input_file.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kMostNameBytes = int64_t{64} << 10;
constexpr int64_t kMostPaxBytes = int64_t{1} << 20;
constexpr int64_t kMostPadding = int64_t{1} << 20;  // Looked at after the end mark.

// A field of a header: offset and length in its block.
struct FieldAt {
  size_t offset;
  size_t bytes;
};
constexpr FieldAt kName{0, 100}, kSize{124, 12}, kChecksum{148, 8}, kMagic{257, 6},
    kPrefix{345, 155};
constexpr size_t kType = 156;

using Block = std::vector<std::byte>;

std::string_view Text(const Block& block, const FieldAt& field) {
  const std::string_view all(reinterpret_cast<const char*>(block.data()) + field.offset,
                             field.bytes);
  return all.substr(0, std::min(all.find('\0'), all.size()));
}

// Octal digits with spaces or zero bytes around them, or, with the first bit set, a binary number.
std::optional<int64_t> Number(const Block& block, const FieldAt& field) {
  const auto byte = [&](size_t i) { return std::to_integer<uint8_t>(block[field.offset + i]); };
  if ((byte(0) & 0x80) != 0) {
    if (byte(0) != 0x80) return {};  // Negative, or beyond 2^63.
    uint64_t value = 0;
    for (size_t i = 1; i < field.bytes; ++i) {
      if (value >> 55 != 0) return {};
      value = value << 8 | byte(i);
    }
    return static_cast<int64_t>(value);
  }
  std::string_view text = Text(block, field);
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  if (text.empty()) return 0;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 8);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return {};
  return value;
}

// The sum of all bytes, those of the checksum itself taken for spaces. Some old programs summed
// signed characters.
bool ChecksumHolds(const Block& block) {
  const std::optional<int64_t> expected = Number(block, kChecksum);
  int64_t plain = 0;
  int64_t with_signs = 0;
  for (size_t i = 0; i < block.size(); ++i) {
    const bool own = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.bytes;
    const uint8_t byte = own ? uint8_t{' '} : std::to_integer<uint8_t>(block[i]);
    plain += byte;
    with_signs += static_cast<int8_t>(byte);
  }
  return expected && (*expected == plain || *expected == with_signs);
}

bool IsZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path), file_(path) {}

  std::vector<TarMember> ReadAll() {
    while (true) {
      if (at_ + kBlock > file_.size()) {
        Fail(file_.size() == 0 ? "the file is empty"
                               : "the archive is cut off: it has no end mark; make it anew");
      }
      file_.Read(at_, kBlock, block_);
      if (IsZero(block_)) break;
      ReadMember();
    }
    CheckPadding();
    return std::move(members_);
  }

 private:
  [[noreturn]] void Fail(const std::string& reason) const {
    throw DataError(path_ + ": at byte " + std::to_string(at_) + ": " + reason);
  }

  void CheckHeader() const {
    const auto begins = [&](std::string_view magic) {
      return std::memcmp(block_.data(), magic.data(), magic.size()) == 0;
    };
    if (at_ == 0 && (begins("\x1F\x8B") || begins("BZh") ||
                     begins("\xFD"
                            "7zXZ") ||
                     begins("\x28\xB5\x2F\xFD"))) {
      Fail("the archive is compressed; unpack it to a plain .tar");
    }
    if (!ChecksumHolds(block_)) {
      Fail(at_ == 0 ? "not a tar archive" : "a damaged header: its checksum is wrong");
    }
  }

  void ReadMember() {
    CheckHeader();
    const std::optional<int64_t> size = Number(block_, kSize);
    if (!size) Fail("a damaged header: its size is no number");
    const auto type = std::to_integer<char>(block_[kType]);
    const bool is_file = type == '0' || type == '\0' || type == '7';
    // A pax size is that of the next member's own data, not of another extended header.
    const bool extended = type == 'L' || type == 'K' || type == 'x' || type == 'g';
    const int64_t bytes = !extended && pax_size_ ? *pax_size_ : *size;
    const int64_t begin = at_ + kBlock;
    // Folders and links carry no data, whatever their size says.
    const int64_t stored = is_file || extended ? bytes : 0;
    if (stored > file_.size() - begin) {
      Fail("the archive is cut off: " + std::to_string(stored) + " bytes should follow, " +
           std::to_string(file_.size() - begin) + " do");
    }
    if (extended) {
      ReadExtended(type, begin, bytes);
    } else {
      std::string name = NameOf();
      if (is_file) {
        Add(std::move(name), begin, bytes);
      } else if (type != '5') {
        Refuse(type, name);
      }
      long_name_.clear();
      pax_size_.reset();
    }
    at_ = begin + (stored + kBlock - 1) / kBlock * kBlock;
  }

  void Add(std::string name, int64_t offset, int64_t bytes) {
    while (name.starts_with("./")) name.erase(0, 2);
    if (name.empty()) Fail("a member without a name");
    if (name.find('\0') != std::string::npos) Fail("a name with a zero byte");
    if (name.ends_with('/')) return;  // How v7 archives mark a folder.
    members_.push_back({std::move(name), offset, bytes});
  }

  [[noreturn]] void Refuse(char type, const std::string& name) const {
    if (type == '1' || type == '2') {
      Fail("'" + name + "' is a link; make the archive with tar --dereference --hard-dereference");
    }
    if (type == 'S') Fail("'" + name + "' is a sparse file; make the archive without --sparse");
    Fail("'" + name + "' is no regular file (type '" + std::string(1, type) + "')");
  }

  std::string NameOf() const {
    if (!long_name_.empty()) return long_name_;
    std::string name(Text(block_, kName));
    // GNU's own format has other things in the prefix's place; its magic ends in a space.
    if (Text(block_, kMagic) == "ustar") {
      const std::string_view prefix = Text(block_, kPrefix);
      if (!prefix.empty()) name = std::string(prefix) + "/" + name;
    }
    return name;
  }

  void ReadExtended(char type, int64_t begin, int64_t bytes) {
    if (type == 'K' || type == 'g') return;  // Names of links; what holds for the whole archive.
    if (bytes > (type == 'L' ? kMostNameBytes : kMostPaxBytes)) {
      Fail("an extended header of " + std::to_string(bytes) + " bytes; refused");
    }
    std::vector<std::byte> data;
    file_.Read(begin, bytes, data);
    const std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());
    if (type == 'L') {
      long_name_ = text.substr(0, std::min(text.find('\0'), text.size()));
    } else {
      ReadPax(text);
    }
  }

  // Records "LENGTH KEY=VALUE\n", the length in decimal and of the whole record.
  void ReadPax(std::string_view text) {
    while (!text.empty()) {
      size_t length = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
      const auto digits = static_cast<size_t>(end - text.data());
      if (error != std::errc() || length > text.size() || length < digits + 3 ||
          text[digits] != ' ' || text[length - 1] != '\n') {
        Fail("a damaged pax header");
      }
      const std::string_view record = text.substr(digits + 1, length - digits - 2);
      const size_t equals = record.find('=');
      if (equals == std::string_view::npos) Fail("a damaged pax header");
      const std::string_view key = record.substr(0, equals);
      const std::string_view value = record.substr(equals + 1);
      if (key == "path") {
        if (static_cast<int64_t>(value.size()) > kMostNameBytes) Fail("a name beyond 64 KiB");
        long_name_ = value;
      } else if (key == "size") {
        int64_t size = 0;
        const auto [stop, bad] = std::from_chars(value.data(), value.data() + value.size(), size);
        if (bad != std::errc() || stop != value.data() + value.size() || size < 0) {
          Fail("a pax header whose size is no number");
        }
        pax_size_ = size;
      } else if (key.starts_with("GNU.sparse.")) {
        Fail("a sparse file; make the archive without --sparse");
      }
      text.remove_prefix(length);
    }
  }

  // What follows the end mark would be lost without a word.
  void CheckPadding() {
    std::vector<std::byte> padding;
    const int64_t begin = at_;
    file_.Read(begin, std::min(file_.size() - begin, kMostPadding), padding);
    if (IsZero(padding)) return;
    Fail("something follows the end mark: archives that were joined; unpack them and make one");
  }

  const std::string path_;
  const InputFile file_;
  int64_t at_ = 0;
  Block block_;
  std::string long_name_;            // Of the next member.
  std::optional<int64_t> pax_size_;  // Likewise.
  std::vector<TarMember> members_;
};

}  // namespace

std::vector<TarMember> ReadTarIndex(const std::string& path) {
  return Reader(path).ReadAll();
}

}  // namespace lockstep::trainer
