// top: runs, GPUs, money on one page of the terminal, painted again and again.
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "launch/cli/follow.h"
#include "launch/cli/top_page.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

constexpr int kEndedRuns = 5;
constexpr double kAnswerSeconds = 2;
// A terminal that changed its size is painted anew after so long.
constexpr int kLookMs = 200;

struct TopOptions {
  double interval_seconds = 1;
  bool once = false;
};

double MonotonicSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double UnixSeconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

absl::StatusOr<TopData> Ask(Client& client) {
  TopData data;
  auto status = client.Read(&ControlStub::GetStatus, v1::GetStatusRequest());
  if (!status.ok()) return status.status();
  data.status = *std::move(status);
  v1::ListRunsRequest ended;
  ended.set_page_size(kEndedRuns);
  for (int state = v1::RUN_STATE_COMPLETED; state <= v1::RUN_STATE_FAILED; ++state) {
    ended.add_states(static_cast<v1::RunState>(state));
  }
  auto live = LiveRuns(client);
  if (!live.ok()) return live.status();
  auto over = client.Read(&ControlStub::ListRuns, ended);
  if (!over.ok()) return over.status();
  data.runs = *std::move(live);
  data.runs.insert(data.runs.end(), over->runs().begin(), over->runs().end());
  data.unix_seconds = UnixSeconds();
  return data;
}

// The terminal while the page is on it: another screen, no cursor, keys without Enter. Leaves it as
// it was.
class Screen {
 public:
  explicit Screen(Output& out) : out_(out), keys_(isatty(STDIN_FILENO) == 1) {
    if (keys_ && tcgetattr(STDIN_FILENO, &before_) == 0) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      // Ctrl-Z would leave the shell on this screen.
      raw.c_cc[VSUSP] = _POSIX_VDISABLE;
      raw.c_cc[VMIN] = 1;
      raw.c_cc[VTIME] = 0;
      tcsetattr(STDIN_FILENO, TCSANOW, &raw);
      restore_ = true;
    }
    keys_ = restore_;
    out_.Write("\x1b[?1049h\x1b[?25l");
  }
  ~Screen() {
    out_.Write("\x1b[?25h\x1b[?1049l");
    if (restore_) tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  void Paint(const std::vector<std::string>& lines, const TopStyle& size) {
    // A line is cleared before it is written: behind one that fills the width the cursor stands on
    // its last letter, which would be cleared with the rest.
    std::string text = absl::StrCat("\x1b[H\x1b[2K", absl::StrJoin(lines, "\r\n\x1b[2K"));
    if (lines.size() < static_cast<size_t>(size.rows)) absl::StrAppend(&text, "\r\n\x1b[J");
    const std::pair<int, int> extent{size.columns, size.rows};
    // Of another size the terminal may have moved what was there.
    if (text == painted_ && extent == extent_) return;
    painted_ = std::move(text);
    extent_ = extent;
    out_.Write(painted_);
  }
  /// -1 where no keys can be read.
  int keys() const { return keys_ ? STDIN_FILENO : -1; }
  /// Somebody pressed q.
  bool ReadKeys() {
    char buffer[64];
    const ssize_t count = read(STDIN_FILENO, buffer, sizeof buffer);
    if (count <= 0) keys_ = false;
    return std::any_of(buffer, buffer + std::max<ssize_t>(count, 0),
                       [](char key) { return key == 'q' || key == 'Q'; });
  }

 private:
  Output& out_;
  bool keys_;
  bool restore_ = false;
  termios before_{};
  std::string painted_;
  std::pair<int, int> extent_;  // Columns and rows of the terminal when it was painted.
};

// Waits until `until`, a key, a signal or a changed size. Returns the code to leave with.
std::optional<int> Wait(Context& context, Interrupts& interrupts, Screen& screen, double until) {
  const int columns = context.out.columns();
  const int rows = context.out.rows();
  while (columns == context.out.columns() && rows == context.out.rows()) {
    const double left = until - MonotonicSeconds();
    if (left <= 0) break;
    pollfd fds[] = {
        {interrupts.fd(), POLLIN, 0}, {screen.keys(), POLLIN, 0}, {context.out.fd(), 0, 0}};
    poll(fds, std::size(fds), std::min(kLookMs, static_cast<int>(left * 1000) + 1));
    if ((fds[2].revents & (POLLERR | POLLHUP)) != 0) context.out.MarkBroken();
    if (context.out.broken()) return Code(ExitCode::kOk);
    if (const int signal = interrupts.Take(); signal != 0) {
      // Ctrl-C is how people leave.
      return signal == SIGINT ? Code(ExitCode::kOk) : 128 + signal;
    }
    if (fds[1].revents != 0 && screen.ReadKeys()) return Code(ExitCode::kOk);
  }
  return std::nullopt;
}

int Live(Context& context, Interrupts& interrupts, const TopOptions& options, TopData data) {
  std::optional<Client> client;
  absl::Status refused;
  int code = 0;
  {
    Screen screen(context.out);
    double answered = MonotonicSeconds();
    while (true) {
      data.lost_seconds = client || MonotonicSeconds() - answered < options.interval_seconds
                              ? 0
                              : MonotonicSeconds() - answered;
      const TopStyle style{
          .columns = context.out.columns(), .rows = context.out.rows(), .color = context.color()};
      screen.Paint(TopPage(data, style), style);
      const auto leave =
          Wait(context, interrupts, screen, MonotonicSeconds() + options.interval_seconds);
      if (leave) {
        code = *leave;
        break;
      }
      if (!client) client.emplace(MakeClient(context, kAnswerSeconds));
      auto news = Ask(*client);
      if (news.ok()) {
        data = *std::move(news);
        answered = MonotonicSeconds();
      } else if (IsTransportFailure(news.status()) || absl::IsDeadlineExceeded(news.status()) ||
                 absl::IsUnavailable(news.status())) {
        client.reset();  // A new connection, when it is back.
        data.unix_seconds = UnixSeconds();
      } else {
        refused = news.status();
        break;
      }
    }
  }
  return refused.ok() ? code : Fail(context, "top", refused);
}

int TopVerb(Context& context, const TopOptions& options) {
  std::optional<Interrupts> interrupts;
  if (!options.once && !context.json() && context.out.is_terminal()) interrupts.emplace();
  Client client = MakeClient(context, kReadSeconds);
  auto data = Ask(client);
  if (!data.ok()) return Fail(context, "top", data.status());
  if (context.json()) {
    context.out.Write(Document(TopJson(*data)));
    return Code(ExitCode::kOk);
  }
  if (interrupts) return Live(context, *interrupts, options, *std::move(data));
  // Into a file or a pipe goes everything; a terminal scrolls.
  const int columns = context.out.is_terminal() ? context.out.columns() : 1000;
  for (const std::string& line :
       TopPage(*data, {.columns = columns, .rows = 0, .color = context.color()})) {
    context.out.Write(line + "\n");
  }
  return Code(ExitCode::kOk);
}

}  // namespace

void AddTop(CLI::App& app, Context& context) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* verb = AddVerb(app, "top", "Runs, GPUs and money on one page, kept up to date",
                           kWatchingGroup, "lockstep top --interval 5");
  verb->add_option("--interval", options->interval_seconds, "Look again after so long; 1 s")
      ->check(CLI::Range(0.1, 3600.0).description(""))
      ->type_name("SECONDS");
  verb->add_flag("--once", options->once, "Print it once and end, as away from a terminal");
  OnVerb(verb, context, [&context, options] { return TopVerb(context, *options); });
}

}  // namespace lockstep::cli
