// What the tries of the stand-in share.
#pragma once
#include <stddef.h>

#include <functional>
#include <string>

extern "C" {
int cuStreamSynchronize(void *);
int cuMemcpyHtoDAsync_v2(char *, const char *, size_t, void *);
}

// A stream.
extern void *one;

void check(const char *what, bool holds);
// Memory of the device, in the order of a stream.
char *memory(size_t bytes, void *stream);
// Whether `act`, in a process of its own, ends with these words.
bool dies(const std::string &words, const std::function<void()> &act);
void try_products();
