// Vector instructions by name are what a decoder reads, in the shortest form that reaches their registers.
#include "engine/emit/vector_forms.h"

#include <gtest/gtest.h>

#include "unit/engine/emitted.h"

namespace trapline::engine::emit {
namespace {

struct VectorFormsTest : EmittedTest {};

TEST_F(VectorFormsTest, MovesReachEveryRegisterAtEveryWidth) {
  movups(e, 3, at(rax)), movups(e, at(r9), 12);
  vmovups(e, Width::xmm, 3, at(rax)), vmovups(e, Width::ymm, at(r9), 12);
  vmovups(e, Width::zmm, 3, at(rdi, 0x40)), vmovups(e, Width::zmm, at(rdi, 0x1000), 9);
  vmovups(e, Width::xmm, 17, at(rax)), vmovups(e, Width::ymm, at(r9, rcx, 3), 31);
  vmovq(e, 5, at(rax)), vmovq(e, 24, at(rax));
  EXPECT_EQ(listing(),
            "movups xmm3, [rax]\nmovups [r9], xmm12\nvmovups xmm3, [rax]\nvmovups [r9], ymm12\n"
            "vmovups zmm3, zmmword ptr [rdi+0x40]\nvmovups zmmword ptr [rdi+0x1000], zmm9\n"
            "vmovups xmm17, xmmword ptr [rax]\nvmovups ymmword ptr [r9+rcx*8], ymm31\n"
            "vmovq xmm5, qword ptr [rax]\nvmovq xmm24, qword ptr [rax]\n");
}

TEST_F(VectorFormsTest, ComputationIsWhatItsNameSays) {
  vxorps(e, 1, 2, 3), vxorps(e, 9, 9, 9), vorps(e, 1, 0, 8), vorps(e, Width::ymm, 0, 10, at(rsi));
  vpunpckhqdq(e, 1, 0, 0), vextractf128(e, 1, 0, 1), vmovq_to_gpr(e, rcx, 0), vmovq_to_gpr(e, r9, 12);
  vmovmsk(e, Width::xmm, false, r11, 2), vmovmsk(e, Width::ymm, true, r11, 13), vzeroupper(e);
  EXPECT_EQ(listing(),
            "vxorps xmm1, xmm2, xmm3\nvxorps xmm9, xmm9, xmm9\nvorps xmm1, xmm0, xmm8\nvorps ymm0, ymm10, [rsi]\n"
            "vpunpckhqdq xmm1, xmm0, xmm0\nvextractf128 xmm1, ymm0, 0x01\nvmovq rcx, xmm0\nvmovq r9, xmm12\n"
            "vmovmskps r11d, xmm2\nvmovmskpd r11d, ymm13\nvzeroupper\n");
}

TEST_F(VectorFormsTest, OpmasksMoveInBothWidths) {
  kmovq(e, 7, at(rdi)), kmovq(e, at(r9), 1), kmovw(e, 7, at(rdi)), kmovw(e, at(r9), 1);
  kmovw_to_gpr(e, r11, 3), kxorw(e, 5, 5, 5);
  EXPECT_EQ(listing(),
            "kmovq k7, [rdi]\nkmovq [r9], k1\nkmovw k7, word ptr [rdi]\nkmovw word ptr [r9], k1\nkmovw r11d, k3\nkxorw "
            "k5, k5, k5\n");
}

TEST_F(VectorFormsTest, TheShortFormIsTakenWhereThereIsOne) {
  vxorps(e, 9, 0, 0);  // R is in both forms
  EXPECT_EQ(e.size(), 4u);
  vxorps(e, 0, 0, 9);  // B is not
  EXPECT_EQ(e.size(), 4u + 5);
}

}  // namespace
}  // namespace trapline::engine::emit
