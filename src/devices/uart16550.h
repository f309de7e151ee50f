// 16550A UART, as National's PC16550D data sheet has it, with an infinitely fast line: a byte written is sent before
// the write returns, so THRE and TEMT are always set. Eight byte-wide registers.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <type_traits>

#include "devices/device.h"

namespace trapline::devices {

// What an access would find or do just now, for who answers it elsewhere (the core). Plain bytes.
struct UartView {
  static constexpr u8 kReadable = 0x01, kSends = 0x02, kInterrupts = 0x04;
  std::array<u8, 8> value{};     // by register
  std::array<u8, 8> possible{};  // kReadable: a read returns `value` and changes nothing.
                                 // Register 0: a write sends a byte, and kSends: nobody sees anything else of it;
                                 // kInterrupts: IIR and the interrupt tell of it
};
static_assert(std::has_unique_object_representations_v<UartView>);

class Uart16550 final : public Device {
 public:
  static constexpr std::size_t kFifoSize = 16;
  struct State {
    std::array<u8, kFifoSize> fifo{};
    u32 head = 0, count = 0;
    u8 ier = 0, fcr = 0, lcr = 0, mcr = 0, scratch = 0, last_received = 0;
    u8 msr_delta = 0;
    u16 divisor = 12;
    bool overrun = false;
    bool thre_pending = false;  // the "transmitter empty" interrupt has not been told yet
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  using Send = std::function<void(u8)>;
  Uart16550(IrqLine& irq, Send send);

  const char* name() const override { return "uart16550"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  void reset() override;

  // Bytes arriving on the line. Takes no more than room(): what does not fit stays with the caller, as with flow
  // control.
  std::size_t receive(const u8* bytes, std::size_t count);
  std::size_t room() const;

  UartView view() const;

 private:
  bool dlab() const { return s_.lcr & 0x80; }
  bool fifo_enabled() const { return s_.fcr & 1; }
  bool loopback() const { return s_.mcr & 0x10; }
  std::size_t capacity() const { return fifo_enabled() ? kFifoSize : 1; }
  std::size_t trigger() const;
  u8 interrupt_id() const;                                    // IIR bits 3:0
  u8 fifo_bits() const { return fifo_enabled() ? 0xc0 : 0; }  // IIR bits 7:6
  u8 line_status() const;
  u8 modem_inputs() const;  // MSR bits 7:4

  void transmit(u8 byte);
  u8 pop_received();
  void push_received(u8 byte);
  void write_ier(u8 value);
  void write_fcr(u8 value);
  void write_mcr(u8 value);
  u8 read_iir();
  u8 read_lsr();
  u8 read_msr();
  void update_irq() { irq_.set(!(interrupt_id() & 1)); }

  IrqLine& irq_;
  Send send_;
  State s_;
};

}  // namespace trapline::devices
