// The back end's side of a ring of requests and responses (xen/io/ring.h) in one page of the guest's. Its indices are the
// guest's to break: a producer that is further than the ring is long ends the conversation, and each request is copied
// once.
#pragma once

#include <cstring>
#include <optional>
#include <string>

#include "base/result.h"
#include "cpu/code_map.h"
#include "para/xen/domain.h"

namespace trapline::para::xen {

template <class Sring, class Request, class Response>
class SharedRing {
 public:
  static constexpr u32 entries() {
    u32 n = 1;
    while ((n * 2) * sizeof(Sring::ring[0]) <= kPageSize - offsetof(Sring, ring)) n *= 2;
    return n;
  }

  // The page that the front end has granted as `ref`. Error: a line.
  Result<void, std::string> attach(Domain& domain, cpu::Vcpu& cpu, u32 ref) {
    page_ = {ref, true};
    if (!domain.hold_grants(cpu, {&page_, 1}))
      return Err{fmt::format("mapping the ring: grant {} gives domain {} no page to write to", ref, kBackDomain)};
    ring_ = reinterpret_cast<Sring*>(domain.host(page_.frame));
    responses_ = load(ring_->rsp_prod);
    taken_ = responses_;
    return {};
  }
  void detach(Domain& domain, cpu::Vcpu& cpu) {
    domain.release_grants(cpu, {&page_, 1});
    ring_ = nullptr;
  }
  bool attached() const { return ring_ != nullptr; }

  // Does the guest say that there is more than there can be?
  bool overrun() const { return load(ring_->req_prod) - responses_ > entries(); }
  // The next request, if there is one; also looks once more after it has asked to be told of the next.
  std::optional<Request> take() {
    if (!ready()) {
      store(ring_->req_event, taken_ + 1);
      __atomic_thread_fence(__ATOMIC_SEQ_CST);
      if (!ready()) return std::nullopt;
    }
    Request copy;
    std::memcpy(&copy, const_cast<const Request*>(&slot(taken_++).req), sizeof copy);
    asm volatile("" ::: "memory");  // the copy is what is looked at from here on
    return copy;
  }
  u32 unanswered() const { return taken_ - responses_ - pending_; }

  void answer(const Response& response) { std::memcpy(&slot(responses_ + pending_++).rsp, &response, sizeof response); }
  // Shows the answers. True: the front end has asked to be told.
  bool publish(cpu::Vcpu& cpu) {
    if (pending_ == 0) return false;
    const u32 old = responses_;
    responses_ += std::exchange(pending_, 0u);
    __atomic_store_n(&ring_->rsp_prod, responses_, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (cpu.code) cpu.code->written(page_.frame.raw, 0, kPageSize);
    return responses_ - load(ring_->rsp_event) < responses_ - old;
  }

 private:
  static u32 load(const RING_IDX& index) { return __atomic_load_n(&index, __ATOMIC_ACQUIRE); }
  static void store(RING_IDX& index, u32 value) { __atomic_store_n(&index, value, __ATOMIC_RELEASE); }
  auto& slot(u32 index) { return ring_->ring[index & (entries() - 1)]; }
  bool ready() const { return load(ring_->req_prod) != taken_ && taken_ - responses_ - pending_ < entries(); }

  Domain::Held page_{0, true};
  Sring* ring_ = nullptr;
  u32 taken_ = 0, responses_ = 0, pending_ = 0;
};

}  // namespace trapline::para::xen
