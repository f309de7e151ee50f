#include "para/xen/backend/back_end.h"

#include <fmt/format.h>

#include <charconv>

#include "base/trace.h"
#include "para/xen/serving_lock.h"

namespace trapline::para::xen {

namespace {

const std::vector<std::string> kFrontPermissions = {"n1", "r0"}, kBackPermissions = {"n0", "r1"};

template <class T>
std::optional<T> parsed(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc{} || end != text.end()) return std::nullopt;
  return value;
}

}  // namespace

BackEnd::BackEnd(Domain& domain, const char* kind, u32 number, Consumer consumer, u32 instance)
    : domain_{domain},
      consumer_{consumer},
      instance_{instance},
      kind_{kind},
      front_{fmt::format("/local/domain/{}/device/{}/{}", kDomain, kind, number)},
      back_{fmt::format("/local/domain/{}/backend/{}/{}/{}", kBackDomain, kind, kDomain, number)} {}

void BackEnd::announce(cpu::Vcpu& cpu) {
  std::vector<Store::Entry> all;
  all.push_back({front_, "", kFrontPermissions});
  all.push_back({back_, "", kBackPermissions});
  const auto add = [&all](const std::string& folder, const std::vector<std::string>& permissions, const Nodes& nodes) {
    for (const auto& [name, value] : nodes) all.push_back({fmt::format("{}/{}", folder, name), value, permissions});
  };
  add(back_, kBackPermissions,
      {{"frontend", front_},
       {"frontend-id", std::to_string(kDomain)},
       {"online", "1"},
       {"hotplug-status", "connected"}});
  add(back_, kBackPermissions, back_nodes());
  add(front_, kFrontPermissions, {{"backend", back_}, {"backend-id", std::to_string(kBackDomain)}});
  add(front_, kFrontPermissions, front_nodes());
  state_ = XenbusStateInitWait;
  add(back_, kBackPermissions, {{"state", std::to_string(state_)}});
  add(front_, kFrontPermissions, {{"state", std::to_string(XenbusStateInitialising)}});
  domain_.store().put(cpu, all);
}

// -- States

void BackEnd::change_state(cpu::Vcpu& cpu, XenbusState to) {
  if (state_ == to) return;
  TRACE(devices, "xen: {}: {} -> {}", back_, static_cast<int>(state_), static_cast<int>(to));
  state_ = to;
  domain_.store().put(cpu, {{back_ + "/state", std::to_string(to), {}}});
}

void BackEnd::fail(cpu::Vcpu& cpu, const std::string& why) {
  TRACE(devices, "xen: {}: {}", back_, why);
  const std::string node = fmt::format("/local/domain/{}/error{}", kBackDomain, back_.substr(back_.find("/backend/")));
  domain_.store().put(cpu, {{node + "/error", why, kBackPermissions}, {back_ + "/error", why, kBackPermissions}});
  leave(cpu, XenbusStateClosed);
}

// No more requests; what the device has still is waited for.
void BackEnd::leave(cpu::Vcpu& cpu, XenbusState to) {
  leaving_ = connected_;
  if (leaving_ && idle()) {
    disconnect(cpu);
    leaving_ = connected_ = false;
  }
  if (!leaving_) change_state(cpu, to);
}

void BackEnd::advance(cpu::Vcpu& cpu) {
  switch (front_state_) {
    case XenbusStateInitialising:  // the first time, or again: a kernel that was started by another begins so
      leave(cpu, XenbusStateInitWait);
      break;
    case XenbusStateInitialised:
    case XenbusStateConnected:
      if (connected_) break;
      if (auto ok = connect(cpu); !ok) return fail(cpu, ok.error());
      connected_ = true;
      change_state(cpu, XenbusStateConnected);
      after(cpu, serve(cpu));  // what was sent before there was a port
      break;
    case XenbusStateClosing:
      change_state(cpu, XenbusStateClosing);
      break;
    case XenbusStateUnknown:
    case XenbusStateClosed:
      leave(cpu, XenbusStateClosed);
      break;
    default:
      break;
  }
}

void BackEnd::after(cpu::Vcpu& cpu, const Result<void, std::string>& result) {
  if (!result) return fail(cpu, result.error());
  if (!leaving_ || !idle()) return;
  disconnect(cpu);
  leaving_ = connected_ = false;
  change_state(cpu, XenbusStateClosed);
  if (front_state_ == XenbusStateInitialising) advance(cpu);
}

void BackEnd::store_changed(cpu::Vcpu& cpu, const Store::Change& change) {
  const std::string node = front_ + "/state";
  const bool above = !change.value && node.compare(0, change.path.size() + 1, change.path + "/") == 0;
  if (change.path != node && !above) return;
  const ServingLock held{lock_, cpu};
  const auto value = above || !change.value ? 0u : parsed<u32>(*change.value).value_or(0u);
  const auto now = value <= XenbusStateReconfigured ? static_cast<XenbusState>(value) : XenbusStateUnknown;
  if (now == front_state_) return;
  front_state_ = now;
  advance(cpu);
}

void BackEnd::notified(cpu::Vcpu& cpu) {
  const ServingLock held{lock_, cpu};
  if (connected_ && !leaving_) after(cpu, serve(cpu));
}

void BackEnd::interrupted(cpu::Vcpu& cpu) {
  const ServingLock held{lock_, cpu};
  if (!connected_) return;
  auto done = complete(cpu);
  if (done && !leaving_) done = serve(cpu);
  after(cpu, done);
}

// -- What the front end has written

std::optional<std::string> BackEnd::front_value(cpu::Vcpu& cpu, const char* node) {
  return domain_.store().value(cpu, fmt::format("{}/{}", front_, node));
}

Result<u32, std::string> BackEnd::front_number(cpu::Vcpu& cpu, const char* node) {
  const auto text = front_value(cpu, node);
  if (!text) return Err{fmt::format("reading {}/{}: there is none", front_, node)};
  const auto value = parsed<u32>(*text);
  if (!value) return Err{fmt::format("{}/{} is no number: {:?}", front_, node, text->substr(0, 32))};
  return *value;
}

Result<void, std::string> BackEnd::check_protocol(cpu::Vcpu& cpu) {
  const auto protocol = front_value(cpu, "protocol");
  if (protocol && *protocol != XEN_IO_PROTO_ABI_X86_64)
    return Err{
        fmt::format("{}/protocol is {:?}, only {} is known", front_, protocol->substr(0, 32), XEN_IO_PROTO_ABI_X86_64)};
  return {};
}

Result<void, std::string> BackEnd::connect_port(cpu::Vcpu& cpu, const char* node, Port* port) {
  const auto number = front_number(cpu, node);
  if (!number) return Err{number.error()};
  if (!domain_.connect_port(*number, consumer_, instance_))
    return Err{fmt::format("{}/{}: port {} does not wait for domain {}", front_, node, *number, kBackDomain)};
  *port = *number;
  return {};
}

}  // namespace trapline::para::xen
