#include "metrics/exposer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

#include "gtest/gtest.h"
#include "tests/metrics/sample_snapshot.h"

namespace lockstep::metrics {
namespace {

// A plain HTTP/1.0 GET of host:port; the whole answer with its headers, "" when nobody answers.
std::string Get(int port, const std::string& path, const char* host = "127.0.0.1") {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, host, &address.sin_addr);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
    if (write(fd, request.data(), request.size()) == static_cast<ssize_t>(request.size())) {
      char buffer[4096];
      for (ssize_t n = read(fd, buffer, sizeof(buffer)); n > 0;
           n = read(fd, buffer, sizeof(buffer))) {
        answer.append(buffer, static_cast<size_t>(n));
      }
    }
  }
  close(fd);
  return answer;
}

Snapshot Sample() {
  return SampleSnapshot({}, 1.7e9, 10);
}

TEST(Exposer, ServesTheSnapshotOfEachScrape) {
  std::atomic<int64_t> scrapes = 0;
  auto exposer = Exposer::Start("127.0.0.1:0", [&scrapes] {
    Snapshot snapshot;
    snapshot.queue_depth = ++scrapes;
    return snapshot;
  });
  ASSERT_TRUE(exposer.ok()) << exposer.status();
  ASSERT_GT((*exposer)->port(), 0);
  const std::string first = Get((*exposer)->port(), "/metrics");
  const std::string second = Get((*exposer)->port(), "/metrics");
  EXPECT_NE(first.find(" 200 "), std::string::npos) << first;
  EXPECT_NE(first.find("\nlockstep_queue_depth_runs 1"), std::string::npos) << first;
  EXPECT_NE(second.find("\nlockstep_queue_depth_runs 2"), std::string::npos) << second;
}

TEST(Exposer, RefusesAPortInUse) {
  auto first = Exposer::Start("127.0.0.1:0", Sample);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = "127.0.0.1:" + std::to_string((*first)->port());
  auto second = Exposer::Start(address, Sample);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(second.status().message()).find(address), std::string::npos);
  EXPECT_NE(Get((*first)->port(), "/metrics").find("lockstep_runs"), std::string::npos)
      << "the first endpoint must go on";
}

TEST(Exposer, FreesItsPortWhenItEnds) {
  auto exposer = Exposer::Start("127.0.0.1:0", Sample);
  ASSERT_TRUE(exposer.ok()) << exposer.status();
  const int port = (*exposer)->port();
  exposer->reset();
  EXPECT_EQ(Get(port, "/metrics"), "");
}

// The web server alone takes two seconds to end once it was scraped; a daemon that restarts must
// not.
TEST(Exposer, EndsWithinASecondAfterAScrape) {
  for (const char* host : {"127.0.0.1", "127.0.0.2", "0.0.0.0"}) {
    auto exposer = Exposer::Start(std::string(host) + ":0", Sample);
    ASSERT_TRUE(exposer.ok()) << exposer.status();
    ASSERT_NE(Get((*exposer)->port(), "/metrics", host), "");
    const auto start = std::chrono::steady_clock::now();
    exposer->reset();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1)) << host;
  }
}

TEST(Exposer, WantsAHostAndAPort) {
  for (const char* address : {"9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:+1",
                              "127.0.0.1:99999", "127.0.0.1:1,0.0.0.0:2", "127.0.0.1:80s", ""}) {
    auto exposer = Exposer::Start(address, Sample);
    ASSERT_FALSE(exposer.ok()) << address;
    EXPECT_EQ(exposer.status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

TEST(Exposer, OutlivesASnapshotThatThrows) {
  auto exposer =
      Exposer::Start("127.0.0.1:0", []() -> Snapshot { throw std::runtime_error("no store"); });
  ASSERT_TRUE(exposer.ok()) << exposer.status();
  EXPECT_NE(Get((*exposer)->port(), "/metrics").find(" 200 "), std::string::npos);
}

// Zeros would be read as measurements, and as counters that began anew.
TEST(Exposer, ShowsNothingWhereNobodyCanTell) {
  auto exposer = Exposer::Start("127.0.0.1:0", [] { return std::nullopt; });
  ASSERT_TRUE(exposer.ok()) << exposer.status();
  const std::string answer = Get((*exposer)->port(), "/metrics");
  EXPECT_NE(answer.find(" 200 "), std::string::npos) << answer;
  EXPECT_EQ(answer.find("lockstep_"), std::string::npos) << answer;
}

// The web server adds families of its own to every scrape; they have to pass too.
TEST(Exposer, AWholeScrapePassesPromtool) {
  if (std::system("command -v promtool >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "promtool is not installed (package prometheus)";
  }
  auto exposer = Exposer::Start("127.0.0.1:0", Sample);
  ASSERT_TRUE(exposer.ok()) << exposer.status();
  Get((*exposer)->port(), "/metrics");
  const std::string answer = Get((*exposer)->port(), "/metrics");
  const size_t body = answer.find("\r\n\r\n");
  ASSERT_NE(body, std::string::npos);
  FILE* pipe = popen("promtool check metrics", "w");
  ASSERT_NE(pipe, nullptr);
  std::fwrite(answer.data() + body + 4, 1, answer.size() - body - 4, pipe);
  EXPECT_EQ(pclose(pipe), 0);
}

}  // namespace
}  // namespace lockstep::metrics
