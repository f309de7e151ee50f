#include "devices/uart16550.h"

#include <gtest/gtest.h>

#include <string>

#include "fakes.h"

namespace trapline::devices {
namespace {

struct Uart16550Test : testing::Test {
  FakeLine irq;
  std::string sent;
  Uart16550 uart{irq, [this](u8 byte) { sent.push_back(static_cast<char>(byte)); }};

  u8 in(u64 reg) { return static_cast<u8>(uart.read(reg, 1)); }
  void out(u64 reg, u8 value) { uart.write(reg, 1, value); }
  std::size_t receive(const std::string& s) { return uart.receive(reinterpret_cast<const u8*>(s.data()), s.size()); }
};

// The steps of Linux's autoconfig() in drivers/tty/serial/8250: what tells a 16550A from its relatives.
TEST_F(Uart16550Test, LinuxProbeSees16550A) {
  out(1, 0);
  EXPECT_EQ(in(1) & 0x0f, 0);
  out(1, 0x0f);
  EXPECT_EQ(in(1) & 0x0f, 0x0f);
  out(1, 0);
  out(4, 0x1a);  // loopback with RTS and OUT2
  EXPECT_EQ(in(6) & 0xf0, 0x90);
  out(4, 0);
  out(3, 0);
  out(2, 1);
  EXPECT_EQ(in(2) & 0xe0, 0xc0);  // FIFOs work, 64-byte mode does not exist
  out(3, 0x80);
  out(2, 0x21);
  EXPECT_EQ(in(2) & 0xe0, 0xc0);
  EXPECT_NE(in(2), 0);  // no 16650 extended register here
  out(3, 0);
  out(1, 0x40);
  EXPECT_EQ(in(1), 0);  // no XScale unit enable
}

TEST_F(Uart16550Test, TransmitCompletesAtOnce) {
  EXPECT_EQ(in(5), 0x60);
  for (const char c : std::string("hello")) out(0, static_cast<u8>(c));
  EXPECT_EQ(sent, "hello");
  EXPECT_EQ(in(5), 0x60);
  EXPECT_FALSE(irq.up);
}

// PC16550D: the THRE interrupt is reset by reading IIR or by writing THR; the emptied register then raises it again.
TEST_F(Uart16550Test, EachByteWrittenWithoutReadingIirIsANewEdge) {
  out(1, 2);
  EXPECT_EQ(irq.rises, 1u);
  for (unsigned n = 2; n < 6; n++) {
    out(0, 'x');
    EXPECT_TRUE(irq.up);
    EXPECT_EQ(irq.rises, n);
  }
  EXPECT_EQ(in(2) & 0x0f, 2);
  out(1, 3);
  receive("a");  // a source of higher priority holds the line up: no edge
  const unsigned before = irq.rises;
  out(0, 'x');
  EXPECT_TRUE(irq.up);
  EXPECT_EQ(irq.rises, before);
}

TEST_F(Uart16550Test, TransmitterEmptyInterruptIsToldOnceEach) {
  out(1, 2);
  EXPECT_TRUE(irq.up);
  EXPECT_EQ(in(2) & 0x0f, 2);
  EXPECT_FALSE(irq.up);
  EXPECT_EQ(in(2) & 0x0f, 1);
  out(0, 'x');
  EXPECT_TRUE(irq.up);
  EXPECT_EQ(in(2) & 0x0f, 2);
  out(1, 2);  // already enabled: nothing new
  EXPECT_FALSE(irq.up);
  out(1, 0);
  out(1, 2);  // Linux's test for transmitters that do not interrupt again
  EXPECT_EQ(in(2) & 0x0f, 2);
}

TEST_F(Uart16550Test, ReceiveTriggerAndTimeout) {
  out(2, 0x81);  // FIFO, trigger at 8
  out(1, 1);
  EXPECT_EQ(receive("1234567"), 7u);
  EXPECT_TRUE(irq.up);
  EXPECT_EQ(in(2), 0xcc);
  EXPECT_EQ(receive("8"), 1u);
  EXPECT_EQ(in(2), 0xc4);
  std::string got;
  while (in(5) & 1) got.push_back(static_cast<char>(in(0)));
  EXPECT_EQ(got, "12345678");
  EXPECT_FALSE(irq.up);
  EXPECT_EQ(in(2), 0xc1);
}

TEST_F(Uart16550Test, InputWaitsWhenTheFifoIsFull) {
  EXPECT_EQ(uart.room(), 1u);
  out(2, 1);
  EXPECT_EQ(uart.room(), 16u);
  EXPECT_EQ(receive("0123456789abcdefXYZ"), 16u);
  EXPECT_EQ(uart.room(), 0u);
  EXPECT_EQ(receive("X"), 0u);
  EXPECT_EQ(in(5) & 2, 0);  // no overrun
  EXPECT_EQ(in(0), '0');
  EXPECT_EQ(receive("XYZ"), 1u);
  out(2, 3);
  EXPECT_EQ(uart.room(), 16u);
  EXPECT_EQ(in(5) & 1, 0);
}

TEST_F(Uart16550Test, PrioritiesLineThenDataThenTransmitThenModem) {
  out(1, 0x0f);
  out(4, 0x10);  // loopback: CTS, DSR and DCD fall: modem status deltas
  out(0, 'a');
  out(0, 'b');  // no FIFO: overrun
  EXPECT_EQ(in(2), 0x06);
  EXPECT_EQ(in(5) & 0x03, 3);
  EXPECT_EQ(in(2), 0x04);
  EXPECT_EQ(in(0), 'b');
  EXPECT_EQ(in(2), 0x02);
  EXPECT_EQ(in(2), 0x00);
  EXPECT_EQ(in(6), 0x0b);
  EXPECT_EQ(in(2), 0x01);
  EXPECT_FALSE(irq.up);
  EXPECT_TRUE(sent.empty());
}

TEST_F(Uart16550Test, RingIsToldOnItsTrailingEdge) {
  out(4, 0x10);
  in(6);
  out(4, 0x14);
  EXPECT_EQ(in(6), 0x40);
  out(4, 0x10);
  EXPECT_EQ(in(6), 0x04);
}

TEST_F(Uart16550Test, DivisorAndScratch) {
  out(3, 0x83);
  EXPECT_EQ(in(0), 12);
  out(0, 1);
  out(1, 2);
  EXPECT_EQ(in(0), 1);
  EXPECT_EQ(in(1), 2);
  out(3, 3);
  EXPECT_EQ(in(1), 0);
  EXPECT_TRUE(sent.empty());
  out(7, 0x5a);
  EXPECT_EQ(in(7), 0x5a);
  uart.reset();
  EXPECT_EQ(in(7), 0);
  EXPECT_EQ(in(3), 0);
}

}  // namespace
}  // namespace trapline::devices
