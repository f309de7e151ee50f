#include "cli/options.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "engine/registry.h"

namespace trapline::cli {
namespace {

TEST(ParseSize, TakesUnitsAndRefusesTheRest) {
  EXPECT_EQ(parse_size("512M"), 512 * MiB);
  EXPECT_EQ(parse_size("4G"), 4 * GiB);
  EXPECT_EQ(parse_size("65536k"), 64 * MiB);
  EXPECT_EQ(parse_size("128"), 128 * MiB);
  EXPECT_EQ(parse_size("1.5G"), 1536 * MiB);
  EXPECT_EQ(parse_size("0.5g"), 512 * MiB);
  EXPECT_EQ(parse_size("4GB"), 4 * GiB);
  EXPECT_EQ(parse_size("4GiB"), 4 * GiB);
  EXPECT_EQ(parse_size("67108864B"), 64 * MiB);
  EXPECT_EQ(parse_size("1.3G"), (GiB * 13 / 10) & kPageMask) << "whole pages";
  for (const char* bad : {"", "M", "-1G", "1.G", ".5G", "1,5G", "4Gi", "4BB", "4BiB", "12X", "99999999999999999999G",
                          "18446744073709551615T", " 1G", "1G ", "1e3M"})
    EXPECT_FALSE(parse_size(bad)) << bad;
}

RunOptions valid() {
  RunOptions o;
  o.config.kernel = "kernel";
  return o;
}

std::string complaint(const RunOptions& o) {
  const auto c = check(o);
  return c ? "" : c.error();
}

TEST(Check, RefusesEnginesByName) {
  RunOptions o = valid();
  EXPECT_EQ(complaint(o), "");
  for (const auto& kind : engine::engines()) {
    o.engine = kind.name;
    const std::string lacks = kind.missing();
    EXPECT_EQ(complaint(o),
              lacks.empty() ? "" : fmt::format("--engine {}: this host lacks {}; use --engine auto", kind.name, lacks));
  }
  o.patch_with = "traps";
  o.engine = "interpret";
  EXPECT_EQ(complaint(o), "--patch-with traps: engine interpret patches nothing: use --engine patch");
  o.patch_with = "int3";
  EXPECT_EQ(complaint(o), "--patch-with int3: no such replacement: use inline or traps");
  o.patch_with = "inline";
  EXPECT_EQ(complaint(o), "");
  o.engine = "jit";
  EXPECT_EQ(complaint(o), "--engine jit: no such engine: use " + engine::engine_names());
  o = valid();
  o.para = "xen";
  EXPECT_EQ(complaint(o), "");
  o.config.verify = true;
  o.engine = "translate";
  if (engine::find_engine("translate")->missing().empty()) {
    EXPECT_EQ(complaint(o), "--verify does not know hypercalls: use --para kvm or none");
  }
  o = valid();
  o.para = "xen";
  o.config.rng = true;
  EXPECT_NE(complaint(o).find("--para xen: shares, sockets"), std::string::npos) << complaint(o);
  o.config.rng = false;
  o.virtio_transport = "mmio";
  EXPECT_NE(complaint(o).find("leave --virtio-transport out"), std::string::npos) << complaint(o);
  o = valid();
  o.para = "vmware";
  EXPECT_EQ(complaint(o), "--para vmware: no such interface: use none, kvm, xen or auto");
}

TEST(Check, TakesSharesOfOtherPrograms) {
  RunOptions o = valid();
  o.shares = {"vhost-user=/run/fs,tag=home"};
  const auto c = check(o);
  ASSERT_TRUE(c) << c.error();
  EXPECT_TRUE(c->shares[0].vhost_user);
  EXPECT_EQ(c->shares[0].path, "/run/fs");
  EXPECT_TRUE(c->lends_ram());
  o.clock = "instructions";
  EXPECT_EQ(complaint(o), "vhost-user: what another program does cannot be repeated: use --clock real");
  o = valid();
  o.shares = {"vhost-user=/run/fs,readonly"};
  EXPECT_EQ(complaint(o),
            "--share vhost-user=/run/fs,readonly: readonly: the back end decides that: give it to the back end");
  o.shares = {"vhost-user="};
  EXPECT_NE(complaint(o).find("name a folder"), std::string::npos);
}

TEST(Check, TakesADebuggersPort) {
  RunOptions o = valid();
  o.config.gdb_wait = true;
  EXPECT_EQ(complaint(o), "--gdb-wait: nobody could say so: give --gdb PORT too");
  for (const char* bad : {"65536", "0", "-1", "1234x", "sock"}) {
    o.gdb = bad;
    EXPECT_NE(complaint(o).find(": give a port from 1 to 65535, or the path of a socket"), std::string::npos) << bad;
  }
  o.gdb = "/" + std::string(107, 'x');
  EXPECT_NE(complaint(o).find("a socket's path has 107 at most"), std::string::npos);
  o.gdb = "./gdb";
  EXPECT_EQ(check(o)->gdb_socket, "./gdb");
  o.gdb = "1234";
  const auto c = check(o);
  ASSERT_TRUE(c);
  EXPECT_EQ(c->gdb_port, 1234);
}

TEST(Check, KeepsWithinLimits) {
  RunOptions o = valid();
  o.memory = "63M";
  EXPECT_EQ(complaint(o), "--memory 63M: too little: give 64M or more");
  o.memory = "16G";
  EXPECT_EQ(complaint(o), "");
  o.memory = "257G";
  EXPECT_EQ(complaint(o), "--memory 257G: too much: give 256G or less");
  o = valid();
  o.config.cpus = 0;
  EXPECT_EQ(complaint(o), "--cpus 0: give 1 to 64");
  o.config.cpus = 64;
  EXPECT_EQ(complaint(o), "");
  o = valid();
  o.trace = "mmu,nonsense";
  EXPECT_NE(complaint(o).find("--trace nonsense: no such area"), std::string::npos);
  o = valid();
  o.config.cpu_features = "+nonsense";
  EXPECT_NE(complaint(o).find("nonsense"), std::string::npos);
}

TEST(Check, SplitsModules) {
  RunOptions o = valid();
  o.modules = {"a.bin=x=1 y", "b.bin"};
  const auto c = check(o);
  ASSERT_TRUE(c);
  ASSERT_EQ(c->modules.size(), 2u);
  EXPECT_EQ(c->modules[0].path, "a.bin");
  EXPECT_EQ(c->modules[0].arguments, "x=1 y");
  EXPECT_EQ(c->modules[1].arguments, "");
  o.modules = {"=args"};
  EXPECT_NE(complaint(o), "");
}

}  // namespace
}  // namespace trapline::cli
