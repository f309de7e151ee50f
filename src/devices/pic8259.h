// The PC's pair of 8259A interrupt controllers (Intel 8259A data sheet), the slave on the master's IR2, and the
// edge/level control registers of PCI chipsets (ports 0x4d0 and 0x4d1).
#pragma once

#include "devices/device.h"

namespace trapline::devices {

// One chip. Offsets: 0 command, 1 data.
class Pic8259 {
 public:
  struct State {
    u8 lines = 0, irr = 0, isr = 0, imr = 0, elcr = 0;
    u8 vector_base = 0, lowest = 7;
    u8 icw_expected = 0;  // 0: none, else 2..4
    bool needs_icw4 = false, single = false, auto_eoi = false, rotate_auto_eoi = false;
    bool special_mask = false, special_nested = false, read_isr = false, poll = false;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  explicit Pic8259(bool master, u8 vector_base) : master_{master}, initial_base_{vector_base} { reset(); }

  u8 read(u64 offset);
  void write(u64 offset, u8 value);
  void reset();

  void set_line(unsigned ir, bool up);
  void set_cascade(bool up);     // the slave's INT, on the master's IR2
  void set_level_mode(u8 mask);  // ELCR: 1 bits are level-triggered
  u8 level_mode() const { return s_.elcr; }
  bool requested(unsigned ir) const { return s_.irr >> (ir & 7) & 1; }

  int pending() const;            // the request that INT stands for, or -1
  void acknowledge(unsigned ir);  // in service from now on
  u8 vector_base() const { return s_.vector_base; }
  static constexpr unsigned kSpurious = 7;

 private:
  unsigned rank(unsigned ir) const { return (ir - s_.lowest - 1u) & 7; }  // 0: highest priority
  int highest(u8 set) const;
  void write_icw1(u8 value);
  void write_ocw2(u8 value);
  void write_ocw3(u8 value);
  void write_data(u8 value);
  u8 poll();

  bool master_;
  u8 initial_base_;
  State s_;
};

class PicPair {
 public:
  struct State {
    Pic8259::State master, slave;
    bool intr_up = false;
    bool operator==(const State&) const = default;
  };
  State save() const { return {master_.save(), slave_.save(), intr_up_}; }
  void restore(const State& state);

  // `intr`: the master's INT output.
  explicit PicPair(IrqLine& intr);

  void set_irq(unsigned irq, bool up);  // 0..15; 2 is the cascade and ignored
  // A rise sets the line's IRR bit, masked or not; while that is set, a further one changes nothing.
  bool rise_matters(unsigned irq) const { return !(irq < 8 ? master_ : slave_).requested(irq & 7); }
  // The interrupt acknowledge cycle. Nothing pending (any more): the spurious vector, IR7 of the chip that was asked.
  u8 acknowledge();
  void reset();

  Device& master() { return master_port_; }
  Device& slave() { return slave_port_; }
  Device& elcr() { return elcr_port_; }

 private:
  struct ChipPort final : Device {
    ChipPort(PicPair& p, Pic8259& c, const char* n) : pair{p}, chip{c}, label{n} {}
    const char* name() const override { return label; }
    u64 read(u64 offset, unsigned) override;
    void write(u64 offset, unsigned, u64 value) override;
    void reset() override { pair.reset(); }
    PicPair& pair;
    Pic8259& chip;
    const char* label;
  };
  struct ElcrPort final : Device {
    explicit ElcrPort(PicPair& p) : pair{p} {}
    const char* name() const override { return "elcr"; }
    u64 read(u64 offset, unsigned) override;
    void write(u64 offset, unsigned, u64 value) override;
    void reset() override {}
    PicPair& pair;
  };

  void update();

  IrqLine& intr_;
  Pic8259 master_{true, 0x08}, slave_{false, 0x70};
  ChipPort master_port_{*this, master_, "pic-master"}, slave_port_{*this, slave_, "pic-slave"};
  ElcrPort elcr_port_{*this};
  bool intr_up_ = false;
};

}  // namespace trapline::devices
