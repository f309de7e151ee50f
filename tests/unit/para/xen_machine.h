// A Xen PV guest whose machine has virtio devices: the real ones, on a PCI bus, served inside the access that rings.
#pragma once

#include "cpu/bus.h"
#include "devices/board_map.h"
#include "machine/virtio_pci.h"
#include "para/xen/backend/back_ends.h"
#include "support/virtio_driver.h"
#include "xen_fixture.h"

namespace trapline::para::xen {

namespace virtio = devices::virtio;

struct TestDma final : virtio::Dma {
  explicit TestDma(GuestMemory& r) : ram{r} {}
  GuestMemory& ram;
  std::optional<std::span<std::byte>> bytes(Gpa at, u64 length) const override { return ram.bytes(at, length); }
  void written(Gpa, u64) override {}
  void give_back(Gpa, u64) override {}
};

struct MachineBus final : cpu::Bus, devices::MsiSink, devices::IrqLine, virtio::Host {
  struct NoReset final : devices::Device {
    const char* name() const override { return "reset"; }
    u64 read(u64, unsigned) override { return 0; }
    void write(u64, unsigned, u64) override {}
    void reset() override {}
  } no_reset;
  machine::PciBus pci{no_reset};
  std::vector<std::unique_ptr<virtio::Device>> devices;
  std::vector<u8> interrupts;
  unsigned slots = 1;

  virtio::Device& plug(std::unique_ptr<virtio::Backend> backend, virtio::Dma& dma) {
    devices.push_back(std::make_unique<virtio::Device>(std::move(backend), dma, *this));
    pci.plug(slots++, std::make_unique<machine::VirtioPci>(*devices.back(), *this, *this));
    pci.place_memory(devices::map::pci_mmio_start, devices::map::pci_mmio_end);
    return *devices.back();
  }

  u32 port_read(cpu::Vcpu&, u16 port, unsigned size) override {
    return port >= 0xcf8 && port < 0xd00 ? static_cast<u32>(pci.read(port - 0xcf8u, size)) : ~u32{0};
  }
  void port_write(cpu::Vcpu&, u16 port, unsigned size, u32 value) override {
    if (port >= 0xcf8 && port < 0xd00) pci.write(port - 0xcf8u, size, value);
  }
  u64 mmio_read(cpu::Vcpu&, Gpa gpa, unsigned size) override {
    const auto hit = pci.find_memory(gpa, size);
    return hit ? hit->target->read(hit->offset, size) : ~u64{0};
  }
  void mmio_write(cpu::Vcpu&, Gpa gpa, unsigned size, u64 value) override {
    if (const auto hit = pci.find_memory(gpa, size)) hit->target->write(hit->offset, size, value);
  }
  u8 pic_acknowledge(cpu::Vcpu&) override { return 0; }
  void ioapic_eoi(cpu::Vcpu&, u8) override {}
  void msi(Gpa, u32 data) override { interrupts.push_back(static_cast<u8>(data)); }
  void set(bool) override {}
  void interrupt(virtio::Device& device, unsigned queue) override { device.transport().interrupt(queue); }
  void rung(virtio::Device& device, unsigned queue) override { device.backend().serve(queue); }
};

struct XenMachineTest : XenTest {
  MachineBus bus;
  TestDma dma{ram};
  std::string out;

  void SetUp() override {
    XenTest::SetUp();
    cpu.bus = &bus;
    grant_entries();
  }
  // Version 1 of the table, which the guest has asked for.
  void grant_entries() {
    gnttab_setup_table op{};
    op.dom = DOMID_SELF;
    op.nr_frames = 1;
    const u64 list = linear(kScratch) + 512;
    std::memcpy(&op.frame_list, &list, sizeof list);
    ASSERT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_setup_table, given(op), 1}), 0);
  }
  grant_entry_v1_t& grant(u32 ref) {
    return reinterpret_cast<grant_entry_v1_t*>(domain.frames().table(layout.grants))[ref];
  }
  void give(u32 ref, u64 mfn, u16 flags = GTF_permit_access, domid_t to = kBackDomain) {
    grant(ref) = {flags, to, static_cast<u32>(mfn)};
  }
  bool in_use(u32 ref) { return grant(ref).flags & (GTF_reading | GTF_writing); }
  Port port() {
    evtchn_alloc_unbound op{DOMID_SELF, kBackDomain, 0};
    EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_alloc_unbound, given(op)}), 0);
    return answered<evtchn_alloc_unbound>().port;
  }
  // The guest's own writes to xenstore, as they come through the ring.
  void write(const std::string& path, const std::string& value) {
    const std::string payload = path + '\0' + value;
    const xsd_sockmsg header{XS_WRITE, 1, 0, static_cast<u32>(payload.size())};
    domain.store().handle(std::string(reinterpret_cast<const char*>(&header), sizeof header) + payload, out);
    domain.back_ends().store_changed(cpu);
  }
  std::string read(const std::string& path) { return domain.store().value(cpu, path).value_or("-"); }
  // The machine's interrupts, as they come to vCPU 0.
  void take_interrupts() {
    for (const u8 vector : std::exchange(bus.interrupts, {})) EXPECT_TRUE(domain.back_ends().interrupted(cpu, vector));
  }
  void send(Port to) {
    const evtchn_send op{to};
    EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_send, given(op)}), 0);
    take_interrupts();
  }
};

}  // namespace trapline::para::xen
