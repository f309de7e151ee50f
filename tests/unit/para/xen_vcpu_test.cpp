#include "xen_fixture.h"

namespace trapline::para::xen {
namespace {

using VcpuCalls = XenTest;

TEST_F(VcpuCalls, ASecondOneStartsWhereItIsTold) {
  cpu::Vcpu second;
  second.index = 1;
  second.ram = &ram, second.clock = &clock, second.hypervisor = &domain;
  second.activity = cpu::Activity::wait_for_sipi;
  cpu::mmu_create(second);
  domain.add_vcpu(second);
  EXPECT_EQ(call(__HYPERVISOR_vcpu_op, {VCPUOP_up, 1, 0}), fail(XEN_EINVAL)) << "not initialised";
  EXPECT_EQ(call(__HYPERVISOR_vcpu_op, {VCPUOP_is_up, 1, 0}), 0);
  EXPECT_EQ(call(__HYPERVISOR_vcpu_op, {VCPUOP_up, 2, 0}), fail(XEN_ENOENT));

  auto context = std::make_unique<vcpu_guest_context>();
  context->flags = VGCF_in_kernel;
  context->user_regs.rip = 0x31000, context->user_regs.rsp = 0x32000, context->user_regs.rdi = 77;
  context->user_regs.cs = kKernelCs, context->user_regs.ss = kKernelSs;
  context->ctrlreg[3] = xen_pfn_to_cr3(mfn(kL4));
  context->gs_base_kernel = 0x1000;
  const auto initialise = [&] { return call(__HYPERVISOR_vcpu_op, {VCPUOP_initialise, 1, given(*context)}); };
  context->ctrlreg[3] = xen_pfn_to_cr3(mfn(40));
  EXPECT_EQ(initialise(), fail(XEN_EINVAL)) << "no level-4 table";
  context->ctrlreg[3] = xen_pfn_to_cr3(mfn(kL4));
  context->event_callback_eip = u64{1} << 50;
  EXPECT_EQ(initialise(), fail(XEN_EINVAL)) << "not canonical";
  context->event_callback_eip = 0;
  EXPECT_EQ(initialise(), 0);
  EXPECT_EQ(initialise(), fail(XEN_EEXIST));
  EXPECT_FALSE(domain.start(second));
  EXPECT_EQ(call(__HYPERVISOR_vcpu_op, {VCPUOP_up, 1, 0}), 0);
  EXPECT_TRUE(second.attention->load() & cpu::attention::sipi);
  EXPECT_EQ(host.woken, std::vector<u32>{1});
  EXPECT_TRUE(domain.start(second));
  EXPECT_EQ(second.activity, cpu::Activity::running);
  EXPECT_EQ(second.rip, 0x31000u);
  EXPECT_EQ(second.gpr[isa::rdi], 77u);
  EXPECT_EQ(second.cpl, 3);
  EXPECT_EQ(second.cr3, at(kL4));
  EXPECT_EQ(call(__HYPERVISOR_vcpu_op, {VCPUOP_is_up, 1, 0}), 1);
  cpu::mmu_destroy(second);
}

TEST_F(VcpuCalls, AnIpiReachesWhomItIsBoundTo) {
  evtchn_bind_ipi_t bind{1, 0};
  ASSERT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_bind_ipi, given(bind)}), 0);
  const Port port = answered<evtchn_bind_ipi_t>().port;
  ASSERT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_unmask, given(evtchn_unmask_t{port})}), 0);
  ASSERT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_send, given(evtchn_send_t{port})}), 0);
  const auto* shared = reinterpret_cast<shared_info*>(ram.host(gpa(layout.shared_info)));
  EXPECT_EQ(shared->vcpu_info[1].evtchn_upcall_pending, 1);
  EXPECT_EQ(shared->vcpu_info[0].evtchn_upcall_pending, 0);
  EXPECT_TRUE(shared->evtchn_pending[port / 64] >> port % 64 & 1);
  ASSERT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_close, given(evtchn_close_t{port})}), 0);
  EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_send, given(evtchn_send_t{port})}), fail(XEN_EINVAL));
}

// Who polls hears of a port that is another vCPU's, though it is masked, or an upcall of that one is under way already.
TEST_F(VcpuCalls, APollHearsOfAnyPort) {
  ASSERT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_bind_ipi, given(evtchn_bind_ipi_t{1, 0})}), 0);
  const Port port = answered<evtchn_bind_ipi_t>().port;
  auto* shared = reinterpret_cast<shared_info*>(ram.host(gpa(layout.shared_info)));
  for (const bool masked : {true, false}) {
    shared->evtchn_pending[port / 64] = 0;
    shared->evtchn_mask[port / 64] = masked ? ~0ul : 0;
    shared->vcpu_info[1].evtchn_upcall_pending = 1, shared->vcpu_info[1].evtchn_pending_sel = ~0ul;
    sched_poll_t poll{};
    poll.nr_ports = 1;
    const u64 list = given(port, 64);
    std::memcpy(&poll.ports, &list, sizeof list);
    ASSERT_EQ(call(__HYPERVISOR_sched_op, {SCHEDOP_poll, given(poll)}), 0);
    EXPECT_EQ(cpu.activity, cpu::Activity::halted);
    cpu.attention->store(0);
    EXPECT_FALSE(domain.wakes(cpu));
    host.woken.clear();
    domain.raise(port);
    EXPECT_TRUE(cpu.attention->load() & cpu::attention::interrupt) << masked;
    EXPECT_EQ(host.woken, std::vector<u32>{0});
    EXPECT_EQ(domain.take_event(cpu), cpu::Outcome::next);
    EXPECT_EQ(cpu.activity, cpu::Activity::running);
    shared->evtchn_pending[port / 64] = 0;
    host.woken.clear();
    domain.raise(port);
    EXPECT_TRUE(host.woken.empty()) << "it polls no more";
  }
}

TEST_F(VcpuCalls, PortsThatAreNoneAreRefused) {
  for (const Port port : {Port{0}, Port{100}, Port{4096}, ~Port{0}}) {
    EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_send, given(evtchn_send_t{port})}), fail(XEN_EINVAL));
    EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_close, given(evtchn_close_t{port})}), fail(XEN_EINVAL));
    EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_unmask, given(evtchn_unmask_t{port})}), fail(XEN_EINVAL));
    EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_bind_vcpu, given(evtchn_bind_vcpu_t{port, 0})}),
              fail(XEN_EINVAL));
  }
  EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_bind_virq, given(evtchn_bind_virq_t{99, 0, 0})}),
            fail(XEN_EINVAL));
  EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_bind_virq, given(evtchn_bind_virq_t{0, 9, 0})}),
            fail(XEN_ENOENT));
  EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_bind_pirq, given(u64{0})}), fail(XEN_EPERM));
  const auto fifo = [&](u64 frame, u32 offset) {
    return call(__HYPERVISOR_event_channel_op,
                {EVTCHNOP_init_control, given(evtchn_init_control_t{frame, offset, 0, 0, {}})});
  };
  EXPECT_EQ(fifo(~u64{1}, 0), fail(XEN_EINVAL));
  EXPECT_EQ(fifo(mfn(40), kPageSize - 8), fail(XEN_EINVAL));
  EXPECT_EQ(fifo(mfn(40), 0), fail(XEN_ENOSYS));
  Status last = 0;
  for (int i = 0; i < 5000 && last == 0; i++)
    last = call(__HYPERVISOR_event_channel_op, {EVTCHNOP_bind_ipi, given(evtchn_bind_ipi_t{0, 0})});
  EXPECT_EQ(last, fail(XEN_ENOSPC));
}

// How guests learn their own number.
TEST_F(VcpuCalls, APortForItselfIsForItsNumber) {
  ASSERT_EQ(call(__HYPERVISOR_event_channel_op,
                 {EVTCHNOP_alloc_unbound, given(evtchn_alloc_unbound_t{DOMID_SELF, DOMID_SELF, 0})}),
            0);
  evtchn_status_t status{};
  status.dom = DOMID_SELF;
  status.port = answered<evtchn_alloc_unbound_t>().port;
  ASSERT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_status, given(status)}), 0);
  EXPECT_EQ(answered<evtchn_status_t>().u.unbound.dom, kDomain);
}

TEST_F(VcpuCalls, ItsInfoMovesOnceToAPageOfTheGuests) {
  const auto place = [&](u64 frame, u32 offset) {
    return call(__HYPERVISOR_vcpu_op,
                {VCPUOP_register_vcpu_info, 0, given(vcpu_register_vcpu_info_t{frame, offset, 0})});
  };
  EXPECT_EQ(place(mfn(kL1), 0), fail(XEN_EINVAL)) << "a page table";
  EXPECT_EQ(place(layout.gdt.raw, 0), fail(XEN_EINVAL));
  EXPECT_EQ(place(mfn(40), kPageSize - 8), fail(XEN_EINVAL)) << "across the page's end";
  EXPECT_EQ(place(mfn(40), 128), 0);
  EXPECT_EQ(place(mfn(41), 128), fail(XEN_EINVAL)) << "twice";
  EXPECT_EQ(domain.events().vcpu_info(0).raw, at(40) + 128);
  ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(40), at(40) | (kBits & ~pte::writable), 0}), 0);
  EXPECT_EQ(extended(MMUEXT_PIN_L1_TABLE, mfn(40)), fail(XEN_EINVAL)) << "it stays writable";
}

TEST_F(VcpuCalls, GrantsAreOfVersionOne) {
  EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_set_version, given(gnttab_set_version_t{2}), 1}),
            fail(XEN_ENOSYS));
  gnttab_setup_table_t setup{};
  setup.dom = DOMID_SELF, setup.nr_frames = 2;
  const u64 list = linear(kScratch) + 512;
  std::memcpy(&setup.frame_list, &list, 8);
  EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_setup_table, given(setup), 1}), 0);
  EXPECT_EQ(answered<gnttab_setup_table_t>().status, GNTST_okay);
  EXPECT_EQ(answered<u64>(512), layout.grants.raw);
  setup.nr_frames = kGrantFrames + 1;
  EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_setup_table, given(setup), 1}), 0);
  EXPECT_EQ(answered<gnttab_setup_table_t>().status, GNTST_general_error);
  gnttab_map_grant_ref_t map{};
  EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_map_grant_ref, given(map), 1}), 0);
  EXPECT_EQ(answered<gnttab_map_grant_ref_t>().status, GNTST_bad_gntref) << "neither for the CPU nor for a device";
}

// What the domain grants itself is mapped and counted as any other page is.
TEST_F(VcpuCalls, AGrantToItselfIsMappedAndUnmapped) {
  gnttab_setup_table_t setup{};
  setup.dom = DOMID_SELF, setup.nr_frames = 1;
  const u64 list = linear(kScratch) + 512;
  std::memcpy(&setup.frame_list, &list, 8);
  ASSERT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_setup_table, given(setup), 1}), 0);
  auto* grants = reinterpret_cast<grant_entry_v1_t*>(ram.host(gpa(layout.grants)));
  const auto map = [&](u32 ref, u32 flags, domid_t whose = kDomain) {
    gnttab_map_grant_ref_t op{};
    op.host_addr = linear(50), op.flags = flags, op.ref = ref, op.dom = whose;
    EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_map_grant_ref, given(op), 1}), 0);
    return answered<gnttab_map_grant_ref_t>();
  };
  const auto unmap = [&](u64 page, u64 bus, u32 handle) {
    gnttab_unmap_grant_ref_t op{};
    op.host_addr = page, op.dev_bus_addr = bus, op.handle = handle;
    EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_unmap_grant_ref, given(op), 1}), 0);
    return answered<gnttab_unmap_grant_ref_t>().status;
  };
  EXPECT_EQ(map(8, GNTMAP_host_map).status, GNTST_general_error) << "not granted";
  grants[8] = {GTF_permit_access, kDomain, static_cast<u32>(mfn(40))};
  EXPECT_EQ(map(8, 0).status, GNTST_bad_gntref) << "neither way";
  EXPECT_EQ(map(8, GNTMAP_host_map, 7).status, GNTST_bad_domain);
  EXPECT_EQ(map(512, GNTMAP_host_map).status, GNTST_bad_gntref) << "beyond the table";
  const auto mapped = map(8, GNTMAP_host_map | GNTMAP_device_map);
  ASSERT_EQ(mapped.status, GNTST_okay);
  EXPECT_EQ(mapped.dev_bus_addr, at(40));
  EXPECT_EQ(entry(kL1, 50) & pte::address, at(40));
  EXPECT_EQ(grants[8].flags, GTF_permit_access | GTF_reading | GTF_writing);
  EXPECT_EQ(unmap(linear(51), 0, mapped.handle), GNTST_general_error) << "another page's entry";
  EXPECT_EQ(unmap(linear(50), 0, mapped.handle), GNTST_okay);
  EXPECT_EQ(entry(kL1, 50), 0u);
  ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {linear(40), at(40) | (kBits & ~pte::writable), 0}), 0);
  EXPECT_EQ(extended(MMUEXT_PIN_L1_TABLE, mfn(40)), fail(XEN_EINVAL)) << "a device may write to it still";
  EXPECT_EQ(unmap(0, at(40), mapped.handle), GNTST_okay);
  EXPECT_EQ(unmap(0, at(40), mapped.handle), GNTST_bad_handle);
  EXPECT_EQ(grants[8].flags, GTF_permit_access);
  EXPECT_EQ(extended(MMUEXT_PIN_L1_TABLE, mfn(40)), 0) << "nothing writes to it now";
}

// Whatever a guest asks: an answer, or its own end.
TEST_F(VcpuCalls, AnyHypercallWithAnyArgumentsIsAnswered) {
  u64 seed = 1;
  const auto random = [&seed] { return seed = seed * 6364136223846793005 + 1442695040888963407, seed >> 16; };
  const auto argument = [&]() -> u64 {
    switch (random() % 8) {
      case 0:
        return random() % 32;
      case 1:
        return linear(kScratch) + random() % 256 * 8;
      case 2:
        return linear(random() % 600) + random() % 4096;
      case 3:
        return at(random() % 64) | kBits;
      case 4:
        return DOMID_SELF;
      case 5:
        return kHypervisorStart.raw + (random() << 12);
      case 6:
        return random() % 5000;
      default:
        return random() << 20 ^ random();
    }
  };
  for (int i = 0; i < 20'000; i++) {
    for (unsigned word = 0; word < 64; word++) given(argument(), word * 8);
    Domain::Arguments a;
    for (u64& value : a) value = argument();
    const u64 number = random() % 44;
    if (number == __HYPERVISOR_iret || number == __HYPERVISOR_console_io) continue;
    if (number == __HYPERVISOR_event_channel_op) a[0] %= 14;
    if (number == __HYPERVISOR_multicall) a[1] %= 8;
    if (number == __HYPERVISOR_mmuext_op || number == __HYPERVISOR_mmu_update) a[1] = 1 + a[1] % 8, a[3] = DOMID_SELF;
    try {
      call(number, a);
    } catch (const Crash&) {
    }
    cpu.activity = cpu::Activity::running;
    // The types hold: what the kernel's tables map writable is no table.
    if (i % 1000) continue;
    Frames& frames = domain.frames();
    for (Mfn frame; frame.raw < layout.frames(); ++frame) {
      if (!frames.is(frame, Type::l1)) continue;
      for (u64 index = 0; index < kEntries; index++) {
        const u64 entry = frames.table(frame)[index];
        if ((entry & pte::present) && (entry & pte::writable) && !layout.shared(pte::mfn(entry))) {
          ASSERT_TRUE(frames.is(pte::mfn(entry), Type::writable)) << frame.raw << " " << index;
        }
      }
    }
  }
}

}  // namespace
}  // namespace trapline::para::xen
