#include "trainer/models/pickle.h"

#include <cstring>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lockstep::trainer {
namespace {

using Kind = PickleValue::Kind;

// A state dict takes about twenty values per tensor.
constexpr size_t kMaxValues = 2'000'000;
// Bounds on what is copied each time that a pickle refers to it.
constexpr size_t kMaxDimensions = 16;
constexpr size_t kMaxArguments = 16;
constexpr size_t kMaxKeyBytes = 256;

struct StorageType {
  absl::string_view name;
  const char* dtype;
};
constexpr StorageType kStorageTypes[] = {
    {"torch.FloatStorage", "F32"},     {"torch.DoubleStorage", "F64"}, {"torch.HalfStorage", "F16"},
    {"torch.BFloat16Storage", "BF16"}, {"torch.LongStorage", "I64"},   {"torch.IntStorage", "I32"},
    {"torch.ShortStorage", "I16"},     {"torch.CharStorage", "I8"},    {"torch.ByteStorage", "U8"},
    {"torch.BoolStorage", "BOOL"}};
constexpr absl::string_view kCalls[] = {
    "collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_parameter"};

const char* DtypeOfStorage(absl::string_view name) {
  for (const StorageType& type : kStorageTypes) {
    if (type.name == name) return type.dtype;
  }
  return nullptr;
}

// Runs one pickle. `problem_` is set at the first thing that is refused, which ends the run.
class Machine {
 public:
  explicit Machine(std::span<const std::byte> bytes) : bytes_(bytes) {}
  absl::StatusOr<Pickle> Run();

 private:
  bool Step(uint8_t opcode);
  bool StepText(uint8_t opcode);
  bool StepNumber(uint8_t opcode);
  bool StepContainer(uint8_t opcode);
  bool StepMemo(uint8_t opcode);
  bool StepCall(uint8_t opcode);

  bool Refuse(const std::string& problem) {
    if (problem_.empty()) problem_ = problem;
    return false;
  }
  bool CutShort() { return Refuse("it is cut short"); }

  template <typename T>
  bool Take(T& value) {
    if (bytes_.size() - at_ < sizeof(T)) return CutShort();
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }
  bool TakeText(uint64_t size, std::string& text) {
    if (size > bytes_.size() - at_) return CutShort();
    text.assign(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return true;
  }
  bool TakeLine(std::string& text);

  bool Push(PickleValue value) {
    if (pickle_.values.size() >= kMaxValues) return Refuse("it holds more than a state dict would");
    pickle_.values.push_back(std::move(value));
    stack_.push_back(static_cast<uint32_t>(pickle_.values.size() - 1));
    return true;
  }
  bool PushInteger(int64_t value) { return Push({.kind = Kind::kInteger, .integer = value}); }
  bool PushLong(uint64_t size);
  bool Pop(uint32_t& value) {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) {
      return Refuse("an instruction finds nothing to work on");
    }
    value = stack_.back();
    stack_.pop_back();
    return true;
  }
  bool PopMark(std::vector<uint32_t>& values);
  bool PushTuple(size_t size);
  bool Extend(Kind kind, std::vector<uint32_t> items);
  bool Remember(uint64_t slot) {
    if (stack_.empty()) return Refuse("an instruction finds nothing to work on");
    memo_[slot] = stack_.back();
    return true;
  }
  bool Recall(uint64_t slot) {
    const auto found = memo_.find(slot);
    if (found == memo_.end()) return Refuse("it recalls what it has not stored");
    stack_.push_back(found->second);
    return true;
  }
  bool PushGlobal(const std::string& name);
  bool PushStorage();
  bool Call();
  bool RebuildTensor(const std::vector<uint32_t>& arguments);
  bool Sizes(uint32_t tuple, std::vector<int64_t>& sizes);
  PickleValue& value(uint32_t number) { return pickle_.values[number]; }

  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  Pickle pickle_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;  // Heights of the stack.
  std::unordered_map<uint64_t, uint32_t> memo_;
  std::string problem_;
};

absl::StatusOr<Pickle> Machine::Run() {
  size_t opcode_at = 0;
  for (uint8_t opcode = 0; problem_.empty();) {
    opcode_at = at_;
    if (!Take(opcode)) break;
    if (opcode == '.') {
      if (!Pop(pickle_.result)) break;
      pickle_.bytes = at_;
      return std::move(pickle_);
    }
    // Recalling costs a byte or two each time, so this bounds the memory as the values' count does.
    if (stack_.size() > kMaxValues) Refuse("it holds more than a state dict would");
    Step(opcode);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the pickle inside is not a plain state dict (byte ", opcode_at, "): ", problem_));
}

bool Machine::Step(uint8_t opcode) {
  const auto is_one_of = [&](absl::string_view opcodes) {
    return opcodes.find(static_cast<char>(opcode)) != absl::string_view::npos;
  };
  if (is_one_of("XUT\x8c\x8d")) return StepText(opcode);
  if (is_one_of("NJKMG\x88\x89\x8a\x8b")) return StepNumber(opcode);
  if (is_one_of("(}])tsuae\x85\x86\x87")) return StepContainer(opcode);
  if (is_one_of("qrhj\x94")) return StepMemo(opcode);
  if (is_one_of("cRbQ\x93")) return StepCall(opcode);
  if (opcode == 0x95) {  // FRAME: only a hint to readers.
    uint64_t size = 0;
    return Take(size);
  }
  if (opcode == 0x80) {  // PROTO
    uint8_t version = 0;
    if (!Take(version)) return false;
    return (version >= 2 && version <= 5) ||
           Refuse(absl::StrCat("its protocol is ", version, ", not 2 to 5"));
  }
  return Refuse(absl::StrCat("instruction 0x", absl::Hex(opcode, absl::kZeroPad2),
                             " is none that a state dict needs"));
}

bool Machine::StepText(uint8_t opcode) {
  uint64_t size = 0;
  if (opcode == 0x8c || opcode == 'U') {
    uint8_t small = 0;
    if (!Take(small)) return false;
    size = small;
  } else if (opcode == 0x8d) {
    if (!Take(size)) return false;
  } else {
    uint32_t medium = 0;
    if (!Take(medium)) return false;
    size = medium;
  }
  PickleValue text{.kind = Kind::kText};
  return TakeText(size, text.text) && Push(std::move(text));
}

bool Machine::StepNumber(uint8_t opcode) {
  switch (opcode) {
    case 'N':
      return Push({.kind = Kind::kNone});
    case 0x88:
    case 0x89:
      return Push({.kind = Kind::kBoolean, .integer = opcode == 0x88 ? 1 : 0});
    case 'J': {
      int32_t number = 0;
      return Take(number) && PushInteger(number);
    }
    case 'K': {
      uint8_t number = 0;
      return Take(number) && PushInteger(number);
    }
    case 'M': {
      uint16_t number = 0;
      return Take(number) && PushInteger(number);
    }
    case 0x8a: {
      uint8_t size = 0;
      return Take(size) && PushLong(size);
    }
    case 0x8b: {
      uint32_t size = 0;
      return Take(size) && PushLong(size);
    }
    default: {  // 'G': a float, which no tensor needs.
      uint64_t bits = 0;
      return Take(bits) && Push({.kind = Kind::kNumber});
    }
  }
}

bool Machine::PushLong(uint64_t size) {
  PickleValue number{.kind = Kind::kLongInteger};
  if (!TakeText(size, number.text)) return false;
  if (size > 8) return Push(std::move(number));
  uint64_t bits = 0;
  std::memcpy(&bits, number.text.data(), size);
  // Two's complement of `size` bytes.
  if (size > 0 && size < 8 && (bits >> (8 * size - 1)) != 0) bits |= ~uint64_t{0} << (8 * size);
  return PushInteger(static_cast<int64_t>(bits));
}

bool Machine::PopMark(std::vector<uint32_t>& values) {
  if (marks_.empty()) return Refuse("a mark is missing");
  const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  values.assign(begin, stack_.end());
  stack_.erase(begin, stack_.end());
  marks_.pop_back();
  return true;
}

bool Machine::PushTuple(size_t size) {
  std::vector<uint32_t> items(size);
  for (size_t i = size; i-- > 0;) {
    if (!Pop(items[i])) return false;
  }
  return Push({.kind = Kind::kTuple, .items = std::move(items)});
}

// Adds to the list or dict on top of the stack.
bool Machine::Extend(Kind kind, std::vector<uint32_t> items) {
  if (stack_.empty() || value(stack_.back()).kind != kind) {
    return Refuse(kind == Kind::kDict ? "it sets an item of what is no dict"
                                      : "it appends to what is no list");
  }
  if (kind == Kind::kDict && items.size() % 2 != 0) return Refuse("a key lacks its value");
  std::vector<uint32_t>& all = value(stack_.back()).items;
  all.insert(all.end(), items.begin(), items.end());
  return true;
}

bool Machine::StepContainer(uint8_t opcode) {
  std::vector<uint32_t> items;
  switch (opcode) {
    case '(':
      marks_.push_back(stack_.size());
      return marks_.size() <= kMaxValues || Refuse("it holds more than a state dict would");
    case '}':
      return Push({.kind = Kind::kDict});
    case ']':
      return Push({.kind = Kind::kList});
    case ')':
      return Push({.kind = Kind::kTuple});
    case 't':
      return PopMark(items) && Push({.kind = Kind::kTuple, .items = std::move(items)});
    case 0x85:
    case 0x86:
    case 0x87:
      return PushTuple(static_cast<size_t>(opcode) - 0x84);
    case 'u':
      return PopMark(items) && Extend(Kind::kDict, std::move(items));
    case 'e':
      return PopMark(items) && Extend(Kind::kList, std::move(items));
    case 's':
      items.resize(2);
      return Pop(items[1]) && Pop(items[0]) && Extend(Kind::kDict, std::move(items));
    default:  // 'a'
      items.resize(1);
      return Pop(items[0]) && Extend(Kind::kList, std::move(items));
  }
}

bool Machine::StepMemo(uint8_t opcode) {
  if (opcode == 0x94) return Remember(memo_.size());
  uint64_t slot = 0;
  if (opcode == 'q' || opcode == 'h') {
    uint8_t small = 0;
    if (!Take(small)) return false;
    slot = small;
  } else {
    uint32_t large = 0;
    if (!Take(large)) return false;
    slot = large;
  }
  return opcode == 'q' || opcode == 'r' ? Remember(slot) : Recall(slot);
}

bool Machine::TakeLine(std::string& text) {
  const void* end = std::memchr(bytes_.data() + at_, '\n', bytes_.size() - at_);
  if (end == nullptr) return CutShort();
  const auto size = static_cast<size_t>(static_cast<const std::byte*>(end) - bytes_.data()) - at_;
  if (!TakeText(size, text)) return false;
  ++at_;
  return true;
}

bool Machine::StepCall(uint8_t opcode) {
  switch (opcode) {
    case 'c': {
      std::string module, name;
      return TakeLine(module) && TakeLine(name) && PushGlobal(absl::StrCat(module, ".", name));
    }
    case 0x93: {
      uint32_t module = 0, name = 0;
      if (!Pop(name) || !Pop(module)) return false;
      if (value(module).kind != Kind::kText || value(name).kind != Kind::kText) {
        return Refuse("a global without a name");
      }
      return PushGlobal(absl::StrCat(value(module).text, ".", value(name).text));
    }
    case 'R':
      return Call();
    case 'Q':
      return PushStorage();
    default: {  // 'b': a state dict's own attributes (its _metadata), which nobody needs.
      uint32_t state = 0;
      if (!Pop(state)) return false;
      return (!stack_.empty() && value(stack_.back()).kind == Kind::kDict) ||
             Refuse("it sets the attributes of an object");
    }
  }
}

bool Machine::PushGlobal(const std::string& name) {
  bool known = DtypeOfStorage(name) != nullptr;
  for (const absl::string_view call : kCalls) known = known || call == name;
  if (!known) {
    return Refuse(absl::StrCat("it wants to use '", name.substr(0, 200),
                               "'; only tensors are read, nothing is run"));
  }
  return Push({.kind = Kind::kGlobal, .text = name});
}

// ('storage', type, key, location, elements), with a sixth member, None, in older files.
bool Machine::PushStorage() {
  uint32_t id = 0;
  if (!Pop(id)) return false;
  const std::vector<uint32_t>& parts = value(id).items;
  if (value(id).kind != Kind::kTuple || parts.size() < 5 || parts.size() > 6 ||
      value(parts[0]).kind != Kind::kText || value(parts[0]).text != "storage" ||
      value(parts[1]).kind != Kind::kGlobal || value(parts[2]).kind != Kind::kText ||
      value(parts[2]).text.size() > kMaxKeyBytes || value(parts[4]).kind != Kind::kInteger ||
      value(parts[4]).integer < 0 || (parts.size() == 6 && value(parts[5]).kind != Kind::kNone)) {
    return Refuse("a storage is not described as torch.save does");
  }
  const char* dtype = DtypeOfStorage(value(parts[1]).text);
  if (dtype == nullptr) return Refuse("a storage of an unknown type");
  pickle_.tensors.push_back({.storage = value(parts[2]).text,
                             .dtype = dtype,
                             .storage_elements = value(parts[4]).integer,
                             .offset = 0,
                             .shape = {},
                             .strides = {}});
  return Push({.kind = Kind::kStorage, .tensor = pickle_.tensors.size() - 1});
}

bool Machine::Call() {
  uint32_t arguments = 0, function = 0;
  if (!Pop(arguments) || !Pop(function)) return false;
  if (value(function).kind != Kind::kGlobal || value(arguments).kind != Kind::kTuple ||
      value(arguments).items.size() > kMaxArguments) {
    return Refuse("it calls what is no function of a tensor");
  }
  const std::string name = value(function).text;
  const std::vector<uint32_t> items = value(arguments).items;
  if (name == "collections.OrderedDict") {
    if (!items.empty()) return Refuse("an OrderedDict with arguments");
    return Push({.kind = Kind::kDict});
  }
  if (name == "torch._utils._rebuild_parameter") {
    if (items.empty() || value(items[0]).kind != Kind::kTensor) {
      return Refuse("a parameter without a tensor");
    }
    stack_.push_back(items[0]);
    return true;
  }
  if (DtypeOfStorage(name) != nullptr) return Refuse(absl::StrCat("it calls '", name, "'"));
  return RebuildTensor(items);
}

bool Machine::Sizes(uint32_t tuple, std::vector<int64_t>& sizes) {
  if (value(tuple).kind != Kind::kTuple || value(tuple).items.size() > kMaxDimensions) return false;
  for (const uint32_t item : value(tuple).items) {
    if (value(item).kind != Kind::kInteger || value(item).integer < 0) return false;
    sizes.push_back(value(item).integer);
  }
  return true;
}

// (storage, offset, sizes, strides, …)
bool Machine::RebuildTensor(const std::vector<uint32_t>& arguments) {
  if (arguments.size() < 4 || value(arguments[0]).kind != Kind::kStorage ||
      value(arguments[1]).kind != Kind::kInteger || value(arguments[1]).integer < 0) {
    return Refuse("a tensor is not described as torch.save does");
  }
  PickledTensor tensor = pickle_.tensors[value(arguments[0]).tensor];
  tensor.offset = value(arguments[1]).integer;
  if (!Sizes(arguments[2], tensor.shape) || !Sizes(arguments[3], tensor.strides) ||
      tensor.shape.size() != tensor.strides.size()) {
    return Refuse("a tensor has no proper sizes");
  }
  pickle_.tensors.push_back(std::move(tensor));
  return Push({.kind = Kind::kTensor, .tensor = pickle_.tensors.size() - 1});
}

}  // namespace

absl::StatusOr<Pickle> ReadPickle(std::span<const std::byte> bytes) {
  return Machine(bytes).Run();
}

}  // namespace lockstep::trainer
