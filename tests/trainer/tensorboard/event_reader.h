// Reads event files without a line of what writes them: a checksum bit by bit, a decoder of
// protobuf's wire format that knows nothing of the messages.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::trainer {

inline uint32_t BitwiseCrc32c(std::string_view bytes) {
  uint32_t crc = 0xffffffff;
  for (const char byte : bytes) {
    crc ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  }
  return crc ^ 0xffffffff;
}

template <typename T>
T Take(std::string_view& bytes) {
  T value{};
  std::memcpy(&value, bytes.data(), sizeof(value));
  bytes.remove_prefix(sizeof(value));
  return value;
}

/// The records of a file's whole text; what is torn or damaged ends in a test failure.
inline std::vector<std::string> Records(std::string_view bytes) {
  const auto masked = [](uint32_t crc) {
    return static_cast<uint32_t>(((crc >> 15) | (crc << 17)) + 0xa282ead8);
  };
  std::vector<std::string> records;
  while (!bytes.empty()) {
    if (bytes.size() < 16) {
      ADD_FAILURE() << "a torn record of " << bytes.size() << " bytes";
      return records;
    }
    const std::string_view head = bytes.substr(0, 8);
    const auto length = Take<uint64_t>(bytes);
    EXPECT_EQ(Take<uint32_t>(bytes), masked(BitwiseCrc32c(head)));
    if (bytes.size() < length + 4) {
      ADD_FAILURE() << "a torn record: " << bytes.size() << " bytes of " << length + 4;
      return records;
    }
    records.emplace_back(bytes.substr(0, length));
    bytes.remove_prefix(length);
    EXPECT_EQ(Take<uint32_t>(bytes), masked(BitwiseCrc32c(records.back())));
  }
  return records;
}

// One message: its fields by number, in order, each as integer, floating point or bytes.
struct Field {
  uint64_t integer = 0;
  double number = 0;
  std::string bytes;
};
using Message = std::map<int, std::vector<Field>>;

inline uint64_t TakeVarint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0; !bytes.empty(); shift += 7) {
    const auto byte = Take<uint8_t>(bytes);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

inline Message Decode(std::string_view bytes) {
  Message message;
  while (!bytes.empty()) {
    const uint64_t key = TakeVarint(bytes);
    Field field;
    switch (key & 7) {
      case 0:
        field.integer = TakeVarint(bytes);
        break;
      case 1:
        field.number = Take<double>(bytes);
        break;
      case 2: {
        const size_t length = TakeVarint(bytes);
        EXPECT_LE(length, bytes.size());
        field.bytes = bytes.substr(0, length);
        bytes.remove_prefix(std::min(length, bytes.size()));
        break;
      }
      case 5:
        field.number = Take<float>(bytes);
        break;
      default:
        ADD_FAILURE() << "wire type " << (key & 7);
        return message;
    }
    message[static_cast<int>(key >> 3)].push_back(field);
  }
  return message;
}

inline std::vector<double> Doubles(std::string_view packed) {
  std::vector<double> values;
  while (packed.size() >= sizeof(double)) values.push_back(Take<double>(packed));
  return values;
}

// A point: a value of a step. `value` is the Summary.Value message.
struct Point {
  int64_t step = 0;
  double seconds = 0;
  Message value;
  double scalar() const { return value.at(2).at(0).number; }
};

struct Events {
  int files = 0;
  int versions = 0;                                  // Records that say "brain.Event:2".
  std::vector<int64_t> starts;                       // Steps of the SessionLog START records.
  std::map<std::string, std::vector<Point>> points;  // By tag, in the order of the files.

  std::vector<int64_t> Steps(const std::string& tag) const {
    std::vector<int64_t> steps;
    if (!points.contains(tag)) return steps;
    for (const Point& point : points.at(tag)) steps.push_back(point.step);
    return steps;
  }
};

inline std::vector<std::filesystem::path> EventFilesOf(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  if (!std::filesystem::exists(folder)) return files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

inline std::string Contents(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

inline Events ReadEvents(const std::filesystem::path& folder) {
  Events events;
  for (const auto& file : EventFilesOf(folder)) {
    ++events.files;
    for (const std::string& record : Records(Contents(file))) {
      const Message event = Decode(record);
      const int64_t step =
          event.contains(2) ? static_cast<int64_t>(event.at(2)[0].integer) : int64_t{0};
      if (event.contains(3)) events.versions += event.at(3)[0].bytes == "brain.Event:2" ? 1 : 0;
      if (event.contains(7)) {
        EXPECT_EQ(Decode(event.at(7)[0].bytes).at(1)[0].integer, 1u);
        events.starts.push_back(step);
      }
      if (!event.contains(5)) continue;
      const Message summary = Decode(event.at(5)[0].bytes);
      for (const Field& field : summary.at(1)) {
        Message value = Decode(field.bytes);
        const std::string tag = value.at(1)[0].bytes;
        events.points[tag].push_back({step, event.at(1)[0].number, std::move(value)});
      }
    }
  }
  return events;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = testing::TempDir() + "lockstep-events-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace lockstep::trainer
