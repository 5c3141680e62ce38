#include "trainer/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace lockstep::trainer {
namespace {

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr size_t kAlignment = 64;
constexpr char kMetadataKey[] = "__metadata__";

struct Dtype {
  const char* name;
  size_t bytes;
};
constexpr std::array<Dtype, 15> kDtypes = {{{"F64", 8},
                                            {"I64", 8},
                                            {"U64", 8},
                                            {"F32", 4},
                                            {"I32", 4},
                                            {"U32", 4},
                                            {"F16", 2},
                                            {"BF16", 2},
                                            {"I16", 2},
                                            {"U16", 2},
                                            {"I8", 1},
                                            {"U8", 1},
                                            {"BOOL", 1},
                                            {"F8_E4M3", 1},
                                            {"F8_E5M2", 1}}};

struct Entry {
  TensorBytes tensor;
  std::vector<uint64_t> offsets;
  bool has_dtype = false;
  bool has_shape = false;
  bool has_offsets = false;
};

// Takes the header token by token and stops at the first one that has no place in it. No tree is
// built, so neither depth nor size can cost more than the header's own bytes.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
  std::string problem;

  bool key(string_t& name) override {
    switch (place_) {
      case Place::kTop:
        if (!names_.insert(name).second) return Refuse("'", name, "' occurs twice");
        name_ = name;
        place_ = name == kMetadataKey ? Place::kMetadataStart : Place::kEntryStart;
        return true;
      case Place::kMetadata:
        name_ = name;
        if (metadata.count(name) > 0) return Refuse("metadata '", name, "' occurs twice");
        place_ = Place::kMetadataValue;
        return true;
      case Place::kEntry:
        return EntryKey(name);
      default:
        return Refuse("unexpected key '", name, "'");
    }
  }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kMetadataStart:
        place_ = Place::kMetadata;
        return true;
      case Place::kEntryStart:
        place_ = Place::kEntry;
        entries.emplace_back();
        entries.back().tensor.name = name_;
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool end_object() override {
    if (place_ == Place::kEntry) {
      const Entry& entry = entries.back();
      if (!entry.has_dtype || !entry.has_shape || !entry.has_offsets) {
        return Refuse("tensor '", name_, "' lacks dtype, shape or data_offsets");
      }
    }
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadataValue) {
      metadata.emplace(name_, value);
      place_ = Place::kMetadata;
      return true;
    }
    if (place_ == Place::kDtype) {
      if (ElementBytes(value) == 0) {
        return Refuse("tensor '", name_, "' has the unknown dtype '", value, "'");
      }
      entries.back().tensor.dtype = value;
      place_ = Place::kEntry;
      return true;
    }
    return Unexpected("a string");
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::kShape) {
      place_ = Place::kShapeItem;
    } else if (place_ == Place::kOffsets) {
      place_ = Place::kOffsetItem;
    } else {
      return Unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsetItem && entries.back().offsets.size() != 2) {
      return Refuse("tensor '", name_, "' needs two data_offsets");
    }
    place_ = Place::kEntry;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShapeItem) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Refuse("tensor '", name_, "' has a size that does not fit 63 bits");
      }
      entries.back().tensor.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsetItem) {
      entries.back().offsets.push_back(value);
      return true;
    }
    return Unexpected("a number");
  }

  bool number_integer(number_integer_t) override { return Unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return Unexpected("a fraction"); }
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    return Refuse("not valid JSON at byte ", position);
  }

 private:
  enum class Place {
    kStart,
    kTop,
    kMetadataStart,
    kMetadata,
    kMetadataValue,
    kEntryStart,
    kEntry,
    kDtype,
    kShape,
    kShapeItem,
    kOffsets,
    kOffsetItem,
    kEnd,
  };

  bool EntryKey(const std::string& key) {
    Entry& entry = entries.back();
    bool* seen = nullptr;
    if (key == "dtype") {
      seen = &entry.has_dtype;
      place_ = Place::kDtype;
    } else if (key == "shape") {
      seen = &entry.has_shape;
      place_ = Place::kShape;
    } else if (key == "data_offsets") {
      seen = &entry.has_offsets;
      place_ = Place::kOffsets;
    } else {
      return Refuse("tensor '", name_, "' has the unknown member '", key, "'");
    }
    if (*seen) return Refuse("tensor '", name_, "' has '", key, "' twice");
    *seen = true;
    return true;
  }

  template <typename... Parts>
  bool Refuse(const Parts&... parts) {
    problem = absl::StrCat(parts...);
    return false;
  }
  bool Unexpected(const char* what) {
    return Refuse("unexpected ", what, name_.empty() ? "" : " in '", name_,
                  name_.empty() ? "" : "'");
  }

  Place place_ = Place::kStart;
  std::string name_;
  absl::flat_hash_set<std::string> names_;
};

absl::Status Refusal(const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat("not a valid safetensors file: ", problem));
}

// Bytes that dtype and shape ask for; nothing where the product leaves 64 bits.
std::optional<uint64_t> BytesOf(const TensorBytes& tensor) {
  uint64_t bytes = ElementBytes(tensor.dtype);
  for (const int64_t size : tensor.shape) {
    if (size < 0) return std::nullopt;
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) return std::nullopt;
  }
  return bytes;
}

// Gives each tensor its bytes. The tensors must cover `data` without overlap or hole, as the format
// asks: bytes that belong to no tensor could hide anything.
absl::Status Place(std::vector<Entry>& entries, std::span<const std::byte> data) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.offsets, a.tensor.name) < std::tie(b.offsets, b.tensor.name);
  });
  uint64_t end = 0;
  for (Entry& entry : entries) {
    const std::string& name = entry.tensor.name;
    const uint64_t from = entry.offsets[0];
    const uint64_t to = entry.offsets[1];
    if (to < from) return Refusal(absl::StrCat("tensor '", name, "' ends before it starts"));
    if (to > data.size()) {
      return Refusal(absl::StrCat("tensor '", name, "' ends at byte ", to, " of ", data.size()));
    }
    if (from < end) return Refusal(absl::StrCat("tensor '", name, "' overlaps another"));
    if (from > end) return Refusal(absl::StrCat("hole before tensor '", name, "'"));
    const std::optional<uint64_t> bytes = BytesOf(entry.tensor);
    if (!bytes) return Refusal(absl::StrCat("tensor '", name, "' has a shape beyond 64 bits"));
    if (*bytes != to - from) {
      return Refusal(
          absl::StrCat("tensor '", name, "' has ", to - from, " bytes, its shape needs ", *bytes));
    }
    entry.tensor.bytes = data.subspan(from, to - from);
    end = to;
  }
  if (end != data.size()) {
    return Refusal(absl::StrCat(data.size() - end, " bytes after the last tensor"));
  }
  return absl::OkStatus();
}

uint64_t ReadLength(std::span<const std::byte> file) {
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<uint64_t>(file[i]) << (8 * i);
  }
  return length;
}

}  // namespace

size_t ElementBytes(const std::string& dtype) {
  for (const Dtype& known : kDtypes) {
    if (dtype == known.name) return known.bytes;
  }
  return 0;
}

absl::Status CheckTensors(const std::vector<TensorBytes>& tensors) {
  absl::flat_hash_set<std::string> names;
  for (const TensorBytes& tensor : tensors) {
    const std::optional<uint64_t> bytes = BytesOf(tensor);
    if (ElementBytes(tensor.dtype) == 0 || !bytes || *bytes != tensor.bytes.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", tensor.name, "' of dtype ", tensor.dtype, " has ",
                       tensor.bytes.size(), " bytes, its shape needs ", bytes.value_or(0)));
    }
    if (tensor.name == kMetadataKey || !names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor name '", tensor.name, "' is reserved or occurs twice"));
    }
  }
  return absl::OkStatus();
}

std::string SafetensorsHeader(const std::vector<TensorBytes>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  uint64_t offset = 0;
  for (const TensorBytes& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  const size_t unpadded = kLengthBytes + text.size();
  text.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ');

  std::string result(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) {
    result[i] = static_cast<char>((static_cast<uint64_t>(text.size()) >> (8 * i)) & 0xff);
  }
  return result + text;
}

absl::StatusOr<SafetensorsView> ParseSafetensors(std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) {
    return Refusal(absl::StrCat("only ", file.size(), " bytes long"));
  }
  const uint64_t length = ReadLength(file);
  if (length > kMaxSafetensorsHeaderBytes) {
    return Refusal(
        absl::StrCat("header of ", length, " bytes, more than ", kMaxSafetensorsHeaderBytes));
  }
  if (length > file.size() - kLengthBytes) {
    return Refusal(absl::StrCat("header of ", length, " bytes in a file of ", file.size()));
  }
  const auto* text = reinterpret_cast<const char*>(file.data()) + kLengthBytes;
  if (length == 0 || text[0] != '{') return Refusal("header does not start with '{'");

  HeaderReader reader;
  if (!json::sax_parse(text, text + length, &reader)) return Refusal(reader.problem);
  if (absl::Status status = Place(reader.entries, file.subspan(kLengthBytes + length));
      !status.ok()) {
    return status;
  }
  SafetensorsView view;
  view.metadata = std::move(reader.metadata);
  view.tensors.reserve(reader.entries.size());
  for (Entry& entry : reader.entries) view.tensors.push_back(std::move(entry.tensor));
  return view;
}

}  // namespace lockstep::trainer
