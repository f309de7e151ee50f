// A 9P2000.L server for one folder: bytes of a request in, bytes of the reply out. What it is told comes from a guest:
// every count is checked against the message it came in, and a request that makes no sense is answered with an error.
//
//     server.cpp      the table of requests, fids, version, attach, walk
//     files.cpp       open, create, read, write, directories, locks
//     names.cpp       mkdir, symlink, link, mknod, rename, unlink
//     attributes.cpp  getattr, setattr, statfs, extended attributes
//
// Files belong on the host to whom they belong there, and are shown so. What the guest makes belongs to this process's
// user; where this process may give files away, to the user that the guest attached as. See docs/share.md.
//
// Any threads at once. A lock guards names and fids; it is let go (Outside) while the host reads, writes, makes or
// removes files, so that a slow one holds nobody else. Walks and renames, which decide what a name is, keep it.
#pragma once

#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "share/messages.h"
#include "share/nodes.h"
#include "share/wire.h"

namespace trapline::share {

struct ServerOptions {
  bool readonly = false;
  u32 most_message = 512 * KiB;  // msize that is offered
  std::size_t most_open = 4096;  // descriptors for names; as many again for open files
};

class Server {
 public:
  // `folder`: a descriptor of the directory, which outlives the server.
  Server(int folder, ServerOptions options);
  Server(const Server&) = delete;

  // Returns the reply's length; 0: there is no room even for an error.
  std::size_t serve(std::span<const u8> request, std::span<u8> reply);

  // -- While nobody is served.
  std::size_t fids() const { return fids_.size(); }
  const Nodes& nodes() const { return nodes_; }

 private:
  struct Attribute {  // an extended attribute that is read or written by Tread and Twrite
    std::string name;
    std::vector<u8> value;
    int flags = 0;
    bool written = false;  // by Txattrcreate: set at the clunk
    u64 filled = 0;
  };
  struct File {  // open
    File(int opened, std::atomic<std::size_t>& all) : fd{opened}, count{all} { count++; }
    ~File() { ::close(fd), count--; }
    File(const File&) = delete;
    const int fd;
    std::atomic<std::size_t>& count;
    std::mutex listing;  // taken without the server's lock, and before it; all that follows
    u64 position = 0;    // of a directory
  };
  using FileRef = std::shared_ptr<File>;
  // Where it stands does not change: a fid number that moves is another Fid from then on. Whoever serves a request for it
  // has a reference, which goes under the lock.
  struct Fid {
    Fid(Nodes& nodes, Node& used, u32 attached_as)
        : node{&used}, user{attached_as}, nodes_{nodes} {}  // the use is its own now
    ~Fid() { nodes_.release(*node); }
    Fid(const Fid&) = delete;
    Node* const node;
    const u32 user;
    FileRef file;  // once it is open
    std::unique_ptr<Attribute> attribute;

   private:
    Nodes& nodes_;
  };
  using FidRef = std::shared_ptr<Fid>;
  using Status = int;  // an errno, 0: done

  Status dispatch(Message type, Reader& in, Writer& out);

  // server.cpp
  Status version(Reader& in, Writer& out);
  Status attach(Reader& in, Writer& out);
  Status walk(Reader& in, Writer& out);
  Status clunk(Reader& in);
  FidRef find(u32 fid) const;
  Status add(u32 fid, FidRef made);
  Status drop(u32 fid);
  void drop_all();
  void write_qid(Writer& out, const struct stat& st);
  void write_qid(Writer& out, u8 type, u32 version, Identity identity);
  u64 qid_path(Identity identity);

  // files.cpp
  Status lopen(Reader& in, Writer& out);
  Status lcreate(Reader& in, Writer& out);
  Status read(Reader& in, Writer& out);
  Status write(Reader& in, Writer& out);
  Status readdir(Reader& in, Writer& out);
  Status fsync(Reader& in);
  Status lock(Reader& in, Writer& out);
  Status getlock(Reader& in, Writer& out);
  Result<FileRef, int> open(Node& node, u32 flags);
  Result<FidRef, int> create(const Fid& in, std::string_view name, u32 flags, u32 mode, u32 gid);
  bool entries(const Fid& fid, Writer& data, std::span<const u8> raw, u64& next);

  // names.cpp
  Status mkdir(Reader& in, Writer& out);
  Status symlink(Reader& in, Writer& out);
  Status mknod(Reader& in, Writer& out);
  Status link(Reader& in);
  Status rename(Reader& in);
  Status renameat(Reader& in);
  Status unlinkat(Reader& in);
  Status remove(Reader& in);
  Status move(Node& from, std::string_view old_name, Node& to, std::string_view new_name);
  Status unlink(Node& directory, std::string_view name, int flags);
  void give(int directory, const std::string& name, u32 user, u32 group) const;
  template <class Make>
  Status make(const Fid& in, const std::string& name, u32 gid, Writer& out, Make make_it);

  // attributes.cpp
  Status getattr(Reader& in, Writer& out);
  Status setattr(Reader& in);
  Status statfs(Reader& in, Writer& out);
  Status readlink(Reader& in, Writer& out);
  Status xattrwalk(Reader& in, Writer& out);
  Status xattrcreate(Reader& in);
  Status store(const Fid& fid);
  Status set_mode(const Fid& fid, u32 mode);
  Status set_size(const Fid& fid, u64 size);
  Status set_times(const Fid& fid, u32 valid, const timespec (&given)[2]);

  const ServerOptions options_;
  const bool gives_away_;
  std::atomic<std::size_t> open_files_{0};
  std::mutex lock_;  // all that follows
  u32 message_;      // msize as agreed upon
  Nodes nodes_;
  std::unordered_map<u32, FidRef> fids_;
  std::vector<u64> devices_;  // by the number that qid paths have for them
};

// One component that may be made, renamed or removed: 0, or what is wrong.
int check_name(std::string_view name);
// What a guest may set: no set-user-ID, set-group-ID for directories alone. Its root is nobody here who may lend powers.
u32 allowed_mode(u32 mode, bool directory);

}  // namespace trapline::share
