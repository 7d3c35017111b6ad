// The device that is not there, tried by itself: right programs get right numbers, however streams run,
// and each mistake that it is there to find is found.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "try.h"

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuStreamCreate(void **, unsigned);
int cuStreamWaitEvent(void *, void *, unsigned);
int cuEventCreate(void **, unsigned);
int cuEventRecord(void *, void *);
int cuEventQuery(void *);
int cuMemAllocAsync(char **, size_t, void *);
int cuMemFreeAsync(char *, void *);
int cuMemHostAlloc(char **, size_t, unsigned);
int cuMemFreeHost(char *);
int cuMemsetD8Async(char *, unsigned char, size_t, void *);
int cuMemcpyDtoHAsync_v2(char *, const char *, size_t, void *);
int cuMemcpyDtoDAsync_v2(char *, const char *, size_t, void *);
int cuGraphCreate(void **, unsigned);
void standin_enqueue(void *, void (*)(void *), void *);
}

void *one;
static void *two;
static int failures = 0;

void check(const char *what, bool holds) {
    if (holds) return;
    failures++;
    printf("FAILED: %s\n", what);
}

static void *event_in(void *stream) {
    void *event;
    cuEventCreate(&event, 2);
    cuEventRecord(event, stream);
    return event;
}

char *memory(size_t bytes, void *stream) {
    char *at;
    check("allocation", cuMemAllocAsync(&at, bytes, stream) == 0);
    return at;
}

static char read_first(const char *at, void *stream) {
    char byte;
    check("copy to the host", cuMemcpyDtoHAsync_v2(&byte, at, 1, stream) == 0);
    return byte;
}

// A number goes from one stream through the other one and back, with waits or without.
static bool goes_round(bool waits) {
    char *pinned, *here = memory(1, one), *there = memory(1, one);
    cuMemHostAlloc(&pinned, 1, 0);
    cuStreamSynchronize(one);
    *pinned = 7;
    cuMemcpyHtoDAsync_v2(here, pinned, 1, one);
    void *event = event_in(one);
    if (waits) cuStreamWaitEvent(two, event, 0);
    cuMemcpyDtoDAsync_v2(there, here, 1, two);
    return read_first(there, two) == 7;
}

bool dies(const std::string &words, const std::function<void()> &act) {
    int ends[2];
    if (pipe(ends)) return false;
    fflush(nullptr);
    pid_t child = fork();
    if (!child) {
        dup2(ends[1], 2);
        act();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char piece[256];
    for (ssize_t count; (count = read(ends[0], piece, sizeof piece)) > 0;) said.append(piece, count);
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    bool found = WIFEXITED(status) && WEXITSTATUS(status) == 134 && said.find(words) != std::string::npos;
    if (!found) printf("expected `%s`, found `%s`\n", words.c_str(), said.c_str());
    return found;
}

static void try_mistakes() {
    check("use after free", dies("not the device's", [] {
        char *at = memory(100, one);
        cuMemFreeAsync(at, one);
        read_first(at, one);
    }));
    check("past the end", dies("not the device's", [] {
        cuMemsetD8Async(memory(100, one), 0, 101, one);
        cuStreamSynchronize(one);
    }));
    check("free before the work of another stream", dies("", [] {
        for (int i = 0; i < 64; i++) {
            char *at = memory(100, one);
            cuStreamSynchronize(one);
            cuMemsetD8Async(at, 0, 100, two);
            cuMemFreeAsync(at, one);
            cuStreamSynchronize(one);
        }
    }));
    check("use before the allocation of another stream", dies("not allocated yet", [] {
        for (int i = 0; i < 64; i++) {
            cuMemsetD8Async(memory(100, one), 0, 100, two);
            cuStreamSynchronize(two);
        }
    }));
    check("freed pinned memory", dies("pinned memory was freed", [] {
        char *pinned, *at = memory(10, one);
        cuMemHostAlloc(&pinned, 10, 0);
        cuMemcpyHtoDAsync_v2(at, pinned, 10, one);
        cuMemFreeHost(pinned);
        cuStreamSynchronize(one);
    }));
    check("freed twice", dies("freed twice", [] {
        char *at = memory(10, one);
        cuMemFreeAsync(at, one);
        cuMemFreeAsync(at, one);
    }));
    check("a function that is not there", dies("cuGraphCreate is not written here", [] {
        void *graph;
        cuGraphCreate(&graph, 0);
    }));
    check("no context", cuCtxSetCurrent(nullptr) == 0 && cuStreamSynchronize(one) == 201);
}

static void add_one(void *number) { ++*(int *)number; }

int main() {
    void *context;
    cuInit(0);
    cuDevicePrimaryCtxRetain(&context, 0);
    cuCtxSetCurrent(context);
    cuStreamCreate(&one, 1);
    cuStreamCreate(&two, 1);
    int right = 0, wrong = 0, overwritten = 0;
    for (int i = 0; i < 200; i++) {
        right += goes_round(true);
        wrong += !goes_round(false);
        // Pinned memory that is written again before it was copied.
        char *pinned, *at = memory(1, one);
        cuMemHostAlloc(&pinned, 1, 0);
        *pinned = 1;
        cuMemcpyHtoDAsync_v2(at, pinned, 1, one);
        *pinned = 2;
        overwritten += read_first(at, one) == 2;
    }
    check("numbers that are waited for", right == 200);
    check("numbers that are not", wrong > 20);
    check("pinned memory written too early", overwritten > 20);
    char pageable = 5, *at = memory(1, one);
    cuMemcpyHtoDAsync_v2(at, &pageable, 1, one);
    pageable = 6;
    check("other memory is read at once", read_first(at, one) == 5);
    char *fresh = memory(1, one);
    check("memory begins as NaN", read_first(fresh, one) == (char)0xff);
    // Work of a library is begun though nobody waits for it.
    int count = 0;
    standin_enqueue(two, add_one, &count);
    void *event = event_in(two);
    for (int i = 0; i < 1000 && cuEventQuery(event); i++) usleep(1000);
    check("a library's work", count == 1);
    check("no memory of no bytes", cuMemAllocAsync(&at, 0, one) == 1);
    check("not more than there is", cuMemAllocAsync(&at, (size_t)1 << 45, one) == 2);
    try_products();
    try_mistakes();
    printf("the stand-in itself: %d failures\n", failures);
    return failures != 0;
}
