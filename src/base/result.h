// Result<T, E>: a value or a named error, for what a host or a user got wrong. Guest faults are not errors: see
// cpu/fault.h.
#pragma once

#include <utility>
#include <variant>

namespace trapline {

template <class E>
struct Err {
  E error;
};
template <class E>
Err(E) -> Err<E>;

template <class T, class E>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_{std::in_place_index<0>, std::move(value)} {}
  template <class F>
  Result(Err<F> e) : v_{std::in_place_index<1>, E{std::move(e.error)}} {}
  explicit operator bool() const { return v_.index() == 0; }
  T& operator*() & { return std::get<0>(v_); }
  const T& operator*() const& { return std::get<0>(v_); }
  T&& operator*() && { return std::get<0>(std::move(v_)); }
  T* operator->() { return &std::get<0>(v_); }
  const T* operator->() const { return &std::get<0>(v_); }
  const E& error() const { return std::get<1>(v_); }

 private:
  std::variant<T, E> v_;
};

template <class E>
class [[nodiscard]] Result<void, E> {
 public:
  Result() = default;
  template <class F>
  Result(Err<F> e) : v_{std::in_place_index<1>, E{std::move(e.error)}} {}
  explicit operator bool() const { return v_.index() == 0; }
  const E& error() const { return std::get<1>(v_); }

 private:
  std::variant<std::monostate, E> v_;
};

}  // namespace trapline
