#include "config/yaml_document.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/utf8.h"

namespace lockstep::config {
namespace {

struct StopParsing {};  // Thrown through yaml-cpp: what is wrong is in `problems` already.

// yaml-cpp's marks count bytes; people count characters.
class PlaceFinder {
 public:
  PlaceFinder(std::string_view text, const std::string& file, Positions positions)
      : text_(text.substr(0, kLargestYamlBytes)), file_(&file), positions_(positions) {
    line_starts_.push_back(0);
    for (size_t i = 0; i < text_.size(); ++i) {
      if (text_[i] == '\n') line_starts_.push_back(i + 1);
      if ((static_cast<unsigned char>(text_[i]) & 0xC0) == 0x80) continuations_.push_back(i);
    }
  }

  Place At(const YAML::Mark& mark) const {
    return AtByte(static_cast<size_t>(std::max(mark.is_null() ? 0 : mark.pos, 0)));
  }
  Place AtByte(size_t position) const {
    if (positions_ == Positions::kNone) return {file_, 0, 0};
    position = std::min(position, text_.size());
    const auto next_line = std::upper_bound(line_starts_.begin(), line_starts_.end(), position);
    const size_t line_start = *(next_line - 1);
    // UTF-8 continuation bytes make no character of their own.
    const auto extra = std::lower_bound(continuations_.begin(), continuations_.end(), position) -
                       std::lower_bound(continuations_.begin(), continuations_.end(), line_start);
    return {file_, static_cast<int>(next_line - line_starts_.begin()),
            static_cast<int>(position - line_start) - static_cast<int>(extra) + 1};
  }
  char ByteAt(const YAML::Mark& mark) const {
    const auto position = static_cast<size_t>(std::max(mark.pos, 0));
    return position < text_.size() ? text_[position] : '\0';
  }

  /// False when a quoted scalar begins at `mark` and has no end.
  bool IsQuoteClosed(const YAML::Mark& mark) const {
    const char quote = ByteAt(mark);
    if (quote != '"' && quote != '\'') return true;
    for (auto i = static_cast<size_t>(mark.pos) + 1; i < text_.size(); ++i) {
      const bool skips_next = quote == '"' ? text_[i] == '\\' : text_.substr(i).starts_with("''");
      if (skips_next) {
        ++i;
      } else if (text_[i] == quote) {
        return true;
      }
    }
    return false;
  }

 private:
  std::string_view text_;
  const std::string* file_;
  Positions positions_;
  std::vector<size_t> line_starts_;
  std::vector<size_t> continuations_;  // Positions of UTF-8 continuation bytes.
};

Node MakeNode(Node::Kind kind, const Place& place) {
  Node node;
  node.kind = kind;
  node.place = place;
  return node;
}

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const PlaceFinder& places, Problems& problems, Node& root)
      : places_(places), problems_(problems), root_(root) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ == 1) return;
    problems_.Add(places_.At(mark), "", "a second document starts here",
                  "expected one document: remove everything from '---' on");
    throw StopParsing();
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Put(StartNode(mark, Node::Kind::kNull, "", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    problems_.Add(places_.At(mark), PathHere(), "an alias (*) is not allowed",
                  "write the value out in full");
    Put(MakeNode(Node::Kind::kInvalid, places_.At(mark)));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node = StartNode(mark, Node::Kind::kScalar, tag, anchor);
    node.quoted = tag == "!";  // What yaml-cpp calls every scalar that is not a plain one.
    node.text = value;
    if (!places_.IsQuoteClosed(mark)) {
      // yaml-cpp takes the end of the file for the closing quote.
      problems_.Add(node.place, PathHere(), "a quote that is never closed",
                    "put the same quote at the end of the text");
      throw StopParsing();
    }
    Put(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Push(mark, Node::Kind::kSequence, StartNode(mark, Node::Kind::kSequence, tag, anchor));
  }
  void OnSequenceEnd() override { Pop(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Push(mark, Node::Kind::kMapping, StartNode(mark, Node::Kind::kMapping, tag, anchor));
  }
  void OnMapEnd() override { Pop(); }

 private:
  struct Open {  // A mapping or sequence whose end is yet to come.
    Node node;
    bool has_key = false;                        // A key was read, its value comes next.
    bool key_is_bad = false;                     // Reported: drop the value.
    Member member;                               // Valid when has_key.
    std::unordered_map<std::string, int> lines;  // Key → line it was first given on.
    bool invalid = false;                        // Reported as a whole, for its tag.
  };

  // Reports anchors and tags. The mark of a node with properties is the first property's.
  Node StartNode(const YAML::Mark& mark, Node::Kind kind, const std::string& tag,
                 YAML::anchor_t anchor) {
    Node node = MakeNode(kind, places_.At(mark));
    if (anchor != 0) {
      problems_.Add(node.place, PathHere(), "an anchor (&) is not allowed",
                    "write the value out in full where it is needed");
      node.kind = Node::Kind::kInvalid;
    }
    const bool explicit_tag =
        (!tag.empty() && tag != "?" && tag != "!") || (tag == "!" && places_.ByteAt(mark) == '!');
    if (explicit_tag) {
      problems_.Add(node.place, PathHere(),
                    absl::StrCat("a tag (", Quoted(tag), ") is not allowed"),
                    "remove it: the key says what type its value has");
      node.kind = Node::Kind::kInvalid;
    }
    return node;
  }

  void Push(const YAML::Mark& mark, Node::Kind kind, Node node) {
    if (static_cast<int>(open_.size()) >= kDeepestYaml) {
      problems_.Add(places_.At(mark), "", absl::StrCat("nested more than ", kDeepestYaml, " deep"),
                    "a config needs five levels at most");
      throw StopParsing();
    }
    Open open;
    // Its children are looked at all the same: they may hold more problems of the text.
    open.invalid = node.kind == Node::Kind::kInvalid;
    node.kind = kind;
    open.node = std::move(node);
    open_.push_back(std::move(open));
  }

  void Pop() {
    Node node = std::move(open_.back().node);
    if (open_.back().invalid) {
      node = MakeNode(Node::Kind::kInvalid, node.place);
    }
    open_.pop_back();
    Put(std::move(node));
  }

  void Put(Node node) {
    if (problems_.full()) throw StopParsing();
    if (open_.empty()) {
      root_ = std::move(node);
    } else if (open_.back().node.kind == Node::Kind::kMapping) {
      PutInMapping(open_.back(), std::move(node));
    } else {
      open_.back().node.items.push_back(std::move(node));
    }
  }

  void PutInMapping(Open& open, Node node) {
    if (!open.has_key) {
      TakeKey(open, std::move(node));
      return;
    }
    open.has_key = false;
    if (open.key_is_bad) return;
    // An absent value is reported by the parser where the next thing stands; the key says more.
    if (node.kind == Node::Kind::kNull) node.place = open.member.place;
    open.member.value = std::move(node);
    open.node.members.push_back(std::move(open.member));
  }

  void TakeKey(Open& open, Node node) {
    open.has_key = true;
    open.key_is_bad = true;
    open.member.key.assign(1, '?');
    if (node.kind == Node::Kind::kInvalid) return;
    if (node.kind != Node::Kind::kScalar) {
      problems_.Add(node.place, PathOf(open_.size() - 1), "a key must be a word",
                    "expected 'key: value'");
      return;
    }
    const auto [first, is_new] = open.lines.emplace(node.text, node.place.line);
    if (!is_new) {
      std::string message = "duplicate key";
      if (first->second > 0) absl::StrAppend(&message, ", first given on line ", first->second);
      open.member.key = node.text;
      problems_.Add(node.place, PathHere(), std::move(message), "keep one of the two");
      return;
    }
    open.key_is_bad = false;
    open.member.key = std::move(node.text);
    open.member.place = node.place;
    open.member.value = Node();
  }

  // Path of the node that would be placed next.
  std::string PathHere() const { return PathOf(open_.size()); }
  std::string PathOf(size_t depth) const {
    std::string path;
    for (size_t i = 0; i < depth; ++i) {
      const Open& open = open_[i];
      if (open.node.kind == Node::Kind::kSequence) {
        absl::StrAppend(&path, "[", open.node.items.size(), "]");
      } else if (open.has_key) {
        absl::StrAppend(&path, path.empty() ? "" : ".", Printable(open.member.key));
      }
    }
    return path;
  }

  const PlaceFinder& places_;
  Problems& problems_;
  Node& root_;
  int documents_ = 0;
  std::vector<Open> open_;
};

// False after adding the one problem that makes the bytes unfit for a parser.
bool Screen(std::string_view text, const PlaceFinder& places, Problems& problems) {
  if (text.size() > kLargestYamlBytes) {
    problems.Add(places.AtByte(kLargestYamlBytes), "",
                 absl::StrCat("the text has ", text.size(), " bytes"),
                 absl::StrCat("expected at most ", kLargestYamlBytes));
    return false;
  }
  const BadCharacter bad = FindBadCharacter(text);
  if (bad.why == nullptr) return true;
  problems.Add(places.AtByte(bad.position), "", bad.why, "expected plain UTF-8 text");
  return false;
}

}  // namespace

const Member* Node::Find(std::string_view key) const {
  const auto found = std::find_if(members.begin(), members.end(),
                                  [key](const Member& member) { return member.key == key; });
  return found == members.end() ? nullptr : &*found;
}
Member* Node::Find(std::string_view key) {
  return const_cast<Member*>(std::as_const(*this).Find(key));
}

bool ParseYaml(std::string_view text, const std::string& file, Positions positions,
               Problems& problems, Node& root) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const PlaceFinder places(text, file, positions);
  root = MakeNode(Node::Kind::kNull, places.AtByte(0));
  if (!Screen(text, places, problems)) return false;
  TreeBuilder builder(places, problems, root);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
    return true;
  } catch (const StopParsing&) {
    return false;
  } catch (const YAML::Exception& error) {
    problems.Add(
        places.At(error.mark), "", absl::StrCat("not valid YAML: ", error.msg),
        "look for a missing quote, bracket or colon, or uneven indentation, here or above");
    return false;
  }
}

}  // namespace lockstep::config
