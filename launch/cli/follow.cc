#include "launch/cli/follow.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <deque>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "launch/cli/client.h"
#include "launch/cli/format.h"
#include "launch/cli/live_view.h"
#include "launch/cli/progress.h"
#include "launch/cli/run_json.h"
#include "launch/cli/run_stream.h"
#include "launch/cli/spending.h"

namespace lockstep::cli {
namespace {

// More would not fit a screen; and each holds a connection.
constexpr size_t kMostStreams = 32;
constexpr size_t kMostNamed = 5;  // Of the others, in one line.
constexpr double kDiscoverEverySeconds = 2;
// A rank that stands out again and again is told so often.
constexpr double kStragglerEverySeconds = 60;

double MonotonicSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool HasUnicode() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string text(value);
    return text.find("UTF-8") != std::string::npos || text.find("utf8") != std::string::npos;
  }
  return false;
}

// The loop's state: which runs, what was heard of them last, and what is on the screen.
class Follower {
 public:
  Follower(Context& context, Interrupts& interrupts, const FollowOptions& options, size_t runs)
      : context_(context),
        interrupts_(interrupts),
        options_(options),
        view_(context.out),
        narrator_({.name_runs = runs != 1 || options.discover,
                   .color = context.color(),
                   .plain_progress = !context.out.is_terminal()}) {}

  ~Follower() { queue_.Close(); }

  void Add(const v1::Run& run) {
    if (followed_.contains(run.run_id())) return;
    if (!IsOver(run) && open_ >= kMostStreams) {
      const auto same = [&](const v1::Run& other) { return other.run_id() == run.run_id(); };
      if (std::none_of(waiting_.begin(), waiting_.end(), same)) waiting_.push_back(run);
      return;
    }
    One& one = followed_[run.run_id()];
    order_.push_back(run.run_id());
    Show(one, run);
    if (IsOver(run)) return;
    ++open_;
    one.open = true;
    one.stream = std::make_unique<RunStream>(
        RunStream::Options{
            .socket = context_.socket, .run_id = run.run_id(), .after_sequence = run.sequence()},
        queue_);
  }

  Followed Run() {
    const double started = MonotonicSeconds();
    double discovered = started;
    Followed result;
    TellWhoWaits();
    while (open_ > 0) {
      Paint();
      if (context_.out.broken()) {
        result.reader_gone = true;
        break;
      }
      if (result.signal = Wait(); result.signal != 0) break;
      StreamEvent event;
      while (queue_.TryPop(event)) Handle(event);
      FollowMore();
      const double now = MonotonicSeconds();
      if (options_.give_up_seconds > 0 && now - started >= options_.give_up_seconds && open_ > 0) {
        status_ = absl::DeadlineExceededError(
            absl::StrCat("the run had not ended after ", FormatSeconds(options_.give_up_seconds)));
        break;
      }
      if (options_.discover && now - discovered >= kDiscoverEverySeconds) {
        Discover();
        TellWhoWaits();
        discovered = now;
      }
    }
    view_.Clear();
    for (const std::string& id : order_) result.runs.push_back(followed_[id].run);
    result.status = status_;
    return result;
  }

 private:
  struct One {
    v1::Run run;
    double heard_at = 0;
    bool open = false;
    bool lost = false;
    bool told_waits = false;
    std::unique_ptr<RunStream> stream;
  };

  // Until something happens, or a second is over. Returns the signal that came, if one did.
  int Wait() {
    // No events asked for on stdout: poll tells of a reader that went away all the same.
    pollfd fds[] = {
        {interrupts_.fd(), POLLIN, 0}, {queue_.fd(), POLLIN, 0}, {context_.out.fd(), 0, 0}};
    poll(fds, std::size(fds), 1000);
    if ((fds[2].revents & (POLLERR | POLLHUP)) != 0 && !options_.quiet) context_.out.MarkBroken();
    return interrupts_.Take();
  }

  void Handle(const StreamEvent& event) {
    One& one = followed_[event.run_id];
    switch (event.kind) {
      case StreamEvent::Kind::kRun:
        Show(one, event.run);
        break;
      case StreamEvent::Kind::kLost:
        one.lost = true;
        if (!std::exchange(told_lost_, true)) {
          Talk(
              "the coordinator went away; runs go on without it. Waiting for it to come back "
              "(Ctrl-C leaves)");
        }
        break;
      case StreamEvent::Kind::kBack:
        one.lost = false;
        one.heard_at = MonotonicSeconds();
        if (std::exchange(told_lost_, false)) Talk("the coordinator is back");
        break;
      case StreamEvent::Kind::kError:
        status_ = event.status;
        [[fallthrough]];
      case StreamEvent::Kind::kEnd:
        if (std::exchange(one.open, false)) --open_;
        break;
    }
  }

  void Show(One& one, const v1::Run& run) {
    one.run = run;
    one.heard_at = MonotonicSeconds();
    if (options_.quiet) return;
    if (context_.json()) {
      context_.out.Write(OneLine(ToJson(run)));
      return;
    }
    const std::string clock = FormatClock(static_cast<double>(time(nullptr)));
    for (const std::string& line : narrator_.Tell(run, one.heard_at, clock)) view_.Print(line);
    const bool waits = run.state() == v1::RUN_STATE_PAUSED && !IsOver(run);
    if (waits && !std::exchange(one.told_waits, waits)) {
      Talk(absl::StrCat("  hint: `lockstep resume ", run.run_id(),
                        "` goes on; Ctrl-C leaves it paused"));
    }
    one.told_waits = waits;
  }

  void Paint() {
    if (options_.quiet || context_.json() || !view_.live()) return;
    const BarStyle style{
        .columns = context_.out.columns() - 1, .unicode = unicode_, .color = context_.color()};
    std::vector<std::string> lines;
    for (const std::string& id : order_) {
      const One& one = followed_[id];
      if (!one.open) continue;
      const bool expects_news = one.lost || one.run.state() == v1::RUN_STATE_RUNNING;
      lines.push_back(
          ProgressLine(one.run, style, expects_news ? MonotonicSeconds() - one.heard_at : 0));
    }
    view_.Paint(lines);
  }

  void Talk(const std::string& line) {
    view_.Clear();
    context_.Say(line);
  }

  void Discover() {
    Client client({.socket = context_.socket, .timeout_seconds = 2});
    const auto runs = LiveRuns(client);
    // The streams tell of a coordinator that went away.
    if (!runs.ok()) return;
    waiting_.clear();  // Those that ended meanwhile wait no more.
    for (const v1::Run& run : *runs) Add(run);
  }

  // In the place of runs that ended, others that had no place until now.
  void FollowMore() {
    while (open_ < kMostStreams && !waiting_.empty()) {
      const v1::Run run = std::move(waiting_.front());
      waiting_.pop_front();
      Add(run);
    }
  }

  // Says which runs are not followed for want of a place; each is named once.
  void TellWhoWaits() {
    std::vector<std::string> ids;
    bool news = false;
    for (const v1::Run& run : waiting_) {
      ids.push_back(run.run_id());
      news = told_who_waits_.insert(run.run_id()).second || news;
    }
    if (!news || options_.quiet) return;
    if (context_.json()) context_.out.Write(OneLine({{"not_followed", ids}}));
    const size_t named = std::min(ids.size(), kMostNamed);
    const size_t more = ids.size() - named;
    Talk(absl::StrCat(
        kMostStreams, " runs are followed, which is the most at a time; not yet: ",
        absl::StrJoin(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(named), ", "),
        more > 0 ? absl::StrCat(" and ", more, " more") : "",
        ". They come as others end; `lockstep list` shows all"));
  }

  Context& context_;
  Interrupts& interrupts_;
  const FollowOptions options_;
  const bool unicode_ = HasUnicode();
  LiveView view_;
  Narrator narrator_;
  EventQueue queue_;  // Before the streams: they push into it until they are gone.
  std::map<std::string, One> followed_;
  std::vector<std::string> order_;
  std::deque<v1::Run> waiting_;  // Not followed yet, because too many are.
  std::set<std::string> told_who_waits_;
  size_t open_ = 0;
  bool told_lost_ = false;
  absl::Status status_;
};

}  // namespace

// What was not said yet of limits and of the rank that holds the others up.
std::vector<std::string> Narrator::TellTrouble(const v1::Run& run, double now, Told& told) const {
  std::vector<std::string> lines;
  const auto mark = [&](const std::string& text) {
    return options_.color ? absl::StrCat("\x1b[33m", text, "\x1b[0m") : text;
  };
  const int percent = WarningPercent(run);
  if (percent > told.warned_percent) {
    lines.push_back(mark(absl::StrCat("warning: ", DescribeWarning(run))));
  }
  told.warned_percent = percent;
  const v1::Straggler& straggler = run.straggler();
  if (!run.has_straggler() || run.state() != v1::RUN_STATE_RUNNING) return lines;
  const bool same = straggler.rank() == told.straggler && straggler.cause() == told.straggler_cause;
  if (same || now - told.straggler_at < kStragglerEverySeconds) return lines;
  told.straggler = straggler.rank();
  told.straggler_cause = straggler.cause();
  told.straggler_at = now;
  lines.push_back(mark(absl::StrCat("straggler: ", DescribeStraggler(straggler))));
  return lines;
}

std::vector<std::string> Narrator::Tell(const v1::Run& run, double now, const std::string& clock) {
  const auto [entry, first] = told_.try_emplace(run.run_id());
  Told& told = entry->second;
  std::vector<std::string> lines;
  const auto say = [&](const std::string& text) {
    std::string line = clock + "  ";
    if (options_.name_runs) absl::StrAppend(&line, run.run_id(), "  ");
    lines.push_back(line + text);
  };
  const v1::Progress& progress = run.progress();
  if (progress.has_last_evaluation() && progress.last_evaluation().step() != told.evaluated_step) {
    told.evaluated_step = progress.last_evaluation().step();
    if (!first) say(DescribeEvaluation(progress.last_evaluation()));
  }
  const v1::CheckpointEvent& checkpoint = run.last_checkpoint();
  if (run.has_last_checkpoint() &&
      (checkpoint.step() != told.checkpoint_step || checkpoint.error() != told.checkpoint_error)) {
    told.checkpoint_step = checkpoint.step();
    told.checkpoint_error = checkpoint.error();
    if (!first) say(DescribeCheckpoint(checkpoint));
  }
  if (run.state() != told.state || run.reason() != told.reason || run.attempt() != told.attempt) {
    told.state = run.state();
    told.reason = run.reason();
    told.attempt = run.attempt();
    say(DescribeState(run, options_.color));
  }
  for (const std::string& text : TellTrouble(run, now, told)) say(text);
  if (options_.plain_progress && run.state() == v1::RUN_STATE_RUNNING && progress.step() > 0 &&
      progress.samples_per_second() > 0 && progress.step() != told.progress_step &&
      now - told.progress_at >= options_.progress_every_seconds) {
    told.progress_step = progress.step();
    told.progress_at = now;
    say(PlainProgress(run));
  }
  return lines;
}

Interrupts::Interrupts() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  // A closed terminal; unless nohup has it ignored.
  struct sigaction hangup {};
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

Interrupts::~Interrupts() {
  close(fd_);
}

int Interrupts::Take() {
  signalfd_siginfo info{};
  return read(fd_, &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
}

Followed Follow(Context& context, Interrupts& interrupts, const std::vector<v1::Run>& runs,
                const FollowOptions& options) {
  Follower follower(context, interrupts, options, runs.size());
  for (const v1::Run& run : runs) follower.Add(run);
  return follower.Run();
}

config::ExitCode Outcome(const v1::Run& run) {
  if (run.state() == v1::RUN_STATE_COMPLETED) return config::ExitCode::kOk;
  if (OutOfBudget(run)) return config::ExitCode::kBudget;
  if (run.state() == v1::RUN_STATE_STOPPED) return config::ExitCode::kStopped;
  return config::ExitCode::kRunFailed;
}

std::string Summary(const v1::Run& run, bool color) {
  const v1::Progress& progress = run.progress();
  std::string text = absl::StrCat("run ", Label(run), " ", ColoredState(run.state(), color));
  if (run.has_started() && run.has_ended()) {
    const auto seconds = static_cast<double>(run.ended().seconds() - run.started().seconds());
    absl::StrAppend(&text, " after ", FormatSeconds(seconds));
  }
  absl::StrAppend(&text, ", ", FormatCount(progress.step()), " steps");
  if (!run.reason().empty()) absl::StrAppend(&text, ": ", Printable(run.reason()));
  text += "\n";
  if (progress.has_last_evaluation()) {
    absl::StrAppend(&text, "  held-out    ", DescribeScore(FirstScore(progress.last_evaluation())));
    if (progress.has_best_evaluation() &&
        progress.best_evaluation().step() != progress.last_evaluation().step()) {
      absl::StrAppend(&text, " (best ", ScoreValue(FirstScore(progress.best_evaluation())),
                      " at step ", FormatCount(progress.best_evaluation().step()), ")");
    }
    text += "\n";
  }
  if (progress.samples() > 0 && progress.wall_seconds() > 0) {
    const double rate = static_cast<double>(progress.samples()) / progress.wall_seconds();
    absl::StrAppend(&text, "  throughput  ", FormatRate(rate), " samples/s\n");
  }
  if (progress.has_feature_cache()) {
    absl::StrAppend(&text, "  features    ",
                    DescribeFeatureCache(progress.feature_cache(), run.currency()), "\n");
  }
  absl::StrAppend(&text, "  cost        ", DescribeCost(run), "\n");
  if (run.spending().energy_joules() > 0) {
    absl::StrAppend(&text, "  energy      ", DescribeEnergy(run), "\n");
  }
  if (run.spending().overspent() > 0) {
    absl::StrAppend(&text, "  overspent   ", FormatCost(run.spending().overspent(), run.currency()),
                    " beyond cost.max_cost\n");
  }
  if (run.has_last_checkpoint() && run.last_checkpoint().ok()) {
    absl::StrAppend(&text, "  checkpoint  step ", FormatCount(run.last_checkpoint().step()), "\n");
  }
  absl::StrAppend(&text, "  files       ", Printable(run.run_dir()), "\n");
  return text;
}

}  // namespace lockstep::cli
