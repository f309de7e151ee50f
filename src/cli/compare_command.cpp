#include "cli/compare_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/write.h"
#include "channel/exit_codes.h"
#include "cli/exec_command.h"
#include "cli/print.h"
#include "compare/builtin.h"
#include "compare/report.h"
#include "engine/registry.h"
#include "exec/kernel.h"
#include "exec/plain_kernel.h"

namespace trapline::cli {

namespace {

constexpr int kUsage = static_cast<int>(ExitCode::usage), kBadInput = static_cast<int>(ExitCode::bad_input);
constexpr u32 kMostRounds = 1000;

std::vector<std::string> words_of(const std::string& list) {
  std::vector<std::string> words;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t comma = std::min(list.find(',', at), list.size());
    words.push_back(list.substr(at, comma - at));
    at = comma + 1;
  }
  return words;
}

// A line on a terminal that the next one overwrites.
void show_progress(const std::string& what) {
  if (::isatty(STDERR_FILENO) == 1) write_all(STDERR_FILENO, what.empty() ? "\r\033[K" : "\r\033[K" + what + " ...");
}

std::string write_page(const std::string& path, const std::string& page) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
  if (fd < 0) return std::strerror(errno);
  int error = write_all(fd, page);
  if (::close(fd) != 0 && error == 0) error = errno;
  return error == 0 ? std::string{} : std::strerror(error);
}

}  // namespace

CompareCommand::CompareCommand(CLI::App& app, std::string version)
    : command_{app.add_subcommand("compare",
                                  "run one guest under every engine and interface, and show what each costs")},
      version_{std::move(version)} {
  CLI::App& c = *command_;
  c.add_option("--kernel", kernel_,
               "a kernel as for run, whose guest ends by itself; default: this host's, else Debian's if it was "
               "fetched, with a workload that is built in")
      ->type_name("FILE");
  c.add_option("--initrd", initrd_, "initial RAM disk")->type_name("FILE");
  c.add_option("--append", append_, "kernel command line")->type_name("STRING");
  c.add_option("--command", program_, "what the guest runs: a shell command, in a VM as exec makes it")
      ->type_name("COMMAND");
  c.add_option("--engines", engines_,
               "which engines: names with commas between, or all; patch/traps (minutes) only if named")
      ->type_name("ENGINES")
      ->capture_default_str();
  c.add_option("--para", paras_, "which paravirtual interfaces: names with commas between, or all")
      ->type_name("INTERFACES")
      ->capture_default_str();
  c.add_option("--rounds", rounds_,
               "timed runs of each technique, beside the one that counts; interpret has that alone")
      ->type_name("N")
      ->capture_default_str();
  c.add_option("--cpus", cpus_, "virtual CPUs")->type_name("N")->capture_default_str();
  c.add_option("--memory", memory_, "guest RAM")->type_name("SIZE")->capture_default_str();
  c.add_option("--timeout", timeout_, "end a run after this time; 0: never")
      ->type_name("SECONDS")
      ->capture_default_str();
  c.add_flag("--json", json_, "write JSON (schema: docs/guide/compare.md)");
  c.add_option("--html", html_, "write a page with plots, too")->type_name("FILE");
}

std::string CompareCommand::choose_techniques(const machine::Config& config, compare::Request& request) const {
  std::vector<compare::Interface> interfaces;
  for (const ParaOffer& offer : offered_paras()) interfaces.push_back({std::string{offer.name}, offer.value});
  auto all = compare::all_techniques(interfaces, config.cpus);
  const auto keep = [&](const char* option, const std::string& list, auto name_of) -> std::string {
    if (list == "all") return {};
    const auto words = words_of(list);
    for (const std::string& word : words)
      if (std::none_of(all.begin(), all.end(), [&](const auto& t) { return name_of(t) == word; })) {
        std::vector<std::string> names;
        for (const auto& t : all)
          if (std::find(names.begin(), names.end(), name_of(t)) == names.end()) names.push_back(name_of(t));
        return fmt::format("{} {}: {}: not here: give some of {}, or all", option, list, word, fmt::join(names, ","));
      }
    std::erase_if(all, [&](const auto& t) { return std::find(words.begin(), words.end(), name_of(t)) == words.end(); });
    return {};
  };
  // The interfaces first, so that an engine that is unknown is told with all engines.
  std::string wrong = keep("--para", paras_, [](const compare::Technique& t) { return t.para.name; });
  if (wrong.empty()) wrong = keep("--engines", engines_, [](const compare::Technique& t) { return t.way(); });
  // A minute and more where a signal is dear: not unless somebody asks.
  if (engines_ == "all") std::erase_if(all, [](const compare::Technique& t) { return t.traps; });
  request.techniques = std::move(all);
  request.para_named = paras_ != "all";
  return wrong;
}

Result<RunOptions, CompareCommand::Wrong> CompareCommand::command_guest() {
  CLI::App app;
  ExecCommand exec{app};
  std::vector<std::string> words{"exec", "--memory", memory_, "--cpus", std::to_string(cpus_)};
  if (!kernel_.empty()) words.insert(words.end(), {"--kernel", kernel_});
  if (!append_.empty()) words.insert(words.end(), {"--append", append_});
  words.insert(words.end(), {"--", "/bin/sh", "-c", program_});
  exec.take_command(words);
  std::reverse(words.begin(), words.end());
  app.parse(words);
  auto options = exec.prepare();
  if (!options) return Err{Wrong{kBadInput, options.error()}};
  options->config.command.terminal = false;
  return std::move(*options);
}

// The kernel is unpacked here: that takes a guest seconds, and is the same computation under each technique.
Result<RunOptions, CompareCommand::Wrong> CompareCommand::builtin_guest() {
  RunOptions o;
  const auto kernel = exec::any_kernel();
  if (!kernel) return Err{Wrong{kBadInput, "compare: " + kernel.error()}};
  const auto image = exec::open_plain_kernel(*kernel);
  if (!image) return Err{Wrong{kBadInput, image.error()}};
  const auto initrd = compare::make_builtin_initrd();
  if (!initrd) return Err{Wrong{static_cast<int>(ExitCode::host_refused), initrd.error()}};
  o.config.kernel = *kernel;
  o.config.kernel_fd = *image, o.config.initrd_fd = *initrd;  // until the process ends
  o.config.append = compare::kBuiltinCommandLine + (append_.empty() ? "" : " " + append_);
  return o;
}

Result<RunOptions, CompareCommand::Wrong> CompareCommand::guest() {
  if (!program_.empty()) {
    if (!initrd_.empty()) return Err{Wrong{kUsage, "--initrd: --command brings its own: give one of them"}};
    return command_guest();
  }
  if (kernel_.empty()) {
    if (!initrd_.empty()) return Err{Wrong{kUsage, "--initrd: what is built in brings its own: give --kernel too"}};
    return builtin_guest();
  }
  RunOptions o;
  o.config.kernel = kernel_, o.config.initrd = initrd_, o.config.append = append_;
  for (const auto& [option, path] : {std::pair{"--kernel", &kernel_}, std::pair{"--initrd", &initrd_}})
    if (!path->empty() && ::access(path->c_str(), R_OK) != 0)
      return Err{Wrong{kBadInput, fmt::format("{} {}: {}", option, *path, std::strerror(errno))}};
  return o;
}

Result<compare::Request, CompareCommand::Wrong> CompareCommand::prepare() {
  const auto wrong = [](std::string text) { return Err{Wrong{kUsage, std::move(text)}}; };
  if (rounds_ < 1 || rounds_ > kMostRounds)
    return wrong(fmt::format("--rounds {}: give 1 to {}", rounds_, kMostRounds));
  compare::Request request;
  request.rounds = rounds_;
  request.config.cpus = std::clamp(cpus_, 1u, kMostCpus);
  if (std::string why = choose_techniques(request.config, request); !why.empty()) return wrong(why);
  // What is wrong with the options comes before what is wrong with a file.
  RunOptions plain;
  plain.config.kernel = "guest";  // looked at later
  plain.config.cpus = cpus_, plain.config.timeout_seconds = timeout_;
  plain.memory = memory_;
  if (const auto checked = check(plain); !checked) return wrong(checked.error());
  auto options = guest();
  if (!options) return Err{options.error()};
  options->config.cpus = cpus_, options->config.timeout_seconds = timeout_;
  options->memory = memory_;
  options->config.no_reboot = true;
  auto config = check(*options);
  if (!config) return wrong(config.error());
  request.config = std::move(*config);
  return request;
}

int CompareCommand::report(const compare::Comparison& comparison, const compare::Request& request) const {
  compare::Setting setting;
  setting.guest = !program_.empty() ? fmt::format("'{}' on {}", program_, request.config.kernel)
                  : kernel_.empty() ? fmt::format("built-in workload on {}", request.config.kernel)
                                    : kernel_;
  setting.version = version_;
  setting.host = compare::host_in_words();
  setting.cpus = request.config.cpus, setting.memory = request.config.memory, setting.rounds = request.rounds;
  const int code = comparison.agree() ? 0 : static_cast<int>(ExitCode::outputs_differ);
  const int printed =
      print(json_ ? compare::json_of(comparison, setting) : compare::text_of(comparison, setting), code);
  if (html_.empty()) return printed;
  if (const std::string why = write_page(html_, compare::page_of(comparison, setting)); !why.empty()) {
    say(fmt::format("--html {}: {}: name a file that can be written", html_, why));
    return kBadInput;
  }
  return printed;
}

int CompareCommand::run() {
  auto request = prepare();
  if (!request) {
    say(request.error().text);
    return request.error().code;
  }
  // Before the runs, not after minutes of them.
  if (!html_.empty())
    if (const std::string why = write_page(html_, {}); !why.empty()) {
      say(fmt::format("--html {}: {}: name a file that can be written", html_, why));
      return kBadInput;
    }
  const auto comparison = compare::measure(*request, show_progress);
  show_progress({});
  if (!comparison) {
    say(comparison.error().text);
    return comparison.error().code;
  }
  return report(*comparison, *request);
}

}  // namespace trapline::cli
