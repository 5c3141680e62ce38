#include <gtest/gtest.h>

#include <string>

#include "config/load.h"
#include "tests/config/test_files.h"

namespace lockstep::config {
namespace {

TEST(Readme, HoldsTheReferenceOfThisVersion) {
  constexpr char kBegin[] = "<!-- config reference -->";
  constexpr char kEnd[] = "<!-- /config reference -->";
  const std::string readme = Contents(SourceDir() / "README.md");
  const size_t begin = readme.find(kBegin);
  const size_t end = readme.find(kEnd);
  ASSERT_NE(begin, std::string::npos) << "no " << kBegin << " in README.md";
  ASSERT_NE(end, std::string::npos) << "no " << kEnd << " in README.md";
  const size_t from = begin + sizeof(kBegin) - 1;
  ASSERT_LE(from, end);
  std::string text = readme.substr(from, end - from);
  // Blank lines around it belong to the README.
  text.erase(0, text.find_first_not_of('\n'));
  text.erase(text.find_last_not_of('\n') + 1);
  EXPECT_EQ(text + "\n", RunConfigReference())
      << "paste the output of: lockstep config schema --markdown";
}

}  // namespace
}  // namespace lockstep::config
