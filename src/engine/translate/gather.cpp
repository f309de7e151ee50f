#include "engine/translate/gather.h"

#include <cstddef>
#include <vector>

#include "engine/hostcode/exit_stub.h"
#include "engine/translate/thunk_parts.h"

namespace trapline::engine::translate {

using namespace hostcode;

namespace {

// RAX: the address behind the first page's last 'bytes'. RCX: what to add to the address. RDX: -(address | FFF) - 1.
void note_scatter(Emitter& e, State& state, u8 bytes) {
  e.lea(rdx, at(rdx, r10, 0));  // - bytes in the first page
  e.lea(rax, at(rax, rdx, 0, bytes));
  e.store(var(&state.scatter_to[0]), rax);
  e.lea(rax, at(rcx, r10, 0));
  e.store(var(&state.scatter_from), rax);
  e.movzx8(rax, at(r11, offsetof(ExitStub, size)));
  e.lea(rax, at(rax, rdx, 0));
  e.store(var(&state.scatter_bytes[1]), rax);
  e.neg(rdx);
  e.store(var(&state.scatter_bytes[0]), rdx);
}

}  // namespace

// Up to `bytes` at RCX over the end of a page: a copy of both sides, which is as much aligned.
void emit_gather(Emitter& e, State& state, const HostWays& ways, u8 bytes, bool store, u64 call) {
  ThunkParts parts{e, state};
  const auto slow_if = [&](Condition c) { parts.slow_if(c); };
  parts.save();
  e.store(var(&state.t0), r10);
  e.mov(r10, rcx);
  // Does it cross, and are both ends canonical?
  e.movzx8(rcx, at(r11, offsetof(ExitStub, size)));
  e.lea(rdx, at(r10, rcx, 0, -1));
  for (const u8 end : {r10, rdx}) {
    e.mov(rax, end);
    e.shl(rax, 16);
    e.sar(rax, 16);
    e.cmp(rax, end);
    slow_if(Condition::not_zero);
  }
  e.exclusive_or(rdx, r10);
  e.shr(rdx, 12);
  slow_if(Condition::zero);
  // At the end of 4 GiB 32-bit addresses begin anew, at that of all others too.
  e.cmp_imm32(rdx, 0xfffff);
  slow_if(Condition::above);
  e.shl(rax, 16);  // it has the last byte's address, whose page's number is one more
  e.shr(rax, 28);
  e.shl(rax, 4);
  // The write table's place is counted from that of the tables where GS has that.
  if (!store || ways.gs_base) e.add(rax, var(&state.tables));
  if (store) e.add(rax, var(&state.write_table));
  e.load(rcx, at(rax));
  e.load(rax, at(rax, -16));
  for (const u8 addend : {rax, rcx}) {
    e.test(addend, addend);
    slow_if(Condition::zero);
  }
  e.mov(rdx, r10);
  e.or_imm32(rdx, kPageSize - 1);
  e.lea(rax, at(rdx, rax, 0, 1 - bytes));
  e.lea(rcx, at(rdx, rcx, 0, 1));
  if (store) e.store(var(&state.scatter_to[1]), rcx);
  u8* const middle = &state.gathered[sizeof state.gathered / 2];
  for (i32 i = 0; i < bytes; i += 8) {
    e.load(rdx, at(rax, i));
    e.store(var(middle - bytes + i), rdx);
    e.load(rdx, at(rcx, i));
    e.store(var(middle + i), rdx);
  }
  // The end of the page is in the middle: RCX = middle - (R10 | FFF) - 1.
  e.mov(rdx, r10);
  e.or_imm32(rdx, kPageSize - 1);
  e.complement(rdx);
  e.lea(rcx, var(middle));
  e.lea(rcx, at(rcx, rdx, 0));
  if (store) note_scatter(e, state, bytes);
  const auto restore = [&] {
    parts.restore();
    e.load(r10, var(&state.t0));
  };
  restore();
  e.jmp_mem(at(r11, offsetof(ExitStub, hit)));
  parts.bind_slow();
  restore();
  e.jmp(call);
}

namespace {

// 1 to 15 bytes from RSI to RDI, by two moves of the largest size that fits: they may overlap. Leaves the flags alone.
void copy_few(Emitter& e, const u64& bytes) {
  std::vector<Emitter::Near> done;
  for (const unsigned bits : {3u, 2u, 1u}) {
    const i32 size = 1 << bits;
    e.mov_imm(rcx, bits);
    e.shrx(rcx, var(&bytes), rcx);
    const auto smaller = e.jrcxz();
    e.load(rcx, var(&bytes));
    e.load_sized(static_cast<unsigned>(size), r10, at(rsi));
    e.store_sized(static_cast<unsigned>(size), at(rdi), r10);
    e.load_sized(static_cast<unsigned>(size), r10, at(rsi, rcx, 0, -size));
    e.store_sized(static_cast<unsigned>(size), at(rdi, rcx, 0, -size), r10);
    done.push_back(e.jmp_near());
    e.bind(smaller);
  }
  e.load_sized(1, r10, at(rsi));
  e.store_sized(1, at(rdi), r10);
  for (const auto jump : done) e.bind(jump);
}

}  // namespace

// The flags are the instruction's, and R10, R11 and RCX of no more use to it.
void emit_scatter(Emitter& e, State& state, bool many) {
  e.store(var(&state.saved_rax), rsi);
  e.store(var(&state.saved_rdx), rdi);
  e.load(rsi, var(&state.scatter_from));
  for (const unsigned page : {0u, 1u}) {
    e.load(rdi, var(&state.scatter_to[page]));
    if (many) {
      e.load(rcx, var(&state.scatter_bytes[page]));
      e.rep(StringInsn::movs, 1);
      continue;
    }
    copy_few(e, state.scatter_bytes[page]);
    if (page != 0) break;
    e.load(rcx, var(&state.scatter_bytes[page]));
    e.lea(rsi, at(rsi, rcx, 0));
  }
  e.load(rsi, var(&state.saved_rax));
  e.load(rdi, var(&state.saved_rdx));
  e.jmp_reg(r11);
}

}  // namespace trapline::engine::translate
