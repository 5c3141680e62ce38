#include "trainer/inference/serve.h"

#include <chrono>

#include "config/frame.h"
#include "lockstep/v1/predict.pb.h"

namespace lockstep::trainer {
namespace {

constexpr int kProtocolVersion = 1;
constexpr size_t kMaxQuestionBytes = (32u << 20) + (1u << 20);  // A picture and what is around it.
constexpr int kDefaultTopK = 5;

absl::Status Send(int socket, const google::protobuf::Message& message) {
  return config::WriteFrame(socket, message.SerializeAsString(), config::kNoDeadline);
}

void Fill(const Prediction& prediction, v1::Prediction* out) {
  for (const auto& [name, probability] : prediction.labels) {
    auto* label = out->add_labels();
    label->set_name(name);
    label->set_probability(probability);
  }
  for (const auto& [name, value] : prediction.numbers) {
    auto* number = out->add_numbers();
    number->set_name(name);
    number->set_value(value);
  }
}

v1::ServeResponse Answer(const ServedModel& model, const v1::ServeRequest& request) {
  const auto began = std::chrono::steady_clock::now();
  v1::ServeResponse response;
  response.set_id(request.id());
  const std::string name = request.picture_name().empty() ? "the picture" : request.picture_name();
  try {
    Fill(model.predict(std::as_bytes(std::span(request.picture())), name,
                       request.top_k() > 0 ? request.top_k() : kDefaultTopK),
         response.mutable_prediction());
  } catch (const DataError& error) {
    response.set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
    response.set_error(error.what());
  }
  response.set_seconds(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  return response;
}

}  // namespace

absl::Status Serve(int socket, const std::function<absl::StatusOr<ServedModel>()>& load) {
  const auto model = load();
  v1::ServeHello hello;
  hello.set_protocol_version(kProtocolVersion);
  hello.set_code(static_cast<int>(model.status().code()));
  hello.set_error(std::string(model.status().message()));
  if (model.ok()) {
    hello.set_checkpoint(model->checkpoint);
    hello.set_step(model->step);
  }
  absl::Status sent = Send(socket, hello);
  if (!model.ok()) return model.status();
  config::FrameReader reader(socket, kMaxQuestionBytes);
  while (sent.ok()) {
    const auto frame = reader.Read(config::kNoDeadline);
    if (!frame.ok()) {
      sent = frame.status();
      break;
    }
    v1::ServeRequest request;
    if (!request.ParseFromString(*frame)) return absl::DataLossError("a question that is none");
    sent = Send(socket, Answer(*model, request));
  }
  return absl::IsUnavailable(sent) ? absl::OkStatus() : sent;
}

}  // namespace lockstep::trainer
