// PyTorch's files read without running them: what is read, what is refused and how, and that no
// damaged file does harm.
#include "trainer/models/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/trainer/models/pickles.h"

namespace lockstep::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::vector<float> Values(const TensorBytes& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

std::string Refusal(const std::string& file) {
  const absl::StatusOr<TorchFile> parsed = ParseTorchFile(Bytes(file));
  return parsed.ok() ? "accepted" : std::string(parsed.status().message());
}

const std::vector<PickleTensorSpec> kTwoTensors = {
    {.name = "a.weight", .key = "0", .storage_elements = 6, .shape = {2, 3}, .strides = {3, 1}},
    {.name = "a.bias", .key = "1", .storage_elements = 2, .shape = {2}, .strides = {1}}};

std::string GoodZip(const std::string& pickle = StateDictPickle(kTwoTensors)) {
  return Zip({{"archive/data.pkl", pickle},
              {"archive/byteorder", "little"},
              {"archive/data/0", Floats({1, 2, 3, 4, 5, 6})},
              {"archive/data/1", Floats({7, 8})},
              {"archive/version", "3\n"}});
}

std::string GoodOld() {
  const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e", 15);
  std::string file = magic + "\x80\x02M\xe9\x03." + "\x80\x02}." + StateDictPickle(kTwoTensors);
  file += "\x80\x02](" + PickleText("0") + PickleText("1") + "e.";
  file += LittleEndian<int64_t>(6) + Floats({1, 2, 3, 4, 5, 6});
  return file + LittleEndian<int64_t>(2) + Floats({7, 8});
}

// Not a state dict, but a program.
std::string With(const std::string& instructions) {
  return GoodZip("\x80\x02" + instructions + ".");
}

TEST(TorchFileTest, BothFormatsGiveNamesShapesAndValues) {
  for (const std::string& file : {GoodZip(), GoodOld()}) {
    ASSERT_TRUE(LooksLikeTorchFile(Bytes(file)));
    const absl::StatusOr<TorchFile> parsed = ParseTorchFile(Bytes(file));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ASSERT_EQ(parsed->tensors.size(), 2u);
    EXPECT_EQ(parsed->tensors[0].name, "a.weight");
    EXPECT_EQ(parsed->tensors[0].dtype, "F32");
    EXPECT_THAT(parsed->tensors[0].shape, ElementsAre(2, 3));
    EXPECT_THAT(Values(parsed->tensors[0]), ElementsAre(1, 2, 3, 4, 5, 6));
    EXPECT_THAT(Values(parsed->tensors[1]), ElementsAre(7, 8));
  }
}

TEST(TorchFileTest, StridesAndOffsetsAreHonoured) {
  const std::string pickle = StateDictPickle(
      {{.name = "t", .storage_elements = 6, .shape = {3, 2}, .strides = {1, 3}},
       {.name = "o", .storage_elements = 6, .offset = 4, .shape = {2}, .strides = {1}}});
  const std::string file = GoodZip(pickle);
  const absl::StatusOr<TorchFile> parsed = ParseTorchFile(Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(Values(parsed->tensors[0]), ElementsAre(1, 4, 2, 5, 3, 6));
  EXPECT_THAT(Values(parsed->tensors[1]), ElementsAre(5, 6));
}

TEST(TorchFileTest, AStateDictInsideACheckpointIsFound) {
  const std::string inner = StateDictPickle(kTwoTensors);
  const std::string dict = inner.substr(2, inner.size() - 3);  // Without PROTO and STOP.
  for (const char* key : {"state_dict", "model"}) {
    const std::string file =
        With("}(" + PickleText("epoch") + PickleInteger(3) + PickleText(key) + dict + "u");
    const absl::StatusOr<TorchFile> parsed = ParseTorchFile(Bytes(file));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->tensors.size(), 2u);
  }
}

TEST(TorchFileTest, NothingButTensorsIsRead) {
  EXPECT_THAT(Refusal(With("cos\nsystem\n(" + PickleText("true") + "tR")),
              HasSubstr("'os.system'"));
  EXPECT_THAT(Refusal(With(PickleText("builtins") + PickleText("eval") + "\x93")),
              HasSubstr("'builtins.eval'"));
  EXPECT_THAT(Refusal(With("(ios\nsystem\n")), HasSubstr("instruction 0x69"));
  EXPECT_THAT(Refusal(With("ctorch.nn.modules.linear\nLinear\n)\x81")), HasSubstr("Linear"));
  EXPECT_THAT(Refusal(With("ctorch\nFloatStorage\n)R")), HasSubstr("torch.FloatStorage"));
  EXPECT_THAT(Refusal(With("](K\x01"
                           "e")),
              HasSubstr("no state dict"));
  EXPECT_THAT(Refusal(With("}" + PickleText("epoch") + "K\x01s")), HasSubstr("'epoch'"));
  EXPECT_THAT(Refusal(With("]}b")), HasSubstr("attributes"));
}

TEST(TorchFileTest, TensorsBeyondTheirStorageAreRefused) {
  const auto one = [](PickleTensorSpec spec) {
    spec.name = "t";
    return Refusal(GoodZip(StateDictPickle({spec})));
  };
  EXPECT_EQ(one({.shape = {6}, .strides = {1}}), "accepted");
  EXPECT_THAT(one({.shape = {7}, .strides = {1}}), HasSubstr("'t' is larger"));
  EXPECT_THAT(one({.offset = 1, .shape = {6}, .strides = {1}}), HasSubstr("'t' is larger"));
  EXPECT_THAT(one({.shape = {2, 2}, .strides = {6, 1}}), HasSubstr("'t' is larger"));
  // A tensor that repeats its values.
  EXPECT_THAT(one({.shape = {1 << 30, 1 << 30, 1 << 30}, .strides = {0, 0, 0}}),
              HasSubstr("'t' is larger"));
  EXPECT_THAT(one({.shape = {100}, .strides = {0}}), HasSubstr("'t' is larger"));
  EXPECT_THAT(one({.shape = {-1}, .strides = {1}}), HasSubstr("sizes"));
  EXPECT_THAT(one({.key = "9", .shape = {1}, .strides = {1}}), HasSubstr("not in the file"));
}

TEST(TorchFileTest, CutShortOrChangedItSaysSo) {
  const std::string zip = GoodZip();
  EXPECT_THAT(Refusal(zip.substr(0, zip.size() / 2)), HasSubstr("cut short"));
  std::string changed = zip;
  changed[zip.find(Floats({1, 2, 3}))] ^= 1;
  EXPECT_THAT(Refusal(changed), HasSubstr("checksum"));
  const std::string old = GoodOld();
  EXPECT_THAT(Refusal(old.substr(0, old.size() - 4)), HasSubstr("cut short"));
  EXPECT_THAT(Refusal(Zip({{"a/constants.pkl", ""}, {"a/data.pkl", ""}})),
              HasSubstr("TorchScript"));
  EXPECT_THAT(Refusal(Zip({{"readme", "x"}})), HasSubstr("no data.pkl"));
}

// A pickle may refer to itself and to others as often as it likes.
TEST(TorchFileTest, NestingRepetitionAndSelfReferenceCostLittle) {
  const auto start = std::chrono::steady_clock::now();
  std::string deep = "}q";
  deep += std::string(1, '\0');
  for (int i = 0; i < 300'000; ++i) deep += "]";
  EXPECT_NE(Refusal(With(deep)), "accepted");
  std::string self = "]q" + std::string(1, '\0') + "h" + std::string(1, '\0') + "a";
  EXPECT_NE(Refusal(With(self)), "accepted");
  std::string wide = "(";
  for (int i = 0; i < 300'000; ++i) wide += "N";
  wide += "tq" + std::string(1, '\0');
  for (int i = 0; i < 100'000; ++i) {
    wide += "ccollections\nOrderedDict\nh" + std::string(1, '\0') + "R";
  }
  EXPECT_NE(Refusal(With(wide)), "accepted");
  std::string recalls = "Nq" + std::string(1, '\0');
  for (int i = 0; i < 3'000'000; ++i) recalls += "h" + std::string(1, '\0');
  EXPECT_THAT(Refusal(With(recalls)), HasSubstr("more than a state dict"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(TorchFileTest, RandomChangesNeverDoHarm) {
  std::mt19937 random(1);
  int accepted = 0, refused = 0;
  for (const std::string& good : {GoodZip(), GoodOld()}) {
    for (int i = 0; i < 20'000; ++i) {
      std::string file = good;
      const int changes = 1 + static_cast<int>(random() % 4);
      for (int c = 0; c < changes; ++c) {
        const size_t at = random() % file.size();
        switch (random() % 4) {
          case 0:
            file[at] = static_cast<char>(random());
            break;
          case 1:
            file[at] ^= static_cast<char>(1 << (random() % 8));
            break;
          case 2:
            file.erase(at, 1 + random() % 8);
            break;
          default:
            file.insert(at, 1 + random() % 8, static_cast<char>(random()));
        }
        if (file.empty()) file = "x";
      }
      const absl::StatusOr<TorchFile> parsed = ParseTorchFile(Bytes(file));
      ++(parsed.ok() ? accepted : refused);
      if (!parsed.ok()) continue;
      size_t sum = 0;  // Every byte of every tensor can be read.
      for (const TensorBytes& tensor : parsed->tensors) {
        for (const std::byte byte : tensor.bytes) sum += static_cast<size_t>(byte);
      }
      EXPECT_GE(sum, 0u);
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 1000);
}

// The same on pickles whose archive is whole, so that the checksum does not stop them.
TEST(TorchFileTest, RandomPicklesNeverDoHarm) {
  std::mt19937 random(2);
  const std::string good = StateDictPickle(kTwoTensors);
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string pickle = good;
    for (int c = 0; c < 1 + static_cast<int>(random() % 3); ++c) {
      pickle[random() % pickle.size()] = static_cast<char>(random());
    }
    if (Refusal(GoodZip(pickle)) != "accepted") ++refused;
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace lockstep::trainer
