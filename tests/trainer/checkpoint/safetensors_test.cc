#include "trainer/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string LengthBytes(uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes;
}

// A file of this JSON text and `data_bytes` bytes of tensors.
std::string File(const std::string& json, size_t data_bytes) {
  return LengthBytes(json.size()) + json + std::string(data_bytes, '\7');
}

std::string Problem(const std::string& file) {
  const auto view = ParseSafetensors(Bytes(file));
  if (view.ok()) return "accepted";
  EXPECT_TRUE(absl::IsInvalidArgument(view.status())) << view.status();
  return std::string(view.status().message());
}

std::string Sample() {
  static const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  static const std::vector<int64_t> b = {7};
  const std::vector<TensorBytes> tensors = {
      {"layer.weight", "F32", {2, 3}, std::as_bytes(std::span(a))},
      {"empty", "F32", {0, 4}, {}},
      {"steps", "I64", {}, std::as_bytes(std::span(b))}};
  std::string file = SafetensorsHeader(tensors, {{"format", "pt"}, {"quote\"", "line\n"}});
  for (const TensorBytes& tensor : tensors) {
    file.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  }
  return file;
}

TEST(SafetensorsTest, TheHeaderIsWhatTheFormatSays) {
  const std::string file = Sample();
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  EXPECT_EQ((8 + length) % 64, 0u);
  const auto header = nlohmann::json::parse(file.substr(8, length));
  EXPECT_EQ(header["__metadata__"]["format"], "pt");
  EXPECT_EQ(header["__metadata__"]["quote\""], "line\n");
  EXPECT_EQ(header["layer.weight"]["dtype"], "F32");
  EXPECT_THAT(header["layer.weight"]["shape"], ElementsAre(2, 3));
  EXPECT_THAT(header["layer.weight"]["data_offsets"], ElementsAre(0, 24));
  EXPECT_THAT(header["empty"]["data_offsets"], ElementsAre(24, 24));
  EXPECT_THAT(header["steps"]["shape"], ElementsAre());
  EXPECT_THAT(header["steps"]["data_offsets"], ElementsAre(24, 32));
  EXPECT_EQ(file.size(), 8 + length + 32);
  float second = 0;
  std::memcpy(&second, file.data() + 8 + length + 4, 4);
  EXPECT_EQ(second, 2.0f);
}

TEST(SafetensorsTest, ReadsWhatItWrites) {
  const std::string file = Sample();
  const auto view = ParseSafetensors(Bytes(file));
  ASSERT_TRUE(view.ok()) << view.status();
  ASSERT_EQ(view->tensors.size(), 3u);
  EXPECT_EQ(view->metadata.at("quote\""), "line\n");
  for (const TensorBytes& tensor : view->tensors) {
    if (tensor.name == "layer.weight") {
      EXPECT_EQ(tensor.dtype, "F32");
      EXPECT_THAT(tensor.shape, ElementsAre(2, 3));
      float last = 0;
      std::memcpy(&last, tensor.bytes.data() + 20, 4);
      EXPECT_EQ(last, 6.0f);
    }
  }
}

TEST(SafetensorsTest, AFileWithoutTensorsIsAFile) {
  EXPECT_EQ(Problem(SafetensorsHeader({}, {})), "accepted");
  EXPECT_EQ(Problem(File("{}", 0)), "accepted");
}

TEST(SafetensorsTest, RefusesBadLengths) {
  EXPECT_THAT(Problem("1234567"), HasSubstr("only 7 bytes"));
  EXPECT_THAT(Problem(LengthBytes(0)), HasSubstr("'{'"));
  EXPECT_THAT(Problem(LengthBytes(3) + "{}"), HasSubstr("in a file of"));
  EXPECT_THAT(Problem(LengthBytes(std::numeric_limits<uint64_t>::max()) + "{}"),
              HasSubstr("more than 100000000"));
  EXPECT_THAT(Problem(LengthBytes(100'000'001) + std::string(200, ' ')), HasSubstr("more than"));
}

TEST(SafetensorsTest, RefusesWhatIsNotTheHeadersJson) {
  EXPECT_THAT(Problem(File(" {}", 0)), HasSubstr("'{'"));
  EXPECT_THAT(Problem(File("[]", 0)), HasSubstr("'{'"));
  EXPECT_THAT(Problem(File("{} {}", 0)), HasSubstr("not valid JSON"));
  EXPECT_THAT(Problem(File("{\"a\":", 0)), HasSubstr("not valid JSON"));
  EXPECT_THAT(Problem(File("{\"\xff\":1}", 0)), HasSubstr("not valid JSON"));
  EXPECT_THAT(Problem(File("{\"a\":1}", 0)), HasSubstr("unexpected a number in 'a'"));
  EXPECT_THAT(Problem(File("{\"a\":null}", 0)), HasSubstr("unexpected null"));
  EXPECT_THAT(Problem(File("{\"a\":{}}", 0)), HasSubstr("lacks dtype"));
  EXPECT_THAT(Problem(File("{\"__metadata__\":{\"a\":1}}", 0)), HasSubstr("unexpected a number"));
  EXPECT_THAT(Problem(File("{\"__metadata__\":{\"a\":{}}}", 0)), HasSubstr("unexpected an object"));
  EXPECT_THAT(Problem(File("{\"__metadata__\":[]}", 0)), HasSubstr("unexpected an array"));
}

TEST(SafetensorsTest, RefusesDepthAtOnce) {
  std::string deep = "{\"a\":";
  for (int i = 0; i < 1'000'000; ++i) deep += '[';
  EXPECT_THAT(Problem(File(deep, 0)), HasSubstr("unexpected an array"));
}

std::string Tensor(const std::string& name, const std::string& members) {
  return absl::StrCat("\"", name, "\":{", members, "}");
}

TEST(SafetensorsTest, RefusesTensorsThatDoNotAddUp) {
  const auto one = [](const std::string& members) {
    return Problem(File("{" + Tensor("t", members) + "}", 8));
  };
  EXPECT_EQ(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), "accepted");
  EXPECT_THAT(one(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])"), HasSubstr("unknown dtype"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"),
              HasSubstr("its shape needs 12"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), HasSubstr("negative"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), HasSubstr("fraction"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8])"),
              HasSubstr("63 bits"));
  // 2^61 four-byte elements are 2^63 bytes; times two is one too far.
  EXPECT_THAT(one(R"("dtype":"F32","shape":[2305843009213693952,2],"data_offsets":[0,8])"),
              HasSubstr("beyond 64 bits"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,12])"), HasSubstr("ends at"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), HasSubstr("ends before"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[0],"data_offsets":[0,0])"),
              HasSubstr("8 bytes after the last tensor"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), HasSubstr("hole before"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), HasSubstr("two data_offs"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4,8])"), HasSubstr("two data"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"dtype":"F32")"),
              HasSubstr("'dtype' twice"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1)"),
              HasSubstr("unknown member 'x'"));
  EXPECT_THAT(one(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])"),
              HasSubstr("unexpected an array"));
}

TEST(SafetensorsTest, RefusesOverlapHolesAndDuplicates) {
  const auto two = [](const std::string& second_name, const std::string& second_offsets) {
    return Problem(File(
        "{" + Tensor("a", R"("dtype":"U8","shape":[8],"data_offsets":[0,8])") + "," +
            Tensor(second_name, R"("dtype":"U8","shape":[8],"data_offsets":)" + second_offsets) +
            "}",
        16));
  };
  EXPECT_EQ(two("b", "[8,16]"), "accepted");
  EXPECT_THAT(two("b", "[4,12]"), HasSubstr("'b' overlaps"));
  EXPECT_THAT(two("b", "[0,8]"), HasSubstr("'b' overlaps"));
  EXPECT_THAT(two("a", "[8,16]"), HasSubstr("'a' occurs twice"));
}

TEST(SafetensorsTest, ChecksTensorsBeforeTheyAreWritten) {
  const std::vector<float> values(4);
  const auto bytes = std::as_bytes(std::span(values));
  EXPECT_TRUE(CheckTensors({{"a", "F32", {4}, bytes}}).ok());
  EXPECT_FALSE(CheckTensors({{"a", "F32", {5}, bytes}}).ok());
  EXPECT_FALSE(CheckTensors({{"a", "F32", {-4}, bytes}}).ok());
  EXPECT_FALSE(CheckTensors({{"a", "C64", {2}, bytes}}).ok());
  EXPECT_FALSE(CheckTensors({{"a", "F32", {4}, bytes}, {"a", "F32", {4}, bytes}}).ok());
  EXPECT_FALSE(CheckTensors({{"__metadata__", "F32", {4}, bytes}}).ok());
}

// Mutated headers: whatever comes out, every accepted tensor lies in the file and has the bytes
// that its shape needs. Run under the address sanitizer this also shows that nothing else is
// touched.
TEST(SafetensorsTest, TwentyThousandMutationsNeverBreakTheParser) {
  const std::string valid = Sample();
  uint64_t header_length = 0;
  std::memcpy(&header_length, valid.data(), 8);
  const std::vector<std::string> tokens = {"{",
                                           "}",
                                           "[",
                                           "]",
                                           ",",
                                           ":",
                                           "\"",
                                           "\\u0000",
                                           "1e999",
                                           "-1",
                                           "null",
                                           "[[[",
                                           "\"\":",
                                           "F64",
                                           "shape",
                                           "\xf0",
                                           "\\",
                                           "9223372036854775808",
                                           "dtype",
                                           "4e0",
                                           "{}",
                                           "[0,24]",
                                           "__metadata__",
                                           "BOOL",
                                           "\n",
                                           "18446744073709551616"};
  std::mt19937_64 random(20240917);
  const auto below = [&random](size_t n) { return static_cast<size_t>(random() % n); };
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string file = valid;
    const size_t changes = 1 + below(4);
    for (size_t i = 0; i < changes; ++i) {
      const size_t place = below(std::min<size_t>(file.size(), 8 + header_length));
      switch (below(5)) {
        case 0:
          file[place] = static_cast<char>(file[place] ^ (1 << below(8)));
          break;
        case 1:
          file.erase(place, 1 + below(8));
          break;
        case 2:
          file.insert(place, tokens[below(tokens.size())]);
          break;
        case 3:
          file.replace(place, 1, tokens[below(tokens.size())]);
          break;
        default:
          file.resize(place);
          break;
      }
      if (file.empty()) file = "x";
    }
    // Half of the time the length fits the text again, so that the JSON itself is reached.
    if (below(2) == 0 && file.size() >= 8 + 32) {
      file.replace(0, 8, LengthBytes(file.size() - 8 - 32));
    }
    // An exact copy on the heap, so that a read past its end is seen.
    const std::vector<char> exact(file.begin(), file.end());
    const auto bytes = std::as_bytes(std::span(exact));
    const auto view = ParseSafetensors(bytes);
    if (!view.ok()) continue;
    ++accepted;
    for (const TensorBytes& tensor : view->tensors) {
      EXPECT_GE(tensor.bytes.data(), bytes.data());
      EXPECT_LE(tensor.bytes.data() + tensor.bytes.size(), bytes.data() + bytes.size());
      uint64_t expected = ElementBytes(tensor.dtype);
      for (const int64_t size : tensor.shape) expected *= static_cast<uint64_t>(size);
      EXPECT_EQ(tensor.bytes.size(), expected);
    }
  }
  // Some mutations only change a name or a blank: the mutations must reach both outcomes.
  EXPECT_GT(accepted, 100);
  EXPECT_LT(accepted, 19'000);
}

}  // namespace
}  // namespace lockstep::trainer
