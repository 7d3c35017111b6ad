// The driver's functions that the program calls: devices, contexts, memory, streams, events. One
// device of compute capability 9.0. Codes and refusals are those of the driver's manual; calls that
// need a current context refuse a thread without one.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"

namespace {
bool has_begun = false;
int context; // its address is the handle
int pool;
unsigned num_holders = 0;
thread_local void *current = nullptr;

bool is_context(const void *handle) { return handle == &context && num_holders; }
} // namespace

// Also asked by the other libraries.
EXPORT int standin_has_context() { return is_context(current); }

#define NEEDS_CONTEXT                                                                                  \
    if (!standin_has_context()) return INVALID_CONTEXT;

EXPORT int cuInit(unsigned) {
    has_begun = true;
    return SUCCESS;
}

EXPORT int cuGetErrorName(int code, const char **text) {
    static thread_local char name[32];
    snprintf(name, sizeof name, "CUDA error %d", code);
    *text = name;
    return SUCCESS;
}

EXPORT int cuGetErrorString(int code, const char **text) { return cuGetErrorName(code, text); }

EXPORT int cuDeviceGetCount(int *count) {
    *count = 1;
    return has_begun ? SUCCESS : NOT_INITIALIZED;
}

EXPORT int cuDeviceGet(int *device, int ordinal) {
    if (!has_begun) return NOT_INITIALIZED;
    *device = ordinal;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}

EXPORT int cuDeviceGetName(char *name, int length, int device) {
    if (device) return INVALID_DEVICE;
    snprintf(name, length, "stand-in on the CPU");
    return SUCCESS;
}

EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = usage().total;
    return device ? INVALID_DEVICE : SUCCESS;
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 16: *value = 132; break;    // multiprocessors
    case 75: *value = 9; break;      // compute capability
    case 76: *value = 0; break;
    case 97: *value = 232448; break; // shared memory of a block, asked for
    case 115: *value = 1; break;     // memory pools
    default: die("the device's attribute %d is not known here", attribute);
    }
    return device ? INVALID_DEVICE : SUCCESS;
}

EXPORT int cuDevicePrimaryCtxRetain(void **handle, int device) {
    if (device) return INVALID_DEVICE;
    num_holders++;
    *handle = &context;
    return SUCCESS;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    if (device || !num_holders) return INVALID_DEVICE;
    num_holders--;
    return SUCCESS;
}

EXPORT int cuCtxSetCurrent(void *handle) {
    if (handle && !is_context(handle)) return INVALID_CONTEXT;
    current = handle;
    return SUCCESS;
}

EXPORT int cuCtxGetCurrent(void **handle) {
    *handle = current;
    return SUCCESS;
}

EXPORT int cuCtxSynchronize() {
    NEEDS_CONTEXT
    drain_all();
    return SUCCESS;
}

// --- Memory ---------------------------------------------------------------------------------------

EXPORT int cuDeviceGetDefaultMemPool(void **handle, int device) {
    *handle = &pool;
    return device ? INVALID_DEVICE : SUCCESS;
}

// Attributes of a pool: 4, from when on memory is given back; 5 to 8, reserved and used, now and most.
EXPORT int cuMemPoolSetAttribute(void *handle, int attribute, uint64_t *value) {
    if (handle != &pool) return INVALID_VALUE;
    if (attribute == 8 && *value == 0) {
        forget_most();
    } else if (attribute != 4) {
        die("the pool's attribute %d cannot be set here", attribute);
    }
    return SUCCESS;
}

EXPORT int cuMemPoolGetAttribute(void *handle, int attribute, uint64_t *value) {
    if (handle != &pool) return INVALID_VALUE;
    Usage all = usage();
    if (attribute != 7 && attribute != 8) die("the pool's attribute %d is not known here", attribute);
    *value = attribute == 7 ? all.used : all.most;
    return SUCCESS;
}

EXPORT int cuMemGetInfo_v2(size_t *free, size_t *total) {
    NEEDS_CONTEXT
    Usage all = usage();
    *total = all.total;
    *free = all.total - all.used;
    return SUCCESS;
}

EXPORT int cuMemAllocAsync(void **address, size_t bytes, void *stream) {
    if (!stream) NEEDS_CONTEXT
    if (!bytes) return INVALID_VALUE;
    void *at = promise(bytes);
    if (!at) return OUT_OF_MEMORY;
    enqueue(stream, "an allocation", [=] { begin(at); });
    *address = at;
    return SUCCESS;
}

EXPORT int cuMemFreeAsync(void *address, void *stream) {
    if (!stream) NEEDS_CONTEXT
    if (!address) return INVALID_VALUE;
    retire(address);
    enqueue(stream, "a free", [=] { end(address); });
    return SUCCESS;
}

EXPORT int cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    NEEDS_CONTEXT
    if (!bytes) return INVALID_VALUE;
    *address = pin(bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

EXPORT int cuMemFreeHost(void *address) {
    NEEDS_CONTEXT
    return unpin(address) ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuMemsetD8Async(void *address, unsigned char value, size_t bytes, void *stream) {
    NEEDS_CONTEXT
    enqueue(stream, "a memset", [=] {
        if (!bytes) return;
        standin_memory(address, bytes, "memset");
        memset(address, value, bytes);
    });
    return SUCCESS;
}

EXPORT int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    NEEDS_CONTEXT
    if (!bytes) return SUCCESS;
    if (is_pinned(from, bytes)) {
        enqueue(stream, "a copy from pinned memory", [=] {
            if (!is_pinned(from, bytes)) die("pinned memory was freed before it was copied");
            standin_memory(to, bytes, "copy to the device");
            memcpy(to, from, bytes);
        });
        return SUCCESS;
    }
    const unsigned char *first = (const unsigned char *)from;
    std::vector<unsigned char> staged(first, first + bytes);
    enqueue(stream, "a copy to the device", [=] {
        standin_memory(to, bytes, "copy to the device");
        memcpy(to, staged.data(), bytes);
    });
    return SUCCESS;
}

// To memory that is not pinned the host waits for.
EXPORT int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    NEEDS_CONTEXT
    if (!bytes) return SUCCESS;
    bool pinned = is_pinned(to, bytes);
    enqueue(stream, "a copy to the host", [=] {
        if (pinned && !is_pinned(to, bytes)) die("pinned memory was freed before it was copied to");
        standin_memory(from, bytes, "copy to the host");
        memcpy(to, from, bytes);
    });
    if (!pinned) drain(stream);
    return SUCCESS;
}

EXPORT int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    NEEDS_CONTEXT
    if (!bytes) return SUCCESS;
    enqueue(stream, "a copy on the device", [=] {
        standin_memory(from, bytes, "copy on the device");
        standin_memory(to, bytes, "copy on the device");
        memmove(to, from, bytes);
    });
    return SUCCESS;
}

// --- Streams and events ---------------------------------------------------------------------------

EXPORT int cuStreamCreate(void **stream, unsigned flags) {
    NEEDS_CONTEXT
    if (flags != 1) die("a stream that is not CU_STREAM_NON_BLOCKING");
    *stream = new_stream();
    return SUCCESS;
}

EXPORT int cuStreamDestroy_v2(void *stream) {
    NEEDS_CONTEXT
    drop_stream(stream);
    return SUCCESS;
}

EXPORT int cuStreamSynchronize(void *stream) {
    NEEDS_CONTEXT
    drain(stream);
    return SUCCESS;
}

EXPORT int cuStreamWaitEvent(void *stream, void *event, unsigned) {
    NEEDS_CONTEXT
    wait_for(stream, (Event *)event);
    return SUCCESS;
}

EXPORT int cuEventCreate(void **event, unsigned) {
    NEEDS_CONTEXT
    *event = new_event();
    return SUCCESS;
}

EXPORT int cuEventDestroy_v2(void *event) {
    drop_event((Event *)event);
    return SUCCESS;
}

EXPORT int cuEventRecord(void *event, void *stream) {
    NEEDS_CONTEXT
    record((Event *)event, stream);
    return SUCCESS;
}

EXPORT int cuEventQuery(void *event) { return has_passed((Event *)event) ? SUCCESS : NOT_READY; }

EXPORT int cuEventElapsedTime_v2(float *found, void *from, void *to) {
    NEEDS_CONTEXT
    *found = milliseconds((Event *)from, (Event *)to);
    return *found < 0 ? NOT_READY : SUCCESS;
}

EXPORT int cuEventSynchronize(void *event) {
    NEEDS_CONTEXT
    await((Event *)event);
    return SUCCESS;
}
