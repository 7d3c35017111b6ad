// Streams and events: machine.h. One lock for all queues, which is not held while work runs. What is
// dropped is not freed, so that no handle comes twice.
#include <condition_variable>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <stdlib.h>
#include <thread>

#include "machine.h"
#include "running.h"

namespace {
typedef std::chrono::steady_clock Clock;

// One recording of an event.
struct Recording {
    bool passed = false;
    Clock::time_point at;
};
struct Work {
    const char *what;
    std::function<void()> run;
    std::shared_ptr<Recording> needs, marks;
    bool runs_for_long;
    Clock::time_point since;
};
struct Stream {
    std::deque<Work> queue;
    uint64_t put = 0, done = 0;
    bool busy = false, dropped = false;
    bool ready() const { return !busy && !queue.empty() && is_free(queue.front()); }
    static bool is_free(const Work &work) { return !work.needs || work.needs->passed; }
};
} // namespace

struct Event {
    std::shared_ptr<Recording> last;
};

namespace {
struct Queues {
    std::mutex lock;
    std::condition_variable moved;
    std::set<Stream *> streams;
    std::set<Event *> events;
    // Two that are always there: the driver's handles 0 and 2.
    Stream legacy, of_thread;
    std::mt19937 random;
    bool has_helper = false;
};
typedef std::unique_lock<std::mutex> Held;

Queues &queues() {
    static Queues &queues = *[] {
        Queues *queues = new Queues;
        const char *seed = getenv("STANDIN_SEED");
        queues->random.seed(seed ? atoi(seed) : 1);
        queues->streams = {&queues->legacy, &queues->of_thread};
        return queues;
    }();
    return queues;
}

unsigned below(unsigned end) { return queues().random() % end; }

Stream &stream_of(void *handle) {
    Queues &all = queues();
    if (!handle || handle == (void *)1) return all.legacy;
    if (handle == (void *)2) return all.of_thread;
    auto found = all.streams.find((Stream *)handle);
    if (found == all.streams.end() || (*found)->dropped) die("%p is no stream", handle);
    return **found;
}

Event &event_of(Event *event) {
    if (!queues().events.count(event)) die("%p is no event", (void *)event);
    return *event;
}

// Runs the first work of a stream that is ready.
void run_first(Held &held, Stream *stream) {
    Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    stream->busy = true;
    if (work.run) {
        held.unlock();
        const char *before = running;
        running = work.what;
        work.run();
        running = before;
        held.lock();
    }
    if (work.marks) work.marks->passed = true, work.marks->at = Clock::now();
    stream->busy = false;
    stream->done++;
    if (stream->dropped && stream->queue.empty()) {
        queues().streams.erase(stream);
    }
    queues().moved.notify_all();
}

// Those whose first work may run now; work of others' threads is left to its helper at times.
std::vector<Stream *> ready_streams() {
    std::vector<Stream *> ready;
    for (Stream *stream : queues().streams) {
        if (stream->ready()) ready.push_back(stream);
    }
    return ready;
}

// Runs works until `holds`, those of `wanted` more or less often than those of other streams.
void run_until(Held &held, Stream *wanted, const std::function<bool()> &holds) {
    unsigned others = below(4) * 30;
    while (!holds()) {
        std::vector<Stream *> ready = ready_streams();
        if (ready.empty()) {
            bool somebody = false;
            for (Stream *stream : queues().streams) somebody |= stream->busy;
            if (!somebody) die("a wait for an event that never comes");
            queues().moved.wait(held);
            continue;
        }
        bool is_ready = wanted && wanted->ready();
        Stream *next = ready[below(ready.size())];
        if (is_ready && below(100) >= others) next = wanted;
        run_first(held, next);
    }
}

// Begins work that waits for other processes, where no thread here comes for it, and whatever it waits
// for itself: the threads of all processes may be waiting for one another's messages.
void help() {
    Queues &all = queues();
    Held held(all.lock);
    while (true) {
        Clock::time_point late = Clock::now() - std::chrono::milliseconds(20);
        bool has_old = false;
        for (Stream *stream : all.streams) {
            for (const Work &work : stream->queue) has_old |= work.runs_for_long && work.since < late;
        }
        std::vector<Stream *> ready = ready_streams();
        if (has_old && !ready.empty()) {
            run_first(held, ready[below(ready.size())]);
        } else {
            all.moved.wait_for(held, std::chrono::milliseconds(20));
        }
    }
}

void put(Stream &stream, Work work) {
    Queues &all = queues();
    if (work.runs_for_long && !all.has_helper) {
        all.has_helper = true;
        std::thread(help).detach();
    }
    work.since = Clock::now();
    stream.queue.push_back(std::move(work));
    stream.put++;
}
} // namespace

void *new_stream() {
    Held held(queues().lock);
    Stream *stream = new Stream;
    queues().streams.insert(stream);
    return stream;
}

void drop_stream(void *handle) {
    Held held(queues().lock);
    Stream &stream = stream_of(handle);
    if (stream.queue.empty() && !stream.busy) {
        queues().streams.erase(&stream);
    } else {
        stream.dropped = true;
    }
}

void enqueue(void *stream, const char *what, std::function<void()> work, bool runs_for_long) {
    Held held(queues().lock);
    put(stream_of(stream), {what, std::move(work), nullptr, nullptr, runs_for_long, {}});
}

void drain(void *handle) {
    Held held(queues().lock);
    Stream *stream = &stream_of(handle);
    uint64_t all = stream->put;
    run_until(held, stream, [=] { return stream->done >= all; });
}

void drain_all() {
    Held held(queues().lock);
    run_until(held, nullptr, [] {
        for (Stream *stream : queues().streams) {
            if (stream->busy || !stream->queue.empty()) return false;
        }
        return true;
    });
}

Event *new_event() {
    Held held(queues().lock);
    Event *event = new Event;
    queues().events.insert(event);
    return event;
}

void drop_event(Event *event) {
    Held held(queues().lock);
    queues().events.erase(&event_of(event));
}

void record(Event *event, void *stream) {
    Held held(queues().lock);
    event_of(event).last = std::make_shared<Recording>();
    put(stream_of(stream), {"an event", nullptr, nullptr, event->last, false, {}});
}

void wait_for(void *stream, Event *event) {
    Held held(queues().lock);
    if (!event_of(event).last) return;
    put(stream_of(stream), {"a wait", nullptr, event->last, nullptr, false, {}});
}

bool has_passed(Event *event) {
    Held held(queues().lock);
    std::shared_ptr<Recording> recording = event_of(event).last;
    unsigned works = below(3) ? 0 : below(20);
    for (unsigned i = 0; i < works; i++) {
        std::vector<Stream *> ready = ready_streams();
        if (ready.empty()) break;
        run_first(held, ready[below(ready.size())]);
    }
    return !recording || recording->passed;
}

void await(Event *event) {
    Held held(queues().lock);
    std::shared_ptr<Recording> recording = event_of(event).last;
    if (!recording) return;
    run_until(held, nullptr, [&] { return recording->passed; });
}

float milliseconds(Event *from, Event *to) {
    Held held(queues().lock);
    std::shared_ptr<Recording> began = event_of(from).last, ended = event_of(to).last;
    if (!began || !ended || !began->passed || !ended->passed) return -1;
    return std::chrono::duration<float, std::milli>(ended->at - began->at).count();
}

EXPORT void standin_enqueue(void *stream, void (*work)(void *), void *data) {
    enqueue(stream, "a library's work", [=] { work(data); }, true);
}
