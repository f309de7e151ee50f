#include "fuzz/fuzz.h"

#include <signal.h>
#include <sys/random.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/trace.h"
#include "base/write.h"
#include "fuzz/guest.h"
#include "fuzz/lenient.h"
#include "fuzz/native.h"
#include "fuzz/report.h"

namespace trapline::fuzz {

namespace {

u64 draw_seed() {
  u64 seed = 0;
  if (::getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = static_cast<u64>(::getpid());
  return seed & 0xffff'ffff;  // short enough to type
}

// A crash of the engine in this process must still name its sequence.
char crash_line[256];
void on_crash(int signal) {
  [[maybe_unused]] const auto n = ::write(2, crash_line, std::strlen(crash_line));
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

Extent extent_of(const FuzzOptions& options, const Native& native) {
  Extent e = Extent::of_host();
  e.code32 = native.runs(isa::CodeSize::bits32);
  e.code16 = native.runs(isa::CodeSize::bits16);
  e.bits = options.bits;
  return e;
}

class Run {
 public:
  Run(const FuzzOptions& options, u64 seed, Native& native, Guest& guest)
      : options_{options},
        seed_{seed},
        native_{native},
        guest_{guest},
        extent_{extent_of(options, native)},
        report_{options, extent_, forms_} {}

  FuzzResult go() {
    const auto start = std::chrono::steady_clock::now();
    const Forms& forms = forms_.of(isa::CodeSize::bits64);
    fmt::print(options_.out, "fuzz: engine {}, seed {}, {} encodings of {} extensions{}{}\n", options_.engine, seed_,
               forms.form_count(), forms.extensions().size(),
               extent_.code32 ? "" : "; this host's kernel runs no 32-bit code",
               extent_.code16 ? "" : "; this host's kernel runs no 16-bit code");
    std::fflush(options_.out);
    generate(0);
    native_.submit(pointers(0));
    for (unsigned turn = 0; !done_; turn ^= 1) {
      generate(turn ^ 1);  // while the child runs the batch before
      native_.collect();
      judge(turn);
      if (!done_) native_.submit(pointers(turn ^ 1));
      report_.progress(start, sequences_);
    }
    report_.summary(start, sequences_, native_.restarts());
    if (const u64 stops = guest_.cage_stops()) fmt::print(options_.out, "fuzz: a cage has stopped {} times\n", stops);
    return report_.differing() ? difference : no_difference;
  }

 private:
  void generate(unsigned turn) {
    std::vector<Program>& batch = batches_[turn];
    batch.resize(place::batch);
    u64 count = place::batch;
    if (options_.sequences) count = std::min(count, options_.sequences - std::min(options_.sequences, generated_));
    batch.resize(count);
    for (Program& p : batch) make_program(forms_, seed_ + generated_++, extent_, p);
  }

  std::vector<const Program*> pointers(unsigned turn) const {
    std::vector<const Program*> out;
    for (const Program& p : batches_[turn]) out.push_back(&p);
    return out;
  }

  // Runs the batch in the engine, compares, and looks closer at what differs.
  void judge(unsigned turn) {
    const auto programs = pointers(turn);
    guest_.load(programs);
    std::vector<std::size_t> failed;
    for (std::size_t i = 0; i < programs.size() && !done_; i++) {
      const std::string line =
          fmt::format("fuzz: the engine crashed: run again with: {}\n", report_.rerun(*programs[i]));
      std::strncpy(crash_line, line.c_str(), sizeof crash_line - 1);
      if (options_.verbose) report_.show(*programs[i], i);
      guest_.run(*programs[i], i, engine_out_);
      sequences_++;
      const Outcome& native = native_.outcome(i);
      report_.count(*programs[i], native, i);
      if (differ(*programs[i], i, native, engine_out_) && repeats(*programs[i], i)) {
        report_.difference(*programs[i], i, native, engine_out_);
        failed.push_back(i);
      }
      if (report_.instructions() >= options_.count && !options_.sequences) done_ = true;
      if (report_.differing() >= std::max(options_.differences, 1u)) done_ = true;
    }
    if (programs.empty()) done_ = true;
    if (options_.minimize)
      for (const std::size_t i : failed) minimize(*programs[i]);
  }

  bool differ(const Program& program, std::size_t slot, const Outcome& native, const Outcome& engine) const {
    if (equal(native, engine, extent_)) return false;
    const auto looped = [](const Outcome& o) { return o.ending.kind == Ending::Kind::timeout; };
    if (looped(native) && looped(engine)) return false;
    // A branch of 16-bit code reaches other sequences of the batch: what is open there by the manuals is not known here.
    if (program.size == isa::CodeSize::bits16 && stopped_at(program, slot, native) - code_at(slot) >= place::slot)
      return false;
    if (loads_hidden_mxcsr(program, slot, engine, extent_)) return false;
    return !differences(native, engine, extent_, lenient_at(program, slot, native)).empty();
  }

  // Does the host do the same again? What interrupts it in the middle of a sequence may lose x87 pointers (AMD: APM
  // Vol. 2 11.4.4) or NT; the engine's one outcome is held against each.
  bool repeats(const Program& program, std::size_t slot) {
    constexpr unsigned kTries = 3;
    for (unsigned i = 0; i < kTries; i++) {
      native_.again(slot);
      if (differ(program, slot, native_.outcome(slot), engine_out_)) continue;
      report_.once(program);
      return false;
    }
    return true;
  }

  // Alone, in slot 0: does it differ?
  bool differs(const Program& program, Outcome& native, Outcome& engine) {
    const std::vector<const Program*> one{&program};
    native_.submit(one);
    native_.collect();
    guest_.load(one);
    guest_.run(program, 0, engine);
    native = native_.outcome(0);
    return differ(program, 0, native, engine);
  }

  // Drops instructions, last first, until each one left is needed.
  void minimize(const Program& failing) {
    Program small = failing;
    auto native = std::make_unique<Outcome>(), engine = std::make_unique<Outcome>();
    if (!differs(small, *native, *engine)) {
      fmt::print(options_.out, "fuzz: seed {} does not differ when run alone\n", failing.seed);
      return;
    }
    for (bool shrunk = true; shrunk;) {
      shrunk = false;
      for (std::size_t i = small.items.size(); i-- > 0 && small.items.size() > 1;) {
        Program candidate = small;
        std::size_t first = i, last = i;
        const auto same_group = [&](std::size_t n) {
          return small.items[n].group && small.items[n].group == small.items[i].group;
        };
        while (first > 0 && same_group(first - 1)) first--;
        while (last + 1 < small.items.size() && same_group(last + 1)) last++;
        const std::size_t dropped = last - first + 1;
        if (dropped == small.items.size()) continue;
        candidate.items.erase(candidate.items.begin() + static_cast<std::ptrdiff_t>(first),
                              candidate.items.begin() + static_cast<std::ptrdiff_t>(last + 1));
        for (Item& item : candidate.items)
          if (item.fix == Item::Fix::branch && item.target > first)
            item.target -= std::min(dropped, item.target - first);
        if (!differs(candidate, *native, *engine)) continue;
        small = std::move(candidate);
        shrunk = true;
        i = first;
      }
    }
    differs(small, *native, *engine);
    report_.minimized(small, *native, *engine);
  }

  const FuzzOptions& options_;
  u64 seed_;
  Native& native_;
  Guest& guest_;
  Extent extent_;
  AllForms forms_;
  Report report_;
  std::vector<Program> batches_[2];
  Outcome engine_out_{};
  u64 generated_ = 0, sequences_ = 0;
  bool done_ = false;
};

}  // namespace

Result<FuzzResult, std::string> run_fuzz(const FuzzOptions& options) {
  auto native = Native::start();  // forks: before the engine starts anything
  if (!native) return Err{native.error()};
  if (options.bits && !(*native)->runs(static_cast<isa::CodeSize>(options.bits / 8)))
    return Err{fmt::format("fuzz: --bits {}: this host's kernel runs no such code: leave it out", options.bits)};
  for (const int s : {SIGSEGV, SIGBUS, SIGILL, SIGABRT})
    ::signal(s, on_crash);  // before the vector unit's own, which pass on to these
  auto guest = Guest::make(options.engine, !options.uncounted);
  if (!guest) return Err{guest.error()};
  auto run = std::make_unique<Run>(options, options.seed_given ? options.seed : draw_seed(), **native, **guest);
  const FuzzResult result = run->go();
  for (const int s : {SIGSEGV, SIGBUS, SIGILL, SIGABRT}) ::signal(s, SIG_DFL);
  return result;
}

}  // namespace trapline::fuzz
