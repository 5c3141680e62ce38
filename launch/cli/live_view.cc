#include "launch/cli/live_view.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lockstep::cli {

// The cursor rests at the end of the last moving line, so that a line that is typed or printed by
// somebody else starts below.
std::string LiveView::Erase() {
  if (painted_.empty()) return "";
  std::string text = "\r";
  if (painted_.size() > 1) absl::StrAppend(&text, "\x1b[", painted_.size() - 1, "A");
  return text + "\x1b[J";
}

void LiveView::Paint(const std::vector<std::string>& lines) {
  if (!live_) return;
  std::vector<std::string> shown = lines;
  const auto height = static_cast<size_t>(std::max(out_.rows() - 1, 1));
  if (shown.size() > height) shown.resize(height);
  if (shown == painted_) return;
  const std::string erase = Erase();
  painted_ = std::move(shown);
  out_.Write(absl::StrCat(erase, absl::StrJoin(painted_, "\n")));
}

void LiveView::Print(const std::string& line) {
  out_.Write(absl::StrCat(Erase(), line, "\n", absl::StrJoin(painted_, "\n")));
}

void LiveView::Clear() {
  if (painted_.empty()) return;
  out_.Write(Erase());
  painted_.clear();
}

}  // namespace lockstep::cli
