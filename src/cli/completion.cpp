#include "cli/completion.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "base/trace.h"
#include "base/write.h"
#include "channel/exit_codes.h"
#include "cli/options.h"
#include "cli/print.h"
#include "engine/registry.h"

namespace trapline::cli {

namespace {

// What may stand in an option's place, by the name of its type.
struct Values {
  std::vector<std::string> words;
  bool files = false;
  bool list = false;  // several of the words, with commas between
};

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto end = text.find_first_of(" ,");
    if (end != 0) out.emplace_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
  }
  return out;
}

Values values_of(const std::string& type) {
  if (type.starts_with("host|DIR")) return {{"host"}, true, false};
  if (type == "FILE|seabios") return {{"seabios"}, true, false};
  if (type == "none|user") return {{"none", "user"}, false, false};
  if (type.starts_with("FILE") || type.starts_with("DIR") || type.ends_with("PATH")) return {{}, true, false};
  if (type == "ENGINE") {
    Values v{{"auto"}, false, false};
    for (const engine::EngineKind& e : engine::engines()) v.words.emplace_back(e.name);
    return v;
  }
  if (type == "INTERFACE") return {{"none", "kvm", "auto"}, false, false};
  if (type == "ENGINES") {
    Values v{{"all"}, false, true};
    for (const engine::EngineKind& e : engine::engines()) v.words.emplace_back(e.name);
    return v;
  }
  if (type == "INTERFACES") {
    Values v{{"all"}, false, true};
    for (const ParaOffer& offer : offered_paras()) v.words.emplace_back(offer.name);
    return v;
  }
  if (type == "CONSOLE") return {{"serial", "vga"}, false, false};
  if (type == "TRANSPORT") return {{"pci", "mmio"}, false, false};
  if (type == "CLOCK") return {{"real", "instructions"}, false, false};
  if (type == "AREAS") return {split(trace::names()), false, true};
  if (type == "CODE") return {{"guest", "host"}, false, true};
  if (type == "CLASS") return {{"critical", "privileged", "innocuous"}, false, false};
  if (type == "CLASSES") return {{"critical", "privileged", "innocuous", "all"}, false, true};
  if (type == "VENDOR") return {{"amd", "intel", "both"}, false, false};
  if (type == "ACTION") return {{"build", "debian", "ls", "rm"}, false, false};
  if (type == "FORMAT") return {{"raw", "qcow2"}, false, false};
  if (type == "SHELL") return {{"bash", "zsh"}, false, false};
  if (type == "16|32|64") return {{"16", "32", "64"}, false, false};
  return {};
}

bool takes_value(const CLI::Option& o) { return o.get_items_expected_max() > 0; }

// Long names with "--", short ones with "-".
std::vector<std::string> names_of(const CLI::Option& o) {
  std::vector<std::string> names;
  for (const auto& n : o.get_lnames()) names.push_back("--" + n);
  for (const auto& n : o.get_snames()) names.push_back("-" + n);
  return names;
}

// Without what CLI11 appends of its checks.
std::string type_of(const CLI::Option& o) {
  const std::string type = o.get_type_name();
  return type.substr(0, type.find(':'));
}

// Of the words that no option stands before, or null.
const CLI::Option* positional(const CLI::App& command) {
  for (const CLI::Option* o : command.get_options())
    if (o->get_positional()) return o;
  return nullptr;
}

// A positional without a type: scan's FILE says what it is by its name.
Values values_at(const CLI::Option& o) {
  const Values v = values_of(type_of(o));
  return v.words.empty() && !v.files && o.get_positional() ? values_of(o.get_single_name()) : v;
}

std::string joined(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, " ")); }

std::vector<std::string> commands_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* c : app.get_subcommands(nullptr)) names.push_back(c->get_name());
  return names;
}

// Those that take words of their own; help takes the name of a command.
std::vector<const CLI::App*> working_commands(const CLI::App& app) {
  std::vector<const CLI::App*> commands = app.get_subcommands(nullptr);
  std::erase_if(commands, [](const CLI::App* c) { return c->get_name() == "help" || c->get_name() == "version"; });
  return commands;
}

// -- bash

constexpr std::string_view kBashHead = R"(# bash completion of trapline: made by `trapline completion bash`.
_trapline() {
  local words="" files="" list="" cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  # "--option=value" is three words here.
  if [ "$cur" = "=" ]; then cur=""; elif [ "$prev" = "=" ]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
  COMPREPLY=()
)";

constexpr std::string_view kBashTail = R"(  local before=""
  if [ -n "$list" ] && [[ $cur = *,* ]]; then before=${cur%,*},; fi
  if [ -n "$words" ]; then COMPREPLY=($(compgen -P "$before" -W "$words" -- "${cur##*,}")); fi
  if [ -n "$files" ]; then
    compopt -o filenames 2>/dev/null
    while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -f -- "$cur")
  fi
}
complete -F _trapline trapline
)";

std::string bash_values(const Values& v) {
  std::string out;
  if (!v.words.empty()) out += fmt::format(" words=\"{}\"", joined(v.words));
  if (v.list) out += " list=1";
  if (v.files) out += " files=1";
  return out;
}

std::string bash_command(const CLI::App& command) {
  const std::string& name = command.get_name();
  std::string out;
  std::vector<std::string> all;
  for (const CLI::Option* o : command.get_options()) {
    const std::vector<std::string> names = names_of(*o);
    all.insert(all.end(), names.begin(), names.end());
    if (!takes_value(*o) || names.empty()) continue;
    std::string patterns;
    for (const auto& n : names) patterns += fmt::format("{}\"{} {}\"", patterns.empty() ? "" : "|", name, n);
    out += fmt::format("    {}){} ;;\n", patterns, bash_values(values_at(*o)));
  }
  Values rest;
  if (const CLI::Option* p = positional(command)) rest = values_at(*p);
  out += fmt::format("    \"{} \"*) if [[ $cur = -* ]]; then words=\"{}\"; else{}; fi ;;\n", name, joined(all),
                     bash_values(rest).empty() ? " :" : bash_values(rest));
  return out;
}

// -- zsh

// For a description inside of an option's brackets, itself in single quotes.
std::string zsh_quoted(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'')
      out += "'\\''";
    else if (c == '[' || c == ']' || c == ':' || c == '\\')
      out += std::string{'\\', c};
    else
      out += c;
  }
  return out;
}

std::string zsh_values(const Values& v, const std::string& type) {
  const std::string label = zsh_quoted(type.empty() ? "value" : type);
  if (v.files) return fmt::format(":{}:_files", label);
  if (v.list) return fmt::format(":{}:_values -s , {} {}", label, label, joined(v.words));
  if (!v.words.empty()) return fmt::format(":{}:({})", label, joined(v.words));
  return fmt::format(":{}: ", label);
}

std::string zsh_command(const CLI::App& command) {
  std::string out = fmt::format("    {})\n      _arguments", command.get_name());
  for (const CLI::Option* o : command.get_options()) {
    const bool many = o->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
    for (const std::string& name : names_of(*o))
      out +=
          fmt::format(" \\\n        '{}{}{}[{}]{}'", many ? "*" : "", name,
                      !takes_value(*o)  ? ""
                      : name.size() > 2 ? "="
                                        : "+",
                      zsh_quoted(o->get_description()), takes_value(*o) ? zsh_values(values_at(*o), type_of(*o)) : "");
  }
  if (const CLI::Option* p = positional(command))
    out += fmt::format(" \\\n        '*{}'", zsh_values(values_at(*p), p->get_single_name()));
  return out + " ;;\n";
}

}  // namespace

std::string bash_completion(const CLI::App& app) {
  std::string out{kBashHead};
  const std::vector<std::string> commands = commands_of(app);
  out +=
      fmt::format("  case \"$COMP_CWORD ${{COMP_WORDS[1]}} $prev\" in\n    \"1 \"*) words=\"{} --help --version\" ;;\n",
                  joined(commands));
  out += fmt::format("    *\" help \"*) words=\"{}\" ;;\n  esac\n", joined(commands));
  out += "  [ \"$COMP_CWORD\" = 1 ] || case \"${COMP_WORDS[1]} $prev\" in\n";
  for (const CLI::App* c : working_commands(app)) out += bash_command(*c);
  return out + "  esac\n" + std::string{kBashTail};
}

std::string zsh_completion(const CLI::App& app) {
  std::string out =
      "#compdef trapline\n# zsh completion of trapline: made by `trapline completion zsh`.\n_trapline() {\n";
  out += "  local -a commands\n  commands=(\n";
  for (const CLI::App* c : app.get_subcommands(nullptr))
    out += fmt::format("    '{}:{}'\n", c->get_name(), zsh_quoted(c->get_description()));
  out += "  )\n";
  out += "  if (( CURRENT == 2 )); then _describe command commands; return; fi\n";
  out += "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n";
  for (const CLI::App* c : working_commands(app)) out += zsh_command(*c);
  out += "    help) _describe command commands ;;\n  esac\n}\n_trapline \"$@\"\n";
  return out;
}

CompletionCommand::CompletionCommand(CLI::App& app)
    : app_{app}, command_{app.add_subcommand("completion", "print a script that completes the words of this command")} {
  command_->add_option("SHELL", shell_, "bash or zsh");
}

bool CompletionCommand::parsed() const { return command_->parsed(); }

int CompletionCommand::run() {
  if (shell_ == "bash") return print(bash_completion(app_), 0);
  if (shell_ == "zsh") return print(zsh_completion(app_), 0);
  say(shell_.empty() ? "completion: no shell: give bash or zsh"
                     : fmt::format("completion: {}: no such shell: give bash or zsh", shell_));
  return static_cast<int>(ExitCode::usage);
}

}  // namespace trapline::cli
