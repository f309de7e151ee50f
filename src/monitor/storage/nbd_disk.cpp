// A disk behind an NBD server. Requests are sent by the device's worker, answers taken by a thread of the disk's own,
// which alone finishes jobs: so the memory of one is in use until then, however the connection ends.
//
// A server that is gone, or does not keep to the protocol, is one line for the user, and errors for the guest from then
// on. One that does not answer while the VM ends is waited for kPatience.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <map>

#include "base/host_refused.h"
#include "monitor/storage/file_disk.h"
#include "monitor/storage/nbd_server.h"
#include "monitor/storage/raw_file.h"

namespace trapline::monitor {

namespace {

using devices::virtio::DiskJob;
using nbd::Command;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPatience{5000};
constexpr int kLookAgainMs = 100;
constexpr std::chrono::seconds kLastFlush{30};  // for the server to write what it holds back, and end

class NbdDisk final : public FileDisk {
 public:
  NbdDisk(OpenDisk disk, DiskMode mode, Complain complain, Fd stop)
      : FileDisk{std::move(disk)}, mode_{mode}, complain_{std::move(complain)}, stop_{std::move(stop)} {}
  ~NbdDisk() override;

  void submit(std::unique_ptr<DiskJob> job) override;
  void go() override {}
  std::vector<int> calls() const override { return {SYS_sendmsg, SYS_recvmsg, SYS_shutdown}; }
  std::vector<std::function<void()>> threads() override;
  void stop() override;
  void settle() override;

 private:
  struct Pending {
    std::unique_ptr<DiskJob> job;
    std::atomic<unsigned> parts{0};
    std::atomic<int> error{0};
  };
  struct Part {
    std::shared_ptr<Pending> whole;
    std::vector<iovec> reads;  // where the answer's data goes
  };
  enum class Got { bytes, nothing, end };

  nbd::Request request_for(const DiskJob& job) const;
  void send_part(const std::shared_ptr<Pending>& whole, nbd::Request request, u64 skip);
  bool transmit(std::vector<iovec> all);
  void reap();
  bool take_reply(bool waits);
  Got receive(std::vector<iovec> to, bool waits);
  void complete(Part&& part, int error);
  void lose(const std::string& why);
  bool out_of_patience() const;
  bool idle();

  const NbdServer& server() const { return *disk_.server; }
  int socket() const { return disk_.server->socket.get(); }

  const DiskMode mode_;
  const Complain complain_;
  Fd stop_;  // an eventfd
  std::atomic<bool> stopping_{false};
  std::atomic<steady_clock::rep> give_up_{0};  // once stopping: when
  std::mutex lock_;
  std::map<u64, Part> parts_;  // sent, or being sent, and not answered; under lock_
  bool lost_ = false;          // under lock_
  u64 next_handle_ = 1;        // the submitting thread's
};

nbd::Request NbdDisk::request_for(const DiskJob& job) const {
  nbd::Request request{.command = Command::flush};
  const u16 fua = job.through ? nbd::kFua : u16{0};
  switch (job.kind) {
    case DiskJob::Kind::read:
      request.command = Command::read;
      break;
    case DiskJob::Kind::write:
      request.command = Command::write;
      request.flags = fua;
      break;
    case DiskJob::Kind::write_zeroes:
      request.command = Command::write_zeroes;
      request.flags = static_cast<u16>(fua | (job.unmap ? 0 : nbd::kNoHole));
      break;
    case DiskJob::Kind::discard:
      request.command = Command::trim;
      break;
    case DiskJob::Kind::flush:
      return request;
  }
  request.offset = job.offset;
  return request;
}

void NbdDisk::submit(std::unique_ptr<DiskJob> job) {
  const bool flushes = job->kind == DiskJob::Kind::flush;
  if (!flushes && job->bytes == 0) return finish(std::move(job), 0);  // the protocol has no such request
  nbd::Request request = request_for(*job);
  const u64 bytes = job->bytes;
  const u64 most = job->data.empty() ? u64{1} << 30 : nbd::kMostPayload;
  auto whole = std::make_shared<Pending>();
  whole->job = std::move(job);
  whole->parts = flushes ? 1 : static_cast<unsigned>((bytes + most - 1) / most);
  if (flushes) return send_part(whole, request, 0);
  for (u64 done = 0; done < bytes; done += most) {
    nbd::Request part = request;
    part.offset = request.offset + done;
    part.length = static_cast<u32>(std::min(most, bytes - done));
    send_part(whole, part, done);
  }
}

// The job may be finished, and gone, as soon as it is in `parts_`.
void NbdDisk::send_part(const std::shared_ptr<Pending>& whole, nbd::Request request, u64 skip) {
  request.handle = next_handle_++;
  const bool reads = request.command == Command::read, writes = request.command == Command::write;
  std::vector<iovec> data;
  if (reads || writes) data = part_of(whole->job->data, skip, request.length);
  nbd::RequestBytes head = nbd::encode(request);
  std::vector<iovec> all{{head.data(), head.size()}};
  if (writes) all.insert(all.end(), data.begin(), data.end());
  bool lost = false;
  {
    std::lock_guard guard{lock_};
    lost = lost_;
    if (!lost) parts_.emplace(request.handle, Part{whole, reads ? std::move(data) : std::vector<iovec>{}});
  }
  if (lost) return complete({whole, {}}, EIO);
  if (!transmit(std::move(all))) ::shutdown(socket(), SHUT_RDWR);  // which the other thread hears
  if (mode_ == DiskMode::at_once)
    while (!idle() && take_reply(true)) {
    }
}

// All of it. With poll(), so that an end of the VM is heard however slow the server is.
bool NbdDisk::transmit(std::vector<iovec> all) {
  for (std::size_t first = 0; first < all.size();) {
    msghdr message{};
    message.msg_iov = &all[first];
    message.msg_iovlen = std::min<std::size_t>(all.size() - first, 1024);
    ssize_t n = ::sendmsg(socket(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      pollfd ready{socket(), POLLOUT, 0};
      ::poll(&ready, 1, kLookAgainMs);
      if (out_of_patience()) return false;
      continue;
    }
    if (n < 0) return false;
    for (; n > 0 && first < all.size(); first++) {
      const auto done = std::min<std::size_t>(static_cast<std::size_t>(n), all[first].iov_len);
      n -= static_cast<ssize_t>(done);
      all[first].iov_base = static_cast<char*>(all[first].iov_base) + done;
      if ((all[first].iov_len -= done) != 0) break;
    }
  }
  return true;
}

std::vector<std::function<void()>> NbdDisk::threads() {
  stopping_ = false;
  u64 count = 0;
  [[maybe_unused]] const ssize_t n = ::read(stop_.get(), &count, sizeof count);  // that of the life before
  return {[this] { reap(); }};
}

void NbdDisk::stop() {
  give_up_ = (steady_clock::now() + kPatience).time_since_epoch().count();
  stopping_ = true;
  const u64 one = 1;
  [[maybe_unused]] const ssize_t n = ::write(stop_.get(), &one, sizeof one);
}

bool NbdDisk::out_of_patience() const { return stopping_ && steady_clock::now().time_since_epoch().count() > give_up_; }

bool NbdDisk::idle() {
  std::lock_guard guard{lock_};
  return parts_.empty();
}

void NbdDisk::reap() {
  while (!stopping_ || !idle()) {
    pollfd ready[] = {{stop_.get(), POLLIN, 0}, {socket(), POLLIN, 0}};
    if (stopping_) {
      take_reply(true);
    } else if (::poll(ready, 2, -1) > 0 && ready[1].revents != 0) {
      bool lives = take_reply(true);
      while (lives && take_reply(false)) {
      }
      listener_->some_done();
      if (!lives) break;
    }
  }
  listener_->some_done();
}

void NbdDisk::settle() {
  while (!idle() && take_reply(true)) {
  }
}

// False: there is none (yet), or there will be no more.
bool NbdDisk::take_reply(bool waits) {
  std::array<u8, nbd::kReplyBytes> bytes{};
  const Got got = receive({{bytes.data(), bytes.size()}}, waits);
  if (got == Got::nothing) return false;
  if (got == Got::end) return lose("it has ended"), false;
  const auto reply = nbd::decode(bytes);
  std::map<u64, Part>::node_type node;
  std::vector<iovec> reads;
  {
    std::lock_guard guard{lock_};
    const auto found = reply ? parts_.find(reply->handle) : parts_.end();
    if (found != parts_.end()) reads = found->second.reads;
  }
  bool ends = !reply;
  if (reply && reply->error == 0 && !reads.empty()) ends = receive(std::move(reads), true) != Got::bytes;
  if (!ends) {
    std::lock_guard guard{lock_};
    node = parts_.extract(reply->handle);
  }
  if (!node) return lose("it does not keep to the NBD protocol, or has ended"), false;
  complete(std::move(node.mapped()), reply->error == 0 ? 0 : static_cast<int>(std::min<u32>(reply->error, 4095)));
  return true;
}

// All or nothing; `nothing` only if not even the first byte is there.
NbdDisk::Got NbdDisk::receive(std::vector<iovec> to, bool waits) {
  bool some = waits;
  for (std::size_t first = 0; first < to.size();) {
    msghdr message{};
    message.msg_iov = &to[first];
    message.msg_iovlen = std::min<std::size_t>(to.size() - first, 1024);
    ssize_t n = ::recvmsg(socket(), &message, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      if (!some) return Got::nothing;
      pollfd ready{socket(), POLLIN, 0};
      ::poll(&ready, 1, kLookAgainMs);
      if (out_of_patience()) return Got::end;
      continue;
    }
    if (n <= 0) return Got::end;
    some = true;
    for (; n > 0 && first < to.size(); first++) {
      const auto done = std::min<std::size_t>(static_cast<std::size_t>(n), to[first].iov_len);
      n -= static_cast<ssize_t>(done);
      to[first].iov_base = static_cast<char*>(to[first].iov_base) + done;
      if ((to[first].iov_len -= done) != 0) break;
    }
  }
  return Got::bytes;
}

void NbdDisk::complete(Part&& part, int error) {
  Pending& whole = *part.whole;
  if (error) whole.error = error;
  if (--whole.parts != 0) return;
  finish(std::move(whole.job), whole.error);
}

void NbdDisk::lose(const std::string& why) {
  std::map<u64, Part> parts;
  bool first = false;
  {
    std::lock_guard guard{lock_};
    first = !std::exchange(lost_, true);
    parts.swap(parts_);
  }
  ::shutdown(socket(), SHUT_RDWR);
  for (auto& [handle, part] : parts) complete(std::move(part), EIO);
  if (!first) return;
  const std::string words = server().words.last_line();
  complain_("--disk " + server().what + ": " + (words.empty() ? why : words) +
            ": the guest gets I/O errors from now on; start it again");
}

NbdDisk::~NbdDisk() {
  const auto bytes = nbd::encode({.command = Command::disconnect});
  ::send(socket(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  disk_.server->socket = Fd{};
  disk_.server->process.await_end(lost_ ? milliseconds{500} : kLastFlush);
}

}  // namespace

std::unique_ptr<FileDisk> make_nbd_disk(OpenDisk disk, DiskMode mode, FileDisk::Complain complain) {
  Fd stop{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (!stop) throw HostRefused{"--disk: no eventfd: raise the limit of open files (ulimit -n)"};
  return std::make_unique<NbdDisk>(std::move(disk), mode, std::move(complain), std::move(stop));
}

}  // namespace trapline::monitor
