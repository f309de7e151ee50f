#include "para/xen/store.h"

#include <cstring>

#include "base/trace.h"
#include "para/xen/backend/back_ends.h"
#include "para/xen/domain.h"
#include "para/xen/serving_lock.h"

namespace trapline::para::xen {

namespace {

constexpr std::string_view kHome = "/local/domain/1", kDevices = "/local/domain/1/device";

xenstore_domain_interface* ring_at(GuestMemory& ram, Mfn page) {
  return reinterpret_cast<xenstore_domain_interface*>(ram.host(gpa(page)));
}

u32 load(const u32& index) { return __atomic_load_n(&index, __ATOMIC_ACQUIRE); }
void store(u32& index, u32 value) { __atomic_store_n(&index, value, __ATOMIC_RELEASE); }

// Up to the NUL; what follows it becomes `rest`.
std::string_view take_string(std::string_view& rest) {
  const std::size_t end = std::min(rest.find('\0'), rest.size());
  const std::string_view text = rest.substr(0, end);
  rest.remove_prefix(std::min(rest.size(), end + 1));
  return text;
}

// Relative paths are the domain's own.
std::string absolute(std::string_view path) {
  if (!path.empty() && (path.front() == '/' || path.front() == '@')) return std::string(path);
  return std::string(kHome) + "/" + std::string(path);
}

bool is_below(std::string_view path, std::string_view above) {
  if (above == "/") return true;
  return path.substr(0, above.size()) == above && (path.size() == above.size() || path[above.size()] == '/');
}

}  // namespace

Store::Store(Domain& domain, GuestMemory& ram, Mfn page, Port port)
    : domain_{domain}, ram_{ram}, page_{page}, port_{port} {
  const std::vector<std::string> readable = {"n0", "r1"}, own = {"n1"}, shared = {"n1", "b0"};
  std::string nobody;
  const auto at = [](std::string_view path) { return std::string(kHome) + std::string(path); };
  set("/local", "", {"r0"}, nobody);
  set("/local/domain", "", {"r0"}, nobody);
  set(kHome, "", readable, nobody);
  set(at("/domid"), "1", readable, nobody);
  set(at("/name"), "trapline", readable, nobody);
  set(at("/vm"), "/vm/74726170-6c69-6e65-0000-000000000000", readable, nobody);
  set(at("/memory"), "", readable, nobody);
  set(at("/memory/target"), std::to_string(domain.layout().pages() * 4), readable, nobody);
  set(at("/memory/static-max"), std::to_string(domain.layout().pages() * 4), readable, nobody);
  set(at("/cpu"), "", readable, nobody);
  for (unsigned i = 0; i < domain.vcpus(); i++) {
    set(at("/cpu/" + std::to_string(i)), "", readable, nobody);
    set(at("/cpu/" + std::to_string(i) + "/availability"), "online", readable, nobody);
  }
  set(at("/control"), "", readable, nobody);
  for (const char* node : {"shutdown", "sysrq", "feature-poweroff", "feature-reboot", "feature-suspend",
                           "feature-balloon", "platform-feature-multiprocessor-suspend"})
    set(at("/control/") + node, "", shared, nobody);
  set(at("/device"), "", readable, nobody);
  set(at("/data"), "", own, nobody);
  set(at("/drivers"), "", own, nobody);
  set(at("/error"), "", own, nobody);
  set(at("/attr"), "", own, nobody);
}

void Store::append(std::string& out, u32 type, u32 id, u32 transaction, std::string_view payload) {
  const xsd_sockmsg header{type, id, transaction, static_cast<u32>(payload.size())};
  out.append(reinterpret_cast<const char*>(&header), sizeof header);
  out.append(payload);
}

void Store::append_event(const Watch& watch, std::string_view path, std::string& out) {
  // A watch that was given by a relative path hears relative ones.
  std::string text(path);
  if (watch.as_given != watch.path && is_below(path, kHome))
    text = text.substr(std::min(text.size(), kHome.size() + 1));
  text.push_back('\0');
  text += watch.token;
  text.push_back('\0');
  if (out.size() + text.size() < kMostOut) append(out, XS_WATCH_EVENT, 0, 0, text);
}

void Store::fire(std::string_view path, bool removed, std::string& out) {
  for (const Watch& watch : watches_) {
    if (is_below(path, watch.path))
      append_event(watch, path, out);
    else if (removed && is_below(watch.path, path))
      append_event(watch, watch.path, out);
  }
}

void Store::set(std::string_view path, std::string_view value, std::vector<std::string> permissions, std::string& out) {
  if (tree_.write(path, value, 0) != StoreError::none) return;
  if (!permissions.empty()) static_cast<void>(tree_.set_permissions(path, std::move(permissions), 0));
  generation_++;
  fire(path, false, out);
}

// -- Requests

StoreError Store::begin(std::string& payload) {
  if (transactions_.size() >= kMostTransactions) return StoreError::no_space;
  while (next_transaction_ == 0 || transactions_.count(next_transaction_)) next_transaction_++;
  transactions_[next_transaction_] = {tree_, generation_, {}};
  payload = std::to_string(next_transaction_++);
  payload.push_back('\0');
  return StoreError::none;
}

// All or nothing, and nothing if anybody changed the tree meanwhile.
StoreError Store::end(const Request& r, std::string& events) {
  const auto t = transactions_.find(r.transaction);
  if (t == transactions_.end()) return StoreError::not_found;
  const bool commits = !r.payload.empty() && r.payload.front() == 'T';
  if (!commits && (r.payload.empty() || r.payload.front() != 'F')) return StoreError::invalid;
  Transaction done = std::move(t->second);
  transactions_.erase(t);
  if (!commits || done.changed.empty()) return StoreError::none;
  if (done.based_on != generation_) return StoreError::again;
  tree_ = std::move(done.tree);
  generation_++;
  for (const std::string& path : done.changed) {
    fire(path.substr(1), path[0] == '-', events);
    note_change(path.substr(1), path[0] == '-');
  }
  return StoreError::none;
}

StoreError Store::add_watch(const Request& r, std::string& events) {
  std::string_view rest = r.payload;
  const std::string_view given = take_string(rest), token = take_string(rest);
  const std::string path = absolute(given);
  if (path.front() != '@' && !StoreTree::valid_path(path)) return StoreError::invalid;
  for (const Watch& w : watches_)
    if (w.path == path && w.token == token) return StoreError::exists;
  if (watches_.size() >= kMostWatches || token.size() > 256) return StoreError::no_space;
  watches_.push_back({path, std::string(given), std::string(token)});
  append_event(watches_.back(), path, events);
  return StoreError::none;
}

StoreError Store::remove_watch(const Request& r) {
  std::string_view rest = r.payload;
  const std::string path = absolute(take_string(rest));
  const std::string_view token = take_string(rest);
  for (auto w = watches_.begin(); w != watches_.end(); ++w)
    if (w->path == path && w->token == token) {
      watches_.erase(w);
      return StoreError::none;
    }
  return StoreError::not_found;
}

StoreError Store::change(const Request& r, std::string_view path, StoreTree& tree) {
  std::string_view rest = r.payload;
  take_string(rest);
  switch (r.type) {
    case XS_WRITE:
      return tree.write(path, rest, kDomain);
    case XS_MKDIR:
      return tree.make(path, kDomain);
    case XS_RM:
      return tree.remove(path, kDomain);
    default: {
      std::vector<std::string> permissions;
      while (!rest.empty()) permissions.emplace_back(take_string(rest));
      return tree.set_permissions(path, std::move(permissions), kDomain);
    }
  }
}

StoreError Store::answer(const Request& r, std::string& payload, std::string& events) {
  switch (r.type) {
    case XS_TRANSACTION_START:
      return r.transaction != 0 ? StoreError::busy : begin(payload);
    case XS_TRANSACTION_END: {
      payload = std::string("OK") + '\0';
      return end(r, events);
    }
    case XS_WATCH:
      payload = std::string("OK") + '\0';
      return add_watch(r, events);
    case XS_UNWATCH:
      payload = std::string("OK") + '\0';
      return remove_watch(r);
    case XS_RESET_WATCHES:
      payload = std::string("OK") + '\0';
      watches_.clear();
      transactions_.clear();
      return StoreError::none;
    case XS_GET_DOMAIN_PATH: {
      std::string_view rest = r.payload;
      payload = "/local/domain/" + std::string(take_string(rest)) + '\0';
      return StoreTree::valid_path(std::string_view(payload).substr(0, payload.size() - 1)) ? StoreError::none
                                                                                            : StoreError::invalid;
    }
    case XS_CONTROL:
    case XS_INTRODUCE:
    case XS_RELEASE:
    case XS_RESUME:
    case XS_SET_TARGET:
    case XS_IS_DOMAIN_INTRODUCED:
      return StoreError::access;
    case XS_DIRECTORY:
    case XS_READ:
    case XS_GET_PERMS:
    case XS_WRITE:
    case XS_MKDIR:
    case XS_RM:
    case XS_SET_PERMS:
      break;
    default:
      return StoreError::unsupported;
  }
  Transaction* transaction = nullptr;
  if (r.transaction != 0) {
    const auto t = transactions_.find(r.transaction);
    if (t == transactions_.end()) return StoreError::not_found;
    transaction = &t->second;
  }
  StoreTree& tree = transaction ? transaction->tree : tree_;
  std::string_view rest = r.payload;
  const std::string path = absolute(take_string(rest));
  if (!StoreTree::valid_path(path)) return StoreError::invalid;
  if (r.type != XS_DIRECTORY && r.type != XS_READ && r.type != XS_GET_PERMS) {
    payload = std::string("OK") + '\0';
    if (const StoreError e = change(r, path, tree); e != StoreError::none) return e;
    if (transaction) {
      if (transaction->changed.size() >= 4096) return StoreError::no_space;
      transaction->changed.push_back((r.type == XS_RM ? "-" : "+") + path);
    } else {
      generation_++;
      fire(path, r.type == XS_RM, events);
      note_change(path, r.type == XS_RM);
    }
    return StoreError::none;
  }
  const StoreNode* node = nullptr;
  if (const StoreError e = tree.read(path, kDomain, &node); e != StoreError::none) return e;
  if (r.type == XS_READ) payload = node->value;
  if (r.type == XS_DIRECTORY)
    for (const auto& [name, child] : node->children) payload += name + '\0';
  if (r.type == XS_GET_PERMS)
    for (const std::string& p : node->permissions) payload += p + '\0';
  return payload.size() > XENSTORE_PAYLOAD_MAX ? StoreError::too_big : StoreError::none;
}

void Store::handle(std::string_view request, std::string& out) {
  xsd_sockmsg header;
  std::memcpy(&header, request.data(), sizeof header);
  const Request r{header.type, header.req_id, header.tx_id, request.substr(sizeof header)};
  std::string payload, events;
  const StoreError error = answer(r, payload, events);
  TRACE(devices, "xenstore: {} {:?} -> {}", r.type, std::string(r.payload.substr(0, r.payload.find('\0'))),
        name_of(error));
  if (error == StoreError::none)
    append(out, r.type, r.id, r.transaction, payload);
  else
    append(out, XS_ERROR, r.id, r.transaction, std::string(name_of(error)) + '\0');
  out += events;
}

// -- The ring

// Moves what can be moved; true if the guest has something to look at. A ring whose indices make no sense, or a request
// that is too long, ends the conversation as the protocol's error field says.
bool Store::pump(cpu::Vcpu&) {
  xenstore_domain_interface* ring = ring_at(ram_, page_);
  bool moved = false;
  for (;;) {
    bool progress = false;
    const u32 from = ring->req_cons, ready = load(ring->req_prod) - from;
    if (ready > XENSTORE_RING_SIZE) {
      ring->error = XENSTORE_ERROR_RINGIDX;
      return true;
    }
    if (ready != 0 && out_.empty()) {
      for (u32 i = 0; i < ready; i++) in_.push_back(ring->req[MASK_XENSTORE_IDX(from + i)]);
      store(ring->req_cons, from + ready);
      progress = true;
    }
    xsd_sockmsg header;
    while (in_.size() >= sizeof header && out_.size() < kMostOut / 2) {
      std::memcpy(&header, in_.data(), sizeof header);
      if (header.len > XENSTORE_PAYLOAD_MAX) {
        ring->error = XENSTORE_ERROR_PROTO;
        in_.clear();
        return true;
      }
      if (in_.size() < sizeof header + header.len) break;
      const std::string request = in_.substr(0, sizeof header + header.len);
      in_.erase(0, request.size());
      handle(request, out_);
      progress = true;
    }
    const u32 to = ring->rsp_prod, used = to - load(ring->rsp_cons);
    if (used <= XENSTORE_RING_SIZE && !out_.empty()) {
      const u32 n = static_cast<u32>(std::min<std::size_t>(out_.size(), XENSTORE_RING_SIZE - used));
      for (u32 i = 0; i < n; i++) ring->rsp[MASK_XENSTORE_IDX(to + i)] = out_[i];
      store(ring->rsp_prod, to + n);
      out_.erase(0, n);
      progress |= n != 0;
    }
    moved |= progress;
    if (!progress) return moved;
  }
}

void Store::notified(cpu::Vcpu& cpu) {
  bool news = false;
  domain_.back_ends().set_up(cpu);
  {
    const ServingLock held{lock_, cpu};
    news = pump(cpu);
  }
  if (news) domain_.raise(port_);
  domain_.back_ends().store_changed(cpu);
}

// -- For back ends

void Store::put(cpu::Vcpu& cpu, const std::vector<Entry>& entries) {
  bool news = false;
  {
    const ServingLock held{lock_, cpu};
    for (const Entry& e : entries) set(e.path, e.value, e.permissions, out_);
    news = pump(cpu);
  }
  if (news) domain_.raise(port_);
}

std::optional<std::string> Store::value(cpu::Vcpu& cpu, std::string_view path) {
  const ServingLock held{lock_, cpu};
  const StoreNode* node = nullptr;
  if (tree_.read(path, 0, &node) != StoreError::none) return std::nullopt;
  return node->value;
}

std::vector<Store::Change> Store::take_changes(cpu::Vcpu& cpu) {
  const ServingLock held{lock_, cpu};
  return std::exchange(changes_, {});
}

// In their order, and with the values of that moment: several may come before anybody looks.
void Store::note_change(std::string_view path, bool removed) {
  if (changes_.size() >= kMostChanges) return;
  if (!is_below(path, kDevices) && !(removed && is_below(kDevices, path))) return;
  const StoreNode* node = nullptr;
  const bool there = !removed && tree_.read(path, 0, &node) == StoreError::none;
  changes_.push_back({std::string(path), there ? std::optional{node->value} : std::nullopt});
}

}  // namespace trapline::para::xen
