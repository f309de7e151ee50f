#include "cli/net_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trapline::cli {
namespace {

using machine::NetConfig;
using testing::ElementsAre;
using testing::HasSubstr;

NetConfig good(const std::string& text, const std::string& seed = "a") {
  const auto net = parse_net(text, seed);
  EXPECT_TRUE(net && *net) << text;
  return net && *net ? **net : NetConfig{};
}

TEST(NetOption, KindsAndTheirOptions) {
  const NetConfig user = good("user,hostfwd=tcp::2222-:22,hostfwd=udp:0.0.0.0:53-10.0.2.16:5353,restrict,mtu=9000");
  EXPECT_EQ(user.kind, NetConfig::Kind::user);
  EXPECT_TRUE(user.restricted);
  EXPECT_EQ(user.mtu, 9000u);
  EXPECT_THAT(user.forwards, ElementsAre("tcp:127.0.0.1:2222:10.0.2.15:22", "udp:0.0.0.0:53:10.0.2.16:5353"));
  const NetConfig passt = good("passt,hostfwd=tcp::2222-:22");
  EXPECT_EQ(passt.kind, NetConfig::Kind::passt);
  EXPECT_THAT(passt.forwards, ElementsAre("tcp:127.0.0.1:2222:10.0.2.15:22"));
  EXPECT_EQ(good("tap,ifname=tap0").path, "tap0");
  EXPECT_EQ(good("socket,path=/run/x").path, "/run/x");
  const NetConfig vhost = good("vhost-user,path=/run/y,mtu=9000");
  EXPECT_EQ(vhost.kind, NetConfig::Kind::vhost_user);
  EXPECT_EQ(vhost.path, "/run/y");
  const auto none = parse_net("none", "a");
  EXPECT_TRUE(none && !*none);
}

TEST(NetOption, AddressesStayWithTheirMachine) {
  EXPECT_EQ(good("user").mac, good("user").mac);
  EXPECT_NE(good("user").mac, good("user", "b").mac);
  EXPECT_EQ(good("user").mac[0], 0x52);
  EXPECT_EQ(good("user,mac=02:00:00:00:00:ff").mac, (std::array<u8, 6>{2, 0, 0, 0, 0, 0xff}));
}

TEST(NetOption, WhatCannotBeIsNamed) {
  const auto wrong = [](const std::string& text) {
    const auto net = parse_net(text, "a");
    return net ? std::string{} : net.error();
  };
  EXPECT_THAT(wrong("bridge"), HasSubstr("--net bridge: give user, passt, tap"));
  EXPECT_THAT(wrong("tap"), HasSubstr("which interface?"));
  EXPECT_THAT(wrong("socket"), HasSubstr("which socket?"));
  EXPECT_THAT(wrong("vhost-user"), HasSubstr("which socket?"));
  for (const char* forward :
       {"tcp::0-:22", "tcp::22", "sctp::1-:1", "tcp:host:1-:1", "tcp::1-:99999", "tcp::1-x:1", ""})
    EXPECT_THAT(wrong(std::string{"user,hostfwd="} + forward), HasSubstr("hostfwd")) << forward;
  for (const char* mac : {"52:54:00:12:34", "01:00:00:00:00:00", "5:5:5:5:5:5", "52:54:00:12:34:zz"})
    EXPECT_THAT(wrong(std::string{"user,mac="} + mac), HasSubstr("mac=")) << mac;
  EXPECT_THAT(wrong("user,mtu=100"), HasSubstr("1280 to 65520"));
  EXPECT_THAT(wrong("tap,ifname=x,restrict"), HasSubstr("no option restrict"));
}

}  // namespace
}  // namespace trapline::cli
