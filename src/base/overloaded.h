// Several lambdas as one visitor of a variant.
#pragma once

namespace trapline {

template <class... Fn>
struct Overloaded : Fn... {
  using Fn::operator()...;
};

}  // namespace trapline
