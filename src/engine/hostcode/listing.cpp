#include "engine/hostcode/listing.h"

#include <Zydis/Zydis.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <iterator>
#include <map>

#include "engine/emit/rebuild.h"

namespace trapline::engine::hostcode {

namespace {

constexpr const char* kGpr[17] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8",
                                  "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "zero"};
constexpr const char* kSegment[6] = {"es", "cs", "ss", "ds", "fs", "gs"};

const char* name_of(ExitStub::Kind kind) {
  switch (kind) {
    case ExitStub::Kind::miss:
      return "miss";
    case ExitStub::Kind::x87:
      return "x87";
    case ExitStub::Kind::semantic:
      return "semantic";
    case ExitStub::Kind::vector:
      return "vector";
    case ExitStub::Kind::step:
      return "step";
    case ExitStub::Kind::pause:
      return "pause";
    case ExitStub::Kind::link:
      return "link";
    case ExitStub::Kind::indirect:
      return "indirect";
    case ExitStub::Kind::limit:
      return "limit";
    case ExitStub::Kind::poll:
      return "poll";
    case ExitStub::Kind::stale:
      return "stale";
    case ExitStub::Kind::trap:
      return "trap";
  }
  return "?";
}

// What stands at a host address that this block's code names.
class Names {
 public:
  Names(const Listed& in, const Block& block) : in_{in}, block_{block} {
    u64 number = 0;
    for (std::size_t i = in.first_site; i < in.sites.size(); i++)
      if (in.sites[i].block == &block) sites_[address(in.sites[i])] = {&in.sites[i], number++};
    add("cpu.rip", in.cpu.rip), add("cpu.arith", in.cpu.arith), add("cpu.sys_flags", in.cpu.sys_flags);
    add("cpu.interrupt_waiting", in.cpu.interrupt_waiting), add("cpu.kernel_gs_base", in.cpu.msr.kernel_gs_base);
    add("cpu.x87.live", in.cpu.x87.live), add("cpu.x87.fip", in.cpu.x87.fip), add("cpu.x87.fcs", in.cpu.x87.fcs);
    add("cpu.x87.fdp", in.cpu.x87.fdp), add("cpu.x87.fds", in.cpu.x87.fds), add("cpu.x87.fop", in.cpu.x87.fop);
    for (unsigned i = 0; i < 17; i++) add(fmt::format("cpu.{}", kGpr[i]), in.cpu.gpr[i]);
    for (unsigned i = 0; i < 6; i++) {
      add(fmt::format("cpu.{}.base", kSegment[i]), in.cpu.seg[i].base);
      add(fmt::format("cpu.{}.linear_base", kSegment[i]), in.cpu.seg[i].linear_base);
      add(fmt::format("cpu.{}.selector", kSegment[i]), in.cpu.seg[i].selector);
    }
    add("state.left", in.state.left), add("state.vec_live", in.state.vec_live), add("state.tmp", in.state.tmp);
    add("state.page_bits", in.state.page_bits), add("state.jump_bits", in.state.jump_bits);
    add("state.tables", in.state.tables), add("state.write_table", in.state.write_table);
    add("state.last_page", in.state.last_page);
    names_[address(*in.cpu.attention)] = "attention";
    for (const ThunkName& t : in.thunks) names_[t.address] = t.name;
  }

  // Empty: a number like any other.
  std::string at(u64 value) const {
    if (value >= block_.cold && value < block_.cold_end) return fmt::format("cold+{:#x}", value - block_.cold);
    if (value >= block_.entry && value < block_.end) return fmt::format("+{:#x}", value - block_.entry);
    if (const auto known = names_.find(value); known != names_.end()) return known->second;
    if (const auto site = sites_.find(value); site != sites_.end())
      return fmt::format("site {} ({})", site->second.number, name_of(site->second.site->kind));
    const u64 in_cpu = value - reinterpret_cast<u64>(&in_.cpu);
    if (in_cpu < sizeof(cpu::Vcpu)) return fmt::format("cpu+{:#x}", in_cpu);
    const u64 in_state = value - reinterpret_cast<u64>(&in_.state);
    if (in_state < sizeof(State)) return fmt::format("state+{:#x}", in_state);
    return {};
  }

 private:
  struct Numbered {
    const ExitStub* site;
    u64 number;
  };
  template <class T>
  static u64 address(const T& t) {
    return reinterpret_cast<u64>(&t);
  }
  template <class T>
  void add(std::string_view name, const T& field) {
    names_[address(field)] = name;
  }
  const Listed& in_;
  const Block& block_;
  std::map<u64, std::string> names_;
  std::map<u64, Numbered> sites_;
};

// Numbers that are addresses of ours, by name.
std::string named(std::string_view text, const Names& names) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    u64 value = 0;
    const char* end = text.data() + text.size();
    if (text.substr(i, 2) == "0x") {
      const auto [after, error] = std::from_chars(text.data() + i + 2, end, value, 16);
      const std::string name = error == std::errc{} ? names.at(value) : std::string{};
      if (error == std::errc{} && !name.empty()) {
        out += name;
        i = static_cast<std::size_t>(after - text.data());
        continue;
      }
    }
    out.push_back(text[i++]);
  }
  return out;
}

void host_lines(const Names& names, const Block& block, u64 from, u64 to, std::string& out) {
  static const ZydisFormatter formatter = [] {
    ZydisFormatter f;
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    return f;
  }();
  while (from < to) {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    char text[192] = "(no instruction)";
    u64 length = 1;
    if (ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(&decoder_for(8), reinterpret_cast<const void*>(from), to - from, &insn, op))) {
      ZydisFormatterFormatInstruction(&formatter, &insn, op, insn.operand_count_visible, text, sizeof text, from,
                                      nullptr);
      length = insn.length;
    }
    fmt::format_to(std::back_inserter(out), "      {:>8}  {}\n",
                   from >= block.cold && from < block.cold_end ? fmt::format("c+{:#x}", from - block.cold)
                                                               : fmt::format("+{:#x}", from - block.entry),
                   named(text, names));
    from += length;
  }
}

void guest_line(const Listed& in, const Block& block, u16 at, std::string& out) {
  isa::Insn insn;
  char text[160] = "(no instruction)";
  const auto size = (block.key.mode & 3) == 2   ? isa::CodeSize::bits64
                    : (block.key.mode & 3) == 1 ? isa::CodeSize::bits32
                                                : isa::CodeSize::bits16;
  if (at < block.code.size() &&
      isa::decode(block.code.data() + at, block.code.size() - at, size, in.cpu.vendor(), insn) == isa::DecodeStatus::ok)
    isa::format(insn, block.key.linear.raw + at, text, sizeof text);
  fmt::format_to(std::back_inserter(out), "  {:016x}  {}\n", block.key.linear.raw + at, text);
}

}  // namespace

std::string list(const Listed& in, const Block& block, bool guest, bool host) {
  const Names names{in, block};
  std::string out;
  const auto part = [&](u64 from, u64 to) {
    if (host) host_lines(names, block, from, to, out);
  };
  if (host && !block.insns.empty() && block.insns[0].host != 0) {
    out += "  head\n";
    part(block.entry, block.entry + block.insns[0].host);
  }
  for (std::size_t i = 0; i < block.insns.size(); i++) {
    const bool last = i + 1 == block.insns.size();
    if (guest) guest_line(in, block, block.insns[i].guest, out);
    part(block.entry + block.insns[i].host, last ? block.end : block.entry + block.insns[i + 1].host);
  }
  if (host) out += "  calls\n";
  part(block.cold, block.cold_end);
  return out;
}

}  // namespace trapline::engine::hostcode
