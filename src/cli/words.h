// The words of a command line, held against what a command knows before CLI11 parses them: a misspelt option is named,
// with the one that was meant, and not what is missing because of it.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace trapline::cli {

// What is wrong with `words`, the ones behind the command: one line, without "trapline: ". Empty: nothing that can be
// told from the words alone.
std::string wrong_words(const CLI::App& command, const std::vector<std::string>& words);

// "did you mean X? " of the nearest of `known`, or nothing when none is near.
std::string suggestion(const std::string& word, const std::vector<std::string>& known);

}  // namespace trapline::cli
