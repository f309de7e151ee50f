#include "cli/isa_command.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/write.h"
#include "channel/exit_codes.h"
#include "cli/print.h"
#include "isa/report/report.h"
#include "isa/verify/host_features.h"

namespace trapline::cli {

namespace {

using namespace isa;

constexpr int kMismatch = 1;  // as `trapline fuzz` ends on a difference

bool colour() {
  const char* none = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  if (none != nullptr && *none != 0) return false;
  return ::isatty(STDOUT_FILENO) && (terminal == nullptr || std::strcmp(terminal, "dumb") != 0);
}

std::string unknown(const std::string& name, const std::vector<std::string>& nearest) {
  std::string shown = name.substr(0, 40);
  for (char& c : shown)
    if (c < ' ' || c > '~') c = '?';
  if (nearest.empty()) return fmt::format("isa {}: no such instruction: trapline isa lists them", shown);
  return fmt::format("isa {}: no such instruction: did you mean {}?", shown, fmt::join(nearest, ", "));
}

std::vector<verify::Finding> findings_of(const std::vector<const Row*>& rows, HostFeatures host) {
  std::vector<verify::Finding> all;
  for (const Row* row : rows) {
    std::vector<verify::Finding> some = verify::verify_row(*row, host);
    all.insert(all.end(), std::make_move_iterator(some.begin()), std::make_move_iterator(some.end()));
  }
  return all;
}

bool nothing_ran(const std::vector<verify::Finding>& findings) {
  return std::all_of(findings.begin(), findings.end(),
                     [](const verify::Finding& f) { return f.agreement == verify::Agreement::not_run; });
}

int refused(const std::vector<verify::Finding>& findings) {
  say(fmt::format("isa --verify: nothing could be run: {}",
                  findings.empty() ? "the filter leaves no row" : findings.front().happened));
  return static_cast<int>(ExitCode::host_refused);
}

}  // namespace

IsaCommand::IsaCommand(CLI::App& app)
    : command_{app.add_subcommand("isa", "say which instructions are critical on this host, and show one at work")} {
  command_->add_option("name", names_, "explain these instructions, by running them in a sandboxed child");
  command_->add_option("--ring", ring_, "only what is sensitive in that ring: 0 or 3")->type_name("N");
  command_->add_option("--class", class_, "only that class: critical, privileged or innocuous")->type_name("CLASS");
  command_->add_flag("--verify", verify_, "run every row on the host's CPU and compare; exit code 1 on a mismatch");
  command_->add_flag("--json", json_, "as JSON");
  command_->add_flag("--html", html_, "as one self-contained page");
  command_->add_flag("--markdown", markdown_, "the table alone, as in docs/critical-instructions.md");
}

std::string IsaCommand::wrong() const {
  if (json_ + html_ + markdown_ > 1) return "isa: --json, --html and --markdown: give one of them";
  if (command_->count("--ring") && ring_ != 0 && ring_ != 3) return fmt::format("isa: --ring {}: give 0 or 3", ring_);
  if (command_->count("--class") && class_ != "critical" && class_ != "privileged" && class_ != "innocuous")
    return fmt::format("isa: --class {}: give critical, privileged or innocuous", class_);
  return {};
}

bool IsaCommand::resolve(std::vector<const Row*>& rows, std::string& innocuous) const {
  for (const std::string& name : names_) {
    const report::Named named = report::find(name);
    if (named.unknown) {
      say(unknown(name, named.nearest));
      return false;
    }
    if (named.innocuous)
      innocuous += fmt::format("{}: innocuous: computation on registers and memory, the same in every ring\n", name);
    rows.insert(rows.end(), named.rows.begin(), named.rows.end());
  }
  return true;
}

int IsaCommand::explain(const std::vector<const Row*>& rows, std::string out) const {
  const HostFeatures host = verify::host_features();
  unsigned wrong = 0;
  for (const Row* row : rows) {
    const std::vector<verify::Finding> findings = verify::verify_row(*row, host);
    wrong += report::mismatches(findings);
    out += (out.empty() ? "" : "\n") + report::explain(*row, host, findings, colour());
  }
  return print(out, verify_ && wrong != 0 ? kMismatch : 0);
}

int IsaCommand::run() {
  ::signal(SIGCHLD, SIG_DFL);  // inherited as ignored, it would hide how a child ended
  if (const std::string why = wrong(); !why.empty()) {
    say(why);
    return static_cast<int>(ExitCode::usage);
  }
  if (markdown_) return print(report::markdown(), 0);
  std::vector<const Row*> named;
  std::string innocuous;
  if (!resolve(named, innocuous)) return static_cast<int>(ExitCode::usage);
  if (!names_.empty() && !json_ && !html_) return explain(named, innocuous);

  report::Report report{.host = verify::host_features(), .host_name = verify::host_name()};
  report::Filter filter;
  if (ring_ >= 0) filter.ring = report.ring = ring_ == 0 ? Ring::ring0 : Ring::ring3;
  for (Class c : {Class::innocuous, Class::privileged, Class::critical})
    if (class_ == isa::name(c)) filter.cls = c;
  report.rows = names_.empty() ? report::select(filter, report.host) : named;
  if (verify_) report.findings = findings_of(report.rows, report.host);
  if (verify_ && nothing_ran(report.findings)) return refused(report.findings);
  const int code = report::mismatches(report.findings) != 0 ? kMismatch : 0;
  if (json_) return print(report::json(report), code);
  if (html_) return print(report::html(report), code);
  return print(verify_ ? report::verification(report.findings, colour()) : report::text(report, colour()), code);
}

}  // namespace trapline::cli
