// What the kernels are compared with: the textbook's formulas in f64, one number at a time, and the
// tools of the comparison.
#pragma once
#include "device.cuh"

#include <map>
#include <string>
#include <vector>

typedef std::vector<double> Numbers;

static std::mt19937 randomness(7);
static int num_failures = 0;

inline double normal() { return std::normal_distribution<double>()(randomness); }
inline int below(int end) { return std::uniform_int_distribution<int>(0, end - 1)(randomness); }

// A buffer of exactly `count` numbers, so that the address sanitizer sees what lies outside.
template <typename T> struct Buffer {
    T *at;
    size_t count;
    explicit Buffer(size_t count) : at((T *)malloc(count * sizeof(T) + !count)), count(count) {
        forget();
    }
    explicit Buffer(const std::vector<T> &from) : Buffer(from.size()) {
        if (count) memcpy((void *)at, from.data(), count * sizeof(T));
    }
    Buffer(const Buffer &) = delete;
    ~Buffer() { free(at); }
    void forget() { memset((void *)at, 0xff, count * sizeof(T)); }
    Numbers wide() const {
        Numbers numbers;
        for (size_t i = 0; i < count; i++) numbers.push_back(to_float(at[i]));
        return numbers;
    }
};

// Standard normal numbers, rounded to T, and what they are.
template <typename T> std::vector<T> random_numbers(size_t count, double size = 1.0) {
    std::vector<T> numbers;
    for (size_t i = 0; i < count; i++) numbers.push_back(from_float<T>((float)(size * normal())));
    return numbers;
}
inline std::vector<u32> random_ids(size_t count, int end) {
    std::vector<u32> ids;
    for (size_t i = 0; i < count; i++) ids.push_back(below(end));
    return ids;
}

// The error that rounding to T may leave, relative to the largest number.
template <typename T> double tolerance() {
    return sizeof(T) == 4 ? 1e-5 : std::is_same<T, f16>::value ? 2e-3 : 1e-2;
}

// Fails unless every number is within `allowed` of the reference, relative to its largest.
inline void compare(const std::string &what, const Numbers &found, const Numbers &expected,
                    double allowed) {
    double size = 1.0, worst = 0.0;
    for (double x : expected) size = std::max(size, fabs(x));
    size_t at = 0;
    bool sound = found.size() == expected.size();
    for (size_t i = 0; sound && i < found.size(); i++) {
        double error = fabs(found[i] - expected[i]) / size;
        if (!(error <= worst)) worst = error, at = i;
        if (error != error) break;
    }
    if (sound && worst <= allowed) return;
    num_failures++;
    printf("FAILED %s: error %.3g at %zu of %zu (allowed %.3g)\n", what.c_str(), worst, at,
           found.size(), allowed);
}

inline void check(const std::string &what, bool holds) {
    if (holds) return;
    num_failures++;
    printf("FAILED %s\n", what.c_str());
}

inline Dropout random_dropout(bool drops) {
    if (!drops) return {0, 0, 1.0f};
    double probability = 0.1 + 0.4 * below(100) / 100.0;
    u64 key = ((u64)randomness() << 32) | randomness();
    return {key, (u32)llround(probability * 4294967296.0), (float)(1.0 / (1.0 - probability))};
}
inline double factor(const Dropout &dropout, u64 row, u32 column) {
    return kept(dropout, row_key(dropout, row), column);
}

inline std::string shape(const char *name, size_t rows, int width) {
    return std::string(name) + " " + std::to_string(rows) + " × " + std::to_string(width);
}
