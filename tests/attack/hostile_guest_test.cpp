// Random bytes as a guest's kernel, thousands of them, in this process: an engine neither dies nor hangs, and keeps to
// its budget. More: TRAPLINE_HOSTILE_COUNT=1000000 TRAPLINE_HOSTILE_SEED=1 attack_test --gtest_filter='*HostileGuest*'
#include "support/hostile_guest.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "engine/vector/vector_unit.h"
#include "fuzz/rng.h"
#include "support/engines.h"

namespace trapline::test {
namespace {

// Opcodes worth trying, in hexadecimal: sensitive, microcoded, of several lengths, and some of every other kind.
constexpr std::string_view kOpcodes[] = {
    "0f20",   "0f22",   "0f21",   "0f23",   "0f00",   "0f01",   "0f02",   "0f03",       "0f05",         "0f07",
    "0f34",   "0f35",   "0f30",   "0f32",   "0fa2",   "0fae",   "0fc7",   "0fb2",       "0fb4",         "0fb5",
    "cf",     "48cf",   "66cf",   "9a",     "ea",     "cb",     "ca",     "48cb",       "8e",           "8c",
    "c4",     "c5",     "cc",     "cd",     "ce",     "f4",     "fa",     "fb",         "9c",           "9d",
    "669c",   "669d",   "e4",     "e5",     "ec",     "ed",     "ee",     "ef",         "6c",           "6d",
    "6e",     "6f",     "f36c",   "f36f",   "f3a4",   "f3a5",   "f3aa",   "f3ab",       "f3a6",         "f2ae",
    "c8",     "c9",     "60",     "61",     "62",     "63",     "07",     "17",         "1f",           "0fa1",
    "0fa9",   "f1",     "0f08",   "0f09",   "0f0b",   "0f1f",   "e8",     "e9",         "eb",           "ff",
    "ffd0",   "e2",     "e3",     "c2",     "c3",     "f0",     "f7",     "f6",         "0fb1",         "0fc1",
    "87",     "0fba",   "0fbc",   "d9",     "db",     "dd",     "df",     "0f6f",       "0f7f",         "660f6f",
    "c5f8",   "c4e2",   "f30fc7", "0f18",   "a1",     "a3",     "e0",     "0fc3",       "c6",           "c7",
    "80",     "81",     "83",     "01",     "03",     "89",     "8b",     "8d",         "50",           "58",
    "68",     "6a",     "ff35",   "8f",     "d0",     "d3",     "c0",     "c1",         "0fa4",         "0fac",
    "99",     "98",     "d7",     "27",     "2f",     "37",     "d4",     "d5",         "f390",         "0f01d0",
    "0f01d1", "0f01f8", "0f01f9", "0f01ca", "0f01cb", "0f01c1", "0f01d9", "0f01c8",     "0f01c9",       "660f3882",
    "0f38f6", "0f0d",   "0fc0",   "f30fae", "0faee8", "0fc720", "0fc728", "62f17c486f", "62f27d489204", "c5f877"};
constexpr u8 kPrefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0xf0};

u8 byte(fuzz::Rng& rng) { return static_cast<u8>(rng.next()); }

void add_instruction(fuzz::Rng& rng, std::vector<u8>& out) {
  while (rng.percent(25)) out.push_back(rng.pick(kPrefixes));
  if (rng.percent(20)) out.push_back(static_cast<u8>(0x40 + rng.below(16)));
  if (rng.percent(12)) {
    out.push_back(byte(rng));
  } else {
    const std::string_view opcode = rng.pick(kOpcodes);
    for (std::size_t i = 0; i < opcode.size(); i += 2)
      out.push_back(static_cast<u8>(std::stoul(std::string{opcode.substr(i, 2)}, nullptr, 16)));
  }
  out.push_back(byte(rng));
  for (u64 n = rng.below(6); n > 0; n--) out.push_back(rng.percent(65) ? static_cast<u8>(rng.below(64)) : byte(rng));
}

std::vector<u8> any_guest(u64 seed) {
  fuzz::Rng rng{seed};
  std::vector<u8> out;
  for (u64 n = 250 + rng.below(300); n > 0; n--) out.push_back(byte(rng));
  for (u64 n = 20 + rng.below(200); n > 0; n--) add_instruction(rng, out);
  return out;
}

char now_running[100];
void on_signal(int signal) {
  [[maybe_unused]] const auto n = ::write(2, now_running, std::strlen(now_running));
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

u64 number_of_environment(const char* name, u64 otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

class HostileGuests : public ::testing::TestWithParam<const char*> {};

TEST_P(HostileGuests, EndWithoutHarm) {
  const engine::EngineKind* kind = engine::find_engine(GetParam());
  ASSERT_TRUE(kind);
  SKIP_UNLESS_OFFERED(GetParam());
  for (const int s : {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGALRM}) ::signal(s, on_signal);
  engine::install_vector_signal_handler();
  const u64 first = number_of_environment("TRAPLINE_HOSTILE_SEED", 1);
  const u64 count = number_of_environment("TRAPLINE_HOSTILE_COUNT", 1500);
  for (u64 seed = first; seed < first + count; seed++) {
    std::snprintf(now_running, sizeof now_running, "in %s, TRAPLINE_HOSTILE_SEED=%llu\n", GetParam(),
                  static_cast<unsigned long long>(seed));
    ::alarm(60);
    HostileGuest guest{*kind};
    ASSERT_TRUE(guest.run(any_guest(seed))) << now_running;
  }
  ::alarm(0);
  for (const int s : {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGALRM}) ::signal(s, SIG_DFL);
}

INSTANTIATE_TEST_SUITE_P(Engines, HostileGuests, testing::ValuesIn(kEngines),
                         [](const testing::TestParamInfo<const char*>& engine) { return std::string{engine.param}; });

}  // namespace
}  // namespace trapline::test
