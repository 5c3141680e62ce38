// Reads protobuf's wire format back, for tests: a message as its fields in order.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "trainer/export/protobuf_writer.h"

namespace lockstep::trainer {

struct WireField {
  int number = 0;
  uint64_t integer = 0;
  float real = 0;
  std::string bytes;
};

inline uint64_t ReadVarint(const std::string& bytes, size_t& at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.at(at++));
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

/// Throws std::exception on bytes that are no message.
inline std::vector<WireField> ReadMessage(const std::string& bytes) {
  std::vector<WireField> fields;
  size_t at = 0;
  while (at < bytes.size()) {
    const uint64_t tag = ReadVarint(bytes, at);
    WireField field;
    field.number = static_cast<int>(tag >> 3);
    switch (tag & 7) {
      case 0:
        field.integer = ReadVarint(bytes, at);
        break;
      case 2: {
        const uint64_t size = ReadVarint(bytes, at);
        if (size > bytes.size() - at) throw std::runtime_error("a field is cut");
        field.bytes = bytes.substr(at, size);
        at += size;
        break;
      }
      case 5:
        std::memcpy(&field.real, bytes.substr(at, 4).data(), 4);
        at += 4;
        break;
      default:
        throw std::runtime_error("a wire type that is not written");
    }
    fields.push_back(std::move(field));
  }
  return fields;
}

inline std::vector<std::string> AllOf(const std::vector<WireField>& fields, int number) {
  std::vector<std::string> all;
  for (const WireField& field : fields) {
    if (field.number == number) all.push_back(field.bytes);
  }
  return all;
}

inline std::string TextOf(const std::vector<WireField>& fields, int number) {
  const auto all = AllOf(fields, number);
  return all.empty() ? "" : all.front();
}

inline uint64_t IntegerOf(const std::vector<WireField>& fields, int number) {
  for (const WireField& field : fields) {
    if (field.number == number) return field.integer;
  }
  return 0;
}

inline std::string Join(const ProtobufWriter& message) {
  std::string all;
  for (const auto piece : message.Pieces()) {
    all.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  }
  return all;
}

}  // namespace lockstep::trainer
