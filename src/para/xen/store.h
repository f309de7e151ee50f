// The xenstore that the guest speaks to over its ring (xen/io/xs_wire.h): requests, transactions, watches. It lives
// with the guest in the sandboxed core: there is no other domain whose secrets it could keep.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/guest_memory.h"
#include "cpu/vcpu.h"
#include "para/xen/event_channels.h"
#include "para/xen/layout.h"
#include "para/xen/store_tree.h"

namespace trapline::para::xen {

class Domain;

class Store {
 public:
  Store(Domain& domain, GuestMemory& ram, Mfn page, Port port);
  void notified(cpu::Vcpu& cpu);  // the guest has sent
  // One request as it lies in the ring, header and payload. Answers and events are appended to `out`. For tests too.
  void handle(std::string_view request, std::string& out);
  // For back ends, which take the lock themselves: no permission is asked for, and watches fire.
  struct Entry {
    std::string path, value;
    std::vector<std::string> permissions;  // empty: as they are
  };
  void put(cpu::Vcpu& cpu, const std::vector<Entry>& entries);
  std::optional<std::string> value(cpu::Vcpu& cpu, std::string_view path);
  // What the guest has changed below /local/domain/1/device since the last call.
  struct Change {
    std::string path;
    std::optional<std::string> value;  // nothing: removed
  };
  std::vector<Change> take_changes(cpu::Vcpu& cpu);
  // Before the guest speaks, or under the lock: as put().
  void set(std::string_view path, std::string_view value, std::vector<std::string> permissions, std::string& out);
  const StoreTree& tree() const { return tree_; }

 private:
  static constexpr unsigned kMostTransactions = 10, kMostWatches = 128, kMostChanges = 256;
  static constexpr std::size_t kMostOut = 256 * KiB;
  struct Transaction {
    StoreTree tree;
    u64 based_on;
    std::vector<std::string> changed;
  };
  struct Watch {
    std::string path, as_given, token;
  };
  struct Request {
    u32 type, id, transaction;
    std::string_view payload;
  };

  StoreError answer(const Request& r, std::string& payload, std::string& events);
  StoreError begin(std::string& payload);
  StoreError end(const Request& r, std::string& events);
  StoreError add_watch(const Request& r, std::string& events);
  StoreError remove_watch(const Request& r);
  StoreError change(const Request& r, std::string_view path, StoreTree& tree);
  void fire(std::string_view path, bool removed, std::string& out);
  void note_change(std::string_view path, bool removed);
  void append_event(const Watch& watch, std::string_view path, std::string& out);
  static void append(std::string& out, u32 type, u32 id, u32 transaction, std::string_view payload);
  bool pump(cpu::Vcpu& cpu);

  Domain& domain_;
  GuestMemory& ram_;
  Mfn page_;
  Port port_;
  StoreTree tree_;
  u64 generation_ = 1;
  std::map<u32, Transaction> transactions_;
  u32 next_transaction_ = 1;
  std::vector<Watch> watches_;
  std::vector<Change> changes_;
  std::string in_, out_;
  std::mutex lock_;
};

}  // namespace trapline::para::xen
