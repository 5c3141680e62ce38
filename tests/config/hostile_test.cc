// Text that was written to do harm is refused in bounded time and memory, with a place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <functional>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "config/load.h"
#include "config/yaml_document.h"

namespace lockstep::config {
namespace {

std::string Repeat(const std::string& text, size_t count) {
  std::string result;
  result.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) result += text;
  return result;
}

std::string Numbered(size_t count, const std::function<std::string(size_t)>& line) {
  std::string result;
  for (size_t i = 0; i < count; ++i) result += line(i);
  return result;
}

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_THREAD, &usage);
  const auto seconds = [](const timeval& t) { return double(t.tv_sec) + 1e-6 * double(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

long PeakKib() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kMostSeconds = 3;
constexpr bool kMeasuresMemory = false;
#else
constexpr double kMostSeconds = 0.1;
constexpr bool kMeasuresMemory = true;
#endif

// Loads it; the processor time, not the wall time, so that a busy machine does not fail the test.
Loaded<RunConfig> Refused(const std::string& name, const std::string& text) {
  const long before = PeakKib();
  const double start = CpuSeconds();
  Loaded<RunConfig> loaded = LoadRunConfig(text, "hostile.yaml");
  const double seconds = CpuSeconds() - start;
  EXPECT_LE(seconds, kMostSeconds) << name;
  if (kMeasuresMemory) {
    EXPECT_LE(PeakKib() - before, 64 * 1024) << name;
  }
  EXPECT_FALSE(loaded.ok()) << name;
  EXPECT_LE(loaded.problems.size(), 101u) << name;
  if (!loaded.ok()) {
    EXPECT_GE(loaded.problems.front().line, 1) << name;
    EXPECT_GE(loaded.problems.front().column, 1) << name;
    EXPECT_LE(loaded.Report().size(), 100000u) << name;
  }
  return loaded;
}

void ExpectFirst(const Loaded<RunConfig>& loaded, int line, int column, const std::string& text) {
  ASSERT_FALSE(loaded.ok());
  const Problem& first = loaded.problems.front();
  EXPECT_EQ(first.line, line) << first.ToString();
  EXPECT_EQ(first.column, column) << first.ToString();
  EXPECT_THAT(first.message, testing::HasSubstr(text));
}

TEST(Hostile, DepthIsRefusedWhateverItIsMadeOf) {
  constexpr size_t kDeep = 30000;
  ExpectFirst(Refused("flow lists", "name: " + Repeat("[", kDeep) + Repeat("]", kDeep)), 1, 38,
              "nested more than 32 deep");
  for (const std::string level : {"[", "{a: ", "{? ", "- ", "? ", "? - ", "[{a: ", "[[\n"}) {
    const auto loaded = Refused(level, Repeat(level, 65000 / level.size()));
    EXPECT_THAT(loaded.Report(), testing::HasSubstr("nested more than")) << level;
  }
}

TEST(Hostile, AHundredThousandLevelsAreTooLargeAlready) {
  ExpectFirst(Refused("10^5", Repeat("[", 100000)), 1, 65537, "100000 bytes");
}

TEST(Hostile, SizeIsRefusedWithTheFirstByteTooMuch) {
  ExpectFirst(Refused("100 MB", Repeat("a", 100'000'000)), 1, 65537, "100000000 bytes");
  ExpectFirst(Refused("a million keys",
                      Numbered(1'000'000, [](size_t i) { return absl::StrCat("k", i, ": 1\n"); })),
              7406, 2, "bytes");
  EXPECT_EQ(kLargestYamlBytes, 65536u);
}

TEST(Hostile, LaughsAndCyclesAreOnlyAliases) {
  std::string laughs = "a0: &a0 [lol, lol]\n";
  for (int i = 1; i < 30; ++i) {
    absl::StrAppend(&laughs, "a", i, ": &a", i, " [", Repeat(absl::StrCat("*a", i - 1, ", "), 9),
                    "]\n");
  }
  ExpectFirst(Refused("billion laughs", laughs), 1, 5, "anchor");
  ExpectFirst(Refused("cycle", "&a [*a]"), 1, 1, "anchor");
  const std::string cycle =
      "{name: a, training: {duration: 1ep, global_batch_size: 1}, data: &d {augment: *d}}";
  ExpectFirst(Refused("cyclic mapping", cycle), 1, static_cast<int>(cycle.find('&')) + 1, "anchor");
  ExpectFirst(Refused("unknown alias", "name: *nothing\n"), 1, 7, "not valid YAML");
  ExpectFirst(
      Refused("anchors",
              Numbered(4000, [](size_t i) { return absl::StrCat("k", i, ": &a", i, " 1\n"); })),
      1, 5, "anchor");
}

TEST(Hostile, BytesThatAreNoTextAreRefusedWhereTheyStand) {
  using std::string_literals::operator""s;
  ExpectFirst(Refused("NUL", "name: a\nseed: \0"s), 2, 7, "NUL");
  ExpectFirst(Refused("NUL in quotes", "name: \"a\0b\"\n"s), 1, 9, "NUL");
  ExpectFirst(Refused("escape", "name: \"\x1b[2J\"\n"), 1, 8, "control");
  ExpectFirst(Refused("carriage return alone", "name: a\rseed: 1\n"), 1, 8, "control");
  ExpectFirst(Refused("lone continuation", "name: \x80\n"), 1, 7, "UTF-8");
  ExpectFirst(Refused("cut short", "name: \xe2\x82"), 1, 7, "UTF-8");
  ExpectFirst(Refused("overlong slash", "name: \xc0\xaf\n"), 1, 7, "UTF-8");
  ExpectFirst(Refused("overlong NUL", "name: \xe0\x80\x80\n"), 1, 7, "UTF-8");
  ExpectFirst(Refused("surrogate", "name: \xed\xa0\x80\n"), 1, 7, "UTF-8");
  ExpectFirst(Refused("above U+10FFFF", "name: \xf4\x90\x80\x80\n"), 1, 7, "UTF-8");
  ExpectFirst(Refused("UTF-16", "\xff\xfen\0a\0"s), 1, 1, "UTF-8");
  ExpectFirst(Refused("after wide characters", "name: \"日本\x01\"\n"), 1, 10, "control");
}

TEST(Hostile, ANulSpelledOutIsRefused) {
  const std::string rest = "training: {duration: 1ep, global_batch_size: 1}\n";
  ExpectFirst(Refused("name", "name: \"a\\0\"\n" + rest), 1, 7, "NUL");
  ExpectFirst(Refused("path", "name: a\ndata: {kind: cifar10, path: \"/a\\x00b\"}\n" + rest), 2, 29,
              "NUL");
}

TEST(Hostile, EmptyTextMissesItsKeys) {
  for (const char* text : {"", "\n", "# nothing\n", "---\n", "---\n...\n", "~", "{}", "   \n\n"}) {
    const auto loaded = Refused(text, text);
    ASSERT_EQ(loaded.problems.size(), 3u) << loaded.Report();
    EXPECT_EQ(loaded.problems[0].path, "name");
  }
}

TEST(Hostile, ManyOfOneKindStayWithinBounds) {
  const auto key = [](size_t i) { return absl::StrCat("k", i); };
  Refused("duplicates", Repeat("a: 1\n", 13000));
  Refused("keys", Numbered(6500, [&](size_t i) { return key(i) + ": 1\n"; }));
  Refused("flow keys", "{" + Numbered(6000, [&](size_t i) { return key(i) + ": 1, "; }) + "}");
  Refused("blocks", "model: {cnn: {blocks: [" + Repeat("{},", 20000) + "]}}");
  Refused("documents", Repeat("---\n", 16000));
  Refused("tag directives", Repeat("%TAG ! tag:x\n", 5000));
  Refused("tags", Repeat("!!a ", 16000));
  Refused("escapes", "a: \"" + Repeat("\\x41", 16000) + "\"");
  Refused("folded lines", "a: >\n" + Repeat("   \n", 16000));
  Refused("deepening indentation",
          Numbered(350, [](size_t i) { return std::string(i, ' ') + "a:\n"; }));
  for (const char one : std::string("[]{}:,-?&*!|>'\"%#@` a0~\t")) {
    Refused(std::string(1, one), "name: a\n" + std::string(65000, one));
    Refused(std::string(1, one), std::string(65000, one));
  }
}

TEST(Hostile, ALongNameIsRefusedBeforeThePatternIsTried) {
  const auto loaded = Refused("name", "name: " + std::string(60000, 'a') + "\n");
  EXPECT_THAT(loaded.Report(), testing::HasSubstr("60000 bytes"));
}

TEST(Hostile, RandomPunctuationNeverCrashes) {
  std::mt19937 random(1);
  const std::string letters = "[]{}:,-?&*!|>'\"%#@ \n\nab01~";
  for (int round = 0; round < 200; ++round) {
    std::string text(round < 20 ? 65000 : 300, ' ');
    for (char& c : text) c = letters[random() % letters.size()];
    Refused(absl::StrCat("round ", round), text);
  }
}

// A valid file with a few bytes changed: the likeliest way to a corner that nobody thought of.
TEST(Hostile, DamagedFilesNeverCrash) {
  const std::string good =
      "name: run-1\nseed: 42\ndata: {kind: shapes, mean: [0.1, 0.2, 0.3], std: [1, 1, 1]}\n"
      "model:\n  name: cnn\n  cnn:\n    blocks:\n      - {filters: 8, pool: max}\n"
      "training: {duration: 30ep, global_batch_size: 512}\n";
  ASSERT_TRUE(LoadRunConfig(good, "good.yaml").ok());
  std::mt19937 random(2);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (size_t change = 0; change <= random() % 4; ++change) {
      const size_t at = random() % text.size();
      const char byte = static_cast<char>(random() % 128);
      switch (random() % 3) {
        case 0:
          text[at] = byte;
          break;
        case 1:
          text.erase(at, 1 + random() % 5);
          break;
        default:
          text.insert(at, 1, byte);
      }
    }
    const auto loaded = LoadRunConfig(text, "damaged.yaml");
    refused += loaded.ok() ? 0 : 1;
    if (loaded.ok()) {
      EXPECT_EQ(LoadRunConfig(ToYaml(loaded.config), "w").config, loaded.config) << text;
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace lockstep::config
