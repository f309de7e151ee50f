#include "cli/fuzz_command.h"

#include "base/write.h"

namespace trapline::cli {

FuzzCommand::FuzzCommand(CLI::App& app)
    : command_{app.add_subcommand("fuzz", "compare random instruction sequences in an engine with this CPU")} {
  command_->add_option("--engine", options_.engine, "the engine under test")
      ->type_name("ENGINE")
      ->capture_default_str();
  command_->add_flag("--uncounted", options_.uncounted,
                     "translated code that does not count its instructions, as `run` makes it");
  seed_ = command_->add_option("--seed", options_.seed, "of the first sequence; drawn and printed if not given")
              ->type_name("N");
  command_->add_option("--count", options_.count, "stop after this many instructions")
      ->type_name("N")
      ->capture_default_str();
  command_->add_option("--sequences", options_.sequences, "stop after this many sequences instead")->type_name("N");
  command_->add_option("--differences", options_.differences, "stop after this many differing sequences")
      ->type_name("N")
      ->capture_default_str();
  command_->add_option("--bits", options_.bits, "sequences of code of this size alone")
      ->type_name("16|32|64")
      ->check(CLI::IsMember({16, 32, 64}));
  command_->add_flag("--minimize", options_.minimize,
                     "drop instructions from a differing sequence while it still differs");
  command_->add_flag("--verbose", options_.verbose, "print every sequence before it runs");
}

int FuzzCommand::run() {
  options_.seed_given = seed_->count() > 0;
  const auto result = fuzz::run_fuzz(options_);
  if (!result) say(result.error());
  return result ? *result : fuzz::cannot_run;
}

}  // namespace trapline::cli
