#include "config/exit_code.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace lockstep::config {
namespace {

TEST(ExitCode, EveryCodeHasWordsOfItsOwn) {
  std::set<std::string> words;
  for (int code = 0; code <= 9; ++code) words.insert(Describe(static_cast<ExitCode>(code)));
  EXPECT_EQ(words.size(), 10u);
  EXPECT_EQ(words.count("unknown exit code"), 0u);
}

TEST(TrainerExit, EveryCodeHasWordsOfItsOwn) {
  std::set<std::string> words;
  for (const int code : {0, 1, 2, 9, 10, 20, 21, 22, 23, 24, 25, 26}) {
    words.insert(Describe(static_cast<TrainerExit>(code)));
  }
  EXPECT_EQ(words.size(), 12u);
  EXPECT_EQ(words.count("unknown exit code"), 0u);
}

TEST(TrainerExit, AForeignCodeIsNotMistakenForOneOfOurs) {
  for (const int code : {-1, 3, 11, 27, 137, 255}) {
    EXPECT_STREQ(Describe(static_cast<TrainerExit>(code)), "unknown exit code") << code;
  }
}

}  // namespace
}  // namespace lockstep::config
