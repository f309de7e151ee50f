// A disk that a server has, read by the NBD protocol: the one way to what is in a qcow2 image. One thread.
#pragma once

#include "volume/source.h"

namespace trapline::volume {

class NbdSource final : public Source {
 public:
  // `socket`: behind the handshake, which has named `bytes`. Stays the caller's.
  NbdSource(int socket, u64 bytes) : socket_{socket}, bytes_{bytes} {}
  u64 size() const override { return bytes_; }
  bool read(u64 offset, std::span<u8> to) const override;

 private:
  bool read_part(u64 offset, std::span<u8> to) const;
  int socket_;
  u64 bytes_;
  mutable u64 handle_ = 0;
  mutable bool broken_ = false;  // out of step with the server: nothing that it says means anything
};

}  // namespace trapline::volume
