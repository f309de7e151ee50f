#include "exec/initramfs.h"

#include <fmt/format.h>

#include "agent/protocol.h"
#include "exec/cpio.h"

extern "C" const trapline::u8 trapline_init_begin[], trapline_init_end[];

namespace trapline::exec {

namespace {

std::string describe(const Task& task, std::span<const Module> modules) {
  std::string text;
  const auto say = [&](std::string_view key, std::string_view value) {
    text += key;
    text += ' ';
    text += value;
    text += '\0';
  };
  for (const Module& m : modules) say("module", fmt::format("/{}.ko", m.name));
  task.root_disk.empty() ? say("root", task.root) : say("rootdisk", task.root_disk);
  if (!task.network.empty()) say("network", task.network);
  for (const Mount& m : task.shares) say("share", fmt::format("{} {} {}", m.tag, m.readonly ? "ro" : "rw", m.path));
  say("uid", std::to_string(task.uid));
  say("gid", std::to_string(task.gid));
  for (const gid_t group : task.groups) say("group", std::to_string(group));
  say("umask", fmt::format("{:o}", task.umask));
  if (!task.directory.empty()) say("directory", task.directory);
  if (task.terminal) say("terminal", fmt::format("{} {}", task.terminal->rows, task.terminal->columns));
  for (const std::string& e : task.environment) say("env", e);
  for (const std::string& a : task.arguments) say("arg", a);
  return text;
}

}  // namespace

bool write_initramfs(int fd, const Task& task, std::span<const Module> modules) {
  Cpio archive{fd};
  archive.file("init", std::span<const u8>{trapline_init_begin, trapline_init_end}, 0755);
  for (const Module& m : modules) archive.file(m.name + ".ko", m.content);
  const std::string text = describe(task, modules);
  archive.file(agent::kConfigPath, std::span{reinterpret_cast<const u8*>(text.data()), text.size()});
  return archive.finish();
}

}  // namespace trapline::exec
