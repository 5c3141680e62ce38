#include "config/reader.h"

#include <regex.h>

#include <charconv>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "config/override.h"
#include "config/scalar.h"
#include "config/suggest.h"

namespace lockstep::config {
namespace {

std::string Join(const std::string& path, const std::string& key) {
  return path.empty() ? key : absl::StrCat(path, ".", key);
}

// `text` holds no NUL.
bool Matches(const std::string& text, const std::string& pattern) {
  regex_t regex;
  if (regcomp(&regex, pattern.c_str(), REG_EXTENDED | REG_NOSUB) != 0) return false;
  const bool matches = regexec(&regex, text.c_str(), 0, nullptr, 0) == 0;
  regfree(&regex);
  return matches;
}

class Reader {
 public:
  Reader(const Table& table, Problems& problems, KeyPlaces& places)
      : table_(table), problems_(problems), places_(places) {}

  // `place` stands for the mapping as a whole: where a missing key is reported.
  void ReadGroup(const std::vector<Field>& fields, void* object, const Node* node,
                 const Place& place, const std::string& path) {
    for (const Field& field : fields) {
      const Member* member = node == nullptr ? nullptr : node->Find(field.name);
      const std::string key_path = Join(path, field.name);
      if (member != nullptr) {
        places_.SetGiven(key_path, member->place);
        ReadMember(field, object, *member, key_path);
      } else if (field.type == FieldType::kGroup) {
        ReadGroup(field.fields, field.group(object), nullptr, place, key_path);
      } else if (field.required) {
        Refuse(place, key_path, "missing", absl::StrCat("expected ", Expected(field)));
      }
    }
    if (node == nullptr) return;
    for (const Member& member : node->members) ReportUnknown(fields, member, path);
  }

 private:
  void ReadMember(const Field& field, void* object, const Member& member, const std::string& path) {
    const Node& node = member.value;
    if (node.kind == Node::Kind::kInvalid) {
      places_.SetBad(path);
    } else if (node.kind == Node::Kind::kNull) {
      Refuse(node.place, path, "no value", absl::StrCat("expected ", Expected(field)));
    } else if (field.type == FieldType::kGroup) {
      if (Is(Node::Kind::kMapping, field, node, path)) {
        ReadGroup(field.fields, field.group(object), &node, member.place, path);
      }
    } else if (field.type == FieldType::kGroupList) {
      ReadGroupList(field, object, node, path);
    } else if (Value value; ReadValue(field, node, path, value)) {
      field.set(object, value);
    }
  }

  void ReadGroupList(const Field& field, void* object, const Node& node, const std::string& path) {
    if (!Is(Node::Kind::kSequence, field, node, path) || !FewEnough(field, node, path)) return;
    field.resize(object, node.items.size());
    for (size_t i = 0; i < node.items.size(); ++i) {
      const Node& item = node.items[i];
      const std::string item_path = absl::StrCat(path, "[", i, "]");
      if (item.kind == Node::Kind::kInvalid) {
        places_.SetBad(item_path);
      } else if (item.kind != Node::Kind::kMapping) {
        Refuse(item.place, item_path, absl::StrCat("is ", Describe(item)),
               "expected a mapping (key: value)");
      } else {
        places_.SetGiven(item_path, item.place);
        ReadGroup(field.fields, field.item(object, i), &item, item.place, item_path);
      }
    }
  }

  bool ReadValue(const Field& field, const Node& node, const std::string& path, Value& value) {
    switch (field.type) {
      case FieldType::kIntegerList:
        return ReadList<int64_t>(field, FieldType::kInteger, node, path, value,
                                 &Reader::ReadInteger);
      case FieldType::kNumberList:
        return ReadList<double>(field, FieldType::kNumber, node, path, value, &Reader::ReadNumber);
      case FieldType::kTextList:
        return ReadList<std::string>(field, FieldType::kText, node, path, value, &Reader::ReadText);
      default:
        break;
    }
    if (!Is(Node::Kind::kScalar, field, node, path)) return false;
    switch (field.type) {
      case FieldType::kBoolean:
        return ReadBoolean(field, node, path, value);
      case FieldType::kInteger:
        return ReadInteger(field, node, path, value);
      case FieldType::kNumber:
        return ReadNumber(field, node, path, value);
      case FieldType::kDuration:
        return ReadDuration(field, node, path, value);
      case FieldType::kChoice:
        return ReadChoice(field, node, path, value);
      default:
        return ReadText(field, node, path, value);
    }
  }

  using ReadItem = bool (Reader::*)(const Field&, const Node&, const std::string&, Value&);
  template <typename T>
  bool ReadList(const Field& field, FieldType item_type, const Node& node, const std::string& path,
                Value& value, ReadItem read) {
    if (!Is(Node::Kind::kSequence, field, node, path) || !FewEnough(field, node, path)) {
      return false;
    }
    std::vector<T> list;
    Field item_field = field;
    item_field.type = item_type;
    for (size_t i = 0; i < node.items.size(); ++i) {
      const Node& item = node.items[i];
      const std::string item_path = absl::StrCat(path, "[", i, "]");
      if (item.kind == Node::Kind::kInvalid) {
        places_.SetBad(item_path);
      } else if (item.kind != Node::Kind::kScalar) {
        WrongType(item_field, item, item_path);
      } else if (Value read_value; (this->*read)(item_field, item, item_path, read_value)) {
        list.push_back(std::get<T>(read_value));
      }
    }
    value = std::move(list);
    return true;
  }

  // The kind of the scalar; nothing after refusing an ambiguous one.
  std::optional<ScalarKind> Kind(const Field& field, const Node& node, const std::string& path) {
    Scalar scalar = Classify(node.text, node.quoted);
    if (scalar.kind != ScalarKind::kAmbiguous) return scalar.kind;
    std::string hint = absl::StrCat("expected ", Expected(field));
    const bool is_word = scalar.instead == "true" || scalar.instead == "false";
    if (field.type == FieldType::kText) {
      absl::StrAppend(&hint, "; put it in quotes: \"", Printable(node.text), "\"");
    } else if (field.type != FieldType::kChoice && !scalar.instead.empty() &&
               is_word == (field.type == FieldType::kBoolean)) {
      absl::StrAppend(&hint, "; write ", scalar.instead);
    }
    Refuse(node.place, path,
           absl::StrCat(Quoted(node.text), " is ambiguous: readers of YAML disagree on it"), hint);
    return std::nullopt;
  }

  bool ReadBoolean(const Field& field, const Node& node, const std::string& path, Value& value) {
    const std::optional<ScalarKind> kind = Kind(field, node, path);
    if (!kind) return false;
    if (kind != ScalarKind::kBoolean) return WrongType(field, node, path);
    return value = (node.text == "true"), true;
  }

  bool ReadInteger(const Field& field, const Node& node, const std::string& path, Value& value) {
    if (field.has_auto && !node.quoted && node.text == "auto")
      return value = field.auto_value, true;
    const std::optional<ScalarKind> kind = Kind(field, node, path);
    if (!kind) return false;
    if (kind != ScalarKind::kInteger) return WrongType(field, node, path);
    int64_t number = 0;
    const char* end = node.text.data() + node.text.size();
    const auto result = std::from_chars(node.text.data(), end, number);
    if (result.ec != std::errc() || number < field.min_integer || number > field.max_integer) {
      return OutOfRange(field, node, path);
    }
    return value = number, true;
  }

  bool ReadNumber(const Field& field, const Node& node, const std::string& path, Value& value) {
    const std::optional<ScalarKind> kind = Kind(field, node, path);
    if (!kind) return false;
    if (kind != ScalarKind::kInteger && kind != ScalarKind::kNumber) {
      return WrongType(field, node, path);
    }
    double number = 0;
    const char* end = node.text.data() + node.text.size();
    const auto result = std::from_chars(node.text.data(), end, number);
    const bool low = field.above_min ? number <= field.min_number : number < field.min_number;
    const bool high = field.below_max ? number >= field.max_number : number > field.max_number;
    if (result.ec != std::errc() || low || high) return OutOfRange(field, node, path);
    return value = number, true;
  }

  bool ReadText(const Field& field, const Node& node, const std::string& path, Value& value) {
    const std::optional<ScalarKind> kind = Kind(field, node, path);
    if (!kind) return false;
    if (kind != ScalarKind::kText) {
      Refuse(node.place, path, absl::StrCat("is ", Describe(node), ", not text"),
             absl::StrCat("put it in quotes: \"", Printable(node.text), "\""));
      return false;
    }
    if (node.text.size() > field.max_length) {
      Refuse(node.place, path, absl::StrCat("has ", node.text.size(), " bytes"),
             absl::StrCat("expected at most ", field.max_length));
      return false;
    }
    // A quoted text can spell one, and every path would end there.
    if (node.text.find('\0') != std::string::npos) {
      Refuse(node.place, path, "holds a NUL character", absl::StrCat("expected ", Expected(field)));
      return false;
    }
    if (!field.pattern.empty() && !Matches(node.text, field.pattern)) {
      Refuse(node.place, path, absl::StrCat(Quoted(node.text), " does not fit"),
             absl::StrCat("expected ", Expected(field)));
      return false;
    }
    return value = node.text, true;
  }

  bool ReadChoice(const Field& field, const Node& node, const std::string& path, Value& value) {
    const std::optional<ScalarKind> kind = Kind(field, node, path);
    if (!kind) return false;
    for (const std::string& choice : field.choices) {
      if (choice == node.text && kind == ScalarKind::kText) return value = choice, true;
    }
    const std::string close = Closest(node.text, field.choices);
    Refuse(node.place, path, absl::StrCat(Quoted(node.text), " is not a choice"),
           absl::StrCat("expected ", Expected(field),
                        close.empty() ? "" : absl::StrCat("; did you mean '", close, "'?")));
    return false;
  }

  bool ReadDuration(const Field& field, const Node& node, const std::string& path, Value& value) {
    const auto refuse = [&](absl::string_view message) {
      Refuse(node.place, path, absl::StrCat(Quoted(node.text), " ", message),
             absl::StrCat("expected ", Expected(field)));
      return false;
    };
    const absl::StatusOr<Duration> length = Duration::Parse(node.text);
    if (!length.ok()) return refuse("is not a duration");
    if (length->is_zero()) {
      if (field.nonzero) return refuse("is out of range");
      return value = Duration(), true;
    }
    for (const Duration::Unit unit : field.units) {
      if (unit == length->unit()) return value = *length, true;
    }
    return refuse("has a unit that does not fit here");
  }

  bool Is(Node::Kind kind, const Field& field, const Node& node, const std::string& path) {
    if (node.kind == kind) return true;
    WrongType(field, node, path);
    return false;
  }

  bool FewEnough(const Field& field, const Node& node, const std::string& path) {
    if (node.items.size() <= field.max_items) return true;
    Refuse(node.place, path, absl::StrCat("has ", node.items.size(), " items"),
           absl::StrCat("expected at most ", field.max_items));
    return false;
  }

  bool WrongType(const Field& field, const Node& node, const std::string& path) {
    Refuse(node.place, path, absl::StrCat("is ", Describe(node)),
           absl::StrCat("expected ", Expected(field)));
    return false;
  }
  bool OutOfRange(const Field& field, const Node& node, const std::string& path) {
    Refuse(node.place, path, absl::StrCat(Printable(node.text), " is out of range"),
           absl::StrCat("expected ", Expected(field)));
    return false;
  }

  static std::string Describe(const Node& node) {
    if (node.kind == Node::Kind::kMapping) return "a mapping";
    if (node.kind == Node::Kind::kSequence) return "a list";
    if (node.kind != Node::Kind::kScalar) return "nothing";
    switch (Classify(node.text, node.quoted).kind) {
      case ScalarKind::kBoolean:
        return absl::StrCat("the boolean ", node.text);
      case ScalarKind::kInteger:
      case ScalarKind::kNumber:
        return absl::StrCat("the number ", Printable(node.text));
      default:
        return absl::StrCat("the text ", Quoted(node.text));
    }
  }

  void ReportUnknown(const std::vector<Field>& fields, const Member& member,
                     const std::string& path) {
    if (problems_.full()) return;
    std::vector<std::string> names;
    for (const Field& field : fields) {
      if (field.name == member.key) return;
      names.push_back(field.name);
    }
    std::string hint;
    if (const std::string close = Closest(member.key, names); !close.empty()) {
      hint = absl::StrCat("did you mean '", close, "'?");
    } else if (const std::string elsewhere = PathOfKey(member.key, table_.fields, "");
               !elsewhere.empty()) {
      hint = absl::StrCat("did you mean '", elsewhere, "'?");
    } else {
      std::string known;
      for (const std::string& name : names)
        absl::StrAppend(&known, known.empty() ? "" : ", ", name);
      hint = absl::StrCat("expected one of ", known);
    }
    problems_.Add(member.place, Join(path, Printable(member.key)), "unknown key", std::move(hint));
  }

  // "optimizer.momentum" for "momentum"; empty when no group has such a key.
  static std::string PathOfKey(const std::string& key, const std::vector<Field>& fields,
                               const std::string& path) {
    for (const Field& field : fields) {
      if (field.name == key) return Join(path, key);
    }
    for (const Field& field : fields) {
      if (field.type != FieldType::kGroup) continue;
      std::string found = PathOfKey(key, field.fields, Join(path, field.name));
      if (!found.empty()) return found;
    }
    return "";
  }

  void Refuse(const Place& place, const std::string& path, std::string message, std::string hint) {
    places_.SetBad(path);
    problems_.Add(place, path, std::move(message), std::move(hint));
  }

  const Table& table_;
  Problems& problems_;
  KeyPlaces& places_;
};

}  // namespace

Place KeyPlaces::PlaceOf(std::string path) const {
  while (true) {
    if (const auto found = given_.find(path); found != given_.end()) return found->second;
    const size_t end = path.find_last_of(".[");
    if (end == std::string::npos) break;
    path.resize(end);
  }
  const auto root = given_.find("");
  return root == given_.end() ? Place() : root->second;
}

bool KeyPlaces::Good(const std::string& path) const {
  for (size_t end = path.size(); end != std::string::npos; end = path.find_last_of(".[", end)) {
    if (bad_.count(path.substr(0, end)) > 0) return false;
    if (end == 0) break;
    --end;
  }
  // Something inside it: "model.cnn.blocks[1].filters" for "model.cnn".
  for (auto it = bad_.lower_bound(path); it != bad_.end() && it->starts_with(path); ++it) {
    const char next = it->size() > path.size() ? (*it)[path.size()] : '\0';
    if (next == '.' || next == '[') return false;
  }
  return true;
}

bool ReadConfig(const Table& table, std::string_view yaml, const std::string& file_name,
                const std::vector<Override>& overrides, void* object, Problems& problems,
                KeyPlaces& places) {
  Node root;
  if (!ParseYaml(yaml, file_name, Positions::kOfFile, problems, root)) return false;
  if (root.kind == Node::Kind::kNull) root.kind = Node::Kind::kMapping;
  if (root.kind == Node::Kind::kInvalid) return false;
  if (root.kind != Node::Kind::kMapping) {
    problems.Add(root.place, "", "the file is not a mapping", "expected lines of 'key: value'");
    return false;
  }
  ApplyOverrides(overrides, root, problems);
  places.SetGiven("", root.place);
  Reader(table, problems, places).ReadGroup(table.fields, object, &root, root.place, "");
  return true;
}

}  // namespace lockstep::config
