#include "machine/chipset.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/invariant.h"
#include "base/trace.h"
#include "devices/acpi_pm.h"
#include "devices/board_ports.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/ide.h"
#include "devices/ioapic.h"
#include "devices/pic8259.h"
#include "devices/pit8254.h"
#include "devices/rtc.h"
#include "devices/uart16550.h"
#include "devices/vga_text.h"
#include "machine/chipset_firmware.h"
#include "machine/chipset_state.h"
#include "machine/firmware_files.h"
#include "machine/i440fx.h"
#include "machine/pci.h"
#include "machine/virtio_mmio.h"
#include "machine/virtio_pci.h"

namespace trapline::machine {

namespace {

constexpr u64 kIoApicSize = 0x1000;
constexpr u32 kPciPins = 0x00ff0000;  // IOAPIC pins 16..23 are PCI INTx wires: active low

// Ones in the low `size` bytes.
constexpr u64 ones(unsigned size) { return size >= 8 ? ~u64{0} : (u64{1} << 8 * size) - 1; }

}  // namespace

struct Chipset::Impl {
  explicit Impl(const ChipsetParts& p);

  // A wire that ends at the controllers: ISA IRQs at both, the others at the IOAPIC alone. IRQ 0 is pin 2 there (MADT
  // override).
  struct GsiLine final : devices::IrqLine {
    void set(bool up) override {
      if (up == is_up) return;
      is_up = up;
      TRACE(interrupts, "gsi {} {}", gsi, up ? "up" : "down");
      if (gsi < 16) impl->pic.set_irq(gsi, up);
      impl->ioapic.set_irq(pin(), up);
    }
    bool rise_matters() const override {
      return (gsi < 16 && impl->pic.rise_matters(gsi)) || impl->ioapic.rise_matters(pin());
    }
    unsigned pin() const { return gsi == 0 ? 2 : gsi; }
    Impl* impl = nullptr;
    unsigned gsi = 0;
    bool is_up = false;
  };
  // The 8259's INTR: LINT0 of vCPU 0, and pin 0 of the IOAPIC.
  struct IntrLine final : devices::IrqLine {
    explicit IntrLine(Impl& i) : impl{i} {}
    void set(bool up) override {
      impl.parts.interrupts.extint(up);
      impl.ioapic.set_irq(0, up);
    }
    Impl& impl;
  };
  // INTA of a PCI slot, or the line of a virtio device by memory-mapped registers. Slots share wires: one is up while any of them pulls.
  struct Inta final : devices::IrqLine {
    Inta(Impl& i, unsigned s) : impl{i}, slot{s} {}
    void set(bool up) override {
      impl.inta = up ? impl.inta | 1u << slot : impl.inta & ~(1u << slot);
      bool any = false;
      for (unsigned s = 0; s < 32; s++) any |= (impl.inta >> s & 1) && pci_intx_gsi(s, 0) == pci_intx_gsi(slot, 0);
      impl.gsi(pci_intx_gsi(slot, 0)).set(any);
    }
    Impl& impl;
    unsigned slot;
  };
  struct MsiOut final : devices::MsiSink {
    explicit MsiOut(InterruptSink& s) : sink{s} {}
    void msi(Gpa address, u32 data) override { sink.msi(address, data); }
    InterruptSink& sink;
  };

  // Who answers at a port. `widest`: accesses up to this size reach the device whole when aligned; wider ones are
  // split.
  struct Slot {
    devices::Device* device;
    u16 first, last;
    unsigned widest;
  };

  devices::IrqLine& gsi(unsigned n) { return lines[n]; }
  void map_ports(u16 first, u16 count, unsigned widest, devices::Device& device);
  const Slot* find(u16 port) const { return port_table[port] == 0 ? nullptr : &slots[port_table[port] - 1u]; }
  bool whole(const Slot& slot, u16 port, unsigned size) const {
    return size <= slot.widest && (port & (size - 1)) == 0 && port + size - 1 <= slot.last;
  }
  void install(devices::Device& device, int interrupt = kNoInterrupt) { installed.push_back({&device, interrupt}); }
  u64 deadline_ns() const;  // of what somebody would see
  void tick();
  void catch_up();
  void plug_virtio();
  bool has_firmware() const { return !parts.config.firmware.empty(); }
  void plug_for_firmware();
  void plug_cd(devices::CdImage& image);
  // After RESET, where there is no firmware to do it.
  void place_devices() {
    if (!has_firmware()) pci.place_memory(map::pci_mmio_start, map::pci_mmio_end);
  }
  devices::DoorbellView doorbells() const;
  void publish_ports(devices::FreePorts& free) const;
  u32 read_port(u16 port, unsigned size);
  void write_port(u16 port, unsigned size, u32 value);

  ChipsetParts parts;
  std::array<GsiLine, devices::IoApic::kPins> lines;
  MsiOut msi_out;
  IntrLine intr{*this};
  devices::IoApic ioapic{msi_out, kPciPins};
  devices::PicPair pic{intr};
  devices::Pit8254 pit;
  devices::Rtc rtc;
  devices::Uart16550 com1;
  devices::I8042 i8042;
  devices::SystemControlA port92;
  devices::ResetControl reset_control;
  devices::PostPorts post;
  devices::CrtController crtc;
  std::optional<devices::VgaText> vga;     // instead, with a display
  std::optional<devices::IdeChannel> ide;  // with a CD drive
  devices::FirmwareLog firmware_log;
  devices::NumericError numeric_error;
  devices::DebugExit debug_exit;
  devices::AcpiPm pm;
  devices::FwCfg fw_cfg{has_firmware() ? parts.dma : nullptr};
  PciBus pci{reset_control};
  u32 inta = 0;
  std::vector<std::unique_ptr<Inta>> inta_lines;
  std::vector<VirtioPci*> virtio;  // the bus owns them
  std::vector<std::unique_ptr<VirtioMmio>> virtio_mmio;
  VirtioMmio* find_virtio(Gpa gpa, unsigned size, u64& offset) const;

  std::vector<Slot> slots;
  std::vector<u8> port_table = std::vector<u8>(65536, 0);  // slot number + 1
  // Every device once, in the order in which they are reset: what ticks does so by the same list.
  static constexpr int kNoInterrupt = -1;
  struct Installed {
    devices::Device* device;
    int interrupt;  // the GSI that its timed events raise
  };
  std::vector<Installed> installed;
};

Chipset::Impl::Impl(const ChipsetParts& p)
    : parts{p},
      lines{},
      msi_out{p.interrupts},
      pit{gsi(0), p.time},
      rtc{gsi(8), p.time, [this] { pm.clock_alarm(); }},
      com1{gsi(4), [this](u8 byte) { parts.serial.write(byte); }},
      i8042{gsi(1), gsi(12), [this] { parts.power.reset(); }, p.config.display()},
      port92{[this] { parts.power.reset(); }},
      reset_control{[this] { parts.power.reset(); }},
      numeric_error{gsi(13)},
      debug_exit{[this](u32 value) { parts.power.debug_exit(value); }},
      pm{gsi(map::sci_irq), p.time, [this] { parts.power.power_off(); }} {
  for (unsigned i = 0; i < lines.size(); i++) {
    lines[i].impl = this;
    lines[i].gsi = i;
  }
  pci.plug(0, make_host_bridge(has_firmware()));
  if (has_firmware()) plug_for_firmware();
  if (p.cd) plug_cd(*p.cd);
  plug_virtio();
  fill_cmos(rtc, p.config);
  fill_fw_cfg(fw_cfg, p.config);
  if (has_firmware()) fill_firmware_files(fw_cfg, p.config, p.vga_bios);

  map_ports(0x20, 2, 1, pic.master());
  map_ports(0xa0, 2, 1, pic.slave());
  map_ports(0x4d0, 2, 1, pic.elcr());
  map_ports(0x40, 4, 1, pit);
  map_ports(0x60, 1, 1, i8042);
  map_ports(0x61, 1, 1, pit.control_port());
  map_ports(0x64, 1, 1, i8042);
  map_ports(0x70, 2, 1, rtc);
  map_ports(0x80, 16, 1, post);
  map_ports(0x92, 1, 1, port92);
  map_ports(0xf0, 2, 1, numeric_error);
  map_ports(map::debug_exit, 4, 4, debug_exit);
  if (p.config.display())
    map_ports(devices::VgaText::kFirst, devices::VgaText::kPorts, 1, vga.emplace(p.time));
  else
    map_ports(0x3d4, 2, 1, crtc);
  if (has_firmware() && (trace::mask & trace::boot)) map_ports(devices::FirmwareLog::kPort, 1, 1, firmware_log);
  map_ports(map::com1, 8, 1, com1);
  map_ports(map::fw_cfg, has_firmware() && p.dma ? devices::FwCfg::kDmaPorts : devices::FwCfg::kPorts, 4, fw_cfg);
  map_ports(map::acpi_pm, devices::AcpiPm::kSize, 4, pm);
  map_ports(map::pci_config, 8, 4, pci);
  install(pic.master());
  install(ioapic);
  install(pit, 0);
  install(rtc, 8);
  install(com1);
  install(i8042);
  install(port92);
  install(reset_control);
  install(post);
  install(crtc);
  if (vga) install(*vga);
  if (ide) install(*ide);
  install(numeric_error);
  install(debug_exit);
  install(pm, map::sci_irq);
  install(fw_cfg);
  install(pci);
}

void Chipset::Impl::plug_for_firmware() {
  pci.plug(kIsaBridgeSlot, make_isa_bridge());
  pci.plug(kPowerSlot, make_power_management());
}

// In compatibility mode: the AT's ports and interrupt, whatever the BARs say (PCI IDE Controller Specification 1.0).
void Chipset::Impl::plug_cd(devices::CdImage& image) {
  ide.emplace(gsi(14), image, parts.dma);
  map_ports(0x1f0, 8, 4, *ide);
  map_ports(0x3f6, 1, 1, ide->control_port());
  pci.plug(kIdeSlot, make_ide(ide->bus_master()));
}

void Chipset::Impl::plug_virtio() {
  INVARIANT(parts.virtio.size() <= devices::DoorbellView::kMost, "{} virtio devices", parts.virtio.size());
  for (unsigned slot = 1; virtio::Device * device : parts.virtio) {
    inta_lines.push_back(std::make_unique<Inta>(*this, slot));
    if (parts.config.virtio_mmio) {
      virtio_mmio.push_back(std::make_unique<VirtioMmio>(*device, *inta_lines.back()));
      install(*virtio_mmio.back());
      slot++;
      continue;
    }
    auto function = std::make_unique<VirtioPci>(*device, msi_out, *inta_lines.back());
    virtio.push_back(function.get());
    INVARIANT(pci.plug(slot, std::move(function)), "PCI slot {}", slot);
    slot++;
  }
  place_devices();
}

VirtioMmio* Chipset::Impl::find_virtio(Gpa gpa, unsigned size, u64& offset) const {
  const u64 at = gpa - map::virtio_mmio, index = at / VirtioMmio::kBytes;
  offset = at % VirtioMmio::kBytes;
  const bool whole = gpa >= map::virtio_mmio && offset + size <= VirtioMmio::kBytes;
  return whole && index < virtio_mmio.size() ? virtio_mmio[index].get() : nullptr;
}

devices::DoorbellView Chipset::Impl::doorbells() const {
  devices::DoorbellView view;
  for (std::size_t i = 0; i < virtio.size(); i++) view.at[i] = virtio[i]->doorbells();
  return view;
}

void Chipset::Impl::map_ports(u16 first, u16 count, unsigned widest, devices::Device& device) {
  INVARIANT(slots.size() < 255, "too many port ranges");
  const u16 last = static_cast<u16>(first + count - 1);
  slots.push_back({&device, first, last, widest});
  for (u32 port = first; port <= last; port++) {
    INVARIANT(port_table[port] == 0, "port {:#x} of {} is taken", port, device.name());
    port_table[port] = static_cast<u8>(slots.size());
  }
}

// The i8042's two ports are 4 apart: its second slot must keep its distance from 0x60. All others count from their
// first port.
static u64 device_offset(const devices::Device* device, const devices::Device* i8042, u16 port, u16 first) {
  return device == i8042 ? port - 0x60u : static_cast<u64>(port - first);
}

// A device that is narrower than the access is asked for each half, as the bus of a PC does it; nobody there answers
// all ones.
u32 Chipset::Impl::read_port(u16 port, unsigned size) {
  const Slot* slot = find(port);
  if (slot != nullptr && whole(*slot, port, size)) {
    const u32 value =
        static_cast<u32>(slot->device->read(device_offset(slot->device, &i8042, port, slot->first), size) & ones(size));
    TRACE(devices, "{} in {:#x}/{} -> {:#x}", slot->device->name(), port, size, value);
    return value;
  }
  if (slot == nullptr) {
    if (const auto hit = pci.find_io(port, size)) {
      const u32 value = static_cast<u32>(hit->target->read(hit->offset, size) & ones(size));
      TRACE(devices, "{} in {:#x}/{} -> {:#x}", hit->target->name(), port, size, value);
      return value;
    }
  }
  if (size == 1) {
    TRACE(devices, "nobody in {:#x}/1", port);
    return 0xff;
  }
  const unsigned half = size / 2;
  const u32 high_port = port + half;
  const u32 low = read_port(port, half);
  const u32 high = high_port > 0xffff ? static_cast<u32>(ones(half)) : read_port(static_cast<u16>(high_port), half);
  return low | high << 8 * half;
}

void Chipset::Impl::write_port(u16 port, unsigned size, u32 value) {
  const Slot* slot = find(port);
  if (slot != nullptr && whole(*slot, port, size)) {
    TRACE(devices, "{} out {:#x}/{} {:#x}", slot->device->name(), port, size, value);
    slot->device->write(device_offset(slot->device, &i8042, port, slot->first), size, value);
    return;
  }
  if (slot == nullptr) {
    if (const auto hit = pci.find_io(port, size)) {
      TRACE(devices, "{} out {:#x}/{} {:#x}", hit->target->name(), port, size, value);
      hit->target->write(hit->offset, size, value);
      return;
    }
  }
  if (size == 1) {
    TRACE(devices, "nobody out {:#x}/1 {:#x}", port, value);
    return;
  }
  const unsigned half = size / 2;
  const u32 high_port = port + half;
  write_port(port, half, value & static_cast<u32>(ones(half)));
  if (high_port <= 0xffff) write_port(static_cast<u16>(high_port), half, value >> 8 * half);
}

Chipset::Chipset(const ChipsetParts& parts) : impl_{std::make_unique<Impl>(parts)} {}
Chipset::~Chipset() = default;

u32 Chipset::port_read(u16 port, unsigned size) {
  if (size != 1 && size != 2 && size != 4) return ~u32{0};
  impl_->catch_up();
  return impl_->read_port(port, size);
}

void Chipset::port_write(u16 port, unsigned size, u32 value) {
  if (size != 1 && size != 2 && size != 4) return;
  impl_->catch_up();
  impl_->write_port(port, size, value & static_cast<u32>(ones(size)));
}

u64 Chipset::mmio_read(Gpa gpa, unsigned size) {
  if (size == 0 || size > 8) return ~u64{0};
  u64 value = ones(size);
  const char* who = "nobody";
  if (gpa - map::ioapic < kIoApicSize) {
    value = impl_->ioapic.read(gpa - map::ioapic, size) & ones(size);
    who = impl_->ioapic.name();
  } else if (u64 offset = 0; VirtioMmio* device = impl_->find_virtio(gpa, size, offset)) {
    value = device->read(offset, size) & ones(size);
    who = device->name();
  } else if (const auto hit = impl_->pci.find_memory(gpa, size)) {
    value = hit->target->read(hit->offset, size) & ones(size);
    who = hit->target->name();
  }
  TRACE(devices, "{} read {}/{} -> {:#x}", who, gpa, size, value);
  return value;
}

void Chipset::mmio_write(Gpa gpa, unsigned size, u64 value) {
  if (size == 0 || size > 8) return;
  impl_->catch_up();
  value &= ones(size);
  if (u64 offset = 0; VirtioMmio* device = impl_->find_virtio(gpa, size, offset)) {
    TRACE(devices, "{} write {}/{} {:#x}", device->name(), gpa, size, value);
    return device->write(offset, size, value);
  }
  const bool ioapic = gpa - map::ioapic < kIoApicSize;
  const auto hit = ioapic ? std::nullopt : impl_->pci.find_memory(gpa, size);
  TRACE(devices, "{} write {}/{} {:#x}", ioapic ? "ioapic" : hit ? hit->target->name() : "nobody", gpa, size, value);
  if (ioapic)
    impl_->ioapic.write(gpa - map::ioapic, size, value);
  else if (hit)
    hit->target->write(hit->offset, size, value);
}

u8 Chipset::pic_acknowledge() {
  impl_->catch_up();
  const u8 vector = impl_->pic.acknowledge();
  TRACE(interrupts, "pic acknowledge -> {:#x}", vector);
  return vector;
}

void Chipset::numeric_error() {
  TRACE(interrupts, "numeric error");
  impl_->numeric_error.report();
}

void Chipset::ioapic_eoi(u8 vector) {
  TRACE(interrupts, "ioapic eoi {:#x}", vector);
  impl_->catch_up();
  impl_->ioapic.eoi(vector);
}

std::size_t Chipset::console_input(const u8* bytes, std::size_t count) {
  if (impl_->vga) return impl_->i8042.type(bytes, count);
  const std::size_t taken = impl_->com1.receive(bytes, count);
  TRACE(devices, "uart16550 received {} of {}", taken, count);
  return taken;
}

std::size_t Chipset::console_room() const {
  constexpr std::size_t kTyped = 64;  // bytes; as many as it takes of them
  if (impl_->vga) return impl_->i8042.can_type() ? kTyped : 0;
  return impl_->com1.room();
}

std::optional<devices::TextMode> Chipset::text_mode() const {
  return impl_->vga ? std::optional{impl_->vga->mode()} : std::nullopt;
}

bool Chipset::transmitter_interrupts() const { return impl_->com1.view().possible[0] & devices::UartView::kInterrupts; }

void Chipset::publish(DevicePage& page, bool com1_readable) const {
  page.pit.store(impl_->pit.view());
  page.rtc.store(impl_->rtc.view());
  page.ioapic.store(impl_->ioapic.view());
  devices::UartView com1 = impl_->com1.view();
  if (!com1_readable)
    for (u8& possible : com1.possible) possible &= devices::UartView::kSends;
  page.com1.store(com1);
  if (!impl_->virtio.empty()) page.doorbells.store(impl_->doorbells());
  if (!page.free_ports.known.load(std::memory_order_relaxed)) impl_->publish_ports(page.free_ports);
}

void Chipset::Impl::publish_ports(devices::FreePorts& free) const {
  for (u32 port = 0; port < devices::FreePorts::kPorts; port++)
    if (port_table[port] == 0) free.bits[port / 8] |= static_cast<u8>(1 << port % 8);
  free.known.store(true, std::memory_order_release);
}

bool Chipset::press_power_button() { return impl_->pm.press_power_button(); }

// A source whose interrupt would change nothing needs no event: its controller has latched a request that nobody has
// acknowledged, or the pin is masked. So a timer at 20 kHz that nobody listens to wakes nobody.
u64 Chipset::Impl::deadline_ns() const {
  u64 earliest = devices::kNever;
  for (const Installed& i : installed) {
    const u64 deadline = i.device->deadline_ns();
    if (deadline < earliest &&
        (i.interrupt == kNoInterrupt || lines[static_cast<unsigned>(i.interrupt)].rise_matters() ||
         (i.device == &rtc && pm.awaits_clock_alarm())))
      earliest = deadline;
  }
  return earliest;
}

void Chipset::Impl::tick() {
  TRACE(clock, "chipset tick");
  for (const Installed& i : installed) i.device->tick();
}

// What nobody saw happens before the access that may make it matter again.
void Chipset::Impl::catch_up() {
  const u64 now = parts.time.now_ns();
  const auto due = [now](const Installed& i) { return i.device->deadline_ns() <= now; };
  if (std::any_of(installed.begin(), installed.end(), due)) tick();
}

u64 Chipset::deadline_ns() const { return impl_->deadline_ns(); }
void Chipset::tick() { impl_->tick(); }

ChipsetState Chipset::save() const {
  const Impl& i = *impl_;
  ChipsetState s{.wires = 0,
                 .inta = 0,
                 .ioapic = i.ioapic.save(),
                 .pic = i.pic.save(),
                 .pit = i.pit.save(),
                 .rtc = i.rtc.save(),
                 .com1 = i.com1.save(),
                 .i8042 = i.i8042.save(),
                 .port92 = i.port92.save(),
                 .reset_control = i.reset_control.save(),
                 .post = i.post.save(),
                 .crtc = i.crtc.save(),
                 .pm = i.pm.save(),
                 .fw_cfg = i.fw_cfg.save(),
                 .pci = i.pci.save(),
                 .vga = {},
                 .ide = {},
                 .virtio = {},
                 .virtio_mmio = {}};
  if (i.vga) s.vga = i.vga->save();
  if (i.ide) s.ide = i.ide->save();
  s.inta = i.inta;
  for (const VirtioPci* v : i.virtio) s.virtio.push_back(v->save());
  for (const auto& v : i.virtio_mmio) s.virtio_mmio.push_back(v->save());
  for (const Impl::GsiLine& line : i.lines) s.wires |= u32{line.is_up} << line.gsi;
  return s;
}

void Chipset::restore(const State& s) {
  Impl& i = *impl_;
  for (Impl::GsiLine& line : i.lines) line.is_up = s.wires >> line.gsi & 1;
  i.ioapic.restore(s.ioapic);
  i.pic.restore(s.pic);
  i.pit.restore(s.pit);
  i.rtc.restore(s.rtc);
  i.com1.restore(s.com1);
  i.i8042.restore(s.i8042);
  i.port92.restore(s.port92);
  i.reset_control.restore(s.reset_control);
  i.post.restore(s.post);
  i.crtc.restore(s.crtc);
  i.pm.restore(s.pm);
  i.fw_cfg.restore(s.fw_cfg);
  i.pci.restore(s.pci);
  if (i.vga) i.vga->restore(s.vga);
  if (i.ide) i.ide->restore(s.ide);
  i.inta = s.inta;
  for (std::size_t n = 0; n < i.virtio.size(); n++) i.virtio[n]->restore(s.virtio[n]);
  for (std::size_t n = 0; n < i.virtio_mmio.size(); n++) i.virtio_mmio[n]->restore(s.virtio_mmio[n]);
}

void Chipset::reset() {
  for (const Impl::Installed& i : impl_->installed) i.device->reset();
  impl_->place_devices();
}

}  // namespace trapline::machine
