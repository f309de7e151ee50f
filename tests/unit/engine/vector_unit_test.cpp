// Every encoding of the vector maps and of x87, run natively and through the vector unit on equal states: registers,
// flags, MXCSR, memory and faults compared. The host CPU is the judge.
#include "engine/vector/vector_unit.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>

#include "cpu/fpu.h"
#include "cpu/fpu_state.h"
#include "engine/emit/rebuild.h"
#include "engine/vector/op.h"
#include "support/vendors.h"
#include "unit/cpu/bare_vm.h"
#include "unit/engine/vector_native.h"

namespace trapline::engine::test {
namespace {

using cpu::Outcome;
using cpu::Vector;
namespace pte = cpu::test::pte;

constexpr u64 kDataGpa = 0x400000;  // two pages that exist, then one that does not
constexpr u64 kBytes = 2 * kPageSize;

struct Stage {
  cpu::test::BareVm vm;
  CodeArena arena{8 * MiB};
  VectorUnit unit{arena};
  Native native;
  u8* data;
  std::vector<u8> before, after;
  std::set<ZydisMnemonic> undefined;  // offered by the host, refused here

  Stage() : data{reinterpret_cast<u8*>(vm.ram.host(Gpa{kDataGpa}))}, before(kBytes), after(kBytes) {
    install_vector_signal_handler();
    vm.enter_long64();
    vm.cpu.cr4 |= cpu::cr4::osfxsr | cpu::cr4::osxmmexcpt | cpu::cr4::osxsave;
    vm.cpu.xcr0 = 0xe7;
    cpu::reset_fpu(vm.cpu);
    cpu::update_mode(vm.cpu);
    for (u64 at = 0; at < kBytes; at += kPageSize)
      vm.map64(reinterpret_cast<u64>(data) + at, kDataGpa + at, pte::p | pte::w | pte::u | pte::a | pte::d);
    EXPECT_EQ(mprotect(data + kBytes, kPageSize, PROT_NONE), 0);
  }
  ~Stage() {
    std::string names;
    for (ZydisMnemonic m : undefined) names += std::string(ZydisMnemonicGetString(m)) + " ";
    EXPECT_EQ(names, "");
    mprotect(data + kBytes, kPageSize, PROT_READ | PROT_WRITE);
  }

  void load(const NativeState& s) {
    cpu::Vcpu& c = vm.cpu;
    std::memcpy(c.gpr, s.gpr, sizeof s.gpr);
    std::memcpy(c.vec.zmm, s.zmm, sizeof s.zmm);
    std::memcpy(c.vec.k, s.k, sizeof s.k);
    std::memcpy(&c.vec.mxcsr, s.fx + 24, 4);
    c.set_rflags_raw(static_cast<u32>(s.rflags));
    cpu::x87_park(c);
    u8 image[cpu::kX87ImageBytes];
    std::memcpy(image, s.fx, sizeof image);
    cpu::x87_load_image(c, image, true);
    c.rip = 0x1000;
  }
};

std::string hex(std::span<const u8> bytes) {
  std::string s;
  for (u8 b : bytes) s += fmt::format("{:02x} ", b);
  return s;
}

struct Options {
  u32 unmasked_mxcsr = 0;  // exceptions the guest leaves unmasked
  bool x87_exceptions = false;
};

// One comparison. Empty: equal (or not comparable: *ran stays false).
std::string compare(Stage& stage, Values& values, const std::vector<u8>& bytes, const Options& options, bool* ran,
                    ZydisMnemonic* mnemonic) {
  *ran = false;
  isa::Insn insn;
  if (isa::decode(bytes.data(), bytes.size(), stage.vm.cpu.code_size(), isa::host_vendor(), insn) !=
      isa::DecodeStatus::ok)
    return {};
  *mnemonic = insn.mnemonic;
  for (unsigned i = 0; i < insn.operand_count; i++)
    if (insn.op[i].kind == isa::Operand::Kind::gpr && insn.op[i].reg == isa::rsp && !insn.op[i].high8) return {};
  VectorOp op;
  const Prepared prepared = stage.unit.prepare(stage.vm.cpu, insn, op);
  if (prepared == Prepared::arena_full) {
    stage.unit.forget_all();
    stage.arena.reset();
    return {};
  }
  if (prepared == Prepared::undefined) {
    // Reserved forms and sets that are never offered; all others must run.
    static const std::set<ZydisISAExt> kNever = {ZYDIS_ISA_EXT_AMD3DNOW, ZYDIS_ISA_EXT_XOP, ZYDIS_ISA_EXT_FMA4,
                                                 ZYDIS_ISA_EXT_SSE4A};
    emit::Decoded d;
    ZydisDecoderDecodeFull(&emit::decoder_for(static_cast<u8>(insn.code_size)), insn.bytes.data(), insn.length, &d.insn,
                           d.op);
    const u64 needed = vector::required_features(d.insn.meta.isa_set);
    if (kNever.contains(d.insn.meta.isa_ext) || (vector::host_features() & needed) != needed) return {};
    stage.undefined.insert(insn.mnemonic);
  }
  if (prepared != Prepared::yes) return {};

  if (insn.code_size != isa::CodeSize::bits64) {
    // The judge's 64-bit mode differs: rDI is wider, and W selects 64-bit general registers.
    if (op.kind == static_cast<u8>(vector::Kind::mask_move)) return {};
    for (unsigned i = 0; i < insn.operand_count; i++)
      if (insn.op[i].kind == isa::Operand::Kind::gpr && bytes[0] == 0x62 && bytes[2] & 0x80) return {};
  }

  static NativeState in, out;
  values.fill(in.zmm, sizeof in.zmm);
  for (u64& k : in.k) k = values.below(3) ? values.bits() : values.bits() & values.bits() & values.bits();
  for (u64& g : in.gpr) g = values.bits();
  in.rflags = 2 | (values.bits() & cpu::flag::arith);
  std::memset(in.fx, 0, sizeof in.fx);
  const u16 fcw =
      static_cast<u16>(0x40 | (values.bits() & 0xf00) | (options.x87_exceptions ? values.bits() & 0x3f : 0x3f));
  const u16 fsw = static_cast<u16>(values.bits() & 0x7f3f);
  std::memcpy(in.fx, &fcw, 2);
  std::memcpy(in.fx + 2, &fsw, 2);
  in.fx[4] = static_cast<u8>(values.bits() | (values.below(2) ? 0xff : 0));
  for (int r = 0; r < 8; r++) {
    values.fill(in.fx + 32 + r * 16, 8);
    const u16 exponent = static_cast<u16>(values.below(4) ? 0x3fff - 40 + values.below(80) : values.bits());
    std::memcpy(in.fx + 40 + r * 16, &exponent, 2);
    if (values.below(4)) in.fx[39 + r * 16] |= 0x80;  // normal more often than not
  }
  const u32 mxcsr = static_cast<u32>((values.bits() & 0xe07f) | 0x1f80) & ~options.unmasked_mxcsr;
  std::memcpy(in.fx + 24, &mxcsr, 4);
  // Operands near the end of what is mapped, aligned or not.
  u64 where = reinterpret_cast<u64>(stage.data) + kBytes - values.below(160);
  if (values.below(3) == 0) where = reinterpret_cast<u64>(stage.data) + kPageSize - 64 + values.below(128);
  if (values.below(2)) where &= ~u64{63};
  in.gpr[isa::rbx] = in.gpr[isa::rdi] = where;
  if (insn.mem.vsib) {
    u8* indices = in.zmm[insn.mem.index & 31];
    for (unsigned i = 0; i < 64 / op.index_bytes; i++) {
      const i64 v = -static_cast<i64>(values.below(20));
      std::memcpy(indices + i * op.index_bytes, &v, op.index_bytes);
    }
  }
  values.fill(stage.before.data(), 128);
  values.fill(stage.before.data() + kPageSize - 128, 256);
  values.fill(stage.before.data() + kBytes - 256, 256);

  out = in;
  std::memcpy(stage.data, stage.before.data(), kBytes);
  const NativeResult native = stage.native.run({insn.bytes.data(), insn.length}, out);
  std::memcpy(stage.after.data(), stage.data, kBytes);
  *ran = true;
  std::memcpy(stage.data, stage.before.data(), kBytes);
  stage.load(in);
  cpu::Vcpu& c = stage.vm.cpu;
  const Outcome outcome = VectorUnit::execute(c, insn, op);
  const u32 host_mxcsr = _mm_getcsr();
  if ((host_mxcsr & 0xffc0) != 0x1f80) return fmt::format("host MXCSR left at {:#x}", host_mxcsr);
  cpu::x87_park(c);

  if (native.signal) {
    if (outcome != Outcome::fault)
      return fmt::format("native signal {} code {}, here none", native.signal, native.code);
    Vector expected = Vector::ud;
    if (native.signal == SIGSEGV) expected = native.code == SI_KERNEL ? Vector::gp : Vector::pf;
    if (native.signal == SIGFPE) expected = op.flags & 2 && (op.flags & 1) == 0 ? Vector::mf : Vector::xm;
    if (c.fault.vector != expected)
      return fmt::format("fault {}, native signal {} code {}", static_cast<int>(c.fault.vector), native.signal,
                         native.code);
    if (expected == Vector::pf && (c.fault.cr2 & kPageMask) != (native.address & kPageMask))
      return fmt::format("cr2 {:#x}, native {:#x}", c.fault.cr2, native.address);
    if (expected == Vector::xm && c.vec.mxcsr != native.mxcsr)
      return fmt::format("#XM: mxcsr {:#x}, native {:#x}", c.vec.mxcsr, native.mxcsr);
    if (!insn.mem.vsib && std::memcmp(c.vec.zmm, in.zmm, sizeof in.zmm) != 0) return "registers changed by a fault";
    if (!insn.mem.vsib && std::memcmp(c.gpr, in.gpr, sizeof in.gpr) != 0) return "general registers changed by a fault";
    if (std::memcmp(c.x87.image + 32, in.fx + 32, 128) != 0 && fsw < 0x80) return "x87 registers changed by a fault";
    return {};
  }
  if (outcome != Outcome::next)
    return fmt::format("fault {} error {:#x}, native none", static_cast<int>(c.fault.vector), c.fault.error);
  for (int i = 0; i < 32; i++)
    if (std::memcmp(c.vec.zmm[i], out.zmm[i], 64) != 0)
      return fmt::format("zmm{}:\n  here   {}\n  native {}", i, hex(c.vec.zmm[i]), hex(out.zmm[i]));
  for (int i = 0; i < 8; i++)
    if (c.vec.k[i] != out.k[i]) return fmt::format("k{} {:#x}, native {:#x}", i, c.vec.k[i], out.k[i]);
  for (int i = 0; i < 16; i++)
    if (i != isa::rsp && c.gpr[i] != out.gpr[i])
      return fmt::format("gpr{} {:#x}, native {:#x}", i, c.gpr[i], out.gpr[i]);
  if ((c.rflags() ^ out.rflags) & cpu::flag::arith)
    return fmt::format("flags {:#x}, native {:#x}", c.rflags(), out.rflags);
  u32 native_mxcsr;
  std::memcpy(&native_mxcsr, out.fx + 24, 4);
  if (c.vec.mxcsr != native_mxcsr)
    return fmt::format("mxcsr {:#x}, native {:#x} from {:#x}", c.vec.mxcsr, native_mxcsr, mxcsr);
  if (std::memcmp(c.x87.image, out.fx, 5) != 0)
    return fmt::format("x87 control {}, native {}, from {}", hex({c.x87.image, 5}), hex({out.fx, 5}), hex({in.fx, 5}));
  if (std::memcmp(c.x87.image + 32, out.fx + 32, 128) != 0) return "x87 registers differ";
  if (std::memcmp(stage.data, stage.after.data(), kBytes) != 0) return "memory differs";
  return {};
}

struct Tally {
  std::set<ZydisMnemonic> mnemonics;
  u64 ran = 0;
  unsigned failures = 0;
};

void check(Stage& stage, Values& values, const std::vector<u8>& bytes, const Options& options, Tally& tally) {
  bool ran;
  ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;
  const std::string difference = compare(stage, values, bytes, options, &ran, &mnemonic);
  if (ran) {
    tally.ran++;
    tally.mnemonics.insert(mnemonic);
  }
  if (difference.empty() || tally.failures >= 12) return;
  tally.failures++;
  ADD_FAILURE() << ZydisMnemonicGetString(mnemonic) << "  " << hex(bytes) << "\n  " << difference;
}

// TRAPLINE_SEED=n chooses other operands.
u64 seed(u64 test) {
  const char* text = std::getenv("TRAPLINE_SEED");
  return test + (text ? std::strtoull(text, nullptr, 0) * 100 : 0);
}

u8 random_modrm(Values& v, unsigned reg_field) {
  // Register forms, [rbx], [rbx + disp8].
  switch (v.below(3)) {
    case 0:
      return static_cast<u8>(0xC0 | reg_field << 3 | v.below(8));
    case 1:
      return static_cast<u8>(reg_field << 3 | 3);
    default:
      return static_cast<u8>(0x40 | reg_field << 3 | 3);
  }
}

void tail(Values& v, std::vector<u8>& b) {
  b.push_back(static_cast<u8>(0x100 - 8 * v.below(3)));  // displacement, or an immediate
  for (int i = 0; i < 3; i++) b.push_back(static_cast<u8>(v.bits()));
}

void legacy(Stage& stage, Values& v, const Options& options, Tally& tally, int rounds) {
  for (int round = 0; round < rounds; round++)
    for (unsigned map = 1; map < 4; map++)
      for (unsigned prefix : {0x00, 0x66, 0xF3, 0xF2})
        for (unsigned opcode = 0; opcode < 256; opcode++) {
          if (map == 1 && (opcode < 0x10 || opcode == 0x38 || opcode == 0x3A || opcode == 0x30 || opcode == 0x31 ||
                           opcode == 0x34 || opcode == 0x35))
            continue;
          std::vector<u8> b;
          if (prefix) b.push_back(static_cast<u8>(prefix));
          if (v.below(2)) b.push_back(static_cast<u8>(0x40 | (v.bits() & 14)));  // not B: the base stays rbx
          b.push_back(0x0F);
          if (map > 1) b.push_back(map == 2 ? 0x38 : 0x3A);
          b.push_back(static_cast<u8>(opcode));
          b.push_back(random_modrm(v, static_cast<unsigned>(v.below(8))));
          tail(v, b);
          check(stage, v, b, options, tally);
        }
}

void x87(Stage& stage, Values& v, const Options& options, Tally& tally, int rounds) {
  for (int round = 0; round < rounds; round++)
    for (unsigned opcode = 0xD8; opcode < 0xE0; opcode++)
      for (unsigned modrm = 0; modrm < 256; modrm++) {
        if (modrm < 0xC0 && ((modrm & 7) != 3 || modrm >= 0x80)) continue;  // [rbx], [rbx + disp8]
        std::vector<u8> b{static_cast<u8>(opcode), static_cast<u8>(modrm)};
        tail(v, b);
        check(stage, v, b, options, tally);
      }
}

void vex(Stage& stage, Values& v, const Options& options, Tally& tally, int rounds) {
  for (int round = 0; round < rounds; round++)
    for (unsigned map = 1; map < 4; map++)
      for (unsigned pp = 0; pp < 4; pp++)
        for (unsigned wl = 0; wl < 4; wl++)
          for (unsigned opcode = 0; opcode < 256; opcode++) {
            const u64 r = v.bits();
            const unsigned vvvv = r & 1 ? 15 : r >> 1 & 15;
            std::vector<u8> b{0xC4, static_cast<u8>((r >> 5 & 0x80) | 0x60 | map),
                              static_cast<u8>((wl & 2) << 6 | vvvv << 3 | (wl & 1) << 2 | pp), static_cast<u8>(opcode)};
            if (r >> 13 & 1) b[1] &= 0xBF;  // X
            const unsigned reg = r >> 16 & 7;
            if ((r >> 20 & 7) == 0 || (map == 2 && opcode >= 0x90 && opcode < 0x94)) {
              b.push_back(static_cast<u8>(0x44 | reg << 3));  // VSIB: rbx + index * scale
              b.push_back(static_cast<u8>((r >> 24 & 0xf8) | 3));
            } else {
              b.push_back(random_modrm(v, reg));
            }
            tail(v, b);
            check(stage, v, b, options, tally);
          }
}

void evex(Stage& stage, Values& v, const Options& options, Tally& tally, int rounds) {
  for (int round = 0; round < rounds; round++)
    for (unsigned map : {1u, 2u, 3u, 5u, 6u})
      for (unsigned pp = 0; pp < 4; pp++)
        for (unsigned w = 0; w < 2; w++)
          for (unsigned opcode = 0; opcode < 256; opcode++) {
            const u64 r = v.bits();
            const unsigned vvvv = r & 1 ? 31 : r >> 1 & 31;
            std::vector<u8> b{0x62, static_cast<u8>((r >> 8 & 0xD0) | 0x20 | map),
                              static_cast<u8>(w << 7 | (vvvv & 15) << 3 | 4 | pp),
                              static_cast<u8>((r >> 16 & 3 ? 0 : 0x80) | (r >> 18 & 3) << 5 | (r >> 20 & 3 ? 0 : 0x10) |
                                              (vvvv & 16) >> 1 | (r >> 24 & 3 ? r >> 26 & 7 : 0)),
                              static_cast<u8>(opcode)};
            const unsigned reg = r >> 32 & 7;
            const bool vsib = map == 2 && ((opcode >= 0x90 && opcode < 0x94) || (opcode >= 0xA0 && opcode < 0xA4));
            if ((r >> 36 & 7) == 0 || vsib) {
              b.push_back(static_cast<u8>(0x44 | reg << 3));
              b.push_back(static_cast<u8>((r >> 40 & 0xf8) | 3));
            } else {
              b.push_back(random_modrm(v, reg));
            }
            tail(v, b);
            check(stage, v, b, options, tally);
          }
}

TEST(VectorUnit, LegacySseMatchesTheHost) {
  Stage stage;
  Values v{seed(1)};
  Tally t;
  legacy(stage, v, {}, t, 12);
  EXPECT_GT(t.mnemonics.size(), 260u);
  RecordProperty("instructions", static_cast<int>(t.ran));
}

TEST(VectorUnit, X87MatchesTheHost) {
  Stage stage;
  Values v{seed(2)};
  Tally t;
  x87(stage, v, {}, t, 30);
  EXPECT_GT(t.mnemonics.size(), 75u);
}

TEST(VectorUnit, X87UnmaskedExceptionsMatchTheHost) {
  Stage stage;
  Values v{seed(3)};
  Tally t;
  Options o;
  o.x87_exceptions = true;
  x87(stage, v, o, t, 30);
  EXPECT_GT(t.ran, 5000u);
}

TEST(VectorUnit, VexMatchesTheHost) {
  if (!vector::host_has_avx()) GTEST_SKIP() << "no AVX on this host";
  Stage stage;
  Values v{seed(4)};
  Tally t;
  vex(stage, v, {}, t, 8);
  EXPECT_GT(t.mnemonics.size(), 300u);
}

TEST(VectorUnit, EvexMatchesTheHost) {
  if (!vector::host_has_avx512()) GTEST_SKIP() << "no AVX-512 on this host";
  Stage stage;
  Values v{seed(5)};
  Tally t;
  evex(stage, v, {}, t, 40);
  EXPECT_GT(t.mnemonics.size(), 400u);
}

TEST(VectorUnit, UnmaskedSseExceptionsMatchTheHost) {
  Stage stage;
  Values v{seed(6)};
  Tally t;
  for (u32 unmasked : {0x80u, 0x100u, 0x200u, 0x400u, 0x800u, 0x1000u, 0x1f80u}) {
    Options o;
    o.unmasked_mxcsr = unmasked;
    legacy(stage, v, o, t, 1);
    if (vector::host_has_avx512()) evex(stage, v, o, t, 1);
  }
  EXPECT_GT(t.ran, 4000u);
}

// Register forms without REX, R, X, B or high registers mean the same in 32-bit code: the judge runs them in 64-bit
// mode.
TEST(VectorUnit, ThirtyTwoBitCodeMatchesTheHost) {
  Stage stage;
  stage.vm.seg(isa::Seg::cs) = cpu::test::BareVm::flat(0xc09b);
  cpu::update_mode(stage.vm.cpu);
  ASSERT_EQ(stage.vm.cpu.mode, cpu::Mode::compat32);
  Values v{seed(7)};
  Tally t;
  const auto finish = [&](std::vector<u8> b) {
    b.push_back(static_cast<u8>(0xC0 | v.below(64)));
    b.push_back(static_cast<u8>(v.bits() & 0x7f));  // bit 7 of a register in the immediate is ignored here, not there
    check(stage, v, b, {}, t);
  };
  for (int round = 0; round < 3; round++)
    for (unsigned map = 1; map < 4; map++)
      for (unsigned pp = 0; pp < 4; pp++)
        for (unsigned opcode = 0x10; opcode < 256; opcode++) {
          if (map == 1 && (opcode == 0x38 || opcode == 0x3A || opcode == 0x30 || opcode == 0x31 || opcode == 0x34 ||
                           opcode == 0x35))
            continue;
          std::vector<u8> legacy_bytes;
          if (pp) legacy_bytes.push_back(pp == 1 ? 0x66 : pp == 2 ? 0xF3 : 0xF2);
          legacy_bytes.push_back(0x0F);
          if (map > 1) legacy_bytes.push_back(map == 2 ? 0x38 : 0x3A);
          legacy_bytes.push_back(static_cast<u8>(opcode));
          finish(legacy_bytes);
          if (!vector::host_has_avx512()) continue;
          const u64 r = v.bits();
          finish({0xC4, static_cast<u8>(0xE0 | map), static_cast<u8>(0x40 | (r & 7) << 3 | (r >> 3 & 1) << 2 | pp),
                  static_cast<u8>(opcode)});
          finish({0x62, static_cast<u8>(0xF0 | map), static_cast<u8>(0x44 | (r >> 4 & 0x80) | (r & 7) << 3 | pp),
                  static_cast<u8>(8 | (r >> 5 & 3) << 5 | (r >> 8 & 7)), static_cast<u8>(opcode)});
        }
  EXPECT_GT(t.mnemonics.size(), 250u);
}

struct Single {
  Stage stage;
  isa::Insn insn;
  VectorOp op;
  cpu::Vcpu& cpu = stage.vm.cpu;
  Prepared prepare(std::vector<u8> bytes) {
    EXPECT_EQ(isa::decode(bytes.data(), bytes.size(), cpu.code_size(), cpu.vendor(), insn), isa::DecodeStatus::ok);
    return stage.unit.prepare(cpu, insn, op);
  }
  Outcome run(std::vector<u8> bytes) {
    EXPECT_EQ(prepare(std::move(bytes)), Prepared::yes);
    return VectorUnit::execute(cpu, insn, op);
  }
};

TEST(VectorUnit, StackPointerAndRipAsOperands) {
  Single s;
  s.cpu.gpr[isa::rsp] = 0x1122334455667788;
  ASSERT_EQ(s.run({0x66, 0x48, 0x0F, 0x6E, 0xC4}), Outcome::next);  // movq xmm0, rsp
  EXPECT_EQ(std::memcmp(s.cpu.vec.zmm[0], &s.cpu.gpr[isa::rsp], 8), 0);
  ASSERT_EQ(s.run({0x66, 0x0F, 0x7E, 0xC4}), Outcome::next);  // movd esp, xmm0
  EXPECT_EQ(s.cpu.gpr[isa::rsp], 0x55667788u);
  std::memset(s.stage.data, 0x42, 64);
  s.cpu.rip = reinterpret_cast<u64>(s.stage.data) - 0x17;
  ASSERT_EQ(s.run({0x0F, 0x10, 0x0D, 0x10, 0, 0, 0}), Outcome::next);  // movups xmm1, [rip + 0x10]
  EXPECT_EQ(s.cpu.vec.zmm[1][15], 0x42);
}

TEST(VectorUnit, WIsIgnoredForGeneralRegistersOutsideLongMode) {
  if (!vector::host_has_avx()) GTEST_SKIP() << "no AVX on this host";
  Single s;
  s.stage.vm.seg(isa::Seg::cs) = cpu::test::BareVm::flat(0xc09b);
  cpu::update_mode(s.cpu);
  s.cpu.gpr[isa::rcx] = 0x1122334455667788;
  ASSERT_EQ(s.run({0xC4, 0xE1, 0xF9, 0x6E, 0xC1}), Outcome::next);  // vmovd xmm0, ecx with W = 1
  u64 low;
  std::memcpy(&low, s.cpu.vec.zmm[0], 8);
  EXPECT_EQ(low, 0x55667788u);
}

TEST(VectorUnit, HiddenFeaturesAreUndefined) {
  Single s;
  auto policy = cpu::Cpuid::make({.tsc_khz = 1'000'000, .features = "-sse4_1"});
  ASSERT_TRUE(policy) << policy.error();
  s.cpu.cpuid = &*policy;
  EXPECT_EQ(s.prepare({0x66, 0x0F, 0x38, 0x40, 0xC1}), Prepared::undefined);  // pmulld
  EXPECT_EQ(s.prepare({0x66, 0x0F, 0xFE, 0xC1}), Prepared::yes);              // paddd
  s.cpu.cpuid = nullptr;
}

TEST(VectorUnit, EqualInstructionsShareAThunk) {
  Single s;
  ASSERT_EQ(s.prepare({0x0F, 0x10, 0x0B}), Prepared::yes);  // movups xmm1, [rbx]
  const u8* first = s.op.thunk;
  const u64 used = s.stage.arena.used();
  ASSERT_EQ(s.prepare({0x64, 0x0F, 0x10, 0x4C, 0x91, 0x40}), Prepared::yes);  // movups xmm1, fs:[rcx + rdx*4 + 0x40]
  EXPECT_EQ(s.op.thunk, first);
  EXPECT_EQ(s.stage.arena.used(), used);
}

TEST(VectorUnit, AFullArenaIsReportedAndRecovers) {
  CodeArena arena{kPageSize};
  VectorUnit unit{arena};
  cpu::test::BareVm vm;
  vm.enter_long64();
  Prepared p = Prepared::yes;
  VectorOp op;
  isa::Insn insn;
  for (unsigned i = 0; i < 512 && p == Prepared::yes; i++) {
    const u8 bytes[] = {static_cast<u8>(0x40 | (i >> 6 & 5)), 0x0F, 0x58, static_cast<u8>(0xC0 | (i & 63))};
    ASSERT_EQ(isa::decode(bytes, sizeof bytes, isa::CodeSize::bits64, isa::host_vendor(), insn), isa::DecodeStatus::ok);
    p = unit.prepare(vm.cpu, insn, op);
  }
  ASSERT_EQ(p, Prepared::arena_full);
  unit.forget_all();
  arena.reset();
  EXPECT_EQ(unit.prepare(vm.cpu, insn, op), Prepared::yes);
}

// AMD's processors save them only with an unmasked exception pending.
TEST(VectorUnit, X87PointersAreTheGuests) {
  for (const isa::Vendor vendor : trapline::test::kVendors) {
    const cpu::Cpuid policy = trapline::test::policy_of(vendor);
    Single s;
    s.cpu.cpuid = &policy;
    cpu::x87_initialize(s.cpu, true);
    s.cpu.rip = 0xffffffff81000000;
    s.cpu.gpr[isa::rbx] = reinterpret_cast<u64>(s.stage.data);
    const auto saved_fip = [&] {
      u8 image[cpu::kX87ImageBytes];
      cpu::x87_store_image(s.cpu, image, true);
      u64 fip;
      std::memcpy(&fip, image + 8, 8);
      return fip;
    };
    ASSERT_EQ(s.run({0xDD, 0x03}), Outcome::next);  // fld qword [rbx]
    EXPECT_EQ(s.cpu.x87.fip, 0xffffffff81000000);
    EXPECT_EQ(saved_fip(), vendor == isa::Vendor::intel ? 0xffffffff81000000 : 0);
    cpu::x87_park(s.cpu);
    s.cpu.x87.image[0] &= ~u8{1};  // an invalid operation, unmasked
    s.cpu.x87.image[2] |= 0x81;    // and pending
    EXPECT_EQ(saved_fip(), 0xffffffff81000000);
  }
}

}  // namespace
}  // namespace trapline::engine::test
