#include "devices/terminal_keys.h"

#include <optional>
#include <string_view>

namespace trapline::devices {

namespace {

constexpr u8 kShift = 0x2a, kControl = 0x1d, kAlt = 0x38;

struct Stroke {
  u8 code = 0;  // of set 1
  bool extended = false, shift = false, control = false;
};

// The rows of a US keyboard from the code of their first key on, without Shift and with it.
struct Row {
  u8 first;
  std::string_view plain, shifted;
};
constexpr Row kRows[] = {
    {0x02, "1234567890-=", "!@#$%^&*()_+"},
    {0x10, "qwertyuiop[]", "QWERTYUIOP{}"},
    {0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~"},
    {0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?"},
    {0x39, " ", " "},
};

std::optional<Stroke> of_character(char c) {
  for (const Row& row : kRows) {
    if (const auto at = row.plain.find(c); at != std::string_view::npos)
      return Stroke{.code = static_cast<u8>(row.first + at)};
    if (const auto at = row.shifted.find(c); at != std::string_view::npos)
      return Stroke{.code = static_cast<u8>(row.first + at), .shift = true};
  }
  return std::nullopt;
}

std::optional<Stroke> of_byte(u8 byte) {
  switch (byte) {
    case '\r':
    case '\n':
      return Stroke{.code = 0x1c};
    case '\t':
      return Stroke{.code = 0x0f};
    case 0x08:
    case 0x7f:
      return Stroke{.code = 0x0e};
    case 0x1b:
      return Stroke{.code = 0x01};
    default:
      break;
  }
  if (byte >= 1 && byte <= 26) {
    auto stroke = of_character(static_cast<char>('a' + byte - 1));
    stroke->control = true;
    return stroke;
  }
  return byte < 0x80 ? of_character(static_cast<char>(byte)) : std::nullopt;
}

struct Sequence {
  std::string_view bytes;  // behind the escape
  u8 code;
  bool extended;
};
constexpr Sequence kSequences[] = {
    {"[A", 0x48, true},    {"[B", 0x50, true},    {"[C", 0x4d, true},    {"[D", 0x4b, true},    {"OA", 0x48, true},
    {"OB", 0x50, true},    {"OC", 0x4d, true},    {"OD", 0x4b, true},    {"[H", 0x47, true},    {"[F", 0x4f, true},
    {"[1~", 0x47, true},   {"[4~", 0x4f, true},   {"[2~", 0x52, true},   {"[3~", 0x53, true},   {"[5~", 0x49, true},
    {"[6~", 0x51, true},   {"OP", 0x3b, false},   {"OQ", 0x3c, false},   {"OR", 0x3d, false},   {"OS", 0x3e, false},
    {"[15~", 0x3f, false}, {"[17~", 0x40, false}, {"[18~", 0x41, false}, {"[19~", 0x42, false}, {"[20~", 0x43, false},
    {"[21~", 0x44, false}, {"[23~", 0x57, false}, {"[24~", 0x58, false},
};

const Sequence* sequence_at(std::string_view text) {
  for (const Sequence& s : kSequences)
    if (text.starts_with(s.bytes)) return &s;
  return nullptr;
}

void strike(Ps2Keyboard& keyboard, const Stroke& stroke, bool alt = false) {
  const u8 modifier = stroke.control ? kControl : stroke.shift ? kShift : 0;
  if (alt) keyboard.press(kAlt, false, true);
  if (modifier) keyboard.press(modifier, false, true);
  keyboard.press(stroke.code, stroke.extended, true);
  keyboard.press(stroke.code, stroke.extended, false);
  if (modifier) keyboard.press(modifier, false, false);
  if (alt) keyboard.press(kAlt, false, false);
}

}  // namespace

std::size_t type_bytes(Ps2Keyboard& keyboard, const u8* bytes, std::size_t count) {
  const std::string_view text{reinterpret_cast<const char*>(bytes), count};
  std::size_t done = 0;
  while (done < count && keyboard.has_room()) {
    const std::string_view rest = text.substr(done + 1);
    const bool escape = bytes[done] == 0x1b;
    if (const Sequence* s = escape ? sequence_at(rest) : nullptr) {
      strike(keyboard, {.code = s->code, .extended = s->extended});
      done += 1 + s->bytes.size();
    } else if (const auto with_alt = escape && !rest.empty() ? of_byte(static_cast<u8>(rest[0])) : std::nullopt) {
      strike(keyboard, *with_alt, true);
      done += 2;
    } else {
      if (const auto stroke = of_byte(bytes[done])) strike(keyboard, *stroke);
      done++;
    }
  }
  return done;
}

}  // namespace trapline::devices
