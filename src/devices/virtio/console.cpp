#include "devices/virtio/console.h"

namespace trapline::devices::virtio {

namespace {

constexpr u64 kMultiport = 1 << 1;  // VIRTIO_CONSOLE_F_MULTIPORT
constexpr u16 kQueueSize = 128;
constexpr std::size_t kMostWaiting = 1024;  // control messages

namespace event {
constexpr u16 device_ready = 0, port_add = 1, port_ready = 3, port_open = 6, port_name = 7;
}

struct Config {
  u16 columns, rows;
  u32 ports;
  u32 emergency;
};

std::vector<u16> queues_for(std::size_t ports) { return std::vector<u16>(2 + 2 * ports, kQueueSize); }

}  // namespace

Console::Console(std::vector<Port> ports)
    : Backend{{.type = 3,
               .name = "virtio-console",
               .class_code = 0x078000,
               .features = kMultiport,
               .queues = queues_for(ports.size())}},
      ports_{std::move(ports)},
      open_(ports_.size()) {}

void Console::read_config(u64 offset, std::span<u8> out) const {
  copy_config(Config{0, 0, static_cast<u32>(ports_.size()), 0}, offset, out);
}

void Console::start(u64) {
  std::lock_guard guard{lock_};
  open_.assign(ports_.size(), false);
  waiting_.clear();
}

// Which ports are open, a byte each; then the messages that wait, each behind its length.
std::vector<u8> Console::save() const {
  std::lock_guard guard{lock_};
  std::vector<u8> state(open_.begin(), open_.end());
  for (const auto& message : waiting_) {
    state.push_back(static_cast<u8>(message.size()));
    state.insert(state.end(), message.begin(), message.end());
  }
  return state;
}

void Console::restore(std::span<const u8> state, u64) {
  std::lock_guard guard{lock_};
  waiting_.clear();
  open_.assign(ports_.size(), false);
  if (state.size() < ports_.size()) return;
  for (std::size_t i = 0; i < ports_.size(); i++) open_[i] = state[i] != 0;
  for (state = state.subspan(ports_.size()); !state.empty();) {
    const std::size_t bytes = std::min<std::size_t>(state[0], state.size() - 1);
    waiting_.emplace_back(state.begin() + 1, state.begin() + 1 + static_cast<std::ptrdiff_t>(bytes));
    state = state.subspan(1 + bytes);
  }
}

void Console::serve(unsigned index) {
  if (index == kControlOut) return receive_control();
  if (index == kControlIn) return tell_waiting();
  for (unsigned port = 0; port < ports_.size(); port++) {
    if (index == in_queue(port)) ports_[port].end.may_send();
    if (index == out_queue(port)) receive(port);
  }
}

void Console::receive(unsigned port) {
  Queue& q = queue(out_queue(port));
  serve_all(q, [&](Request&& request) {
    for (const Segment& s : request.readable()) ports_[port].end.received(s.bytes);
    q.finish(std::move(request), 0);
  });
}

std::size_t Console::send(unsigned port, std::span<const u8> bytes) {
  std::lock_guard in_order{sending_};
  {
    std::lock_guard guard{lock_};
    if (!open_[port]) return 0;
  }
  Queue& q = queue(in_queue(port));
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    auto request = q.next();
    if (!request) {
      if (q.listen()) continue;
      break;
    }
    const std::size_t count = std::min<std::size_t>(bytes.size() - sent, request->writable_bytes());
    request->write(0, std::as_bytes(bytes.subspan(sent, count)));
    q.complete(std::move(*request), static_cast<u32>(count));
    sent += count;
  }
  if (sent > 0) q.signal();
  return sent;
}

void Console::receive_control() {
  Queue& q = queue(kControlOut);
  serve_all(q, [&](Request&& request) {
    Control message{};
    if (request.read(0, message)) obey(message);
    q.finish(std::move(request), 0);
  });
}

void Console::obey(const Control& message) {
  if (message.event == event::device_ready) {
    if (message.value == 1)
      for (u32 port = 0; port < ports_.size(); port++) tell({port, event::port_add, 1});
    return;
  }
  if (message.port >= ports_.size()) return;
  if (message.event == event::port_ready && message.value == 1) {
    tell({message.port, event::port_name, 1}, ports_[message.port].name);
    tell({message.port, event::port_open, 1});
  }
  if (message.event == event::port_open) {
    {
      std::lock_guard guard{lock_};
      open_[message.port] = message.value != 0;
    }
    if (message.value != 0) ports_[message.port].end.may_send();
  }
}

void Console::tell(const Control& message, std::string_view text) {
  std::vector<u8> bytes(sizeof message + text.size());
  std::memcpy(bytes.data(), &message, sizeof message);
  if (!text.empty()) std::memcpy(bytes.data() + sizeof message, text.data(), text.size());
  {
    std::lock_guard guard{lock_};
    if (waiting_.size() < kMostWaiting) waiting_.push_back(std::move(bytes));
  }
  tell_waiting();
}

// `lock_` is not held while a request is answered: that may wait for the guest, which may wait for start().
void Console::tell_waiting() {
  std::lock_guard in_order{telling_};
  Queue& q = queue(kControlIn);
  bool told = false;
  for (std::vector<u8> message; take_waiting(message);) {
    auto request = q.next();
    while (!request && q.listen()) request = q.next();
    if (!request) {
      std::lock_guard guard{lock_};
      waiting_.push_front(std::move(message));
      break;
    }
    const bool fits = request->write(0, std::as_bytes(std::span{message}));
    q.complete(std::move(*request), fits ? static_cast<u32>(message.size()) : 0);
    told = true;
  }
  if (told) q.signal();
}

bool Console::take_waiting(std::vector<u8>& message) {
  std::lock_guard guard{lock_};
  if (waiting_.empty()) return false;
  message = std::move(waiting_.front());
  waiting_.pop_front();
  return true;
}

}  // namespace trapline::devices::virtio
