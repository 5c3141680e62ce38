// The sample snapshot as a program, for checks from outside:
//   metrics_sample_endpoint --print   writes the families as text and ends
//   metrics_sample_endpoint           serves them, moving with time, on a free loopback port; says
//                                     "endpoint HOST:PORT" and ends when its standard input does

#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>

#include "metrics/exposer.h"
#include "metrics/families.h"
#include "prometheus/text_serializer.h"
#include "tests/metrics/sample_snapshot.h"

namespace {

double UnixSeconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

}  // namespace

int main(int argc, char** argv) {
  using lockstep::metrics::Families;
  using lockstep::metrics::SampleSnapshot;
  const double start = UnixSeconds();
  if (argc > 1 && std::string(argv[1]) == "--print") {
    prometheus::TextSerializer().Serialize(std::cout, Families(SampleSnapshot({}, start, 10)));
    return 0;
  }
  auto exposer = lockstep::metrics::Exposer::Start(
      "127.0.0.1:0", [start] { return SampleSnapshot({}, start, UnixSeconds() - start); });
  if (!exposer.ok()) {
    std::cerr << exposer.status() << "\n";
    return 1;
  }
  std::cout << "endpoint 127.0.0.1:" << (*exposer)->port() << std::endl;
  while (std::getchar() != EOF) {
  }
  return 0;
}
