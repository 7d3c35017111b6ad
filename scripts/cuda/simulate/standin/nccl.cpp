// NCCL between processes of one machine, for the device that is not there: machine.h. What is asked
// for goes into the stream as a work that waits for the other processes. They meet at a socket of
// rank 0, which has all contributions come to it and adds them as a ring does: another process first
// for each part, rounded to the type after each addition. As with NCCL, work of a process whose
// partner has gone never ends.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>
#include <random>

#include "../numbers.h"
#include "machine.h"

EXPORT int standin_has_context();
EXPORT void standin_enqueue(void *stream, void (*work)(void *), void *data);

namespace {
const int CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4;
const int FLOAT32 = 7, FLOAT64 = 8, BFLOAT16 = 9, SUM = 0;

struct Id {
    char text[128];
};
struct Comm {
    int rank, world;
    // Rank 0's: to the others by rank. Another's: to rank 0.
    std::vector<int> lines;
    uint64_t put = 0, done = 0;
};
// What all processes must ask for alike.
struct Wish {
    uint64_t number, count;
    int type, root; // −1: a sum
};
struct Operation {
    Comm *comm;
    Wish wish;
    const void *from;
    void *to;
    void *stream;
};

thread_local int depth = 0;
thread_local std::vector<Operation *> grouped;

size_t width(int type) { return type == FLOAT64 ? 8 : type == FLOAT32 ? 4 : type == BFLOAT16 ? 2 : 0; }

[[noreturn]] void wait_for_ever() {
    while (true) pause();
}

void send_all(int line, const void *data, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        ssize_t sent = send(line, (const char *)data + at, bytes - at, MSG_NOSIGNAL);
        if (sent <= 0) wait_for_ever();
        at += sent;
    }
}

void take_all(int line, void *data, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        ssize_t taken = recv(line, (char *)data + at, bytes - at, 0);
        if (taken <= 0) wait_for_ever();
        at += taken;
    }
}

template <typename T> T added(T a, T b) { return a + b; }
template <> bf16 added(bf16 a, bf16 b) { return from_float<bf16>(to_float(a) + to_float(b)); }

// Part p of as many as there are processes begins with process p + 1.
template <typename T> void add(const std::vector<std::vector<char>> &all, void *to, size_t count) {
    size_t world = all.size(), part = (count + world - 1) / world;
    for (size_t i = 0; i < count; i++) {
        size_t first = (i / part + 1) % world;
        T sum = ((const T *)all[first].data())[i];
        for (size_t k = 1; k < world; k++) sum = added(sum, ((const T *)all[(first + k) % world].data())[i]);
        ((T *)to)[i] = sum;
    }
}

void sum_at_first(const Operation &work, size_t bytes) {
    const Comm &comm = *work.comm;
    std::vector<std::vector<char>> all(comm.world, std::vector<char>(bytes));
    memcpy(all[0].data(), work.from, bytes);
    for (int rank = 1; rank < comm.world; rank++) take_all(comm.lines[rank - 1], all[rank].data(), bytes);
    size_t count = work.wish.count;
    if (work.wish.type == FLOAT32) add<float>(all, work.to, count);
    if (work.wish.type == FLOAT64) add<double>(all, work.to, count);
    if (work.wish.type == BFLOAT16) add<bf16>(all, work.to, count);
}

void lead(const Operation &work, size_t bytes) {
    const Comm &comm = *work.comm;
    int root = work.wish.root;
    for (int line : comm.lines) {
        Wish theirs;
        take_all(line, &theirs, sizeof theirs);
        if (memcmp(&theirs, &work.wish, sizeof theirs)) die("processes ask NCCL for different things");
    }
    if (root < 0) sum_at_first(work, bytes);
    if (root == 0) memmove(work.to, work.from, bytes);
    if (root > 0) take_all(comm.lines[root - 1], work.to, bytes);
    for (int rank = 1; rank < comm.world; rank++) {
        if (rank != root) send_all(comm.lines[rank - 1], work.to, bytes);
    }
}

void follow(const Operation &work, size_t bytes) {
    const Comm &comm = *work.comm;
    bool gives = work.wish.root < 0 || work.wish.root == comm.rank;
    send_all(comm.lines[0], &work.wish, sizeof work.wish);
    if (gives) send_all(comm.lines[0], work.from, bytes);
    if (work.wish.root == comm.rank) {
        memmove(work.to, work.from, bytes);
    } else {
        take_all(comm.lines[0], work.to, bytes);
    }
}

void perform(void *data) {
    std::unique_ptr<Operation> work((Operation *)data);
    Comm &comm = *work->comm;
    if (work->wish.number != comm.done) die("works of one communicator overtake one another");
    size_t bytes = work->wish.count * width(work->wish.type);
    standin_memory(work->from, bytes, "NCCL");
    standin_memory(work->to, bytes, "NCCL");
    comm.rank == 0 ? lead(*work, bytes) : follow(*work, bytes);
    comm.done++;
}

int ask(Operation work) {
    if (!standin_has_context()) return CUDA_ERROR;
    if (!work.comm || !width(work.wish.type)) return INVALID_ARGUMENT;
    if (work.wish.root >= work.comm->world) return INVALID_ARGUMENT;
    work.wish.number = work.comm->put++;
    Operation *kept = new Operation(work);
    depth ? grouped.push_back(kept) : standin_enqueue(work.stream, perform, kept);
    return SUCCESS;
}

sockaddr_un address(const Id &id, socklen_t *length) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    // A name without a file.
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%.80s", id.text);
    *length = offsetof(sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1);
    return address;
}

bool meet_as_first(Comm &comm, int door, const sockaddr_un &at, socklen_t length) {
    if (bind(door, (const sockaddr *)&at, length) || listen(door, comm.world)) return false;
    comm.lines.resize(comm.world - 1);
    for (int i = 1; i < comm.world; i++) {
        int line = accept(door, nullptr, nullptr), rank;
        if (line < 0) return false;
        take_all(line, &rank, sizeof rank);
        if (rank < 1 || rank >= comm.world || comm.lines[rank - 1]) die("process %d comes twice", rank);
        comm.lines[rank - 1] = line;
    }
    char all_here = 1;
    for (int line : comm.lines) send_all(line, &all_here, 1);
    close(door);
    return true;
}

bool meet(Comm &comm, const Id &id) {
    socklen_t length;
    sockaddr_un at = address(id, &length);
    int line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (line < 0) return false;
    if (comm.rank == 0) return meet_as_first(comm, line, at, length);
    while (connect(line, (const sockaddr *)&at, length)) usleep(10000);
    comm.lines = {line};
    char all_here;
    send_all(line, &comm.rank, sizeof comm.rank);
    take_all(line, &all_here, 1);
    return true;
}
} // namespace

EXPORT int ncclGetVersion(int *version) {
    *version = 23000;
    return SUCCESS;
}

EXPORT const char *ncclGetErrorString(int code) {
    static thread_local char text[40];
    snprintf(text, sizeof text, "NCCL error %d", code);
    return text;
}

EXPORT int ncclGetUniqueId(Id *id) {
    std::random_device random;
    memset(id, 0, sizeof *id);
    snprintf(id->text, sizeof id->text, "gene-bert-nccl-%d-%08x%08x", getpid(), random(), random());
    return SUCCESS;
}

EXPORT int ncclCommInitRank(Comm **handle, int world, Id id, int rank) {
    if (!standin_has_context()) return CUDA_ERROR;
    if (world < 1 || rank < 0 || rank >= world || memcmp(id.text, "gene-bert-nccl", 14)) {
        return INVALID_ARGUMENT;
    }
    std::unique_ptr<Comm> comm(new Comm{rank, world, {}});
    if (!meet(*comm, id)) return SYSTEM_ERROR;
    *handle = comm.release();
    return SUCCESS;
}

EXPORT int ncclCommDestroy(Comm *comm) {
    if (comm->done != comm->put) die("a communicator ends with work of its own on the way");
    for (int line : comm->lines) close(line);
    delete comm;
    return SUCCESS;
}

EXPORT int ncclGroupStart() {
    depth++;
    return SUCCESS;
}

EXPORT int ncclGroupEnd() {
    if (--depth) return SUCCESS;
    for (Operation *work : grouped) standin_enqueue(work->stream, perform, work);
    grouped.clear();
    return SUCCESS;
}

EXPORT int ncclAllReduce(const void *from, void *to, size_t count, int type, int how, Comm *comm, void *stream) {
    if (how != SUM) die("NCCL reduces by sums only here, not %d", how);
    return ask({comm, {0, count, type, -1}, from, to, stream});
}

EXPORT int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, Comm *comm, void *stream) {
    return ask({comm, {0, count, type, root}, from, to, stream});
}
