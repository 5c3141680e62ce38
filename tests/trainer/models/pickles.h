// Small PyTorch files made by hand, for tests without Python: pickles opcode by opcode and the zip
// around them.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace lockstep::trainer {

template <typename T>
std::string LittleEndian(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline std::string PickleText(const std::string& text) {
  return "X" + LittleEndian(static_cast<uint32_t>(text.size())) + text;
}
inline std::string PickleInteger(int32_t value) {
  return "J" + LittleEndian(value);
}
inline std::string PickleTuple(const std::vector<int32_t>& values) {
  std::string text = "(";
  for (const int32_t value : values) text += PickleInteger(value);
  return text + "t";
}

struct PickleTensorSpec {
  std::string name{};
  std::string key = "0";
  std::string storage_type = "FloatStorage";
  int32_t storage_elements = 0;
  int32_t offset = 0;
  std::vector<int32_t> shape{};
  std::vector<int32_t> strides{};
};

inline std::string PickleTensor(const PickleTensorSpec& spec) {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + PickleText("storage") + "ctorch\n" +
         spec.storage_type + "\n" + PickleText(spec.key) + PickleText("cpu") +
         PickleInteger(spec.storage_elements) + "tQ" + PickleInteger(spec.offset) +
         PickleTuple(spec.shape) + PickleTuple(spec.strides) + "\x89" +
         "ccollections\nOrderedDict\n)RtR";
}

/// As torch.save writes it, with a _metadata attribute on the dict.
inline std::string StateDictPickle(const std::vector<PickleTensorSpec>& tensors) {
  std::string pickle =
      "\x80\x02"
      "ccollections\nOrderedDict\n)Rq";
  pickle += std::string(1, '\0') + "(";
  for (const PickleTensorSpec& tensor : tensors) {
    pickle += PickleText(tensor.name) + PickleTensor(tensor);
  }
  return pickle + "u}" + PickleText("_metadata") + "}sb.";
}

using ZipEntries = std::vector<std::pair<std::string, std::string>>;

inline std::string Zip(const ZipEntries& entries) {
  std::string file, directory;
  for (const auto& [name, bytes] : entries) {
    const auto sum = static_cast<uint32_t>(
        crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
    const auto size = static_cast<uint32_t>(bytes.size());
    const std::string common =
        LittleEndian<uint16_t>(20) + LittleEndian<uint16_t>(0) + LittleEndian<uint16_t>(0) +
        LittleEndian<uint32_t>(0) + LittleEndian(sum) + LittleEndian(size) + LittleEndian(size) +
        LittleEndian(static_cast<uint16_t>(name.size())) + LittleEndian<uint16_t>(0);
    directory += LittleEndian<uint32_t>(0x02014b50) + LittleEndian<uint16_t>(20) + common +
                 std::string(10, '\0') + LittleEndian(static_cast<uint32_t>(file.size())) + name;
    file += LittleEndian<uint32_t>(0x04034b50) + common + name + bytes;
  }
  const auto begin = static_cast<uint32_t>(file.size());
  const auto count = static_cast<uint16_t>(entries.size());
  return file + directory + LittleEndian<uint32_t>(0x06054b50) + std::string(4, '\0') +
         LittleEndian(count) + LittleEndian(count) +
         LittleEndian(static_cast<uint32_t>(directory.size())) + LittleEndian(begin) +
         std::string(2, '\0');
}

inline std::string Floats(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) bytes += LittleEndian(value);
  return bytes;
}

}  // namespace lockstep::trainer
