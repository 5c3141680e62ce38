// Tar archives for tests, made byte by byte.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace lockstep::trainer {

struct TarHeader {
  std::string name;
  int64_t bytes = 0;
  char type = '0';
  std::string prefix = "";
  std::string magic = std::string(
      "ustar\0"
      "00",
      8);
  bool binary_size = false;  // In base 256.
};

inline std::string TarBlock(const TarHeader& header) {
  std::string block(512, '\0');
  const auto put = [&](size_t at, const std::string& text) {
    block.replace(at, text.size(), text);
  };
  char number[32];
  put(0, header.name.substr(0, 100));
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  if (header.binary_size) {
    block[124] = static_cast<char>(0x80);
    for (int i = 0; i < 8; ++i) {
      block[static_cast<size_t>(135 - i)] = static_cast<char>(header.bytes >> (8 * i));
    }
  } else {
    std::snprintf(number, sizeof number, "%011llo", static_cast<unsigned long long>(header.bytes));
    put(124, number);
  }
  put(136, "00000000000");
  block[156] = header.type;
  put(257, header.magic);
  put(345, header.prefix);
  put(148, "        ");
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<uint8_t>(c);
  std::snprintf(number, sizeof number, "%06o", sum);
  put(148, std::string(number) + '\0' + ' ');
  return block;
}

inline std::string TarPadded(const std::string& data) {
  return data + std::string((512 - data.size() % 512) % 512, '\0');
}

inline std::string TarMemberOf(const std::string& name, const std::string& data) {
  return TarBlock({.name = name, .bytes = static_cast<int64_t>(data.size())}) + TarPadded(data);
}

inline std::string TarEnd() {
  return std::string(1024, '\0');
}

inline std::string PaxRecord(const std::string& key, const std::string& value) {
  const std::string rest = " " + key + "=" + value + "\n";
  size_t length = rest.size();
  while (std::to_string(length).size() + rest.size() != length) ++length;
  return std::to_string(length) + rest;
}

}  // namespace lockstep::trainer
