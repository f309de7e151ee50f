#include "image/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/sources.h"

namespace trapline::image {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Spec good() { return {.name = "web", .suite = "bookworm", .size = "4G", .bytes = 4ull << 30, .packages = {}}; }

TEST(Recipe, NamesWhatIsWrong) {
  EXPECT_EQ(check(good()), "");
  const auto wrong = [](auto change) {
    Spec spec = good();
    change(spec);
    return check(spec);
  };
  EXPECT_THAT(wrong([](Spec& s) { s.name = "a/b"; }), HasSubstr("a/b"));
  EXPECT_THAT(wrong([](Spec& s) { s.suite = "a b"; }), HasSubstr("--suite a b"));
  for (const char* user : {"", "root", "A", "x y", "1a", "a;b"})
    EXPECT_THAT(wrong([&](Spec& s) { s.user = user; }), HasSubstr("--user")) << user;
  EXPECT_THAT(wrong([](Spec& s) { s.packages = {"git", "$(x)"}; }), HasSubstr("--packages $(x)"));
  EXPECT_THAT(wrong([](Spec& s) { s.format = "vmdk"; }), HasSubstr("--format vmdk"));
}

TEST(Recipe, AKernelOfTheUsersIsTheOnlyOne) {
  Spec spec = good();
  EXPECT_THAT(packages_of(spec), Contains("linux-image-cloud-amd64"));
  spec.packages = {"git", "linux-image-amd64"};
  EXPECT_THAT(packages_of(spec), Contains("linux-image-amd64"));
  EXPECT_THAT(packages_of(spec), Contains("git"));
  EXPECT_THAT(packages_of(spec), Not(Contains("linux-image-cloud-amd64")));
}

TEST(Recipe, SourcesAreTheHosts) {
  EXPECT_THAT(sources_for("trixie", ""), ElementsAre());  // mmdebstrap's own
  EXPECT_THAT(sources_for("trixie", "https://mirror.example/debian bookworm\n"),
              ElementsAre("deb https://mirror.example/debian trixie main",
                          "deb https://mirror.example/debian trixie-updates main",
                          "deb https://mirror.example/debian-security trixie-security main"));
  const char* targets =
      "https://other.example/tool cloud\n"
      "https://mirror.example/debian/ bookworm\nhttps://mirror.example/debian/ bookworm-updates\n"
      "https://mirror.example/debian-security/ bookworm-security\ncdrom:[x]/debian bookworm\n";
  EXPECT_THAT(sources_for("bookworm", targets),
              ElementsAre("deb https://mirror.example/debian bookworm main",
                          "deb https://mirror.example/debian bookworm-updates main",
                          "deb https://mirror.example/debian-security bookworm-security main"));
  EXPECT_THAT(sources_for("sid", targets), ElementsAre("deb https://mirror.example/debian sid main"));
}

}  // namespace
}  // namespace trapline::image
