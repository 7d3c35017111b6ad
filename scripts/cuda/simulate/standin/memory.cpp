// Memory of the device and pinned memory of the host: machine.h.
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>

#include "machine.h"
#include "running.h"

const size_t PAGE = 4096, ALIGNMENT = 256, ADDRESSES = (size_t)32 << 40;
const unsigned char UNTOUCHED = 0xff, MARGIN = 0xa5;

thread_local const char *running = nullptr;

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "stand-in: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, running ? " (while %s ran)\n" : "\n", running);
    va_end(arguments);
    fflush(nullptr);
    _exit(134);
}

namespace {
struct Allocation {
    size_t bytes;
    bool begun, ended;
};
struct Memory {
    std::mutex lock;
    std::map<uintptr_t, Allocation> device, pinned;
    uintptr_t first = 0, next = 0;
    uint64_t total, used = 0, most = 0;
};

// An access where no memory is: says by whom.
void on_fault(int, siginfo_t *info, void *) {
    char text[256];
    const char *who = running ? running : "the host";
    int length = snprintf(text, sizeof text, "stand-in: %s touched %p, where no memory is\n", who,
                          info->si_addr);
    if (write(2, text, length) < 0) _exit(135);
    _exit(134);
}

Memory &memory() {
    static Memory &memory = *[] {
        Memory *memory = new Memory;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void *at = mmap(nullptr, ADDRESSES, PROT_NONE, flags, -1, 0);
        if (at == MAP_FAILED) die("no addresses for the device's memory");
        memory->first = memory->next = (uintptr_t)at;
        const char *megabytes = getenv("STANDIN_MEGABYTES");
        memory->total = (megabytes ? strtoull(megabytes, nullptr, 10) : 16384) << 20;
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, nullptr);
        sigaction(SIGBUS, &action, nullptr);
        return memory;
    }();
    return memory;
}

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// Where the pages of an allocation begin, and how many bytes they are.
uintptr_t pages_of(uintptr_t at) { return at / PAGE * PAGE; }
size_t page_bytes(uintptr_t at, size_t bytes) {
    return round_up(at + round_up(bytes, ALIGNMENT), PAGE) - pages_of(at);
}

// The allocation that `at` lies in, or null.
const Allocation *around(const std::map<uintptr_t, Allocation> &all, uintptr_t at, size_t bytes) {
    auto after = all.upper_bound(at);
    if (after == all.begin()) return nullptr;
    auto found = std::prev(after);
    bool fits = at + bytes <= found->first + found->second.bytes;
    return fits ? &found->second : nullptr;
}

void check_margin(uintptr_t at, size_t bytes) {
    const unsigned char *from = (const unsigned char *)pages_of(at), *start = (unsigned char *)at;
    const unsigned char *last = from + page_bytes(at, bytes);
    for (const unsigned char *byte = from; byte < last; byte++) {
        if (byte == start) byte += bytes;
        if (byte < last && *byte != MARGIN) {
            die("a write %td bytes from the start of an allocation of %zu bytes", byte - start, bytes);
        }
    }
}
} // namespace

void *promise(size_t bytes) {
    Memory &all = memory();
    std::lock_guard<std::mutex> guard(all.lock);
    if (all.used + bytes > all.total) return nullptr;
    size_t inner = round_up(bytes, ALIGNMENT), outer = round_up(inner, PAGE);
    if (all.next + outer + PAGE > all.first + ADDRESSES) die("all addresses are used up");
    // The page behind stays closed.
    uintptr_t pages = all.next, at = pages + outer - inner;
    all.next += outer + PAGE;
    if (mprotect((void *)pages, outer, PROT_READ | PROT_WRITE)) die("the host has no more memory");
    memset((void *)pages, MARGIN, outer);
    memset((void *)at, UNTOUCHED, bytes);
    all.device[at] = {bytes, false, false};
    all.used += bytes;
    all.most = all.used > all.most ? all.used : all.most;
    return (void *)at;
}

void begin(void *at) {
    std::lock_guard<std::mutex> guard(memory().lock);
    memory().device[(uintptr_t)at].begun = true;
}

void retire(void *at) {
    std::lock_guard<std::mutex> guard(memory().lock);
    auto found = memory().device.find((uintptr_t)at);
    if (found == memory().device.end()) die("%p is freed, which is no allocation", at);
    if (found->second.ended) die("%p is freed twice", at);
    found->second.ended = true;
    memory().used -= found->second.bytes;
}

void end(void *at) {
    Memory &all = memory();
    std::lock_guard<std::mutex> guard(all.lock);
    auto found = all.device.find((uintptr_t)at);
    uintptr_t from = found->first;
    if (!found->second.begun) die("%p is freed before its stream has allocated it", at);
    check_margin(from, found->second.bytes);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    size_t bytes = page_bytes(from, found->second.bytes);
    if (mmap((void *)pages_of(from), bytes, PROT_NONE, flags, -1, 0) == MAP_FAILED) {
        die("memory cannot be given back");
    }
    all.device.erase(found);
}

void standin_memory(const void *at, size_t bytes, const char *what) {
    std::lock_guard<std::mutex> guard(memory().lock);
    const Allocation *found = around(memory().device, (uintptr_t)at, bytes);
    if (!found) die("%s: %zu bytes at %p are not the device's", what, bytes, at);
    if (!found->begun) die("%s: %p is not allocated yet in the order of streams", what, at);
}

Usage usage() {
    std::lock_guard<std::mutex> guard(memory().lock);
    return {memory().total, memory().used, memory().most};
}

void forget_most() {
    std::lock_guard<std::mutex> guard(memory().lock);
    memory().most = memory().used;
}

void *pin(size_t bytes) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    memset(at, UNTOUCHED, bytes);
    std::lock_guard<std::mutex> guard(memory().lock);
    memory().pinned[(uintptr_t)at] = {bytes, true, false};
    return at;
}

bool unpin(void *at) {
    std::lock_guard<std::mutex> guard(memory().lock);
    auto found = memory().pinned.find((uintptr_t)at);
    if (found == memory().pinned.end()) return false;
    munmap(at, found->second.bytes);
    memory().pinned.erase(found);
    return true;
}

bool is_pinned(const void *at, size_t bytes) {
    std::lock_guard<std::mutex> guard(memory().lock);
    return around(memory().pinned, (uintptr_t)at, bytes) != nullptr;
}
