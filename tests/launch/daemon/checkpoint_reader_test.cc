// Checkpoints as the daemon sees them: listed, and verified byte by byte.
#include "launch/supervisor/checkpoint_reader.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/launch/temporary_folder.h"

namespace lockstep::launch {
namespace {

namespace fs = std::filesystem;

std::string Hex128(const std::string& bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  std::string hex;
  for (const unsigned char byte : canonical.digest) {
    absl::StrAppend(&hex, absl::Hex(byte, absl::kZeroPad2));
  }
  return hex;
}

void WriteFile(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

class CheckpointReaderTest : public ::testing::Test {
 protected:
  fs::path Make(int64_t step, const nlohmann::json& change = {}) {
    char name[32];
    std::snprintf(name, sizeof(name), "step-%09d", static_cast<int>(step));
    const fs::path folder = folder_.path() / name;
    fs::create_directory(folder);
    nlohmann::json files;
    for (const char* file : {"weights.safetensors", "optimizer.safetensors", "state.json"}) {
      const std::string bytes = std::string(5000, 'x') + file + name;
      WriteFile(folder / file, bytes);
      files[file] = {{"size", bytes.size()}, {"xxh3_128", Hex128(bytes)}};
    }
    nlohmann::json manifest = {{"format_version", 1},
                               {"step", step},
                               {"created_unix_seconds", 1.5e9},
                               {"metric", nullptr},
                               {"files", files}};
    if (!change.is_null()) manifest.update(change);
    WriteFile(folder / "manifest.json", manifest.dump());
    return folder;
  }

  TemporaryFolder folder_;
};

TEST_F(CheckpointReaderTest, CommittedCheckpointsAreListedOldestFirstStagedOnesAreNot) {
  Make(200);
  Make(3, {{"metric", 0.25}});
  fs::create_directory(folder_.path() / "step-000000300.tmp-2");
  fs::create_directory(folder_.path() / "something");
  const auto found = ListCheckpoints(folder_.path());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].step, 3);
  EXPECT_EQ(found[0].metric, 0.25);
  EXPECT_EQ(found[1].step, 200);
  EXPECT_FALSE(found[1].metric.has_value());
  EXPECT_GT(found[1].bytes, 15000);
  EXPECT_TRUE(found[1].manifest.ok());
  EXPECT_EQ(NewestCheckpointStep(folder_.path()), 200);
  EXPECT_TRUE(ListCheckpoints(folder_.path() / "none").empty());
  EXPECT_EQ(NewestCheckpointStep(folder_.path() / "none"), 0);
}

TEST_F(CheckpointReaderTest, AGoodOneVerifiesAndEveryFlippedBitIsFound) {
  const fs::path checkpoint = Make(10);
  ASSERT_TRUE(VerifyCheckpoint(checkpoint).ok()) << VerifyCheckpoint(checkpoint);
  std::mt19937 random(5);
  for (const char* file : {"weights.safetensors", "optimizer.safetensors", "state.json"}) {
    std::ifstream in(checkpoint / file, std::ios::binary);
    const std::string good(std::istreambuf_iterator<char>(in), {});
    for (int i = 0; i < 50; ++i) {
      std::string bad = good;
      bad[random() % bad.size()] ^= static_cast<char>(1u << (random() % 8));
      WriteFile(checkpoint / file, bad);
      const absl::Status status = VerifyCheckpoint(checkpoint);
      ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss);
      ASSERT_NE(status.message().find(file), std::string::npos) << status;
    }
    WriteFile(checkpoint / file, good);
  }
  EXPECT_TRUE(VerifyCheckpoint(checkpoint).ok());
}

TEST_F(CheckpointReaderTest, TruncatedMissingAndLinkedFilesAreRefusedByName) {
  const fs::path checkpoint = Make(10);
  const fs::path weights = checkpoint / "weights.safetensors";
  fs::resize_file(weights, 100);
  EXPECT_NE(VerifyCheckpoint(checkpoint).message().find("weights.safetensors: is 100 bytes"),
            std::string::npos);
  const fs::path other = Make(11);
  fs::remove(other / "weights.safetensors");
  EXPECT_NE(VerifyCheckpoint(other).message().find("weights.safetensors"), std::string::npos);
  const fs::path linked = Make(12);
  fs::rename(linked / "weights.safetensors", linked / "elsewhere");
  fs::create_symlink("elsewhere", linked / "weights.safetensors");
  EXPECT_EQ(VerifyCheckpoint(linked).code(), absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointReaderTest, AForeignManifestIsRefusedWithTheReason) {
  const auto message = [&](int64_t step, const nlohmann::json& change) {
    return std::string(VerifyCheckpoint(Make(step, change)).message());
  };
  EXPECT_NE(message(1, {{"format_version", 2}}).find("format version 2"), std::string::npos);
  EXPECT_NE(message(2, {{"step", 7}}).find("step 7"), std::string::npos);
  EXPECT_NE(message(3, {{"files", nlohmann::json::object()}}).find("lists no files"),
            std::string::npos);
  EXPECT_NE(message(4, {{"files", {{"../../etc/passwd", {{"size", 1}, {"xxh3_128", ""}}}}}})
                .find("no file name"),
            std::string::npos);
  const fs::path checkpoint = Make(5);
  WriteFile(checkpoint / "manifest.json", "{");
  EXPECT_EQ(VerifyCheckpoint(checkpoint).code(), absl::StatusCode::kDataLoss);
  fs::remove(checkpoint / "manifest.json");
  EXPECT_EQ(VerifyCheckpoint(checkpoint).code(), absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointReaderTest, VerifyingCanBeCancelled) {
  EXPECT_EQ(VerifyCheckpoint(Make(10), [] { return true; }).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace lockstep::launch
