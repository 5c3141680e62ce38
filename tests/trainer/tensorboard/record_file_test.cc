#include "trainer/tensorboard/record_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/trainer/tensorboard/event_reader.h"
#include "trainer/tensorboard/crc32c.h"

namespace lockstep::trainer {
namespace {

// RFC 3720, appendix B.4: thirty-two bytes each, and a SCSI read command.
TEST(Crc32c, HasTheValuesOfRfc3720) {
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string up, down;
  for (int i = 0; i < 32; ++i) {
    up += static_cast<char>(i);
    down += static_cast<char>(31 - i);
  }
  EXPECT_EQ(Crc32c(up), 0x46dd794eu);
  EXPECT_EQ(Crc32c(down), 0x113fdb5cu);
  const unsigned char read[48] = {0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0,
                                  0x14, 0,    0, 0, 0, 0, 4, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18,
                                  0x28, 0,    0, 0, 0, 0, 0, 0, 2, 0, 0, 0,    0, 0, 0, 0};
  EXPECT_EQ(Crc32c({reinterpret_cast<const char*>(read), sizeof(read)}), 0xd9963a56u);
}

// The check value of the polynomial, and every length that takes another way through the tables.
TEST(Crc32c, IsTheSameBitByBitAndByTableAtEveryLength) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  std::string bytes;
  for (int length = 0; length < 40; ++length) {
    EXPECT_EQ(Crc32c(bytes), BitwiseCrc32c(bytes)) << length;
    EXPECT_EQ(Crc32cByTable(bytes), BitwiseCrc32c(bytes)) << length;
    bytes += static_cast<char>(length * 37 + 200);
  }
}

TEST(RecordFile, IsReadBackAsItWasAppended) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "records";
  auto file = RecordFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  file->Append("one");
  file->Append("");
  EXPECT_EQ(Contents(path), "") << "nothing is written before the flush";
  ASSERT_TRUE(file->Flush().ok());
  file->Append(std::string(100000, 'x'));
  ASSERT_TRUE(file->Flush().ok());
  EXPECT_TRUE(file->Sync().ok());
  EXPECT_EQ(Records(Contents(path)),
            (std::vector<std::string>{"one", "", std::string(100000, 'x')}));
  EXPECT_EQ(file->flushed_bytes(), static_cast<int64_t>(std::filesystem::file_size(path)));
  EXPECT_EQ(file->buffered_bytes(), 0u);
}

TEST(RecordFile, IsNotCreatedOverAnother) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "records") << "mine";
  EXPECT_TRUE(absl::IsAlreadyExists(RecordFile::Create(folder.path() / "records").status()));
  EXPECT_TRUE(absl::IsNotFound(RecordFile::Create(folder.path() / "no/records").status()));
  EXPECT_EQ(Contents(folder.path() / "records"), "mine");
}

// In a process of its own: the limit is the process's.
TEST(RecordFile, EndsWithAWholeRecordWhenTheDiskIsFull) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "records";
  const auto fill = [&] {
    signal(SIGXFSZ, SIG_IGN);
    auto file = RecordFile::Create(path);
    file->Append("kept");
    if (!file->Flush().ok()) _exit(1);
    const rlimit limit = {100, 100};
    setrlimit(RLIMIT_FSIZE, &limit);
    file->Append(std::string(500, 'x'));
    if (file->Flush().ok()) _exit(2);
    _exit(file->flushed_bytes() == 20 ? 0 : 3);
  };
  EXPECT_EXIT(fill(), testing::ExitedWithCode(0), "");
  EXPECT_EQ(Records(Contents(path)), std::vector<std::string>{"kept"});
}

}  // namespace
}  // namespace lockstep::trainer
