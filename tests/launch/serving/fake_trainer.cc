// `lockstep-trainer serve` in little: it answers every picture with the picture's own text, and
// does what a picture or a checkpoint of a certain name asks for.
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

#include "config/frame.h"
#include "lockstep/v1/predict.pb.h"

namespace {

using namespace lockstep;

void Send(int socket, const google::protobuf::Message& message) {
  if (!config::WriteFrame(socket, message.SerializeAsString(), config::kNoDeadline).ok()) _exit(9);
}

void Sleep(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

}  // namespace

int main(int argc, char** argv) {
  // serve --socket-fd N -- CHECKPOINT
  if (argc != 6 || std::string(argv[1]) != "serve") return 2;
  const int socket = std::atoi(argv[3]);
  const std::string checkpoint = argv[5];
  const auto named = [&](const char* word) { return checkpoint.find(word) != std::string::npos; };
  if (named("dies-at-start")) return 7;
  if (named("never-ready")) Sleep(60'000);
  v1::ServeHello hello;
  hello.set_protocol_version(named("foreign") ? 2 : 1);
  hello.set_checkpoint(checkpoint);
  hello.set_step(std::getenv("LD_PRELOAD") == nullptr ? 12 : -1);
  if (named("damaged")) {
    hello.set_code(15);  // DATA_LOSS
    hello.set_error("weights.safetensors is damaged");
  }
  Send(socket, hello);
  config::FrameReader reader(socket, 64 << 20);
  for (;;) {
    const auto frame = reader.Read(config::kNoDeadline);
    if (!frame.ok()) return 0;
    v1::ServeRequest request;
    if (!request.ParseFromString(*frame)) return 3;
    const std::string& picture = request.picture();
    if (picture == "crash") raise(SIGKILL);
    if (picture == "hang") Sleep(60'000);
    if (picture == "slow") Sleep(300);
    if (picture == "garbage") {
      if (!config::WriteFrame(socket, "\xff\xff", config::kNoDeadline).ok()) return 9;
      continue;
    }
    v1::ServeResponse response;
    response.set_id(request.id());
    if (picture == "text") {
      response.set_code(3);  // INVALID_ARGUMENT
      response.set_error(request.picture_name() + ": is no picture");
    } else {
      auto* label = response.mutable_prediction()->add_labels();
      label->set_name(picture + " by " + std::to_string(getpid()));
      label->set_probability(request.top_k());
    }
    Send(socket, response);
  }
}
