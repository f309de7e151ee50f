// A 9P2000.L client for tests: one call a message, straight into a server, over a folder that is made and removed.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "share/server.h"

namespace trapline::share::test {

// Appends little-endian integers and strings.
class Body {
 public:
  Body& b(u8 v) { return raw(&v, 1); }
  Body& h(u16 v) { return raw(&v, 2); }
  Body& w(u32 v) { return raw(&v, 4); }
  Body& q(u64 v) { return raw(&v, 8); }
  Body& s(std::string_view text) { return h(static_cast<u16>(text.size())).raw(text.data(), text.size()); }
  Body& raw(const void* data, std::size_t count) {
    const auto* bytes = static_cast<const u8*>(data);
    for (std::size_t i = 0; i < count; i++) bytes_.push_back(bytes[i]);
    return *this;
  }
  const std::vector<u8>& bytes() const { return bytes_; }

 private:
  std::vector<u8> bytes_;
};

struct Answer {
  int error = 0;  // of Rlerror
  std::vector<u8> body;
  Reader reader() const { return Reader{body}; }
};

struct Attributes {
  u8 qid_type;
  u64 qid_path;
  u32 mode, uid, gid;
  u64 links, size;
};

// A scratch directory with the shared folder in it and a secret beside it.
struct Place {
  std::filesystem::path outside, folder;
  Place() {
    char name[] = "/tmp/trapline-share-XXXXXX";
    outside = ::mkdtemp(name);
    folder = outside / "folder";
    std::filesystem::create_directory(folder);
    std::ofstream{outside / "secret"} << "secret";
  }
  ~Place() {
    std::error_code ignored;
    std::filesystem::remove_all(outside, ignored);
  }
};

class Client {
 public:
  explicit Client(const std::filesystem::path& folder, ServerOptions options = {})
      : folder_{::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)}, server_{folder_, options} {
    ::umask(0);
    call(Message::version, Body{}.w(64 * KiB).s("9P2000.L"));
    call(Message::attach, Body{}.w(kRoot).w(kNoFid).s("").s("").w(~u32{0}));
  }
  ~Client() { ::close(folder_); }

  static constexpr u32 kRoot = 0;

  std::vector<u8> exchange(const std::vector<u8>& request) {
    std::vector<u8> reply(512 * KiB);
    reply.resize(server_.serve(request, reply));
    return reply;
  }
  Answer call(Message type, const Body& body) {
    Body whole;
    whole.w(static_cast<u32>(kHeader + body.bytes().size())).b(static_cast<u8>(type)).h(7);
    whole.raw(body.bytes().data(), body.bytes().size());
    const auto reply = exchange(whole.bytes());
    Reader in{reply};
    EXPECT_EQ(in.word(), reply.size());
    const u8 got = in.byte();
    EXPECT_EQ(in.half(), 7);
    Answer answer;
    for (std::size_t i = kHeader; i < reply.size(); i++) answer.body.push_back(reply[i]);
    if (got == static_cast<u8>(Message::lerror) + 1)
      answer.error = static_cast<int>(in.word());
    else
      EXPECT_EQ(got, static_cast<u8>(type) + 1);
    return answer;
  }

  // Walks `names` from the root to a new fid. 0, or the errno; a partial walk is ENOENT.
  int walk(u32 fid, const std::vector<std::string>& names, u32 from = kRoot) {
    Body body;
    body.w(from).w(fid).h(static_cast<u16>(names.size()));
    for (const auto& name : names) body.s(name);
    const Answer answer = call(Message::walk, body);
    if (answer.error) return answer.error;
    return answer.reader().half() == names.size() ? 0 : ENOENT;
  }
  int clunk(u32 fid) { return call(Message::clunk, Body{}.w(fid)).error; }
  int open(u32 fid, u32 flags) { return call(Message::lopen, Body{}.w(fid).w(flags)).error; }
  int create(u32 directory, std::string_view name, u32 flags, u32 mode = 0644) {
    return call(Message::lcreate, Body{}.w(directory).s(name).w(flags).w(mode).w(::getegid())).error;
  }
  int mkdir(u32 directory, std::string_view name, u32 mode = 0755) {
    return call(Message::mkdir, Body{}.w(directory).s(name).w(mode).w(::getegid())).error;
  }
  int symlink(u32 directory, std::string_view name, std::string_view target) {
    return call(Message::symlink, Body{}.w(directory).s(name).s(target).w(::getegid())).error;
  }
  int mknod(u32 directory, std::string_view name, u32 mode) {
    return call(Message::mknod, Body{}.w(directory).s(name).w(mode).w(1).w(3).w(::getegid())).error;
  }
  int rename(u32 from, std::string_view old_name, u32 to, std::string_view new_name) {
    return call(Message::renameat, Body{}.w(from).s(old_name).w(to).s(new_name)).error;
  }
  int unlink(u32 directory, std::string_view name, u32 flags = 0) {
    return call(Message::unlinkat, Body{}.w(directory).s(name).w(flags)).error;
  }
  int link(u32 directory, u32 fid, std::string_view name) {
    return call(Message::link, Body{}.w(directory).w(fid).s(name)).error;
  }
  int setattr(u32 fid, u32 valid, u32 mode, u64 size = 0, u64 mtime = 0) {
    return call(Message::setattr, Body{}.w(fid).w(valid).w(mode).w(0).w(0).q(size).q(0).q(0).q(mtime).q(0)).error;
  }
  // What was read; nothing on an error, which is in `error`.
  std::string read(u32 fid, u64 offset, u32 count, int* error = nullptr) {
    const Answer answer = call(Message::read, Body{}.w(fid).q(offset).w(count));
    if (error) *error = answer.error;
    if (answer.error) return {};
    Reader in = answer.reader();
    const u32 got = in.word();
    const auto data = in.bytes(got);
    EXPECT_TRUE(in.complete());
    return {data.begin(), data.end()};
  }
  int write(u32 fid, u64 offset, std::string_view data) {
    return call(Message::write, Body{}.w(fid).q(offset).w(static_cast<u32>(data.size())).raw(data.data(), data.size()))
        .error;
  }
  std::optional<Attributes> attributes(u32 fid) {
    const Answer answer = call(Message::getattr, Body{}.w(fid).q(~u64{0}));
    if (answer.error) return std::nullopt;
    Reader in = answer.reader();
    Attributes a{};
    in.quad();
    a.qid_type = in.byte();
    in.word();
    a.qid_path = in.quad();
    a.mode = in.word(), a.uid = in.word(), a.gid = in.word();
    a.links = in.quad();
    in.quad();
    a.size = in.quad();
    return a;
  }
  // All names of an open directory, asked for in pieces of `count` bytes.
  std::vector<std::string> list(u32 fid, u32 count = 8192) {
    std::vector<std::string> names;
    for (u64 offset = 0;;) {
      const Answer answer = call(Message::readdir, Body{}.w(fid).q(offset).w(count));
      EXPECT_EQ(answer.error, 0);
      Reader in = answer.reader();
      const u32 bytes = in.word();
      if (answer.error || bytes == 0) return names;
      Reader entries{in.bytes(bytes)};
      while (!entries.complete()) {
        entries.bytes(13);
        offset = entries.quad();
        entries.byte();
        const std::string_view name = entries.string();
        if (name.empty()) return names;
        names.emplace_back(name);
      }
    }
  }
  Server& server() { return server_; }

 private:
  int folder_;
  Server server_;
};

inline std::string content(const std::filesystem::path& path) {
  std::ifstream in{path};
  return {std::istreambuf_iterator<char>{in}, {}};
}

}  // namespace trapline::share::test
