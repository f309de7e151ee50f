// The 9P server of a shared folder over any sequence of requests, on a real folder with links that lead out of it. A
// secret lies beside the folder: no reply may hold it, and nothing outside may change.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "share/server.h"

namespace {

using namespace trapline;
using share::Message;
namespace fs = std::filesystem;

constexpr std::string_view kSecret = "9f2c beside the folder, and nobody's business 71d0";

// What follows the header: f fid, w u32, q u64, b u8, h u16, s name, d u32 length and data, n u16 count and names.
struct Form {
  Message type;
  const char* fields;
};
constexpr Form kForms[] = {
    {Message::version, "ws"},         {Message::attach, "ffssw"},
    {Message::walk, "ffn"},           {Message::walk, "ffn"},
    {Message::lopen, "fw"},           {Message::lcreate, "fswww"},
    {Message::read, "fqw"},           {Message::write, "fqd"},
    {Message::readdir, "fqw"},        {Message::clunk, "f"},
    {Message::remove, "f"},           {Message::getattr, "fq"},
    {Message::setattr, "fwwwwqqqqq"}, {Message::symlink, "fssw"},
    {Message::readlink, "f"},         {Message::link, "ffs"},
    {Message::mkdir, "fsww"},         {Message::mknod, "fswwww"},
    {Message::rename, "ffs"},         {Message::renameat, "fsfs"},
    {Message::unlinkat, "fsw"},       {Message::xattrwalk, "ffs"},
    {Message::xattrcreate, "fsqw"},   {Message::statfs, "f"},
    {Message::fsync, "fw"},           {Message::lock, "fbwqqws"},
    {Message::getlock, "fbqqws"},     {Message::flush, "h"},
    {Message::auth, "fssw"},
};
constexpr std::string_view kNames[] = {"a",  "b", "c", "out", "up",        "far",         "new", "user.x",
                                       "..", ".", "",  "/",   "../secret", "b/../../sec", "x/y", "9P2000.L"};
constexpr u64 kNumbers[] = {0, 1, 2, 0x1ff, 0x8000, 0x10000, 0x7fffffff, 0xffffffff, ~u64{0}, u64{1} << 63, 0102, 0202};

class Input {
 public:
  Input(const u8* data, std::size_t size) : at_{data}, end_{data + size} {}
  bool empty() const { return at_ == end_; }
  u8 byte() { return empty() ? 0 : *at_++; }
  u64 number() {
    const u8 how = byte();
    if (how < 128) return how;
    if (how < 192) return kNumbers[how % std::size(kNumbers)];
    u64 n = 0;
    for (int i = 0; i < (how < 224 ? 4 : 8); i++) n = n << 8 | byte();
    return n;
  }
  std::string name() {
    const u8 how = byte();
    if (how < 224) return std::string{kNames[how % std::size(kNames)]};
    std::string text(how == 255 ? 4096 : byte(), 'x');
    for (std::size_t i = 0; i < std::min<std::size_t>(text.size(), 16); i++) text[i] = static_cast<char>(byte());
    return text;
  }

 private:
  const u8* at_;
  const u8* end_;
};

using Bytes = std::vector<u8>;
void put(Bytes& to, u64 value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) to.push_back(static_cast<u8>(value >> 8 * i));
}
void put(Bytes& to, std::string_view text) {
  put(to, text.size(), 2);
  to.insert(to.end(), text.begin(), text.end());
}

void put_field(Bytes& to, char field, Input& in) {
  switch (field) {
    case 'f': {
      const u8 fid = in.byte();
      return put(to, fid == 255 ? share::kNoFid : fid % 8, 4);
    }
    case 'b':
      return put(to, in.byte(), 1);
    case 'h':
      return put(to, in.number(), 2);
    case 'w':
      return put(to, in.number(), 4);
    case 'q':
      return put(to, in.number(), 8);
    case 's':
      return put(to, in.name());
    case 'd': {
      const u8 length = in.byte();
      put(to, length, 4);
      for (unsigned i = 0; i < length; i++) to.push_back(static_cast<u8>(i));
      return;
    }
    default: {
      const u8 count = in.byte() % 20;
      put(to, count, 2);
      for (unsigned i = 0; i < count; i++) put(to, in.name());
    }
  }
}

// Well formed for the most part; the last bit of the first byte cuts it short or leaves a wrong length.
Bytes request(Input& in) {
  const u8 first = in.byte();
  const Form& form = kForms[(first & 127) % std::size(kForms)];
  Bytes body;
  for (const char* f = form.fields; *f; f++) put_field(body, *f, in);
  u64 length = share::kHeader + body.size();
  if (first & 128) {
    body.resize(body.size() * in.byte() / 256);
    if (in.byte() & 1) length = in.number();
  }
  Bytes whole;
  put(whole, length, 4);
  put(whole, static_cast<u8>(form.type), 1);
  put(whole, in.byte(), 2);
  whole.insert(whole.end(), body.begin(), body.end());
  return whole;
}

struct Place {
  fs::path outside, folder;
  Place() {
    char name[] = "/tmp/trapline-fuzz-XXXXXX";
    outside = ::mkdtemp(name);
    folder = outside / "folder";
    std::ofstream{outside / "secret"} << kSecret;
  }
  ~Place() { fs::remove_all(outside); }
  void fill() const {
    ::chmod(folder.c_str(), 0700);
    std::error_code ignored;
    fs::remove_all(folder, ignored);
    fs::create_directories(folder / "b");
    std::ofstream{folder / "a"} << "content";
    std::ofstream{folder / "b" / "c"} << "more";
    fs::create_symlink("../secret", folder / "out");
    fs::create_symlink("..", folder / "up");
    fs::create_symlink(outside / "secret", folder / "far");
  }
  bool untouched() const {
    unsigned names = 0;
    for (const auto& entry : fs::directory_iterator{outside}) {
      const fs::path name = entry.path().filename();
      names += name == "folder" || name == "secret" ? 1 : 3;
    }
    struct stat st {};
    if (names != 2 || ::lstat((outside / "secret").c_str(), &st) != 0) return false;
    std::ifstream in{outside / "secret"};
    return std::string{std::istreambuf_iterator<char>{in}, {}} == kSecret && st.st_nlink == 1 && S_ISREG(st.st_mode);
  }
};

void serve(share::Server& server, Input& in) {
  static std::vector<u8> reply(64 * KiB);
  while (!in.empty()) {
    const Bytes asked = request(in);
    const std::size_t length = server.serve(asked, reply);
    if (length > reply.size() || (length != 0 && length < share::kHeader)) std::abort();
    if (length == 0) continue;
    const u8 type = reply[4];
    if (type != asked[4] + 1 && type != static_cast<u8>(Message::lerror) + 1) std::abort();
    const std::string_view text{reinterpret_cast<const char*>(reply.data()), length};
    if (text.find(kSecret) != text.npos) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  static Place place;
  ::umask(0);
  if (size > 4096) return 0;
  place.fill();
  Input in{data, size};
  const int folder = ::open(place.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  {
    share::ServerOptions options;
    options.readonly = in.byte() % 8 == 0;
    options.most_message = 64 * KiB;
    options.most_open = 64;
    share::Server server{folder, options};
    serve(server, in);
  }
  ::close(folder);
  if (!place.untouched()) std::abort();
  return 0;
}
