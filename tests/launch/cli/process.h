// Runs a program as a shell or a terminal would, and lets a test talk with it while it runs.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace lockstep::cli {

class Process {
 public:
  struct Options {
    std::map<std::string, std::string> environment;  // On top of PATH and HOME only.
    std::string input;
    std::string folder;     // To run in; empty = the test's.
    bool terminal = false;  // stdout and stderr are one terminal of 100 x 30.
    bool keyboard = false;  // It is stdin, too.
  };
  Process(const std::vector<std::string>& arguments, const Options& options);
  ~Process();

  /// Waits until stdout (or the terminal) holds the text; false after 20 s.
  bool AwaitOut(const std::string& text);
  bool AwaitErr(const std::string& text);
  void Signal(int number);
  /// Keys pressed at the terminal.
  void Type(const std::string& keys);
  /// The terminal's local modes (termios c_lflag): echo, whole lines, …
  unsigned TerminalModes();
  /// As if the reader of stdout went away.
  void CloseOut();
  /// Waits for the end: the exit code, 128 + signal, or -1 (and it is killed) after 30 s.
  int Wait();
  std::string out();
  std::string err();

 private:
  struct Stream {
    int fd = -1;
    int wake = -1;  // Closing the other end makes the reader stop.
    std::string text;
    bool ended = false;
    std::thread reader;
  };
  void Read(Stream& stream, int wake_read);
  bool Await(Stream& stream, const std::string& text);
  void StopReading(Stream& stream);

  pid_t pid_ = -1;
  int terminal_ = -1;  // The side that is not the program's; stays open after it ends.
  bool waited_ = false;
  int code_ = -1;
  std::mutex mutex_;
  std::condition_variable changed_;
  Stream out_;
  Stream err_;
};

struct Result {
  int code = -1;
  std::string out;
  std::string err;
  double seconds = 0;
};

Result RunToEnd(const std::vector<std::string>& arguments, const Process::Options& options = {});

}  // namespace lockstep::cli
