// A C++ function as a kernel that the driver can launch: its parameters are those of the function.
#pragma once

#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "machine.h"

template <typename T> Parameter parameter() { return {sizeof(T), alignof(T), std::is_pointer<T>::value}; }

template <typename T> T taken(const Kernel &kernel, const Launch &launch, size_t index) {
    T value;
    memcpy((void *)&value, launch.arguments.data() + kernel.offset(index), sizeof value);
    return value;
}

// `call(launch, function, arguments…)` runs it.
template <typename Call, typename... A, size_t... I>
Kernel describe(const char *name, void (*function)(A...), Call call, std::index_sequence<I...>) {
    Kernel kernel = {name, {parameter<A>()...}, nullptr};
    Kernel shape = kernel;
    kernel.run = [=](const Launch &launch) {
        call(launch, function, taken<A>(shape, launch, I)...);
    };
    return kernel;
}
template <typename Call, typename... A>
Kernel describe(const char *name, void (*function)(A...), Call call) {
    return describe(name, function, call, std::index_sequence_for<A...>());
}
