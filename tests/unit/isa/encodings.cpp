#include "unit/isa/encodings.h"

#include <initializer_list>
#include <set>
#include <tuple>

namespace trapline::isa {

namespace {

ZydisDecoder make_decoder(CodeSize size) {
  ZydisDecoder d;
  if (size == CodeSize::bits64) ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  if (size == CodeSize::bits32) ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
  if (size == CodeSize::bits16) ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
  return d;
}

const ZydisDecoder& decoder(CodeSize size) {
  static const ZydisDecoder d16 = make_decoder(CodeSize::bits16), d32 = make_decoder(CodeSize::bits32),
                            d64 = make_decoder(CodeSize::bits64);
  return size == CodeSize::bits64 ? d64 : size == CodeSize::bits32 ? d32 : d16;
}

const ZydisDecoder& knights_corner() {
  static const ZydisDecoder d = [] {
    ZydisDecoder k = make_decoder(CodeSize::bits64);
    ZydisDecoderEnableMode(&k, ZYDIS_DECODER_MODE_KNC, ZYAN_TRUE);
    return k;
  }();
  return d;
}

std::vector<u8> g_current;

class Walk {
 public:
  explicit Walk(const Visitor& visit) : visit_{visit} {}

  void all() {
    legacy();
    amd_3dnow();
    vex(0xc4, 1, 3);
    vex(0x8f, 8, 10);  // XOP
    evex();
  }

 private:
  using Bytes = std::vector<u8>;

  // The longest instruction has 15 bytes: what follows the opcode does not matter.
  static Bytes padded(Bytes b) {
    for (int filler : {0x24, 0x10, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24})
      if (b.size() < 15) b.push_back(static_cast<u8>(filler));
    return b;
  }

  void one(const ZydisDecoder& d, const Bytes& bytes) {
    ZydisDecodedInstruction zi;
    ZydisDecoderContext context;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, &context, bytes.data(), bytes.size(), &zi))) return;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&d, &context, &zi, operands, zi.operand_count))) return;
    const auto kind = [&](unsigned i) {
      if (i >= zi.operand_count_visible) return -1;
      if (operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER) return static_cast<int>(operands[i].type);
      const ZydisRegisterClass cls = ZydisRegisterGetClass(operands[i].reg.value);
      return 100 + (cls == ZYDIS_REGCLASS_SEGMENT ? 100 + operands[i].reg.value : static_cast<int>(cls));
    };
    if (!seen_
             .insert({zi.mnemonic, zi.machine_mode, zi.meta.category, zi.meta.isa_set, zi.meta.branch_type, kind(0),
                      kind(1)})
             .second)
      return;
    g_current.assign(bytes.begin(), bytes.begin() + zi.length);
    visit_(zi, operands);
  }

  void in_all_modes(const Bytes& bytes) {
    for (CodeSize size : {CodeSize::bits16, CodeSize::bits32, CodeSize::bits64}) one(decoder(size), bytes);
  }

  void legacy() {
    const std::initializer_list<Bytes> prefixes = {
        {},     {0x66},       {0xf2},       {0xf3},       {0x66, 0xf2},       {0x66, 0xf3},
        {0x48}, {0x66, 0x48}, {0xf2, 0x48}, {0xf3, 0x48}, {0x66, 0xf2, 0x48}, {0x66, 0xf3, 0x48}};
    const std::initializer_list<Bytes> maps = {{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
    for (const Bytes& prefix : prefixes)
      for (const Bytes& map : maps)
        for (int op = 0; op < 256; op++)
          for (int modrm = 0; modrm < 256; modrm++) {
            Bytes b = prefix;
            b.insert(b.end(), map.begin(), map.end());
            b.push_back(static_cast<u8>(op)), b.push_back(static_cast<u8>(modrm));
            in_all_modes(padded(b));
          }
  }

  void amd_3dnow() {
    for (int op = 0; op < 256; op++) in_all_modes({0x0f, 0x0f, 0xc0, static_cast<u8>(op)});
  }

  void vex(u8 escape, int first_map, int last_map) {
    for (int map = first_map; map <= last_map; map++)
      for (int p : {0x78, 0x79, 0x7a, 0x7b, 0x7c, 0x7d, 0x7e, 0x7f, 0xf8, 0xf9, 0xfa,
                    0xfb, 0xfc, 0xfd, 0xfe, 0xff, 0x70, 0x71, 0x72, 0x73, 0xf0, 0xf1})
        for (int op = 0; op < 256; op++)
          for (int reg = 0; reg < 64; reg += 8)
            for (int rm : {0x00, 0x04, 0xc0, 0xc1}) {
              const Bytes b{escape, static_cast<u8>(0xe0 | map), static_cast<u8>(p), static_cast<u8>(op),
                            static_cast<u8>(reg | rm)};
              one(decoder(CodeSize::bits64), padded(b));
              if (escape == 0xc4 && map == 1) one(knights_corner(), padded(b));  // its mask instructions
            }
  }

  void evex() {
    for (int map = 1; map <= 6; map++)
      for (int wpp = 0; wpp < 8; wpp++)
        for (int length = 0; length < 4; length++)
          for (int broadcast : {0, 0x10})
            for (int mask : {0, 1})
              for (int modern : {0, 4})
                for (int op = 0; op < 256; op++)
                  for (int modrm : {0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x04, 0x0c, 0x14, 0x1c,
                                    0x24, 0x2c, 0x34, 0x3c, 0xc0, 0xc8, 0xd0, 0xd8, 0xe0, 0xe8, 0xf0, 0xf8}) {
                    const Bytes b{0x62,
                                  static_cast<u8>(0xf0 | map),
                                  static_cast<u8>((wpp & 4) << 5 | 0x78 | modern | (wpp & 3)),
                                  static_cast<u8>(length << 5 | broadcast | 8 | mask),
                                  static_cast<u8>(op),
                                  static_cast<u8>(modrm)};
                    one(modern ? decoder(CodeSize::bits64) : knights_corner(), padded(b));
                  }
  }

  const Visitor& visit_;
  std::set<std::tuple<int, int, int, int, int, int, int>> seen_;
};

}  // namespace

std::optional<Decoded> decode_all(std::span<const u8> bytes, CodeSize size) {
  Decoded d;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder(size), bytes.data(), bytes.size(), &d.insn, d.operands.data())))
    return std::nullopt;
  return d;
}

void for_each_encoding(const Visitor& visit) { Walk{visit}.all(); }
std::vector<u8> current_encoding() { return g_current; }

}  // namespace trapline::isa
