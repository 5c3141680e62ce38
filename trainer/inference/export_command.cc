// export: a verified checkpoint as safetensors with its card beside it, or as ONNX with the
// checkpoint's own logits beside it, for scripts/check-onnx.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "config/exit_code.h"
#include "trainer/checkpoint/checkpoint_folder.h"
#include "trainer/checkpoint/file_operations.h"
#include "trainer/export/half.h"
#include "trainer/export/onnx.h"
#include "trainer/inference/commands.h"
#include "trainer/inference/predictor.h"
#include "trainer/inference/test_picture.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Pieces = std::vector<std::span<const std::byte>>;

// All or nothing: a name that does not exist yet, then a rename, both durable.
absl::Status WriteWhole(const fs::path& path, const Pieces& pieces) {
  const FileOperations files;
  const fs::path staged = absl::StrCat(path.string(), ".tmp-", getpid());
  absl::Status status = files.remove_all(staged);
  if (status.ok()) status = files.write_file(staged, pieces);
  if (status.ok()) status = files.rename(staged, path);
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (status.ok()) return files.sync_folder(folder);
  (void)files.remove_all(staged);  // The first error is the one to tell.
  return status;
}

absl::Status WriteText(const fs::path& path, const std::string& text) {
  return WriteWhole(path, {std::as_bytes(std::span(text))});
}

// model.onnx -> model.card.json
fs::path Beside(const fs::path& path, const char* extension) {
  fs::path other = path;
  return other.replace_extension(extension);
}

// The weights as float16, with the memory they lie in.
struct HalfWeights {
  std::vector<std::string> memory;
  std::vector<TensorBytes> tensors;
};

absl::StatusOr<HalfWeights> ToHalf(const std::vector<TensorBytes>& tensors) {
  HalfWeights half;
  half.memory.reserve(tensors.size());
  for (const TensorBytes& tensor : tensors) {
    if (tensor.dtype != "F32") {
      half.tensors.push_back(tensor);
      continue;
    }
    std::string& bytes = half.memory.emplace_back(tensor.bytes.size() / 2, '\0');
    for (size_t i = 0; i < bytes.size() / 2; ++i) {
      float value = 0;
      std::memcpy(&value, tensor.bytes.data() + 4 * i, 4);
      if (std::abs(value) > kLargestHalf) {
        return absl::InvalidArgumentError(absl::StrCat(
            tensor.name, " holds ", value, ", more than float16 can; export without --fp16"));
      }
      const uint16_t bits = HalfBits(value);
      std::memcpy(bytes.data() + 2 * i, &bits, 2);
    }
    half.tensors.push_back({tensor.name, "F16", tensor.shape, std::as_bytes(std::span(bytes))});
  }
  // Larger elements first keeps each tensor aligned to its own element size.
  std::stable_sort(half.tensors.begin(), half.tensors.end(),
                   [](const TensorBytes& a, const TensorBytes& b) {
                     return ElementBytes(a.dtype) > ElementBytes(b.dtype);
                   });
  return half;
}

absl::Status WriteSafetensors(const TrainedModel& model, const ExportCommand& command,
                              const fs::path& out) {
  std::vector<TensorBytes> tensors = model.loaded.weights.tensors;
  HalfWeights half;
  if (command.half) {
    auto made = ToHalf(tensors);
    if (!made.ok()) return made.status();
    half = *std::move(made);
    tensors = half.tensors;
  }
  if (absl::Status fits = CheckTensors(tensors); !fits.ok()) return fits;
  const std::string card = model.card.ToJson();
  // "format": what PyTorch's own loader asks for.
  const std::string header = SafetensorsHeader(
      tensors, {{"format", "pt"}, {"card", card}, {"step", absl::StrCat(model.step)}});
  Pieces pieces = {std::as_bytes(std::span(header))};
  for (const TensorBytes& tensor : tensors) pieces.push_back(tensor.bytes);
  absl::Status status = WriteText(Beside(out, ".card.json"), card);
  if (status.ok()) status = WriteWhole(out, pieces);
  return status;
}

// What this program says of pictures that any other can make: wide, high, and smaller than the
// model's input.
std::string OwnLogits(const TrainedModel& model, const ExportCommand& command) {
  Predictor predictor(model);
  const Preprocessing& p = model.card.preprocessing;
  Json json = {{"format_version", 1},
               {"pixels", kTestPictureRule},
               {"tolerance", command.half ? 2e-2 : 1e-4},
               {"pictures", Json::array()}};
  const std::vector<std::pair<int, int>> sizes = {{p.width * 3 / 2 + 13, p.height + 5},
                                                  {p.width + 8, p.height * 2 + 3},
                                                  {p.width / 2 + 1, p.height / 2 + 3},
                                                  {p.width, p.height}};
  for (const auto& [width, height] : sizes) {
    Picture prepared;
    Resize(TestPicture(width, height), p, prepared);
    json["pictures"].push_back({{"width", width},
                                {"height", height},
                                {"logits", predictor.Logits({&prepared, 1}).front()}});
  }
  return json.dump(1) + "\n";
}

absl::Status WriteOnnx(const TrainedModel& model, const ExportCommand& command,
                       const fs::path& out) {
  const auto onnx = MakeOnnx(
      model.graph, model.loaded.weights.tensors, model.card,
      {.half = command.half, .producer_version = LOCKSTEP_VERSION, .name = model.config.name});
  if (!onnx.ok()) return onnx.status();
  absl::Status status = WriteText(Beside(out, ".check.json"), OwnLogits(model, command));
  if (status.ok()) status = WriteWhole(out, onnx->Pieces());
  return status;
}

absl::Status CheckFree(const fs::path& path, bool force) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    return absl::AlreadyExistsError(absl::StrCat(path.string(), " is a folder; name a file"));
  }
  if (force || !fs::exists(path, error)) return absl::OkStatus();
  return absl::AlreadyExistsError(
      absl::StrCat(path.string(), " is there already; --force replaces it"));
}

}  // namespace

int Run(const ExportCommand& command) {
  const auto model = OpenChosen(command.model);
  if (!model.ok()) return Fail("export", model.status());
  const bool onnx = command.format == "onnx";
  const fs::path out =
      command.out.empty() ? fs::path(absl::StrCat(model->config.name, "-",
                                                  StepFolderName(model->step), ".", command.format))
                          : fs::path(command.out);
  const fs::path beside = Beside(out, onnx ? ".check.json" : ".card.json");
  for (const fs::path& path : {out, beside}) {
    if (absl::Status free = CheckFree(path, command.force); !free.ok()) return Fail("export", free);
  }
  const absl::Status written =
      onnx ? WriteOnnx(*model, command, out) : WriteSafetensors(*model, command, out);
  if (!written.ok()) return Fail("export", written);
  std::error_code error;
  if (command.json) {
    const Json json = {{"file", out.string()},
                       {"beside", beside.string()},
                       {"bytes", fs::file_size(out, error)},
                       {"checkpoint", model->checkpoint.string()},
                       {"step", model->step}};
    std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  } else {
    std::printf("%s\n", out.c_str());
    const std::string talk =
        onnx ? absl::StrCat(beside.string(), " has this program's own logits: `scripts/check-onnx ",
                            out.string(), "` compares")
             : absl::StrCat(beside.string(),
                            " says what the outputs mean and how pictures become inputs");
    std::fprintf(stderr, "%s\n", talk.c_str());
  }
  return static_cast<int>(config::ExitCode::kOk);
}

}  // namespace lockstep::trainer
