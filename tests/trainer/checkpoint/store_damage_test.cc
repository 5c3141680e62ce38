// Whatever happens to a checkpoint's bytes: it is refused with the file's name, and the one before
// it is used.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <memory>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"
#include "trainer/checkpoint/store.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// In place: a file that is cut and written anew makes some file systems wait for the disk.
void FlipBit(const fs::path& path, size_t bit) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  const auto place = static_cast<std::streamoff>(bit / 8);
  file.seekg(place);
  const int byte = file.get();
  file.seekp(place);
  file.put(static_cast<char>(byte ^ (1 << (bit % 8))));
}

// Two good checkpoints, 1 and 2; tests damage the newer one.
class DamageTest : public ::testing::Test {
 protected:
  // Committed once; each test gets a copy, which waits for no disk.
  static void SetUpTestSuite() {
    start_ = std::make_unique<TempFolder>();
    CheckpointStore store(start_->path() / "checkpoints", 1, {.keep_last = 9, .keep_best = 0});
    ASSERT_TRUE(store.Open().ok());
    for (const int64_t step : {1, 2}) {
      const SampleContents contents(step);
      ASSERT_TRUE(store.Commit(step, contents.View(), 0.5).ok());
    }
  }
  static void TearDownTestSuite() { start_.reset(); }

  void SetUp() override {
    fs::copy(start_->path(), temp_.path(), fs::copy_options::recursive);
    ASSERT_TRUE(store_.Verify(store_.PathOf(2)).ok());
  }

  fs::path Newer(const std::string& file) const { return store_.PathOf(2) / file; }

  // The newer one is refused for `file` (and `reason`), the older one is whole.
  void ExpectFallBack(const std::string& file, const std::string& reason = "") {
    const fs::path path = file.empty() ? store_.PathOf(2) : Newer(file);
    std::vector<std::string> refused;
    const auto loaded = store_.LoadNewestGood(refused);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->info.step, 1);
    EXPECT_TRUE(IsWhole(*loaded));
    const auto line = AllOf(HasSubstr(path.string()), HasSubstr(reason));
    EXPECT_THAT(refused, ElementsAre(line));
    const absl::Status verified = store_.Verify(store_.PathOf(2));
    EXPECT_FALSE(verified.ok());
    EXPECT_THAT(std::string(verified.message()), line);
  }

  static inline std::unique_ptr<TempFolder> start_;
  TempFolder temp_;
  CheckpointStore store_{temp_.path() / "checkpoints", 1, {.keep_last = 9, .keep_best = 0}};
  const std::vector<std::string> files_ = {"weights.safetensors", "optimizer.safetensors",
                                           "state.json", "manifest.json"};
};

TEST_F(DamageTest, AThousandFlippedBits) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 1000 && !HasFailure(); ++i) {
    // A quarter each, so that the small files are hit as often as the large ones.
    const std::string& file = files_[static_cast<size_t>(i) % files_.size()];
    const size_t bit = random() % (8 * fs::file_size(Newer(file)));
    FlipBit(Newer(file), bit);
    SCOPED_TRACE(absl::StrCat(file, " bit ", bit));
    ExpectFallBack(file);
    FlipBit(Newer(file), bit);
  }
  EXPECT_TRUE(store_.Verify(store_.PathOf(2)).ok());
}

TEST_F(DamageTest, TwoHundredTruncations) {
  std::mt19937_64 random(8);
  for (int i = 0; i < 200 && !HasFailure(); ++i) {
    const std::string& file = files_[static_cast<size_t>(i) % files_.size()];
    const std::string good = ReadAll(Newer(file));
    const size_t size = i < 4 ? 0 : random() % good.size();
    fs::resize_file(Newer(file), size);
    SCOPED_TRACE(absl::StrCat(file, " cut to ", size));
    ExpectFallBack(file);
    WriteAll(Newer(file), good);
  }
}

TEST_F(DamageTest, ZeroedPages) {
  for (const char* file : {"weights.safetensors", "optimizer.safetensors", "manifest.json"}) {
    const std::string good = ReadAll(Newer(file));
    for (size_t at = 0; at < good.size(); at += 64) {
      std::string bad = good;
      bad.replace(at, std::min<size_t>(64, bad.size() - at), std::min<size_t>(64, bad.size() - at),
                  '\0');
      if (bad == good) continue;
      WriteAll(Newer(file), bad);
      ExpectFallBack(file);
    }
    WriteAll(Newer(file), good);
  }
}

TEST_F(DamageTest, LongerFiles) {
  for (const std::string& file : files_) {
    const std::string good = ReadAll(Newer(file));
    WriteAll(Newer(file), good + " ");
    ExpectFallBack(file);
    WriteAll(Newer(file), good);
  }
}

TEST_F(DamageTest, MissingFiles) {
  for (const std::string& file : files_) {
    const std::string good = ReadAll(Newer(file));
    fs::remove(Newer(file));
    ExpectFallBack(file, "is missing");
    WriteAll(Newer(file), good);
  }
}

TEST_F(DamageTest, ExtraFiles) {
  WriteAll(Newer("weights.safetensors.part"), "");
  ExpectFallBack("weights.safetensors.part", "does not belong");
}

TEST_F(DamageTest, SymbolicLinksEvenToTheRightBytes) {
  for (const std::string& file : files_) {
    const fs::path elsewhere = temp_.path() / "elsewhere";
    fs::rename(Newer(file), elsewhere);
    fs::create_symlink(elsewhere, Newer(file));
    ExpectFallBack(file, "symbolic link");
    fs::remove(Newer(file));
    fs::rename(elsewhere, Newer(file));
  }
}

TEST_F(DamageTest, ALinkInPlaceOfTheFolder) {
  const fs::path elsewhere = temp_.path() / "elsewhere";
  fs::rename(store_.PathOf(2), elsewhere);
  fs::create_directory_symlink(elsewhere, store_.PathOf(2));
  ExpectFallBack("", "not a folder");
  EXPECT_FALSE(store_.Verify(store_.PathOf(2) / "").ok()) << "a slash must not look behind it";
}

TEST_F(DamageTest, PipesAndFolders) {
  fs::remove(Newer("state.json"));
  ASSERT_EQ(::mkfifo(Newer("state.json").c_str(), 0600), 0);
  ExpectFallBack("state.json", "not a regular file");
  fs::remove(Newer("state.json"));
  fs::create_directory(Newer("state.json"));
  ExpectFallBack("state.json", "not a regular file");
}

TEST_F(DamageTest, FilesOfOneCheckpointSwapped) {
  const std::string weights = ReadAll(Newer("weights.safetensors"));
  WriteAll(Newer("weights.safetensors"), ReadAll(Newer("optimizer.safetensors")));
  WriteAll(Newer("optimizer.safetensors"), weights);
  std::vector<std::string> refused;
  EXPECT_EQ(store_.LoadNewestGood(refused)->info.step, 1);
}

TEST_F(DamageTest, AFileOfAnotherCheckpoint) {
  for (const char* file : {"weights.safetensors", "optimizer.safetensors", "state.json"}) {
    const std::string good = ReadAll(Newer(file));
    WriteAll(Newer(file), ReadAll(store_.PathOf(1) / file));
    ExpectFallBack(file, "hash");
    WriteAll(Newer(file), good);
  }
}

TEST_F(DamageTest, AWholeCheckpointUnderAnotherName) {
  fs::remove_all(store_.PathOf(2));
  fs::copy(store_.PathOf(1), store_.PathOf(2), fs::copy_options::recursive);
  ExpectFallBack("manifest.json", "is of step 1");
}

TEST_F(DamageTest, AManifestOfANewerVersion) {
  std::string manifest = ReadAll(Newer("manifest.json"));
  const std::string version = "\"format_version\": 1";
  manifest.replace(manifest.find(version), version.size(), "\"format_version\": 12");
  WriteAll(Newer("manifest.json"), manifest);
  ExpectFallBack("manifest.json", "version 12");
  EXPECT_TRUE(absl::IsFailedPrecondition(store_.Verify(store_.PathOf(2))));
  // What a newer version wrote is not written over.
  const SampleContents contents(2);
  EXPECT_TRUE(absl::IsFailedPrecondition(store_.Commit(2, contents.View(), {})));
  EXPECT_EQ(ReadAll(Newer("manifest.json")), manifest);
}

TEST_F(DamageTest, AManifestOfSomethingElse) {
  std::string manifest = ReadAll(Newer("manifest.json"));
  manifest.replace(manifest.find("lockstep-checkpoint"), 8, "somebody");
  WriteAll(Newer("manifest.json"), manifest);
  ExpectFallBack("manifest.json", "something else wrote");
}

TEST_F(DamageTest, AHugeManifestIsNotRead) {
  fs::resize_file(Newer("manifest.json"), uintmax_t{1} << 40);
  ExpectFallBack("manifest.json", "too large");
}

TEST_F(DamageTest, WhenNoneIsGoodItSaysSoAndNamesAll) {
  WriteAll(Newer("state.json"), "");
  WriteAll(store_.PathOf(1) / "weights.safetensors", "");
  std::vector<std::string> refused;
  const absl::Status status = store_.LoadNewestGood(refused).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(refused, ElementsAre(HasSubstr("step-000000002/state.json"),
                                   HasSubstr("step-000000001/weights.safetensors")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("none of the 2"));
}

TEST_F(DamageTest, TheDamagedOneStaysInPlace) {
  WriteAll(Newer("state.json"), "");
  ExpectFallBack("state.json");
  ASSERT_TRUE(store_.Open().ok());
  const SampleContents contents(3);
  ASSERT_TRUE(store_.Commit(3, contents.View(), {}).ok());
  EXPECT_TRUE(fs::exists(Newer("weights.safetensors")));
}

}  // namespace
}  // namespace lockstep::trainer
