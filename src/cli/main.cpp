// trapline: the commands, and the hidden one by which the monitor starts its core.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "cli/doctor.h"
#include "cli/fuzz_command.h"
#include "cli/isa_command.h"
#include "cli/options.h"
#include "cli/scan_command.h"
#include "core/core_main.h"
#include "core/exit_codes.h"
#include "engine/translate/options.h"
#include "monitor/terminal.h"
#include "monitor/vm.h"

namespace {

using namespace trapline;

constexpr const char* kVersion = TRAPLINE_VERSION;

int usage(const std::string& text) {
  fmt::print(stderr, "trapline: {}\n", text);
  return static_cast<int>(ExitCode::usage);
}

// CLI11's message as one line with a remedy.
int parse_failed(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) {
    app.exit(error);
    return 0;
  }
  std::string text = error.what();
  for (char& c : text)
    if (c == '\n') c = ' ';
  return usage(text + ": see trapline --help");
}

// The command line again, for a shell.
std::string rerun_line(int argc, char** argv) {
  std::string line;
  for (const char* name : {"TRAPLINE_HOT", "TRAPLINE_MISCOMPILE", "TRAPLINE_DEBUG"})
    if (const char* value = std::getenv(name)) line += fmt::format("{}={} ", name, value);
  for (int i = 0; i < argc; i++) {
    const std::string_view word = argv[i];
    const bool plain = !word.empty() && word.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789-_=+,./:@%") == std::string_view::npos;
    if (i) line += ' ';
    if (plain) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) c == '\'' ? line += "'\\''" : line += c;
    line += '\'';
  }
  return line;
}

int run(cli::RunOptions& options, bool output_open, int argc, char** argv) {
  if (!output_open) {
    fmt::print(stderr,
               "trapline: standard output is closed: give the guest's console somewhere to go, /dev/null if nowhere\n");
    return static_cast<int>(ExitCode::console_lost);
  }
  options.config.rerun = rerun_line(argc, argv);
  const auto config = cli::check(options);
  if (!config) return usage(config.error());
  if (!config->note.empty()) fmt::print(stderr, "trapline: {}\n", config->note);
  return monitor::run_vm(*config);
}

int dispatch(int argc, char** argv, bool output_open) {
  const auto debug = engine::translate::debug_of_environment();
  if (!debug) return usage(debug.error());
  engine::translate::debug = *debug;
  CLI::App app{"Runs unmodified x86 operating systems without hardware virtualization."};
  app.name("trapline");
  app.set_version_flag("--version", fmt::format("trapline {}", kVersion));
  app.require_subcommand(1);
  cli::RunOptions options;
  CLI::App* run_command = app.add_subcommand("run", "boot a guest on this terminal (Ctrl-A X quits, Ctrl-A H helps)");
  cli::add_run_options(*run_command, options);
  CLI::App* doctor_command = app.add_subcommand("doctor", "say what this host offers and which engine auto takes");
  cli::FuzzCommand fuzz{app};
  cli::ScanCommand scan{app, kVersion};
  cli::IsaCommand isa{app};
  const auto named = [&](const CLI::App* command) { return command->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && app.get_subcommands(named).empty())
    return usage(fmt::format("{}: no such command: see trapline --help", argv[1]));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return parse_failed(app, error);
  }
  if (doctor_command->parsed()) return cli::run_doctor();
  if (isa.parsed()) return isa.run();
  if (fuzz.parsed()) return fuzz.run();
  if (scan.parsed()) return scan.run();
  return run(options, output_open, argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], core::kCoreCommand) == 0) return core::core_main(argc, argv);
  const bool output_open = monitor::secure_standard_descriptors();
  try {
    return dispatch(argc, argv, output_open);
  } catch (const std::exception& error) {
    monitor::restore_terminal();
    fmt::print(stderr, "trapline: internal error: {}\n", error.what());
    return static_cast<int>(ExitCode::internal_error);
  }
}
