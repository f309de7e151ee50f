#include "xen_fixture.h"

namespace trapline::para::xen {
namespace {

using Memory = XenTest;

TEST_F(Memory, APageTableIsNeverWritable) {
  EXPECT_EQ(update(at(kL1) + kScratch * 8, at(kL1) | kBits), fail(XEN_EINVAL));
  EXPECT_EQ(update(at(kL1) + kScratch * 8, at(kL4) | kBits), fail(XEN_EINVAL));
  EXPECT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(kL1), at(kL1) | kBits, 0}), fail(XEN_EINVAL));
  EXPECT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(40), at(kL2) | (kBits & ~pte::writable), 0}), 0)
      << "reading is no harm";
  EXPECT_EQ(entry(kL1, 40), at(kL2) | (kBits & ~pte::writable));
}

TEST_F(Memory, AWritablePageIsNoPageTable) {
  EXPECT_EQ(extended(MMUEXT_PIN_L1_TABLE, mfn(40)), fail(XEN_EINVAL)) << "mapped writable";
  EXPECT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(40), at(40) | (kBits & ~pte::writable), 0}), 0);
  EXPECT_EQ(extended(MMUEXT_PIN_L1_TABLE, mfn(40)), 0);
  EXPECT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(40), at(40) | kBits, 0}), fail(XEN_EINVAL));
  EXPECT_EQ(extended(MMUEXT_PIN_L1_TABLE, mfn(40)), fail(XEN_EINVAL)) << "twice";
  EXPECT_EQ(extended(MMUEXT_UNPIN_TABLE, mfn(40)), 0);
  EXPECT_EQ(extended(MMUEXT_UNPIN_TABLE, mfn(40)), fail(XEN_EINVAL));
  EXPECT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(40), at(40) | kBits, 0}), 0);
}

// The TLB had the page writable, and nobody flushed.
TEST_F(Memory, ATranslationDoesNotOutliveTheRightToWrite) {
  ASSERT_TRUE(stores(linear(40) + 8, 7));
  ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(40), at(40) | (kBits & ~pte::writable), 0}), 0);
  std::memset(ram.host(Gpa{at(40)}), 0, kPageSize);
  ASSERT_EQ(extended(MMUEXT_PIN_L2_TABLE, mfn(40)), 0);
  EXPECT_FALSE(stores(linear(40) + 8, at(kL4) | kBits));
  EXPECT_EQ(entry(40, 1), 0u);
}

TEST_F(Memory, NothingButTheGuestsOwnCanBeMapped) {
  for (const u64 frame : {u64{0}, layout.m2p.raw, layout.m2p_l1.raw, layout.tables_l1.raw, layout.gdt.raw,
                          layout.frames(), pte::address >> 12}) {
    EXPECT_EQ(update(at(kL1) + 40 * 8, frame * kPageSize | kBits), fail(XEN_EINVAL)) << frame;
    EXPECT_EQ(update(at(kL1) + 40 * 8, frame * kPageSize | (kBits & ~pte::writable)), fail(XEN_EINVAL)) << frame;
    EXPECT_NE(extended(MMUEXT_PIN_L1_TABLE, frame), 0) << frame;
    EXPECT_NE(extended(MMUEXT_NEW_BASEPTR, frame), 0) << frame;
    EXPECT_NE(extended(MMUEXT_CLEAR_PAGE, frame), 0) << frame;
  }
  EXPECT_EQ(update(at(kL1) + 40 * 8, gpa(layout.shared_info).raw | kBits), 0);
  EXPECT_EQ(update(at(kL1) + 41 * 8, gpa(layout.grants).raw | kBits), 0);
  EXPECT_EQ(extended(MMUEXT_PIN_L1_TABLE, layout.shared_info.raw), fail(XEN_EINVAL));
}

TEST_F(Memory, TheHypervisorsSlotsAreItsOwn) {
  for (unsigned slot = kFirstHypervisorSlot; slot <= kLastHypervisorSlot; slot++) {
    const u64 before = entry(kL4, slot);
    EXPECT_EQ(update(at(kL4) + slot * 8, at(kL3) | kBits), fail(XEN_EINVAL)) << slot;
    EXPECT_EQ(update(at(kL4) + slot * 8, 0), fail(XEN_EINVAL)) << slot;
    EXPECT_EQ(entry(kL4, slot), before);
  }
  u64 value = 0;
  EXPECT_TRUE(cpu::read_slow(cpu, cpu::Seg::ds, kHypervisorStart.wrapping_add(mfn(40) * 8), &value, 8));
  EXPECT_EQ(value, 40u) << "machine to pseudo-physical";
  EXPECT_FALSE(stores(kHypervisorStart.raw + mfn(40) * 8, 0));
  EXPECT_FALSE(cpu::read_slow(cpu, cpu::Seg::ds, gdt_address(0), &value, 8)) << "descriptor tables";
}

TEST_F(Memory, NoPointerIntoTheHypervisorIsTaken) {
  for (const u64 pointer :
       {kHypervisorStart.raw, kTablesStart.raw, kHypervisorEnd.raw - 1, u64{1} << 47, ~u64{0} - 3}) {
    EXPECT_EQ(call(__HYPERVISOR_mmu_update, {pointer, 1, 0, DOMID_SELF}), fail(XEN_EFAULT)) << pointer;
    EXPECT_EQ(call(__HYPERVISOR_set_trap_table, {pointer}), fail(XEN_EFAULT)) << pointer;
    EXPECT_EQ(call(__HYPERVISOR_xen_version, {XENVER_extraversion, pointer}), fail(XEN_EFAULT)) << pointer;
    EXPECT_EQ(call(__HYPERVISOR_multicall, {pointer, 1}), fail(XEN_EFAULT)) << pointer;
  }
  EXPECT_EQ(call(__HYPERVISOR_xen_version, {XENVER_extraversion, linear(kL1)}), fail(XEN_EFAULT))
      << "an answer is no way into a page table";
  EXPECT_EQ(entry(kL1, 1) & pte::address, at(1));
}

TEST_F(Memory, UpperTablesMapNoPagesThemselves) {
  EXPECT_EQ(update(at(kL2) + 8, at(40) | kBits | pte::large), fail(XEN_EINVAL));
  EXPECT_EQ(update(at(kL3) + 8, at(kL2) | kBits | pte::global), fail(XEN_EINVAL));
  EXPECT_EQ(update(at(kL4) + 8, at(kL4) | kBits), fail(XEN_EINVAL)) << "no table is its own lower level";
  EXPECT_EQ(update(at(kL4) + 8, at(kL2) | kBits), fail(XEN_EINVAL)) << "a level is left out";
  EXPECT_EQ(update(at(kL4) + 8, at(kL3) | kBits), 0) << "a table may be used twice";
}

TEST_F(Memory, TheKernelsOwnStoreToATableIsChecked) {
  const u64 slot = linear(kL1) + 40 * 8;
  EXPECT_TRUE(stores(slot, 0)) << "as Linux clears entries";
  EXPECT_EQ(entry(kL1, 40), 0u);
  EXPECT_TRUE(stores(slot, at(41) | kBits));
  EXPECT_FALSE(stores(slot, at(kL1) | kBits));
  EXPECT_EQ(cpu.fault.vector, cpu::Vector::pf);
  EXPECT_EQ(cpu.fault.cr2, slot);
  EXPECT_EQ(entry(kL1, 40), at(41) | kBits);
  EXPECT_FALSE(stores(linear(kL2) + 8, 0)) << "of upper tables by hypercall alone";
  EXPECT_FALSE(stores(slot + 4, 0)) << "two entries at once";
  const u64 expected = at(41) | kBits, value = at(42) | kBits;
  bool stored = false;
  EXPECT_TRUE(cpu::replace_slow(cpu, cpu::Seg::ds, Gva{slot}, &expected, &value, 8, &stored));
  EXPECT_TRUE(stored);
  EXPECT_TRUE(cpu::replace_slow(cpu, cpu::Seg::ds, Gva{slot}, &expected, &value, 8, &stored));
  EXPECT_FALSE(stored) << "it is not what was expected any more";
}

TEST_F(Memory, ReferencesAreCountedOnceForEachEntry) {
  Frames& frames = domain.frames();
  const u32 before = frames[frame(40)].refs;
  for (int i = 0; i < 3; i++) {
    EXPECT_EQ(update(at(kL1) + 50 * 8, at(40) | kBits), 0);
    EXPECT_EQ(frames[frame(40)].refs, before + 1);
    EXPECT_EQ(update(at(kL1) + 50 * 8, at(40) | (kBits & ~pte::writable)), 0);
    EXPECT_EQ(frames[frame(40)].refs, before + 1);
    EXPECT_EQ(frames[frame(40)].types, 1u);
    EXPECT_EQ(update(at(kL1) + 50 * 8, at(50) | kBits), 0);
    EXPECT_EQ(frames[frame(40)].refs, before);
  }
}

// A new level-4 table flushes all. The upper half, which all of a kernel's tables share, is kept but for the pages of it
// that have changed, however the change was made.
TEST_F(Memory, TheUpperHalfIsFlushedOnceItHasChanged) {
  constexpr u64 kUpper = 0xffff960000000000, kReadOnly = kBits & ~pte::writable;
  constexpr unsigned kSlot = 300;
  constexpr u64 kOtherL4 = 63;
  for (u64 pfn = 60; pfn <= 64; pfn++)
    ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(pfn), at(pfn) | kReadOnly, 0}), 0);
  entry(60, 0) = at(61) | kBits, entry(61, 0) = at(62) | kBits, entry(62, 0) = at(40) | kReadOnly;
  entry(62, 1) = at(43) | kReadOnly;
  entry(kOtherL4, 0) = at(kL3) | kBits, entry(kOtherL4, kSlot) = at(60) | kBits;
  ASSERT_EQ(update(at(kL4) + kSlot * 8, at(60) | kBits), 0);
  ASSERT_EQ(extended(MMUEXT_PIN_L4_TABLE, mfn(kOtherL4)), 0);
  for (u64 pfn = 40; pfn <= 42; pfn++) std::memcpy(ram.host(Gpa{at(pfn)}), &pfn, sizeof pfn);
  u64 walks = 0;
  const auto read_at = [&](u64 at) {
    u64 value = 0;
    const u64 before = cpu.count.page_walks;
    EXPECT_TRUE(cpu::read_slow(cpu, cpu::Seg::ds, Gva{at}, &value, sizeof value));
    walks = cpu.count.page_walks - before;
    return value;
  };
  const auto read = [&] { return read_at(kUpper); };
  const auto switch_to = [&](u64 root) { ASSERT_EQ(extended(MMUEXT_NEW_BASEPTR, mfn(root)), 0); };
  switch_to(kL4);
  EXPECT_EQ(read(), 40u);
  switch_to(kOtherL4);
  EXPECT_EQ(read(), 40u);
  EXPECT_EQ(walks, 0u) << "nothing has changed";
  static_cast<void>(read_at(kUpper + kPageSize));
  ASSERT_EQ(update(at(62), at(41) | kReadOnly), 0);
  switch_to(kL4);
  EXPECT_EQ(read(), 41u) << "a level-1 entry has";
  static_cast<void>(read_at(kUpper + kPageSize));
  EXPECT_EQ(walks, 0u) << "and no other";
  ASSERT_EQ(extended(MMUEXT_NEW_USER_BASEPTR, mfn(kOtherL4)), 0);
  static_cast<void>(read_at(kUpper + kPageSize));
  EXPECT_GT(walks, 0u) << "the first that programs have: what they see of it is not known yet";
  for (const u64 root : {u64{0}, u64{mfn(kOtherL4)}}) ASSERT_EQ(extended(MMUEXT_NEW_USER_BASEPTR, root), 0);
  static_cast<void>(read_at(kUpper + kPageSize));
  EXPECT_EQ(walks, 0u) << "without one, and with one that is the same";
  // More than are remembered one by one.
  for (unsigned i = 0; i < 200; i++) ASSERT_EQ(update(at(62), at(40 + i % 2) | kReadOnly), 0);
  ASSERT_EQ(extended(MMUEXT_TLB_FLUSH_LOCAL, 0), 0);
  static_cast<void>(read_at(kUpper + kPageSize));
  EXPECT_GT(walks, 0u);
  EXPECT_EQ(read(), 41u);
  ASSERT_EQ(extended(MMUEXT_NEW_USER_BASEPTR, 0), 0);
  ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {kUpper, at(42) | kReadOnly, 0}), 0);
  switch_to(kOtherL4);
  EXPECT_EQ(read(), 42u) << "by its address";
  ASSERT_EQ(update(at(kOtherL4) + kSlot * 8, 0), 0);
  ASSERT_EQ(extended(MMUEXT_TLB_FLUSH_LOCAL, 0), 0);
  u64 value;
  EXPECT_FALSE(cpu::read_slow(cpu, cpu::Seg::ds, Gva{kUpper}, &value, sizeof value))
      << "this address space has it no more";
  switch_to(kL4);
  EXPECT_EQ(read(), 42u) << "the other has it still";
  switch_to(kOtherL4);
  EXPECT_FALSE(cpu::read_slow(cpu, cpu::Seg::ds, Gva{kUpper}, &value, sizeof value)) << "their upper halves differ";
}

TEST_F(Memory, AccessedAndDirtyBitsCanBeKept) {
  entry(kL1, 40) = at(40) | kBits;
  EXPECT_EQ(update(at(kL1) + 40 * 8, at(40) | pte::present | pte::user, MMU_PT_UPDATE_PRESERVE_AD), 0);
  EXPECT_EQ(entry(kL1, 40), at(40) | pte::present | pte::user | pte::accessed | pte::dirty);
  EXPECT_EQ(update(at(kL1) + 40 * 8, at(40) | pte::present), 0);
  EXPECT_EQ(entry(kL1, 40), at(40) | pte::present | pte::user) << "every entry is the user's, as CPL 3 needs it";
}

TEST_F(Memory, TheBalloonTakesWhatNothingMaps) {
  const u64 list = given(u64{mfn(40)}, 64);
  xen_memory_reservation_t r{};
  std::memcpy(&r.extent_start, &list, 8);
  r.nr_extents = 1;
  r.domid = DOMID_SELF;
  EXPECT_EQ(call(__HYPERVISOR_memory_op, {XENMEM_decrease_reservation, given(r)}), 0) << "still mapped";
  EXPECT_EQ(update(at(kL1) + 40 * 8, 0), 0);
  EXPECT_EQ(call(__HYPERVISOR_memory_op, {XENMEM_decrease_reservation, given(r)}), 1);
  EXPECT_EQ(update(at(kL1) + 40 * 8, at(40) | kBits), fail(XEN_EINVAL)) << "it is gone";
  EXPECT_EQ(call(__HYPERVISOR_memory_op, {XENMEM_current_reservation, given(domid_t{DOMID_SELF})}),
            static_cast<Status>(layout.pages() - 1));
  given(u64{40}, 64);
  EXPECT_EQ(call(__HYPERVISOR_memory_op, {XENMEM_populate_physmap, given(r)}), 1);
  EXPECT_EQ(answered<u64>(64), mfn(40));
  EXPECT_EQ(update(at(kL1) + 40 * 8, at(40) | kBits), 0);
  EXPECT_EQ(call(__HYPERVISOR_memory_op, {XENMEM_populate_physmap, given(r)}), 0) << "there is no more";
}

TEST_F(Memory, DescriptorsLeadNowhereButToRing3) {
  const auto set = [&](u64 descriptor) {
    std::memcpy(ram.host(Gpa{at(40) + 8}), &descriptor, 8);
    return call(__HYPERVISOR_set_gdt, {given(u64{mfn(40)}), 512});
  };
  EXPECT_EQ(set(0x00affb000000ffff), fail(XEN_EINVAL)) << "mapped writable";
  ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(40), at(40) | (kBits & ~pte::writable), 0}), 0);
  EXPECT_EQ(set(0x0000ec0000080000), fail(XEN_EINVAL)) << "a call gate";
  EXPECT_EQ(set(0x0000890000000067), fail(XEN_EINVAL)) << "a TSS";
  EXPECT_EQ(set(0x00af9b000000ffff), 0) << "ring 0's";
  EXPECT_EQ(domain.frames().table(frame(40))[1], 0x00affb000000ffffu) << "becomes ring 3's";
  EXPECT_EQ(call(__HYPERVISOR_update_descriptor, {at(40) + 8, 0x0000ec0000080000}), fail(XEN_EINVAL));
  EXPECT_EQ(call(__HYPERVISOR_update_descriptor, {at(40) + 16, 0x00cf93000000ffff}), 0);
  EXPECT_EQ(domain.frames().table(frame(40))[2], 0x00cff3000000ffffu);
  EXPECT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(40), at(40) | kBits, 0}), fail(XEN_EINVAL));
  EXPECT_EQ(call(__HYPERVISOR_set_gdt, {given(u64{mfn(40)}), 15 * 512}), fail(XEN_EINVAL));
}

}  // namespace
}  // namespace trapline::para::xen
