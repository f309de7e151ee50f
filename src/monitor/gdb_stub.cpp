#include "monitor/gdb_stub.h"

#include <fmt/format.h>

#include <algorithm>

#include "cpu/vcpu.h"

namespace trapline::monitor::gdb {

using core::DebugRegisters;
using core::DebugReport;
using core::StopKind;

namespace {

// Linux errno values by convention; GDB shows them as numbers only.
constexpr int kNotFound = 2, kBadAddress = 14, kInvalid = 22, kNoSpace = 28, kReadOnly = 30;
constexpr int kSigInt = 2, kSigTrap = 5, kSigSegv = 11;
constexpr u64 kLongestWatch = 4096;

bool starts(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// "addr,length": what m, M, X and Z begin with.
bool take_range(std::string_view& text, u64& address, u64& length) {
  const auto a = take_number(text);
  if (!a || !take_char(text, ',')) return false;
  const auto n = take_number(text);
  if (!n) return false;
  address = *a, length = *n;
  return true;
}

}  // namespace

Stub::Stub(Target& target, Settings& settings, const Stop& why, Send send)
    : target_{target}, settings_{settings}, send_{std::move(send)}, stop_{why}, current_{why.vcpu} {
  if (current_ >= target_.vcpus()) stop_.vcpu = current_ = 0;
  choose_layout();
}

// -- Transport
// ---------------------------------------------------------------------------------------------------------------
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
// -----------------------------------------------------------------------------------------------------------------
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
      (settings_.description == D::automatic && target_.read_registers(stop_.vcpu, r) && (r.efer & cpu::efer::lma));
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
// -----------------------------------------------------------------------------------------------------------------
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

// -- Registers and memory
// ------------------------------------------------------------------------------------------------------
void Stub::read_register(std::string_view a) {
  const auto number = take_number(a);
  DebugRegisters r;
  if (!number || !a.empty()) return error(kInvalid);
  if (!target_.read_registers(current_, r)) return error(kNotFound);
  const auto hex = layout_->read(r, *number);
  hex ? reply(*hex) : error(kInvalid);
}

void Stub::write_register(std::string_view a) {
  const auto number = take_number(a);
  DebugRegisters r;
  if (!number || !take_char(a, '=')) return error(kInvalid);
  if (!target_.read_registers(current_, r)) return error(kNotFound);
  if (!layout_->write(r, *number, a)) return error(kReadOnly);
  target_.write_registers(current_, r) ? ok() : error(kNotFound);
}

void Stub::write_all_registers(std::string_view hex) {
  DebugRegisters r;
  if (!target_.read_registers(current_, r)) return error(kNotFound);
  if (!layout_->write_all(r, hex)) return error(kReadOnly);
  target_.write_registers(current_, r) ? ok() : error(kNotFound);
}

void Stub::read_memory(std::string_view a) {
  u64 address, length;
  if (!take_range(a, address, length) || !a.empty()) return error(kInvalid);
  std::vector<u8> bytes(std::min<u64>(length, kPacketBytes / 2));
  const std::size_t n = target_.read_memory(current_, address, bytes);
  if (n == 0 && length != 0) return error(kBadAddress);
  reply(to_hex(std::span{bytes.data(), std::min(n, bytes.size())}));
}

void Stub::write_memory(std::string_view a, bool binary) {
  u64 address, length;
  if (!take_range(a, address, length) || !take_char(a, ':')) return error(kInvalid);
  std::vector<u8> bytes{a.begin(), a.end()};
  if (!binary) {
    auto decoded = from_hex(a);
    if (!decoded) return error(kInvalid);
    bytes = std::move(*decoded);
  }
  if (bytes.size() != length) return error(kInvalid);
  target_.write_memory(current_, address, bytes) == bytes.size() ? ok() : error(kBadAddress);
}

// -- Breakpoints and watchpoints
// -------------------------------------------------------------------------------------------------
void Stub::change_point(bool insert, std::string_view a) {
  if (a.empty()) return error(kInvalid);
  Point p{a.front(), 0, 0};
  a.remove_prefix(1);
  if (p.type < '0' || p.type > '4') return reply("");
  if (!take_char(a, ',') || !take_range(a, p.address, p.length)) return error(kInvalid);
  if (p.type >= '2' && (p.length == 0 || p.length > kLongestWatch)) return error(kInvalid);
  const auto at = std::find(points_.begin(), points_.end(), p);
  if (insert && at == points_.end()) {
    if (points_.size() >= core::DebugMailbox::kStops) return error(kNoSpace);
    points_.push_back(p);
  }
  if (!insert && at != points_.end()) points_.erase(at);
  publish_points();
  ok();
}

void Stub::publish_points() {
  std::vector<core::DebugStop> stops;
  for (const Point& p : points_) {
    const StopKind kind = p.type == '2'   ? StopKind::write
                          : p.type == '3' ? StopKind::read
                          : p.type == '4' ? StopKind::access
                                          : StopKind::execute;
    stops.push_back({p.address, static_cast<u32>(p.length), kind});
  }
  target_.set_stops(stops);
}

bool Stub::has_point(char type, u64 address) const {
  return std::any_of(points_.begin(), points_.end(),
                     [&](const Point& p) { return p.type == type && p.address == address; });
}

// -- Going and stopping
// ------------------------------------------------------------------------------------------------------
void Stub::resume(u64 run_mask, u64 step_mask) {
  running_ = true;
  interrupted_ = false;
  target_.resume(run_mask, step_mask, settings_.step_interrupts);
}

// c [addr], s [addr], C sig[;addr], S sig[;addr]. A signal means nothing to a machine.
void Stub::go(std::string_view packet) {
  const char kind = packet.front();
  packet.remove_prefix(1);
  if (kind == 'C' || kind == 'S') {
    if (!take_number(packet) || (!packet.empty() && !take_char(packet, ';'))) return error(kInvalid);
  }
  const u32 vcpu = to_run_.value_or(current_);
  if (!packet.empty()) {
    const auto address = take_number(packet);
    DebugRegisters r;
    if (!address || !packet.empty() || !target_.read_registers(vcpu, r)) return error(kInvalid);
    r.pc = *address;
    if (!target_.write_registers(vcpu, r)) return error(kInvalid);
  }
  if (kind == 's' || kind == 'S') return resume(0, u64{1} << vcpu);
  resume(to_run_ ? u64{1} << *to_run_ : everyone(), 0);
}

// ;action[:thread]...  The first action that names a thread, or none, is that thread's.
void Stub::go_by_thread(std::string_view actions) {
  u64 run = 0, step = 0, decided = 0;
  while (take_char(actions, ';')) {
    std::string_view action = actions.substr(0, actions.find(';'));
    actions.remove_prefix(action.size());
    if (action.empty()) return error(kInvalid);
    const char kind = action.front();
    action.remove_prefix(1);
    if ((kind == 'C' || kind == 'S') && !take_number(action)) return error(kInvalid);
    u64 threads = everyone();
    if (!action.empty() && !take_char(action, ':')) return error(kInvalid);
    if (!action.empty() && action != "-1" && action != "0") {
      const auto vcpu = vcpu_of(action);
      if (!vcpu) return error(kNotFound);
      threads = u64{1} << *vcpu;
    }
    threads &= ~decided;
    decided |= threads;
    if (kind == 'c' || kind == 'C')
      run |= threads;
    else if (kind == 's' || kind == 'S')
      step |= threads;
    else
      return error(kInvalid);
  }
  if (!actions.empty() || (run | step) == 0) return error(kInvalid);
  resume(run, step);
}

void Stub::stopped(const Stop& stop) {
  if (!running_) return;
  running_ = false;
  stop_ = stop;
  if (stop.report != DebugReport::none || stop.vcpu >= target_.vcpus())
    current_ = stop.vcpu < target_.vcpus() ? stop.vcpu : 0;
  stop_.vcpu = current_;
  to_run_.reset();
  reply(stop_reply());
}

std::string Stub::stop_reply() {
  const int signal = stop_.report == DebugReport::crash                  ? kSigSegv
                     : interrupted_ && stop_.report == DebugReport::none ? kSigInt
                                                                         : kSigTrap;
  return fmt::format("T{:02x}thread:{:x};{}", signal, stop_.vcpu + 1, stop_reason());
}

std::string Stub::stop_reason() {
  if (stop_.report == DebugReport::watchpoint) {
    const char* name = stop_.kind == StopKind::write ? "watch" : stop_.kind == StopKind::read ? "rwatch" : "awatch";
    return fmt::format("{}:{:x};", name, stop_.address);
  }
  DebugRegisters r;
  if (stop_.report != DebugReport::breakpoint || !target_.read_registers(stop_.vcpu, r)) return {};
  if (tells_swbreak_ && has_point('0', r.pc)) return "swbreak:;";
  if (tells_hwbreak_ && has_point('1', r.pc)) return "hwbreak:;";
  return {};
}

void Stub::ended(int code, int signal) {
  if (running_) reply(signal ? fmt::format("X{:02x}", signal & 0xff) : fmt::format("W{:02x}", code & 0xff));
  closed_ = true;
}

void Stub::detach() {
  points_.clear();
  publish_points();
  resume(everyone(), 0);
  ok();
  closed_ = true;
}

void Stub::kill() {
  closed_ = true;
  target_.end();
}

}  // namespace trapline::monitor::gdb
