#include "base/html.h"

#include <gtest/gtest.h>

namespace trapline {
namespace {

TEST(Html, TextStaysText) { EXPECT_EQ(html_escaped("<a href='x'>&\"\n"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot; "); }

}  // namespace
}  // namespace trapline
