#include "image/store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace trapline::image {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A store of its own.
struct Images : testing::Test {
  fs::path data, images;
  Images() {
    char name[] = "/tmp/trapline-store-XXXXXX";
    data = ::mkdtemp(name);
    images = data / "trapline/images";
    ::setenv("XDG_DATA_HOME", data.c_str(), 1);
  }
  ~Images() override {
    ::unsetenv("XDG_DATA_HOME");
    fs::remove_all(data);
  }
  static Result<Image, std::string> add(const Store& store, const std::string& name) {
    auto draft = store.begin(name);
    EXPECT_TRUE(draft);
    std::ofstream{draft->folder() + "/disk.raw"} << "disk";
    Image image{.name = name, .folder = {}, .suite = "bookworm", .user = "me", .kernel = "6.1"};
    image.bytes = 4096, image.made = 12;
    return store.keep(std::move(*draft), image);
  }
};

TEST_F(Images, AreWhatWasKept) {
  const auto store = Store::open();
  ASSERT_TRUE(store);
  EXPECT_TRUE(store->all().empty());
  EXPECT_FALSE(fs::exists(images)) << "looking makes nothing";
  ASSERT_TRUE(add(*store, "b"));
  ASSERT_TRUE(add(*store, "a"));
  ASSERT_EQ(store->all().size(), 2u);
  EXPECT_EQ(store->all()[0].name, "a");
  const auto b = store->find("b");
  ASSERT_TRUE(b);
  EXPECT_EQ(b->user, "me");
  EXPECT_EQ(b->bytes, 4096u);
  EXPECT_EQ(b->made, 12);
  EXPECT_EQ(b->disk(), (images / "b/disk.raw").string());
  EXPECT_FALSE(add(*store, "b")) << "the name is taken";
  EXPECT_TRUE(fs::exists(b->disk()));
  EXPECT_THAT(store->find("c").error(), HasSubstr("a, b"));
  EXPECT_FALSE(store->find("../b"));
}

TEST_F(Images, GoUnlessTheyAreUsed) {
  const auto store = Store::open();
  const auto image = add(*store, "a");
  ASSERT_TRUE(image);
  const int vm = ::open(image->disk().c_str(), O_RDWR | O_CLOEXEC);
  struct flock whole {};
  whole.l_type = F_RDLCK;
  ASSERT_EQ(::fcntl(vm, F_OFD_SETLK, &whole), 0);
  EXPECT_THAT(store->remove("a").error(), HasSubstr("a VM uses it"));
  ::close(vm);
  EXPECT_TRUE(store->remove("a"));
  EXPECT_FALSE(store->remove("a"));
  EXPECT_TRUE(fs::is_empty(images));
}

TEST_F(Images, DraftsThatNobodyHoldsGo) {
  const auto store = Store::open();
  std::string folder;
  {
    auto draft = store->begin("a");
    ASSERT_TRUE(draft);
    folder = draft->folder();
    EXPECT_TRUE(store->all().empty()) << "it is no image yet";
    EXPECT_TRUE(fs::exists(folder)) << "it is held";
  }
  EXPECT_FALSE(fs::exists(folder));
  // What a kill has left, with a folder that its owner may not enter.
  fs::create_directories(folder + "/root/closed/below");
  fs::permissions(folder + "/root/closed", fs::perms::none);
  EXPECT_TRUE(store->all().empty());
  EXPECT_FALSE(fs::exists(folder));
}

TEST_F(Images, NonsenseIsNoImage) {
  const auto store = Store::open();
  for (const char* text : {"", "[]", "{\"bytes\": \"many\"}", "{\"format\": \"../../x\"}", "{"}) {
    fs::create_directories(images / "a");
    std::ofstream{images / "a/image.json"} << text;
    EXPECT_FALSE(store->find("a")) << text;
    EXPECT_TRUE(store->all().empty()) << text;
  }
}

}  // namespace
}  // namespace trapline::image
