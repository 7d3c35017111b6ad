// What the program's way through candle asks of cuRAND: a generator when a device is opened, and uniform
// numbers for what measures matrix products. Not cuRAND's numbers.
#include <string.h>

#include <random>

#include "machine.h"

EXPORT int standin_has_context();

namespace {
struct Generator {
    void *stream = nullptr;
    std::mt19937_64 numbers;
};
} // namespace

EXPORT int curandCreateGenerator(void **handle, int) {
    *handle = new Generator;
    return standin_has_context() ? 0 : 203;
}

EXPORT int curandSetStream(void *handle, void *stream) {
    ((Generator *)handle)->stream = stream;
    return 0;
}

EXPORT int curandSetPseudoRandomGeneratorSeed(void *handle, unsigned long long seed) {
    ((Generator *)handle)->numbers.seed(seed);
    return 0;
}

EXPORT int curandGenerateUniform(void *handle, float *to, size_t count) {
    Generator *generator = (Generator *)handle;
    uint64_t seed = generator->numbers();
    enqueue(generator->stream, "random numbers", [=] {
        standin_memory(to, count * sizeof(float), "random numbers");
        std::minstd_rand numbers(seed);
        std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
        for (size_t i = 0; i < count; i++) to[i] = uniform(numbers);
    });
    return 0;
}

// Devices outlive what is in their streams, so generators are not given back.
EXPORT int curandDestroyGenerator(void *) { return 0; }
