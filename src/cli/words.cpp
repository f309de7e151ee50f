#include "cli/words.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>

namespace trapline::cli {

namespace {

// Insertions, deletions, substitutions, and exchanges of neighbours (Damerau, Levenshtein).
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before, last(b.size() + 1), now(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); i++) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); j++) {
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) now[j] = std::min(now[j], before[j - 2] + 1);
    }
    before = std::exchange(last, now);
  }
  return last[b.size()];
}

std::string printable(std::string text) {
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text.size() > 80 ? text.substr(0, 80) + "..." : text;
}

bool whole_number(const std::string& text) {
  unsigned long long value = 0;
  const bool hex = text.starts_with("0x");
  const auto [end, error] =
      std::from_chars(text.data() + (hex ? 2 : 0), text.data() + text.size(), value, hex ? 16 : 10);
  return error == std::errc{} && end == text.data() + text.size();
}

bool seconds(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

class Checker {
 public:
  explicit Checker(const CLI::App& command) : command_{command}, name_{command.get_name()} {
    for (const CLI::Option* o : command.get_options()) {
      for (const auto& n : o->get_lnames()) known_.push_back("--" + n);
      if (o->get_positional()) places_ += most(*o);
    }
  }

  std::string check(const std::vector<std::string>& words) {
    for (std::size_t i = 0; i < words.size(); i++) {
      const std::string& word = words[i];
      if (word == "--") return positionals(words.size() - i - 1, words.back());
      std::string wrong;
      if (word.size() < 2 || word[0] != '-')
        wrong = positionals(1, word);
      else
        wrong = option(words, i);
      if (!wrong.empty()) return wrong;
    }
    return {};
  }

 private:
  static std::size_t most(const CLI::Option& o) {
    return static_cast<std::size_t>(std::max(o.get_items_expected_max(), 0));
  }
  std::string at(const std::string& what) const { return fmt::format("{}: {}", name_, what); }
  std::string help() const { return fmt::format("see trapline help {}", name_); }

  std::string positionals(std::size_t count, const std::string& last) {
    placed_ += count;
    if (placed_ <= places_) return {};
    if (places_ == 0) return at(fmt::format("{}: not expected: {}", printable(last), help()));
    return at(fmt::format("{}: one too many: {}", printable(last), help()));
  }

  // Moves `i` to the option's value.
  std::string option(const std::vector<std::string>& words, std::size_t& i) {
    const std::string& word = words[i];
    const auto equals = word.find('=');
    const std::string name = word[1] == '-' ? word.substr(0, equals) : word.substr(0, 2);
    const CLI::Option* o = command_.get_option_no_throw(name);
    if (!o || (word[1] != '-' && word.size() > 2 && most(*o) == 0)) return unknown(word.substr(0, equals));
    if (most(*o) == 0) return equals == std::string::npos ? std::string{} : at(fmt::format("{}: takes no value", name));
    std::string value;
    if (word[1] == '-' && equals != std::string::npos)
      value = word.substr(equals + 1);
    else if (word[1] != '-' && word.size() > 2)
      value = word.substr(2);
    else if (i + 1 < words.size())
      value = words[++i];
    else
      return at(fmt::format("{}: its value is missing: {} {}", name, name, o->get_type_name()));
    const bool repeatable = o->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
    if (++given_[o] > 1 && !repeatable) return at(fmt::format("{}: given twice: give it once", name));
    if (o->get_positional()) return positionals(1, value);
    return of_type(name, o->get_type_name(), value);
  }

  std::string unknown(const std::string& word) const {
    const std::string dashes = word.starts_with("--") ? word : "-" + word;
    return at(fmt::format("{}: no such option: {}{}", printable(word), suggestion(dashes, known_), help()));
  }

  std::string of_type(const std::string& name, const std::string& type, const std::string& value) const {
    if (type == "N" && !whole_number(value))
      return at(fmt::format("{} {}: not a number: give a whole one", name, printable(value)));
    if (type == "SECONDS" && !seconds(value))
      return at(fmt::format("{} {}: give seconds, 0 for none", name, printable(value)));
    return {};
  }

  const CLI::App& command_;
  std::string name_;
  std::vector<std::string> known_;
  std::map<const CLI::Option*, int> given_;
  std::size_t places_ = 0, placed_ = 0;
};

}  // namespace

std::string wrong_words(const CLI::App& command, const std::vector<std::string>& words) {
  return Checker{command}.check(words);
}

std::string suggestion(const std::string& word, const std::vector<std::string>& known) {
  const auto far = [&](const std::string& k) {
    // "--mem" is near "--memory", however many letters are missing.
    return word.size() > 3 && k.starts_with(word) ? 1 : distance(word, k);
  };
  const auto nearest =
      std::min_element(known.begin(), known.end(), [&](const auto& a, const auto& b) { return far(a) < far(b); });
  if (nearest == known.end() || far(*nearest) > std::max<std::size_t>(1, word.size() / 3)) return {};
  return fmt::format("did you mean {}? ", *nearest);
}

}  // namespace trapline::cli
