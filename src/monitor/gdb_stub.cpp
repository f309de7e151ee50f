#include "monitor/gdb_stub.h"

#include <fmt/format.h>

#include <algorithm>

namespace trapline::monitor::gdb {

using channel::DebugRegisters;

namespace {

bool starts(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace

Stub::Stub(Target& target, Settings& settings, const Stop& why, Send send)
    : target_{target}, settings_{settings}, send_{std::move(send)}, stop_{why}, current_{why.vcpu} {
  if (current_ >= target_.vcpus()) stop_.vcpu = current_ = 0;
  choose_layout();
}

// -- Transport
void Stub::receive(std::span<const u8> bytes) {
  reader_.feed(bytes);
  while (!closed_) {
    const auto event = reader_.next();
    if (!event) return;
    handle(*event);
  }
}

void Stub::handle(const Event& event) {
  switch (event.kind) {
    case Event::Kind::ack:
      break;
    case Event::Kind::nack:
      if (acknowledge_ && !last_.empty()) send_(last_);
      break;
    case Event::Kind::damaged:
      if (acknowledge_) send_("-");
      break;
    case Event::Kind::interrupt:
      if (!running_) break;
      interrupted_ = true;
      target_.interrupt();
      break;
    case Event::Kind::packet:
      if (acknowledge_) send_("+");
      if (!running_) dispatch(event.payload);  // else the client is to wait, and an answer would be taken for a stop
  }
}

void Stub::reply(std::string_view payload) {
  last_ = frame(payload);
  send_(last_);
}

void Stub::error(int number) { reply(fmt::format("E{:02x}", number)); }

void Stub::dispatch(std::string_view packet) {
  if (packet.empty()) return reply("");
  const char kind = packet.front();
  const std::string_view rest = packet.substr(1);
  switch (kind) {
    case '?':
      return reply(stop_reply());
    case 'g': {
      DebugRegisters r;
      return target_.read_registers(current_, r) ? reply(layout_->read_all(r)) : error(kNotFound);
    }
    case 'G':
      return write_all_registers(rest);
    case 'p':
      return read_register(rest);
    case 'P':
      return write_register(rest);
    case 'm':
      return read_memory(rest);
    case 'M':
      return write_memory(rest, false);
    case 'X':
      return write_memory(rest, true);
    case 'Z':
      return change_point(true, rest);
    case 'z':
      return change_point(false, rest);
    case 'c':
    case 'C':
    case 's':
    case 'S':
      return go(packet);
    case 'H':
      return choose_thread(rest);
    case 'T':
      return vcpu_of(rest) ? ok() : error(kNotFound);
    case 'q':
      return query(rest);
    case 'Q':
      return set(rest);
    case 'v':
      return verbose(rest);
    case 'D':
      return detach();
    case 'k':
      return kill();
    default:
      return reply("");  // unsupported, as the protocol says it
  }
}

// -- Queries
void Stub::query(std::string_view q) {
  if (starts(q, "Supported")) return feature_list(q);
  if (starts(q, "Xfer:features:read:")) return read_description(q);
  if (starts(q, "Rcmd,")) return command(q);
  if (starts(q, "ThreadExtraInfo,")) return thread_info(q);
  if (q == "fThreadInfo") return thread_list();
  if (q == "sThreadInfo") return reply("l");
  if (q == "C") return reply(fmt::format("QC{:x}", current_ + 1));
  if (q.starts_with("Attached")) return reply("1");  // GDB detaches when it quits, and does not kill
  if (q.starts_with("Symbol:")) return ok();
  reply("");
}

void Stub::feature_list(std::string_view q) {
  tells_swbreak_ = q.find("swbreak+") != std::string_view::npos;
  tells_hwbreak_ = q.find("hwbreak+") != std::string_view::npos;
  reply(fmt::format("PacketSize={:x};QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+",
                    kPacketBytes));
}

void Stub::choose_layout() {
  using D = Settings::Description;
  DebugRegisters r;
  const bool wide =
      settings_.description == D::bits64 ||
      (settings_.description == D::automatic && target_.read_registers(stop_.vcpu, r) && r.long_mode_active());
  layout_ = &RegisterLayout::of(wide);
}

void Stub::read_description(std::string_view q) {
  u64 offset, length;
  if (!starts(q, "target.xml:") || !take_range(q, offset, length)) return error(kNotFound);
  const std::string_view xml = layout_->description();
  if (offset > xml.size()) return error(kInvalid);
  const std::string_view part = xml.substr(offset, std::min<u64>(length, kPacketBytes / 2));
  reply(fmt::format("{}{}", offset + part.size() == xml.size() ? 'l' : 'm', part));
}

void Stub::thread_list() {
  std::string list = "m";
  for (u32 i = 0; i < target_.vcpus(); i++) list += fmt::format("{}{:x}", i ? "," : "", i + 1);
  reply(list);
}

void Stub::thread_info(std::string_view id) {
  const auto vcpu = vcpu_of(id);
  DebugRegisters r;
  if (!vcpu || !target_.read_registers(*vcpu, r)) return error(kNotFound);
  reply(to_hex(describe_vcpu(r, *vcpu)));
}

void Stub::command(std::string_view hex) {
  const auto bytes = from_hex(hex);
  if (!bytes) return error(kInvalid);
  const std::string text{bytes->begin(), bytes->end()};
  std::string printed = run_command(text, target_, current_, settings_);
  printed.resize(std::min(printed.size(), kPacketBytes / 2));
  printed.empty() ? ok() : reply(to_hex(printed));
}

void Stub::set(std::string_view q) {
  if (q != "StartNoAckMode") return reply("");
  ok();
  acknowledge_ = false;
}

void Stub::verbose(std::string_view v) {
  if (v == "Cont?") return reply("vCont;c;C;s;S");
  if (starts(v, "Cont")) return go_by_thread(v);
  if (v.starts_with("Kill")) {
    ok();
    return kill();
  }
  reply("");
}

// -- Threads
std::optional<u32> Stub::vcpu_of(std::string_view id) const {
  const auto number = take_number(id);
  if (!number || !id.empty() || *number == 0 || *number > target_.vcpus()) return std::nullopt;
  return static_cast<u32>(*number - 1);
}

void Stub::choose_thread(std::string_view a) {
  if (a.size() < 2) return error(kInvalid);
  const char what = a.front();
  a.remove_prefix(1);
  const bool any = a == "0" || a == "-1";
  const auto vcpu = vcpu_of(a);
  if (!any && !vcpu) return error(kNotFound);
  if (what == 'g')
    current_ = any ? current_ : *vcpu;
  else if (what == 'c')
    to_run_ = any ? std::nullopt : vcpu;
  else
    return error(kInvalid);
  ok();
}

}  // namespace trapline::monitor::gdb
