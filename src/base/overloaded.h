// Several lambdas as one visitor of a variant.
#pragma once

namespace trapline {

template <class... Fn>
struct Overloaded : Fn... {
  using Fn::operator()...;
};
template <class... Fn>
Overloaded(Fn...) -> Overloaded<Fn...>;  // clang 14 does not deduce it for aggregates

}  // namespace trapline
