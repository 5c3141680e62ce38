#include "config/validate.h"

#include <functional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep::config {
namespace {

// One check reads: these keys are involved; if none was refused already, `wrong` is the problem.
class Rules {
 public:
  Rules(const KeyPlaces& places, Problems& problems) : places_(places), problems_(problems) {}

  /// Reports at the first of `paths` when `wrong` and every path is good.
  void Refuse(bool wrong, std::initializer_list<std::string> paths, const std::string& message,
              const std::string& hint) {
    if (!wrong) return;
    for (const std::string& path : paths) {
      if (!places_.Good(path)) return;
    }
    problems_.Add(places_.PlaceOf(*paths.begin()), *paths.begin(), message, hint);
  }
  bool Given(const std::string& path) const { return places_.Given(path); }
  bool Good(const std::string& path) const { return places_.Good(path); }

 private:
  const KeyPlaces& places_;
  Problems& problems_;
};

void CheckData(const RunConfig& config, Rules& rules) {
  const DataConfig& data = config.data;
  const bool generated = data.kind == DatasetKind::kShapes;
  rules.Refuse(!generated && data.path.empty(), {"data.path", "data.kind"}, "missing",
               "expected the data set's folder: only shapes needs none");
  rules.Refuse(generated && !data.path.empty(), {"data.path", "data.kind"},
               "shapes are generated and have no path",
               "remove it, or set data.kind to cifar10, cifar100 or image_folder");
  for (const auto& [path, list] : {std::pair("data.mean", &data.mean), {"data.std", &data.std}}) {
    rules.Refuse(!list->empty() && list->size() != 3, {path},
                 absl::StrCat("has ", list->size(), " numbers"),
                 "expected three: red, green and blue");
  }
  rules.Refuse(data.mean.empty() != data.std.empty(),
               {data.mean.empty() ? "data.std" : "data.mean", "data.mean", "data.std"},
               "mean and std belong together", "give both or neither");
  rules.Refuse(data.image_size > 0 && data.augment.crop_padding >= data.image_size,
               {"data.augment.crop_padding", "data.image_size"},
               "a picture cannot be padded by its own size",
               absl::StrCat("expected less than image_size, which is ", data.image_size));
}

}  // namespace

void CheckRun(RunConfig& config, const KeyPlaces& places, Problems& problems) {
  Rules rules(places, problems);
  CheckData(config, rules);
}

void CheckCoordinator(CoordinatorConfig& config, const KeyPlaces& places, Problems& problems) {
  Rules rules(places, problems);
}

}  // namespace lockstep::config
