// State in one place: what a device or a vCPU remembers is a plain value that can be saved, compared and restored.
#pragma once

#include <concepts>

namespace trapline {

// `State` is all that decides what the object does next, but for what it was constructed with. save() changes nothing.
// restore() takes over the value and nothing else: it calls no backend and moves no wire, because the other end of a
// wire has a state of its own, in which the wire's level is already contained.
template <class T>
concept Saveable = std::equality_comparable<typename T::State> && std::copyable<typename T::State> &&
    requires(const T& from, T& to, const typename T::State& state) {
  { from.save() } -> std::same_as<typename T::State>;
  to.restore(state);
};

}  // namespace trapline
