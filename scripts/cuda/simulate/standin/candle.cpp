// Those of candle's own kernels that the program's tensors come to outside of ours: copies, casts,
// numbers one by one. Each is the loop that its name says, over a layout of dims and strides (null:
// as the numbers lie).
#include "../numbers.h"
#include "kernels.h"

namespace {
typedef uint32_t u32;

inline double wide(float x) { return x; }
inline double wide(double x) { return x; }
inline double wide(bf16 x) { return to_float(x); }
inline double wide(f16 x) { return to_float(x); }
inline double wide(u32 x) { return x; }
inline double wide(int64_t x) { return (double)x; }
inline double wide(uint8_t x) { return x; }

template <typename T> T narrow(double x) { return (T)x; }
template <> bf16 narrow(double x) { return from_float<bf16>((float)x); }
template <> f16 narrow(double x) { return from_float<f16>((float)x); }

// Where number `index` of a layout lies.
size_t place(size_t index, size_t num_dims, const size_t *info) {
    if (!info) return index;
    size_t at = 0;
    for (size_t i = num_dims; i-- > 0;) {
        at += index % info[i] * info[num_dims + i];
        index /= info[i];
    }
    return at;
}

template <typename S, typename T>
void cast(size_t count, size_t num_dims, const size_t *info, const S *from, T *to) {
    for (size_t i = 0; i < count; i++) to[i] = narrow<T>(wide(from[place(i, num_dims, info)]));
}

template <typename T>
void copy(size_t count, size_t num_dims, const size_t *info, const T *from, T *to) {
    if (!from) from = to;
    for (size_t i = 0; i < count; i++) to[i] = from[place(i, num_dims, info)];
}

template <typename T>
void affine(size_t count, size_t num_dims, const size_t *info, const T *from, T *to, T factor, T more) {
    if (!from) from = to;
    for (size_t i = 0; i < count; i++) {
        to[i] = narrow<T>(wide(from[place(i, num_dims, info)]) * wide(factor) + wide(more));
    }
}

template <typename T>
void set_all(size_t count, size_t num_dims, const size_t *info, T value, T *to) {
    for (size_t i = 0; i < count; i++) to[place(i, num_dims, info)] = value;
}

// Matrices of count × width numbers, at distances of their own from row to row.
template <typename T>
void copy_rows(const T *from, T *to, u32 count, u32 width, u32 from_stride, u32 to_stride) {
    for (u32 i = 0; i < count; i++) {
        for (u32 j = 0; j < width; j++) to[i * to_stride + j] = from[i * from_stride + j];
    }
}

struct Candle {
    std::vector<Kernel> all;
    template <typename F> void add(const std::string &name, F function) {
        auto call = [](const Launch &, auto function, auto... arguments) { function(arguments...); };
        // Names live as long as the process.
        all.push_back(describe((new std::string(name))->c_str(), function, call));
    }
    template <typename S> void casts(const std::string &from) {
        add("cast_" + from + "_f32", cast<S, float>);
        add("cast_" + from + "_f64", cast<S, double>);
        add("cast_" + from + "_bf16", cast<S, bf16>);
        add("cast_" + from + "_f16", cast<S, f16>);
        add("cast_" + from + "_u32", cast<S, u32>);
        add("cast_" + from + "_i64", cast<S, int64_t>);
        add("cast_" + from + "_u8", cast<S, uint8_t>);
        add("ucopy_" + from, copy<S>);
        add("copy2d_" + from, copy_rows<S>);
        add("affine_" + from, affine<S>);
        add("const_set_" + from, set_all<S>);
    }
    Candle() {
        casts<float>("f32");
        casts<double>("f64");
        casts<bf16>("bf16");
        casts<f16>("f16");
        casts<u32>("u32");
        casts<int64_t>("i64");
        casts<uint8_t>("u8");
        add_kernels("candle", std::move(all));
    }
} candle;
} // namespace
