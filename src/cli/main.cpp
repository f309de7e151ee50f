// trapline: the commands, and the hidden one by which the monitor starts its core.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <sstream>
#include <system_error>

#include "base/write.h"
#include "channel/core_start.h"
#include "channel/exit_codes.h"
#include "channel/share_link.h"
#include "channel/volume_answer.h"
#include "cli/cloud_init.h"
#include "cli/compare_command.h"
#include "cli/completion.h"
#include "cli/doctor.h"
#include "cli/exec_command.h"
#include "cli/fuzz_command.h"
#include "cli/image_command.h"
#include "cli/image_run.h"
#include "cli/isa_command.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/scan_command.h"
#include "cli/standard_error.h"
#include "cli/vm_commands.h"
#include "cli/words.h"
#include "core/core_main.h"
#include "engine/options.h"
#include "monitor/console_keeper.h"
#include "monitor/terminal.h"
#include "monitor/vm.h"
#include "share/share_main.h"
#include "slirp/slirp_process.h"
#include "volume/volume_main.h"

namespace {

using namespace trapline;

constexpr const char* kVersion = TRAPLINE_VERSION;

int usage(const std::string& text) {
  say(text);
  return static_cast<int>(ExitCode::usage);
}

// What the words alone do not show, and requests for help.
int parse_failed(const CLI::App& app, const CLI::ParseError& error) {
  std::ostringstream out;
  if (error.get_exit_code() == 0) {
    app.exit(error, out, out);
    return cli::print(out.str(), 0);
  }
  std::string text = error.what();
  for (char& c : text)
    if (c == '\n') c = ' ';
  return usage(text + ": see trapline help");
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

// TRAPLINE_HOT, TRAPLINE_DEBUG and TRAPLINE_MISCOMPILE: for tests and for finding faults. Error: what is wrong.
Result<machine::EngineSettings, std::string> settings_of_environment(bool verify) {
  const auto text_of = [](const char* name) { return std::getenv(name) ? std::getenv(name) : ""; };
  machine::EngineSettings settings;
  settings.debug = text_of("TRAPLINE_DEBUG");
  if (const auto debug = engine::DebugOptions::parse(settings.debug); !debug)
    return Err{fmt::format("TRAPLINE_DEBUG={}", debug.error())};
  if (verify) settings.hot_threshold = 1;  // what is to be verified is translated at once
  if (const char* hot = text_of("TRAPLINE_HOT"); *hot)
    settings.hot_threshold = static_cast<u32>(std::clamp(std::atoi(hot), 1, 1 << 20));
  const auto miscompile = engine::Miscompile::parse(text_of("TRAPLINE_MISCOMPILE"));
  settings.miscompile_at = miscompile.address, settings.miscompile_how = static_cast<u32>(miscompile.how);
  return settings;
}

int run(cli::RunOptions& options, bool output_open, int argc, char** argv) {
  if (!output_open) {
    say("standard output is closed: give the guest's console somewhere to go, /dev/null if nowhere");
    return static_cast<int>(ExitCode::console_lost);
  }
  options.config.rerun = rerun_line(argc, argv);
  auto settings = settings_of_environment(options.config.verify);
  if (!settings) return usage(settings.error());
  options.config.engine_settings = std::move(*settings);
  const auto lines = cli::resolve_image(options);
  if (!lines) {
    // What is wrong with the options comes before what is wrong with a file.
    if (const auto config = cli::check(options); !config) return usage(config.error());
    say(lines.error());
    return static_cast<int>(ExitCode::bad_input);
  }
  if (const std::string wrong = cli::add_cloud_init(options); !wrong.empty()) {
    say(wrong);
    return static_cast<int>(ExitCode::bad_input);
  }
  const auto config = cli::check(options);
  if (!config) return usage(config.error());
  for (const std::string& line : *lines) say(line);
  if (!config->note.empty()) say(config->note);
  for (const std::string& note : cli::notes(options, *config)) say(note);
  const monitor::Speaker speaker = cli::on_standard_error();
  if (options.detach) return monitor::run_detached([&] { return monitor::run_vm(*config, speaker); }, speaker);
  return monitor::run_vm(*config, speaker);
}

// All that is wrong before the command runs has one exit code, which is not the command's.
int run_exec(cli::ExecCommand& exec, int argc, char** argv) {
  const auto failed = [](const std::string& why) {
    say(why);
    return static_cast<int>(ExitCode::vm_failed);
  };
  auto options = exec.prepare();
  if (!options) return failed(options.error());
  options->config.rerun = rerun_line(argc, argv);
  auto settings = settings_of_environment(false);
  if (!settings) return failed(settings.error());
  options->config.engine_settings = std::move(*settings);
  const auto config = cli::check(*options);
  if (!config) return failed(config.error());
  return monitor::run_vm(*config, cli::on_standard_error());
}

// "help X" and "--help X" are "X --help", "version" is "--version".
std::vector<std::string> canonical(int argc, char** argv) {
  std::vector<std::string> words{argv + std::min(argc, 1), argv + argc};
  if (words.empty()) return words;
  if (words[0] == "help" || words[0] == "-h") words[0] = "--help";
  if (words[0] == "--help" && words.size() > 1) return {words[1], "--help"};
  if (words[0] == "version") words[0] = "--version";
  return words;
}

// The command that the first word names, or null and what to say.
const CLI::App* named_command(const CLI::App& app, const std::vector<std::string>& words, std::string& wrong) {
  std::vector<std::string> names;
  for (const CLI::App* c : app.get_subcommands(nullptr)) {
    if (!words.empty() && c->get_name() == words[0]) return c;
    names.push_back(c->get_name());
  }
  std::sort(names.begin(), names.end());
  if (words.empty())
    wrong = fmt::format("no command: give {}: see trapline help", fmt::join(names, ", "));
  else if (words[0] == "--version")
    wrong = fmt::format("version: {}: one too many: see trapline help", words[1]);
  else if (words[0].starts_with('-'))
    wrong = fmt::format("{}: no such option before a command: {}see trapline help", words[0],
                        cli::suggestion(words[0], {"--help", "--version"}));
  else
    wrong = fmt::format("{}: no such command: {}see trapline help", words[0], cli::suggestion(words[0], names));
  return nullptr;
}

int dispatch(int argc, char** argv, bool output_open) {
  CLI::App app{"Runs unmodified x86 operating systems without hardware virtualization."};
  app.name("trapline");
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.get_formatter()->label("Subcommands", "Commands");
  app.set_version_flag("--version", fmt::format("trapline {}", kVersion));
  cli::RunOptions options;
  CLI::App* run_command = app.add_subcommand("run", "boot a guest on this terminal (Ctrl-A X quits, Ctrl-A H helps)");
  cli::add_run_options(*run_command, options);
  cli::ExecCommand exec{app};
  CLI::App* doctor_command = app.add_subcommand("doctor", "say what this host offers and which engine auto takes");
  cli::ImageCommand image{app};
  cli::VmCommands vms{app};
  cli::CompareCommand compare{app, kVersion};
  cli::FuzzCommand fuzz{app};
  cli::ScanCommand scan{app, kVersion};
  cli::IsaCommand isa{app};
  cli::CompletionCommand completion{app};
  // For the list of commands: canonical() has made options of them.
  app.add_subcommand("help", "this text; help COMMAND: that command's options");
  app.add_subcommand("version", "say which version this is");
  std::vector<std::string> words = canonical(argc, argv);
  exec.take_command(words);
  const bool about_all = words.size() == 1 && (words[0] == "--help" || words[0] == "-h" || words[0] == "--version");
  if (!about_all) {
    std::string wrong;
    const CLI::App* command = named_command(app, words, wrong);
    if (command) wrong = cli::wrong_words(*command, {words.begin() + 1, words.end()});
    if (!wrong.empty()) {
      const int code = usage(wrong);
      return command == exec.app() ? static_cast<int>(ExitCode::vm_failed) : code;
    }
  }
  try {
    std::reverse(words.begin(), words.end());  // the order that CLI11 takes them in
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    return parse_failed(app, error);
  }
  if (doctor_command->parsed()) return cli::run_doctor();
  if (isa.parsed()) return isa.run();
  if (completion.parsed()) return completion.run();
  if (exec.parsed()) return run_exec(exec, argc, argv);
  if (vms.parsed()) return vms.run();
  if (image.parsed()) return image.run();
  if (compare.parsed()) return compare.run();
  if (fuzz.parsed()) return fuzz.run();
  if (scan.parsed()) return scan.run();
  return run(options, output_open, argc, argv);
}

constexpr std::string_view kNoMemory =
    "trapline: the host has no memory left: free some, or raise the limit (ulimit -v, ulimit -d)\n";

// The C++ library sets some 70 KiB aside in which to throw "no memory". Where there was no room for that, a throw would
// end the process without a word. Before whatever else is set up before main().
[[gnu::constructor(101)]] void see_that_errors_can_be_thrown() {
  void* volatile some = std::malloc(128 * KiB);
  std::free(some);
  if (some) return;
  write_all(STDERR_FILENO, kNoMemory);
  ::_exit(static_cast<int>(ExitCode::host_refused));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], channel::kCoreCommand) == 0) return core::core_main(argc, argv);
  if (argc > 1 && std::strcmp(argv[1], slirp::kNetCommand) == 0) return slirp::net_main(argc, argv);
  if (argc > 1 && std::strcmp(argv[1], channel::kVolumeCommand) == 0) return volume::volume_main(argc, argv);
  if (argc > 1 && std::strcmp(argv[1], channel::kShareCommand) == 0) return share::share_main(argc, argv);
  const bool output_open = monitor::secure_standard_descriptors();
  try {
    // What a command has printed must have arrived, or it has failed.
    const int code = dispatch(argc, argv, output_open);
    return code == static_cast<int>(ExitCode::console_lost) ? code : cli::print({}, code);
  } catch (const std::bad_alloc&) {
    say("the host has no memory left: free some, or raise the limit (ulimit -v, ulimit -d)");
    return static_cast<int>(ExitCode::host_refused);
  } catch (const std::system_error& error) {  // of fmt::print on a standard output that is full or gone
    monitor::restore_terminal();
    say(fmt::format("{}: {}", std::ferror(stdout) ? "standard output" : "internal error", error.what()));
    return static_cast<int>(std::ferror(stdout) ? ExitCode::console_lost : ExitCode::internal_error);
  } catch (const std::exception& error) {
    monitor::restore_terminal();
    say(fmt::format("internal error: {}", error.what()));
    return static_cast<int>(ExitCode::internal_error);
  }
}
