#include "channel/shared_page.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace trapline::channel {
namespace {

struct alignas(kPageSize) Page {
  u32 value = 5;
};

TEST(SharedPage, TheReadersMappingIsReadOnly) {
  auto shared = SharedPage<Page>::create("test");
  ASSERT_TRUE(shared) << shared.error();
  const Page* page = SharedPage<Page>::attach(shared->fd());
  ASSERT_NE(page, nullptr);
  EXPECT_EQ(page->value, 5u);  // as its constructor made it
  shared->page()->value = 3;
  EXPECT_EQ(page->value, 3u);
  void* at = ::mmap(nullptr, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, shared->fd(), 0);
  EXPECT_EQ(at, MAP_FAILED);
  EXPECT_NE(::mprotect(const_cast<Page*>(page), sizeof *page, PROT_READ | PROT_WRITE), 0);
  ::munmap(const_cast<Page*>(page), sizeof *page);
}

TEST(SharedPage, AMovedOneLeavesNothingBehind) {
  auto shared = SharedPage<Page>::create("test");
  ASSERT_TRUE(shared) << shared.error();
  Page* const page = shared->page();
  SharedPage<Page> other = std::move(*shared);
  EXPECT_EQ(other.page(), page);
  EXPECT_EQ(shared->page(), nullptr);
  EXPECT_EQ(shared->fd(), -1);
}

}  // namespace
}  // namespace trapline::channel
