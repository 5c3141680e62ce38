#include "trainer/models/torch_file.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "trainer/models/pickle.h"
#include "trainer/models/zip_archive.h"

namespace lockstep::trainer {
namespace {

using Bytes = std::span<const std::byte>;
using Kind = PickleValue::Kind;

constexpr absl::string_view kZipStart("PK\x03\x04", 4);
// A pickle (protocol 2) of the number 0x1950a86a20f9469cfc6c, the older format's magic.
constexpr absl::string_view kOldStart(
    "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e", 15);
constexpr int kOldVersion = 1001;

absl::Status Refused(const std::string& what) {
  return absl::InvalidArgumentError(what);
}

bool StartsWith(Bytes file, absl::string_view start) {
  return file.size() >= start.size() && std::memcmp(file.data(), start.data(), start.size()) == 0;
}

// Where each storage's bytes are, by key.
using Storages = std::map<std::string, Bytes>;

// Elements between the first and the last that the tensor touches, and one; -1 on overflow.
int64_t Reach(const PickledTensor& tensor) {
  int64_t reach = 1;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    if (tensor.shape[i] == 0) return 0;
    int64_t step = 0;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &step) ||
        __builtin_add_overflow(reach, step, &reach)) {
      return -1;
    }
  }
  return reach;
}

// -1 on overflow.
int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(elements, size, &elements)) return -1;
  }
  return elements;
}

bool IsRowMajor(const PickledTensor& tensor) {
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

std::vector<std::byte> ToRowMajor(const PickledTensor& tensor, Bytes storage, size_t element) {
  const auto elements = static_cast<size_t>(Elements(tensor.shape));
  std::vector<std::byte> copy(elements * element);
  std::vector<int64_t> index(tensor.shape.size(), 0);
  int64_t from = 0;
  for (size_t to = 0; to < elements; ++to) {
    std::memcpy(copy.data() + to * element, storage.data() + static_cast<size_t>(from) * element,
                element);
    for (size_t i = index.size(); i-- > 0;) {
      from += tensor.strides[i];
      if (++index[i] < tensor.shape[i]) break;
      from -= tensor.strides[i] * tensor.shape[i];
      index[i] = 0;
    }
  }
  return copy;
}

class Assembler {
 public:
  Assembler(const Pickle& pickle, const Storages& storages, size_t copy_limit)
      : pickle_(pickle), storages_(storages), copy_limit_(copy_limit) {}

  absl::StatusOr<TorchFile> Assemble() {
    const PickleValue* dict = FindStateDict();
    if (dict == nullptr) {
      return Refused("the file holds no state dict, but another object; save model.state_dict()");
    }
    std::set<std::string> names;
    for (size_t i = 0; i + 1 < dict->items.size(); i += 2) {
      const PickleValue& key = pickle_.values[dict->items[i]];
      const PickleValue& value = pickle_.values[dict->items[i + 1]];
      if (key.kind != Kind::kText) return Refused("a key of the state dict is no text");
      if (value.kind != Kind::kTensor) {
        return Refused(absl::StrCat("'", key.text.substr(0, 200),
                                    "' in the state dict is no tensor; save model.state_dict()"));
      }
      if (!names.insert(key.text).second) {
        return Refused(absl::StrCat("'", key.text, "' occurs twice"));
      }
      const absl::Status added = Add(key.text, pickle_.tensors[value.tensor]);
      if (!added.ok()) return added;
    }
    return std::move(file_);
  }

 private:
  const PickleValue* FindStateDict() const {
    const PickleValue& root = pickle_.root();
    if (root.kind != Kind::kDict) return nullptr;
    for (const char* name : {"state_dict", "model"}) {
      for (size_t i = 0; i + 1 < root.items.size(); i += 2) {
        const PickleValue& key = pickle_.values[root.items[i]];
        const PickleValue& value = pickle_.values[root.items[i + 1]];
        if (key.kind == Kind::kText && key.text == name && value.kind == Kind::kDict) return &value;
      }
    }
    return &root;
  }

  absl::Status Add(const std::string& name, const PickledTensor& tensor) {
    const auto found = storages_.find(tensor.storage);
    if (found == storages_.end()) {
      return absl::DataLossError(absl::StrCat("the values of '", name, "' are not in the file"));
    }
    const size_t element = ElementBytes(tensor.dtype);
    const auto available = static_cast<int64_t>(found->second.size() / element);
    const int64_t elements = Elements(tensor.shape);
    const int64_t reach = Reach(tensor);
    if (elements < 0 || reach < 0 || elements > available || tensor.offset > available ||
        reach > available - tensor.offset) {
      return Refused(
          absl::StrCat("'", name, "' is larger than the values that the file has of it"));
    }
    TensorBytes view{.name = name, .dtype = tensor.dtype, .shape = tensor.shape, .bytes = {}};
    const Bytes storage = found->second.subspan(static_cast<size_t>(tensor.offset) * element);
    const size_t bytes = static_cast<size_t>(elements) * element;
    if (elements == 0 || IsRowMajor(tensor)) {
      view.bytes = storage.first(bytes);
    } else {
      if (bytes > copy_limit_) {
        return Refused("its tensors are larger together than the values in the file");
      }
      copy_limit_ -= bytes;
      file_.copies.push_back(ToRowMajor(tensor, storage, element));
      view.bytes = file_.copies.back();
    }
    file_.tensors.push_back(std::move(view));
    return absl::OkStatus();
  }

  const Pickle& pickle_;
  const Storages& storages_;
  size_t copy_limit_;  // Bytes.
  TorchFile file_;
};

absl::StatusOr<TorchFile> ParseZip(Bytes file) {
  absl::StatusOr<std::map<std::string, ZipEntry>> entries = ReadZip(file);
  if (!entries.ok()) return entries.status();
  std::string folder;
  const ZipEntry* pickled = nullptr;
  for (const auto& [name, entry] : *entries) {
    if (absl::EndsWith(name, "/constants.pkl")) {
      return Refused("the file is a TorchScript program; save model.state_dict() instead");
    }
    if (!absl::EndsWith(name, "/data.pkl") || pickled != nullptr) continue;
    folder = name.substr(0, name.size() - 8);
    pickled = &entry;
  }
  if (pickled == nullptr)
    return Refused("the zip archive holds no data.pkl: torch.save made it not");
  const auto order = entries->find(folder + "byteorder");
  if (order != entries->end() && !StartsWith(order->second.bytes, "little")) {
    return Refused("the file was written on a big-endian machine");
  }
  Storages storages;
  for (const auto& [name, entry] : *entries) {
    const absl::Status whole = CheckZipEntry(name, entry);
    if (!whole.ok()) return whole;
    if (absl::StartsWith(name, folder + "data/")) {
      storages.emplace(name.substr(folder.size() + 5), entry.bytes);
    }
  }
  absl::StatusOr<Pickle> pickle = ReadPickle(pickled->bytes);
  if (!pickle.ok()) return pickle.status();
  return Assembler(*pickle, storages, file.size()).Assemble();
}

// Reads one pickle and moves behind it.
absl::StatusOr<Pickle> NextPickle(Bytes& rest) {
  absl::StatusOr<Pickle> pickle = ReadPickle(rest);
  if (pickle.ok()) rest = rest.subspan(pickle->bytes);
  return pickle;
}

// Magic, version, facts about the writer's machine, the object, the keys of its storages; then for
// each key the count of its elements (int64) and the elements.
absl::StatusOr<TorchFile> ParseOld(Bytes file) {
  Bytes rest = file.subspan(kOldStart.size());
  absl::StatusOr<Pickle> version = NextPickle(rest);
  if (!version.ok()) return version.status();
  if (version->root().kind != Kind::kInteger || version->root().integer != kOldVersion) {
    return Refused("the file is of an unknown version of torch.save's older format");
  }
  absl::StatusOr<Pickle> machine = NextPickle(rest);
  if (!machine.ok()) return machine.status();
  absl::StatusOr<Pickle> object = NextPickle(rest);
  if (!object.ok()) return object.status();
  absl::StatusOr<Pickle> keys = NextPickle(rest);
  if (!keys.ok()) return keys.status();
  std::map<std::string, size_t> element_of;
  for (const PickledTensor& tensor : object->tensors) {
    element_of.emplace(tensor.storage, ElementBytes(tensor.dtype));
  }
  Storages storages;
  for (const uint32_t number : keys->root().items) {
    const PickleValue& key = keys->values[number];
    const auto element = element_of.find(key.text);
    if (key.kind != Kind::kText || element == element_of.end()) {
      return Refused("it lists storages that no tensor has");
    }
    uint64_t count = 0;
    if (rest.size() < sizeof(count)) return absl::DataLossError("the file is cut short");
    std::memcpy(&count, rest.data(), sizeof(count));
    rest = rest.subspan(sizeof(count));
    if (count > rest.size() / element->second) return absl::DataLossError("the file is cut short");
    storages.emplace(key.text, rest.first(count * element->second));
    rest = rest.subspan(count * element->second);
  }
  return Assembler(*object, storages, file.size()).Assemble();
}

}  // namespace

bool LooksLikeTorchFile(Bytes file) {
  return StartsWith(file, kZipStart) || StartsWith(file, kOldStart);
}

absl::StatusOr<TorchFile> ParseTorchFile(Bytes file) {
  if (StartsWith(file, kZipStart)) return ParseZip(file);
  if (StartsWith(file, kOldStart)) return ParseOld(file);
  return Refused("the file does not begin as torch.save's do");
}

}  // namespace lockstep::trainer
