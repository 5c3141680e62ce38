// One row of a config's table: everything there is to know about a key, said once.
//
// Loading, writing YAML, the JSON schema and the reference in the README all walk the same rows, so
// they cannot disagree. A table is a value built by Fields<Struct>: each call adds the row of one
// member of the struct. Rows reach into the struct through a void pointer; only Fields<Struct>
// makes them, and only for its own struct.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "config/duration.h"

namespace lockstep::config {

enum class FieldType {
  kBoolean,
  kInteger,
  kNumber,
  kText,
  kChoice,  // One of a few words.
  kDuration,
  kIntegerList,
  kNumberList,
  kTextList,
  kGroup,      // A mapping.
  kGroupList,  // A list of mappings.
};

using Value = std::variant<bool, int64_t, double, std::string, Duration, std::vector<int64_t>,
                           std::vector<double>, std::vector<std::string>>;

struct Field {
  std::string name;
  FieldType type = FieldType::kText;
  std::string doc;  // One sentence, for people.

  bool required = false;
  std::string unit;       // "seconds", "pixels"; for people.
  bool has_auto = false;  // The word `auto` is a value too; it stands for auto_value.
  int64_t auto_value = 0;
  int64_t min_integer = std::numeric_limits<int64_t>::min();  // Also of a list's items.
  int64_t max_integer = std::numeric_limits<int64_t>::max();
  double min_number = std::numeric_limits<double>::lowest();
  double max_number = std::numeric_limits<double>::max();
  bool above_min = false;  // min_number itself is out of range.
  bool below_max = false;
  size_t max_items = 1000;
  size_t max_length = 4096;          // Bytes of a text.
  std::vector<std::string> choices;  // kChoice
  // kText: a regular expression from ^ to $ that POSIX (extended) and ECMAScript read alike; empty
  // = any text.
  std::string pattern;
  std::string pattern_note;           // The same for people.
  std::vector<Duration::Unit> units;  // kDuration: units that make sense; zero length always does.
  bool nonzero = false;               // kDuration
  std::string default_note;           // Where the default is no single value: what to tell people.

  std::vector<Field> fields;  // kGroup, kGroupList

  std::function<Value(const void*)> get;  // Every type but groups.
  std::function<void(void*, const Value&)> set;
  std::function<void*(void*)> group;        // kGroup: the member struct.
  std::function<size_t(const void*)> size;  // kGroupList
  std::function<void(void*, size_t)> resize;
  std::function<void*(void*, size_t)> item;

  Field& Required() { return required = true, *this; }
  Field& Unit(std::string text) { return unit = std::move(text), *this; }
  Field& Auto(int64_t value = 0) { return has_auto = true, auto_value = value, *this; }
  Field& Range(int64_t min, int64_t max) { return min_integer = min, max_integer = max, *this; }
  Field& Within(double min, double max) { return min_number = min, max_number = max, *this; }
  Field& Above(double min, double max) { return above_min = true, Within(min, max); }
  Field& Below(double min, double max) { return below_max = true, Within(min, max); }
  Field& AtMost(size_t items) { return max_items = items, *this; }
  Field& Longest(size_t bytes) { return max_length = bytes, *this; }
  Field& Pattern(std::string regex, std::string note) {
    return pattern = std::move(regex), pattern_note = std::move(note), *this;
  }
  Field& Nonzero() { return nonzero = true, *this; }
  Field& DefaultNote(std::string text) { return default_note = std::move(text), *this; }
};

/// "a whole number from 1 to 64, or auto": what a key wants, for hints and the reference.
std::string Expected(const Field& field);
/// The value as YAML, on one line.
std::string ValueToYaml(const Field& field, const Value& value);

template <typename T>
class Fields {
 public:
  Field& Boolean(std::string name, bool T::*member, std::string doc) {
    return Add<bool>(FieldType::kBoolean, std::move(name), member, std::move(doc));
  }
  template <typename I>
  Field& Integer(std::string name, I T::*member, std::string doc) {
    static_assert(std::is_integral_v<I>);
    Field& field = Add<int64_t>(FieldType::kInteger, std::move(name), member, std::move(doc));
    constexpr bool wide = sizeof(I) >= sizeof(int64_t);
    const int64_t least = wide ? std::numeric_limits<int64_t>::min()
                               : static_cast<int64_t>(std::numeric_limits<I>::min());
    const int64_t most = wide ? std::numeric_limits<int64_t>::max()
                              : static_cast<int64_t>(std::numeric_limits<I>::max());
    return field.Range(std::is_signed_v<I> ? least : 0, most);
  }
  Field& Number(std::string name, double T::*member, std::string doc) {
    return Add<double>(FieldType::kNumber, std::move(name), member, std::move(doc));
  }
  Field& Text(std::string name, std::string T::*member, std::string doc) {
    return Add<std::string>(FieldType::kText, std::move(name), member, std::move(doc));
  }
  Field& Length(std::string name, Duration T::*member, std::vector<Duration::Unit> units,
                std::string doc) {
    Field& field = Add<Duration>(FieldType::kDuration, std::move(name), member, std::move(doc));
    field.units = std::move(units);
    return field;
  }
  Field& TextChoice(std::string name, std::string T::*member, std::vector<std::string> words,
                    std::string doc) {
    Field& field = Add<std::string>(FieldType::kChoice, std::move(name), member, std::move(doc));
    field.choices = std::move(words);
    return field;
  }
  /// words[i] is the word for the enumerator of value i (for a bool: false, true).
  template <typename E>
  Field& Choice(std::string name, E T::*member, std::vector<std::string> words, std::string doc) {
    Field& field = Row(FieldType::kChoice, std::move(name), std::move(doc));
    field.get = [member, words](const void* object) {
      return Value(words.at(static_cast<size_t>(static_cast<const T*>(object)->*member)));
    };
    field.set = [member, words](void* object, const Value& value) {
      for (size_t i = 0; i < words.size(); ++i) {
        if (words[i] == std::get<std::string>(value)) {
          static_cast<T*>(object)->*member = static_cast<E>(i);
        }
      }
    };
    field.choices = std::move(words);
    return field;
  }
  Field& IntegerList(std::string name, std::vector<int> T::*member, std::string doc) {
    Field& field = Row(FieldType::kIntegerList, std::move(name), std::move(doc));
    field.get = [member](const void* object) {
      const std::vector<int>& list = static_cast<const T*>(object)->*member;
      return Value(std::vector<int64_t>(list.begin(), list.end()));
    };
    field.set = [member](void* object, const Value& value) {
      std::vector<int>& list = static_cast<T*>(object)->*member;
      list.clear();
      for (const int64_t item : std::get<std::vector<int64_t>>(value)) {
        list.push_back(static_cast<int>(item));
      }
    };
    return field.Range(std::numeric_limits<int>::min(), std::numeric_limits<int>::max());
  }
  Field& NumberList(std::string name, std::vector<double> T::*member, std::string doc) {
    return Add<std::vector<double>>(FieldType::kNumberList, std::move(name), member,
                                    std::move(doc));
  }
  Field& TextList(std::string name, std::vector<std::string> T::*member, std::string doc) {
    return Add<std::vector<std::string>>(FieldType::kTextList, std::move(name), member,
                                         std::move(doc));
  }
  template <typename G>
  Field& Group(std::string name, G T::*member, Fields<G> fields, std::string doc) {
    Field& field = Row(FieldType::kGroup, std::move(name), std::move(doc));
    field.fields = std::move(fields).Take();
    field.group = [member](void* object) -> void* { return &(static_cast<T*>(object)->*member); };
    return field;
  }
  template <typename G>
  Field& GroupList(std::string name, std::vector<G> T::*member, Fields<G> fields, std::string doc) {
    Field& field = Row(FieldType::kGroupList, std::move(name), std::move(doc));
    field.fields = std::move(fields).Take();
    field.size = [member](const void* object) {
      return (static_cast<const T*>(object)->*member).size();
    };
    field.resize = [member](void* object, size_t size) {
      (static_cast<T*>(object)->*member).assign(size, G());
    };
    field.item = [member](void* object, size_t i) -> void* {
      return &(static_cast<T*>(object)->*member)[i];
    };
    return field;
  }

  std::vector<Field> Take() && { return std::move(rows_); }

 private:
  Field& Row(FieldType type, std::string name, std::string doc) {
    Field& field = rows_.emplace_back();
    field.type = type;
    field.name = std::move(name);
    field.doc = std::move(doc);
    return field;
  }
  // A member that converts to and from V, the alternative of Value that carries it.
  template <typename V, typename M>
  Field& Add(FieldType type, std::string name, M T::*member, std::string doc) {
    Field& field = Row(type, std::move(name), std::move(doc));
    field.get = [member](const void* object) {
      return Value(static_cast<V>(static_cast<const T*>(object)->*member));
    };
    field.set = [member](void* object, const Value& value) {
      static_cast<T*>(object)->*member = static_cast<M>(std::get<V>(value));
    };
    return field;
  }

  std::vector<Field> rows_;
};

// The rows of a whole config.
struct Table {
  std::string title;
  std::vector<Field> fields;
};

const Table& RunTable();          // For a RunConfig.
const Table& CoordinatorTable();  // For a CoordinatorConfig.

}  // namespace lockstep::config
