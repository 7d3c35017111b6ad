// A device that is not there: its memory, its streams, its kernels. The program's build with CUDA runs
// on it unchanged; `../whole.py` says how. Shared by the libraries of this folder.
//
// Memory of the device is the host's, each allocation in pages of its own: it begins as NaN bytes, its
// end lies at the end of a page after which nothing may be touched, and what is freed may not be
// touched any more. Streams are queues: what is put into one runs when somebody waits for it, or when
// chance will have it, in the order of its stream and else of events alone. So what has forgotten to
// wait sees numbers that are not there yet, or no more. Whatever a driver would not forgive ends the
// process and says what it was.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Codes of the driver.
const int SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101,
          INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600;

// Ends the process.
[[noreturn]] __attribute__((format(printf, 1, 2))) void die(const char *format, ...);

// Memory of the device, between `promise` and `retire` on the host's side, `begin` and `end` in the
// order of its stream. `promise` gives nullptr where no memory is left.
void *promise(size_t bytes);
void begin(void *at);
void end(void *at);
void retire(void *at);
// Ends the process unless [at, at + bytes) lies in memory that is there now.
EXPORT void standin_memory(const void *at, size_t bytes, const char *what);
struct Usage {
    uint64_t total, used, most;
};
Usage usage();
void forget_most();

// Pinned memory of the host.
void *pin(size_t bytes);
bool unpin(void *at);
bool is_pinned(const void *at, size_t bytes);

// Streams and events.
struct Event;
void *new_stream();
void drop_stream(void *stream);
// Puts work into a stream. `runs_for_long`: may wait for other processes, so it is begun by a thread of
// its own if nobody comes for it.
void enqueue(void *stream, const char *what, std::function<void()> work, bool runs_for_long = false);
// Until all that is in the stream now, or in all, has run.
void drain(void *stream);
void drain_all();
Event *new_event();
void drop_event(Event *event);
void record(Event *event, void *stream);
void wait_for(void *stream, Event *event);
// Whether what was in the stream when the event was recorded has run; some work may run meanwhile.
bool has_passed(Event *event);
void await(Event *event);
// Between two events that have passed, or a negative number.
float milliseconds(Event *from, Event *to);

// Kernels.
struct Parameter {
    size_t size, alignment;
    bool is_pointer;
};
struct Launch {
    unsigned grid[3], threads, shared;
    std::vector<unsigned char> arguments; // as the kernel has them in its own memory
};
struct Kernel {
    const char *name;
    std::vector<Parameter> parameters;
    std::function<void(const Launch &)> run;
    size_t offset(size_t index) const;
};
// Of a file of kernels; called before main by each.
void add_kernels(const char *source, std::vector<Kernel> kernels);
const Kernel *find_kernel(const std::string &source, const std::string &name);
// Of the source whose fatbin this is, or "" of another image.
std::string source_of(const void *image);
